from pathlib import Path

import cv2
import numpy as np
import pytest

from gitops.contracts.project import Preprocessing
from ray_jobs.render import KINDS, kind_of, render, write
from serve.preprocess import align


def test_the_same_image_whatever_the_count(tmp_path: Path) -> None:
    write(tmp_path / "few", 4, 0.5, seed=3)
    write(tmp_path / "more", 6, 0.5, seed=3)
    few = {path.name: path.read_bytes() for path in (tmp_path / "few/train").iterdir()}
    more = {path.name: path.read_bytes() for path in (tmp_path / "more/train").iterdir()}
    assert len(few) == 4
    assert few.items() <= more.items()


def test_seeds_and_indices_give_other_images() -> None:
    first = render(1, 0, None)
    assert first.shape == (1024, 1024)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, render(2, 0, None))
    assert not np.array_equal(first, render(1, 1, None))


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_share_and_kinds_of_defects(share: float) -> None:
    kinds = [kind_of(index, share) for index in range(200)]
    defective = [kind for kind in kinds if kind is not None]
    assert len(defective) == round(200 * share)
    counts = {kind: defective.count(kind) for kind in KINDS}
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_every_screw_is_straightened_head_left(kind: str | None) -> None:
    for index in range(5):
        aligned = align(render(11, index, kind), Preprocessing())
        assert aligned.part is not None
        metal = aligned.pixels[..., 0] < 130
        breadth = metal.sum(axis=0)
        head, thread = breadth[20:70].max(), breadth[330:430].max()
        assert head > 1.5 * thread


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("manipulated_front", (420, 512)),
        ("scratch_head", (0, 110)),
        ("scratch_neck", (90, 270)),
        ("thread_side", (230, 450)),
        ("thread_top", (230, 450)),
    ],
)
def test_a_defect_is_visible_and_only_where_it_belongs(kind: str, where: tuple[int, int]) -> None:
    for index in range(4):
        good = align(render(5, index, None), Preprocessing())
        # The same window for both, as a bent tip moves the outline.
        window = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        bad = cv2.warpAffine(
            render(5, index, kind), good.to_photograph, (512, 160), flags=window, borderMode=cv2.BORDER_REPLICATE
        )
        difference = np.abs(bad.astype(int) - good.pixels[..., 0].astype(int)) > 25
        assert difference.sum() > 60
        outside = difference.copy()
        outside[:, slice(*where)] = False
        assert outside.sum() < 0.1 * difference.sum()


def test_an_interrupted_sample_is_completed(tmp_path: Path) -> None:
    assert write(tmp_path, 5, 0.4, seed=1) == 5
    table = tmp_path / "train.csv"
    whole, rows = {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()}, table.read_text()
    assert rows.splitlines()[0] == "filename,anomaly"
    assert sum(line.endswith(",1") for line in rows.splitlines()) == 2
    lost = sorted(whole)[2]
    (tmp_path / "train" / lost).unlink()
    (tmp_path / "train" / f".{lost}").write_bytes(whole[lost][:100])  # as a killed run leaves it
    table.unlink()
    assert write(tmp_path, 5, 0.4, seed=1) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()} == whole
    assert table.read_text() == rows
    assert write(tmp_path, 5, 0.4, seed=1) == 0
