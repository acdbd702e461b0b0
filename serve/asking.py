"""Asks a running service about photographs, as any HTTP client can: what `mergeline predict` does."""

import base64
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import Field, ValidationError

from gitops.errors import MergelineError
from gitops.manifest import Contract, Share
from gitops.state import write_atomically
from serve.protocol import IMAGE_SUFFIXES, ErrorAnswer, ExplainedAnswer, ImageAnswer

AT_ONCE = 4
"""Photographs that are asked about at the same time."""
TRIES = 6
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
            below = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in IMAGE_SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
            if not below:
                suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                raise MergelineError(f"there is no image below {path}: they are known by {suffixes}")
            found |= dict.fromkeys(below)
        elif path.exists():
            found[path] = None
        else:
            raise MergelineError(f"there is no file {path}")
    return list(found)


@dataclass(frozen=True)
class Asking:
    """How a service is asked."""

    url: str
    threshold: float | None = None
    """Judge at this one; None: at the model's own."""
    explain: Path | None = None
    """Folder for heat-maps; None: none."""

    def ask(self, files: list[Path]) -> Iterator[Answer]:
        """The answers, in the files' order; several files are asked about at once.

        Raises:
            MergelineError: nothing answers at the URL.
        """
        # A proxy of the environment has no business with a service on this machine.
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            try:
                client.get(f"{self.url}/v2/health/live")
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise MergelineError(
                    f"nothing answers at {self.url}: {error}; start it with `mergeline up`, or give --url"
                ) from error
            with ThreadPoolExecutor(AT_ONCE) as pool:
                yield from pool.map(lambda file: self._ask(client, file), files)

    def _ask(self, client: httpx.Client, file: Path) -> Answer:
        try:
            body = self._answered(client, file.read_bytes())
            return self._judged(file, body)
        except OSError as error:
            return Answer(file=str(file), error=f"cannot be read or written: {error.strerror}")
        except (MergelineError, httpx.HTTPError, ValidationError) as error:
            return Answer(file=str(file), error=str(error) or type(error).__name__)

    def _answered(self, client: httpx.Client, data: bytes) -> ImageAnswer:
        query = {"explain": "heatmap"} if self.explain else {}
        for attempt in range(TRIES):
            response = client.post(
                f"{self.url}/predict", params=query, content=data, headers={"Accept": "application/json"}
            )
            if response.status_code not in _BUSY or attempt == TRIES - 1:
                break
            asked = response.headers.get("retry-after", "")
            time.sleep(min(_LONGEST_WAIT_SECONDS, float(asked) if asked.isdecimal() else 0.5 * 2**attempt))
        if response.is_error:
            raise MergelineError(_reason(response))
        return (ExplainedAnswer if self.explain else ImageAnswer).model_validate_json(response.content)

    def _judged(self, file: Path, body: ImageAnswer) -> Answer:
        threshold = body.threshold if self.threshold is None else self.threshold
        label = label_at(body.probabilities, body.score, threshold)
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
        # The whole path in the name: files of one name in two folders must not overwrite each other.
        parts = [part for part in file.parts if part not in (file.anchor, "..", ".")]
        target = (self.explain or Path()) / ("-".join(parts) + ".heatmap.png")
        write_atomically(target, base64.b64decode(body.explanation.heatmap))
        return str(target)


def label_at(probabilities: dict[str, float], score: float, threshold: float) -> str:
    """The label at a threshold: the first class (good) below it, else the likeliest of the others."""
    good, *others = probabilities
    return good if score < threshold else max(others, key=lambda name: probabilities[name])


def _reason(response: httpx.Response) -> str:
    try:
        return ErrorAnswer.model_validate_json(response.content).error.reason
    except ValidationError:  # of Ray Serve itself, or of a proxy
        return f"the service answered {response.status_code}: {response.text[:200].strip()}"
