"""What is served: the model, how it does lately, drift, its history and what is tried beside it."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from gitops.contracts.serving import Canary, ServedModel, Shadow, Trial
from gitops.status import Health, Journal, Status, Sync, now
from gitops.turn import Turn
from tests.bundles import make_bundle
from tests.serve.page.conftest import JUDGED, Place
from tests.serve.site import deployed, site


def test_what_is_served_without_a_journal(page: Page) -> None:
    page.click("#tab-served")
    expect(page.locator("#served")).to_contain_text("the middle")
    expect(page.locator("#served")).to_contain_text("args.journal")


def test_how_the_service_does_lately(page: Page) -> None:
    page.click("#tab-served")
    lately = page.locator("#served section", has_text="Lately")
    expect(lately).to_contain_text("Of this replica alone.")
    expect(lately.locator(".tile")).to_have_count(3)
    found = {
        "source": "prometheus",
        "figures": {
            "seconds": 300,
            "requests_per_second": 12.5,
            "error_share": 0.004,
            "p50_seconds": 0.02,
            "p99_seconds": 1.5,
        },
        "drift": {"image": True, "label": False, "any": True},
        "problem": None,
    }
    page.route("**/served/figures", lambda route: route.fulfill(json=found))
    page.click("#tab-inspect")
    page.click("#tab-served")
    expect(lately).to_contain_text("By Prometheus, of all replicas.")
    tiles = ["12.5/s", "20.0 ms", "0.40 %", "yes"]
    expect(lately.locator(".tile strong")).to_have_text(tiles)
    expect(lately).to_contain_text("99 %: 1500 ms")
    expect(lately.locator(".tile").last).to_contain_text("image")


def test_windows_of_drift_with_their_photographs(page: Page) -> None:
    window = {
        "ended_at": "2026-11-26T04:00:00Z",
        "model_version": "7",
        "outcome": "drifted",
        "photographs": 256,
        "drifting_since": "2026-11-25T22:10:00Z",
        "drifted": ["exposure", "sharpness"],
        "examples": ["a" * 64, "b" * 64, "a" * 64],
    }
    stable = window | {"outcome": "stable", "drifting_since": None, "drifted": [], "examples": []}
    few = stable | {"outcome": "too_few", "photographs": 12}
    candidate = stable | {"model_version": "8"}
    answer = {"watched": True, "windows": [few, candidate, window, stable]}
    page.route("**/served/windows", lambda route: route.fulfill(json=answer))
    page.click("#tab-served")
    drift = page.locator("#served section", has=page.get_by_role("heading", name="Drift", exact=True))
    expect(drift).to_contain_text("has differed from the reference of version 7 since")
    rows = drift.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(2).locator(".badge")).to_have_text("drifted")
    expect(rows.nth(2)).to_contain_text("exposure, sharpness")
    expect(rows.nth(2).locator("a")).to_have_count(2)
    assert rows.nth(2).locator("a").first.get_attribute("href") == f"served/windows/{'a' * 64}"
    expect(rows.last.locator(".badge")).to_have_text("stable")
    answer["watched"] = False
    page.click("#tab-inspect")
    page.click("#tab-served")
    expect(drift).to_have_count(0)


def test_what_is_served_with_a_journal(browser: Browser, place: Place, tmp_path: Path) -> None:
    journal = Journal.at(tmp_path / "state/reconciler/local")
    older = place.model.model_copy(update={"version": "6", "sha256": "6" * 64})
    for number, model in ((1, older), (3, place.model), (3, place.model), (2, place.model)):
        journal.append(deployed(number, model))
    sync, health = Sync(status="Synced", revision="2" * 40), Health(status="Healthy")
    journal.write(Status(environment="local", sync=sync, health=health, reconciled_at=now()))
    with site(place.model, tmp_path, journal=journal) as url, Turn(journal.folder).taken():
        page = browser.new_page()
        page.goto(url)
        page.click("#tab-served")
        served = page.locator("#served")
        expect(served.locator("h1")).to_have_text("screw version 7")
        expect(served.locator(".hero .badge")).to_have_text(["Synced", "Healthy"])
        expect(served.locator(".hero")).to_contain_text("sync Syncedhealth Healthy")
        expect(served).to_contain_text("running")
        rows = served.locator("section", has_text="History").locator("tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.first).to_have_class("now")
        expect(served.locator(".now")).to_have_count(1)
        expect(rows.nth(1)).to_contain_text("2×")
        expect(rows.first).to_contain_text("version 7")
        expect(rows.first).to_contain_text("Commit 2")
        expect(rows.last).to_contain_text("version 6")
        expect(served).not_to_contain_text("ada@example.com")
        page.close()


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_what_is_tried_stands_below_what_is_served(browser: Browser, place: Place, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "candidate"
    digest = make_bundle(folder, align="none", version_salt=0.5)
    candidate = ServedModel(name="screw", version="8", sha256=digest, uri=folder.as_uri())
    trial: Trial = Canary(percent=40, model=candidate) if kind == "canary" else Shadow(model=candidate)
    says = "answers 40 % of the requests" if kind == "canary" else "judges the same photographs afterwards"
    with site(place.model, tmp_path, trial=trial) as url:
        page = browser.new_page()
        page.goto(f"{url}/#served")
        expect(page.locator("#served h1")).to_have_text("screw version 7")
        expect(page.locator("#served")).to_contain_text(f"{kind.title()}: version 8 {says}")
        expect(page.locator("#served .trial")).to_have_css("margin-bottom", "14px")  # else it touches the box below
        page.goto(f"{url}/#inspect")
        page.set_input_files("#files", place.files("light.png", "middle.png", "dark.png"))
        expect(page.locator(JUDGED)).to_have_count(3)
        versions = set(page.locator(".card .version").all_inner_texts())
        assert len(versions) == 1, "one page is answered by one version"
        page.close()


def test_what_is_served_keeps_its_place_when_it_is_looked_up_again(page: Page) -> None:
    page.clock.install()
    page.goto(page.url + "#served")
    page.reload()
    box = page.locator("#served section", has=page.get_by_role("heading", name="The model"))
    expect(box).to_be_visible()
    expect(page.locator("#served")).to_contain_text("Lately")
    box.evaluate("(found) => { window.kept = found; }")
    with page.expect_request("**/served/windows"):
        page.clock.run_for(16_000)
    page.wait_for_timeout(300)
    assert page.evaluate("window.kept.isConnected")
