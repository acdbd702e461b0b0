import pytest

from gitops.contracts.dataset import Feedback
from serve.live_accuracy import LEAST_FEEDBACK, live_accuracy


def line(
    number: int, label: str = "good", said: str | None = "good", version: str | None = "1", *, sampled: bool = True
) -> str:
    feedback = Feedback(
        filename=f"{number}.png",
        label=label,
        said=said,
        model_name="screw",
        model_version=version,
        sampled=sampled,
    )
    return feedback.model_dump_json(exclude_none=True) + "\n"


def test_corrections_say_nothing_of_how_often_it_is_right() -> None:
    corrections = [line(number, label="defective", sampled=False) for number in range(100)]
    assert live_accuracy(corrections, {"screw"}) == {}
    (accuracy,) = live_accuracy([*corrections, *(line(number) for number in range(200, 240))], {"screw"}).values()
    assert (accuracy.photographs, accuracy.estimate) == (40, 1.0)


def test_nothing_is_said_of_few_photographs() -> None:
    lines = [line(number) for number in range(LEAST_FEEDBACK - 1)]
    assert live_accuracy(lines, {"screw"}) == {}
    found = live_accuracy([*lines, line(99, label="defective")], {"screw"})["1"]
    assert found.photographs == LEAST_FEEDBACK
    assert found.estimate == pytest.approx(29 / 30)
    assert found.low < found.estimate < found.high < 1


def test_the_last_word_on_a_photograph_counts() -> None:
    first = [line(number, label="defective") for number in range(40)]
    found = live_accuracy([*first, *(line(number) for number in range(40))], {"screw"})
    assert (found["1"].photographs, found["1"].estimate, found["1"].high) == (40, 1.0, 1.0)


def test_each_version_has_its_own_and_what_names_none_tells_nothing() -> None:
    lines = [line(number, version=version) for number in range(40) for version in ("1", "2")]
    lines += [line(number, label="defective", version=None) for number in range(40)]
    lines += [line(number, label="defective", said=None) for number in range(40)]
    found = live_accuracy([*lines, '{"filename": "cut o'], {"screw"})
    assert {version: accuracy.estimate for version, accuracy in found.items()} == {"1": 1.0, "2": 1.0}
    assert live_accuracy(lines, {"bolt"}) == {}
