"""What is judged, by which threshold and version, and what is shown of it."""

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.bundles import THRESHOLD
from tests.serve.page.conftest import ANSWER, Place, card, exported, judge, slide


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


def test_the_slider_may_move_more_than_once_in_a_frame(page: Page, place: Place) -> None:
    judge(page, place, "light.png", "dark.png")
    move = """(values) => values.forEach((value) => {
        const slider = document.getElementById("threshold");
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
    })"""
    page.evaluate(move, [0, 1])
    expect(page.locator(".card[data-verdict=good]")).to_have_count(2)
    page.evaluate(move, [0])
    expect(page.locator(".card[data-verdict=bad]")).to_have_count(2)


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


def test_several_classes_show_the_likeliest_that_is_not_good(page: Page, place: Place) -> None:
    page.route("**/predict", lambda route: route.fulfill(json=ANSWER))
    judge(page, place, "light.png")
    slide(page, 0.6)
    expect(page.locator(".card .label")).to_have_text("good")
    slide(page, 0.4)
    expect(page.locator(".card .label")).to_have_text("rusty")
    page.click(".card .wrong")
    assert page.locator("#report-labels label").all_inner_texts() == ["good", "bent"]
