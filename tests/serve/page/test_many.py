"""The page with many photographs: what is near the screen is drawn, and all of it is right."""

import time

import cv2
import numpy as np
from playwright.sync_api import FilePayload, Page, expect

from tests.serve.page.conftest import await_requests, exported, hold

MANY = 230

NAMES = "[...document.querySelectorAll('.card .name')].map((name) => name.textContent)"
BLOCKS = "[...document.querySelectorAll('.block')].map((block) => block.children.length)"
COLUMNS = "getComputedStyle(document.querySelector('.block')).gridTemplateColumns.split(' ').length"


def drawn(count: int) -> list[FilePayload]:
    """Photographs, the even ones bright and the odd ones dark."""
    bright, dark = (cv2.imencode(".png", np.full((60, 80), level, np.uint8))[1].tobytes() for level in (250, 5))
    return [
        {"name": f"{number}.png", "mimeType": "image/png", "buffer": dark if number % 2 else bright}
        for number in range(count)
    ]


def take_in(page: Page, files: list[FilePayload]) -> None:
    page.set_input_files("#files", files)
    expect(page.locator("#live")).to_contain_text("All judged", timeout=60_000)


def expect_full_rows(page: Page, count: int) -> None:
    """No gaps but at the very end, and no card twice or not at all; a frame or two after what was done."""
    deadline = time.monotonic() + 10
    while not _are_full(page, count):
        assert time.monotonic() < deadline, page.evaluate(BLOCKS)
        page.wait_for_timeout(50)


def _are_full(page: Page, count: int) -> bool:
    columns, (*full, last) = page.evaluate(COLUMNS), page.evaluate(BLOCKS)
    has_gaps = len(set(full)) != 1 or full[0] % columns
    return not has_gaps and sum(full) + last == count == len(set(page.evaluate(NAMES)))


def test_an_answer_touches_its_own_card_alone(page: Page) -> None:
    take_in(page, drawn(MANY))
    held = hold(page, "**/predict")
    (late,) = drawn(1)
    late["name"] = "late.png"
    page.set_input_files("#files", late)
    await_requests(page, held, 1)
    page.evaluate("""() => {
        window.touched = new Set();
        const seen = (records) => records.forEach(({ target }) => {
            const card = target.parentElement?.closest(".card") ?? target.closest?.(".card");
            touched.add(card ? card.item.name : target.className);
        });
        new MutationObserver(seen).observe(document.getElementById("cards"),
            { subtree: true, childList: true, attributes: true, characterData: true });
    }""")
    held[0].continue_()
    expect(page.locator("#filter [data-kind=all] b")).to_have_text(str(MANY + 1))
    expect(page.locator("#filter [data-kind=good] b")).to_have_text(str(MANY // 2 + 1))
    page.wait_for_timeout(1200)  # until they have been put in order, too
    touched = set(page.evaluate("[...touched]"))
    assert "late.png" in touched
    assert touched <= {"late.png", "block"}


def test_the_slider_judges_what_is_near_at_once_and_the_others_soon(page: Page) -> None:
    take_in(page, drawn(MANY))
    counts, near = page.evaluate("""async () => {
        const slider = document.getElementById("threshold");
        slider.value = 0;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise(requestAnimationFrame);
        const cards = [...document.querySelectorAll(".card")].filter((card) => card.item.near);
        const count = document.querySelector("#filter [data-kind=bad] b").textContent;
        return [count, cards.map((card) => card.dataset.verdict)];
    }""")
    assert counts == str(MANY)
    assert 10 < len(near) < MANY
    assert set(near) == {"bad"}
    expect(page.locator(".card[data-verdict=bad]")).to_have_count(MANY)  # those that nobody sees can be found and heard
    page.click("#reset")
    expect(page.locator(".card[data-verdict=good]")).to_have_count(MANY // 2)


def test_blocks_have_no_gaps_however_they_are_arranged(page: Page) -> None:
    take_in(page, drawn(MANY))
    assert page.evaluate(NAMES) == [f"{number}.png" for number in range(MANY)]
    expect_full_rows(page, MANY)
    page.select_option("#sort", "worst")
    expect_full_rows(page, MANY)
    odd, even = ([f"{number}.png" for number in range(first, MANY, 2)] for first in (1, 0))
    assert page.evaluate(NAMES) == odd + even
    page.click("#filter [data-kind=good]")
    assert page.evaluate(NAMES) == even
    expect_full_rows(page, len(even))
    page.set_viewport_size({"width": 900, "height": 900})
    expect_full_rows(page, len(even))
    page.locator("#size").fill("130")
    expect_full_rows(page, len(even))
    page.click("#filter [data-kind=all]")
    page.select_option("#sort", "added")
    assert page.evaluate(NAMES) == [f"{number}.png" for number in range(MANY)]
    assert [line["filename"] for line in exported(page)] == [f"{number}.png" for number in range(MANY)]


def test_the_keyboard_goes_on_where_a_block_ends(page: Page) -> None:
    take_in(page, drawn(MANY))
    last = page.evaluate(BLOCKS)[0] - 1
    focused = "document.activeElement.closest('.card')?.item.name"
    page.locator(f".card >> nth={last} >> css=.photo").focus()
    page.keyboard.press("Delete")
    assert page.evaluate(focused) == f"{last + 1}.png"  # which was the first of the next block
    expect_full_rows(page, MANY - 1)
    for _ in ("Heat-map", "This is wrong", "Remove", "the next card"):
        page.keyboard.press("Tab")
    assert page.evaluate(focused) == f"{last + 2}.png"
    page.keyboard.press("Control+z")
    expect_full_rows(page, MANY)
    assert page.evaluate(NAMES) == [f"{number}.png" for number in range(MANY)]


def test_another_width_keeps_the_focus(page: Page) -> None:
    take_in(page, drawn(MANY))
    page.locator(".card .photo").nth(40).focus()
    page.set_viewport_size({"width": 700, "height": 900})
    expect_full_rows(page, MANY)
    assert page.evaluate("document.activeElement.closest('.card')?.item.name") == "40.png"


def test_what_is_on_paper_stays_until_it_is_printed(page: Page) -> None:
    take_in(page, drawn(MANY))
    loaded = "document.querySelectorAll('.card img[src]').length"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.locator("#size").fill("420")  # as a browser may lay the page out anew for it
    page.wait_for_function(f"{loaded} === {MANY}")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"{loaded} < {MANY / 2}")


def test_pictures_far_from_the_screen_are_let_go_and_cards_are_one_list(page: Page) -> None:
    take_in(page, drawn(MANY))
    expect(page.get_by_role("list", name="Photographs").get_by_role("listitem")).to_have_count(MANY)
    first, last = page.locator(".card img").first, page.locator(".card img").last
    expect(first).to_be_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(100)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(last).to_be_visible()
    assert page.locator(".card img[src]").count() < MANY / 2
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.block')).display") == "contents"


def test_a_large_photograph_is_small_on_its_card_and_whole_in_the_viewer(page: Page) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (1200, 900), np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    take_in(page, [{"name": "large.png", "mimeType": "image/png", "buffer": data}])
    image = page.locator(".card img")
    expect(image).to_be_visible()
    width, height = page.evaluate(
        "(({ naturalWidth, naturalHeight }) => [naturalWidth, naturalHeight])(document.querySelector('.card img'))"
    )
    assert (width, height) == (315, 420)
    page.click(".card .photo")
    page.wait_for_function("() => document.querySelector('#viewer img').naturalWidth === 900")
    page.keyboard.press("Escape")
    page.click(".card .heat")
    expect(image).to_have_class("heated")
    page.click(".card .heat")
    expect(image).not_to_have_class("heated")
    assert page.evaluate("document.querySelector('.card img').naturalWidth") in (0, 315)
