"""What users say of judgements: kept with the photograph in a folder, as `mergeline label import` reads it."""

import asyncio
import fcntl
import hashlib
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.datastructures import UploadFile

from gitops.errors import ContractError
from gitops.manifest import Contract, Feedback, Sha256
from gitops.state import write_atomically
from gitops.status import now
from serve.endpoints import Endpoints, limited
from serve.preprocess import ImageError, decode, suffix_of
from serve.protocol import ErrorAnswer, RequestError

LINES, PHOTOGRAPHS = "feedback.jsonl", "photographs"
"""What lies in the folder: a `gitops.manifest.Feedback` a line, and the photographs by their SHA-256."""
MAX_FOLDER_BYTES = 4 * 1024**3
"""More is not kept: nobody seems to look at it, and the disk is needed for other things."""
_MAX_TEXT_BYTES = 64 * 1024
# What a form may say; time, digest and file are ours to know.
_FIELDS = ("id", "label", "said", "score", "model_name", "model_version", "model_digest", "comment", "by")


class FeedbackKept(Contract):
    """The answer to feedback that is on the disk."""

    label: str = Field(description="The class that it should have had.")
    sha256: Sha256 = Field(description="Of the photograph's file.")


class FeedbackFolder:
    """A folder of feedback; any number of replicas on a machine may write into it at once.

    Args:
        folder: made when something is kept.
        max_bytes: of all that it holds.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_FOLDER_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def keep(self, said: Feedback, photograph: bytes) -> Feedback:
        """Write both; they are on the disk when this returns.

        Args:
            said: without digest and file, which are filled in.
            photograph: the file's bytes, which `serve.preprocess.decode` takes.

        Raises:
            RequestError: 507, the folder is full or cannot be written.
        """
        digest = hashlib.sha256(photograph).hexdigest()
        file = f"{PHOTOGRAPHS}/{digest}{suffix_of(photograph)}"
        kept = said.model_copy(update={"sha256": digest, "photograph": file})
        line = (kept.model_dump_json(exclude_none=True) + "\n").encode()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                new = not (self._folder / file).exists()
                self._check_room(len(line) + (len(photograph) if new else 0))
                if new:  # before the line: a line whose photograph is missing would be of no use
                    write_atomically(self._folder / file, photograph)
                self._append(line)
        except OSError as error:
            raise RequestError(507, f"feedback cannot be kept in {self._folder}: {error.strerror}") from error
        return kept

    def _check_room(self, wanted: int) -> None:
        files = [self._folder / LINES, *(self._folder / PHOTOGRAPHS).glob("*")]
        held = sum(file.stat().st_size for file in files if file.exists())
        if held + wanted > self._max_bytes:
            raise RequestError(
                507,
                f"feedback is full: {self._folder} holds {held} of {self._max_bytes} bytes; whoever runs the service "
                f"takes it in with `mergeline label import {self._folder / LINES}` and then moves it away",
            )

    def _append(self, line: bytes) -> None:
        with (self._folder / LINES).open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read(1) not in (b"", b"\n"):  # a crash cut a line off, so that nobody was told it is kept
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def add_feedback(app: FastAPI, endpoints: Endpoints, folder: FeedbackFolder | None, pool: Executor) -> None:
    """Let the application take feedback.

    Args:
        app: what `serve.endpoints.application` made.
        endpoints: whose model and limits count.
        folder: where it is kept; None: nowhere, which is said.
        pool: decodes and writes.
    """

    async def feedback(request: Request) -> FeedbackKept:
        """Say that a photograph was judged wrongly: a form with the file `photograph` and the right `label`."""
        if folder is None:
            raise RequestError(404, "feedback is off here: name a folder for it in `args.feedback` of the application")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise RequestError(403, "feedback is not taken from other sites' pages")
        said, photograph = await _read(request, endpoints)

        def check_and_keep() -> Feedback:
            decode(photograph, max_pixels=endpoints.limits.max_pixels)  # what is no photograph is not kept
            return folder.keep(said, photograph)

        try:
            kept = await asyncio.get_running_loop().run_in_executor(pool, check_and_keep)
        except ImageError as error:
            raise RequestError(error.status, str(error)) from None
        return FeedbackKept(label=kept.label, sha256=str(kept.sha256))

    texts = {name: {"type": "string"} for name in _FIELDS}
    form = {"type": "object", "properties": {"photograph": {"type": "string", "format": "binary"}, **texts}}
    body = {
        "required": True,
        "content": {"multipart/form-data": {"schema": {**form, "required": ["photograph", "label"]}}},
    }
    app.add_api_route(
        "/feedback",
        feedback,
        methods=["POST"],
        status_code=201,
        responses={"4XX": {"model": ErrorAnswer}, "507": {"model": ErrorAnswer, "description": "The folder is full."}},
        openapi_extra={"requestBody": body},
    )


async def _read(request: Request, endpoints: Endpoints) -> tuple[Feedback, bytes]:
    """What a form says, and its photograph."""
    limit = endpoints.limits.max_bytes
    async with limited(request, limit + _MAX_TEXT_BYTES).form(max_files=1, max_fields=len(_FIELDS)) as form:
        file = form.get("photograph")
        if not isinstance(file, UploadFile):
            raise RequestError(400, "the form holds no file `photograph`: feedback is kept together with it")
        if (file.size or 0) > limit:
            raise RequestError(413, f"the photograph is larger than {limit} bytes")
        given: dict[str, Any] = {name: form[name] for name in _FIELDS if form.get(name)}
        try:
            said = Feedback.parse({**given, "filename": file.filename or "photograph", "at": now()}, "the form")
        except ContractError as error:
            raise RequestError(400, str(error)) from None
        loaded = endpoints.slot.loaded
        classes = loaded.predictor.manifest.classes if loaded else (said.label,)
        if said.label not in classes:
            raise RequestError(400, f"label {said.label!r} is no class of the model: it has {', '.join(classes)}")
        return said, await file.read()
