"""From the bytes of a photograph to the model's input: the one way, for training and for serving."""

import io
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import kornia_rs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from gitops.arguments import MAX_PIXELS
from gitops.contracts.project import Preprocessing

Pixels = NDArray[np.uint8]

ACCEPTED_FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tiff"}
"""Formats of photographs, and the suffix that a file of each gets."""
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "BMP": "image/bmp", "TIFF": "image/tiff"}
LARGE_PIXELS = 16_000_000
"""More take longer to decode than several photographs of a line to judge: 0.5 s for 50 million."""
# Depth, colour type, compression, filter and interlacing in a PNG's header, and those that need no conversion: 8 bit,
# gray or RGB, not interlaced (https://www.w3.org/TR/png-3/#11IHDR).
_PNG_LAYOUT = slice(24, 29)
_PLAIN_PNG = {1: bytes((8, 0, 0, 0, 0)), 3: bytes((8, 2, 0, 0, 0))}
# kornia-rs holds Python's lock while it decodes, some 5 ms for a million pixels; OpenCV does not.
_MOST_PLAIN_PIXELS = 2_000_000
_END = b"\xff\xd9"
"""The marker that ends a JPEG."""
# Where a camera was held otherwise, what brings its rows and columns upright (EXIF 2.32, tag 0x0112).
_UPRIGHT: Mapping[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
# The part is found on a small copy: its outline needs no more, and it is 40 times faster.
_FINDING_SIDE = 320
# Of the image's area; smaller things are dust, larger ones are no part on a background.
_SMALLEST_PART, _LARGEST_PART = 0.004, 0.9
# Below this ratio of its axes a part has no direction that could be straightened.
_LEAST_ELONGATION = 1.15


class ImageError(Exception):
    """A photograph that cannot be used; `status` is the HTTP status that says so."""

    def __init__(self, status: Literal[400, 413, 415], reason: str) -> None:
        """Keep the status beside the reason, so that one handler can serve all."""
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Part:
    """Where the part lies in a photograph."""

    center: tuple[float, float]
    """x, y in pixels."""
    angle: float
    """Degrees, counter-clockwise from the x axis to the part's axis, heavier end first; 0 if it has no direction."""
    length: float
    """Extent along the axis, in pixels."""
    breadth: float
    """Extent across the axis, in pixels."""
    area: float
    """Share of the photograph."""


@dataclass(frozen=True)
class Aligned:
    """A model input, and how it came about."""

    pixels: Pixels
    """uint8, (height, width, channels)."""
    to_photograph: NDArray[np.float64]
    """2×3 affine matrix that maps a point (x, y) of `pixels` to the photograph."""
    part: Part | None
    """None where no part was found or none was looked for; then the whole photograph is the input."""


def decode(data: bytes, channels: Literal[1, 3] = 1, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a PNG, JPEG, BMP or TIFF of 8 or 16 bit.

    Returns:
        uint8, (height, width) if `channels` is 1, else (height, width, 3) in RGB order.

    Raises:
        ImageError: 400 if it is no whole image, 413 if it has more than `max_pixels`, 415 if its format is another.
    """
    if not data:
        raise ImageError(400, "the image is empty: send the bytes of a PNG, JPEG, BMP or TIFF file")
    try:
        # Pillow reads the header only: size and format are known before anything is decompressed.
        with Image.open(io.BytesIO(data)) as header:
            kind, (width, height) = _format_of(header), header.size
            orientation = _orientation(header) if kind == "JPEG" else 1
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp":  # ISO 14496-12: HEIC of phones, and films
            raise ImageError(415, "HEIC is not accepted: send a PNG, JPEG, BMP or TIFF file") from None
        raise ImageError(400, "this is not an image: send the bytes of a PNG, JPEG, BMP or TIFF file") from None
    except Image.DecompressionBombError:
        raise ImageError(413, f"the image has more than {max_pixels} pixels") from None
    except Exception as error:  # a broken header raises whatever the format's parser stumbles over
        raise ImageError(400, f"the image's header is broken: {error}") from None
    if kind not in ACCEPTED_FORMATS:
        raise ImageError(415, f"{kind} is not accepted: send a PNG, JPEG, BMP or TIFF file")
    if width * height > max_pixels:
        raise ImageError(413, f"the image has {width}×{height} pixels; at most {max_pixels:,} are accepted")
    if kind == "JPEG":
        return _jpeg(data, orientation, channels)
    if kind == "PNG" and not _png_is_whole(data):
        raise ImageError(400, "the PNG file is cut off or damaged: send the whole file")
    if _is_plain_png(data, kind, channels) and width * height <= _MOST_PLAIN_PIXELS:
        return _plain_png(data, height, width, channels)
    color = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), color | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ImageError(400, f"the {kind} file cannot be decoded: {error.err}") from None
    if pixels is None:
        raise ImageError(400, f"the {kind} file cannot be decoded: it is damaged")
    if pixels.dtype == np.uint16:
        return np.asarray(np.right_shift(np.asarray(pixels, np.uint16), 8), np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(415, f"{kind} with {pixels.dtype} samples is not accepted: send 8 or 16 bit")
    return np.asarray(pixels, np.uint8)


def is_large(data: bytes) -> bool:
    """Whether a photograph has so many pixels that decoding takes long; False where its header cannot be read."""
    with suppress(Exception), Image.open(io.BytesIO(data)) as header:
        return header.width * header.height > LARGE_PIXELS
    return False


def _is_plain_png(data: bytes, kind: str, channels: Literal[1, 3]) -> bool:
    """Whether a PNG's samples are the pixels that are asked for: no conversion, and nothing to turn (`eXIf`)."""
    return kind == "PNG" and data[_PNG_LAYOUT] == _PLAIN_PNG[channels] and b"eXIf" not in data


def _plain_png(data: bytes, height: int, width: int, channels: Literal[1, 3]) -> Pixels:
    """The same pixels as OpenCV's, whose zlib takes two to three times as long; other threads stand still meanwhile."""
    try:
        pixels = kornia_rs.io.decode_image_png_u8(data, (height, width), "mono" if channels == 1 else "rgb")
    except Exception as error:  # it raises nothing narrower
        raise ImageError(400, f"the PNG file cannot be decoded: {error}") from None
    return np.asarray(pixels, np.uint8).reshape((height, width) if channels == 1 else (height, width, 3))


def _jpeg(data: bytes, orientation: int, channels: Literal[1, 3]) -> Pixels:
    """The same pixels as OpenCV's, which is silent about damage: it fills with gray what it cannot read."""
    try:
        pixels = _strictly(data, channels)
    except ValueError as error:
        end = data.rfind(_END)
        padded = data[:end].rstrip(b"\0")
        if len(padded) == end:
            raise ImageError(400, f"the JPEG file is cut off or damaged ({error}): send the whole file") from None
        try:  # some cameras fill up with zeros before the end
            pixels = _strictly(padded + _END, channels)
        except ValueError:
            raise ImageError(400, f"the JPEG file is cut off or damaged ({error}): send the whole file") from None
    upright = _UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels
    return np.ascontiguousarray(upright[..., 0] if channels == 1 else upright, np.uint8)


def _strictly(data: bytes, channels: Literal[1, 3]) -> Pixels:
    """What libjpeg-turbo decodes without a warning; ValueError with the warning else."""
    pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB")
    return pixels


def _orientation(header: Image.Image) -> int:
    """How the camera was held, as EXIF says it; 1, upright, where it does not or cannot be read."""
    exif = Image.Exif()  # of EXIF alone: `getexif` would look into XMP as well, as OpenCV does not
    with suppress(Exception):  # whatever the parser stumbles over
        exif.load(header.info.get("exif", b""))
        return int(exif.get(ExifTags.Base.Orientation, 1))
    return 1


def suffix_of(data: bytes) -> str:
    """The suffix for a file of these bytes, which `decode` takes."""
    with Image.open(io.BytesIO(data)) as header:
        return ACCEPTED_FORMATS[_format_of(header)]


def media_type_of(data: bytes) -> str:
    """The media type of a file of these bytes, which `decode` takes."""
    with Image.open(io.BytesIO(data)) as header:
        return MEDIA_TYPES[_format_of(header)]


def _format_of(header: Image.Image) -> str:
    """Pillow's name of a format; a JPEG that has further pictures behind its own (MPO, of many cameras) is a JPEG."""
    return "JPEG" if header.format == "MPO" else str(header.format)


def _png_is_whole(data: bytes) -> bool:
    """Whether every chunk of a PNG is there and has the checksum that it states."""
    start = 8
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        if data[start + 4 : start + 8] == b"IEND":
            return True
        start = end
    return False


def find_part(gray: Pixels) -> Part | None:
    """Find the one foreground object on a plain, possibly unevenly lit background.

    Args:
        gray: uint8, (height, width).

    Returns:
        The part, or None if nothing stands out.
    """
    height, width = gray.shape
    scale = min(1.0, _FINDING_SIDE / max(height, width))
    small = _shrunk(gray, scale) if scale < 1 else gray
    mask = _foreground(np.asarray(small, np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    area = float(stats[largest, cv2.CC_STAT_AREA]) / mask.size
    if not _SMALLEST_PART <= area <= _LARGEST_PART:
        return None
    left, top, columns, rows = (int(value) for value in stats[largest, : cv2.CC_STAT_AREA])
    ys, xs = np.nonzero(labels[top : top + rows, left : left + columns] == largest)
    middle = np.array([left + xs.mean(), top + ys.mean()])
    points = np.stack([xs + (left - middle[0]), ys + (top - middle[1])])
    values, vectors = np.linalg.eigh(points @ points.T)
    elongated = np.sqrt(values[1] / max(values[0], 1e-9)) >= _LEAST_ELONGATION
    axis = vectors[:, 1] if elongated else np.array([1.0, 0.0])
    along = axis @ points
    if elongated and _ends_heavier(along):
        axis, along = -axis, -along
    normal = np.array([-axis[1], axis[0]])
    across = normal @ points
    # The box's middle, not the centre of mass: what the crop is cut around.
    box = middle + axis * (along.max() + along.min()) / 2 + normal * (across.max() + across.min()) / 2
    return Part(
        center=((box[0] + 0.5) / scale - 0.5, (box[1] + 0.5) / scale - 0.5),
        angle=float(np.degrees(np.arctan2(-axis[1], axis[0]))),
        length=float(np.ptp(along) + 1) / scale,
        breadth=float(np.ptp(across) + 1) / scale,
        area=area,
    )


def _shrunk(pixels: Pixels, scale: float) -> Pixels:
    """A smaller copy, averaged; of a very thin image at least one row or column is left."""
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _ends_heavier(along: NDArray[np.float64]) -> bool:
    """Whether a part's last quarter holds more of it than its first; a shadow, which can turn its skew, rarely can."""
    quarter = np.ptp(along) / 4
    return int(np.sum(along > along.max() - quarter)) > int(np.sum(along < along.min() + quarter))


def _foreground(gray: Pixels) -> Pixels:
    """Mask of what differs from the background: a surface fitted to the rim, then Otsu's threshold on the distance."""
    smooth = cv2.GaussianBlur(gray, (0, 0), 1.5)
    x, y, rim, terms = _surface(*gray.shape)
    values = smooth.ravel()[rim].astype(np.float64)
    keep = np.abs(values - np.median(values)) < 40  # a part that reaches over the rim is not background
    rows = terms[keep]
    # The normal equations: six unknowns and thousands of rows, of which lstsq would decompose every one.
    found = np.linalg.lstsq(rows.T @ rows, rows.T @ values[keep], rcond=None)[0]
    one, by_x, by_y, by_xx, by_yy, by_xy = found.astype(np.float32)
    background = (one + by_x * x + by_xx * x * x) + (by_y * y + by_yy * y * y)[:, None] + (by_xy * y)[:, None] * x
    distance = np.minimum(cv2.absdiff(smooth.astype(np.float32), background), 255).astype(np.uint8)
    level, mask = cv2.threshold(distance, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if level < 8:  # nothing but noise: Otsu splits anything
        return np.zeros_like(gray)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.uint8)


@lru_cache(maxsize=16)  # photographs of one camera have one size
def _surface(
    height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp], NDArray[np.float64]]:
    """What the background's surface, of second degree in x and y, is fitted with.

    Returns:
        x of the columns and y of the rows, between −0.5 and 0.5; the flat indices of the rim; and its terms 1, x, y,
        x², y², xy, (rim, 6).
    """
    x, y = (((np.arange(size) / size) - 0.5).astype(np.float32) for size in (width, height))
    is_rim = np.ones((height, width), bool)
    band = max(2, round(0.06 * min(height, width)))
    is_rim[band:-band, band:-band] = False
    rim = np.flatnonzero(is_rim)
    xs, ys = x[rim % width].astype(np.float64), y[rim // width].astype(np.float64)
    return x, y, rim, np.stack([np.ones_like(xs), xs, ys, xs * xs, ys * ys, xs * ys], axis=-1)


def align(photograph: Pixels, settings: Preprocessing) -> Aligned:
    """Cut the model's input out of a photograph: the part straightened, its heavy end left, at one scale.

    Args:
        photograph: uint8, (height, width) or (height, width, 3), as `decode` returns it.
        settings: what to do, and the size of the input.
    """
    gray = photograph if photograph.ndim == 2 else cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    part = find_part(np.asarray(gray, np.uint8)) if settings.align == "foreground" else None
    height, width = photograph.shape[:2]
    if part is None:
        scale = max(width / settings.width, height / settings.height)
        angle, center = 0.0, ((width - 1) / 2, (height - 1) / 2)
    else:
        room = 1 + 2 * settings.margin
        scale = room * max(part.length / settings.width, part.breadth / settings.height)
        angle, center = np.radians(part.angle), part.center
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    middle = np.array([(settings.width - 1) / 2, (settings.height - 1) / 2])
    linear = np.array([[cos, sin], [-sin, cos]])
    matrix = np.column_stack([linear, np.array(center) - linear @ middle])
    source = photograph
    if scale > 2:  # bilinear sampling looks at four pixels only: shrink first, or detail turns into noise
        source = _shrunk(photograph, 1 / int(scale))
        ratio = np.array([source.shape[1] / width, source.shape[0] / height])[:, None]
        sampling = matrix * ratio
        sampling[:, 2] += (ratio[:, 0] - 1) / 2
    else:
        sampling = matrix
    pixels = cv2.warpAffine(
        source,
        sampling,
        (settings.width, settings.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    pixels = pixels.reshape(settings.height, settings.width, -1)
    return Aligned(np.asarray(pixels, np.uint8), matrix, part)


def preprocess(data: bytes, settings: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> Aligned:
    """`decode` and `align` in one: bytes in, model input out (uint8, (height, width, channels))."""
    return align(decode(data, settings.channels, max_pixels=max_pixels), settings)
