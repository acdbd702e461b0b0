import numpy as np
import pytest

from benchmarks.drift import CHANGES, Pool, jittered, row
from monitoring.drift import Observations


def test_a_window_has_the_share_of_defects_that_was_asked_for() -> None:
    bad = np.array([False] * 8 + [True] * 2)
    observed = Observations(
        np.where(bad, "defective", "good"), {"number": np.arange(10.0)}, np.arange(20.0).reshape(10, 2)
    )
    window = Pool(observed, bad).window(np.random.default_rng(0), 0.5, 4000)
    assert np.mean(window.labels == "defective") == pytest.approx(0.5, abs=0.03)
    assert np.array_equal(window.labels == "defective", window.values["number"] >= 8)
    assert np.array_equal(window.embeddings[:, 0], 2 * window.values["number"])


def test_a_row_counts_windows_pairs_and_kinds() -> None:
    results = [{"image"}, set(), set(), set(), {"image", "score"}, {"score"}]
    assert row("a lamp", results) == "| a lamp | 3 of 6 | 2 of 3 | image 2, score 2 |"
    assert row("nothing", [set(), set()]) == "| nothing | 0 of 2 | 0 of 1 | – |"


def test_every_change_changes_a_photograph_far_more_than_its_jitter_does() -> None:
    ground = np.random.default_rng(0).integers(150, 160, (64, 64))
    ground[24:40, 8:56] = 40
    photograph = ground.astype(np.uint8)
    assert {change(photograph).shape for change in CHANGES.values()} == {photograph.shape}
    assert all(not np.array_equal(change(photograph), photograph) for change in CHANGES.values())
    brightness = [jittered(photograph, np.random.default_rng(seed)).mean() / photograph.mean() for seed in range(20)]
    assert max(abs(share - 1) for share in brightness) < 0.1
    assert CHANGES["lamp 20 % dimmer"](photograph).mean() / photograph.mean() == pytest.approx(0.8, abs=0.01)
