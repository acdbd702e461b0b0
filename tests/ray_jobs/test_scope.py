"""The proposed project file: what it takes from a folder of photographs."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gitops.errors import DataError
from gitops.manifest import Project
from ray_jobs import scope
from ray_jobs.dataset import list_folder


def bar(seed: int, *, color: bool = False, size: tuple[int, int] = (240, 320)) -> NDArray[np.uint8]:
    """A bar of 160×40 pixels at any angle on a plain background."""
    random = np.random.default_rng(seed)
    image = np.full((*size, 3), 200.0)
    corners = cv2.boxPoints(((size[1] / 2, size[0] / 2), (160, 40), float(random.uniform(0, 180))))
    cv2.fillPoly(image, [corners.astype(np.int32)], (60, 90, 160) if color else (90, 90, 90))
    return np.asarray(np.clip(image + random.normal(0, 2, (*size, 1)), 0, 255), np.uint8)


def texture(seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    height, width = random.integers(100, 300, 2)
    coarse = random.normal(120, 25, (6, 8)).astype(np.float32)
    image = cv2.resize(coarse, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(image + random.normal(0, 5, image.shape), 0, 255), np.uint8)


def fill(folder: Path, counts: dict[str, int], draw: object = bar, **options: object) -> Path:
    assert callable(draw)
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(folder / name / f"{index:03d}.png"), draw(1000 * number + index, **options))
    return folder


def proposed(folder: Path, **options: str) -> Project:
    file = folder.parent / "project.yaml"
    project = scope.propose(folder, file, owner="me@example.com", **options)
    assert Project.read(file) == project
    return project


def test_a_part_on_a_plain_background_is_straightened(tmp_path: Path) -> None:
    project = proposed(fill(tmp_path / "My bars", {"good": 12, "bent": 8}))
    assert (project.name, project.classes) == ("my-bars", ("good", "bent"))
    settings = project.preprocessing
    assert (settings.align, settings.channels) == ("foreground", 1)
    assert settings.width / settings.height == pytest.approx(160 / 40, rel=0.4)
    assert project.cross_validation.folds == 5
    assert len(list_folder(tmp_path / "My bars", "", project.classes).photographs) == 20


def test_colour_is_seen(tmp_path: Path) -> None:
    assert proposed(fill(tmp_path / "a", {"ok": 6, "ng": 6}, color=True)).preprocessing.channels == 3


def test_a_texture_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    settings = proposed(fill(tmp_path / "tile", {"good": 20, "crack": 20}, texture)).preprocessing
    assert settings.align == "none"
    assert settings.height % 32 == settings.width % 32 == 0


def test_enough_of_each_kind_makes_classes_and_few_of_each_make_kinds(tmp_path: Path) -> None:
    many = proposed(fill(tmp_path / "many" / "a", {"good": 5, "bent": 25, "scratched": 25}))
    assert many.classes == ("good", "bent", "scratched")
    folder = fill(tmp_path / "few" / "a", {"train/good": 9, "test/good": 3, "test/bent": 4, "test/Big dent": 3})
    (folder / "ground_truth/bent").mkdir(parents=True)
    cv2.imwrite(str(folder / "ground_truth/bent/000_mask.png"), bar(1))
    few = proposed(folder)
    assert few.classes == ("good", "defective")
    listed = list_folder(folder, "", few.classes, folders=few.data.folders).photographs
    assert sorted((item.label, item.kind or "") for item in listed) == [
        *[("defective", "Big dent")] * 3,
        *[("defective", "bent")] * 4,
        *[("good", "")] * 12,
    ]


def test_names_that_are_no_classes_are_mapped(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", {"OK (front)": 4, "def_front": 4})
    project = proposed(folder)
    assert project.classes == ("ok-front", "def-front")
    listed = list_folder(folder, "", project.classes, folders=project.data.folders).photographs
    assert [item.label for item in listed] == ["ok-front"] * 4 + ["def-front"] * 4


def test_kaggles_table_is_read(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", {"train": 8})
    rows = "".join(f"{index:03d}.png,{int(index > 4)}\n" for index in range(8))
    (folder / "train.csv").write_text("filename,anomaly\n" + rows)
    assert proposed(folder).classes == ("good", "defective")


def test_many_photographs_need_no_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "_MOST_IMAGES_FOR_FOLDS", 10)
    project = proposed(fill(tmp_path / "a", {"good": 6, "bad": 6}))
    assert (project.cross_validation.folds, project.split.validation) == (0, 0.1)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds no PNG"),
        ({"good": 2}, "only 'good': sort them"),
        ({"a": 1, "b": 1}, "which of the folders a, b .*--good"),
        ({"good": 5, "bad": 2}, "5 good, 2 bad: a class needs 3"),
    ],
)
def test_what_cannot_be_understood_is_a_clear_error(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    folder = fill(tmp_path / "data", counts)
    folder.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        proposed(folder)
    assert not (tmp_path / "project.yaml").exists()


def test_good_can_be_said_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", {"a": 3, "b": 4})
    with pytest.raises(DataError, match="no folder 'c': it has a, b"):
        proposed(folder, good="c")
    assert proposed(folder, good="b").classes == ("b", "a")


def test_a_project_file_is_never_overwritten(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", {"good": 3, "bad": 3})
    (tmp_path / "project.yaml").write_text("mine")
    with pytest.raises(DataError, match="left as it is"):
        proposed(folder)
    assert (tmp_path / "project.yaml").read_text() == "mine"
