"""Where replicas are asked; that they are is tested with those of test_observe.py and test_reconcile.py."""

from typing import Any

import pytest

from gitops.replicas import address_of
from gitops.serve_api import ServeDetails
from tests.gitops.test_health import running


@pytest.mark.parametrize(
    ("http", "route", "url"),
    [
        ({"host": "127.0.0.1", "port": 81}, "/", "http://127.0.0.1:81"),
        ({"host": "0.0.0.0", "port": 81}, "/screw", "http://cluster:81/screw"),
        ({"host": "::1", "port": 81}, "/", "http://[::1]:81"),
        ({"host": "127.0.0.1", "port": 81}, None, None),
        (None, "/", None),
    ],
)
def test_address(http: dict[str, Any] | None, route: str | None, url: str | None) -> None:
    details = ServeDetails.parse({"http_options": http}, "a test")
    assert address_of(details, running("a", route_prefix=route), "http://cluster:8265") == url
