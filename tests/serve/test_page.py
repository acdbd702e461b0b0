"""The application page in a real Chromium, as an inspector uses it; skipped where there is none (`make browser`)."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Dialog, FilePayload, Page, Route, expect

from gitops.contracts.serving import Canary, ServedModel, Shadow, Trial
from gitops.status import Health, Journal, Status, Sync, now
from gitops.turn import Turn
from ray_jobs import dataset
from ray_jobs.labelling import import_labels
from serve.feedback import LINES, FeedbackFolder
from tests.bundles import THRESHOLD, make_bundle
from tests.photographs import stage_on, write_folder
from tests.serve.site import site
from tests.serve.test_served import deployed

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
    expect(failed.locator(".again")).to_be_hidden()  # it would be cut off again
    expect(page.locator("#retry")).to_be_hidden()


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


def test_the_threshold_that_is_shown_is_the_one_that_counts(page: Page, place: Place) -> None:
    judge(page, place, "light.png")
    number, text = page.locator("#threshold-number"), page.locator("#threshold-text")
    for typed, shown in {"1.5": "1.000", "": "1.000", "0": "0.000"}.items():
        number.fill(typed)
        number.press("Tab")
        expect(number).to_have_value(shown)
        expect(text).to_contain_text(f"a score of {shown} on")
    expect(page.locator("#live")).to_have_text("Threshold 0.000: 0 good, 1 not good.")


@pytest.mark.parametrize("standard", [0.004, 0.985, 0.999])
def test_the_mark_of_an_extreme_default_stays_within_the_scale(page: Page, place: Place, standard: float) -> None:
    served = httpx.get(f"{place.url}/served").json()
    answer = served | {"model": served["model"] | {"threshold": standard}}
    page.route("**/served", lambda route: route.fulfill(json=answer))
    page.reload()
    judge(page, place, "light.png")
    expect(page.locator("#default-mark")).to_have_text(f"default {standard:.3f}")
    ends = page.evaluate("""() => [".ticks", "#default-mark", ".ticks span:first-child", ".ticks span:last-child"]
        .map((name) => document.querySelector(name).getBoundingClientRect()).map(({ left, right }) => [left, right])""")
    scale, mark, zero, one = ends
    assert scale[0] <= zero[1] <= mark[0] < mark[1] <= one[0] <= scale[1]


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
    page.locator("#size").fill("120")
    heights = page.evaluate("""() => ["label", "score"].map((name) =>
        document.querySelector(`.card:not([hidden]) .${name}`).offsetHeight)""")
    assert max(heights) < 30  # neither "defective" nor "> 0.999" is broken in two


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


def test_what_can_never_be_judged_is_promised_no_heatmap(page: Page, place: Place, tmp_path: Path) -> None:
    (tmp_path / "list.jpg").write_text("a shopping list")
    held = hold(page, "**/predict")
    page.set_input_files("#files", [tmp_path / "list.jpg", *place.files("scan.tiff")])
    text, scan = (page.locator(f"{card(page, name)} .placeholder") for name in ("list.jpg", "scan.tiff"))
    later = "The browser cannot draw this kind of file; once it is judged, its heat-map can be shown."
    expect(text).to_have_text(later)
    expect(scan).to_have_text(later)
    while len(held) < 2:
        page.wait_for_timeout(20)
    for route in held:
        route.continue_()
    never = "The browser cannot draw this file, and as it cannot be judged, there is no heat-map of it either."
    expect(text).to_have_text(never)
    expect(scan).to_have_text("The browser cannot draw this kind of file; its heat-map can be shown.")
    page.click(f"{card(page, 'list.jpg')} .photo")
    expect(page.locator("#viewer .placeholder")).to_have_text(never)
    expect(page.locator("#viewer .zoom")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer .placeholder")).to_contain_text("its heat-map can be shown")
    page.click("#viewer .heat")
    expect(page.locator("#viewer .heat")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowRight")  # to where that button is off, and the keys go on all the same
    expect(page.locator("#viewer .heat")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#viewer .name")).to_have_text("scan.tiff")


def test_a_file_that_is_gone_is_not_taken_for_a_service_that_is(page: Page, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "part.png"
    file.write_bytes(place.files("dark.png")[0].read_bytes())
    page.set_input_files("#files", file)
    expect(page.locator(JUDGED)).to_have_count(1)
    file.unlink()
    page.click(".card .heat")
    said = page.locator(".card .said")
    expect(said).to_have_text("no heat-map: the file cannot be read any more: it was moved, changed or deleted")
    page.click(".card .wrong")
    page.click("#report-send")
    expect(page.locator("#report-error")).to_contain_text("It was not kept: the file cannot be read any more")


def test_the_export_is_what_is_shown_at_the_slider(page: Page, place: Place) -> None:
    judge(page, place, "=cmd.png", "dark.png", "broken.png")
    expect(page.locator(f"{card(page, 'broken.png')} .said")).to_contain_text("cut off")
    slide(page, 0)
    expect(page.locator(".card[data-verdict=bad]")).to_have_count(2)
    with page.expect_download() as download:
        page.click("#export")
    assert re.fullmatch(r"mergeline-\d{8}-\d{4}\.csv", download.value.suggested_filename)
    text = Path(download.value.path()).read_text("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["filename"] for row in rows] == ["'=cmd.png", "dark.png", "broken.png"]  # no formula
    assert [row["label"] for row in rows] == ["defective", "defective", ""]
    assert {row["threshold"] for row in rows[:2]} == {"0"}
    assert rows[0]["model_version"] == "7"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", rows[0]["model_digest"])
    assert float(rows[1]["score"]) > 0.5
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", rows[0]["judged_at"])
    assert rows[0]["request_id"]
    assert "cut off" in rows[2]["error"]


def test_an_export_of_some_says_so(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png", "middle.png")
    expect(page.locator("#export")).to_have_text("Export CSV")
    page.click("#filter [data-kind=bad]")
    expect(page.locator("#export")).to_have_text("Export CSV (2)")
    assert [row["filename"] for row in exported(page)] == ["dark.png", "middle.png"]
    slide(page, 0)
    page.click("#filter [data-kind=good]")
    expect(page.locator("#export")).to_have_text("Export CSV (0)")
    expect(page.locator("#export")).to_be_disabled()


def test_formulas_of_any_width_are_none(page: Page, place: Place) -> None:
    data = place.files("light.png")[0].read_bytes()
    names = ["\uff1d1.png", "\uff0b2.png", "\uff0d3.png", "\uff204.png"]
    files: list[FilePayload] = [{"name": name, "mimeType": "image/png", "buffer": data} for name in names]
    page.set_input_files("#files", files)
    expect(page.locator(JUDGED)).to_have_count(4)
    assert [row["filename"] for row in exported(page)] == [f"'{name}" for name in names]


def exported(page: Page) -> list[dict[str, str]]:
    """The lines of the CSV file."""
    with page.expect_download() as download:
        page.click("#export")
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))


def test_a_new_version_changes_no_judgement_of_an_old_one(page: Page, place: Place) -> None:
    served = httpx.get(f"{place.url}/served").json()
    version_8 = {"version": "8", "threshold": 0.999, "sha256": "9" * 64}
    version_9 = {"version": "9", "threshold": 0.5, "sha256": "a" * 64}

    def as_version_8(route: Route) -> None:
        answer = route.fetch().json() | {"model_version": "8", "model_digest": f"sha256:{'9' * 64}"}
        route.fulfill(json=answer | {"threshold": 0.999, "label": "good"})

    judge(page, place, "dark.png")
    page.route("**/served", lambda route: route.fulfill(json=served | {"model": served["model"] | version_8}))
    page.route("**/predict", as_version_8)
    page.set_input_files("#files", place.files("middle.png"))
    expect(page.locator("#model")).to_have_text("screw · v8")
    dark = page.locator(card(page, "dark.png"))
    expect(dark).to_have_attribute("data-verdict", "bad")
    expect(page.locator(card(page, "middle.png"))).to_have_attribute("data-verdict", "good")
    expect(page.locator("#outdated-text")).to_have_text("1 was judged by version 7, at its own threshold.")
    assert [(row["model_version"], row["label"], row["threshold"]) for row in exported(page)] == [
        ("7", "defective", str(THRESHOLD)),
        ("8", "good", "0.999"),
    ]
    assert page.title() == "screw · Mergeline"
    page.route("**/served", lambda route: route.fulfill(json=served | {"model": served["model"] | version_9}))
    page.click("#tab-served")
    expect(page.locator("#model")).to_have_text("screw · v9")
    page.click("#tab-inspect")
    two = "2 were judged by versions 7 and 8, at their own thresholds."
    expect(page.locator("#outdated-text")).to_have_text(two)
    page.unroute("**/served")
    page.route("**/served", lambda route: route.fulfill(json=served | {"model": served["model"] | version_8}))
    page.click("#tab-served")
    expect(page.locator("#model")).to_have_text("screw · v8")
    page.click("#tab-inspect")
    page.click("#rejudge")
    expect(dark.locator(".version")).to_have_text("v8")
    expect(dark).to_have_attribute("data-verdict", "good")
    expect(page.locator("#outdated")).to_be_hidden()


def test_what_cannot_be_judged_again_keeps_its_judgement(page: Page, place: Place) -> None:
    page.route("**/predict", lambda route: route.fulfill(json=ANSWER))  # of another digest than what is served
    judge(page, place, "light.png")
    page.unroute("**/predict")
    error = {"error": {"status": 400, "reason": "not now"}, "id": "1"}
    page.route("**/predict", lambda route: route.fulfill(status=400, json=error))
    page.click("#rejudge")
    expect(page.locator(".card .said")).to_have_text("not judged again: not now")
    expect(page.locator(".card")).to_have_attribute("data-verdict", "good")


@pytest.mark.parametrize("classes", [["good", "2", "10"], ["1", "0"]])
def test_classes_that_look_like_numbers_keep_their_order(page: Page, place: Place, classes: list[str]) -> None:
    shares = dict(zip(classes, [0.95, 0.03, 0.02], strict=False))
    answer = ANSWER | {"label": classes[0], "score": 0.05, "probabilities": shares}
    page.route("**/predict", lambda route: route.fulfill(json=answer))
    judge(page, place, "light.png")
    expect(page.locator(".card .label")).to_have_text(classes[0])
    assert [row["label"] for row in exported(page)] == [classes[0]]
    slide(page, 0.01)
    expect(page.locator(".card .label")).to_have_text(classes[1])
    page.click(".card .wrong")
    assert page.locator("#report-labels label").all_inner_texts() == [classes[0], *classes[2:]]
    page.keyboard.press("Escape")
    page.click(".card .photo")
    expect(page.locator("#viewer .facts")).to_contain_text(f"{classes[0]} 0.950, {classes[1]} 0.030")


def test_no_single_click_loses_judgements(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png")
    page.click("#tab-served")
    page.click(".brand")
    expect(page.locator("#inspect")).to_be_visible()
    expect(page.locator(JUDGED)).to_have_count(2)
    page.click("#clear")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#undo")).to_contain_text("2 photographs were removed.")
    page.set_input_files("#files", place.files("middle.png", "dark.png"))
    expect(page.locator(JUDGED)).to_have_count(2)
    page.click("#undo-do")
    expect_order(page, ["light.png", "middle.png", "dark.png"])  # what was added anew is there once
    expect(page.locator("#undo")).to_be_hidden()
    expect(page.locator(".card img").first).to_be_visible()


def test_leaving_asks_until_the_judgements_are_exported(page: Page, place: Place) -> None:
    asked: list[str] = []

    def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", leave)
    judge(page, place, "light.png")
    exported(page)
    page.reload()
    assert asked == []
    judge(page, place, "light.png")
    page.select_option("#sort", "worst")
    page.locator("#size").fill("300")
    slide(page, 0.7)
    page.reload()
    assert asked == ["beforeunload"]
    expect(page.locator("#sort")).to_have_value("worst")
    expect(page.locator("#size")).to_have_value("300")
    expect(page.locator("#threshold")).to_have_value("0.7")
    expect(page.locator("#reset")).to_be_attached()


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


def test_a_report_that_waits_says_why(page: Page, place: Place) -> None:
    judge(page, place, "dark.png")
    page.route("**/feedback", lambda route: route.abort())
    page.click(".card .wrong")
    page.click("#report-send")
    expect(page.locator("#report-wait")).to_have_text("the service cannot be reached; trying again …")
    page.unroute("**/feedback")
    expect(page.locator("#report")).to_be_hidden(timeout=20_000)


@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_to_one_report_leaves_the_next_one_alone(page: Page, place: Place, kept: bool) -> None:
    waiting = hold(page, "**/feedback")
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


def test_the_camera_says_what_was_judged_and_offers_the_others(page: Page) -> None:
    page.evaluate("""() => {
        navigator.mediaDevices.enumerateDevices = async () =>
            ["one", "two"].map((deviceId) => ({ kind: "videoinput", deviceId, label: `Camera ${deviceId}` }));
        window.asked = [];
        navigator.mediaDevices.getUserMedia = async ({ video }) => {
            asked.push(video.deviceId?.exact ?? null);
            const canvas = Object.assign(document.createElement("canvas"), { width: 80, height: 60 });
            const brush = canvas.getContext("2d");
            const paint = () => { brush.fillRect(0, 0, 80, 60); requestAnimationFrame(paint); };
            paint();
            return canvas.captureStream();
        };
    }""")
    page.click("#camera")
    page.click("#lens-take")
    shots = page.locator("#lens-shots li")
    expect(shots.first).to_contain_text(re.compile(r"^1: defective 0\.\d{3}"))
    expect(shots.first).to_have_attribute("data-verdict", "bad")
    expect(page.locator("#lens-choice option")).to_have_text(["Camera one", "Camera two"])
    page.select_option("#lens-choice", "two")
    expect(page.locator("#lens-take")).to_be_enabled()
    page.click("#lens-take")
    expect(shots.first).to_contain_text("2: defective")
    assert page.evaluate("asked") == [None, "two"]


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
        "examples": ["a" * 64, "b" * 64, "a" * 64],
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
    expect(rows.nth(2).locator("a")).to_have_count(2)
    assert rows.nth(2).locator("a").first.get_attribute("href") == f"served/windows/{'a' * 64}"
    expect(rows.last.locator(".badge")).to_have_text("stable")
    answer["watched"] = False
    page.click("#tab-inspect")
    page.click("#tab-served")
    expect(drift).to_have_count(0)


def test_what_is_served_with_a_journal(browser: Browser, place: Place, tmp_path: Path) -> None:
    journal = Journal.at(tmp_path / "state/reconciler/local")
    older = place.model.model_copy(update={"version": "6", "sha256": "6" * 64})
    for number, model in ((1, older), (3, place.model), (3, place.model), (2, place.model)):
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
        expect(served.locator(".hero")).to_contain_text("sync Syncedhealth Healthy")
        expect(served).to_contain_text("running")
        rows = served.locator("section", has_text="History").locator("tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.first).to_have_class("now")
        expect(served.locator(".now")).to_have_count(1)
        expect(rows.nth(1)).to_contain_text("2×")
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
        expect(page.locator("#served .trial")).to_have_css("margin-bottom", "14px")  # else it touches the box below
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
    for number, name in enumerate(("light.png", "dark.png", "middle.png", "scan.tiff"), 1):
        page.set_input_files("#files", place.files(name))
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
    said = "0 of 1 judged; the service is full or starting; again in 1 s"
    expect(page.locator("#progress-text")).to_have_text(said)  # the card may be far from what is on the screen
    expect(page.locator(JUDGED)).to_have_count(1)
    assert len(refused) == 2


def test_what_stands_before_the_service_is_asked_again_while_none_of_it_is_there(page: Page, place: Place) -> None:
    answers = [{"status": 404, "body": "Path '/predict' not found"}, {"status": 500, "body": "no replica"}, None]

    def refuse(route: Route) -> None:
        if not answers:
            route.continue_()
        elif (answer := answers.pop(0)) is None:
            route.abort()
        else:
            route.fulfill(**answer)  # type: ignore[arg-type]

    page.route("**/predict", refuse)
    page.set_input_files("#files", place.files("light.png"))
    expect(page.locator(JUDGED)).to_have_count(1, timeout=20_000)
    assert answers == []
    page.unroute("**/predict")
    asked: list[Route] = []

    def no_such_model(route: Route) -> None:
        asked.append(route)
        route.fulfill(status=404, json={"error": {"status": 404, "reason": "there is no model here"}, "id": "1"})

    page.route("**/predict", no_such_model)
    page.set_input_files("#files", place.files("dark.png"))
    expect(page.locator(f"{card(page, 'dark.png')} .said")).to_have_text("there is no model here")
    assert len(asked) == 1


def test_a_service_that_is_back_is_seen_with_the_next_answer(page: Page, place: Place) -> None:
    page.route("**/served", lambda route: route.abort())
    page.click("#tab-served")
    expect(page.locator("#model")).to_have_text("not reachable", timeout=20_000)
    expect(page.locator("#served")).to_contain_text("Below is what was known last.")
    expect(page.locator("#served h1")).to_have_text("screw version 7")
    page.unroute("**/served")
    page.click("#tab-inspect")
    judge(page, place, "light.png")
    expect(page.locator("#model")).to_have_text("screw · v7")


def test_what_was_given_up_while_the_service_was_away_has_another_turn(page: Page, place: Place) -> None:
    page.clock.install()
    page.reload()
    names = ["light.png", "dark.png", "middle.png", "=cmd.png"]  # as many as are judged at once
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#files", place.files(*names))
    expect(page.locator("#progress-text")).to_contain_text("cannot be reached; again in")
    for _ in range(30):
        page.clock.run_for(3_000)
    failed = page.locator(".card[data-state=failed]")
    expect(failed).to_have_count(4)
    page.unroute("**/predict")
    dark, aborted = place.files("dark.png")[0].read_bytes(), list[Route]()

    def but_for_the_dark(route: Route) -> None:
        if route.request.post_data_buffer == dark:
            aborted.append(route)
            route.abort()
        else:
            route.continue_()

    page.route("**/predict", but_for_the_dark)
    page.set_input_files("#files", place.files("scan.tiff"))
    expect(page.locator(JUDGED)).to_have_count(4)
    for _ in range(30):
        page.clock.run_for(3_000)
    expect(failed.locator(".name")).to_have_text(["dark.png"])
    asked = len(aborted)
    another: FilePayload = {
        "name": "another.png",
        "mimeType": "image/png",
        "buffer": place.files("light.png")[0].read_bytes(),
    }
    page.set_input_files("#files", another)
    expect(page.locator(JUDGED)).to_have_count(5)
    expect(page.locator("#progress-text")).to_have_text("1 could not be judged")
    assert len(aborted) == asked > 0  # it has had its turn


def test_cards_stay_while_the_pointer_is_on_one(page: Page, place: Place) -> None:
    held = hold(page, "**/predict")
    page.set_input_files("#files", place.files("light.png", "middle.png", "dark.png"))
    page.select_option("#sort", "worst")
    while len(held) < 3:
        page.wait_for_timeout(20)
    page.hover(".card >> nth=0")
    for route, score in zip(held, (0.1, 0.5, 0.9), strict=True):
        route.fulfill(json=ANSWER | {"score": score})
    expect(page.locator(JUDGED)).to_have_count(3)
    page.wait_for_timeout(1500)
    expect_order(page, ["light.png", "middle.png", "dark.png"])
    page.mouse.move(5, 5)
    expect_order(page, ["dark.png", "middle.png", "light.png"])


def test_what_is_served_keeps_its_place_when_it_is_looked_up_again(page: Page) -> None:
    page.clock.install()
    page.goto(page.url + "#served")
    page.reload()
    box = page.locator("#served section", has=page.get_by_role("heading", name="The model"))
    expect(box).to_be_visible()
    expect(page.locator("#served")).to_contain_text("Lately")
    box.evaluate("(found) => { window.kept = found; }")
    with page.expect_request("**/served/windows"):
        page.clock.run_for(16_000)
    page.wait_for_timeout(300)
    assert page.evaluate("window.kept.isConnected")


def test_stop_and_clear(page: Page, place: Place) -> None:
    page.route("**/predict", lambda route: None)  # never answers
    page.set_input_files("#files", place.files("light.png", "dark.png", "middle.png", "=cmd.png", "scan.tiff"))
    expect(page.locator("#progress-text")).to_have_text("0 of 5 judged")
    page.click("#stop")
    expect(page.locator(".card[data-state=failed]")).to_have_count(5)
    page.click("#clear")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#work")).to_be_hidden()


def add_slowly(page: Page, place: Place) -> None:
    """Choose 130 photographs, of which the page takes a part at a time, and none is answered."""
    page.evaluate("() => { window.requestAnimationFrame = (then) => setTimeout(then, 400); }")
    page.route("**/predict", lambda route: None)  # never answers
    data = place.files("light.png")[0].read_bytes()
    files: list[FilePayload] = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": data} for n in range(130)]
    page.set_input_files("#files", files)


def test_what_is_stopped_while_it_is_added_can_be_tried_again(page: Page, place: Place) -> None:
    add_slowly(page, place)
    page.evaluate("document.getElementById('stop').click()")
    assert page.locator(".card").count() < 130
    failed = page.locator(".card[data-state=failed]")
    expect(failed).to_have_count(130)
    expect(failed.last.locator(".said")).to_have_text("stopped")
    page.unroute("**/predict")
    page.evaluate("document.getElementById('retry').click()")
    expect(page.locator(JUDGED)).to_have_count(130, timeout=20_000)


def test_what_is_cleared_while_it_is_added_comes_back_whole(page: Page, place: Place) -> None:
    add_slowly(page, place)
    page.evaluate("document.getElementById('clear').click()")
    expect(page.locator("#undo")).to_contain_text("130 photographs were removed.")
    page.wait_for_timeout(900)  # in which the rest would have come
    expect(page.locator(".card")).to_have_count(0)
    page.unroute("**/predict")
    page.evaluate("document.getElementById('undo-do').click()")
    expect(page.locator(JUDGED)).to_have_count(130, timeout=20_000)
    expect_order(page, [f"{n}.png" for n in range(130)])


def test_what_was_cleared_goes_on_where_it_was(page: Page, place: Place) -> None:
    asked = hold(page, "**/predict")
    page.set_input_files("#files", place.files("light.png"))
    expect(page.locator("#progress-text")).to_have_text("0 of 1 judged")
    page.click("#stop")
    page.set_input_files("#files", place.files("dark.png", "middle.png", "=cmd.png", "scan.tiff", "broken.png"))
    while len(asked) < 5:  # the one that was stopped, and four of these: one waits for its turn
        page.wait_for_timeout(20)
    page.click("#clear")
    page.unroute("**/predict")
    page.keyboard.press("Control+z")
    expect(page.locator(JUDGED)).to_have_count(4)
    expect(page.locator(f"{card(page, 'light.png')} .said")).to_have_text("stopped")  # by the user
    expect(page.locator(f"{card(page, 'broken.png')} .said")).to_contain_text("cut off")
    expect(page.locator("#live")).to_contain_text("All judged: 1 good, 3 not good, 2 could not be judged.")


def test_all_that_was_removed_in_a_row_comes_back(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png", "middle.png")
    page.locator(f"{card(page, 'light.png')} .photo").press("Delete")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer .name")).to_have_text("dark.png")
    page.keyboard.press("Delete")
    expect(page.locator("#viewer .facts")).to_contain_text("1 of 1")
    page.keyboard.press("Control+z")
    expect(page.locator("#viewer .facts")).to_contain_text("3 of 3")
    expect(page.locator("#viewer .name")).to_have_text("middle.png")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Delete")
    expect(page.locator("#viewer .name")).to_have_text("middle.png")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Delete")
    page.keyboard.press("Escape")
    expect_order(page, ["middle.png"])
    expect(page.locator("#undo")).to_contain_text("2 photographs were removed.")
    page.click("#undo-do")
    expect_order(page, ["light.png", "dark.png", "middle.png"])


def test_what_was_removed_twice_comes_back_once(page: Page, place: Place) -> None:
    for _ in range(2):
        judge(page, place, "light.png")
        page.click(f"{card(page, 'light.png')} .remove")
        expect(page.locator("#undo")).to_be_visible()
        expect(page.locator(".card")).to_have_count(0)
    page.click("#undo-do")
    expect_order(page, ["light.png"])


def test_what_is_removed_before_its_turn_is_not_asked_about(page: Page, place: Place) -> None:
    held = hold(page, "**/predict")
    page.set_input_files("#files", place.files("light.png", "dark.png", "middle.png", "=cmd.png", "scan.tiff"))
    expect(page.locator("#progress-text")).to_have_text("0 of 5 judged")
    page.click(f"{card(page, 'scan.tiff')} .remove")
    expect(page.locator("#progress-text")).to_have_text("0 of 4 judged")
    while len(held) < 4:
        page.wait_for_timeout(20)
    for route in held[:]:
        route.continue_()
    expect(page.locator("#progress")).to_be_hidden()
    assert len(held) == 4
    page.unroute("**/predict")
    page.click("#undo-do")
    expect(page.locator(f"{card(page, 'scan.tiff')}[data-state=judged]")).to_have_count(1)
    expect(page.locator(f"{card(page, 'scan.tiff')} .photo")).to_be_focused()


def test_what_cannot_be_read_of_a_folder_keeps_the_rest_not_out(page: Page) -> None:
    page.evaluate("""() => {
        const readable = (name) => ({
            name,
            fullPath: `/parts/${name}`,
            isFile: true,
            file: (then) => then(new File(["x"], name)),
        });
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
    expect(page.locator(".card .name")).to_have_text(["parts/a.png"])
    expect(page.locator("#left-out")).to_have_text(
        "2 of what was dropped could not be read: b.png and 1 more. "
        "1 file was left out: no PNG, JPEG, BMP or TIFF (c.txt)."
    )


def drop(page: Page, *paths: Path) -> None:
    """As the browser's own drag and drop does it."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 200, "data": data})


def test_folders_keep_their_paths_and_are_put_in_order(page: Page, place: Place, tmp_path: Path) -> None:
    for number, name in enumerate(("lot2/10.png", "lot2/9.png", "lot10/1.png", "lot2/a.heic", ".DS_Store")):
        file = tmp_path / "parts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file.with_suffix(".png")), np.full((60, 80), 200 + number, np.uint8))
        file.with_suffix(".png").rename(file)
    expected = ["lot2/9.png", "lot2/10.png", "lot10/1.png"]
    drop(page, tmp_path / "parts/lot2", tmp_path / "parts/lot10")
    expect(page.locator(".card .name")).to_have_text(expected)
    expect(page.locator("#left-out")).to_have_text("1 file was left out: no PNG, JPEG, BMP or TIFF (a.heic).")
    expect(page.locator(JUDGED)).to_have_count(3)
    assert [row["filename"] for row in exported(page)] == expected
    page.click("#clear")
    page.set_input_files("#folder", tmp_path / "parts")
    expect(page.locator(".card .name")).to_have_text([f"parts/{name}" for name in expected])


def test_nothing_but_other_formats_is_said(page: Page, tmp_path: Path) -> None:
    for name in ("a.heic", "b.webp"):
        (tmp_path / name).write_bytes(b"x")
    page.set_input_files("#folder", tmp_path)
    expect(page.locator("#left-out")).to_have_text(
        "2 files were left out: no PNG, JPEG, BMP or TIFF (a.heic and 1 more)."
    )


def test_what_is_here_already_is_not_added_twice_and_one_can_be_removed(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png")
    page.set_input_files("#files", place.files("light.png", "dark.png", "middle.png"))
    expect(page.locator("#left-out")).to_have_text("2 were here already.")
    expect(page.locator(JUDGED)).to_have_count(3)
    page.click(f"{card(page, 'light.png')} .remove")
    expect_order(page, ["dark.png", "middle.png"])
    expect(page.locator("#undo")).to_contain_text("light.png was removed.")
    page.click("#undo-do")
    expect_order(page, ["light.png", "dark.png", "middle.png"])
    page.locator(f"{card(page, 'middle.png')} .photo").focus()
    page.keyboard.press("Delete")
    expect_order(page, ["light.png", "dark.png"])
    expect(page.locator(f"{card(page, 'dark.png')} .photo")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Delete")
    expect_order(page, ["light.png"])
    expect(page.locator("#viewer .name")).to_have_text("light.png")
    expect(page.locator("#viewer .facts")).to_contain_text("1 of 1")
    page.keyboard.press("Delete")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator(".card")).to_have_count(0)


def test_a_photograph_is_looked_at_in_full_size(page: Page, place: Place, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), np.full((2000, 3000), 250, np.uint8))
    page.set_input_files("#files", tmp_path / "large.png")
    expect(page.locator(JUDGED)).to_have_count(1)
    page.click(".card .photo")
    width = "document.querySelector('#viewer img').getBoundingClientRect().width"
    expect(page.locator("#viewer img")).to_have_js_property("complete", value=True)
    fitting = page.evaluate(width)
    assert 300 < fitting < 1300
    page.keyboard.press("z")
    assert page.evaluate(width) == 3000
    sheet = "document.querySelector('#viewer .sheet')"
    before = page.evaluate(f"[{sheet}.scrollLeft, {sheet}.scrollTop]")
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate(f"{sheet}.scrollLeft") > before[0]
    page.keyboard.press("+")
    assert page.evaluate(width) == 3750
    page.keyboard.press("z")
    assert page.evaluate(width) == fitting
    # What was clicked on stays under the pointer.
    box = page.locator("#viewer img").bounding_box()
    assert box
    at = (box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    page.mouse.click(*at)
    zoomed = page.locator("#viewer img").bounding_box()
    assert zoomed
    assert abs((at[0] - zoomed["x"]) / zoomed["width"] - 0.25) < 0.01
    assert abs((at[1] - zoomed["y"]) / zoomed["height"] - 0.25) < 0.01
    page.mouse.move(*at)
    page.mouse.wheel(0, -200)
    assert page.evaluate(width) > 3000
    page.mouse.down()
    page.mouse.move(at[0] - 60, at[1])
    page.mouse.up()
    assert page.evaluate(width) > 3000  # moved, not clicked
    page.keyboard.press("ArrowRight")
    assert page.evaluate(width) == fitting


def test_heatmaps_of_all_are_also_of_those_that_come_later(page: Page, place: Place) -> None:
    judge(page, place, "dark.png")
    page.click("#heat-all")
    expect(page.locator("#heat-words")).to_contain_text("relative")
    page.set_input_files("#files", place.files("light.png"))
    expect(page.locator(".card .heat[aria-pressed=true]")).to_have_count(2)
    expect(page.locator(".card img.heated:visible")).to_have_count(2)
    page.click("#filter [data-kind=good]")
    page.click("#heat-all")
    page.click("#filter [data-kind=all]")
    expect(page.locator(".card .heat[aria-pressed=true]")).to_have_count(0)
    expect(page.locator("#heat-words")).to_be_hidden()


def test_the_viewer_follows_the_judgement_and_says_what_fails(page: Page, place: Place) -> None:
    held = hold(page, "**/predict")
    page.set_input_files("#files", place.files("dark.png"))
    page.click(".card .photo")
    facts = page.locator("#viewer .facts")
    expect(facts).to_have_text("1 of 1 · not judged yet")
    picture = page.locator("#viewer img").get_attribute("src")
    held[0].continue_()
    expect(facts).to_contain_text("defective · score")
    expect(page.locator("#viewer")).to_have_attribute("data-verdict", "bad")
    assert page.locator("#viewer img").get_attribute("src") == picture
    answers = hold(page, "**/predict?explain=heatmap")
    page.keyboard.press("h")
    heat = page.locator("#viewer .heat")
    expect(heat).to_have_attribute("aria-busy", "true")
    while not answers:
        page.wait_for_timeout(20)
    answers[0].fulfill(status=503, headers={"Retry-After": "1"}, body="full")
    expect(facts).to_contain_text("the heat-map is asked for again in 1 s")
    while len(answers) < 2:
        page.wait_for_timeout(20)
    error = {"error": {"status": 500, "reason": "an error of ours"}, "id": "1"}
    answers[1].fulfill(status=500, json=error)
    expect(facts).to_contain_text("no heat-map: an error of ours")
    expect(heat).to_have_attribute("aria-busy", "false")


def test_a_report_can_be_mended_and_taken_back(page: Page, place: Place, tmp_path: Path) -> None:
    page.route("**/predict", lambda route: route.fulfill(json=ANSWER | {"score": 0.9, "label": "bent"}))
    said: list[dict[str, str]] = []

    def keep(route: Route) -> None:
        text = (route.request.post_data_buffer or b"").decode("latin-1")
        said.append(dict(re.findall(r'name="(\w+)"\r\n\r\n(.*?)\r\n', text)))
        route.fulfill(status=201, json={"label": "x", "sha256": "0" * 64})

    page.route("**/feedback", keep)
    judge(page, place, "light.png")
    wrong, note = page.locator(".card .wrong"), page.locator(".card .said")
    wrong.click()
    page.check("#report-labels input[value=good]")
    page.fill("#report-by", "Ada")
    page.click("#report-send")
    expect(note).to_have_text("reported: it is good")
    slide(page, 0.95)  # what he saw when he reported it counts
    wrong.click()
    expect(page.locator("#report-about")).to_have_text("light.png was judged bent, and reported as good.")
    assert page.locator("#report-labels label").all_inner_texts() == ["bent after all: take it back", "rusty"]
    page.check("#report-labels input[value=rusty]")
    page.click("#report-send")
    expect(note).to_have_text("reported: it is rusty")
    page.click(".card .photo")
    expect(page.locator("#viewer .wrong")).to_have_text("Reported ✓ W")
    page.keyboard.press("w")
    page.check("#report-labels input[value=bent]")
    page.click("#report-send")
    expect(page.locator("#viewer .wrong")).to_have_text("This is wrong W")
    expect(page.locator("#viewer .facts")).to_contain_text("taken back")
    assert [(line["said"], line["label"], line["by"], line["threshold"]) for line in said] == [
        ("bent", "good", "Ada", "0.6"),
        ("bent", "rusty", "Ada", "0.6"),
        ("bent", "bent", "Ada", "0.6"),
    ]
    assert not any("sampled" in line for line in said)


def test_what_was_taken_back_is_no_contradiction(page: Page, place: Place, tmp_path: Path) -> None:
    judge(page, place, "middle.png")
    shown = page.locator(".card .label").text_content()
    for _ in range(2):
        page.click(".card .wrong")
        page.click("#report-send")
        expect(page.locator("#report")).to_be_hidden()
    write_folder(tmp_path / "data", 2, 2)
    report = import_labels(stage_on(tmp_path / "data", tmp_path / "state"), place.feedback / LINES)
    assert not any("middle.png" in text for text in report.contradictory)
    assert [change.after for change in report.new if change.filename.endswith("-middle.png")] == [shown]


def test_a_spot_check_sends_right_and_wrong_of_what_was_chosen_by_chance(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png", "middle.png")
    slide(page, 1)  # the model's own threshold counts
    page.click("#filter [data-kind=good]")
    page.click("#spot-check")
    title = page.locator("#spot-title")
    expect(title).to_contain_text("1 of 3: ")
    with page.expect_request("**/feedback"):
        page.keyboard.press("r")
    expect(title).to_contain_text("2 of 3: ")
    page.keyboard.press("w")
    expect(title).to_contain_text("3 of 3: ")
    page.keyboard.press("s")
    expect(title).to_have_text("1 right, 1 wrong. Thank you.")
    page.keyboard.press("Enter")
    lines = [json.loads(line) for line in (place.feedback / LINES).read_text().splitlines()][-2:]
    assert all(line["sampled"] and line["threshold"] == THRESHOLD and line["model_version"] == "7" for line in lines)
    right, wrong = lines
    assert right["label"] == right["said"]
    assert {wrong["label"], wrong["said"]} == {"good", "defective"}
    page.click("#spot-check")
    expect(title).to_contain_text("1 of 1: ")


def test_a_spot_check_of_what_no_browser_draws_shows_its_heatmap(page: Page, place: Place) -> None:
    judge(page, place, "scan.tiff")
    page.click("#spot-check")
    picture = page.locator("#spot img")
    expect(picture).to_be_visible()
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 80
    expect(page.locator("#spot-placeholder")).to_be_empty()
    page.keyboard.press("Escape")
    held = hold(page, "**/predict?explain=heatmap")
    page.set_input_files("#files", place.files("light.png"))
    page.click(f"{card(page, 'scan.tiff')} .remove")  # and with it the heat-map that is here already
    page.click("#clear")
    judge(page, place, "scan.tiff")
    page.click("#spot-check")
    while not held:
        page.wait_for_timeout(20)
    held[0].fulfill(status=500, json={"error": {"status": 500, "reason": "an error of ours"}, "id": "1"})
    expect(page.locator("#spot-placeholder")).to_contain_text("and there is no heat-map: an error of ours")
    expect(picture).to_be_hidden()


def test_the_reference_asks_nobody_else_and_is_styled(page: Page, place: Place) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{place.url}/docs")
    expect(page.locator("h1")).to_contain_text("Mergeline")
    expect(page.locator("section", has_text="/predict").first).to_contain_text("POST")
    assert {url for url in asked if not url.startswith(place.url)} == set()
    assert page.evaluate("getComputedStyle(document.querySelector('.box')).borderRadius") == "12px"


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


def test_what_cannot_be_told_by_colour_alone(browser: Browser, place: Place) -> None:
    context = browser.new_context(forced_colors="active")
    page = context.new_page()
    page.goto(place.url)
    judge(page, place, "light.png", "dark.png")
    page.click("#heat-all")
    ground = "(name) => getComputedStyle(document.querySelector(name)).backgroundColor"
    for chosen, other in {
        "#tab-inspect": "#tab-served",
        "#filter [aria-checked=true]": "#filter [aria-checked=false]",
        "#heat-all": "#export",
        ".meter i": ".meter",
    }.items():
        assert page.evaluate(ground, chosen) != page.evaluate(ground, other), chosen
    context.close()


def test_all_photographs_are_printed(page: Page, place: Place) -> None:
    data = place.files("light.png")[0].read_bytes()
    files: list[FilePayload] = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": data} for n in range(30)]
    page.set_input_files("#files", files)
    expect(page.locator(JUDGED)).to_have_count(30)
    drawn = "document.querySelectorAll('.card img[src]').length"
    page.locator("#size").fill("420")
    assert page.evaluate(drawn) < 30
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(drawn) == 30
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(drawn) < 30
    page.emulate_media(media="print")
    expect(page.locator(".tools")).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).breakInside") == "avoid"


def test_low_and_narrow_screens(browser: Browser, place: Place) -> None:
    context = browser.new_context(viewport={"width": 844, "height": 390}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(place.url)
    judge(page, place, "light.png")
    position = "getComputedStyle(document.querySelector('.panel')).position"
    assert page.evaluate(position) == "static"
    box = page.locator(".card .heat").bounding_box()
    assert box
    assert box["height"] >= 34
    expect(page.locator("#pick-folder")).to_be_hidden()
    context.close()
    page = browser.new_page(viewport={"width": 640, "height": 900})  # a desktop at 200 %
    page.goto(place.url)
    expect(page.locator("#pick-folder")).to_be_visible()
    page.set_viewport_size({"width": 320, "height": 700})
    version = page.locator("#model span").last
    expect(version).to_have_text("v7")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.close()


def test_landmarks_and_names_for_who_hears_the_page(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png")
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("tabpanel")).to_have_count(1)
    for name in ("Heat-map of light.png", "This is wrong: dark.png", "Remove dark.png"):
        expect(page.get_by_role("button", name=name)).to_have_count(1)
    page.click(".card .photo")
    status = page.locator("#viewer").get_by_role("status")
    expect(status).to_contain_text("1 of 2 · good")
    page.keyboard.press("ArrowRight")
    expect(status).to_contain_text("2 of 2 · defective")


def test_without_scripts_the_page_says_so_first(browser: Browser, place: Place) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(place.url)
    notice = page.locator("noscript .notice").bounding_box()
    tabs = page.locator(".tabs").bounding_box()
    assert notice
    assert tabs
    assert notice["y"] < tabs["y"]
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
