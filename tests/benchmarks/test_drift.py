import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.drift import CHANGES, jittered, labelled, row, window_of
from monitoring import drift
from monitoring.drift import Observations


def observed(bad: NDArray[np.bool_]) -> Observations:
    numbers = np.arange(float(len(bad)))
    return Observations(np.where(bad, "defective", "good"), {"number": numbers}, np.stack([numbers, numbers], axis=1))


def test_a_window_holds_different_photographs() -> None:
    window = window_of(observed(np.zeros(100, bool)), np.random.default_rng(0))
    assert len(window.labels) == len(set(window.values["number"])) == 80
    assert np.array_equal(window.embeddings[:, 0], window.values["number"])
    assert len(window_of(observed(np.zeros(1000, bool)), np.random.default_rng(0)).labels) == drift.WINDOW


def test_labels_are_drawn_with_the_share_of_defects_that_was_asked_for() -> None:
    bad = np.array([False] * 8 + [True] * 2)
    window = labelled(observed(bad), bad, 0.5, 4000, np.random.default_rng(0))
    assert np.mean(window.labels == "defective") == pytest.approx(0.5, abs=0.03)
    assert np.array_equal(window.labels == "defective", window.values["number"] >= 8)


def test_a_row_counts_windows_pairs_and_features() -> None:
    results = [{"image"}, set(), set(), set(), {"image", "score"}, {"score"}]
    assert row("a lamp", results) == "| a lamp | 3 of 6 | 2 of 3 | image 2, score 2 |"
    assert row("nothing", [set(), set()]) == "| nothing | 0 of 2 | 0 of 1 | – |"


def test_every_change_changes_a_photograph_far_more_than_its_jitter_does() -> None:
    ground = np.random.default_rng(0).integers(150, 160, (512, 512))
    ground[192:320, 64:448] = 40
    photograph = ground.astype(np.uint8)
    assert {change(photograph).shape for change in CHANGES.values()} == {photograph.shape}
    assert all(not np.array_equal(change(photograph), photograph) for change in CHANGES.values())
    noise = np.diff(photograph[:100].astype(int)).std()
    for seed in range(5):
        moved = jittered(photograph, np.random.default_rng(seed))
        assert np.diff(moved[:90].astype(int)).std() == pytest.approx(noise, rel=0.05)
        assert abs(moved.mean() / photograph.mean() - 1) < 0.02
    assert CHANGES["lamp 20 % dimmer"](photograph).mean() / photograph.mean() == pytest.approx(0.8, abs=0.01)
