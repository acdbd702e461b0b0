"""What replicas say is read by another release too: a further key is passed over, wherever it stands."""

from typing import Any

import pytest

from gitops.errors import ContractError
from gitops.wire import FleetMetadata, ReplicaMetadata

BUNDLE = {"version": "2", "sha256": "2" * 64}
TRIAL = {"kind": "shadow", "percent": None, **BUNDLE, "loaded": False, "load_error": None}
REPLICA = {**BUNDLE, "wanted": BUNDLE, "load_error": None, "trial": TRIAL, "replica": "a"}
MEMBER = {"wanted": BUNDLE, "served": None, "load_error": None}
FLEET = {"replica": "a", "max_models": 8, "models": {"screw": MEMBER}, "load_error": None}
LATER = {"later": 1}


@pytest.mark.parametrize(
    ("kind", "said", "newer"),
    [
        (ReplicaMetadata, REPLICA, REPLICA | {"wanted": BUNDLE | LATER, "trial": TRIAL | LATER} | LATER),
        (FleetMetadata, FLEET, FLEET | {"models": {"screw": MEMBER | {"wanted": BUNDLE | LATER} | LATER}} | LATER),
    ],
)
def test_further_keys_are_passed_over_where_that_is_asked_for(
    kind: type[ReplicaMetadata | FleetMetadata], said: dict[str, Any], newer: dict[str, Any]
) -> None:
    assert kind.parse(newer, "a test", extra="ignore").model_dump(mode="json") == said
    with pytest.raises(ContractError, match="later: unknown key"):
        kind.parse(newer, "a test")
    with pytest.raises(ContractError, match="load_error: Field required"):
        kind.parse({key: value for key, value in said.items() if key != "load_error"}, "a test", extra="ignore")


@pytest.mark.parametrize(
    ("changed", "versions"),
    [
        ({"trial": None}, ["1"]),
        ({"trial": {**TRIAL, "kind": "canary", "percent": 10, "loaded": True}}, ["1", "2"]),
        ({"trial": {**TRIAL, "kind": "canary", "percent": 10}}, ["1"]),
        ({"trial": {**TRIAL, "loaded": True}}, ["1"]),  # a shadow answers nobody
        ({"trial": {**TRIAL, "kind": "canary", "percent": 10, "loaded": True}, "version": None, "sha256": None}, []),
    ],
)
def test_a_replica_answers_with_the_model_and_with_a_canary(changed: dict[str, Any], versions: list[str]) -> None:
    said = ReplicaMetadata.parse({**REPLICA, "version": "1", "sha256": "1" * 64, **changed}, "a test")
    assert [answer.partition("@")[0] for answer in said.in_memory] == versions
