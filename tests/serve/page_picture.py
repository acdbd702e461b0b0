"""Takes the picture of the page that the README shows, of a running service with drawn screws.

    make demo
    .venv/bin/python -m tests.serve.page_picture http://127.0.0.1:8000 .mergeline/sources/<drawn> docs/pictures/page.jpg

Drawn ones only: photographs of the showcase's dataset must not get into the repository.
"""

import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.serve.conftest import CHROMIUM

SHOWN = 12


def take(url: str, folder: Path, picture: Path) -> None:
    """Judge some photographs of a folder on the page, the worst first, with the evidence on those that are not good.

    Args:
        url: the page.
        folder: of photographs; some from all over it are taken.
        picture: where to write a JPEG.
    """
    found = sorted(folder.rglob("*.png"))
    files = found[:: len(found) // SHOWN][:SHOWN]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--hide-scrollbars"])
        view = browser.new_page(viewport={"width": 1200, "height": 800}, device_scale_factor=1.5, color_scheme="light")
        view.goto(url)
        view.set_input_files("#files", files)
        expect(view.locator(".card[data-state=judged]")).to_have_count(SHOWN, timeout=60_000)
        view.select_option("#sort", "worst")
        for card in view.locator(".card[data-verdict=bad]").all():
            card.locator(".heat").click()
            expect(card.locator("img.heated")).to_be_visible(timeout=60_000)
        view.evaluate("document.activeElement.blur()")
        view.screenshot(path=picture, type="jpeg", quality=80, animations="disabled")
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
