"""Asks a running service about photographs, as any HTTP client can: what `mergeline predict` does."""

import base64
import hashlib
import os
import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field, ValidationError

from gitops.contracts.base import Contract, Share
from gitops.errors import MergelineError
from gitops.state import write_atomically
from serve.photographs import IMAGE_SUFFIXES, files_below, images_below
from serve.protocol import (
    CLIENT_HEADER,
    ErrorAnswer,
    ExplainedAnswer,
    FleetReadiness,
    ImageAnswer,
    InferenceError,
    Readiness,
)

AT_ONCE = 4
"""Photographs that are asked about at the same time."""
TRIES = 6
"""Of a request to a service that is busy."""
TRANSPORT_TRIES = 3
"""Of a request that gets no answer at all."""
_LONGEST_WAIT_SECONDS = 20.0
_TIMEOUT_SECONDS = 60.0
_BUSY = (408, 429, 502, 503, 504)


class Answer(Contract):
    """What the service says of a file, or why it says nothing."""

    file: str
    label: str | None = Field(default=None, description="At the threshold; None: it could not be judged.")
    good: bool | None = Field(default=None, description="Whether that is the good class.")
    score: Share | None = Field(default=None, description="Probability that the part is not good.")
    threshold: Share | None = Field(default=None, description="Smallest score that is not good.")
    probabilities: dict[str, Share] = Field(default={}, description="Probability of each class.")
    part_found: bool | None = None
    model_version: str | None = None
    model_digest: str | None = None
    heatmap: str | None = Field(default=None, description="The file that the heat-map was written to.")
    error: str | None = None


def photographs(paths: Iterable[Path]) -> list[Path]:
    """The files that are meant: those named, and the images below folders; each once.

    Raises:
        MergelineError: there is no such file, or no image in a folder.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = list(images_below(path).values())
            if not below:
                suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                raise MergelineError(f"there is no image below {path}: they are known by {suffixes}")
            found |= dict.fromkeys(below)
        elif path.exists():
            found[path] = None
        else:
            raise MergelineError(f"there is no file {path}")
    return list(found)


def left_out(paths: Collection[Path]) -> list[Path]:
    """The files below folders that are not taken for photographs: their names end otherwise, and nobody named them."""
    below = (file for path in paths if path.is_dir() for file in files_below(path))
    return [file for file in below if file.suffix.lower() not in IMAGE_SUFFIXES and file not in paths]


@dataclass(frozen=True)
class Asking:
    """How a service is asked."""

    url: str
    threshold: float | None = None
    """Judge at this one; None: at the model's own."""
    explain: Path | None = None
    """Folder for heat-maps; None: none."""
    client: str = ""
    """Who asks: a canary's share is one of clients, so that one version judges all its files; empty: nobody says."""

    def ask(self, files: list[Path]) -> Iterator[Answer]:
        """The answers, in the files' order; several files are asked about at once.

        Raises:
            MergelineError: nothing answers at the URL, or something else, or it serves no model.
        """
        # A proxy of the environment has no business with a service on this machine.
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=not is_loopback(self.url)) as client:
            self._check_ready(client)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                yield from pool.map(lambda file: self._ask(client, file), files)

    def _check_ready(self, client: httpx.Client) -> None:
        """Find out at once what would be wrong with every file."""
        hint = "start it with `mergeline up`, or give --url"
        try:
            # A service without a model says so in its own words, and is not asked again; a full one is.
            response = _patiently(
                lambda: client.get(f"{self.url}/v2/health/ready"), lambda found: _inference_error(found) is None
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MergelineError(f"nothing answers at {self.url}: {error}; {hint}") from error
        reason = _inference_error(response)
        if reason is not None and response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise MergelineError(f"{self.url} is not ready: {reason}")
        if response.status_code in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.SERVICE_UNAVAILABLE):
            raise MergelineError(
                f"no replica takes requests at {self.url} (status {response.status_code}): all are busy, or none runs; "
                "`mergeline status` says which"
            )
        try:
            Readiness.model_validate_json(response.content if response.is_success else b"")
        except ValidationError as error:
            with suppress(ValidationError):
                FleetReadiness.model_validate_json(response.content)
                raise MergelineError(
                    f"{self.url} is a fleet of models: name one of {self.url}/fleet, as {self.url}/models/NAME"
                ) from None
            raise MergelineError(
                f"what answers at {self.url} is not a service of Mergeline (status {response.status_code}): {hint}"
            ) from error

    def _ask(self, client: httpx.Client, file: Path) -> Answer:
        try:
            body = self._answered(client, file.read_bytes())
            return self._judged(file, body)
        except OSError as error:
            return Answer(file=str(file), error=f"{error.filename or file} cannot be read or written: {error.strerror}")
        except (MergelineError, httpx.HTTPError, ValidationError) as error:
            return Answer(file=str(file), error=str(error) or type(error).__name__)

    def _answered(self, client: httpx.Client, data: bytes) -> ImageAnswer:
        query = {"explain": "heatmap"} if self.explain else {}
        url, headers = f"{self.url}/predict", {"Accept": "application/json"}
        headers |= {CLIENT_HEADER: self.client} if self.client else {}
        response = _patiently(lambda: client.post(url, params=query, content=data, headers=headers))
        if response.is_error:
            raise MergelineError(_reason(response))
        return (ExplainedAnswer if self.explain else ImageAnswer).model_validate_json(response.content)

    def _judged(self, file: Path, body: ImageAnswer) -> Answer:
        threshold = body.threshold if self.threshold is None else self.threshold
        label = body.label if self.threshold is None else label_at(body.probabilities, threshold)
        kept: dict[str, Any] = body.model_dump(include={"probabilities", "part_found", "model_version", "model_digest"})
        return Answer(
            **kept,
            file=str(file),
            label=label,
            good=body.score < threshold,
            score=body.score,
            threshold=threshold,
            heatmap=self._heatmap(file, body) if isinstance(body, ExplainedAnswer) else None,
        )

    def _heatmap(self, file: Path, body: ExplainedAnswer) -> str:
        target = (self.explain or Path()) / heatmap_name(file)
        write_atomically(target, base64.b64decode(body.explanation.heatmap))
        return str(target)


def default_client() -> str:
    """An id of this user on this machine, the same each time, that tells neither."""
    user = f"{platform.node()} {os.getuid()}"
    return f"mergeline-{hashlib.sha256(user.encode()).hexdigest()[:16]}"


def heatmap_name(file: Path) -> Path:
    """Where a file's heat-map lies in the folder for them: another place for every file, and none outside."""
    inside = Path(*(part for part in file.parts if part not in (file.anchor, "..")))
    # What is left of two paths may be the same.
    digest = "" if inside == file else f".{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    return inside.with_name(f"{inside.name}{digest}.heatmap.png")


def label_at(probabilities: dict[str, float], threshold: float) -> str:
    """The label at a threshold: the first class (good) below it, else the likeliest of the others."""
    # Not at the top: who judges at the model's own threshold needs neither NumPy nor OpenCV.
    import numpy as np

    from serve.predictor import decide

    return list(probabilities)[int(decide(np.array([list(probabilities.values())]), threshold)[0])]


def is_loopback(url: str) -> bool:
    """Whether a URL means this machine."""
    try:
        host = httpx.URL(url).host
        return host == "localhost" or ip_address(host).is_loopback
    except (ValueError, httpx.InvalidURL):
        return False


def _patiently(
    send: Callable[[], httpx.Response], may_pass: Callable[[httpx.Response], bool] = lambda _: True
) -> httpx.Response:
    """The answer to a request, which is sent again where the service is busy, or cannot be reached for a moment.

    Raises:
        httpx.HTTPError: there is no answer.
    """
    for attempt in range(TRIES):
        wait = 0.5 * 2**attempt
        try:
            response = send()
        except httpx.TransportError as error:
            if attempt >= TRANSPORT_TRIES - 1 or isinstance(error, httpx.UnsupportedProtocol):
                raise
        else:
            if response.status_code not in _BUSY or attempt == TRIES - 1 or not may_pass(response):
                break
            asked = response.headers.get("retry-after", "")
            wait = float(asked) if asked.isdecimal() else wait
        time.sleep(min(_LONGEST_WAIT_SECONDS, wait))
    return response


def _inference_error(response: httpx.Response) -> str | None:
    """The reason in an error under /v2; None if it is another answer, as of Ray Serve itself."""
    try:
        return InferenceError.model_validate_json(response.content).error
    except ValidationError:
        return None


def _reason(response: httpx.Response) -> str:
    try:
        return ErrorAnswer.model_validate_json(response.content).error.reason
    except ValidationError:  # of Ray Serve itself, or of a proxy
        return f"the service answered {response.status_code}: {response.text[:200].strip()}"
