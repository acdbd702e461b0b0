"""What is measured of every photograph, when a dataset is made and while a model is served: pure functions."""

import cv2
import numpy as np
from pydantic import Field

from gitops.contracts.base import Contract
from serve.preprocess import Aligned, Pixels

# The sum of the squares of its kernel's elements is 36: noise of deviation 1 comes out with deviation 6.
_NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
# Mean of the smaller half of absolute values, where they are of a normal distribution of unit deviation.
_SMALLER_HALF = 0.3247
_NOISE_STEP = 3  # every third pixel both ways: neighbours share what the kernel covers


class Measures(Contract):
    """What is measured of every image; assertions name these."""

    width: int = Field(description="Width of the photograph, in pixels.")
    height: int = Field(description="Height of the photograph, in pixels.")
    exposure: float = Field(description="Mean gray level of the photograph, 0 to 255.")
    contrast: float = Field(description="Standard deviation of the photograph's gray levels.")
    clipped: float = Field(description="Share of the photograph's pixels that are quite black or quite white.")
    noise: float = Field(description="Standard deviation of the photograph's noise, in gray levels.")
    sharpness: float = Field(description="Variance of the Laplacian of the model's input.")
    part_found: int = Field(description="1 if a part was found in the photograph, else 0.")
    part_area: float = Field(description="Share of the photograph that the part covers; 0 if none was found.")
    part_x: float = Field(description="Where the part's middle lies, as a share of the width; 0 if none was found.")
    part_y: float = Field(description="Where the part's middle lies, as a share of the height; 0 if none was found.")
    part_angle: float = Field(description="Direction of the part, in degrees counter-clockwise from the x axis.")
    part_length: float = Field(description="Length of the part, in pixels of the photograph.")
    part_breadth: float = Field(description="Breadth of the part, in pixels of the photograph.")


def measure(photograph: Pixels, aligned: Aligned) -> Measures:
    """Measure one image.

    Args:
        photograph: uint8, (height, width) or (height, width, 3) in RGB order.
        aligned: the model's input that was made of it.
    """
    gray, model_input = gray_of(photograph), gray_of(aligned.pixels)
    mean, deviation = cv2.meanStdDev(gray)
    part = aligned.part
    height, width = gray.shape
    return Measures(
        width=width,
        height=height,
        exposure=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        clipped=float(np.count_nonzero((gray == 0) | (gray == 255)) / gray.size),
        noise=_noise(gray),
        sharpness=float(cv2.Laplacian(model_input, cv2.CV_32F).var()),
        part_found=int(part is not None),
        part_area=part.area if part else 0.0,
        part_x=part.center[0] / width if part else 0.0,
        part_y=part.center[1] / height if part else 0.0,
        part_angle=part.angle if part else 0.0,
        part_length=part.length if part else 0.0,
        part_breadth=part.breadth if part else 0.0,
    )


def gray_of(pixels: Pixels) -> Pixels:
    """uint8, (height, width), of gray or RGB."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    return pixels.reshape(pixels.shape[:2])


def _noise(gray: Pixels) -> float:
    """The noise's deviation: what is left where edges and slopes are taken away.

    The kernel is that of Immerkær (1996, "Fast noise variance estimation"). Only the smaller half of what it leaves
    counts: the part has edges that it does not take away, and covers less than half of the photograph.
    """
    left = np.abs(cv2.filter2D(gray, cv2.CV_32F, _NOISE_KERNEL)[1:-1:_NOISE_STEP, 1:-1:_NOISE_STEP]).ravel()
    smaller = np.partition(left, left.size // 2)[: left.size // 2]
    return float(smaller.mean()) / _SMALLER_HALF if smaller.size else 0.0
