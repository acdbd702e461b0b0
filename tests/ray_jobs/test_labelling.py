import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gitops.errors import ContractError, DataError, MergelineError
from ray_jobs import dataset
from ray_jobs.label_book import KeptLabel, LabelBook, book_file, merged, read_book
from ray_jobs.labelling import LabelChange, import_labels
from ray_jobs.stage import Stage
from tests.photographs import stage_on

NAMES = ("a.png", "b.png", "c.png", "d.png")
TABLE = "filename,anomaly\na.png,0\nb.png,1\nc.png,0\nc.png,1\n"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Two labelled photographs, one labelled both, one not at all; nothing here looks into an image."""
    return stage_of(tmp_path)


def stage_of(tmp_path: Path, **settings: Any) -> Stage:
    (tmp_path / "data/train").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / "data/train" / name).write_text(name)
    (tmp_path / "data/train.csv").write_text(TABLE)
    return stage_on(tmp_path / "data", tmp_path / "state", **settings)


def sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def task(image: str, *choices: str, at: str = "2026-05-01T10:00:00.5Z", by: Any = 3, **data: str) -> dict[str, Any]:
    """A task as Label Studio's full export writes it."""
    result = [
        {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
        for choice in choices
    ]
    annotation = {"completed_by": by, "created_at": at, "updated_at": at, "was_cancelled": False, "result": result}
    return {"id": 1, "data": {"image": image, **data}, "annotations": [annotation] if choices else []}


def write(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(items))
    return path


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def names(changes: Sequence[LabelChange]) -> tuple[str, ...]:
    return tuple(item.filename for item in changes)


def labels_of(stage: Stage) -> dict[str, str]:
    return {item.filename: item.label for item in dataset.extract(stage).photographs}


def test_imported_labels_win_over_the_sources_own(stage: Stage, tmp_path: Path) -> None:
    assert labels_of(stage) == {"a.png": "good", "b.png": "defective"}
    tasks = [
        task("/data/upload/1/0a1b2c3d-a.png", "defective", by={"id": 4, "email": "ada@example.com"}),
        task("/data/local-files/?d=data/train/b.png", "defective"),
        task("c.png", "bad"),
        task("/data/local-files/?d=x/renamed.png", "good", sha256=sha256("d.png")),
    ]
    report = import_labels(stage, write(tmp_path / "export.json", tasks))
    assert names(report.new) == ("c.png", "d.png")
    assert [(item.filename, item.before, item.after) for item in report.changed] == [("a.png", "good", "defective")]
    assert report.same == ("b.png",)
    assert "2 new, 1 changed, 1 the same" in report.text()
    assert "a.png (good → defective, says ada@example.com)" in report.text()
    assert labels_of(stage) == {"a.png": "defective", "b.png": "defective", "c.png": "defective", "d.png": "good"}
    kept = read_book(stage).labels[sha256("a.png")]
    assert kept == KeptLabel(
        label="defective",
        filename="a.png",
        by="ada@example.com",
        at=datetime(2026, 5, 1, 10, 0, 0, 500_000, UTC),
        file="export.json",
    )
    assert read_book(stage).labels[sha256("b.png")].by == "Label Studio user 3"


def test_short_exports_and_importing_again(stage: Stage, tmp_path: Path) -> None:
    items = [{"id": 1, "image": "d.png", "choice": "good", "annotator": 2, "updated_at": "2026-05-01T10:00:00Z"}]
    file = write(tmp_path / "export.json", items)
    assert names(import_labels(stage, file).new) == ("d.png",)
    before = book_file(stage).stat().st_mtime_ns
    again = import_labels(stage, file)
    assert again.same == ("d.png",)
    assert not again.new + again.changed
    assert book_file(stage).stat().st_mtime_ns == before


def test_the_newest_label_stays(stage: Stage, tmp_path: Path) -> None:
    new, old = "2026-05-02T00:00:00Z", "2026-05-01T00:00:00Z"
    import_labels(stage, write(tmp_path / "new.json", [task("d.png", "defective", at=new)]))
    report = import_labels(stage, write(tmp_path / "old.json", [task("d.png", "good", at=old)]))
    assert report.older == ("d.png",)
    assert not report.new + report.changed + report.same
    assert "a newer label was imported before: 1: d.png" in report.text()
    assert read_book(stage).labels[sha256("d.png")].label == "defective"
    untimed = [{"image": "d.png", "choice": "good"}]
    assert len(import_labels(stage, write(tmp_path / "untimed.json", untimed), by="Ada").changed) == 1
    kept = read_book(stage).labels[sha256("d.png")]
    assert (kept.label, kept.by, kept.at) == ("good", "Ada", None)


def test_merging_keeps_what_others_imported() -> None:
    one, two = (KeptLabel(label="good", filename=name, file="x.json") for name in ("a.png", "b.png"))
    book = merged(LabelBook(labels={sha256("a.png"): one}), {sha256("b.png"): two})
    assert set(book.labels) == {sha256("a.png"), sha256("b.png")}
    assert merged(book, {}) == book


def test_what_is_not_in_the_source_is_said_and_skipped(stage: Stage, tmp_path: Path) -> None:
    tasks = [
        task("/data/local-files/?d=elsewhere/x.png", "good"),
        task("/data/local-files/?d=data/train/a.png", "good", sha256="0" * 64),  # of this name, but another content
        task("d.png"),
        task("b.png", "defective"),
        task("b.png", "bad"),
    ]
    report = import_labels(stage, write(tmp_path / "export.json", tasks))
    assert report.unknown == ("/data/local-files/?d=elsewhere/x.png", "/data/local-files/?d=data/train/a.png")
    assert report.unlabelled == 1
    assert report.duplicates == ("b.png",)
    assert "skipped, not in file://" in report.text()
    assert "add those photographs to the source" in report.text()
    assert set(read_book(stage).labels) == {sha256("b.png")}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([task("d.png", "good"), task("a.png", "so-so")], "task 2 of .*choice 'so-so' is no class; .*good"),
        ([task("d.png", "good"), {"id": 2}], "task 2 of .* names no image"),
        ([task("d.png", "good", at="yesterday")], "task 1 of .* not as Label Studio writes tasks"),
        ([{"data": {"image": "d.png"}, "annotations": ["good"]}], "task 1 of .* not as Label Studio writes tasks"),
        (
            [task("a.png", "good"), task("d.png", "good"), task("d.png", "bad", by="Bea")],
            r"contradicts itself about 1 photographs(.|\n)*d\.png: good \(task 2 of .*, Label Studio user 3\) and "
            r"defective \(task 3 of .*, Bea\)",
        ),
        ([task("d.png", "good", "bad")], "contradicts itself"),
    ],
)
def test_nothing_is_kept_of_a_file_that_is_wrong(
    stage: Stage, tmp_path: Path, items: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        import_labels(stage, write(tmp_path / "export.json", items))
    assert not stage.state.labels.exists()


def test_a_file_that_is_no_export_is_a_clear_error(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the labels"):
        import_labels(stage, tmp_path / "nowhere.json")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        import_labels(stage, tmp_path / "a.png")
    (tmp_path / "export.json").write_text("[{]")
    with pytest.raises(DataError, match="not JSON"):
        import_labels(stage, tmp_path / "export.json")


def test_a_name_that_may_mean_two_photographs_is_a_clear_error(stage: Stage, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / "data/train" / folder).mkdir()
        (tmp_path / "data/train" / folder / "e.png").write_text(folder)
    with pytest.raises(DataError, match=r"'x/e\.png' in .*export\.json may mean one/e\.png or two/e\.png"):
        import_labels(stage, write(tmp_path / "export.json", [task("x/e.png", "good")]))
    tasks = [task("x/e.png", "good", sha256=sha256("two")), task("/data/local-files/?d=train/one/e.png", "good")]
    assert names(import_labels(stage, write(tmp_path / "export.json", tasks)).new) == ("one/e.png", "two/e.png")


def test_labels_belong_to_the_bytes(stage: Stage, tmp_path: Path) -> None:
    import_labels(stage, write(tmp_path / "export.json", [task("a.png", "defective")]))
    train = tmp_path / "data/train"
    (train / "a.png").rename(train / "moved.png")
    (train / "a.png").write_text("a new photograph")
    assert labels_of(stage) == {"a.png": "good", "b.png": "defective", "moved.png": "defective"}


def test_they_win_over_the_projects_labels_too(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.json", [task("a.png", "defective"), task("d.png", "defective")])
    stage = stage_of(tmp_path, data={"labels": str(labels)})
    assert labels_of(stage)["d.png"] == "defective"
    report = import_labels(stage, write(tmp_path / "export.json", [task("d.png", "good")]))
    assert [item.before for item in report.changed] == ["defective"]
    assert labels_of(stage) == {"a.png": "defective", "b.png": "defective", "d.png": "good"}


def test_a_plain_folder_gets_its_first_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data/more").mkdir(parents=True)
    for name in ("1.png", "more/2.png", "notes.txt"):
        (tmp_path / "data" / name).write_text(name)
    stage = stage_on(tmp_path / "data", tmp_path / "state", classes=["good", "bent", "rusty"])
    tasks = [task("1.png", "rusty"), task("2.png", "1")]
    assert names(import_labels(stage, write(tmp_path / "export.json", tasks)).new) == ("1.png", "more/2.png")
    assert labels_of(stage) == {"1.png": "rusty", "more/2.png": "bent"}
    assert "2 labels as they were imported" in capsys.readouterr().out


def test_the_source_is_the_one_that_was_extracted_last(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "other/train").mkdir(parents=True)
    (tmp_path / "other/train/x.png").write_text("x")
    (tmp_path / "other/train.csv").write_text("filename,anomaly\nx.png,0\n")
    file = write(tmp_path / "export.json", [task("x.png", "bad")])
    assert import_labels(stage, file).unknown == ("x.png",)
    assert len(import_labels(stage, file, data=str(tmp_path / "other")).changed) == 1
    dataset.extract(stage, str(tmp_path / "other"))
    assert import_labels(stage, file).same == ("x.png",)


def test_a_class_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, classes=["good", "bent", "rusty"])
    import_labels(stage, write(tmp_path / "export.json", [task("a.png", "rusty")]))
    fewer = stage_on(tmp_path / "data", tmp_path / "state")
    with pytest.raises(DataError, match=r"labels/screw\.json: a\.png .* is labelled 'rusty', which is no class"):
        dataset.extract(fewer)


def test_feedback_becomes_labels_once_someone_confirms_it(stage: Stage, tmp_path: Path) -> None:
    lines = (
        {"id": "1", "filename": "a.png", "label": "defective", "by": "line 4", "at": "2026-05-01T10:00:00+02:00"},
        {"id": "2", "sha256": sha256("d.png"), "filename": "upload.png", "label": "good"},
        {"id": "3", "sha256": "0" * 64, "label": "good"},
    )
    file = write_lines(tmp_path / "feedback.jsonl", *lines)
    proposed = import_labels(stage, file)
    assert not proposed.written
    assert (names(proposed.new), proposed.changed[0].filename, proposed.unknown) == (("d.png",), "a.png", ("0" * 64,))
    assert "new: 1: d.png (good)" in proposed.text()
    assert "changed: 1: a.png (good → defective, says line 4)" in proposed.text()
    assert "nothing was kept: feedback becomes labels with --confirm --by NAME" in proposed.text()
    with pytest.raises(DataError, match="say who confirms it with --by NAME"):
        import_labels(stage, file, confirm=True)
    assert not stage.state.labels.exists()
    assert import_labels(stage, file, confirm=True, by="Ada").written
    kept = read_book(stage).labels
    assert (kept[sha256("a.png")].by, kept[sha256("a.png")].confirmed_by) == ("line 4", "Ada")
    assert (kept[sha256("d.png")].by, kept[sha256("d.png")].confirmed_by) == (None, "Ada")
    assert labels_of(stage) == {"a.png": "defective", "b.png": "defective", "d.png": "good"}


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ('{"label": "good"}', ContractError, "line 2 of (.|\n)*it names no photograph"),
        ('{"filename": "a.png", "lable": "good"}', ContractError, "line 2 of (.|\n)*did you mean 'label'"),
        ("{", DataError, "line 2 of .*is not JSON"),
    ],
)
def test_wrong_feedback_is_a_clear_error(
    stage: Stage, tmp_path: Path, line: str, kind: type[MergelineError], message: str
) -> None:
    file = tmp_path / "feedback.jsonl"
    file.write_text('{"filename": "a.png", "label": "good"}\n' + line + "\n")
    with pytest.raises(kind, match=message):
        import_labels(stage, file, confirm=True, by="Ada")
    assert not stage.state.labels.exists()


# --- photographs that come with feedback ------------------------------------------------------------------------------


def keep(folder: Path, content: str, label: str, **said: Any) -> None:
    """What the service keeps of feedback."""
    digest = sha256(content)
    (folder / "photographs").mkdir(parents=True, exist_ok=True)
    (folder / f"photographs/{digest}.png").write_text(content)
    line = {"sha256": digest, "photograph": f"photographs/{digest}.png", "filename": "cam 1/part.png", "label": label}
    with (folder / "feedback.jsonl").open("a") as file:
        file.write(json.dumps({**line, "at": "2026-05-01T10:00:00Z", **said}) + "\n")


def test_a_photograph_that_came_with_feedback_joins_the_next_dataset(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "feedback/feedback.jsonl"
    keep(tmp_path / "feedback", "new", "defective", by="Ada")
    keep(tmp_path / "feedback", "a.png", "defective", filename="IMG_1.png")  # of the source, under another name
    name = f"feedback/{sha256('new')[:12]}-part.png"
    listed = import_labels(stage, file)
    assert (names(listed.new), names(listed.changed), listed.brought) == ((name,), ("a.png",), (name,))
    assert not stage.state.labels.exists()
    assert f"not in the source, taken from the feedback: 1: {name}" in listed.text()
    import_labels(stage, file, confirm=True, by="Grace")
    shutil.rmtree(tmp_path / "feedback")  # it is ours now
    assert labels_of(stage) == {"a.png": "defective", "b.png": "defective", name: "defective"}
    photograph = next(item for item in dataset.extract(stage).photographs if item.filename == name)
    assert Path(photograph.path).read_text() == "new"


def test_it_is_known_again_and_its_label_can_change_or_go(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "feedback/feedback.jsonl"
    keep(tmp_path / "feedback", "new", "defective")
    import_labels(stage, file, confirm=True, by="Grace")
    again = import_labels(stage, file, confirm=True, by="Grace")
    assert (again.new, again.brought, len(again.same)) == ((), (), 1)
    tasks = [task("x.png", "good", sha256=sha256("new"))]
    assert len(import_labels(stage, write(tmp_path / "export.json", tasks)).changed) == 1
    name = f"feedback/{sha256('new')[:12]}-part.png"
    assert labels_of(stage)[name] == "good"
    (tmp_path / "data/train/e.png").write_text("new")  # moved into the source later
    assert name not in labels_of(stage)
    assert labels_of(stage)["e.png"] == "good"
    (tmp_path / "data/train/e.png").unlink()
    book_file(stage).unlink()
    assert dataset.extract(stage).quarantined == tuple(
        item for item in dataset.extract(stage).quarantined if "feedback" not in item.filename
    )


def test_who_mends_a_slip_contradicts_nobody(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "feedback/feedback.jsonl"
    keep(tmp_path / "feedback", "new", "defective", by="Ada")
    keep(tmp_path / "feedback", "new", "good", by="Ada", at="2026-05-01T10:00:05Z")
    assert [item.after for item in import_labels(stage, file).new] == ["good"]
    keep(tmp_path / "feedback", "new", "defective", by="Bea", at="2026-05-01T10:00:09Z")
    listed = import_labels(stage, file)
    assert (listed.new, listed.brought, len(listed.contradictory)) == ((), (), 1)
    assert re.search(r"good \(line 2 of .*, Ada\) and defective \(line 3 of .*, Bea\)", listed.contradictory[0])


def test_a_stranger_s_line_keeps_nobody_else_s_from_being_taken(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "feedback"
    keep(folder, "new", "defective", by="Ada")
    keep(folder, "a.png", "so-so", by="Eve", filename="a.png")
    keep(folder, "other", "good", by="Ada")
    keep(folder, "other", "no part at all", by="Eve")
    keep(folder, "third", "good", by="Ada")
    keep(folder, "third", "defective", by="Eve")
    report = import_labels(stage, folder / "feedback.jsonl", confirm=True, by="Grace")
    name = f"feedback/{sha256('new')[:12]}-part.png"
    assert (names(report.new), report.changed, report.brought, report.duplicates) == ((name,), (), (name,), ())
    assert [text.partition(" (")[0] for text in report.no_class] == [
        "a.png: so-so",
        f"feedback/{sha256('other')[:12]}-part.png: no part at all",
    ]
    assert [text.partition(":")[0] for text in report.contradictory] == [f"feedback/{sha256('third')[:12]}-part.png"]
    assert "skipped, labelled with what is no class of the project: 2: a.png: so-so" in report.text()
    assert "skipped, as people contradict each other: 1: " in report.text()
    assert labels_of(stage) == {"a.png": "good", "b.png": "defective", name: "defective"}
    assert len(list(dataset.brought_folder(stage).iterdir())) == 1


def test_a_photograph_that_is_not_what_was_said_is_a_clear_error(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "feedback/feedback.jsonl"
    keep(tmp_path / "feedback", "new", "defective")
    photograph = tmp_path / f"feedback/photographs/{sha256('new')}.png"
    photograph.write_text("another")
    with pytest.raises(DataError, match=r"line 1 of .* has the SHA-256"):
        import_labels(stage, file, confirm=True, by="Grace")
    photograph.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        import_labels(stage, file, confirm=True, by="Grace")
    assert not stage.state.labels.exists()
