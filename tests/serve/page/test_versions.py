"""The page's second view, where two versions are there: the figures of each, as real requests made them."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from gitops.contracts.serving import Canary, ServedModel, Shadow
from tests.bundles import make_bundle
from tests.serve.conftest import encoded
from tests.serve.site import site


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedModel, ServedModel]:
    """The model, and a candidate."""
    models = []
    for version, salt in (("7", 0.0), ("8", 0.5)):
        folder = tmp_path_factory.mktemp("bundles") / version
        digest = make_bundle(folder, align="none", version_salt=salt)
        models.append(ServedModel(name="screw", version=version, sha256=digest, uri=folder.as_uri()))
    return models[0], models[1]


def rows(page: Page) -> list[list[str]]:
    table = page.locator("#served section", has_text="Lately").locator("table")
    expect(table).to_be_visible()
    return [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]


def figures(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{url}/served/figures").raise_for_status().json()
    return answer


def test_a_canary_has_figures_of_its_own(
    browser: Browser, served: tuple[ServedModel, ServedModel], tmp_path: Path
) -> None:
    model, candidate = served
    with site(model, tmp_path, trial=Canary(percent=50, model=candidate)) as url:
        page = browser.new_page()
        page.goto(f"{url}/#served")
        assert rows(page) == [["version 7 served", "–", "–", "–", "–"], ["version 8 canary", "–", "–", "–", "–"]]
        for version in ("7", "7", "7", "8"):
            headers = {"X-Model-Version": version}
            httpx.post(f"{url}/predict", content=encoded(), headers=headers).raise_for_status()
        found = figures(url)
        assert found["versions"].keys() == {"7", "8"}
        rates = {version: each["requests_per_second"] for version, each in found["versions"].items()}
        assert rates["7"] == pytest.approx(3 * rates["8"])
        page.click("#tab-inspect")
        page.click("#tab-served")
        expect(page.locator("#served table").first).to_contain_text("0.0 %")
        for _, requests, half, most, errors in rows(page):
            assert requests.endswith("/s")
            assert half.endswith("ms")
            assert most.endswith("ms")
            assert errors == "0.0 %"
        page.close()


def test_a_shadow_says_how_it_judged_what_others_answered(
    browser: Browser, served: tuple[ServedModel, ServedModel], tmp_path: Path
) -> None:
    model, candidate = served
    with site(model, tmp_path, trial=Shadow(model=candidate)) as url:
        page = browser.new_page()
        httpx.post(f"{url}/predict", content=encoded()).raise_for_status()
        page.goto(f"{url}/#served")
        shadow = page.locator("#served tr", has_text="version 8 shadow")
        for _ in range(100):  # it judges after the answer
            if found := figures(url)["shadows"]:
                break
            page.wait_for_timeout(50)
        assert found["8"]["agreed"] + found["8"]["differed"] == 1
        assert "8" not in figures(url)["versions"]  # it answered nothing
        page.click("#tab-inspect")
        page.click("#tab-served")
        expect(shadow).to_contain_text("judged 1 photograph afterwards")
        page.close()


def test_one_version_is_not_told_twice(
    browser: Browser, served: tuple[ServedModel, ServedModel], tmp_path: Path
) -> None:
    with site(served[0], tmp_path) as url:
        httpx.post(f"{url}/predict", content=encoded()).raise_for_status()
        page = browser.new_page()
        page.goto(f"{url}/#served")
        lately = page.locator("#served section", has_text="Lately")
        expect(lately.locator(".tile")).to_have_count(3)
        expect(lately.locator("table")).to_have_count(0)
        page.close()
