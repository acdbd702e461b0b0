"""One photograph in full size."""

from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page, expect

from tests.serve.page.conftest import JUDGED, Place, await_requests, hold


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


def test_the_viewer_follows_the_judgement_and_says_what_fails(page: Page, place: Place) -> None:
    held = hold(page, "**/predict")
    page.set_input_files("#files", place.files("dark.png"))
    page.click(".card .photo")
    facts = page.locator("#viewer .facts")
    expect(facts).to_have_text("1 of 1 · not judged yet")
    picture = page.locator("#viewer img").get_attribute("src")
    await_requests(page, held, 1)
    held[0].continue_()
    expect(facts).to_contain_text("defective · score")
    expect(page.locator("#viewer")).to_have_attribute("data-verdict", "bad")
    assert page.locator("#viewer img").get_attribute("src") == picture
    answers = hold(page, "**/predict?explain=heatmap")
    page.keyboard.press("h")
    heat = page.locator("#viewer .heat")
    expect(heat).to_have_attribute("aria-busy", "true")
    await_requests(page, answers, 1)
    answers[0].fulfill(status=503, headers={"Retry-After": "1"}, body="full")
    expect(facts).to_contain_text("the heat-map is asked for again in 1 s")
    await_requests(page, answers, 2)
    error = {"error": {"status": 500, "reason": "an error of ours"}, "id": "1"}
    answers[1].fulfill(status=500, json=error)
    expect(facts).to_contain_text("no heat-map: an error of ours")
    expect(heat).to_have_attribute("aria-busy", "false")
