"""Where replicas are asked; that they are is tested with those of test_observe.py and test_reconcile.py."""

from typing import Any

import httpx
import pytest

from gitops.contracts.serving import ServedModel, UserConfig
from gitops.replicas import address_of, ask_replicas
from gitops.serve_api import ServeDetails
from tests.gitops.test_health import running


def user_config() -> UserConfig:
    return UserConfig.of(ServedModel(name="screw", version="1", uri="file:///b", sha256="a" * 64))


@pytest.mark.parametrize(
    ("error", "busy"), [(httpx.ConnectTimeout("no way there"), False), (httpx.ReadTimeout("in a queue"), True)]
)
def test_who_does_not_answer_in_time_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, error: httpx.TimeoutException, *, busy: bool
) -> None:
    asked = []

    def get(url: str, **_: object) -> httpx.Response:
        asked.append(url)
        raise error

    monkeypatch.setattr(httpx, "get", get)
    answers = ask_replicas("http://127.0.0.1:9", user_config(), frozenset({"a", "b"}))
    assert (len(asked), answers.busy) == (1, busy)
    assert str(error) in answers.silence


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
