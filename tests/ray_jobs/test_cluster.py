"""Ray as `mergeline up` starts it."""

from pathlib import Path

import pytest

from ray_jobs.cluster import SILENCE
from tests.ray_jobs.test_ingress import session

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray, when imported
def test_ray_tells_nobody_about_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in session(tmp_path).environment().items():
        monkeypatch.setenv(name, value)
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    assert usage_lib._usage_stats_report_url().startswith("http://127.0.0.1:")  # type: ignore[no-untyped-call]


def test_nor_does_it_in_the_image() -> None:
    text = (ROOT / "Containerfile").read_text()
    assert all(f"{name}={value}" in text for name, value in SILENCE.items())
