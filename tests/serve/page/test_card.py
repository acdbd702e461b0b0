"""A photograph's card, and the heat-map on it."""

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.serve.page.conftest import JUDGED, Place, await_requests, card, hold, judge


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
    await_requests(page, held, 2)
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
