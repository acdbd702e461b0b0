"""The windows of photographs that the monitor has judged, for people: what drifted, since when, and examples."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Response
from pydantic import AwareDatetime, Field

from gitops.contracts.base import Contract, Sha256, Version
from gitops.contracts.drift import DriftWindow
from gitops.errors import ContractError
from monitoring.metrics import WindowOutcome
from serve.preprocess import media_type_of
from serve.protocol import ErrorAnswer, RequestError
from serve.windows import photograph_in

SHOWN = 20
"""Windows, the latest ones."""
_EXAMPLE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=86400",  # its name is its content's digest
}


class WindowFacts(Contract):
    """A window that was judged."""

    ended_at: AwareDatetime
    model_version: Version
    outcome: WindowOutcome
    photographs: int
    drifting_since: AwareDatetime | None = Field(description="None: it did not drift.")
    drifted: tuple[str, ...] = Field(description="What did, the least likely first.")
    examples: tuple[Sha256, ...] = Field(description="Of its photographs: GET /served/windows/{sha256} has each.")


class WindowsAnswer(Contract):
    """The latest windows."""

    watched: bool = Field(description="Whether there is a monitor: `args.windows` is set.")
    windows: tuple[WindowFacts, ...] = Field(description=f"At most {SHOWN}, newest first.")


@dataclass(frozen=True)
class Windows:
    """Finds them in an application's folder of windows."""

    folder: Path | None
    """None: nobody keeps any."""

    def answer(self) -> WindowsAnswer:
        """The latest windows; what cannot be read is left out."""
        found = tuple(
            WindowFacts(
                ended_at=window.ended_at,
                model_version=window.model.version,
                outcome=window.outcome,
                photographs=window.photographs,
                drifting_since=window.drifting_since,
                drifted=tuple(dict.fromkeys(finding.feature for finding in window.drifted)),
                examples=window.examples,
            )
            for _, window in self._latest()
        )
        return WindowsAnswer(watched=self.folder is not None, windows=found)

    def example(self, sha256: str) -> bytes | None:
        """A photograph of one of these windows; None: none of them has it."""
        for file, window in self._latest():
            if sha256 in window.examples:
                with suppress(OSError, ValueError):  # removed meanwhile
                    return photograph_in(file.with_suffix(".parquet"), sha256)
        return None

    def _latest(self) -> list[tuple[Path, DriftWindow]]:
        files = sorted(self.folder.glob("*.json"), reverse=True)[:SHOWN] if self.folder else []
        found = []
        for file in files:
            with suppress(ContractError):
                found.append((file, DriftWindow.read(file)))
        return found


def add_windows(app: FastAPI, windows: Windows) -> None:
    """Let the application tell of its windows."""
    errors: dict[int | str, dict[str, type[Contract]]] = {"4XX": {"model": ErrorAnswer}}

    async def answer() -> WindowsAnswer:
        """The latest windows of photographs: what drifted, since when, and examples."""
        return await asyncio.to_thread(windows.answer)

    async def example(sha256: str) -> Response:
        """A photograph that one of the latest windows has kept."""
        data = await asyncio.to_thread(windows.example, sha256)
        if data is None:
            raise RequestError(404, f"none of the latest windows has a photograph {sha256[:12]}")
        return Response(data, 200, _EXAMPLE_HEADERS, media_type_of(data))

    app.add_api_route("/served/windows", answer, methods=["GET"])
    app.add_api_route("/served/windows/{sha256}", example, methods=["GET"], responses=errors, response_class=Response)
