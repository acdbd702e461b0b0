"""Watches the line: windows of photographs that were answered, judged against the reference of the model's bundle."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from gitops.contracts.drift import DriftFinding, DriftWindow
from gitops.contracts.serving import ServedModel
from gitops.errors import MergelineError
from gitops.status import now
from monitoring import drift, metrics
from monitoring.drift import Finding, Observations
from monitoring.metrics import ANY_KIND, AccuracyBound, DriftKind, LastingMeters, WindowOutcome
from serve.feedback import LINES
from serve.live_accuracy import live_accuracy
from serve.observations import observations_of, reference_of
from serve.predictor import Observation, Predictor
from serve.preprocess import ImageError
from serve.windows import Row, WindowFolder, baseline_in

_SILENT_WINDOWS = 4
RETRY_SECONDS = 60.0
"""After which a bundle that did not open is tried again."""
_WASSERSTEIN = "wasserstein"

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Settings:
    """How the line is watched."""

    window_seconds: float
    """After which a window is judged though it is not full."""
    photographs: int
    """Files that a window keeps, of those that the model was least sure of."""
    max_pixels: int
    """Of a photograph that is decoded."""


@dataclass
class _Watched:
    """A model whose photographs come in, and its window."""

    model: ServedModel
    predictor: Predictor
    reference: Observations
    rows: list[Row] = field(default_factory=list)
    begun: float = 0.0
    """When the window's first photograph came, by the monotonic clock."""
    silence: int = 0
    """Windows of others that have closed since its last photograph."""


class DriftMonitor:
    """Takes photographs one by one, and judges them by the window; one thread uses it.

    Args:
        folder: keeps the windows.
        application: whose photographs they are.
        open_bundle: fetches and loads a model's bundle.
        meters: where it is published what was found.
        settings: how it is done.
        feedback: folder in which users say what was wrong; None: there is none.
    """

    def __init__(
        self,
        folder: WindowFolder,
        application: str,
        open_bundle: Callable[[ServedModel], Predictor],
        meters: LastingMeters,
        settings: Settings,
        feedback: Path | None = None,
    ) -> None:
        self._folder = folder
        self._application = application
        self._open_bundle = open_bundle
        self._meters = meters
        self._settings = settings
        self._feedback = feedback
        self._feedback_read: tuple[int, frozenset[tuple[str, str]]] | None = None
        """When the feedback that was read last had been written, and the names and versions that it was read for."""
        self._watched: dict[str, _Watched] = {}
        self._refused: dict[str, float] = {}
        """Bundles that did not open, and when they are tried again."""

    def take(self, model: ServedModel, photograph: bytes) -> bool:
        """Measure a photograph and judge the window that it fills; False if it cannot be used. Never raises."""
        try:
            watched = self._watch(model)
            if watched is None:
                return False
            observation = watched.predictor.observe(photograph, max_pixels=self._settings.max_pixels)
            self._add(watched, photograph, observation)
            if len(watched.rows) >= drift.WINDOW:
                self._close(watched)
        except ImageError as error:  # it was answered, but perhaps not by decoding it
            log.info("The monitor cannot use a photograph: %s", error)
            return False
        except Exception:  # a photograph is data: whatever it makes a library raise must not end the monitor
            log.exception("The monitor failed on a photograph.")
            return False
        return True

    def look_round(self) -> None:
        """Judge windows whose time has passed, and read what users say; to be called now and then. Never raises."""
        try:
            for watched in list(self._watched.values()):
                if watched.rows and time.monotonic() - watched.begun >= self._settings.window_seconds:
                    self._close(watched)
            self._publish_accuracy()
        except Exception:
            log.exception("The monitor failed to look round.")

    # --- the models that are watched ----------------------------------------------------------------------------------

    def _watch(self, model: ServedModel) -> _Watched | None:
        watched = self._watched.get(model.sha256)
        if watched is None:
            watched = self._begin(model)
        elif watched.model != model:  # the same bundle under another version
            self._meters.retire("model_version", watched.model.version)
            watched.model = model
        return watched

    def _begin(self, model: ServedModel) -> _Watched | None:
        if time.monotonic() < self._refused.get(model.sha256, 0.0):
            return None
        try:
            predictor = self._open_bundle(model)
            reference = reference_of(predictor)
        except (MergelineError, OSError) as error:
            log.warning("The monitor cannot watch %s version %s: %s", model.name, model.version, error)
            self._refused[model.sha256] = time.monotonic() + RETRY_SECONDS
            return None
        watched = self._watched[model.sha256] = _Watched(model, predictor, reference)
        if last := self._folder.last(model):  # what is known must not be forgotten by a restart
            self._publish(last)
        return watched

    def _add(self, watched: _Watched, photograph: bytes, observation: Observation) -> None:
        watched.silence = 0
        if not watched.rows:
            watched.begun = time.monotonic()
        watched.rows.append(Row.of(photograph, observation, now()))
        with_file = [row for row in watched.rows if row.photograph is not None]
        if len(with_file) > self._settings.photographs:
            max(with_file, key=lambda row: row.margin).photograph = None

    def _retire(self, active: _Watched) -> None:
        """Forget models of which nothing comes any more: else what they last did would be shown for ever."""
        for watched in list(self._watched.values()):
            watched.silence += watched is not active
            if watched.silence < _SILENT_WINDOWS:  # a canary of few requests is not gone
                continue
            if watched.rows:  # the last that it was shown
                self._judge(watched)
            self._meters.retire("model_version", watched.model.version)
            del self._watched[watched.model.sha256]

    # --- windows ------------------------------------------------------------------------------------------------------

    def _close(self, watched: _Watched) -> None:
        """Judge a window, keep it, publish what was found, and see which models are gone."""
        self._judge(watched)
        self._retire(watched)

    def _judge(self, watched: _Watched) -> None:
        rows, watched.rows = watched.rows, []
        observed = observations_of([row.observation for row in rows])
        baseline = baseline_in(self._folder.folder, watched.model)
        enough, compares = len(rows) >= drift.LEAST_WINDOW, sum(baseline.values()) >= drift.BASELINE
        classes = watched.predictor.manifest.classes
        findings = drift.judge(watched.reference, observed, classes, baseline if compares else None) if enough else ()
        outcome = _outcome(findings)
        kept = sorted((row for row in rows if row.photograph is not None), key=lambda row: row.margin)
        window = DriftWindow(
            application=self._application,
            model=watched.model,
            outcome=outcome,
            photographs=len(rows),
            began_at=rows[0].taken_at,
            ended_at=_last(rows),
            judged_at=now(),
            labels={label: int(np.count_nonzero(observed.labels == label)) for label in classes},
            compares_labels=compares,
            findings=tuple(_finding(found) for found in findings),
            drifting_since=self._since(watched.model, rows) if outcome is WindowOutcome.DRIFTED else None,
            examples=tuple(row.sha256 for row in kept),
        )
        self._meters.count(metrics.DRIFT_WINDOWS, watched.model.version, outcome)
        self._publish(window)
        try:
            if outcome is WindowOutcome.STABLE and not compares:
                self._folder.add_to_baseline(watched.model, window.labels)
            self._folder.keep(window, rows)
        except OSError:
            log.exception("A window cannot be kept in %s.", self._folder.folder)

    def _since(self, model: ServedModel, rows: Sequence[Row]) -> datetime:
        """When the first of the windows in a row that drifted began, of which these rows are the last."""
        last = self._folder.last(model)
        return (last and last.drifting_since) or rows[0].taken_at

    def _publish(self, window: DriftWindow) -> None:
        if window.outcome is WindowOutcome.TOO_FEW:
            return  # what was found before still holds
        version = window.model.version
        for found in window.findings:
            self._meters.set(metrics.DRIFT_STATISTIC, found.value, version, found.feature, found.statistic)
            self._meters.set(metrics.DRIFT_P_VALUE, found.p_value, version, found.feature, found.statistic)
            if found.wasserstein is not None:
                self._meters.set(metrics.DRIFT_STATISTIC, found.wasserstein, version, found.feature, _WASSERSTEIN)
        drifted = {found.kind for found in window.drifted}
        for kind in DriftKind:
            self._meters.set(metrics.DRIFT_DETECTED, int(kind in drifted), version, kind)
        self._meters.set(metrics.DRIFT_DETECTED, int(bool(drifted)), version, ANY_KIND)
        since = window.drifting_since
        self._meters.set(metrics.DRIFT_SINCE, since.timestamp() if since else 0, version)

    def _publish_accuracy(self) -> None:
        file = self._feedback / LINES if self._feedback else None
        models = frozenset((watched.model.name, watched.model.version) for watched in self._watched.values())
        if file is None or not models or not file.exists():
            return
        if (seen := (file.stat().st_mtime_ns, models)) == self._feedback_read:
            return
        self._feedback_read = seen
        with file.open(encoding="utf-8", errors="replace") as lines:
            accuracies = live_accuracy(lines, {name for name, _ in models})
        versions = {version for _, version in models}
        for version, accuracy in accuracies.items():
            if version not in versions:  # its gauges would stay for ever
                continue
            for bound in AccuracyBound:
                value = asdict(accuracy)[bound]
                self._meters.set(metrics.LIVE_ACCURACY, value, version, bound)


def _outcome(findings: Sequence[Finding]) -> WindowOutcome:
    if not findings:  # too few in the window, or in the reference
        return WindowOutcome.TOO_FEW
    return WindowOutcome.DRIFTED if any(found.drifted for found in findings) else WindowOutcome.STABLE


def _finding(found: Finding) -> DriftFinding:
    return DriftFinding(
        kind=found.kind,
        feature=found.feature,
        statistic=found.statistic,
        value=found.value,
        p_value=found.p_value,
        wasserstein=found.distance,
        drifted=found.drifted,
        label=found.label,
    )


def _last(rows: Sequence[Row]) -> datetime:
    return max(row.taken_at for row in rows)
