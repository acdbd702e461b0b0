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
from monitoring.metrics import Outcome, ShadowOutcome
from serve.recent import WINDOW_SECONDS, Figures, Recent, RecentComparisons, ShadowFigures

_TIMEOUT_SECONDS = 2.0  # people wait for it
_EACH = " of each version"


class FiguresAnswer(Contract):
    """How requests to judge went in the last minutes."""

    source: Literal["prometheus", "replica"] = Field(description="replica: of the one that answers alone.")
    figures: Figures
    drift: dict[str, bool] | None = Field(
        description="Kind of drift → whether it is there now; None: nobody measures it."
    )
    problem: str | None = Field(description="Why Prometheus could not be asked, where it should have been.")
    versions: dict[str, Figures] = Field(
        description="The same figures by the version that was to judge, where it was asked lately; none: no model."
    )
    shadows: dict[str, ShadowFigures] = Field(
        description="Version of a shadow → what became of the photographs that it was to judge after the answer."
    )


def queries(labels: Mapping[str, str]) -> dict[str, str]:
    """What Prometheus is asked about the series with these labels: the figures' names → PromQL."""
    window = f"{WINDOW_SECONDS:.0f}s"
    where = ", ".join(f'{label}="{value}"' for label, value in labels.items())

    def rate(series: str, more: str = "") -> str:
        return f"rate({series}{{{where}{more}}}[{window}])"

    requests, seconds = metrics.REQUESTS.exported, metrics.REQUEST_SECONDS.exported
    failed = f', outcome=~"{Outcome.FAILED}|{Outcome.UNAVAILABLE}"'
    counted = f', outcome!="{Outcome.GONE}"'
    shadow = f"{metrics.SHADOW_PHOTOGRAPHS.exported}{{{where}}}[{window}]"
    each = "sum by (model_version)"
    return {
        "requests_per_second": f"sum({rate(requests, counted)})",
        "error_share": f"(sum({rate(requests, failed)}) or vector(0)) / sum({rate(requests, counted)})",
        "p50_seconds": f"histogram_quantile(0.5, sum by (le) ({rate(f'{seconds}_bucket')}))",
        "p99_seconds": f"histogram_quantile(0.99, sum by (le) ({rate(f'{seconds}_bucket')}))",
        "drift": f"max by (kind) ({metrics.DRIFT_DETECTED.exported}{{{where}}})",
        f"requests_per_second{_EACH}": f"{each} ({rate(requests, counted)})",
        # A version without failures has no series of them.
        f"error_share{_EACH}": f"({each} ({rate(requests, failed)}) or 0 * {each} ({rate(requests, counted)}))"
        f" / {each} ({rate(requests, counted)})",
        f"p50_seconds{_EACH}": f"histogram_quantile(0.5, sum by (le, model_version) ({rate(f'{seconds}_bucket')}))",
        f"p99_seconds{_EACH}": f"histogram_quantile(0.99, sum by (le, model_version) ({rate(f'{seconds}_bucket')}))",
        "shadows": f"sum by (model_version, outcome) (increase({shadow}))",
    }


@dataclass(frozen=True)
class ServiceFigures:
    """Finds the figures of an application, or of a model of a fleet."""

    labels: Mapping[str, str]
    """By which Prometheus knows their series."""
    recent: Recent
    compared: RecentComparisons
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
        figures, versions = self.recent.figures()
        shadows = self.compared.figures()
        return FiguresAnswer(
            source="replica", figures=figures, drift=None, problem=problem, versions=versions, shadows=shadows
        )

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
        drift = {kind: value > 0 for (kind, _, _), value in found["drift"].items()}
        rates = found[f"requests_per_second{_EACH}"]
        return FiguresAnswer(
            source="prometheus",
            figures=_figures(found, ("", "", "")),
            drift=drift or None,
            problem=None,
            # Of one that was served before the window its series are still there.
            versions={key[1]: _figures(found, key, _EACH) for key in sorted(rates) if rates[key] > 0},
            shadows=_shadows(found["shadows"]),
        )


_Key = tuple[str, str, str]
"""Kind, version and outcome of a series; empty: it has none."""


def _samples(response: httpx.Response) -> dict[_Key, float]:
    """The values of the series; what is no number is left out."""
    values = {}
    for item in response.raise_for_status().json()["data"]["result"]:
        kind, version, outcome = (item["metric"].get(label, "") for label in ("kind", "model_version", "outcome"))
        values[kind, version, outcome] = float(item["value"][1])
    return {key: value for key, value in values.items() if math.isfinite(value)}


def _figures(found: Mapping[str, Mapping[_Key, float]], key: _Key, suffix: str = "") -> Figures:
    return Figures(
        seconds=WINDOW_SECONDS,
        requests_per_second=found[f"requests_per_second{suffix}"].get(key, 0.0),
        error_share=found[f"error_share{suffix}"].get(key),
        p50_seconds=found[f"p50_seconds{suffix}"].get(key),
        p99_seconds=found[f"p99_seconds{suffix}"].get(key),
    )


def _shadows(found: Mapping[_Key, float]) -> dict[str, ShadowFigures]:
    shadows = {}
    for version in sorted({version for (_, version, _), value in found.items() if value > 0}):
        counts = {str(outcome): found.get(("", version, outcome), 0.0) for outcome in ShadowOutcome}
        shadows[version] = ShadowFigures(**counts)
    return shadows


def add_figures(app: FastAPI, figures: ServiceFigures) -> None:
    """Let the application say how it does lately."""

    async def answer() -> FiguresAnswer:
        """Requests, latency, errors and drift of the last five minutes."""
        return await figures.answer()

    app.add_api_route("/served/figures", answer, methods=["GET"])
