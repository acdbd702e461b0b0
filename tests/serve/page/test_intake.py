"""Files and folders, chosen and dropped."""

from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page, expect

from tests.serve.page.conftest import JUDGED, Place, exported


def test_what_cannot_be_read_of_a_folder_keeps_the_rest_not_out(page: Page) -> None:
    page.evaluate("""() => {
        const readable = (name) => ({
            name,
            fullPath: `/parts/${name}`,
            isFile: true,
            file: (then) => then(new File(["x"], name)),
        });
        const unreadable = (name) => ({ name, isFile: true, file: (_, fail) => fail(new Error(name)) });
        const folder = (name, ...inner) => ({
            name,
            isFile: false,
            createReader: () => ({
                readEntries: (then, fail) => (inner[0] === null ? fail(new Error(name)) : then(inner.splice(0))),
            }),
        });
        const inner = [readable("a.png"), unreadable("b.png"), readable("c.txt"), folder("locked", null)];
        const dropped = folder("parts", ...inner);
        const event = new Event("drop", { cancelable: true });
        event.dataTransfer = { items: [{ webkitGetAsEntry: () => dropped }], files: [] };
        dispatchEvent(event);
    }""")
    expect(page.locator(".card .name")).to_have_text(["parts/a.png"])
    expect(page.locator("#left-out")).to_have_text(
        "2 of what was dropped could not be read: b.png and 1 more. "
        "1 file was left out: no PNG, JPEG, BMP or TIFF (c.txt)."
    )


def drop(page: Page, *paths: Path) -> None:
    """As the browser's own drag and drop does it."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 200, "data": data})


def test_folders_keep_their_paths_and_are_put_in_order(page: Page, place: Place, tmp_path: Path) -> None:
    for number, name in enumerate(("lot2/10.png", "lot2/9.png", "lot10/1.png", "lot2/a.heic", ".DS_Store")):
        file = tmp_path / "parts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file.with_suffix(".png")), np.full((60, 80), 200 + number, np.uint8))
        file.with_suffix(".png").rename(file)
    expected = ["lot2/9.png", "lot2/10.png", "lot10/1.png"]
    drop(page, tmp_path / "parts/lot2", tmp_path / "parts/lot10")
    expect(page.locator(".card .name")).to_have_text(expected)
    expect(page.locator("#left-out")).to_have_text("1 file was left out: no PNG, JPEG, BMP or TIFF (a.heic).")
    expect(page.locator(JUDGED)).to_have_count(3)
    assert [row["filename"] for row in exported(page)] == expected
    page.click("#clear")
    page.set_input_files("#folder", tmp_path / "parts")
    expect(page.locator(".card .name")).to_have_text([f"parts/{name}" for name in expected])


def test_nothing_but_other_formats_is_said(page: Page, tmp_path: Path) -> None:
    for name in ("a.heic", "b.webp"):
        (tmp_path / name).write_bytes(b"x")
    page.set_input_files("#folder", tmp_path)
    expect(page.locator("#left-out")).to_have_text(
        "2 files were left out: no PNG, JPEG, BMP or TIFF (a.heic and 1 more)."
    )
