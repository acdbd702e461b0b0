"""Hands photographs out to be labelled: a Label Studio import file, those first that the model is least sure of."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import Field

from gitops import bundle
from gitops.contracts.base import Contract
from gitops.contracts.dataset import Quarantined
from gitops.contracts.serving import ModelVersion
from gitops.errors import DataError
from gitops.state import usable_cores, write_atomically
from ray_jobs.dataset import Found, source_folder, survey, waiting
from ray_jobs.stage import Stage
from ray_jobs.window_photographs import take_out
from serve.photographs import images_below
from serve.predictor import GOOD, Judgement, Predictor
from serve.preprocess import ImageError

# Photographs that are in memory at once in each thread.
_BATCH = 8
# Probabilities are 32-bit floats: nearer to 0 or 1 than this they tell nothing apart.
_LEAST = 1e-7


class Exported(Contract):
    """What an export wrote."""

    file: str = Field(description="The file; if there are no tasks, it was not written.")
    source: str = Field(description="Where the project's photographs come from.")
    model: str = Field(description="The model's name and version, which judged them.")
    tasks: int = Field(description="Photographs in the file.")
    left: int = Field(default=0, description="Photographs that the limit left out.")
    refused: tuple[Quarantined, ...] = Field(default=(), description="Photographs that cannot be judged, and why.")

    def text(self) -> str:
        """The report in lines for a person."""
        lines = [f"{self.file}: {self.tasks} photographs of {self.source} to label, as {self.model} judges them"]
        if not self.tasks:
            lines = [
                f"nothing to label in {self.source}: give further photographs with --images or --windows, or --all"
            ]
        if self.left:
            lines.append(f"  left out by --limit: {self.left}, of which it is surer")
        lines += [f"  cannot be judged: {item.filename}: {item.reason}" for item in self.refused]
        return "\n".join(lines)


@dataclass(frozen=True)
class _JudgedPhotograph:
    found: Found
    judgement: Judgement


def export_tasks(
    stage: Stage,
    version: ModelVersion,
    file: Path,
    *,
    data: str | None = None,
    images: Path | None = None,
    windows: Path | None = None,
    labelled: bool = False,
    limit: int | None = None,
    root: Path = Path("/"),
) -> Exported:
    """Write Label Studio tasks with the model's predictions, those first that it is least sure of (`margin`).

    Args:
        stage: project and state.
        version: whose bundle judges.
        file: the file to write, whole or not at all.
        data: `rendered`, `kaggle` or a folder; None for the source that was extracted last.
        images: a folder of further photographs; those that the source has as well are left out.
        windows: folder of an environment's windows; the photographs that they kept are labelled as well.
        labelled: photographs that have a usable label as well, not only those without.
        limit: most tasks.
        root: Label Studio's LOCAL_FILES_DOCUMENT_ROOT, below which it must find the photographs.

    Raises:
        DataError: there is no such folder, or a photograph does not lie below `root`.
        BundleError: the version's bundle cannot be loaded.
    """
    folder, source = source_folder(stage, data)
    model = str(version.model)
    further = _further(images)
    if windows is not None:
        take_out(stage, windows.expanduser().resolve())
        further += waiting(stage)
    wanted = _wanted(survey(stage, folder), further, labelled=labelled)
    if not wanted:
        return Exported(file=str(file), source=source, model=model, tasks=0)
    fetched = bundle.fetch(version.model.uri, version.model.sha256, stage.state.bundles)
    threads = usable_cores()
    judged, refused = _judge(Predictor.load(fetched, threads=threads), wanted, threads)
    judged.sort(key=lambda item: (margin(item.judgement), item.found.filename))
    chosen = judged[:limit]
    tasks = [_task(item, model, root) for item in chosen]
    if tasks:
        write_atomically(file, json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")
    return Exported(
        file=str(file),
        source=source,
        model=model,
        tasks=len(tasks),
        left=len(judged) - len(chosen),
        refused=refused,
    )


def margin(judgement: Judgement) -> float:
    """How far a judgement is from being another one, in log-odds; 0 is on the border.

    That is |logit(score) − logit(threshold)|. Where there are several classes that are not good, and the judgement is
    one of them, it may also be near to the next of them: then the smaller of that and log(p₁ / p₂).
    """
    far = abs(_log_odds(judgement.score) - _log_odds(judgement.threshold))
    names = list(judgement.probabilities)
    others = sorted((judgement.probabilities[name] for name in names[GOOD + 1 :]), reverse=True)
    if judgement.label == names[GOOD] or len(others) < 2:
        return far
    first, second = (max(value, _LEAST) for value in others[:2])
    return min(far, math.log(first / second))


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(bounded / (1 - bounded))


def _further(images: Path | None) -> list[Found]:
    """The photographs of a folder besides the source, without labels."""
    if images is None:
        return []
    folder = images.expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist: correct --images")
    return [Found.unlabelled(name, path) for name, path in images_below(folder).items()]


def _wanted(source: list[Found], further: list[Found], *, labelled: bool) -> list[Found]:
    """What is to be labelled: every content once, and none of the further ones that the source has."""
    known = {item.sha256 for item in source}
    pool = [item for item in source if labelled or item.label is None]
    pool += [item for item in further if item.sha256 not in known]
    unique = {item.sha256: item for item in reversed(pool) if item.path is not None and item.sha256 is not None}
    return list(unique.values())


def _judge(
    predictor: Predictor, photographs: list[Found], threads: int
) -> tuple[list[_JudgedPhotograph], tuple[Quarantined, ...]]:
    batches = [photographs[start : start + _BATCH] for start in range(0, len(photographs), _BATCH)]

    def judge(batch: list[Found]) -> list[Judgement | ImageError]:
        return predictor.judge([Path(str(item.path)).read_bytes() for item in batch])

    judged, refused = [], []
    with ThreadPoolExecutor(threads) as pool:
        for batch, answers in zip(batches, pool.map(judge, batches), strict=True):
            for found, answer in zip(batch, answers, strict=True):
                if isinstance(answer, ImageError):
                    refused.append(Quarantined(filename=found.filename, reason=str(answer)))
                else:
                    judged.append(_JudgedPhotograph(found, answer))
    return judged, tuple(refused)


def _task(item: _JudgedPhotograph, model: str, root: Path) -> dict[str, Any]:
    """A task as Label Studio imports it; what stands under `data` comes back in its exports."""
    path, judgement = Path(str(item.found.path)), item.judgement
    top = root.expanduser().resolve()
    if not path.is_relative_to(top):
        raise DataError(f"{path} does not lie below {top}: give --root a folder that holds all photographs")
    result = {
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [judgement.label]},
    }
    return {
        "data": {
            "image": f"/data/local-files/?d={quote(path.relative_to(top).as_posix())}",
            "filename": item.found.filename,
            "sha256": item.found.sha256,
            "label": item.found.label,
            "score": judgement.score,
            "threshold": judgement.threshold,
            "margin": margin(judgement),
        },
        "predictions": [{"model_version": model, "score": judgement.score, "result": [result]}],
    }
