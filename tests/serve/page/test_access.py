"""Whoever looks, and on whatever: by keyboard, by ear, in print, on a phone, without colours or scripts."""

import re

from playwright.sync_api import Browser, Page, expect

from tests.serve.page.conftest import JUDGED, Place, card, judge


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


def test_all_photographs_are_printed(page: Page, place: Place) -> None:
    page.set_input_files("#files", place.called(*(f"{n}.png" for n in range(30))))
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


def test_the_reference_asks_nobody_else_and_is_styled(page: Page, place: Place) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{place.url}/docs")
    expect(page.locator("h1")).to_contain_text("Mergeline")
    expect(page.locator("section", has_text="/predict").first).to_contain_text("POST")
    assert {url for url in asked if not url.startswith(place.url)} == set()
    assert page.evaluate("getComputedStyle(document.querySelector('.box')).borderRadius") == "12px"
