"""What the evaluation report of a model must show before the model may be merged; pure functions of values."""

import math
from collections.abc import Iterator, Mapping

from gitops.contracts.model import EvaluationReport
from gitops.contracts.project import ESTIMATE_PREFIX, Gate, Project
from gitops.contracts.serving import ModelVersion
from gitops.errors import ContractError
from gitops.findings import Finding, accept, refuse
from gitops.layout import PROJECT_PATH, project_path

ROUNDING = 1e-3
"""How far a report's accuracy may lie from that of its own confusion matrix."""
_NORMAL_95 = 1.959964


def judge_report(version: ModelVersion) -> Iterator[Finding]:
    """The report is about this bundle, on images that nothing was fitted to, and agrees with itself."""
    report, label = version.evaluation, f"the report of {version.model}"
    if report.bundle != version.model.sha256:
        reason = f"{label} is about the bundle {report.bundle[:12]}, served is {version.model.sha256[:12]}"
        yield refuse("report", reason, "evaluate the bundle that shall be served (`mergeline submit evaluate`)")
    elif report.split != "test" or report.threshold.split == "test":
        reason = f"{label} judges on the {report.split} split a threshold chosen on {report.threshold.split}"
        yield refuse(
            "report", reason, "choose the threshold out of fold or on validation data, and evaluate on the test split"
        )
    elif contradiction := _contradiction(report):
        yield refuse("report", f"{label} contradicts itself: {contradiction}", "evaluate again; edit no report by hand")
    else:
        yield accept("report", f"{label} is about this bundle, on {report.images} held-out images")


def _contradiction(report: EvaluationReport) -> str | None:
    """Where a report's figures are not those of its own confusion matrices; None: nowhere."""
    contradiction = _accuracy_contradiction(report.confusion, report.images, report.metrics, "")
    if contradiction is None and (estimate := report.cross_validation) is not None:
        contradiction = _accuracy_contradiction(estimate.confusion, estimate.images, report.metrics, ESTIMATE_PREFIX)
    return contradiction


def _accuracy_contradiction(
    confusion: Mapping[str, Mapping[str, int]], images: int, metrics: Mapping[str, float], prefix: str
) -> str | None:
    counted = sum(count for row in confusion.values() for count in row.values())
    if counted != images or images == 0:
        return f"it counts {images} images, its confusion matrix {counted}"
    right = sum(row.get(label, 0) for label, row in confusion.items())
    low, high = wilson(right, images)
    for name, true in (("accuracy", right / images), ("accuracy_low", low), ("accuracy_high", high)):
        stated = metrics.get(f"{prefix}{name}", true)
        if not abs(stated - true) <= ROUNDING:  # written so that NaN contradicts
            return f"it states {prefix}{name} {stated:.4f}, its confusion matrix gives {true:.4f}"
    return None


def wilson(right: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson (1927): within 0 and 1, and honest where nothing was wrong."""
    share, squared = right / images, _NORMAL_95**2
    middle = share + squared / (2 * images)
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / images + squared / (4 * images**2))
    whole = 1 + squared / images
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def judge_bars(project: str | None, version: ModelVersion) -> Iterator[Finding]:
    """Every bar of the model's project file (None: there is none, and nothing passes) against the version's metrics."""
    try:
        project_file = Project.from_yaml(project or "", PROJECT_PATH)
    except ContractError as error:
        yield refuse("project", f"the bars before this change cannot be read: {error}", f"merge a valid {PROJECT_PATH}")
        return
    if project_file.name != version.model.name:
        remedy = f"merge its project file as {project_path(version.model.name)} first, on its own"
        yield refuse(
            "project", f"{version.model.name} has no bars here: {PROJECT_PATH} is {project_file.name}'s", remedy
        )
        return
    for gate in project_file.gates:
        yield _bar(gate, version)


def _bar(gate: Gate, version: ModelVersion) -> Finding:
    value = version.evaluation.metrics.get(gate.metric)
    label, bar = f"{version.model}", describe(gate)
    if value is None or not math.isfinite(value):
        measured = "has no such metric" if value is None else f"has {value}"
        return refuse(
            gate.metric, f"{label} {measured}; the bar is {bar}", "evaluate again and see why it is not measured"
        )
    if meets(gate, value):
        return accept(gate.metric, f"{label} has {value:.4f}; the bar is {bar}")
    remedy = "train a better model, or lower the bar in a change of its own that its owner merges"
    return refuse(gate.metric, f"{label} has {value:.4f}; the bar is {bar}", remedy)


def meets(gate: Gate, value: float) -> bool:
    """Whether a metric's value reaches its bar; NaN reaches none."""
    low, high = -math.inf if gate.min is None else gate.min, math.inf if gate.max is None else gate.max
    return math.isfinite(value) and low <= value <= high


def describe(gate: Gate) -> str:
    """A bar in words."""
    ends = [f"at least {gate.min:g}"] if gate.min is not None else []
    ends += [f"at most {gate.max:g}"] if gate.max is not None else []
    return " and ".join(ends) or "any figure"
