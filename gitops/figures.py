"""What the reconciler exports beside its own attempts: the environment's state, and what the state folder tells.

Everything is read anew for each scrape, so that it is as true as the files.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry

from gitops.contracts.dataset import DatasetManifest
from gitops.contracts.serving import ModelVersion
from gitops.errors import ContractError, MergelineError
from gitops.stage_record import stage_records
from gitops.state import State, write_atomically
from gitops.status import Journal, Status
from gitops.turn import known_status
from monitoring import metrics
from monitoring.configuration import targets
from monitoring.exporter import ProcessMeters, Sample, Snapshot, exported
from monitoring.metrics import StageOutcome

_DIGITS = 12  # of a digest or commit: as many as people compare


class ExporterError(MergelineError):
    """The metrics cannot be exported."""


def environment_samples(journal: Journal) -> Iterator[Sample]:
    """An environment: its status, what it serves since when, and how that was evaluated."""
    name = journal.environment
    found, _ = known_status(journal)
    for code in metrics.SYNC_STATUS.values["status"]:
        yield Sample(metrics.SYNC_STATUS, float(found.sync.status == code), (name, code))
    for code in metrics.HEALTH_STATUS.values["status"]:
        yield Sample(metrics.HEALTH_STATUS, float(found.health.status == code), (name, code))
    if found.reconciled_at:
        yield Sample(metrics.RECONCILED, found.reconciled_at.timestamp(), (name,))
    last = next(journal.newest_first(), None)
    yield Sample(metrics.DEPLOYMENTS, last.id + 1 if last else 0, (name,))
    if last:
        yield Sample(metrics.SYNC_LAG_SECONDS, _lag_seconds(journal.folder, last.id), (name,))
    yield from _served_samples(journal.state, found)


@lru_cache(maxsize=16)
def _lag_seconds(folder: Path, _last_id: int) -> float:
    """How long after its commit the last deployment came; the history is read whole for it, once a deployment.

    After a self-heal or a restart the same commit is deployed again: its lag is what it was the first time.
    """
    deployed = Journal.at(folder).history()
    first = next(entry for entry in deployed if entry.revision == deployed[-1].revision)
    return (first.deployed_at - first.committed_at).total_seconds()


def _served_samples(state: State, found: Status) -> Iterator[Sample]:
    revision = (found.sync.revision or "")[:_DIGITS]
    for resource in found.resources:
        alone = (resource.wanted, resource.trial and resource.trial.model)
        models = [model for model in (*alone, *(resource.fleet or ())) if model]
        for answer in resource.served:
            said, _, digest = answer.partition("@sha256:")
            version = said.rpartition(" ")[2]  # of a fleet, the name stands before it
            model = next((model for model in models if model.sha256 == digest), None)
            series = (found.environment, resource.name)
            # Of what is no longer wanted nobody here knows the name.
            labels = (*series, model.name if model else "", version, digest[:_DIGITS], revision)
            yield Sample(metrics.SERVED, 1, labels)
            if model:
                with suppress(ContractError):  # a version that cannot be read has no figures
                    yield from _version_samples(state, (*series, model.name, version), state.version_of(model))


def _version_samples(state: State, series: tuple[str, ...], registered: ModelVersion | None) -> Iterator[Sample]:
    if registered is None:
        return
    for metric, value in registered.evaluation.metrics.items():
        yield Sample(metrics.EVALUATION, value, (*series, metric))
    if dataset := _dataset(state, registered.evaluation.dataset):
        for split, counts in dataset.counts.items():
            yield Sample(metrics.SERVED_DATASET_IMAGES, sum(counts.values()), (*series, split))


def line_samples(state: State) -> Iterator[Sample]:
    """The line: how the stages' runs went, and the newest datasets."""
    for record in stage_records(state):
        series = (record.project, record.stage)
        for outcome in StageOutcome:
            yield Sample(metrics.STAGE_RUNS, record.outcomes.get(outcome, 0), (*series, outcome))
        if record.seconds is not None:
            yield Sample(metrics.STAGE_SECONDS, record.seconds, series)
        yield Sample(metrics.STAGE_RUNNING, float(record.running), series)
        yield Sample(metrics.STAGE_PROGRESS, record.progress_at.timestamp(), series)
    for pointer in sorted(state.datasets.glob("*.current")):
        if dataset := _dataset(state, pointer.read_text().strip()):
            for split, counts in dataset.counts.items():
                for label, count in counts.items():
                    yield Sample(metrics.DATASET_IMAGES, count, (dataset.project, split, label))
            yield Sample(metrics.DATASET_SET_ASIDE, len(dataset.quarantined), (dataset.project,))


def _dataset(state: State, digest: str) -> DatasetManifest | None:
    try:
        return _read_dataset(state.datasets / digest / "manifest.json")
    except ContractError:  # it is elsewhere, or was removed
        return None


@lru_cache(maxsize=512)
def _read_dataset(file: Path) -> DatasetManifest:
    return DatasetManifest.read(file)  # its digest names it: it never changes


class Exporter:
    """Exports what a reconciler measures and knows.

    Args:
        journal: of its environment.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._registry = CollectorRegistry()
        self._registry.register(Snapshot(lambda: environment_samples(journal)))
        self._registry.register(Snapshot(lambda: line_samples(journal.state)))
        self.meters = ProcessMeters((metrics.SYNC_ATTEMPTS, metrics.SYNC_SECONDS), self._registry)

    @contextmanager
    def listening(self, host: str, port: int) -> Iterator[str]:
        """Answer `GET /metrics` while the block runs, and let Prometheus find it.

        Args:
            host: address to listen on.
            port: 0: any that is free.

        Yields:
            The address.

        Raises:
            ExporterError: the address cannot be had.
        """
        file = self._journal.state.targets / f"reconciler-{self._journal.environment}.json"
        with ExitStack() as stack:
            try:  # what the block raises is no matter of the address
                address = stack.enter_context(exported(self._registry, host, port))
                stack.callback(file.unlink, missing_ok=True)
                write_atomically(file, targets(address, "mergeline"))
            except OSError as error:
                raise ExporterError(
                    f"metrics cannot be exported at {host}:{port}: {error.strerror}; choose another with --metrics"
                ) from error
            yield address
