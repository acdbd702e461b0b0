"""The page in a real Chromium, and what an inspector does on it; skipped where there is none (`make browser`)."""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from gitops.contracts.serving import ServedModel
from serve.feedback import FeedbackFolder
from tests.bundles import make_bundle
from tests.serve.site import site

JUDGED = ".card[data-state=judged]"
ANSWER = {
    "id": "1",
    "model_name": "screw",
    "model_version": "7",
    "model_digest": "sha256:" + "0" * 64,
    "label": "good",
    "score": 0.5,
    "threshold": 0.6,
    "probabilities": {"good": 0.5, "bent": 0.2, "rusty": 0.3},
    "part_found": True,
}
"""Of a model of several classes."""


@dataclass(frozen=True)
class Place:
    """The service, and what lies around it."""

    url: str
    model: ServedModel
    photographs: Path
    feedback: Path

    def files(self, *names: str) -> list[Path]:
        return [self.photographs / name for name in names]

    def called(self, *names: str) -> list[FilePayload]:
        """The light photograph, under each of these names."""
        light = (self.photographs / "light.png").read_bytes()
        return [{"name": name, "mimeType": "image/png", "buffer": light} for name in names]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A bundle that calls good what is bright, and photographs of known brightness."""
    folder = tmp_path_factory.mktemp("page")
    photographs = folder / "photographs"
    photographs.mkdir()
    for name, level in {"light.png": 250, "dark.png": 5, "middle.png": 100, "=cmd.png": 200, "scan.tiff": 30}.items():
        cv2.imwrite(str(photographs / name), np.full((60, 80), level, np.uint8))
    (photographs / "broken.png").write_bytes((photographs / "light.png").read_bytes()[:-14])
    bundle = folder / "bundle"
    model = ServedModel(name="screw", version="7", sha256=make_bundle(bundle, align="none"), uri=bundle.as_uri())
    with site(model, folder, feedback=FeedbackFolder(folder / "feedback")) as url:
        yield Place(url, model, photographs, folder / "feedback")


@pytest.fixture
def page(browser: Browser, place: Place) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Security Policy" in message.text else None)
    page.goto(place.url)
    expect(page.locator("#model")).to_have_text("screw · v7")
    yield page
    context.close()
    assert complaints == []


def card(page: Page, name: str) -> str:
    return f'.card:has(.name[title="{name}"])'


def judge(page: Page, place: Place, *names: str) -> None:
    page.set_input_files("#files", place.files(*names))
    expect(page.locator(JUDGED)).to_have_count(len([name for name in names if name != "broken.png"]))


def expect_order(page: Page, names: list[str]) -> None:
    """The page draws in frames: what is shown comes a moment after what was done."""
    expect(page.locator(".card:visible .name")).to_have_text(names)


def slide(page: Page, threshold: float) -> None:
    page.locator("#threshold").fill(str(threshold))


def hold(page: Page, pattern: str) -> list[Route]:
    """Requests from now on, which wait until somebody answers them."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route(pattern, keep)
    return held


def await_requests(page: Page, held: Sequence[Route], count: int) -> None:
    """Until so many requests of `hold` wait; the page goes on meanwhile."""
    deadline = time.monotonic() + 30
    while len(held) < count:
        assert time.monotonic() < deadline, f"{len(held)} of {count} requests came"
        page.wait_for_timeout(20)


def exported(page: Page) -> list[dict[str, str]]:
    """The lines of the CSV file."""
    with page.expect_download() as download:
        page.click("#export")
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))
