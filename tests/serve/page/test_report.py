"""“This is wrong”: what is reported, kept and taken back."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from ray_jobs import dataset
from ray_jobs.labelling import import_labels
from serve.feedback import LINES
from tests.photographs import stage_on, write_folder
from tests.serve.page.conftest import ANSWER, Place, card, hold, judge, slide


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


def test_a_report_can_be_mended_and_taken_back(page: Page, place: Place) -> None:
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
