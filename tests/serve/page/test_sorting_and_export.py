"""What is shown, in which order, and taken away as CSV."""

import csv
import io
import re
from pathlib import Path

from playwright.sync_api import Dialog, Page, expect

from tests.serve.page.conftest import (
    ANSWER,
    JUDGED,
    Place,
    await_requests,
    card,
    expect_order,
    exported,
    hold,
    judge,
    slide,
)


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


def test_cards_stay_while_the_pointer_is_on_one(page: Page, place: Place) -> None:
    held = hold(page, "**/predict")
    page.set_input_files("#files", place.files("light.png", "middle.png", "dark.png"))
    page.select_option("#sort", "worst")
    await_requests(page, held, 3)
    page.hover(".card >> nth=0")
    for route, score in zip(held, (0.1, 0.5, 0.9), strict=True):
        route.fulfill(json=ANSWER | {"score": score})
    expect(page.locator(JUDGED)).to_have_count(3)
    page.wait_for_timeout(1500)
    expect_order(page, ["light.png", "middle.png", "dark.png"])
    page.mouse.move(5, 5)
    expect_order(page, ["dark.png", "middle.png", "light.png"])


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
    names = ["\uff1d1.png", "\uff0b2.png", "\uff0d3.png", "\uff204.png"]
    page.set_input_files("#files", place.called(*names))
    expect(page.locator(JUDGED)).to_have_count(4)
    assert [row["filename"] for row in exported(page)] == [f"'{name}" for name in names]


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
