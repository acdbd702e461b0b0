"""Variations of training images that a defect survives: what another photograph of the same part would show.

Mirroring is not among them: a mirrored screw has a left-handed thread.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# The largest variations, at strength 1.
_ROTATION = 8.0  # degrees
_SHIFT = 0.06  # of the height
_SCALE = 0.12
_BRIGHTNESS = 40.0  # gray levels
_CONTRAST = 0.4
_GAMMA = 0.4  # of its logarithm
_NOISE = 8.0  # gray levels
_BLUR = 1.2  # pixels
_BLUR_SHARE = 0.3  # of the images; blur hides small defects


def random_of(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The randomness of one image in one epoch: it does not depend on which worker sees it.

    Args:
        seed: of the training.
        epoch: from 0.
        position: of the image in the training split, sorted by file name.
    """
    return np.random.default_rng([seed, epoch, position])


def vary(image: Pixels, random: np.random.Generator, strength: float) -> Pixels:
    """Vary an image's place, size, light and sharpness.

    Args:
        image: uint8, (height, width, channels).
        random: where the variation comes from; always asked for the same number of values first.
        strength: 0 (the image itself) to 1.

    Returns:
        uint8, as the image is shaped.
    """
    if strength == 0:
        return image
    turn, right, down, size, light, contrast, gamma, grain = random.uniform(-strength, strength, 8)
    soft = random.uniform(0, _BLUR * strength) if random.random() < _BLUR_SHARE else 0.0
    height, width, _ = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn * _ROTATION, 1 + size * _SCALE)
    matrix[:, 2] += np.array([right, down]) * _SHIFT * height
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if soft > 0:
        moved = cv2.GaussianBlur(moved, (0, 0), soft)
    lit = cv2.LUT(moved, _tone(light * _BRIGHTNESS, 1 + contrast * _CONTRAST, float(np.exp(gamma * _GAMMA))))
    noise = random.standard_normal((height, width, 1), np.float32) * np.float32(abs(grain) * _NOISE)
    return np.clip(lit.reshape(image.shape) + noise, 0, 255).astype(np.uint8)


def _tone(brightness: float, contrast: float, gamma: float) -> NDArray[np.float32]:
    """Gray level → gray level, as a table."""
    levels = (np.arange(256, dtype=np.float32) / 255) ** gamma * 255
    return np.clip((levels - 127.5) * contrast + 127.5 + brightness, 0, 255).astype(np.float32)


def dropout_mask(features: int, random: np.random.Generator, share: float) -> NDArray[np.float32]:
    """Zero for features that are left out, and what keeps the sum's expectation for the others.

    Returns:
        float32, (features,).
    """
    kept = random.random(features, np.float32) >= share
    return kept.astype(np.float32) / np.float32(1 - share)
