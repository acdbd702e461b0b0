"""What is served, as people read it: with the reconciler's journal and without."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from gitops import promotion
from gitops.contracts.serving import Canary, ServedModel
from gitops.errors import ContractError
from gitops.state import State, write_atomically
from gitops.status import Health, Journal, Status, Sync, now
from gitops.turn import Turn
from serve.served import ServedAnswer
from tests.bundles import THRESHOLD, put_bundle
from tests.gitops.deployments import make_version
from tests.serve.site import deployed, site


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State.at(tmp_path / "state")
    state.root.mkdir()
    return state


@pytest.fixture
def model(state: State) -> ServedModel:
    digest = put_bundle(state, version_salt=0.0)
    return ServedModel(name="screw", version="2", sha256=digest, uri=(state.bundles / digest).as_uri())


def ask(url: str) -> ServedAnswer:
    return ServedAnswer.parse(httpx.get(f"{url}/served").json(), "the answer")


def test_a_replica_alone_knows_its_model(model: ServedModel, tmp_path: Path) -> None:
    with site(model, tmp_path) as url:
        answer = ask(url)
        assert answer.model
        assert (answer.model.name, answer.model.version, answer.model.sha256) == ("screw", "2", model.sha256)
        assert (answer.model.threshold, answer.model.threshold_method) == (THRESHOLD, "the middle")
        assert (answer.model.classes, answer.model.input) == (("good", "defective"), (32, 64, 1))
        assert (answer.feedback, answer.report, answer.environment, answer.evaluation) == (False, False, None, None)
        assert httpx.get(f"{url}/served/evaluation/{model.sha256}").status_code == 404


def test_with_the_journal_it_knows_commit_health_history_and_evaluation(
    model: ServedModel, state: State, tmp_path: Path
) -> None:
    journal = Journal.at(state.reconciler / "local")
    older = model.model_copy(update={"version": "1", "sha256": "1" * 64})
    for number, served in ((1, None), (2, model), (3, older), (4, model), (5, model)):
        journal.append(deployed(number, served))
    journal.write(
        Status(
            environment="local",
            sync=Sync(status="Synced", revision="5" * 40),
            health=Health(status="Healthy"),
            reconciled_at=now(),
        )
    )
    registered = make_version(tmp_path, "2")
    report = registered.evaluation.model_copy(update={"bundle": model.sha256})
    registered = registered.model_copy(update={"model": model, "evaluation": report})
    write_atomically(state.models / "screw/2.yaml", promotion.to_yaml(registered))
    write_atomically(state.runs / "a/evaluation.json", report.to_json())
    write_atomically(state.runs / "a/evaluation/report.html", "<title>the report</title>")
    with site(model, tmp_path, journal=journal) as url:
        answer = ask(url)
        assert answer.model
        assert answer.model.since == datetime(2026, 5, 4, tzinfo=UTC)  # not 2: version 1 came between
        assert answer.evaluation == report
        assert answer.environment
        assert (answer.environment.sync, answer.environment.health, answer.environment.watched) == (
            "Unknown",
            "Unknown",
            False,
        )
        assert "it was Synced and Healthy" in answer.environment.message
        assert [entry.version for entry in answer.environment.history] == ["2", "2", "1", "2", None]
        assert [entry.report for entry in answer.environment.history] == [True, True, False, True, False]
        assert {entry.author for entry in answer.environment.history} == {"Ada"}
        with Turn(journal.folder).taken():
            environment = ask(url).environment
            assert environment
            assert (environment.sync, environment.health, environment.revision) == ("Synced", "Healthy", "5" * 40)
        page = httpx.get(f"{url}/served/evaluation/{model.sha256}")
        assert page.text == "<title>the report</title>"
        assert "sandbox" in page.headers["content-security-policy"]
        (journal.folder / "status.json").write_text("{")
        assert "status.json is not JSON" in str(ask(url).environment_error)


def test_what_is_tried_beside_it_is_said_with_its_history(model: ServedModel, state: State, tmp_path: Path) -> None:
    digest = put_bundle(state, version_salt=0.5)
    candidate = ServedModel(name="screw", version="3", sha256=digest, uri=(state.bundles / digest).as_uri())
    journal, canary = Journal.at(state.reconciler / "local"), Canary(percent=10, model=candidate)
    journal.append(deployed(1, model))
    journal.append(deployed(2, model, canary))
    with site(model, tmp_path, trial=canary, journal=journal) as url:
        answer = ask(url)
    assert answer.trial
    assert (answer.trial.kind, answer.trial.percent, answer.trial.version) == ("canary", 10, "3")
    assert answer.trial.loaded
    assert answer.model
    assert answer.model.since == datetime(2026, 5, 1, tzinfo=UTC), "a trial beside it does not make the model a new one"
    assert answer.environment
    assert [entry.trial for entry in answer.environment.history] == ["canary of version 3 (10 %)", None]


def test_a_journal_that_is_not_there_is_said(model: ServedModel, state: State, tmp_path: Path) -> None:
    with site(model, tmp_path, journal=Journal.at(state.reconciler / "local")) as url:
        answer = ask(url)
        assert answer.environment is None
        assert "there is no folder" in str(answer.environment_error)
        assert "reconciler/local: args.journal names it" in str(answer.environment_error)


def test_a_long_history_costs_no_more_than_a_short_one(
    model: ServedModel, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.at(state.reconciler / "local")
    for _ in range(60):
        journal.append(deployed(1, model))
    journal.append(deployed(2, model))
    looked = 0
    pages = State.evaluation_pages

    def look(state: State) -> dict[str, Path]:
        nonlocal looked
        looked += 1
        return pages(state)

    monkeypatch.setattr(State, "evaluation_pages", look)
    with site(model, tmp_path, journal=journal) as url:
        answer = ask(url)
    assert answer.environment
    assert answer.model
    assert len(answer.environment.history) == 50
    assert answer.environment.history[0].at == datetime(2026, 5, 2, tzinfo=UTC)
    assert answer.model.since == datetime(2026, 5, 1, tzinfo=UTC)
    assert looked == 1


def test_a_journal_is_known_by_where_it_lies(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="<state folder>/reconciler/<environment>"):
        Journal.at(tmp_path / "elsewhere/local")
