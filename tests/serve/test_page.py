"""The application page in a real Chromium, as an inspector uses it; skipped where there is none (`make browser`)."""

import csv
import io
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Route, expect, sync_playwright

from gitops.manifest import Canary, ServedModel, Shadow, Trial
from gitops.status import Health, Journal, Status, Sync, now
from gitops.turn import Turn
from ray_jobs import dataset
from ray_jobs.labelling import import_labels
from serve.feedback import LINES, FeedbackFolder
from tests.bundles import THRESHOLD, make_bundle
from tests.photographs import stage_on, write_folder
from tests.serve.site import site
from tests.serve.test_served import deployed

NAMES = (os.environ.get("MERGELINE_CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `make browser` installs it where it can")
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's sandbox needs what containers mostly lack; the only site it sees is ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass(frozen=True)
class Place:
    """The service, and what lies around it."""

    url: str
    model: ServedModel
    photographs: Path
    feedback: Path

    def files(self, *names: str) -> list[Path]:
        return [self.photographs / name for name in names]


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


def test_several_files_are_judged_and_a_broken_one_says_why(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "broken.png", "dark.png")
    good, bad = page.locator(card(page, "light.png")), page.locator(card(page, "dark.png"))
    expect(good).to_have_attribute("data-verdict", "good")
    expect(good.locator(".label")).to_have_text("good")
    expect(bad).to_have_attribute("data-verdict", "bad")
    expect(bad.locator(".label")).to_have_text("defective")
    with httpx.Client() as client:
        answer = client.post(f"{place.url}/predict", content=place.files("dark.png")[0].read_bytes()).json()
    expect(bad.locator(".score")).to_have_text(f"{answer['score']:.3f}")
    expect(bad.locator(".version")).to_have_text("v7")
    failed = page.locator(card(page, "broken.png"))
    expect(failed.locator(".said")).to_contain_text("cut off")
    expect(page.locator("#filter [data-kind=failed] b")).to_have_text("1")
    expect(page.locator("#live")).to_have_text("All judged: 1 good, 1 not good, 1 could not be judged.")
    failed.locator(".again").click()
    expect(failed.locator(".said")).to_contain_text("cut off")


def test_the_slider_judges_anew_and_shows_the_default(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png")
    expect(page.locator("#default-mark")).to_have_text(f"default {THRESHOLD:.3f}")
    expect(page.locator("#threshold")).to_have_value(str(THRESHOLD))
    slide(page, 0)
    expect(page.locator(".card[data-verdict=bad]")).to_have_count(2)
    slide(page, 1)
    expect(page.locator(".card[data-verdict=good]")).to_have_count(2)
    page.click("#reset")
    expect(page.locator(".card[data-verdict=good]")).to_have_count(1)
    expect(page.locator("#reset")).to_be_hidden()
    page.locator("#threshold").press("ArrowRight")
    expect(page.locator("#threshold-number")).to_have_value("0.501")


def test_sorting_filtering_and_size(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png", "middle.png")
    expect_order(page, ["light.png", "dark.png", "middle.png"])
    for how, expected in {
        "worst": ["dark.png", "middle.png", "light.png"],
        "best": ["light.png", "middle.png", "dark.png"],
        "close": ["middle.png", "light.png", "dark.png"],
        "name": ["dark.png", "light.png", "middle.png"],
    }.items():
        page.select_option("#sort", how)
        expect(page.locator(".card .name")).to_have_text(expected)
    page.click("#filter [data-kind=good]")
    expect_order(page, ["light.png"])
    page.keyboard.press("ArrowRight")
    expect_order(page, ["dark.png", "middle.png"])
    width = page.locator(".card:visible").first.bounding_box()
    page.locator("#size").fill("400")
    wider = page.locator(".card:visible").first.bounding_box()
    assert width
    assert wider
    assert wider["width"] > width["width"]


def test_a_heatmap_is_laid_over_and_taken_off(page: Page, place: Place) -> None:
    judge(page, place, "dark.png", "scan.tiff")
    heat, image = page.locator(f"{card(page, 'dark.png')} .heat"), page.locator(f"{card(page, 'dark.png')} img")
    expect(image).to_be_visible()
    plain = image.get_attribute("src")
    heat.click()
    expect(heat).to_have_attribute("aria-pressed", "true")
    expect(image).not_to_have_attribute("src", str(plain))
    heat.click()
    expect(image).to_have_attribute("src", str(plain))
    # A format that no browser draws has a placeholder, and a heat-map all the same.
    scan = page.locator(card(page, "scan.tiff"))
    expect(scan.locator(".placeholder")).to_contain_text("cannot draw")
    scan.locator(".heat").click()
    expect(scan.locator("img")).to_be_visible()


def test_the_export_is_what_is_shown_at_the_slider(page: Page, place: Place) -> None:
    judge(page, place, "=cmd.png", "dark.png", "broken.png")
    expect(page.locator(f"{card(page, 'broken.png')} .said")).to_contain_text("cut off")
    slide(page, 0)
    expect(page.locator(".card[data-verdict=bad]")).to_have_count(2)
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "mergeline.csv"
    text = Path(download.value.path()).read_text("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["filename"] for row in rows] == ["'=cmd.png", "dark.png", "broken.png"]  # no formula
    assert [row["label"] for row in rows] == ["defective", "defective", ""]
    assert {row["threshold"] for row in rows[:2]} == {"0"}
    assert rows[0]["model_version"] == "7"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", rows[0]["model_digest"])
    assert float(rows[1]["score"]) > 0.5
    assert "cut off" in rows[2]["error"]


def test_this_is_wrong_is_kept_and_becomes_a_label_of_the_next_dataset(
    page: Page, place: Place, tmp_path: Path
) -> None:
    judge(page, place, "dark.png")
    page.locator(f"{card(page, 'dark.png')} .wrong").click()
    expect(page.locator("#report-about")).to_have_text("dark.png was judged defective.")
    page.fill("#report-comment", "only a shadow")
    page.fill("#report-by", "Ada")
    page.click("#report-send")
    expect(page.locator(f"{card(page, 'dark.png')} .said")).to_have_text("reported: it is good")
    write_folder(tmp_path / "data", 2, 2)
    stage = stage_on(tmp_path / "data", tmp_path / "state")
    report = import_labels(stage, place.feedback / LINES, confirm=True, by="Grace")
    assert len(report.brought) == 1
    assert report.brought[0] in {item.filename for item in dataset.extract(stage).photographs if item.label == "good"}
    assert report.brought[0].endswith("-dark.png")


def test_what_was_shown_is_sent_whatever_the_number(page: Page, place: Place) -> None:
    said: list[str] = []

    def keep(route: Route) -> None:
        said.append((route.request.post_data_buffer or b"").decode("latin-1"))
        route.fulfill(status=201, json={"label": "rusty", "sha256": "0" * 64})

    answer = ANSWER | {"score": 0, "probabilities": {"good": 1, "bent": 0, "rusty": 0}}
    page.route("**/predict", lambda route: route.fulfill(json=answer))
    page.route("**/feedback", keep)
    judge(page, place, "light.png")
    slide(page, 0)
    expect(page.locator(".card .label")).to_have_text("bent")
    page.click(".card .wrong")
    page.check("#report-labels input[value=rusty]")
    page.click("#report-send")
    expect(page.locator(".card .said")).to_contain_text("reported: it is rusty")
    for name, value in {"said": "bent", "label": "rusty", "score": "0", "threshold": "0"}.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n' in said[0]
    assert 'name="comment"' not in said[0]


@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_to_one_report_leaves_the_next_one_alone(page: Page, place: Place, kept: bool) -> None:
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route("**/feedback", hold)
    judge(page, place, "light.png", "dark.png")
    with page.expect_request("**/feedback"):
        page.click(f"{card(page, 'light.png')} .wrong")
        page.click("#report-send")
    page.keyboard.press("Escape")
    page.click(f"{card(page, 'dark.png')} .wrong")
    page.fill("#report-comment", "about the dark one")
    if kept:
        waiting[0].fulfill(status=201, json={"label": "defective", "sha256": "0" * 64})
        expect(page.locator(f"{card(page, 'light.png')} .said")).to_contain_text("reported: it is defective")
    else:
        waiting[0].fulfill(status=507, json={"error": {"status": 507, "reason": "full"}, "id": "1"})
        expect(page.locator(f"{card(page, 'light.png')} .said")).to_contain_text("It was not kept: full")
    expect(page.locator("#report")).to_be_visible()
    expect(page.locator("#report-about")).to_contain_text("dark.png")
    expect(page.locator("#report-comment")).to_have_value("about the dark one")
    expect(page.locator("#report-error")).to_be_hidden()


def test_where_feedback_is_off_no_key_asks_for_it(page: Page, place: Place) -> None:
    judge(page, place, "light.png")
    page.evaluate("document.body.classList.add('no-feedback')")
    page.locator(f"{card(page, 'light.png')} .photo").click()
    expect(page.locator("#viewer .wrong")).to_be_hidden()
    page.keyboard.press("w")
    expect(page.locator("#report")).to_be_hidden()
    expect(page.locator("#viewer")).to_be_visible()


def test_a_camera_that_is_closed_and_opened_again_is_let_go(page: Page) -> None:
    page.evaluate("""() => {
        window.streams = [];
        navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => {
            const stream = document.createElement("canvas").captureStream();
            streams.push({ stream, resolve: () => resolve(stream) });
        });
    }""")
    page.click("#camera")
    page.click("#lens-close")
    page.click("#camera")
    page.evaluate("streams.forEach((one) => one.resolve())")
    states = "streams.map((one) => one.stream.getTracks()[0].readyState)"
    page.wait_for_timeout(100)
    assert page.evaluate(states) == ["ended", "live"]
    page.click("#lens-close")
    page.wait_for_timeout(100)
    assert page.evaluate(states) == ["ended", "ended"]


def test_who_has_no_mouse_gets_everywhere(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png")
    page.locator(f"{card(page, 'light.png')} .photo").focus()
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    expect(viewer.locator(".name")).to_have_text("light.png")
    page.keyboard.press("ArrowRight")
    expect(viewer.locator(".name")).to_have_text("dark.png")
    page.keyboard.press("h")
    expect(viewer.locator(".heat")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("w")
    expect(page.locator("#report")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    page.locator("#tab-inspect").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#served h1")).to_have_text("screw version 7")
    expect(page.locator("#tab-served")).to_be_focused()
    page.go_back()
    expect(page.locator("#served")).to_be_hidden()


def test_what_is_served_without_a_journal(page: Page) -> None:
    page.click("#tab-served")
    expect(page.locator("#served")).to_contain_text("the middle")
    expect(page.locator("#served")).to_contain_text("args.journal")


def test_how_the_service_does_lately(page: Page) -> None:
    page.click("#tab-served")
    lately = page.locator("#served section", has_text="Lately")
    expect(lately).to_contain_text("Of this replica alone.")
    expect(lately.locator(".tile")).to_have_count(3)
    found = {
        "source": "prometheus",
        "figures": {
            "seconds": 300,
            "requests_per_second": 12.5,
            "error_share": 0.004,
            "p50_seconds": 0.02,
            "p99_seconds": 1.5,
        },
        "drift": {"image": True, "label": False, "any": True},
        "problem": None,
    }
    page.route("**/served/figures", lambda route: route.fulfill(json=found))
    page.click("#tab-inspect")
    page.click("#tab-served")
    expect(lately).to_contain_text("By Prometheus, of all replicas.")
    tiles = ["12.5/s", "20.0 ms", "0.40 %", "yes"]
    expect(lately.locator(".tile strong")).to_have_text(tiles)
    expect(lately).to_contain_text("99 %: 1500 ms")
    expect(lately.locator(".tile").last).to_contain_text("image")


def test_windows_of_drift_with_their_photographs(page: Page) -> None:
    window = {
        "ended_at": "2026-11-26T04:00:00Z",
        "model_version": "7",
        "outcome": "drifted",
        "photographs": 256,
        "drifting_since": "2026-11-25T22:10:00Z",
        "drifted": ["exposure", "sharpness"],
        "examples": ["a" * 64, "b" * 64],
    }
    stable = window | {"outcome": "stable", "drifting_since": None, "drifted": [], "examples": []}
    few = stable | {"outcome": "too_few", "photographs": 12}
    candidate = stable | {"model_version": "8"}
    answer = {"watched": True, "windows": [few, candidate, window, stable]}
    page.route("**/served/windows", lambda route: route.fulfill(json=answer))
    page.click("#tab-served")
    drift = page.locator("#served section", has=page.get_by_role("heading", name="Drift", exact=True))
    expect(drift).to_contain_text("has differed from the reference of version 7 since")
    rows = drift.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(2).locator(".badge")).to_have_text("drifted")
    expect(rows.nth(2)).to_contain_text("exposure, sharpness")
    assert rows.nth(2).locator("a").first.get_attribute("href") == f"served/windows/{'a' * 64}"
    expect(rows.last.locator(".badge")).to_have_text("stable")
    answer["watched"] = False
    page.click("#tab-inspect")
    page.click("#tab-served")
    expect(drift).to_have_count(0)


def test_what_is_served_with_a_journal(browser: Browser, place: Place, tmp_path: Path) -> None:
    journal = Journal.at(tmp_path / "state/reconciler/local")
    older = place.model.model_copy(update={"version": "6", "sha256": "6" * 64})
    for number, model in ((1, older), (2, place.model)):
        journal.append(deployed(number, model))
    sync, health = Sync(status="Synced", revision="2" * 40), Health(status="Healthy")
    journal.write(Status(environment="local", sync=sync, health=health, reconciled_at=now()))
    with site(place.model, tmp_path, journal=journal) as url, Turn(journal.folder).taken():
        page = browser.new_page()
        page.goto(url)
        page.click("#tab-served")
        served = page.locator("#served")
        expect(served.locator("h1")).to_have_text("screw version 7")
        expect(served.locator(".hero .badge")).to_have_text(["Synced", "Healthy"])
        expect(served).to_contain_text("running")
        rows = served.locator("section", has_text="History").locator("tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_have_class("now")
        expect(rows.first).to_contain_text("version 7")
        expect(rows.first).to_contain_text("Commit 2")
        expect(rows.last).to_contain_text("version 6")
        expect(served).not_to_contain_text("ada@example.com")
        page.close()


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_what_is_tried_stands_below_what_is_served(browser: Browser, place: Place, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "candidate"
    digest = make_bundle(folder, align="none", version_salt=0.5)
    candidate = ServedModel(name="screw", version="8", sha256=digest, uri=folder.as_uri())
    trial: Trial = Canary(percent=40, model=candidate) if kind == "canary" else Shadow(model=candidate)
    says = "answers 40 % of the requests" if kind == "canary" else "judges the same photographs afterwards"
    with site(place.model, tmp_path, trial=trial) as url:
        page = browser.new_page()
        page.goto(f"{url}/#served")
        expect(page.locator("#served h1")).to_have_text("screw version 7")
        expect(page.locator("#served")).to_contain_text(f"{kind.title()}: version 8 {says}")
        page.goto(f"{url}/#inspect")
        page.set_input_files("#files", place.files("light.png", "middle.png", "dark.png"))
        expect(page.locator(JUDGED)).to_have_count(3)
        versions = set(page.locator(".card .version").all_inner_texts())
        assert len(versions) == 1, "one page is answered by one version"
        page.close()


def test_two_versions_in_turns_are_not_looked_up_each_time(page: Page, place: Place) -> None:
    looked: list[str] = []
    page.on("request", lambda request: looked.append(request.url) if request.url.endswith("/served") else None)
    page.route("**/predict", lambda route: route.fulfill(json=ANSWER))  # of another digest than what is served
    for number in range(1, 5):
        page.set_input_files("#files", place.files("light.png"))
        expect(page.locator(JUDGED)).to_have_count(number)
    assert len(looked) <= 1
    page.wait_for_timeout(3500)
    assert len(looked) == 1


def test_a_busy_service_is_asked_again(page: Page, place: Place) -> None:
    refused = []

    def refuse_once(route: object) -> None:
        refused.append(route)
        if len(refused) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="full")  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/predict", refuse_once)
    page.set_input_files("#files", place.files("light.png"))
    expect(page.locator(f"{card(page, 'light.png')} .said")).to_contain_text("again in 1 s")
    expect(page.locator(JUDGED)).to_have_count(1)
    assert len(refused) == 2


def test_stop_and_clear(page: Page, place: Place) -> None:
    page.route("**/predict", lambda route: None)  # never answers
    page.set_input_files("#files", place.files("light.png", "dark.png", "middle.png", "=cmd.png", "scan.tiff"))
    expect(page.locator("#progress-text")).to_have_text("0 of 5 judged")
    page.click("#stop")
    expect(page.locator(".card[data-state=failed]")).to_have_count(5)
    page.click("#clear")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#work")).to_be_hidden()


def test_what_is_stopped_while_it_is_added_can_be_tried_again(page: Page, place: Place) -> None:
    page.evaluate("() => { window.requestAnimationFrame = (then) => setTimeout(then, 400); }")
    page.route("**/predict", lambda route: None)  # never answers
    data = place.files("light.png")[0].read_bytes()
    files: list[FilePayload] = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": data} for n in range(130)]
    page.set_input_files("#files", files)
    page.evaluate("document.getElementById('stop').click()")
    assert page.locator(".card").count() < 130
    failed = page.locator(".card[data-state=failed]")
    expect(failed).to_have_count(130)
    expect(failed.last.locator(".said")).to_have_text("stopped")
    page.unroute("**/predict")
    page.evaluate("document.getElementById('retry').click()")
    expect(page.locator(JUDGED)).to_have_count(130, timeout=20_000)


def test_what_cannot_be_read_of_a_folder_keeps_the_rest_not_out(page: Page) -> None:
    page.evaluate("""() => {
        const readable = (name) => ({ name, isFile: true, file: (then) => then(new File(["x"], name)) });
        const unreadable = (name) => ({ name, isFile: true, file: (_, fail) => fail(new Error(name)) });
        const folder = (name, ...inner) => ({
            name,
            isFile: false,
            createReader: () => ({
                readEntries: (then, fail) => (inner[0] === null ? fail(new Error(name)) : then(inner.splice(0))),
            }),
        });
        const inner = [readable("a.png"), unreadable("b.png"), readable("c.txt"), folder("locked", null)];
        const dropped = folder("parts", ...inner);
        const event = new Event("drop", { cancelable: true });
        event.dataTransfer = { items: [{ webkitGetAsEntry: () => dropped }], files: [] };
        dispatchEvent(event);
    }""")
    expect(page.locator(".card .name")).to_have_text(["a.png"])
    expect(page.locator("#unreadable")).to_have_text("2 of what was dropped could not be read: b.png and 1 more.")


def test_light_dark_and_a_phone(browser: Browser, place: Place) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark", is_mobile=True, has_touch=True
    )
    page = context.new_page()
    page.goto(place.url)
    judge(page, place, "light.png", "dark.png")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.tap("#theme")
    light = page.evaluate(background)
    assert sum(map(int, re.findall(r"\d+", dark))) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)))
    page.reload()
    assert page.evaluate(background) == light  # chosen, and remembered
    for tab in ("#tab-served", "#tab-inspect"):
        page.tap(tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_several_classes_show_the_likeliest_that_is_not_good(page: Page, place: Place) -> None:
    page.route("**/predict", lambda route: route.fulfill(json=ANSWER))
    judge(page, place, "light.png")
    slide(page, 0.6)
    expect(page.locator(".card .label")).to_have_text("good")
    slide(page, 0.4)
    expect(page.locator(".card .label")).to_have_text("rusty")
    page.click(".card .wrong")
    assert page.locator("#report-labels label").all_inner_texts() == ["good", "bent"]
