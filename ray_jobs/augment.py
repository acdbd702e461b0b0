"""Variations of training images that a defect survives: what another photograph of the same part would show.

Mirroring is not among them: a mirrored screw has a left-handed thread.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from gitops.contracts.project import Augmentation

Pixels = NDArray[np.uint8]

NOTHING = Augmentation(place=0, light=0, lens=0)
"""Leaves an image as it is."""

# The largest variations, at strength 1.
_ROTATION = 8.0  # degrees
_SHIFT = 0.06  # of the height
_SCALE = 0.12
_BRIGHTNESS = 40.0  # gray levels
_CONTRAST = 0.4
_GAMMA = 0.4  # of its logarithm
_NOISE = 4.0  # gray levels
_BLUR = 2.5  # pixels
_BEST_QUALITY, _QUALITY_RANGE = 95.0, 110.0  # of a JPEG file; at strength 0.5 from 40 up
_LENS_SHARE = 0.3  # of the images are blurred, and as many compressed; both hide small defects


def random_of(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The randomness of one image in one epoch: it does not depend on which worker sees it.

    Args:
        seed: of the training.
        epoch: from 0.
        position: of the image in the training split, sorted by file name.
    """
    return np.random.default_rng([seed, epoch, position])


def vary(image: Pixels, random: np.random.Generator, strength: Augmentation) -> Pixels:
    """Vary an image's place, size, light and sharpness.

    Args:
        image: uint8, (height, width, channels).
        random: where the variation comes from; always asked for the same number of values first.
        strength: how much.

    Returns:
        uint8, as the image is shaped.
    """
    if strength == NOTHING:
        return image
    turn, right, down, size = random.uniform(-strength.place, strength.place, 4)
    light, contrast, gamma, grain = random.uniform(-strength.light, strength.light, 4)
    blurred, compressed = random.random(2) < _LENS_SHARE
    softness, coarseness = random.uniform(0, strength.lens, 2)
    height, width, channels = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn * _ROTATION, 1 + size * _SCALE)
    matrix[:, 2] += np.array([right, down]) * _SHIFT * height
    varied = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if blurred and softness > 0:
        varied = cv2.GaussianBlur(varied, (0, 0), softness * _BLUR)
    lit = cv2.LUT(varied, _tone(light * _BRIGHTNESS, 1 + contrast * _CONTRAST, float(np.exp(gamma * _GAMMA))))
    noise = random.standard_normal((height, width, 1), np.float32) * np.float32(abs(grain) * _NOISE)
    found = np.clip(lit.reshape(image.shape) + noise, 0, 255).astype(np.uint8)
    if compressed and coarseness > 0:
        quality = round(max(1.0, _BEST_QUALITY - coarseness * _QUALITY_RANGE))
        data = cv2.imencode(".jpg", found, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        color = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
        found = np.asarray(cv2.imdecode(data, color), np.uint8).reshape(image.shape)
    return np.asarray(found, np.uint8)


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
