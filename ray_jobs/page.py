"""What the pages of reports have in common: each is one self-contained HTML file, made from a template here."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from serve.preprocess import Pixels

T = TypeVar("T")
FOLDER = Path(__file__).parent
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, ready for a page."""

    uri: str
    caption: str
    defective: bool


def render(template: str, **values: object) -> str:
    """Fill in a template; a name that it asks for and does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def number(value: float) -> str:
    """A value as a page shows it: three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly taken from all of them."""
    picks = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int).tolist()
    return [items[index] for index in picks]


def jpeg_uri(pixels: Pixels, width: int) -> str:
    """A picture as a `data:` URI, at most `width` pixels wide.

    Args:
        pixels: uint8, (height, width), or (height, width, channels) in BGR order.
        width: in pixels.
    """
    scale = min(1.0, width / pixels.shape[1])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return _uri("jpeg", jpeg.tobytes())


def png_uri(file: Path) -> str:
    """A PNG file as a `data:` URI."""
    return _uri("png", file.read_bytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def decoded(png: bytes) -> Pixels:
    """A PNG of a shard, as OpenCV reads it."""
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
