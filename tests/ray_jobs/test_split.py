import hashlib
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from gitops.contracts.base import Split
from gitops.contracts.project import SplitShares
from gitops.errors import DataError
from ray_jobs.split import (
    FULL_BARS,
    HASH_SIDE,
    SPLITS,
    Sample,
    assign_folds,
    assign_splits,
    bars_of,
    groups_of_lookalikes,
)

CLASSES = ("good", "defective")


def sample(
    number: int, label: str = "good", kind: str | None = None, *, framing: int = 500, turning: int = 500
) -> Sample:
    """An image whose hashes are of its number, but for so many bits of each; 500 bits are like no other."""

    def hashed(salt: int, bits: int) -> str:
        values = np.random.default_rng([number, salt]).integers(0, 2, HASH_SIDE**2, dtype=np.uint8)
        values[:bits] ^= 1
        return np.packbits(values).tobytes().hex()

    sha256 = hashlib.sha256(f"{number} {label} {framing} {turning}".encode()).hexdigest()
    return Sample(sha256, hashed(0, framing), hashed(1, turning), label, kind)


def two_classes(good: int, defective: int) -> list[Sample]:
    kinds = ("bent", "scratch")
    bad = [sample(1000 + number, "defective", kinds[number % 2]) for number in range(defective)]
    return [sample(number) for number in range(good)] + bad


def test_what_differs_in_few_bits_of_one_hash_is_one_group() -> None:
    framing, turning = (int(bar * HASH_SIDE**2) for bar in FULL_BARS.model_dump().values())
    originals = [sample(number, framing=0, turning=0) for number in range(4)]
    copies = [sample(0, framing=framing), sample(1, turning=turning)]
    others = [sample(2, framing=framing + 1), sample(3, turning=turning + 1)]
    groups = groups_of_lookalikes([*originals, *copies, *others], FULL_BARS).tolist()
    assert groups[:2] == groups[4:6]
    assert len(set(groups)) == 6


def test_groups_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a block is a few rows."""
    random = np.random.default_rng(5)
    samples = [
        sample(int(number), framing=int(framing), turning=int(turning))
        for number, framing, turning in random.integers(0, (20, 800, 1000), (120, 3))
    ]

    def close(hashes: list[str], most: float) -> NDArray[np.bool_]:
        bits = np.array([np.unpackbits(np.frombuffer(bytes.fromhex(item), np.uint8)) for item in hashes])
        return np.asarray((bits[:, None] != bits[None]).sum(axis=2) <= int(most * HASH_SIDE**2))

    framed = close([item.phash for item in samples], FULL_BARS.photograph or 0)
    turned = close([item.dhash for item in samples], FULL_BARS.part or 0)
    expected = connected_components(framed | turned, directed=False)[1]
    assert 20 < len(set(expected.tolist())) < 120
    for cells in (2**21, 700):
        monkeypatch.setattr("ray_jobs.split._CELLS", cells)
        assert groups_of_lookalikes(samples, FULL_BARS).tolist() == expected.tolist()


def test_groups_are_chained_and_reach_over_blocks() -> None:
    samples = [sample(number, framing=0, turning=0) for number in range(1100)]
    samples += [sample(0, framing=5), sample(700, turning=5), sample(700, framing=5)]
    groups = groups_of_lookalikes(samples, FULL_BARS)
    assert groups[0] == groups[1100]
    assert groups[700] == groups[1101] == groups[1102]
    assert len(set(groups.tolist())) == 1100


def alike(count: int, bits: int) -> list[Sample]:
    """Different photographs, each of whose difference hashes is so many bits from those of its neighbours."""
    parts = [sample(number) for number in range(count)]
    straight = np.random.default_rng(0).integers(0, 2, HASH_SIDE**2, dtype=np.uint8)
    hashes = []
    for number in range(count):
        turned = straight.copy()
        turned[number * (bits // 2) : (number + 1) * (bits // 2)] ^= 1
        hashes.append(np.packbits(turned).tobytes().hex())
    return [replace(part, dhash=value) for part, value in zip(parts, hashes, strict=True)]


def test_a_hash_that_tells_no_parts_apart_is_not_asked_and_the_other_still_finds_copies() -> None:
    parts = alike(100, 10)
    copies = [replace(part, sha256="0" * 64) for part in parts[:5]]
    recompressed = [replace(sample(number, framing=22), dhash=parts[number].dhash) for number in range(10, 20)]
    parts[10:20] = [replace(sample(number, framing=0), dhash=parts[number].dhash) for number in range(10, 20)]
    everything = [*parts, *copies, *recompressed]
    bars = bars_of(everything)
    assert bars.photograph == FULL_BARS.photograph
    assert (bars.part or 0) < (FULL_BARS.part or 0)
    groups = groups_of_lookalikes(everything, bars).tolist()
    assert len(set(groups)) == 100
    assert groups[100:] == groups[:5] + groups[10:20]


def test_a_rare_class_that_looks_alike_is_not_one_group() -> None:
    rare = [replace(part, label="defective") for part in alike(30, 10)]
    samples = [*(sample(number) for number in range(500, 900)), *rare]
    assert len(set(groups_of_lookalikes(samples, bars_of(samples))[400:].tolist())) == 30


def test_the_bars_of_a_dataset_give_its_parts_the_same_groups() -> None:
    """Else folds of the training split would divide what the whole dataset holds together."""
    samples = [*alike(29, 10), *(sample(number) for number in range(500, 770))]
    bars = bars_of(samples)
    assert bars == FULL_BARS
    whole, part = groups_of_lookalikes(samples, bars), groups_of_lookalikes(samples[:80], bars)
    assert len(set(whole.tolist())) == 271
    assert part.tolist() == whole[:80].tolist()


def test_a_few_copies_lower_no_bar() -> None:
    samples = [*alike(5, 10), *(sample(number) for number in range(500, 505))]
    assert bars_of(samples) == FULL_BARS


def test_no_images_are_no_groups() -> None:
    assert groups_of_lookalikes([], bars_of([])).shape == (0,)


def test_splits_are_stratified_by_class_and_kind() -> None:
    samples = two_classes(100, 40)
    splits = assign_splits(samples, groups_of_lookalikes(samples, FULL_BARS), CLASSES, SplitShares())
    tally = Counter((item.label, item.kind, split) for item, split in zip(samples, splits, strict=True))
    for label, kind, size in (("good", None, 100), ("defective", "bent", 20), ("defective", "scratch", 20)):
        for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
            assert abs(tally[label, kind, split] - share * size) <= 1


def test_order_does_not_matter_and_the_seed_does() -> None:
    samples = two_classes(60, 20)
    splits = dict(zip(samples, assign_splits(samples, np.arange(80), CLASSES, SplitShares()), strict=True))
    shuffled = random.Random(0).sample(samples, len(samples))
    again = assign_splits(shuffled, np.arange(80), CLASSES, SplitShares())
    assert dict(zip(shuffled, again, strict=True)) == splits
    other = assign_splits(samples, np.arange(80), CLASSES, SplitShares(seed=1))
    assert list(splits.values()) != other


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=120))
def test_groups_are_never_divided_and_every_class_is_everywhere(numbers: list[int]) -> None:
    samples = two_classes(len(numbers), 9)
    # Good images fall into the drawn groups, at least three of them; each defective one is alone.
    groups = np.array([*range(3), *numbers[3:], *range(100, 109)])
    splits = assign_splits(samples, groups, CLASSES, SplitShares())
    assert len(set(zip(groups.tolist(), splits, strict=True))) == len(set(groups.tolist()))
    for name in CLASSES:
        assert {split for item, split in zip(samples, splits, strict=True) if item.label == name} == set(SPLITS)


def test_a_class_that_is_too_small_is_named() -> None:
    samples = two_classes(10, 2)
    with pytest.raises(DataError, match="'defective' has 2 images that differ, and needs 3"):
        assign_splits(samples, np.arange(12), CLASSES, SplitShares())


def test_without_a_share_a_split_stays_empty() -> None:
    samples = two_classes(40, 10)
    splits = assign_splits(samples, np.arange(50), CLASSES, SplitShares(validation=0))
    assert Counter(splits) == {"train": 40, "test": 10}


def test_folds_are_stratified_and_grouped() -> None:
    samples = two_classes(50, 20)
    groups = np.array([*range(48), 47, 47, *range(100, 120)])
    folds = assign_folds(samples, groups, CLASSES, 5, seed=0)
    assert len({folds[47], folds[48], folds[49]}) == 1
    tally = Counter((item.label, item.kind, fold) for item, fold in zip(samples, folds, strict=True))
    for fold in range(5):
        assert abs(tally["good", None, fold] - 10) <= 2
        assert tally["defective", "bent", fold] == tally["defective", "scratch", fold] == 2
    assert folds != assign_folds(samples, groups, CLASSES, 5, seed=1)


def test_more_folds_than_images_of_a_class_are_refused() -> None:
    with pytest.raises(DataError, match=r"'defective' has 3 images that differ, and needs 4 or more, .* 4 folds"):
        assign_folds(two_classes(10, 3), np.arange(13), CLASSES, 4, seed=0)


def split_of(samples: list[Sample], kept: dict[str, Split], **settings: float) -> dict[str, Split]:
    """Splits by SHA-256, each image a group of its own."""
    shares = SplitShares.model_validate(settings)
    splits = assign_splits(samples, np.arange(len(samples)), CLASSES, shares, kept)
    return {item.sha256: split for item, split in zip(samples, splits, strict=True)}


def test_images_keep_their_split_and_new_ones_fill_up() -> None:
    first = split_of(two_classes(60, 20), {})
    grown = two_classes(100, 40)[10:]  # ten are gone
    second = split_of(grown, first)
    assert all(second[sha256] == split for sha256, split in first.items() if sha256 in second)
    tally = Counter((item.label, second[item.sha256]) for item in grown)
    for label, size in (("good", 90), ("defective", 40)):
        for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
            assert abs(tally[label, split] - share * size) <= 1
    assert split_of(random.Random(0).sample(grown, len(grown)), first) == second
    # Dealt anew, some of the images that were held out would be trained on.
    anew = split_of(grown, {})
    assert any(first.get(sha256) == "test" and split == "train" for sha256, split in anew.items())


def test_lookalikes_that_come_to_be_joined_are_held_out_together() -> None:
    samples = two_classes(12, 12)
    kept: dict[str, Split] = {item.sha256: SPLITS[index % 3] for index, item in enumerate(samples)}
    groups = np.arange(24)
    groups[1] = groups[0]  # train and validation
    groups[5] = groups[3]  # train and test
    splits = assign_splits(samples, groups, CLASSES, SplitShares(), kept)
    assert splits[0] == splits[1] == "validation"
    assert splits[3] == splits[5] == "test"
    assert all(split == "test" for item, split in zip(samples, splits, strict=True) if kept[item.sha256] == "test")


def test_a_class_that_lacks_a_split_takes_from_others_but_never_from_test() -> None:
    samples = two_classes(12, 6)
    bad = samples[12:]
    kept: dict[str, Split] = dict.fromkeys((item.sha256 for item in samples), "train")
    kept.update(dict.fromkeys((item.sha256 for item in bad[:4]), "test"))
    del kept[bad[5].sha256]
    splits = split_of(samples, kept)
    assert {splits[item.sha256] for item in samples[:12]} == set(SPLITS)
    assert [splits[item.sha256] for item in bad] == [*["test"] * 4, "train", "validation"]
    with pytest.raises(DataError, match="class 'defective' has too few images outside the test split"):
        split_of(samples[:16], kept)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([*SPLITS, None]), min_size=40, max_size=40), st.lists(st.integers(0, 30), max_size=30))
def test_whatever_was_kept_nothing_leaves_the_test_split(had: list[Split | None], numbers: list[int]) -> None:
    samples = two_classes(30, 10)
    kept = {item.sha256: split for item, split in zip(samples, had, strict=True) if split is not None}
    groups = np.array([*numbers, *range(100, 140 - len(numbers))])
    try:
        splits = assign_splits(samples, groups, CLASSES, SplitShares(), kept)
    except DataError:
        return  # too many groups of a class were in the test split, or too few are left
    assert all(split == "test" for item, split in zip(samples, splits, strict=True) if kept.get(item.sha256) == "test")
    assert len(set(zip(groups.tolist(), splits, strict=True))) == len(set(groups.tolist()))


def test_a_split_that_has_no_share_any_more_is_dealt_anew() -> None:
    samples = two_classes(30, 12)
    first = split_of(samples, {})
    second = split_of(samples, first, validation=0)
    assert set(second.values()) == {"train", "test"}
    assert all(second[sha256] == split for sha256, split in first.items() if split != "validation")
