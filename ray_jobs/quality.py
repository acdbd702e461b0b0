"""Profile of a dataset, and the assertions that it must pass before anything is trained on it.

python -m ray_jobs.quality --project project.yaml --state .mergeline
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gitops.contracts.dataset import DatasetManifest, ImageFinding, QualityReport
from gitops.contracts.project import Assertion
from gitops.errors import ContractError, StageError, did_you_mean
from gitops.state import write_atomically
from ray_jobs import quality_page
from ray_jobs.decoded import read_rows
from ray_jobs.measures import DatasetMeasures
from ray_jobs.quality_page import describe
from ray_jobs.split import Sample, groups_of_lookalikes
from ray_jobs.stage import Stage, arguments, open_stage, recorded, report_progress, run_main
from serve.measures import Measures

_NAMED_IMAGES = 10


def profile(
    rows: Sequence[dict[str, Any]], manifest: DatasetManifest, assertions: Sequence[Assertion]
) -> QualityReport:
    """Sum up a dataset and check what it must fulfil.

    Args:
        rows: of the shards, without their images.
        manifest: of the dataset.
        assertions: from the project file.

    Raises:
        ContractError: an assertion names a measure that there is not.
    """
    names = [str(row["filename"]) for row in rows]
    samples = [Sample.of(row, manifest.classes) for row in rows]
    labels = [sample.label for sample in samples]
    groups = _members(groups_of_lookalikes(samples, manifest.lookalikes).tolist())
    balance = {name: labels.count(name) for name in manifest.classes}
    mixed = [group for group in groups if len({labels[index] for index in group}) > 1]
    whole = DatasetMeasures(
        images=len(rows),
        smallest_class=min(balance.values()),
        smallest_class_share=min(balance.values()) / max(1, len(rows)),
        duplicates=sum(map(len, groups)),
        contradictions=sum(map(len, mixed)),
        quarantined=len(manifest.quarantined),
    )
    return QualityReport(
        dataset=manifest.digest,
        images=len(rows),
        measures={name: _summary([float(row[name]) for row in rows]) for name in Measures.model_fields},
        class_balance=balance,
        duplicate_groups=tuple(tuple(sorted(names[index] for index in group)) for group in groups),
        findings=tuple(_check(assertion, rows, whole) for assertion in assertions),
    )


def _members(groups: list[int]) -> list[list[int]]:
    """Indices of the images of every group of more than one."""
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [group for group in members.values() if len(group) > 1]


def _summary(values: list[float]) -> dict[str, float]:
    low, p05, median, p95, high = np.percentile(values, [0, 5, 50, 95, 100]).tolist()
    return {"min": low, "p05": p05, "median": median, "p95": p95, "max": high, "mean": float(np.mean(values))}


def _check(assertion: Assertion, rows: Sequence[dict[str, Any]], whole: DatasetMeasures) -> ImageFinding:
    """Check one assertion: for the images it must hold for a share of them, for the whole dataset just once."""
    if assertion.measure in DatasetMeasures.model_fields:
        holds = _within(float(getattr(whole, assertion.measure)), assertion)
        return ImageFinding(assertion=assertion, passed=holds, failing_share=0.0 if holds else 1.0)
    if assertion.measure not in Measures.model_fields:
        known = [*Measures.model_fields, *DatasetMeasures.model_fields]
        raise ContractError(
            f"quality: there is no measure {assertion.measure!r}; {did_you_mean(assertion.measure, known)}"
        )
    failing = tuple(row["filename"] for row in rows if not _within(float(row[assertion.measure]), assertion))
    share = len(failing) / max(1, len(rows))
    # Both shares come from decimals: 0.02 failing of 0.98 wanted is enough.
    passed = share <= 1 - assertion.share + 1e-9
    return ImageFinding(assertion=assertion, passed=passed, failing_share=share, failing_images=failing)


def _within(value: float, assertion: Assertion) -> bool:
    low = -np.inf if assertion.min is None else assertion.min
    high = np.inf if assertion.max is None else assertion.max
    return bool(low <= value <= high)


# --- the stage --------------------------------------------------------------------------------------------------------


@recorded("quality")
def run(stage: Stage) -> QualityReport:
    """Profile the current dataset, write `quality.json` and `quality.html` beside it, and check its assertions.

    Raises:
        StageError: an assertion fails, or the dataset cannot be read.
        ContractError: an assertion names a measure that there is not.
    """
    manifest = stage.dataset()
    folder = stage.state.datasets / manifest.digest
    columns = ["filename", "label", "kind", "sha256", "phash", "dhash", "split", *Measures.model_fields]
    rows = read_rows(folder, manifest, columns)
    report = profile(rows, manifest, stage.project.quality)
    page, figures = folder / "quality.html", folder / "quality.json"
    inputs = quality_page.fingerprint(report, manifest, stage.project)
    if figures.exists() and page.exists() and inputs in page.read_text():
        print(f"nothing to do: {page} is of the same dataset and project file")
    else:
        report_progress(0, 1, "drawing the quality report")
        write_atomically(page, quality_page.render(report, manifest, rows, folder, stage.project))
        write_atomically(figures, report.to_json())
        report_progress(1, 1, "quality report")
        print(f"wrote {page}")
    _insist(report, page)
    print(f"all {len(report.findings)} assertions hold for {report.images} images")
    return report


def _insist(report: QualityReport, page: Path) -> None:
    failed = [finding for finding in report.findings if not finding.passed]
    if not failed:
        return
    lines = []
    for finding in failed:
        line = f"  {describe(finding.assertion)}"
        if finding.failing_images:
            named, count = finding.failing_images[:_NAMED_IMAGES], len(finding.failing_images)
            line += f": broken by {count} ({finding.failing_share:.1%}): {', '.join(named)}"
            line += f" … and {count - len(named)} more" if count > len(named) else ""
        lines.append(line)
    raise StageError(
        f"{len(failed)} of {len(report.findings)} assertions about the dataset fail; mend the photographs, or the "
        f"assertions in the project file ({page} shows them):\n" + "\n".join(lines)
    )


def main() -> None:
    """Run the checks as a program."""
    run(open_stage(arguments("Profile the dataset and check its assertions.").parse_args()))


if __name__ == "__main__":
    run_main(main)
