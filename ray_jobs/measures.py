"""What is measured of an image and of a dataset: pure functions, and the names that assertions use."""

import cv2
import imagehash
import numpy as np
from PIL import Image
from pydantic import Field

from gitops.manifest import Contract
from ray_jobs.split import HASH_SIDE
from serve.preprocess import Aligned, Pixels


class Measures(Contract):
    """What is measured of every image; assertions name these."""

    width: int = Field(description="Width of the photograph, in pixels.")
    height: int = Field(description="Height of the photograph, in pixels.")
    exposure: float = Field(description="Mean gray level of the photograph, 0 to 255.")
    contrast: float = Field(description="Standard deviation of the photograph's gray levels.")
    clipped: float = Field(description="Share of the photograph's pixels that are quite black or quite white.")
    sharpness: float = Field(description="Variance of the Laplacian of the model's input.")
    part_found: int = Field(description="1 if a part was found in the photograph, else 0.")
    part_area: float = Field(description="Share of the photograph that the part covers; 0 if none was found.")
    part_angle: float = Field(description="Direction of the part, in degrees counter-clockwise from the x axis.")
    part_length: float = Field(description="Length of the part, in pixels of the photograph.")
    part_breadth: float = Field(description="Breadth of the part, in pixels of the photograph.")


class DatasetMeasures(Contract):
    """What is measured of a dataset as a whole; assertions name these, too."""

    images: int = Field(description="Images in the dataset.")
    smallest_class: int = Field(description="Images in the smallest class.")
    smallest_class_share: float = Field(description="Share of the images that the smallest class has.")
    duplicates: int = Field(description="Images that are a near-duplicate of another.")
    contradictions: int = Field(description="Images that are a near-duplicate of one in another class.")
    quarantined: int = Field(description="Files that were set aside.")


def measure(photograph: Pixels, aligned: Aligned) -> Measures:
    """Measure one image.

    Args:
        photograph: uint8, (height, width) or (height, width, 3) in RGB order.
        aligned: the model's input that was made of it.
    """
    gray, model_input = _gray(photograph), _gray(aligned.pixels)
    mean, deviation = cv2.meanStdDev(gray)
    part = aligned.part
    return Measures(
        width=gray.shape[1],
        height=gray.shape[0],
        exposure=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        clipped=float(np.count_nonzero((gray == 0) | (gray == 255)) / gray.size),
        sharpness=float(cv2.Laplacian(model_input, cv2.CV_32F).var()),
        part_found=int(part is not None),
        part_area=part.area if part else 0.0,
        part_angle=part.angle if part else 0.0,
        part_length=part.length if part else 0.0,
        part_breadth=part.breadth if part else 0.0,
    )


def phash(photograph: Pixels) -> str:
    """Perceptual hash of a whole photograph, hexadecimal: copies in the same framing differ in few of its bits."""
    # Reducing it here is a hundred times as fast as in the library.
    small = cv2.resize(_gray(photograph), (256, 256), interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(small), hash_size=HASH_SIDE))


def dhash(model_input: Pixels) -> str:
    """Difference hash of a model's input, hexadecimal: copies differ in few of its bits, however they were turned."""
    return str(imagehash.dhash(Image.fromarray(_gray(model_input)), hash_size=HASH_SIDE))


def _gray(pixels: Pixels) -> Pixels:
    """uint8, (height, width), of gray or RGB."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    return pixels.reshape(pixels.shape[:2])
