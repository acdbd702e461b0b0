"""Whatever the API description allows, and much that it does not, is answered as it says, without an error of ours."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gitops.contracts.serving import ServedModel
from serve.assembly import assemble
from serve.endpoints import Endpoints
from serve.feedback import FeedbackFolder
from serve.members import Member, Members
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.serve.conftest import LIMITS, Tally
from tests.serve.site import open_bundle, shadow
from tests.serve.test_fleet import bounded

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 25
"""Requests of each mode for each operation."""


@pytest.fixture
def replica(model: ServedModel, slot: ModelSlot, workers: Workers, tmp_path: Path) -> FastAPI:
    """Serves `model`."""
    asyncio.run(slot.want(model))
    endpoints = Endpoints(slot, LIMITS, workers, Tally(), "a-replica", shadow(Tally()))
    return assemble(endpoints, "screw", journal=None, feedback=FeedbackFolder(tmp_path / "feedback"))


@pytest.fixture
def fleet(model: ServedModel, workers: Workers, tmp_path: Path) -> FastAPI:
    """Serves `model` as the only one of a fleet."""
    from serve.fleet import FleetEndpoints, application

    tally = Tally()

    def make(name: str) -> Member:
        slot = ModelSlot(open_bundle, tmp_path / f"{name}.json", lambda succeeded: None)
        endpoints = Endpoints(slot, LIMITS, workers, tally, "a-replica", shadow(tally))
        feedback = FeedbackFolder(tmp_path / "feedback")
        return Member(slot, endpoints, assemble(endpoints, name, journal=None, feedback=feedback))

    members = Members(make, bounded, lambda *_: None)
    asyncio.run(members.want({model.name: model}))
    return application(FleetEndpoints(members, "a-replica", max_models=2), tally)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("served", ["replica", "fleet"])
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")  # Ray's own models, when first imported
def test_the_api_answers_as_it_says(served: str, mode: GenerationMode, request: pytest.FixtureRequest) -> None:
    description = schemathesis.openapi.from_asgi("/openapi.json", request.getfixturevalue(served))
    operations = [found.ok() for found in description.get_all_operations() if isinstance(found, Ok)]
    if mode is GenerationMode.NEGATIVE:  # a path takes every text; only bodies can be wrong
        operations = [operation for operation in operations if operation.body]
    assert "POST /v2/models/{name}/infer" in [operation.label for operation in operations]
    for operation in operations:
        # The same requests each time: what fails here fails for everybody.
        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS)

        answers()
