"""How the service does lately, for its page: by Prometheus where there is one, else by the replica's own figures."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import httpx
from fastapi import FastAPI
from pydantic import Field

from gitops.contracts.base import Contract
from gitops.errors import MergelineError
from gitops.monitor import monitor_of
from gitops.serve_api import tls
from gitops.status import Journal
from monitoring import metrics
from monitoring.metrics import Outcome
from serve.recent import WINDOW_SECONDS, Figures, Recent

_TIMEOUT_SECONDS = 2.0  # people wait for it


class FiguresAnswer(Contract):
    """How requests to judge went in the last minutes."""

    source: Literal["prometheus", "replica"] = Field(description="replica: of the one that answers alone.")
    figures: Figures
    drift: dict[str, bool] | None = Field(
        description="Kind of drift → whether it is there now; None: nobody measures it."
    )
    problem: str | None = Field(description="Why Prometheus could not be asked, where it should have been.")


def queries(labels: Mapping[str, str]) -> dict[str, str]:
    """What Prometheus is asked about the series with these labels: the figures' names → PromQL."""
    window = f"{WINDOW_SECONDS:.0f}s"
    where = ", ".join(f'{label}="{value}"' for label, value in labels.items())

    def rate(series: str, more: str = "") -> str:
        return f"rate({series}{{{where}{more}}}[{window}])"

    requests, seconds = metrics.REQUESTS.exported, metrics.REQUEST_SECONDS.exported
    failed = f', outcome=~"{Outcome.FAILED}|{Outcome.UNAVAILABLE}"'
    counted = f', outcome!="{Outcome.GONE}"'
    return {
        "requests_per_second": f"sum({rate(requests, counted)})",
        "error_share": f"(sum({rate(requests, failed)}) or vector(0)) / sum({rate(requests, counted)})",
        "p50_seconds": f"histogram_quantile(0.5, sum by (le) ({rate(f'{seconds}_bucket')}))",
        "p99_seconds": f"histogram_quantile(0.99, sum by (le) ({rate(f'{seconds}_bucket')}))",
        "drift": f"max by (kind) ({metrics.DRIFT_DETECTED.exported}{{{where}}})",
    }


@dataclass(frozen=True)
class ServiceFigures:
    """Finds the figures of an application, or of a model of a fleet."""

    labels: Mapping[str, str]
    """By which Prometheus knows their series."""
    recent: Recent
    journal: Journal | None
    prometheus: str | None
    """Its URL; None: the one of the journal's state folder, if there is one."""

    async def answer(self) -> FiguresAnswer:
        """Ask whoever knows."""
        problem = None
        try:
            if url := self.prometheus or await asyncio.to_thread(self._found):
                return await self._asked(url)
        except (httpx.HTTPError, MergelineError, ValueError, KeyError, TypeError) as error:
            problem = f"Prometheus could not be asked ({type(error).__name__})"
        return FiguresAnswer(source="replica", figures=self.recent.figures(), drift=None, problem=problem)

    def _found(self) -> str | None:
        monitor = monitor_of(self.journal.state) if self.journal else None
        return monitor.prometheus if monitor else None

    async def _asked(self, url: str) -> FiguresAnswer:
        asked = queries(self.labels)
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False, verify=tls()) as client:
            answers = await asyncio.gather(
                *(client.get(f"{url.rstrip('/')}/api/v1/query", params={"query": text}) for text in asked.values())
            )
        found = {name: _samples(response) for name, response in zip(asked, answers, strict=True)}
        drift = {kind: value > 0 for kind, value in found.pop("drift").items()}
        values = {name: next(iter(samples.values()), None) for name, samples in found.items()}
        figures = Figures(
            seconds=WINDOW_SECONDS,
            requests_per_second=values["requests_per_second"] or 0.0,
            error_share=values["error_share"],
            p50_seconds=values["p50_seconds"],
            p99_seconds=values["p99_seconds"],
        )
        return FiguresAnswer(source="prometheus", figures=figures, drift=drift or None, problem=None)


def _samples(response: httpx.Response) -> dict[str, float]:
    """The values by their kind (empty: it has none); what is no number is left out."""
    series = response.raise_for_status().json()["data"]["result"]
    values = {item["metric"].get("kind", ""): float(item["value"][1]) for item in series}
    return {kind: value for kind, value in values.items() if math.isfinite(value)}


def add_figures(app: FastAPI, figures: ServiceFigures) -> None:
    """Let the application say how it does lately."""

    async def answer() -> FiguresAnswer:
        """Requests, latency, errors and drift of the last five minutes."""
        return await figures.answer()

    app.add_api_route("/served/figures", answer, methods=["GET"])
