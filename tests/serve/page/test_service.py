"""How the service is asked, while it is there, busy or away."""

from playwright.sync_api import Page, Route, expect

from tests.serve.page.conftest import ANSWER, JUDGED, Place, card, judge


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
    refused: list[Route] = []

    def refuse_once(route: Route) -> None:
        refused.append(route)
        if len(refused) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="full")
        else:
            route.continue_()

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
    page.set_input_files("#files", place.called("another.png"))
    expect(page.locator(JUDGED)).to_have_count(5)
    expect(page.locator("#progress-text")).to_have_text("1 could not be judged")
    assert len(aborted) == asked > 0  # it has had its turn
