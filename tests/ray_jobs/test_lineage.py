from ray_jobs.lineage import NAMED_FILES, Image, changes, summary


def test_changes_go_by_content_not_by_name() -> None:
    before = [Image("a", "1", "good"), Image("b", "2", "good"), Image("c", "3", "good"), Image("d", "4", "good")]
    after = [Image("renamed", "1", "good"), Image("b", "2", "bad"), Image("c", "9", "good"), Image("e", "5", "bad")]
    found = changes(before, after)
    assert found.added.filenames == ("c", "e")
    assert found.removed.filenames == ("c", "d")
    assert found.relabelled.filenames == ("b",)
    assert summary("0123456789abcdef", found) == "changes since 0123456789ab: 2 added, 2 removed, 1 relabelled"


def test_nothing_changed() -> None:
    images = [Image("a", "1", "good"), Image("copy", "1", "good")]
    assert summary("0" * 64, changes(images, images[::-1])).endswith("no photograph and no label")


def test_names_are_cut_and_counts_are_not() -> None:
    found = changes([], [Image(f"{number:04}", str(number), "good") for number in range(NAMED_FILES + 7)])
    assert found.added.count == NAMED_FILES + 7
    assert len(found.added.filenames) == NAMED_FILES
    assert found.added.filenames[0] == "0000"
