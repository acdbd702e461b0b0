"""The proposed project file: what it takes from a folder of photographs."""

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gitops.contracts.project import Preprocessing, Project
from gitops.errors import DataError
from ray_jobs import scope
from ray_jobs.dataset import list_folder
from ray_jobs.learner import LEAST_REMEMBERED
from ray_jobs.split import Sample, assign_folds, assign_splits
from tests.photographs import write_folder


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


def proposed(folder: Path, **options: Any) -> Project:
    file = folder.parent / "project.yaml"
    project = scope.propose(folder, file, owner="me@example.com", **options)
    assert Project.read(file) == project
    return project


def labels(folder: Path, project: Project) -> Counter[str]:
    """How many photographs of each class the extraction finds, and how many have none."""
    listing = list_folder(folder, "", project.classes, folders=project.data.folders)
    return Counter([item.label for item in listing.photographs] + ["none"] * len(listing.quarantined))


def test_a_part_on_a_plain_background_is_straightened(tmp_path: Path) -> None:
    project = proposed(fill(tmp_path / "My bars", {"good": 12, "bent": 8}))
    assert (project.name, project.classes) == ("my-bars", ("good", "bent"))
    settings = project.preprocessing
    assert (settings.align, settings.channels) == ("foreground", 1)
    assert (settings.height, settings.width) == (96, 256)
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


@pytest.mark.parametrize(
    ("counts", "good", "expected"),
    [
        ({"0": 6, "1": 7}, ("0",), {"0": 6, "1": 7}),
        ({"true": 6, "false": 7}, ("true",), {"true": 6, "false": 7}),
        ({"OK (front)": 6, "bent": 5, "Big dent": 2}, (), {"ok-front": 6, "defective": 7}),
        ({"良品": 6, "不良品": 7}, ("良品",), {"class-0": 6, "class-1": 7}),
        ({"casting/train/ok_front": 5, "casting/test/ok_front": 1, "casting/test/def_front": 6}, (), [6, 6]),
        ({"Data/Images/Normal": 6, "Data/Images/Anomaly": 5}, (), {"normal": 6, "anomaly": 5}),
        ({"line1/ok": 4, "line2/ok": 2, "line1/ng": 5, "line2/ng": 1}, (), {"ok": 6, "ng": 6}),
        ({"training_set/good": 5, "test_set/good": 1, "training_set/bad": 6}, (), {"good": 6, "bad": 6}),
        ({"ok_front": 5, "ok_back": 6, "def": 7}, ("ok_front", "ok_back"), {"ok-front": 11, "def": 7}),
        ({"train/good": 6, "train/bad": 6, "test": 4}, (), {"good": 6, "bad": 6, "none": 4}),
    ],
)
def test_folders_are_read_as_the_extraction_reads_them(
    tmp_path: Path, counts: dict[str, int], good: tuple[str, ...], expected: dict[str, int] | list[int]
) -> None:
    folder = fill(tmp_path / "data", counts)
    found = labels(folder, proposed(folder, good=good))
    assert (found if isinstance(expected, dict) else list(found.values())) == expected


@pytest.mark.parametrize(("good", "bad"), [(60, 5), (5, 60), (10, 10), (20, 5), (6, 6), (40, 30)])
def test_what_is_proposed_can_be_trained(tmp_path: Path, good: int, bad: int) -> None:
    folder = fill(tmp_path / "data", {"good": good, "bad": bad})
    project = proposed(folder)
    samples = [
        Sample(f"{number:064x}", f"{number:0256x}", f"{number:0256x}", "good" if number < good else "bad", None)
        for number in range(good + bad)
    ]
    groups = np.arange(good + bad)
    splits = assign_splits(samples, groups, project.classes, project.split)
    train = [sample for sample, split in zip(samples, splits, strict=True) if split == "train"]
    folds = project.cross_validation.folds
    fold_of = np.array(assign_folds(train, groups[: len(train)], project.classes, folds, 0))
    least_good = min(sum(s.label == "good" for s in np.array(train, object)[fold_of != fold]) for fold in range(folds))
    assert len(train) - np.bincount(fold_of).max() >= project.training.batch_size
    assert project.training.batch_size % 2 == 0
    assert project.training.memory is None or least_good >= LEAST_REMEMBERED


def test_what_is_no_photograph_or_a_drawn_answer_is_left_out(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", {"good": 6, "bad": 6})
    (folder / "annotations").mkdir()
    (folder / "annotations/1.xml").write_text("<xml/>")
    (folder / "_annotations.json").write_text("{}")
    assert labels(folder, proposed(folder)) == {"good": 6, "bad": 6}


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", {"bad": 7})
    folder = fill(tmp_path / "data", {"good": 6})
    (folder / "bad").symlink_to(elsewhere / "bad")
    (folder / "good" / "again").symlink_to(folder)
    assert labels(folder, proposed(folder)) == {"good": 6, "bad": 7}


@pytest.mark.parametrize("rusty", [1, 5])
def test_a_colored_spot_on_gray_parts_is_colour(tmp_path: Path, rusty: int) -> None:
    folder = fill(tmp_path / "data", {"good": 30, "rusty": 6})
    for file in sorted((folder / "rusty").iterdir())[:rusty]:
        pixels = cv2.imread(str(file))
        assert pixels is not None
        cv2.circle(pixels, (160, 120), 18, (20, 40, 170), -1)
        cv2.imwrite(str(file), pixels)
    assert proposed(folder).preprocessing.channels == 3


def test_a_name_that_only_begins_like_good_is_not_taken_for_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which of the folders fine_scratch, reference holds"):
        proposed(fill(tmp_path / "data", {"reference": 6, "fine_scratch": 6}))


def test_long_parts_stay_within_what_an_input_may_be() -> None:
    for width, ratio in ((4000.0, 31.0), (80.0, 0.02)):
        height, length = scope._input_size(width, ratio)
        Preprocessing(height=height, width=length)


def test_names_that_are_no_classes_are_mapped(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", {"OK (front)": 5, "def_front": 5})
    project = proposed(folder)
    assert project.classes == ("ok-front", "def-front")
    listed = list_folder(folder, "", project.classes, folders=project.data.folders).photographs
    assert [item.label for item in listed] == ["ok-front"] * 5 + ["def-front"] * 5


def test_kaggles_table_is_read(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", {"train": 11})
    rows = "".join(f"{index:03d}.png,{int(index > 5)}\n" for index in range(11))
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
        ({"good": 6, "bad": 4}, "6 good, 4 bad: a class needs 5"),
        ({"good/scratch": 6, "scratch": 6}, "can be read in two ways"),
    ],
)
def test_what_cannot_be_understood_is_a_clear_error(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    folder = fill(tmp_path / "data", counts)
    folder.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        proposed(folder)
    assert not (tmp_path / "project.yaml").exists()


def test_good_can_be_said_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", {"a": 6, "b": 5})
    with pytest.raises(DataError, match="has only 'a', 'b'"):
        proposed(folder, good=("c",))
    assert proposed(folder, good=("b",)).classes == ("b", "a")


def test_a_table_that_says_which_are_good_is_not_overruled_in_silence(tmp_path: Path) -> None:
    write_folder(tmp_path / "photographs", good=6, defective=6)
    with pytest.raises(DataError, match=r"train\.csv says which photographs are good: leave out --good"):
        scope.propose(tmp_path / "photographs", tmp_path / "parts.yaml", good=("ok",), owner="a@example.com")


def test_a_project_file_is_never_overwritten(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", {"good": 3, "bad": 3})
    (tmp_path / "project.yaml").write_text("mine")
    with pytest.raises(DataError, match="left as it is"):
        proposed(folder)
    assert (tmp_path / "project.yaml").read_text() == "mine"
