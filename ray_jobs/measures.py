"""What is measured of a dataset as a whole, and the hashes by which look-alikes are found."""

import cv2
import imagehash
from PIL import Image
from pydantic import Field

from gitops.contracts.base import Contract
from ray_jobs.split import HASH_SIDE
from serve.measures import gray_of
from serve.preprocess import Pixels


class DatasetMeasures(Contract):
    """What is measured of a dataset as a whole; assertions name these, too."""

    images: int = Field(description="Images in the dataset.")
    smallest_class: int = Field(description="Images in the smallest class.")
    smallest_class_share: float = Field(description="Share of the images that the smallest class has.")
    duplicates: int = Field(description="Images that are a near-duplicate of another.")
    contradictions: int = Field(description="Images that are a near-duplicate of one in another class.")
    quarantined: int = Field(description="Files that were set aside.")


def phash(photograph: Pixels) -> str:
    """Perceptual hash of a whole photograph, hexadecimal: copies in the same framing differ in few of its bits."""
    # Reducing it here is a hundred times as fast as in the library.
    small = cv2.resize(gray_of(photograph), (256, 256), interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(small), hash_size=HASH_SIDE))


def dhash(model_input: Pixels) -> str:
    """Difference hash of a model's input, hexadecimal: copies differ in few of its bits, however they were turned."""
    return str(imagehash.dhash(Image.fromarray(gray_of(model_input)), hash_size=HASH_SIDE))
