import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gitops.contracts.project import DataSource, Project
from gitops.errors import DataError
from gitops.state import State
from ray_jobs.dataset import extract, list_folder, listing_file, read_listing
from ray_jobs.labels import class_of
from ray_jobs.stage import Stage

CLASSES = ("good", "defective")
KIND = r"^(?P<kind>[a-z_]+?)_?\d+\.\w+$"


def fill(folder: Path, files: dict[str, str]) -> Path:
    """Write text files: the extraction looks at names and labels only, never into an image."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def kaggle_layout(folder: Path, table: str, *images: str) -> Path:
    return fill(folder, {"train.csv": table, **{f"train/{name}": name for name in images}})


def stage_of(tmp_path: Path, **data: Any) -> Stage:
    project = Project(
        name="part",
        goal="Tell good from bad.",
        owner="me",
        classes=CLASSES,
        data=DataSource(**{"source": "folder", "path": "data", **data}),
        environments=("local",),
    )
    return Stage(project, tmp_path / "project.yaml", State.at(tmp_path / "state"))


def test_kaggle_layout_gives_labels_and_kinds(tmp_path: Path) -> None:
    table = "\ufefffilename,anomaly\nscratch_head003.png,1\nok000.png,0\ntrain/bent7.png,1\n"
    folder = kaggle_layout(tmp_path, table, "ok000.png", "scratch_head003.png", "bent7.png")
    listing = list_folder(folder, "here", CLASSES, KIND)
    found = [(item.filename, item.label, item.kind) for item in listing.photographs]
    assert found == [
        ("bent7.png", "defective", "bent"),
        ("ok000.png", "good", None),
        ("scratch_head003.png", "defective", "scratch_head"),
    ]
    assert listing.photographs[1].sha256 == hashlib.sha256(b"ok000.png").hexdigest()
    assert listing.source == "here"
    assert not listing.quarantined


def test_what_has_no_usable_label_or_file_is_set_aside(tmp_path: Path) -> None:
    table = "filename,anomaly\na.png,0\na.png,0\nb.png,0\nb.png,1\ngone.png,1\n../escape.png,1\nd.png,1\n"
    folder = kaggle_layout(tmp_path / "data", table, "a.png", "b.png", "c.png", "d.png", "notes.txt")
    fill(tmp_path, {"data/escape.png": "outside of train/"})
    listing = list_folder(folder, "here", CLASSES)
    assert [item.filename for item in listing.photographs] == ["a.png", "d.png"]
    assert {item.filename: item.reason for item in listing.quarantined} == {
        "../escape.png": "it has a label, but there is no such file",
        "b.png": "it is labelled both defective and good",
        "c.png": "it has no label",
        "gone.png": "it has a label, but there is no such file",
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train/a.png": ""}, r"has train/ but no train\.csv"),
        ({"train/a.png": "", "train.csv": "file,label\na.png,1\n"}, "no column anomaly and filename"),
        (
            {"train/a.png": "", "train.csv": "filename,anomaly\na.png,2\n"},
            r"line 2: anomaly '2' is no class.*good \(0\)",
        ),
        (
            {"train/a.png": "", "train.csv": "filename,anomaly\nb.png,1\n"},
            "no labelled image(.|\n)*a.png: it has no label",
        ),
        (
            {"train/a.png": "", "train.csv": f'filename,anomaly\n"a.png,1\n{"b.png,0" * 20_000}\n'},
            r"train\.csv, line \d+: field larger than field limit .*is a quotation mark missing\?",
        ),
        ({"readme": ""}, "is empty"),
        ({"good/.hidden": ""}, "is empty"),
        ({"fine/a.png": "", "defective/b.png": ""}, "'fine', which is no class.*need a folder 'good'"),
    ],
)
def test_an_unusable_folder_is_a_clear_error(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_folder(fill(tmp_path, files), "here", CLASSES)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"good/1.png": "a", "defective/bent_2.png": "b"})
    found = [(item.filename, item.label, item.kind) for item in list_folder(folder, "", CLASSES, KIND).photographs]
    assert found == [("defective/bent_2.png", "defective", "bent"), ("good/1.png", "good", None)]


def test_a_folder_for_each_kind_of_defect(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"good/1.png": "a", "bent/x/1.png": "b", "scratch/1.png": "c", ".git/config": "d"})
    found = [(item.filename, item.label, item.kind) for item in list_folder(folder, "", CLASSES).photographs]
    assert found == [
        ("bent/x/1.png", "defective", "bent"),
        ("good/1.png", "good", None),
        ("scratch/1.png", "defective", "scratch"),
    ]


def test_folders_at_any_depth_and_under_other_names(tmp_path: Path) -> None:
    files = {"train/OK_front/1.png": "a", "test/OK_front/2.png": "b", "test/bent tip/1.png": "c", "test/NG/4.png": "e"}
    folder = fill(tmp_path, {**files, "ground_truth/bent tip/1_mask.png": "d"})
    classes, folders = ("ok-front", "ng-all"), {"NG": "ng-all", "ground_truth": None}
    found = [(p.filename, p.label, p.kind) for p in list_folder(folder, "", classes, folders=folders).photographs]
    assert found == [
        ("test/NG/4.png", "ng-all", None),
        ("test/OK_front/2.png", "ok-front", None),
        ("test/bent tip/1.png", "ng-all", "bent tip"),
        ("train/OK_front/1.png", "ok-front", None),
    ]


def test_more_than_two_classes_are_folders_or_numbers(tmp_path: Path) -> None:
    classes = ("good", "bent", "rusty")
    folder = fill(tmp_path / "one", {"good/1.png": "a", "rusty/1.png": "b"})
    assert [item.label for item in list_folder(folder, "", classes).photographs] == ["good", "rusty"]
    fill(folder, {"other/1.png": "c"})
    with pytest.raises(DataError, match="'other', which is no class"):
        list_folder(folder, "", classes)
    table = kaggle_layout(tmp_path / "two", "filename,anomaly\na.png,2\nb.png,0\n", "a.png", "b.png")
    assert [item.label for item in list_folder(table, "", classes).photographs] == ["rusty", "good"]


@pytest.mark.parametrize(
    ("value", "label"),
    [("good", "good"), ("bad", "defective"), ("Bad", "defective"), ("1", "defective"), ("defective", "defective")],
)
def test_ways_to_write_a_label(value: str, label: str) -> None:
    assert class_of(value, CLASSES) == label


@pytest.mark.parametrize("value", ["", "2", "-1", "maybe", "0.5"])
def test_what_is_no_label(value: str) -> None:
    assert class_of(value, CLASSES) is None


def test_short_label_studio_export_wins_over_the_table(tmp_path: Path) -> None:
    folder = kaggle_layout(tmp_path, "filename,anomaly\na.png,0\nb.png,0\n", "a.png", "b.png", "c.png")
    labels = tmp_path / "labels.json"
    tasks = [
        {"id": 1, "image": "/data/upload/1/0a1b2c3d-a.png", "choice": "bad"},
        {"id": 2, "image": "s3://bucket/some/c.png", "choice": {"choices": ["good"]}},
        {"id": 3, "image": "http://host/data/local-files/?d=train%2Fb.png"},
    ]
    labels.write_text(json.dumps(tasks))
    listing = list_folder(folder, "", CLASSES, labels=labels)
    assert {item.filename: item.label for item in listing.photographs} == {
        "a.png": "defective",
        "b.png": "good",
        "c.png": "good",
    }


def test_full_label_studio_export_labels_a_plain_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", {"a.png": "a", "more/b.png": "b", "c.png": "c", "d.png": "d"})

    def task(image: str, *choices: str, cancelled: bool = False) -> dict[str, Any]:
        result = [{"type": "choices", "from_name": "choice", "value": {"choices": [choice]}} for choice in choices]
        return {"data": {"image": image}, "annotations": [{"result": result, "was_cancelled": cancelled}]}

    tasks = [
        task("a.png", "good"),
        task("/x/b.png", "defective"),
        task("c.png", "good", "bad"),
        task("d.png", "bad", cancelled=True),
    ]
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(tasks))
    listing = list_folder(folder, "", CLASSES, labels=labels)
    assert {item.filename: item.label for item in listing.photographs} == {"a.png": "good", "more/b.png": "defective"}
    assert {item.filename: item.reason for item in listing.quarantined} == {
        "c.png": "it is labelled both defective and good",
        "d.png": "it has no label",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "are not JSON"),
        ("{}", "no list of tasks"),
        ('[{"id": 1}]', "task 1 .* names no image"),
        ('[{"image": "a.png", "choice": "so-so"}]', "task 1 .*choice 'so-so' is no class"),
        ('[{"image": "1.png", "choice": "good"}]', "may mean bad/1.png or good/1.png"),
    ],
)
def test_a_wrong_export_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    folder = fill(tmp_path / "data", {"good/1.png": "a", "bad/1.png": "b"})
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list_folder(folder, "", CLASSES, labels=tmp_path / "labels.json")


def test_a_reference_that_begins_like_an_address_and_is_none_is_a_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", {"a.png": "a"})
    (tmp_path / "labels.json").write_text('[{"image": "//[x/a.png", "choice": "good"}]')
    (photograph,) = list_folder(folder, "", CLASSES, labels=tmp_path / "labels.json").photographs
    assert (photograph.filename, photograph.label) == ("a.png", "good")


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("^a", "no group named kind")])
def test_a_wrong_kind_pattern_is_a_clear_error(tmp_path: Path, pattern: str, message: str) -> None:
    folder = fill(tmp_path, {"good/1.png": "a"})
    with pytest.raises(DataError, match=message):
        list_folder(folder, "", CLASSES, pattern)


def test_extracting_again_does_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle_layout(tmp_path / "data", "filename,anomaly\na.png,0\nb.png,1\n", "a.png", "b.png")
    stage = stage_of(tmp_path)
    first = extract(stage)
    written = listing_file(stage).stat().st_mtime_ns
    assert "2 photographs" in capsys.readouterr().out
    assert extract(stage) == first == read_listing(stage)
    assert "nothing to do: 2 photographs" in capsys.readouterr().out
    assert listing_file(stage).stat().st_mtime_ns == written
    (tmp_path / "data/train/a.png").write_text("another")
    assert extract(stage) != first


def test_rendered_source_and_the_folder_option(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, source="rendered", rendered_images=20, rendered_defective_share=0.5, kind_pattern=KIND)
    listing = extract(stage)
    assert len(listing.photographs) == 20
    assert sum(item.label == "defective" for item in listing.photographs) == 10
    assert len({item.kind for item in listing.photographs if item.kind}) == 5
    folder = Path(listing.photographs[0].path).parents[1]
    assert extract(stage, str(folder)).photographs == listing.photographs
    with pytest.raises(DataError, match="does not exist"):
        extract(stage, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"needs `data\.kaggle"):
        extract(stage, "kaggle")


def test_no_listing_yet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the dataset stage"):
        read_listing(stage_of(tmp_path))
