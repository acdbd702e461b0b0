"""The application page at `/`: static files of `serve/page/`, which need nothing from anywhere else."""

import hashlib
import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response

from serve.protocol import RequestError

INDEX = "index.html"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    # Only what the page itself brings; photographs that a user chose are blobs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Asked for each time, so that page and service are always of one version; the ETag makes that cheap.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class File:
    """A file of the page."""

    content: bytes
    kind: str
    """Its media type."""
    etag: str


def read_files() -> dict[str, File]:
    """The page's files by name."""
    files = {}
    for entry in (importlib.resources.files("serve") / "page").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is None or not entry.is_file():  # what an editor or a system left there must not stop a replica
            continue
        content = entry.read_bytes()
        files[entry.name] = File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return files


def add_files(app: FastAPI) -> Callable[[Request, str], Response]:
    """Let the application hand out the page's files; gives what answers with one of them."""
    files = read_files()

    def respond(request: Request, name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise RequestError(404, f"the page has no file {name!r}")
        headers = {**HEADERS, "ETag": file.etag}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if file.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(file.content, 200, headers, file.kind)

    async def file(request: Request, name: str) -> Response:
        return respond(request, name)

    app.add_api_route("/page/{name}", file, methods=["GET", "HEAD"], include_in_schema=False)
    return respond


def add_page(app: FastAPI) -> None:
    """Let the application show its page."""
    respond = add_files(app)

    async def index(request: Request) -> Response:
        return respond(request, INDEX)

    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
