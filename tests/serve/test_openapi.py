"""Whatever the API description allows, and much that it does not, is answered as it says, without an error of ours."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gitops.manifest import ServedModel
from serve.assembly import assemble
from serve.endpoints import Endpoints
from serve.feedback import FeedbackFolder
from serve.slot import ModelSlot
from tests.serve.conftest import LIMITS, Tally
from tests.serve.site import shadow

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 25
"""Requests of each mode for each operation."""


@pytest.fixture
def description(model: ServedModel, slot: ModelSlot, pool: ThreadPoolExecutor, tmp_path: Path) -> BaseSchema:
    """The description of a replica that serves `model`, over the replica itself."""
    asyncio.run(slot.want(model))
    endpoints = Endpoints(slot, LIMITS, pool, Tally(), "a-replica", shadow(Tally()))
    app = assemble(endpoints, "screw", journal=None, feedback=FeedbackFolder(tmp_path / "feedback"))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_api_answers_as_it_says(description: BaseSchema, mode: GenerationMode) -> None:
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
