"""What is removed, cleared or stopped, and how it comes back."""

from playwright.sync_api import Page, expect

from tests.serve.page.conftest import JUDGED, Place, await_requests, card, expect_order, hold, judge


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
    page.set_input_files("#files", place.called(*(f"{n}.png" for n in range(130))))


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


def look_for_long(page: Page, place: Place) -> None:
    """Choose so many photographs that the page asks about some of them later, in a frame that takes two seconds."""
    judge(page, place, "light.png")
    page.evaluate("() => { window.requestAnimationFrame = (then) => setTimeout(then, 2000); }")
    page.set_input_files("#files", place.called(*(f"{n}.png" for n in range(260))))


def test_what_is_cleared_before_it_is_seen_does_not_come(page: Page, place: Place) -> None:
    look_for_long(page, place)
    page.evaluate("document.getElementById('clear').click()")
    expect(page.locator("#undo")).to_contain_text("light.png was removed.")
    page.wait_for_timeout(2500)  # in which they would have come
    expect(page.locator(".card")).to_have_count(0)


def test_what_is_stopped_before_it_is_seen_is_not_judged(page: Page, place: Place) -> None:
    look_for_long(page, place)
    page.evaluate("document.getElementById('stop').click()")
    failed = page.locator(".card[data-state=failed]")
    expect(failed.first.locator(".said")).to_have_text("stopped", timeout=20_000)
    expect(page.locator(JUDGED)).to_have_count(1)


def test_what_is_cleared_while_a_folder_is_read_does_not_come(page: Page, place: Place) -> None:
    judge(page, place, "light.png")
    page.evaluate("""() => {
        const made = new File(["x"], "a.png");
        const inner = [{ name: "a.png", fullPath: "/parts/a.png", isFile: true, file: (then) => then(made) }];
        const createReader = () => ({ readEntries: (then) => { window.goOn = () => then(inner.splice(0)); } });
        const parts = { name: "parts", isFile: false, createReader };
        const event = new Event("drop", { cancelable: true });
        event.dataTransfer = { items: [{ webkitGetAsEntry: () => parts }], files: [] };
        dispatchEvent(event);
    }""")
    page.evaluate("document.getElementById('clear').click()")
    page.evaluate("goOn()")  # some are read
    page.evaluate("goOn()")  # and there are no more
    page.wait_for_timeout(500)  # in which they would have come
    expect(page.locator(".card")).to_have_count(0)


def test_what_was_cleared_goes_on_where_it_was(page: Page, place: Place) -> None:
    asked = hold(page, "**/predict")
    page.set_input_files("#files", place.files("light.png"))
    expect(page.locator("#progress-text")).to_have_text("0 of 1 judged")
    page.click("#stop")
    page.set_input_files("#files", place.files("dark.png", "middle.png", "=cmd.png", "scan.tiff", "broken.png"))
    await_requests(page, asked, 5)  # the one that was stopped, and four of these: one waits for its turn
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
    await_requests(page, held, 4)
    for route in held[:]:
        route.continue_()
    expect(page.locator("#progress")).to_be_hidden()
    assert len(held) == 4
    page.unroute("**/predict")
    page.click("#undo-do")
    expect(page.locator(f"{card(page, 'scan.tiff')}[data-state=judged]")).to_have_count(1)
    expect(page.locator(f"{card(page, 'scan.tiff')} .photo")).to_be_focused()


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
