"""From what Serve and the replicas say to a health."""

from typing import Any

import pytest

from gitops.contracts.serving import Canary, FleetConfig, ServedModel, UserConfig
from gitops.errors import ContractError
from gitops.health import Slot, assess, serve_message, slot_of
from gitops.serve_api import Application, Deployment
from gitops.status import HealthCode
from gitops.wire import Answers, FleetMetadata, ReplicaMetadata

MODEL = ServedModel(name="screw", version="2", uri="file:///bundle", sha256="2" * 64)
OLD = {"version": "1", "sha256": "1" * 64}
NEW = {"version": "2", "sha256": "2" * 64}
SLOT = Slot(deployment="Classifier", wanted=UserConfig(model=MODEL))


def running(*replicas: str, status: str = "RUNNING", target: int = 2, **changed: Any) -> Application:
    deployment = {
        "name": "Classifier",
        "status": "HEALTHY",
        "target_num_replicas": target,
        "replicas": [{"replica_id": replica, "state": "RUNNING"} for replica in replicas],
    }
    raw = {"name": "screw", "status": status, "deployments": {"Classifier": deployment}, **changed}
    return Application.parse(raw, "a test")


def said(**answers: dict[str, Any]) -> Answers:
    silent = dict.fromkeys(ReplicaMetadata.model_fields)
    return Answers(
        {key: ReplicaMetadata.parse({**silent, "replica": key, **value}, "a test") for key, value in answers.items()}
    )


def verdict(live: Application | None, answers: Answers, slot: Slot | None = SLOT) -> tuple[HealthCode, str]:
    health = assess("screw", live, slot, answers)
    return health.status, health.message


@pytest.mark.parametrize(
    ("live", "answers", "status", "message"),
    [
        (None, said(), "Missing", "screw is not deployed"),
        (running(status="DEPLOYING"), said(), "Progressing", "DEPLOYING"),
        (running(status="DEPLOY_FAILED", message="no such module"), said(), "Degraded", "no such module"),
        (running("a", status="UNHEALTHY"), said(a={**NEW, "wanted": NEW}), "Degraded", "no reason"),
        (running("a", "b"), said(a={**NEW, "wanted": NEW}, b={**NEW, "wanted": NEW}), "Healthy", ""),
        (running("a", "b"), said(a={**NEW, "wanted": NEW}), "Progressing", "1 of 2 replicas"),
        (running("a", "b"), said(a={**NEW, "wanted": NEW}, b={**OLD, "wanted": OLD}), "Progressing", "1 of 2"),
        (running("a"), said(a={**NEW, "wanted": NEW}, gone={**OLD, "wanted": OLD}), "Healthy", ""),
        (running("a"), said(a={**OLD, "wanted": NEW, "load_error": "broken"}), "Degraded", "version 1 goes on"),
        (running("a"), said(a={"wanted": NEW, "load_error": "broken"}), "Degraded", "no version answers"),
        (running("a"), said(a={**OLD, "wanted": OLD, "load_error": "an older one"}), "Progressing", "0 of 1"),
        (running("a"), Answers({}, "connection refused"), "Degraded", "connection refused"),
        (running("a"), Answers({}, "timed out", busy=True), "Progressing", "too busy to say what it serves: timed out"),
        (running("a"), Answers({}, can_be_asked=False), "Healthy", "no HTTP route"),
        (running(target=0), said(), "Healthy", "no running replica"),
        (running(target=1), said(), "Progressing", "no running replica"),
    ],
)
def test_health_of_an_application(live: Application | None, answers: Answers, status: str, message: str) -> None:
    found, text = verdict(live, answers)
    assert found == status
    assert message in text
    assert message or not text


FAILED = "Failed to update the deployments ['Monitor']."


@pytest.mark.parametrize(
    ("status", "monitor", "said_by_serve", "classifier", "found", "message"),
    [
        ("DEPLOY_FAILED", "DEPLOY_FAILED", FAILED, "HEALTHY", "Healthy", f"nothing watches screw for drift: {FAILED}"),
        (
            "UNHEALTHY",
            "UNHEALTHY",
            "The deployments ['Monitor'] are UNHEALTHY.",
            "HEALTHY",
            "Healthy",
            "nothing watches",
        ),
        ("DEPLOYING", "UPDATING", "", "HEALTHY", "Healthy", "nothing watches"),
        ("DEPLOYING", "HEALTHY", "", "UPDATING", "Progressing", "DEPLOYING"),
        ("DEPLOYING", "HEALTHY", "", "HEALTHY", "Progressing", "DEPLOYING"),
        ("DEPLOY_FAILED", "UNHEALTHY", "Deploying app 'screw' failed", "HEALTHY", "Degraded", "Deploying app"),
        ("UNHEALTHY", "UNHEALTHY", "['Classifier', 'Monitor'] are UNHEALTHY.", "UNHEALTHY", "Degraded", "Classifier"),
        ("UNHEALTHY", "UNHEALTHY", "The deployments ['Monitor'] are UNHEALTHY.", "UPSCALING", "Healthy", "nothing"),
        ("DEPLOY_FAILED", "DEPLOY_FAILED", FAILED, "UPDATING", "Progressing", "DEPLOYING"),
        ("RUNNING", "HEALTHY", "", "HEALTHY", "Healthy", ""),
    ],
)
def test_a_monitor_that_ails_degrades_nothing(
    status: str, monitor: str, said_by_serve: str, classifier: str, found: str, message: str
) -> None:
    live = running("a", status=status, message=said_by_serve)
    live.deployments["Classifier"] = live.deployments["Classifier"].model_copy(update={"status": classifier})
    live.deployments["Monitor"] = Deployment(name="Monitor", status=monitor)
    verdict_found, text = verdict(live, said(a={**NEW, "wanted": NEW}))
    assert verdict_found == found
    assert message in text
    assert message or not text


TRIED = {"kind": "canary", "percent": 10, "version": "3", "sha256": "3" * 64, "loaded": True, "load_error": None}
LOADING = TRIED | {"loaded": False}
REFUSED = LOADING | {"load_error": "no store"}
SHADOWED = TRIED | {"kind": "shadow", "percent": None}


@pytest.mark.parametrize(
    ("trials", "status", "message"),
    [
        ([TRIED, TRIED], "Healthy", ""),
        ([TRIED, None], "Progressing", "1 of 2 replicas serve screw version 2 with a canary of version 3 (10 %)"),
        ([TRIED, LOADING], "Progressing", "1 of 2 replicas"),
        ([TRIED, TRIED | {"percent": 25}], "Progressing", "1 of 2 replicas"),
        ([TRIED, SHADOWED], "Progressing", "1 of 2 replicas"),
        (
            [TRIED, REFUSED],
            "Degraded",
            "wanted is a canary of version 3 (10 %), but version 2 answers alone: no store (1 of 2 replicas say so)",
        ),
        ([TRIED, REFUSED | {"version": "4"}], "Progressing", "1 of 2 replicas"),
    ],
)
def test_a_candidate_must_judge_in_every_replica(
    trials: list[dict[str, Any] | None], status: str, message: str
) -> None:
    candidate = ServedModel(name="screw", version="3", uri="file:///candidate", sha256="3" * 64)
    slot = Slot(deployment="Classifier", wanted=UserConfig(model=MODEL, canary=Canary(percent=10, model=candidate)))
    a, b = ({**NEW, "wanted": NEW, "trial": trial} for trial in trials)
    found, text = verdict(running("a", "b"), said(a=a, b=b), slot)
    assert found == status
    assert message in text
    assert message or not text


def test_a_candidate_that_still_judges_after_its_end_is_seen() -> None:
    answers = said(a={**NEW, "wanted": NEW, "trial": TRIED}, b={**NEW, "wanted": NEW})
    assert verdict(running("a", "b"), answers) == ("Progressing", "1 of 2 replicas serve screw version 2")


def test_an_application_without_a_model_is_missing_one() -> None:
    assert verdict(running("a"), said(), Slot(deployment="Classifier", wanted=UserConfig())) == (
        "Missing",
        "nothing promoted yet",
    )
    assert verdict(running("a"), said(), None) == ("Healthy", "")


def test_where_the_model_stands_in_a_configuration() -> None:
    def config(user_config: object) -> dict[str, Any]:
        return {"name": "screw", "deployments": [{"name": "Other"}, {"name": "Classifier", "user_config": user_config}]}

    assert slot_of(config({"model": MODEL.model_dump()})) == SLOT
    assert slot_of(config({"model": None})) == Slot(deployment="Classifier", wanted=UserConfig())
    assert slot_of(config({})) is None
    assert slot_of({"name": "screw"}) is None
    with pytest.raises(ContractError, match="the cluster: the user_config of application screw"):
        slot_of(config({"model": {"name": "screw"}}))


def held(served: object = None, wanted: object = NEW, load_error: str | None = None) -> dict[str, Any]:
    return {"wanted": wanted, "served": served, "load_error": load_error}


@pytest.mark.parametrize(
    ("models", "status", "message"),
    [
        ({"screw": held(), "nut": held()}, "Healthy", ""),
        ({"screw": held(NEW), "nut": held()}, "Healthy", ""),
        ({"screw": held(NEW)}, "Progressing", "0 of 1 replicas serve a fleet of 2 models"),
        ({"screw": held(OLD, OLD), "nut": held()}, "Progressing", "0 of 1"),
        ({"screw": held(OLD), "nut": held()}, "Progressing", "0 of 1"),
        ({"screw": held(OLD, NEW, "broken"), "nut": held()}, "Degraded", "screw version 2, but version 1 goes on"),
        ({"screw": held(), "nut": held(None, NEW, "broken")}, "Degraded", "nut version 2, but no version answers: bro"),
        ({"screw": held(), "nut": held(None, OLD, "an older one")}, "Progressing", "0 of 1"),
    ],
)
def test_a_fleet_is_healthy_where_it_is_known_and_nothing_in_it_failed(
    models: dict[str, Any], status: str, message: str
) -> None:
    wanted = FleetConfig(models={"screw": MODEL, "nut": MODEL.model_copy(update={"name": "nut"})})
    fleet = {"replica": "a", "max_models": 8, "models": models, "load_error": None}
    answers = Answers({"a": FleetMetadata.parse(fleet, "a test")})
    found, text = verdict(running("a"), answers, Slot(deployment="Classifier", wanted=wanted))
    assert found == status
    assert message in text
    assert message or not text


def test_a_fleet_without_models_is_missing_them_and_a_refused_configuration_is_said() -> None:
    empty = Slot(deployment="Classifier", wanted=FleetConfig())
    assert verdict(running("a"), said(), empty) == ("Missing", "nothing promoted yet")
    answers = Answers({"a": FleetMetadata(replica="a", max_models=8, models={}, load_error="no such key")})
    slot = Slot(deployment="Classifier", wanted=FleetConfig(models={"screw": MODEL}))
    assert verdict(running("a"), answers, slot)[0] == "Degraded"


def test_a_traceback_is_told_by_its_last_line() -> None:
    trace = (
        'Deploying failed:\n\x1b[36mTraceback (most recent call last):\n  File "a.py", line 1\nRuntimeError: no room\n'
    )
    assert serve_message(running("a", message=trace)) == "Deploying failed: RuntimeError: no room"
    inner = f"A replica failed. Error:\nray::ServeReplica()\n  File 'replica.py', line 1\nRuntimeError: {trace[17:]}"
    assert serve_message(running("a", message=inner)) == "A replica failed. Error: RuntimeError: no room"
    assert len(serve_message(running("a", message="long " * 1000))) < 700


def test_why_a_replica_does_not_start_is_told_while_another_one_does() -> None:
    trace = "A replica failed. Error:\nTraceback (most recent call last):\n  File 'a.py'\nBundleError: it is cut short"
    assert verdict(running(status="DEPLOYING", message=trace), said()) == (
        "Progressing",
        "screw is DEPLOYING: A replica failed. Error: BundleError: it is cut short",
    )
