"""A memory of good parts: how far an image's features lie from those of good images at the same place.

That is PatchCore's idea (Roth et al., 2022, "Towards Total Recall in Industrial Anomaly Detection") with two changes
that straightened parts allow: a patch is compared with patches at its own place only, and a distance is judged by how
it is distributed there among good images, as in PaDiM (Defard et al., 2021). The module imports Keras: import it where
a model is built or loaded.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

FEATURES = 3
"""What the head learns from a memory: means over the largest anomalies of an image."""
# Shares of the places that each of the three is a mean over; of the first, a single place.
_LARGEST_SHARES = (0.0, 0.01, 0.05)
_NEVER = 1e9  # a squared distance that no patch has: an empty place, or one that must not be asked
_LEAST_SPREAD = 0.5  # of the median place: else a place where good parts hardly differ would outshout all others
_LEAST_DEVIATION = 0.1  # of the median channel
_NOBODY = -1

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Remembered:
    """What a memory holds; places are counted row by row."""

    center: Floats
    """(channels,), subtracted from a patch's features."""
    projection: Floats
    """(channels, dimensions): standardisation and principal components in one."""
    bank: Floats
    """(places, dimensions, images): the projected patches, already times −2."""
    lengths: Floats
    """(places, 1, images): their squared lengths."""
    expected: Floats
    """(places,): mean distance of a good image from the nearest of the others."""
    spread: Floats
    """(places,): its standard deviation."""

    def arrays(self) -> list[Floats]:
        """All of it, in the order of the layer's weights."""
        return [getattr(self, name) for name in Remembered.__dataclass_fields__]


@keras.saving.register_keras_serializable("mergeline")
class PatchMemory(keras.layers.Layer):  # type: ignore[misc]
    """Compares patches with remembered ones: (n, height, width, channels) → (n, FEATURES) and (n, height, width).

    The first output is for the head, the second is the map of anomalies.

    Args:
        images: most images that it remembers.
        dimensions: of a projected patch.
    """

    def __init__(self, images: int, dimensions: int, **options: Any) -> None:
        super().__init__(**options)
        self.images, self.dimensions = images, dimensions

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the weights, empty: everything is far away."""
        _, height, width, channels = shape
        self._places = int(height or 0) * int(width or 0)
        never = keras.initializers.Constant(_NEVER)
        for name, size, start in (
            ("center", (channels,), "zeros"),
            ("projection", (channels, self.dimensions), "zeros"),
            ("bank", (self._places, self.dimensions, self.images), "zeros"),
            ("lengths", (self._places, 1, self.images), never),
            ("expected", (self._places,), "zeros"),
            ("spread", (self._places,), "ones"),
        ):
            setattr(self, name, self.add_weight(shape=size, initializer=start, trainable=False, name=name))

    def call(self, patches: Any, members: Any = None) -> tuple[Any, Any]:
        """Compare.

        Args:
            patches: (n, height, width, channels).
            members: int32, (n,): which of the remembered images each is or looks like, −1: none of them. An image is
                not compared with that: it would find nothing strange, and the head would learn to expect that of good
                parts.

        Returns:
            Logarithms of the mean of an image's largest anomalies, float32, (n, FEATURES); and how strange each place
            is, in standard deviations of good parts, float32, (n, height, width).
        """
        anomalies = self._anomalies(patches, members)
        counts = [max(1, round(share * self._places)) for share in _LARGEST_SHARES]
        largest, _ = ops.top_k(anomalies, max(counts))
        means = [ops.mean(largest[:, :count], axis=1) for count in counts]
        features = ops.log1p(ops.relu(ops.stack(means, axis=1)))
        return features, ops.reshape(anomalies, (-1, *patches.shape[1:3]))

    def _anomalies(self, patches: Any, members: Any) -> Any:
        """(n, places)."""
        flat = ops.reshape(patches, (-1, self._places, patches.shape[-1]))
        # A product of two matrices for each place, places first: TensorFlow 2.21 writes over its memory in products
        # that have to repeat one side (seen with shapes (16, 1, 2, 128) and (128, 1)).
        projected = ops.transpose(ops.tensordot(flat - self.center, self.projection, 1), (1, 0, 2))
        # |q − b|² = |q|² − 2 q·b + |b|²
        distances = ops.matmul(projected, self.bank) + self.lengths
        if members is not None:
            distances += _NEVER * ops.one_hot(members, self.images)
        nearest = ops.min(distances, axis=2) + ops.sum(ops.square(projected), axis=2)
        return (ops.sqrt(ops.relu(ops.transpose(nearest))) - self.expected) / self.spread

    def get_config(self) -> dict[str, Any]:
        """What the constructor needs, for a saved model."""
        return {**super().get_config(), "images": self.images, "dimensions": self.dimensions}


def to_remember(labels: NDArray[np.int32], groups: NDArray[np.int64], images: int, seed: int) -> NDArray[np.int64]:
    """The images that are remembered: good ones, of look-alikes only one.

    A burst of photographs that look alike would take the room of others, and its images would find each other so near
    that the memory expected the same of every good part.

    Args:
        labels: (n,), 0 for good.
        groups: (n,), look-alikes have the same number.
        images: most that are remembered.
        seed: decides which.

    Returns:
        Positions, sorted; at most `images`.
    """
    good = np.random.default_rng(seed).permutation(np.flatnonzero(labels == 0))
    _, first = np.unique(groups[good], return_index=True)
    return np.sort(good[np.sort(first)][:images])


def members_of(remembered: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int32]:
    """The remembered image that each training image must not be compared with: itself, or the one that it looks like.

    Args:
        remembered: what `to_remember` gave.
        groups: (n,), look-alikes have the same number.

    Returns:
        int32, (n,): index of the remembered image, and −1 for images that are like none of them.
    """
    member = np.full(int(groups.max()) + 1, _NOBODY, np.int32)
    member[groups[remembered]] = np.arange(len(remembered), dtype=np.int32)
    return member[groups]


def remember(patches: NDArray[np.floating], dimensions: int, images: int) -> Remembered:
    """Make a memory of good images.

    Args:
        patches: (n, height, width, channels), the features of n ≥ 2 good images, in the order of their members.
        dimensions: principal components that are kept.
        images: how many the memory has room for; the rest stays empty.
    """
    count, height, width, channels = patches.shape
    flat = patches.reshape(count, height * width, channels).astype(np.float64)
    center, deviation = flat.mean(axis=(0, 1)), flat.std(axis=(0, 1))
    # A channel that hardly varies among good images must not shout down all others when it once does.
    deviation = np.maximum(deviation, max(_LEAST_DEVIATION * float(np.median(deviation)), 1e-6))
    standard = ((flat - center) / deviation).reshape(-1, channels)
    _, axes = np.linalg.eigh(standard.T @ standard)
    projection = np.zeros((channels, dimensions))
    kept = min(channels, dimensions)
    projection[:, :kept] = axes[:, ::-1][:, :kept] / deviation[:, None]
    projected = ((flat - center) @ projection).transpose(1, 0, 2)  # (places, images, dimensions)
    squares = (projected**2).sum(axis=2)
    nearest = np.stack([_from_each_other(place) for place in projected])  # (places, images)
    spread = nearest.std(axis=1)
    bank = np.zeros((height * width, dimensions, images))
    bank[:, :, :count] = -2 * projected.transpose(0, 2, 1)
    lengths = np.full((height * width, 1, images), _NEVER)
    lengths[:, 0, :count] = squares
    return Remembered(
        center=center.astype(np.float32),
        projection=projection.astype(np.float32),
        bank=bank.astype(np.float32),
        lengths=lengths.astype(np.float32),
        expected=nearest.mean(axis=1).astype(np.float32),
        spread=np.maximum(spread, max(_LEAST_SPREAD * np.median(spread), 1e-6)).astype(np.float32),
    )


def _from_each_other(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each of (n, dimensions) vectors from the nearest of the others, (n,)."""
    squares = (vectors**2).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.sqrt(np.maximum(distances.min(axis=1), 0)))
