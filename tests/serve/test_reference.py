"""The page that describes the interface: all of it, wherever it is reached, from nowhere else."""

import re

import httpx
import pytest
from fastapi import FastAPI

from serve.protocol import ErrorAnswer
from serve.routes import new_application

pytestmark = pytest.mark.anyio


async def page_of(app: FastAPI, root_path: str = "") -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        return await client.get(f"{root_path}/docs")


async def test_every_path_and_every_body_is_described(empty: httpx.AsyncClient) -> None:
    page = (await empty.get("/docs")).text
    description = (await empty.get("/openapi.json")).json()
    for path in description["paths"]:
        assert f"<code>{path}</code>" in page
    for name in description["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert "Judge a photograph (the body is its file)" in page
    assert "Probability that the part is not good." in page
    linked = set(re.findall(r'href="#([^"]+)"', page))
    assert linked <= set(re.findall(r'id="([^"]+)"', page))


async def test_it_needs_nothing_from_elsewhere_and_runs_no_script(empty: httpx.AsyncClient) -> None:
    response = await empty.get("/docs")
    assert "default-src 'none'; style-src 'sha256-" in response.headers["content-security-policy"]
    assert not re.search(r"https?://|<script|\sstyle=|\son\w+=", response.text)
    assert (await empty.get("/redoc")).status_code == 404


async def test_it_says_the_paths_as_they_are_reached() -> None:
    app = new_application("Of `parts` & <more>.")

    async def judge() -> ErrorAnswer:
        """Judges."""
        raise NotImplementedError

    app.add_api_route("/judge", judge, methods=["POST"])
    page = (await page_of(app, "/inspection")).text
    assert "<code>/inspection/judge</code>" in page
    assert "<code>parts</code> &amp; &lt;more&gt;" in page
    assert "href=openapi.json" in page
