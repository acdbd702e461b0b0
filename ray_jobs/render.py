"""Draws screws and their defects like the photographs of the real set: the sample that needs no network.

python -m ray_jobs.render FOLDER --images 480
"""

import argparse
import csv
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gitops.state import usable_cores, write_atomically
from ray_jobs.stage import report_progress, run_main

Plane = NDArray[np.float32]

SIDE = 1024
"""Height and width of a photograph, in pixels."""
KINDS = ("manipulated_front", "scratch_head", "scratch_neck", "thread_side", "thread_top")
"""The five kinds of defect, named as in the real set."""

# The straight frame that a screw is drawn in: head left, tip right, its axis along the middle row.
_FRAME_HEIGHT, _FRAME_WIDTH = 340, 960
_MIDDLE = _FRAME_HEIGHT / 2
_HEAD_WIDTH = 90
# The whole screw stays in the picture, as in the real set.
_RIM = 12
# Radius of the hollow between cone and shank.
_FILLET = 7.0
# How far a bent tip may stand off the axis.
_MOST_BEND = 52.0


@dataclass(frozen=True)
class Screw:
    """Measures of one screw in its straight frame, in pixels (`_x`: along the axis; `_r`: across, from the axis)."""

    rim_x: float
    face: float
    """Half the width of the head's face, which is seen at a slant."""
    head_r: float
    shank_x: float
    shank_r: float
    thread_x: float
    root_r: float
    crest_r: float
    pitch: float
    taper_x: float
    tip_x: float
    light: float
    """Where across the shank its highlight lies, -1 to 1."""
    gloss: float
    tone: float
    """Mean gray level of the metal."""


def kind_of(index: int, defective_share: float) -> str | None:
    """The kind of defect of image `index`, None for a good one; it does not depend on how many are drawn."""
    before, after = int(index * defective_share + 1e-9), int((index + 1) * defective_share + 1e-9)
    return KINDS[before % len(KINDS)] if after > before else None


def render(seed: int, index: int, kind: str | None) -> NDArray[np.uint8]:
    """Draw one photograph; the same arguments always give the same pixels.

    Args:
        seed: of the whole sample.
        index: of the image in it; its screw and scene are the same for every `kind`.
        kind: one of `KINDS`, or None for a good screw.

    Returns:
        uint8, (1024, 1024).
    """
    rng = np.random.default_rng([seed, index])
    screw = _random_screw(rng)
    metal, cover = _draw(screw, rng)
    place = _placement(screw, cover, rng)
    if kind is not None:
        # Its own generator, so that the scene around a defect does not depend on it.
        damage = np.random.default_rng([seed, index, KINDS.index(kind)])
        metal, cover = _DAMAGES[kind](screw, metal, cover, damage)
    return _photograph(metal, cover, place, rng)


def write(folder: Path, images: int, defective_share: float, seed: int) -> int:
    """Draw a sample in Kaggle's layout: `train/` with the images, and `train.csv`, which is written last.

    Images that an interrupted run left behind are kept.

    Returns:
        How many images were drawn now.
    """
    names = {index: f"{kind_of(index, defective_share) or 'ok'}{index:04d}.png" for index in range(images)}
    train = folder / "train"
    train.mkdir(parents=True, exist_ok=True)
    for leftover in train.glob(".*"):
        leftover.unlink()
    missing = [index for index, name in names.items() if not (train / name).exists()]

    def draw(index: int) -> None:
        pixels = render(seed, index, kind_of(index, defective_share))
        _write_png(train / names[index], pixels)

    # Threads suffice: NumPy and OpenCV let go of the interpreter while they work.
    pool = ThreadPoolExecutor(max_workers=usable_cores())
    try:
        for done, drawn in enumerate(as_completed([pool.submit(draw, index) for index in missing]), start=1):
            drawn.result()
            if done % 20 == 0 or done == len(missing):
                report_progress(done, len(missing), "images drawn")
    finally:
        pool.shutdown(cancel_futures=True)
    rows = sorted((name, int(not name.startswith("ok"))) for name in names.values())
    _write_table(folder / "train.csv", rows)
    return len(missing)


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    encoded = cv2.imencode(".png", pixels)[1]
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(encoded.tobytes())
    temporary.replace(path)


def _write_table(path: Path, rows: list[tuple[str, int]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["filename", "anomaly"])
    writer.writerows(rows)
    if not path.exists() or path.read_text() != text.getvalue():
        write_atomically(path, text.getvalue())


# --- the screw --------------------------------------------------------------------------------------------------------


def _random_screw(rng: np.random.Generator) -> Screw:
    rim_x = 34 + rng.uniform(-6, 6)
    shank_x = rim_x + rng.uniform(118, 132)
    thread_x = shank_x + rng.uniform(240, 262)
    tip_x = _FRAME_WIDTH - rng.uniform(14, 34)
    shank_r = rng.uniform(48, 52)
    return Screw(
        rim_x=rim_x,
        face=rng.uniform(14, 24),
        head_r=rng.uniform(132, 141),
        shank_x=shank_x,
        shank_r=shank_r,
        thread_x=thread_x,
        root_r=shank_r - rng.uniform(5, 9),
        crest_r=shank_r + rng.uniform(15, 20),
        pitch=rng.uniform(61, 66),
        taper_x=thread_x + rng.uniform(235, 265),
        tip_x=tip_x,
        light=rng.uniform(-0.55, 0.55),
        gloss=rng.uniform(0.15, 0.65),
        tone=rng.uniform(84, 104),
    )


def _noise(rng: np.random.Generator, height: int, width: int, across: float, along: float) -> Plane:
    """Gaussian noise of unit deviation, smooth over `across` rows and `along` columns."""
    rows, columns = max(2, round(height / across)), max(2, round(width / along))
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _frame() -> tuple[Plane, Plane]:
    """Coordinates along the axis x (1, width) and across it y (height, 1), 0 on the axis."""
    x = np.arange(_FRAME_WIDTH, dtype=np.float32)[None, :]
    y = np.arange(_FRAME_HEIGHT, dtype=np.float32)[:, None] - _MIDDLE
    return x, y.astype(np.float32)


def _edge(distance: Plane) -> Plane:
    """Coverage of pixels whose distance inside an outline is given, in pixels: the outline without steps."""
    return np.asarray(np.clip(distance + 0.5, 0, 1), np.float32)


def _core_radius(screw: Screw, x: Plane) -> Plane:
    """Radius of head, shank and the thread's root over x."""
    along_cone = np.clip((x - screw.rim_x) / (screw.shank_x - screw.rim_x), 0, 1)
    slope = (screw.head_r - screw.shank_r) * (1 - 1.25 * along_cone)
    cone = screw.shank_r + _FILLET * np.logaddexp(0, slope / _FILLET)
    neck = (screw.thread_x - x) / 6
    root = screw.root_r + (screw.shank_r - screw.root_r) * np.clip(neck, 0, 1)
    tapered = np.clip((screw.tip_x - x) / (screw.tip_x - screw.taper_x), 0, 1)
    threaded = np.where(x < screw.tip_x, root * tapered**0.62, -1)
    return np.asarray(np.where(x < screw.thread_x, np.maximum(cone, root), threaded), np.float32)


def _draw(screw: Screw, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Gray level of the metal, and its coverage 0 to 1, in the straight frame."""
    x, y = _frame()
    core = _core_radius(screw, x)
    across = np.asarray(np.clip(y / np.maximum(core, 1), -1, 1), np.float32)
    metal = screw.tone * _cylinder_light(screw, across)
    metal = metal * np.where(x < screw.shank_x - 12, rng.uniform(0.86, 0.98) + 0.1 * across, 1)
    metal = metal + 26 * screw.gloss * np.exp(-(((x - screw.shank_x + 8) / 22) ** 2)) * (1 - across**2)
    metal = np.asarray(metal, np.float32)
    metal, cover = _with_thread(screw, metal, _edge(core - np.abs(y)) * (x >= screw.rim_x), x, y)
    metal = metal * (1 + 0.03 * _noise(rng, _FRAME_HEIGHT, _FRAME_WIDTH, 4, 40))  # drawn wire: streaks along the axis
    metal = metal * (1 + 0.08 * _noise(rng, _FRAME_HEIGHT, _FRAME_WIDTH, 2.5, 3))
    worn = _noise(rng, _FRAME_HEIGHT, _FRAME_WIDTH, 26, 70)
    metal = metal + 6 * worn + 18 * np.maximum(worn - 1.6, 0)
    return _with_face(screw, np.asarray(metal, np.float32), cover, rng)


def _cylinder_light(screw: Screw, across: Plane) -> Plane:
    """Brightness over a cylinder, relative to its tone; `across` is -1 to 1."""
    round_off = 0.62 + 0.46 * np.sqrt(np.maximum(1 - across**2, 0))
    highlight = screw.gloss * np.exp(-(((across - screw.light) / 0.2) ** 2))
    dark_band = 0.35 * screw.gloss * np.exp(-(((across + screw.light + 0.25 * np.sign(screw.light)) / 0.25) ** 2))
    return np.asarray(round_off + highlight - dark_band, np.float32)


def _with_thread(screw: Screw, metal: Plane, cover: Plane, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Wind the thread round the core: a ridge with dark flanks, a bright crest and a shadow behind it."""
    tapered = np.clip((screw.tip_x - 12 - x) / (screw.tip_x - screw.taper_x), 0, 1) ** 0.8
    run_in = np.clip((x - screw.thread_x) / 24, 0, 1)
    root = _core_radius(screw, x)
    crest = np.maximum(root, run_in * tapered * screw.crest_r)
    turn = np.arcsin(np.clip(y / np.maximum(crest, 1), -1, 1)) / (2 * np.pi)
    phase = (x - screw.thread_x - 14) / screw.pitch - turn
    offset = ((phase + 0.5) % 1 - 0.5) * screw.pitch
    half = 4 + 8 * tapered
    height = np.clip(1 - np.abs(offset) / half, 0, 1)
    threaded = (x > screw.thread_x) & (tapered > 0)
    ridge = _edge(root + (crest - root) * height - np.abs(y)) * (height > 0) * threaded
    flank = np.where(np.abs(offset) < 0.3 * half, 1.3, np.where(offset < 0, 0.78, 0.52))
    shadow = 1 - 0.3 * np.exp(-(((offset - half - 3) / 5) ** 2)) * threaded
    metal = np.where(ridge > 0, screw.tone * flank * (0.75 + 0.25 * height), metal * shadow)
    return np.asarray(metal, np.float32), np.asarray(np.maximum(cover, ridge), np.float32)


def _with_face(screw: Screw, metal: Plane, cover: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Set the head's rim and its face with the star-shaped drive before the cone."""
    x, y = _frame()
    x = x[:, :_HEAD_WIDTH]
    head, outline = metal[:, :_HEAD_WIDTH], cover[:, :_HEAD_WIDTH]
    for shift, tone in ((14.0, 0.8), (6.0, 1.05), (0.0, 0.9)):
        reach = np.hypot((x - screw.rim_x - shift + 10) / screw.face, y / screw.head_r)
        disc = _edge((1 - reach) * screw.face)
        head = head * (1 - disc) + disc * screw.tone * (tone + 0.08 * y / screw.head_r)
        outline = np.maximum(outline, disc)
    drive_x, drive_y = (x - screw.rim_x + 12) / (0.52 * screw.face), y / (0.4 * screw.head_r)
    lobes = 1 + 0.16 * np.cos(6 * np.arctan2(drive_y, drive_x) + rng.uniform(0, 2 * np.pi))
    drive = _edge((lobes - np.hypot(drive_x, drive_y)) * 0.5 * screw.face)
    glint = np.clip(_noise(rng, _FRAME_HEIGHT, _HEAD_WIDTH, 16, 5), 0, 1.6)
    head = head * (1 - drive) + drive * screw.tone * (0.55 + 0.5 * glint)
    head = head * (1 + 0.06 * _noise(rng, _FRAME_HEIGHT, _HEAD_WIDTH, 3, 3))
    return np.hstack([head, metal[:, _HEAD_WIDTH:]]), np.hstack([outline, cover[:, _HEAD_WIDTH:]])


# --- its defects ------------------------------------------------------------------------------------------------------


def _scrape(
    metal: Plane, cover: Plane, center: tuple[float, float], size: tuple[float, float], rng: np.random.Generator
) -> Plane:
    """Lay bare a patch of bright, filed metal with a ragged outline around `center` (x, y), `size` in half-axes."""
    angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    reach = np.clip(1 + 0.16 * _noise(rng, 2, 28, 1, 4)[0] + rng.normal(0, 0.06, 28), 0.6, 1.4)
    outline = np.stack([center[0] + size[0] * reach * np.cos(angles), center[1] + size[1] * reach * np.sin(angles)], 1)
    patch = np.zeros_like(metal)
    cv2.fillPoly(patch, [np.round(outline * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_AA, shift=4)
    patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), 1.2), np.float32) * (cover > 0.5)
    strokes = _noise(rng, _FRAME_HEIGHT, _FRAME_WIDTH, *rng.permutation([2.0, 22.0]))
    bare = rng.uniform(150, 178) + 17 * strokes
    brink = cv2.dilate(patch, np.ones((5, 5), np.uint8)) - patch
    return np.asarray((metal * (1 - 0.2 * brink)) * (1 - patch) + bare * patch, np.float32)


def _manipulated_front(screw: Screw, metal: Plane, cover: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Bend the tip, break it off, or both."""
    x, y = _frame()
    how = rng.choice(["bent", "broken", "both"])
    if how != "bent":
        end = screw.tip_x - rng.uniform(34, 66)
        ragged = 4 * _noise(rng, _FRAME_HEIGHT, 2, 7, 1)[:, :1]
        cover = cover * _edge(end + ragged + 0.15 * y - x)
    if how != "broken":
        start = screw.tip_x - rng.uniform(90, 130)
        along = np.clip((x - start) / (screw.tip_x - start), 0, None)
        bend = rng.choice([-1, 1]) * rng.uniform(30, _MOST_BEND) * along**1.7
        rows = (y + _MIDDLE - bend).astype(np.float32)
        columns = np.broadcast_to(x, rows.shape).astype(np.float32)
        metal, cover = (
            np.asarray(cv2.remap(plane, columns, rows, cv2.INTER_LINEAR), np.float32) for plane in (metal, cover)
        )
    return metal, cover


def _scratch_head(screw: Screw, metal: Plane, cover: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """File the edge of the head."""
    center = (screw.rim_x + rng.uniform(0, 32), _MIDDLE + rng.uniform(-0.62, 0.62) * screw.head_r)
    return _scrape(metal, cover, center, (rng.uniform(14, 24), rng.uniform(24, 42)), rng), cover


def _scratch_neck(screw: Screw, metal: Plane, cover: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Scrape the smooth shank."""
    center = (rng.uniform(screw.shank_x + 30, screw.thread_x - 40), _MIDDLE + rng.uniform(-0.45, 0.45) * screw.shank_r)
    return _scrape(metal, cover, center, (rng.uniform(22, 46), rng.uniform(16, 28)), rng), cover


def _thread_side(screw: Screw, metal: Plane, cover: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Crush the crests on one side, so that the outline is flat there and burr fills the gaps."""
    x, y = _frame()
    side = rng.choice([-1, 1])
    start = rng.uniform(screw.thread_x + 30, screw.taper_x - 40)
    length = rng.uniform(100, 160)
    inside = np.clip(np.minimum(x - start, start + length - x) / 8, 0, 1)
    ragged = 3 * _noise(rng, 2, _FRAME_WIDTH, 1, 9)[:1]
    flat = screw.root_r + rng.uniform(3, 7) + ragged
    filled = _edge(flat - side * y) * (side * y > 0) * inside
    burr = screw.tone * (0.95 + 0.25 * _noise(rng, _FRAME_HEIGHT, _FRAME_WIDTH, 5, 9))
    band = filled * _edge(side * y - 0.55 * screw.root_r)
    metal = metal * (1 - band) + (burr + 35) * band
    cover = np.where((inside > 0) & (side * y > 0), (1 - inside) * cover + inside * filled, cover)
    return np.asarray(metal, np.float32), np.asarray(cover, np.float32)


def _thread_top(screw: Screw, metal: Plane, cover: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Scrape the thread on the side that is seen."""
    center = (rng.uniform(screw.thread_x + 50, screw.taper_x + 50), _MIDDLE + rng.uniform(-0.35, 0.35) * screw.root_r)
    return _scrape(metal, cover, center, (rng.uniform(22, 46), rng.uniform(22, 40)), rng), cover


_DAMAGES: dict[str, Callable[[Screw, Plane, Plane, np.random.Generator], tuple[Plane, Plane]]] = dict(
    zip(KINDS, (_manipulated_front, _scratch_head, _scratch_neck, _thread_side, _thread_top), strict=True)
)


# --- the photograph ---------------------------------------------------------------------------------------------------


def _photograph(metal: Plane, cover: Plane, place: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lay the screw on the light table and take its picture."""
    size = (SIDE, SIDE)
    metal = np.asarray(cv2.warpAffine(metal, place, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    cover = np.asarray(cv2.warpAffine(cover, place, size, flags=cv2.INTER_LINEAR))
    scene = _table(rng) - _shadow(cover, rng)
    picture = scene + (metal - scene) * cover
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 0.9)), np.float32)
    picture = picture + 1.3 * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _placement(screw: Screw, cover: Plane, rng: np.random.Generator) -> NDArray[np.float64]:
    """2×3 matrix from the straight frame to the photograph: any angle, any place that keeps the screw inside."""
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.94, 1.03)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    ys, xs = np.nonzero(cover[::4, ::4] > 0.05)
    bent_tips = [[screw.tip_x, _MIDDLE - _MOST_BEND], [screw.tip_x, _MIDDLE + _MOST_BEND]]
    outline = np.vstack([4 * np.stack([xs, ys], 1), bent_tips]) @ turn.T
    low, high = _RIM - outline.min(0), SIDE - 1 - _RIM - outline.max(0)
    free = np.maximum(high - low, 0) / 2
    shift = (low + high) / 2 + rng.uniform(-1, 1, 2) * free
    return np.column_stack([turn, shift])


def _table(rng: np.random.Generator) -> Plane:
    """The light, unevenly lit background with some dust and, now and then, a fibre."""
    reach = np.linspace(-1, 1, SIDE, dtype=np.float32)
    bow = rng.uniform(2, 9) * reach**2
    table = (rng.uniform(186, 203) + rng.uniform(-9, 9) * reach - bow) + (rng.uniform(-9, 9) * reach - bow)[:, None]
    table = table + 0.8 * _noise(rng, SIDE, SIDE, 6, 6)
    dust = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(rng.integers(4, 26)):
        spot = tuple(int(value) for value in rng.integers(0, SIDE, 2))
        axes = (int(rng.integers(1, 5)), int(rng.integers(1, 4)))
        cv2.ellipse(dust, spot, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(10, 60)), -1)
    for _ in range(rng.integers(0, 3)):
        steps = np.cumsum(rng.normal(0, 3, (14, 2)) + rng.normal(0, 2, 2), axis=0)
        fibre = np.round(rng.uniform(0, SIDE, 2) + steps).astype(np.int32)
        cv2.polylines(dust, [fibre], False, float(rng.uniform(30, 70)), 1, cv2.LINE_AA)
    return np.asarray(table - cv2.GaussianBlur(dust, (0, 0), 1.2), np.float32)


def _shadow(cover: Plane, rng: np.random.Generator) -> Plane:
    """What the screw takes from the table's light: a wide soft shadow and a narrow one where it touches."""
    # A quarter of the size is enough for something so soft.
    small = cv2.resize(cover, (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_AREA)
    drift = np.array([[1, 0, rng.uniform(-4, 4)], [0, 1, rng.uniform(-4, 4)]])
    wide = cv2.GaussianBlur(small, (0, 0), 17, borderType=cv2.BORDER_REFLECT)
    near = cv2.warpAffine(cv2.GaussianBlur(small, (0, 0), 5), drift, (SIDE // 4, SIDE // 4))
    soft = rng.uniform(40, 62) * wide + rng.uniform(14, 28) * near
    return np.asarray(cv2.resize(soft.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.float32)


def main() -> None:
    """Draw a sample into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where train/ and train.csv go")
    parser.add_argument("--images", type=int, default=480, help="how many (%(default)s)")
    parser.add_argument("--defective-share", type=float, default=0.35, help="share of defective ones (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the drawing (%(default)s)")
    options = parser.parse_args()
    drawn = write(options.folder, options.images, options.defective_share, options.seed)
    print(f"drew {drawn} of {options.images} images in {options.folder}")


if __name__ == "__main__":
    run_main(main)
