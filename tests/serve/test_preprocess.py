import io
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gitops.contracts.project import Preprocessing
from ray_jobs.render import render
from serve.preprocess import (
    ImageError,
    Pixels,
    align,
    decode,
    find_part,
    is_large,
    media_type_of,
    preprocess,
    suffix_of,
)

EXTENSIONS = [".png", ".jpg", ".bmp", ".tiff"]


def encoded(pixels: np.ndarray, extension: str = ".png") -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def picture_of_format(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (20, 20)).save(buffer, name)
    return buffer.getvalue()


def wedge(angle: float, side: int = 500, length: int = 360) -> Pixels:
    """A dark part on a light, unevenly lit background: a bar that is broad at the end where `angle` points from."""
    picture = np.add.outer(np.linspace(180, 205, side), np.linspace(-8, 8, side)).astype(np.uint8)
    half = length / 2
    outline = np.array(
        [
            [-half, -60],
            [-half + 60, -60],
            [-half + 60, -20],
            [half, -12],
            [half, 12],
            [-half + 60, 20],
            [-half + 60, 60],
            [-half, 60],
        ]
    )
    radians = np.radians(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    cv2.fillPoly(picture, [np.round(outline @ turn.T + side / 2).astype(np.int32)], 70)
    return picture


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_gray_and_colour_of_every_format(extension: str) -> None:
    gray = wedge(20)
    colour = np.dstack([gray, gray // 2, gray // 4])
    decoded = decode(encoded(gray, extension))
    assert decoded.shape == (500, 500)
    assert np.abs(decoded.astype(int) - gray).mean() < 2
    rgb = decode(encoded(colour, extension), channels=3)
    assert rgb.shape == (500, 500, 3)
    assert rgb[..., 0].mean() < rgb[..., 1].mean() < rgb[..., 2].mean()  # OpenCV wrote BGR
    assert decode(encoded(colour, extension)).shape == (500, 500)
    assert decode(encoded(gray, extension), channels=3).shape == (500, 500, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "LA", "RGBA"])
def test_a_png_of_every_kind_has_the_pixels_that_opencv_sees(mode: str, channels: Literal[1, 3]) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 51, 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    noise.save(file, "PNG", **({"transparency": 7} if mode == "L" else {}))
    color = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    expected = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), color)
    np.testing.assert_array_equal(decode(file.getvalue(), channels), expected)


def test_a_png_that_says_how_it_must_be_turned_is_turned() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    file = io.BytesIO()
    noise.save(file, "PNG", exif=exif)
    assert decode(file.getvalue()).shape == (50, 40)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bits_keep_their_upper_eight(extension: str) -> None:
    gray = wedge(20)
    np.testing.assert_array_equal(decode(encoded(gray.astype(np.uint16) * 257, extension)), gray)


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", 400, "empty"),
        (b"hello" * 100, 400, "not an image"),
        (picture_of_format("GIF"), 415, "GIF is not accepted"),
        (b"\0\0\0\x18ftypheic" + bytes(400), 415, "HEIC is not accepted"),
        (encoded(np.zeros((60, 60), np.float32), ".tiff"), 415, "8 or 16 bit"),
    ],
)
def test_what_cannot_be_decoded_has_status_and_reason(data: bytes, status: int, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)
    assert caught.value.status == status


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_cut_off_file_is_refused(extension: str, share: float) -> None:
    data = encoded(wedge(20), extension)
    with pytest.raises(ImageError) as caught:
        decode(data[: int(share * len(data))])
    assert caught.value.status == 400


def jpeg(mode: str = "RGB", orientation: int | None = None, **options: Any) -> bytes:
    """A photograph that is nowhere even, as a JPEG; with an orientation in its EXIF."""
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    noise = np.random.default_rng(1).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 2)).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "data",
    [
        *(jpeg(mode) for mode in ("L", "RGB", "CMYK")),
        *(jpeg(subsampling=ratio, quality=70) for ratio in (0, 1, 2)),
        jpeg(progressive=True),
        *(jpeg(orientation=orientation) for orientation in range(10)),
    ],
)
def test_a_jpeg_of_every_kind_has_the_pixels_that_opencv_sees(data: bytes, channels: Literal[1, 3]) -> None:
    color = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    np.testing.assert_array_equal(decode(data, channels), cv2.imdecode(np.frombuffer(data, np.uint8), color))


@pytest.mark.parametrize("behind", [b"\xff\xda", b"ftypmp42" + bytes(99), jpeg()])
def test_what_a_camera_puts_behind_a_photograph_is_no_matter(behind: bytes) -> None:
    np.testing.assert_array_equal(decode(jpeg() + behind), decode(jpeg()))


def test_a_jpeg_with_a_second_picture_in_it_is_a_jpeg() -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg())).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    with Image.open(file) as header:
        assert header.format == "MPO"
    np.testing.assert_array_equal(decode(file.getvalue()), decode(jpeg(quality=75)))
    assert (suffix_of(file.getvalue()), media_type_of(file.getvalue())) == (".jpg", "image/jpeg")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 8}])
def test_a_jpeg_whose_data_end_too_soon_is_damaged_though_its_end_is_marked(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    with pytest.raises(ImageError, match="the JPEG file is cut off or damaged") as caught:
        decode(data[: len(data) // 2] + b"\xff\xd9")
    assert caught.value.status == 400


def test_a_jpeg_whose_middle_is_lost_is_damaged() -> None:
    data = jpeg()
    with pytest.raises(ImageError, match="the JPEG file is cut off or damaged"):
        decode(data[: len(data) // 2] + b"\x55" * 200 + data[len(data) // 2 + 200 :])


def test_zeros_before_the_end_are_no_damage() -> None:
    data = jpeg()
    np.testing.assert_array_equal(decode(data[:-2] + bytes(16) + data[-2:]), decode(data))
    with pytest.raises(ImageError, match="cut off or damaged"):
        decode(data[: len(data) // 2] + bytes(16) + data[-2:])


def test_an_orientation_that_only_xmp_has_turns_nothing() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    xmp += b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    data = jpeg(xmp=xmp)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode(data), expected)


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    data = jpeg(orientation=6)
    after = data.index(b"Exif\0\0") + 6
    data = data[:after] + b"\xff" * 8 + data[after + 8 :]
    assert decode(data).shape == (90, 130)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_large_photograph_is_known_by_its_header(extension: str) -> None:
    assert is_large(encoded(np.zeros((4000, 4001), np.uint8), extension))
    assert not is_large(encoded(np.zeros((4000, 4000), np.uint8), extension))


def test_what_is_no_photograph_is_not_large() -> None:
    assert not is_large(b"no image")


def test_pixels_are_counted_before_decoding() -> None:
    data = encoded(np.zeros((300, 300), np.uint8))
    assert decode(data, max_pixels=90_000).shape == (300, 300)
    with pytest.raises(ImageError, match="300×300 pixels; at most 89,999") as caught:
        decode(data, max_pixels=89_999)
    assert caught.value.status == 413


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(0, 40))
def test_damaged_bytes_raise_an_image_error(noise: bytes, place: int) -> None:
    whole = encoded(np.arange(64, dtype=np.uint8).reshape(8, 8))
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    if damaged == whole:
        return
    with pytest.raises(ImageError) as caught:
        decode(damaged)
    assert caught.value.status in (400, 413, 415)


@pytest.mark.parametrize("angle", range(-180, 180, 24))
def test_a_part_is_found_at_any_angle(angle: int) -> None:
    part = find_part(wedge(angle))
    assert part is not None
    assert abs((part.angle - angle + 180) % 360 - 180) < 1.5
    assert part.length == pytest.approx(360, rel=0.03)
    assert part.breadth == pytest.approx(120, rel=0.05)
    assert np.hypot(part.center[0] - 250, part.center[1] - 250) < 4


@pytest.mark.parametrize("angle", [0, 45, 137, -90])
def test_a_part_is_straightened_heavy_end_left(angle: int) -> None:
    aligned = align(wedge(angle), Preprocessing())
    assert aligned.pixels.shape == (160, 512, 1)
    dark = aligned.pixels[..., 0] < 120
    assert dark[:, :128].sum() > 1.5 * dark[:, -128:].sum()
    columns, rows = np.nonzero(dark.any(axis=0))[0], np.nonzero(dark.any(axis=1))[0]
    assert columns[0] > 5
    assert columns[-1] < 506
    assert rows[0] + rows[-1] == pytest.approx(159, abs=4)


def test_points_map_back_to_the_photograph() -> None:
    photograph = wedge(30)
    aligned = align(photograph, Preprocessing())
    ys, xs = np.nonzero(aligned.pixels[..., 0] < 90)
    there = aligned.to_photograph @ np.stack([xs, ys, np.ones_like(xs)])
    inside = photograph[np.round(there[1]).astype(int), np.round(there[0]).astype(int)]
    assert np.mean(inside < 120) > 0.97


def test_scale_does_not_matter() -> None:
    photograph = render(0, 3, None)
    small = cv2.resize(photograph, (400, 400), interpolation=cv2.INTER_AREA)
    large = cv2.resize(photograph, (2500, 2500), interpolation=cv2.INTER_CUBIC)
    inputs = [align(np.asarray(picture, np.uint8), Preprocessing()).pixels for picture in (photograph, small, large)]
    assert np.abs(inputs[1].astype(int) - inputs[0]).mean() < 6
    assert np.abs(inputs[2].astype(int) - inputs[0]).mean() < 6


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (40, 40)])
def test_nothing_to_be_found_gives_the_whole_photograph(shape: tuple[int, int]) -> None:
    aligned = align(np.full(shape, 200, np.uint8), Preprocessing())
    assert aligned.part is None
    assert aligned.pixels.shape == (160, 512, 1)
    assert (aligned.pixels == 200).all()


def test_alignment_can_be_left_out() -> None:
    left_out = Preprocessing(align="none", height=64, width=64, channels=3)
    aligned = preprocess(encoded(wedge(30)), left_out)
    assert aligned.part is None
    assert aligned.pixels.shape == (64, 64, 3)


@pytest.mark.parametrize("shape", [(1, 5000), (2, 5000), (5000, 3), (20, 20_000), (1, 1)])
@pytest.mark.parametrize("align_to", ["foreground", "none"])
def test_the_thinnest_image_is_still_one(shape: tuple[int, int], align_to: Literal["foreground", "none"]) -> None:
    settings = Preprocessing(align=align_to, height=64, width=128)
    for pixels in (np.full(shape, 200, np.uint8), np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)):
        assert align(pixels, settings).pixels.shape == (64, 128, 1)
