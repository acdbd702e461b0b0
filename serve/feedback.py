"""What users say of judgements: kept with the photograph in a folder, as `mergeline label import` reads it."""

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.datastructures import UploadFile

from gitops.contracts.base import Contract, Sha256
from gitops.contracts.dataset import Feedback
from gitops.errors import ContractError
from gitops.state import append_line, lines_backwards, locked, write_atomically
from gitops.status import now
from monitoring import metrics
from monitoring.metrics import Agreement
from serve.bodies import limited_form
from serve.endpoints import Endpoints
from serve.preprocess import ImageError, decode, suffix_of
from serve.protocol import ErrorAnswer, RequestError

LINES, PHOTOGRAPHS = "feedback.jsonl", "photographs"
"""What lies in the folder: a `gitops.contracts.dataset.Feedback` a line, and the photographs by their SHA-256."""
MAX_FOLDER_BYTES = 4 * 1024**3
"""More is not kept: nobody seems to look at it, and the disk is needed for other things."""
_RECOUNT_EVERY = 64  # of so many shares of the room one may be filled before the folder is looked through again
_LATEST = 128
"""So many lines back one is looked for that says the same: a retry comes within seconds."""
_MAX_TEXT_BYTES, _MAX_PART_BYTES = 64 * 1024, 16 * 1024
# What a form may say; time, digest and file are ours to know.
_FIELDS = (
    *("id", "label", "said", "score", "threshold", "model_name", "model_version", "model_digest"),
    *("sampled", "comment", "by"),
)


class FeedbackKept(Contract):
    """The answer to feedback that is on the disk."""

    label: str = Field(description="The class that it should have had.")
    sha256: Sha256 = Field(description="Of the photograph's file.")


_TEXTS = {name: {"type": "boolean" if name == "sampled" else "string"} for name in _FIELDS}
_FORM = {"type": "object", "properties": {"photograph": {"type": "string", "format": "binary"}, **_TEXTS}}
FEEDBACK: Mapping[str, Any] = {
    "methods": ["POST"],
    "status_code": 201,
    "response_model": FeedbackKept,
    "responses": {
        "4XX": {"model": ErrorAnswer},
        "503": {"model": ErrorAnswer, "description": "No model is served."},
        "507": {"model": ErrorAnswer, "description": "The folder is full."},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": {**_FORM, "required": ["photograph", "label"]}}},
        }
    },
}
"""What OpenAPI shall say of `/feedback`, as FastAPI takes it."""


class FeedbackFolder:
    """A folder of feedback; any number of replicas on a machine may write into it at once.

    Args:
        folder: made when something is kept.
        max_bytes: of all that it holds. Near to it: a replica counts what it writes itself, and looks through the
            folder again each 64th part.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_FOLDER_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._held: int | None = None
        """Bytes in the folder, as far as is known; None: unknown."""
        self._since_count = 0

    def keep(self, said: Feedback, photograph: bytes) -> tuple[Feedback, bool]:
        """Write both; they are on the disk when this returns. What was said last of the photograph isn't said twice.

        Args:
            said: without digest and file, which are filled in.
            photograph: the file's bytes, which `serve.preprocess.decode` takes.

        Returns:
            What is kept, and whether it wasn't before.

        Raises:
            RequestError: 507, the folder is full or cannot be written.
        """
        digest = hashlib.sha256(photograph).hexdigest()
        file = f"{PHOTOGRAPHS}/{digest}{suffix_of(photograph)}"
        kept = said.model_copy(update={"sha256": digest, "photograph": file})
        line = kept.model_dump_json(exclude_none=True)
        try:
            with locked(self._folder / ".lock"):
                new = not (self._folder / file).exists()
                if not new and self._is_said(kept):
                    return kept, False
                wanted = len(line.encode()) + 1 + (len(photograph) if new else 0)
                self._check_room(wanted)
                if new:  # before the line: a line whose photograph is missing would be of no use
                    write_atomically(self._folder / file, photograph)
                append_line(self._folder / LINES, line)
                self._count(wanted)
        except OSError as error:
            raise RequestError(507, f"feedback cannot be kept in {self._folder}: {error.strerror}") from error
        return kept, True

    def _check_room(self, wanted: int) -> None:
        if self._held is not None and self._held + wanted <= self._max_bytes:
            return
        # Also where it seems full: somebody may have moved it away.
        self._held, self._since_count = self._measure(), 0
        if self._held + wanted > self._max_bytes:
            raise RequestError(
                507,
                f"feedback is full: {self._folder} holds {self._held} of {self._max_bytes} bytes; whoever runs the "
                f"service takes it in with `mergeline label import {self._folder / LINES}` and then moves it away",
            )

    def _measure(self) -> int:
        held = 0
        for folder in (self._folder, self._folder / PHOTOGRAPHS):
            if folder.exists():
                with os.scandir(folder) as entries:
                    held += sum(entry.stat().st_size for entry in entries if entry.is_file())
        return held

    def _count(self, written: int) -> None:
        self._since_count += written
        # Others may write as well.
        recount = self._since_count > self._max_bytes / _RECOUNT_EVERY
        self._held = None if recount or self._held is None else self._held + written

    def _is_said(self, kept: Feedback) -> bool:
        """Whether the last line on the photograph, among the latest, says the same: a client that lost its answer."""
        file = self._folder / LINES
        if not file.exists():
            return False
        for line in islice(lines_backwards(file), _LATEST):
            if str(kept.sha256) in line:
                try:
                    last = Feedback.parse(json.loads(line), LINES)
                except (ValueError, ContractError):  # cut off by a crash
                    return False
                return last.model_copy(update={"at": kept.at}) == kept
        return False


def add_feedback(app: FastAPI, endpoints: Endpoints, folder: FeedbackFolder | None) -> None:
    """Let the application take feedback.

    Args:
        app: what `serve.routes.application` made.
        endpoints: whose model and limits count.
        folder: where it is kept; None: nowhere, which is said.
    """

    async def feedback(request: Request) -> FeedbackKept:
        """Say what a photograph should have been called: a form with the file `photograph` and the right `label`."""
        if folder is None:
            raise RequestError(404, "feedback is off here: name a folder for it in `args.feedback` of the application")
        if _is_foreign(request):
            raise RequestError(
                403, "feedback is not taken from other sites' pages; if this is ours, a proxy on the way changes `Host`"
            )
        endpoints.judges.classes()  # without a model nobody knows them, and there is no need to read the body
        said, photograph = await _read(request, endpoints)
        max_pixels = endpoints.limits.max_pixels
        try:  # what is no photograph is not kept
            await asyncio.to_thread(decode, photograph, max_pixels=max_pixels)
        except ImageError as error:
            raise RequestError(error.status, str(error)) from None
        # A slow disk must not keep photographs waiting.
        kept, is_new = await asyncio.to_thread(folder.keep, said, photograph)
        if is_new:
            claimed = said.model_version or ""
            version = claimed if endpoints.judges.knows(claimed) else "unknown"
            endpoints.meters.count(metrics.FEEDBACK, version, _agreement(said))
        return FeedbackKept(label=kept.label, sha256=str(kept.sha256))

    app.add_api_route("/feedback", feedback, **FEEDBACK)


def _agreement(said: Feedback) -> Agreement:
    if said.said is None:
        return Agreement.UNKNOWN
    return Agreement.CONFIRMED if said.said == said.label else Agreement.CORRECTED


def _is_foreign(request: Request) -> bool:
    """Whether a browser sends this for another site's page; what is no browser says nothing of it."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    # Over plain HTTP browsers leave the header away, but for this machine's own address.
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()


async def _read(request: Request, endpoints: Endpoints) -> tuple[Feedback, bytes]:
    """What a form says, and its photograph."""
    limit = endpoints.limits.max_bytes
    within = limited_form(request, limit + _MAX_TEXT_BYTES)
    async with within.form(max_files=1, max_fields=len(_FIELDS), max_part_size=_MAX_PART_BYTES) as form:
        file = form.get("photograph")
        if not isinstance(file, UploadFile):
            raise RequestError(400, "the form holds no file `photograph`: feedback is kept together with it")
        if (file.size or 0) > limit:
            raise RequestError(413, f"the photograph is larger than {limit} bytes")
        if twice := [name for name in _FIELDS if len(form.getlist(name)) > 1]:
            raise RequestError(400, f"the form says more than once: {', '.join(twice)}; send one of each")
        given: dict[str, Any] = {name: form[name] for name in _FIELDS if form.get(name)}
        try:
            said = Feedback.parse({**given, "filename": file.filename or "photograph", "at": now()}, "the form")
        except ContractError as error:
            raise RequestError(400, str(error)) from None
        classes = endpoints.judges.classes(said.model_version or "")
        if said.label not in classes:
            raise RequestError(400, f"label {said.label!r} is no class of the model: it has {', '.join(classes)}")
        return said, await file.read()
