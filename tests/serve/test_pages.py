"""How the page's files are answered; what they do is tested in a browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serve.pages import add_page, read_files
from serve.protocol import ErrorAnswer

pytestmark = pytest.mark.anyio


def client_of(root_path: str = "") -> httpx.AsyncClient:
    app: Any = FastAPI()
    add_page(app)
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://replica")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of() as client:
        yield client


async def test_each_file_has_its_type_and_strict_headers(client: httpx.AsyncClient) -> None:
    types = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in read_files():
        response = await client.get(f"/page/{name}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(types[name.rpartition(".")[2]])
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
    assert (await client.get("/")).text == (await client.get("/page/index.html")).text


async def test_a_known_file_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/page/page.js")
    assert first.headers["cache-control"] == "no-cache"
    for tag in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = await client.get("/page/page.js", headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert (await client.get("/page/page.js", headers={"if-none-match": '"other"'})).status_code == 200


async def test_a_route_without_its_slash_leads_to_the_page() -> None:
    async with client_of("/inspection") as client:
        assert (await client.get("/inspection/page/page.css")).status_code == 200
        assert (await client.get("/inspection/")).status_code == 200
        response = await client.get("/inspection")
        assert response.status_code == 307
        assert response.headers["location"].endswith("/inspection/")


def test_the_page_needs_nothing_from_elsewhere_and_has_no_inline_code() -> None:
    files = {name: file.content.decode() for name, file in read_files().items()}
    for name, text in files.items():
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == [], name
    page = files["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
    assert {name.removeprefix("page/") for name in named} <= files.keys()
    imported = {name for text in files.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert imported <= files.keys()


async def test_a_file_that_is_not_there(empty: httpx.AsyncClient) -> None:
    for name in ("secret", "..%2fapp.py", "__init__.py"):
        response = await empty.get(f"/page/{name}")
        assert response.status_code == 404, name
    assert "no file '__init__.py'" in ErrorAnswer.parse(response.json(), "the answer").error.reason


def test_what_is_no_file_of_the_page_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page/old.js").mkdir(parents=True)
    for name in ("index.html", ".DS_Store", "page.js~", "README"):
        (tmp_path / "page" / name).write_text("x")
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    assert list(read_files()) == ["index.html"]
