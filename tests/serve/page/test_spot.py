"""The spot check: right and wrong of what was chosen by chance."""

import json

from playwright.sync_api import Page, expect

from serve.feedback import LINES
from tests.bundles import THRESHOLD
from tests.serve.page.conftest import Place, await_requests, card, hold, judge, slide


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
    await_requests(page, held, 1)
    held[0].fulfill(status=500, json={"error": {"status": 500, "reason": "an error of ours"}, "id": "1"})
    expect(page.locator("#spot-placeholder")).to_contain_text("and there is no heat-map: an error of ours")
    expect(picture).to_be_hidden()
