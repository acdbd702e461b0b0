"""Splits a dataset without leakage: pictures that look alike stay together, classes and kinds are spread evenly."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gitops.contracts.base import Split
from gitops.contracts.dataset import LookalikeBars
from gitops.contracts.project import SplitShares
from gitops.errors import DataError

HASH_SIDE = 32
"""Side of both hashes: they have HASH_SIDE² bits."""
FULL_BARS = LookalikeBars()
"""What counts as a near-duplicate where the hashes tell the parts apart.

Measured on 300 photographs of screws, which all look alike when they are straightened. By the difference hash of the
straightened part (`part`), which finds copies that were turned or shifted, no two differed in less than 0.148 of the
bits, and copies turned by 3 or 90 degrees, shifted by 5 pixels, halved in size, brightened, recompressed or with noise
of deviation 4 in at most 0.110. By the perceptual hash of the photograph (`photograph`), which finds copies in the same
framing, also of parts without much texture, no two in less than 0.094, and recompressed (JPEG quality 50), brightened,
halved or noisy copies in at most 0.024; on 200 drawn ones: 0.238 and 0.027.
"""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# By how much a bar is lowered, step by step, where parts look so alike that they would become one group: of 210 drawn
# castings under a fixed camera 1 pair in 100 differed in less than the full bar, the two nearest in 0.083.
_LOWERED = (1.0, 0.7, 0.5, 0.35, 0.25)
_LARGEST_GROUP = 0.3  # of all images
_LEAST_GROUPS = 10  # of a class, or a third of its images: as many as splits and folds can want
_CELLS = 2**21  # pairs that are compared at once
_Part = TypeVar("_Part", bound=Hashable)


@dataclass(frozen=True)
class Sample:
    """What splitting needs to know of an image."""

    sha256: str
    """Of the file: the image's identity, whatever it is called."""
    phash: str
    """Perceptual hash of the whole photograph, hexadecimal."""
    dhash: str
    """Difference hash of the model's input, hexadecimal."""
    label: str
    kind: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any], classes: Sequence[str]) -> "Sample":
        """The sample that a row of the ETL's describes."""
        return cls(row["sha256"], row["phash"], row["dhash"], classes[row["label"]], row["kind"])


def bars_of(samples: Sequence[Sample]) -> LookalikeBars:
    """Choose what counts as a near-duplicate among these images.

    Each hash has its bar, which is lowered where it does not tell these parts apart: where a group would hold 30 % of
    all images, or a class would be left with too few groups to be split.
    """
    groups, labels = _copies(samples), np.array([sample.label for sample in samples])
    bars: dict[str, float | None] = {}
    for (name, full), hashes in zip(FULL_BARS.model_dump().items(), _hashes(samples), strict=True):
        joined = ((full * share, _joined(groups, hashes, full * share)) for share in _LOWERED)
        bars[name], groups = next(((bar, new) for bar, new in joined if not _too_few(new, labels)), (None, groups))
    return LookalikeBars(**bars)


def groups_of_lookalikes(samples: Sequence[Sample], bars: LookalikeBars) -> NDArray[np.int64]:
    """Number the groups of near-duplicates, directly or by a chain of them.

    Args:
        samples: all of a dataset's, or those of some of its splits: no group is divided between splits.
        bars: the dataset's.

    Returns:
        (n,) group numbers, from 0; images of one group have the same.
    """
    groups = _copies(samples)
    for hashes, bar in zip(_hashes(samples), (bars.photograph, bars.part), strict=True):
        if bar is not None:
            groups = _joined(groups, hashes, bar)
    return groups


def _hashes(samples: Sequence[Sample]) -> tuple[list[str], list[str]]:
    return [sample.phash for sample in samples], [sample.dhash for sample in samples]


def _copies(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Groups of images with the same hashes, (n,), numbered as they come."""
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault((item.phash, item.dhash), len(numbers)) for item in samples], np.int64)


def _too_few(groups: NDArray[np.int64], labels: NDArray[np.str_]) -> bool:
    """Whether groups, (n,), are too large or too few for images with these labels, (n,)."""
    if len(groups) == 0:
        return False
    largest = int(np.bincount(groups).max())
    return largest > max(_LEAST_GROUPS, _LARGEST_GROUP * len(groups)) or any(
        len(np.unique(groups[labels == label])) < min(_LEAST_GROUPS, max(1, np.sum(labels == label) // 3))
        for label in np.unique(labels)
    )


def _joined(groups: NDArray[np.int64], hashes: Sequence[str], most: float) -> NDArray[np.int64]:
    """The groups, (n,), after those of any two hashes are joined that differ in at most the share `most` of their bits.

    A block of rows at a time, so that neither the comparison nor what is alike is ever in memory as a whole: of a
    thousand photographs that look alike there are half a million pairs.
    """
    words = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(len(hashes), HASH_SIDE**2 // 64)
    bits, rows = int(most * HASH_SIDE**2), max(1, _CELLS // max(1, len(words)))
    for start in range(0, len(words), rows):
        block, rest = words[start : start + rows], words[start:]
        apart = np.zeros((len(block), len(rest)), np.uint16)
        for word in range(words.shape[1]):
            apart += np.bitwise_count(block[:, None, word] ^ rest[None, :, word])
        row, column = np.nonzero(apart <= bits)
        if len(row) == len(block):  # each is like itself
            continue
        edges = np.ones(len(row), bool), (groups[start + row], groups[start + column])
        _, found = connected_components(coo_matrix(edges, shape=(len(words),) * 2), directed=False)
        groups = found.astype(np.int64)[groups]
    return groups


def assign_splits(
    samples: Sequence[Sample],
    groups: NDArray[np.int64],
    classes: Sequence[str],
    shares: SplitShares,
    kept: Mapping[str, Split] | None = None,
) -> list[Split]:
    """Give every image its split: by content and seed, whatever the order and the names of the files.

    Args:
        samples: the images.
        groups: (n,) numbers as `groups_of_lookalikes` gives them; a group is never divided.
        classes: every one of them must be in every split that has a share.
        shares: of validation and test; the rest trains.
        kept: splits that images had in the dataset before, by SHA-256. They stay there; the others are dealt to where
            images lack. Two exceptions: a group that new look-alikes join together goes where its most strictly held
            out image is (test before validation before train); and a class that lacks a split takes images for it from
            another, but never from test.

    Raises:
        DataError: a class has too few images that differ.
    """
    wanted: dict[Split, float] = {
        "train": 1 - shares.validation - shares.test,
        "validation": shares.validation,
        "test": shares.test,
    }
    present = {name: share for name, share in wanted.items() if share}
    # A split that has no share any more cannot be kept: its images are dealt anew.
    known = {sha256: name for sha256, name in (kept or {}).items() if name in present}
    return _dealt_by_class(samples, groups, classes, present, shares.seed, known)


def assign_folds(
    samples: Sequence[Sample], groups: NDArray[np.int64], classes: Sequence[str], folds: int, seed: int
) -> list[int]:
    """Give every image its fold, from 0: grouped and stratified like the splits.

    Args:
        samples: the training images.
        groups: (n,) numbers as `groups_of_lookalikes` gives them; a group is never divided.
        classes: every one of them must be in every fold.
        folds: how many.
        seed: changes which images fall where.

    Raises:
        DataError: a class has fewer images that differ than there are folds.
    """
    return _dealt_by_class(samples, groups, classes, dict.fromkeys(range(folds), 1 / folds), seed, {})


def _dealt_by_class(
    samples: Sequence[Sample],
    groups: NDArray[np.int64],
    classes: Sequence[str],
    wanted: Mapping[_Part, float],
    seed: int,
    kept: Mapping[str, _Part],
) -> list[_Part]:
    """The part of every image; `wanted` says the parts' shares, none of them 0, the most strictly held out last."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(index)
    parts: list[_Part] = [next(iter(wanted))] * len(samples)
    # A group that holds several classes counts for the class of its first image by content.
    keys = {group: min(indices, key=lambda index: samples[index].sha256) for group, indices in members.items()}
    for name in classes:
        own = [group for group, key in keys.items() if samples[key].label == name]
        own.sort(key=lambda group: _position(samples[keys[group]], seed))
        if len(own) < len(wanted):
            raise DataError(
                f"class {name!r} has {len(own)} images that differ, and needs {len(wanted)} or more, one for each of "
                f"{_enumerated(wanted)}: add photographs of it, or ask for fewer"
            )
        had = [_strictest(kept, [samples[index] for index in members[group]], tuple(wanted)) for group in own]
        dealt = _dealt([len(members[group]) for group in own], wanted, had)
        if dealt is None:
            raise DataError(
                f"class {name!r} has too few images outside the test split that the dataset before gave them, one for "
                "each of the others at least: add photographs of it, or change split.seed to split anew"
            )
        for group, part in zip(own, dealt, strict=True):
            for index in members[group]:
                parts[index] = part
    return parts


def _enumerated(parts: Mapping[_Part, float]) -> str:
    *first, last = parts
    return f"{len(parts)} folds" if isinstance(last, int) else f"{', '.join(map(str, first))} and {last}"


def _position(sample: Sample, seed: int) -> tuple[str, str]:
    """Where an image stands in the row from which its class is dealt: kind by kind, shuffled by content."""
    return sample.kind or "", hashlib.sha256(f"{seed}:{sample.sha256}".encode()).hexdigest()


def _strictest(kept: Mapping[str, _Part], samples: Sequence[Sample], parts: Sequence[_Part]) -> _Part | None:
    """The most strictly held out of the parts that a group's images had; None if all are new."""
    had = {kept[sample.sha256] for sample in samples if sample.sha256 in kept}
    return max(had, key=parts.index, default=None)


def _dealt(sizes: list[int], wanted: Mapping[_Part, float], had: Sequence[_Part | None]) -> list[_Part] | None:
    """Deal groups to the parts, each to the one that lacks most; so any stretch of the row is dealt evenly.

    Args:
        sizes: of the groups, in images.
        wanted: shares of the parts; of the last one nothing that it had is taken away.
        had: the part that a group keeps; None for a new one.

    Returns:
        A part for each group; None if one stays empty because the others cannot give up any.
    """
    *_, last = wanted
    have: Counter[_Part] = Counter()
    for size, keeps in zip(sizes, had, strict=True):
        if keeps is not None:
            have[keeps] += size
    total = have.total()
    dealt: list[_Part] = []
    for size, keeps in zip(sizes, had, strict=True):
        if keeps is not None:
            dealt.append(keeps)
            continue
        total += size
        part = max(wanted, key=lambda name: wanted[name] * total - have[name])
        have[part] += size
        dealt.append(part)
    for part in wanted:
        if part not in dealt:
            count = Counter(dealt)
            spare = [index for index, name in enumerate(dealt) if count[name] > 1 and had[index] != last]
            spare = [index for index in spare if had[index] is None] or spare
            if not spare:
                return None
            most = Counter(dealt[index] for index in spare).most_common(1)[0][0]
            dealt[max(index for index in spare if dealt[index] == most)] = part
    return dealt
