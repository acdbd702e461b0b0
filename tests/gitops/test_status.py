"""The status file and the history in Argo CD's words."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gitops.errors import ContractError
from gitops.state import State, write_atomically
from gitops.status import Deployed, Health, Journal, Status, Sync, worst

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def deployed(number: int) -> Deployed:
    return Deployed(
        id=number,
        revision="a" * 40,
        deploy_started_at=NOON,
        deployed_at=NOON,
        committed_at=NOON,
        author="Ada <ada@example.com>",
        subject="Promote screw 2",
        applications=("screw",),
        models={"screw": None},
    )


def test_the_latest_are_read_without_the_others(tmp_path: Path) -> None:
    journal = Journal(State.at(tmp_path), "local")
    file = tmp_path / "reconciler" / "local" / "history.jsonl"
    write_atomically(file, '{"of": "another program"}\n')
    for number in range(3):
        journal.append(deployed(number))
    assert [entry.id for entry in journal.latest(2)] == [1, 2]
    with pytest.raises(ContractError, match=r"history\.jsonl"):
        journal.history()


def test_before_the_first_look_all_is_unknown(tmp_path: Path) -> None:
    journal = Journal(State.at(tmp_path), "local")
    found = journal.status()
    assert (found.sync.status, found.health.status, found.operation_state) == ("Unknown", "Unknown", None)
    assert (journal.history(), journal.latest(3)) == ([], ())
    assert not (tmp_path / "reconciler").exists()


def test_what_is_written_is_read_and_has_the_keys_of_argo_cd(tmp_path: Path) -> None:
    journal = Journal(State.at(tmp_path), "local")
    written = journal.write(Status(environment="local", sync=Sync(status="Synced", revision="a"), reconciled_at=NOON))
    assert journal.status() == written
    words = json.loads((tmp_path / "reconciler" / "local" / "status.json").read_text())
    assert words["sync"] == {"status": "Synced", "revision": "a"}
    assert {"operationState", "reconciledAt", "health", "conditions", "resources", "history"} <= words.keys()


def test_history_grows_and_the_status_shows_its_end(tmp_path: Path) -> None:
    journal = Journal(State.at(tmp_path), "local")
    for number in range(12):
        journal.append(deployed(number))
    assert [entry.id for entry in journal.history()] == list(range(12))
    assert [entry.id for entry in journal.write(Status(environment="local")).history] == list(range(2, 12))


@pytest.mark.parametrize("cut", ['{"id": 1, "revi', '{"id": 1, "models": {"screw": null}'])
def test_a_line_that_a_crash_cut_off_harms_no_other(tmp_path: Path, cut: str) -> None:
    journal = Journal(State.at(tmp_path), "local")
    journal.append(deployed(0))
    file = tmp_path / "reconciler" / "local" / "history.jsonl"
    file.write_text(file.read_text() + cut)
    assert [entry.id for entry in journal.history()] == [0]
    journal.append(deployed(1))
    assert [entry.id for entry in journal.history()] == [0, 1]


def test_the_worst_health_is_that_of_all() -> None:
    healths = [Health(status="Healthy"), Health(status="Degraded", message="broken"), Health(status="Missing")]
    assert worst(healths) == healths[1]
    assert worst([]) == Health(status="Healthy")
