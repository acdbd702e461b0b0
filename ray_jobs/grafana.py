"""Publishes the dashboards to a Grafana: `mergeline monitor publish`.

It can be repeated: what is there as it shall be is left alone, and what it once put there and no longer has is removed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from gitops.errors import MergelineError

FOLDER = {"uid": "mergeline", "title": "Mergeline"}
DATA_SOURCE = "mergeline-prometheus"
"""Uid of the data source."""
TOKEN_VARIABLE = "GRAFANA_TOKEN"  # noqa: S105 - the name of a variable
_TIMEOUT_SECONDS = 30.0
_GIVEN_BY_GRAFANA = ("id", "version")


class PublishError(MergelineError):
    """A Grafana did not take what was published."""


def publish(url: str, token: str, prometheus: str) -> list[str]:
    """Put the folder, the data source and the dashboards into a Grafana.

    Args:
        url: Grafana's, as https://grafana.example.com.
        token: of a service account that may edit folders, dashboards and data sources.
        prometheus: URL of Prometheus, as Grafana reaches it.

    Returns:
        What was done, a line each.

    Raises:
        PublishError: it cannot be reached, or refuses.
    """
    if not token:
        raise PublishError(
            f"set {TOKEN_VARIABLE} to the token of a service account of {url} with the role Admin: data sources need it"
        )
    if not url.startswith(("http://", "https://")):
        raise PublishError(f"{url} is no address of a Grafana: write https://grafana.example.com")
    try:
        with httpx.Client(
            base_url=f"{url.rstrip('/')}/api",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=True,
        ) as client:
            api = _Api(client)
            return [*_folder(api), *_data_source(api, prometheus), *_dashboards(api)]
    except httpx.HTTPStatusError as error:
        raise PublishError(f"Grafana at {url} refused: {_reason(error.response)}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise PublishError(f"Grafana at {url} cannot be reached: {error}") from error


# Not grafana-client: its HTTP library (seen with 4.3 and 5.1) installs urllib3-future, which takes the place of urllib3
# for every program of the environment. These few calls need no library of their own.
@dataclass(frozen=True)
class _Api:
    """Grafana's HTTP API; each call is one request."""

    client: httpx.Client

    def find(self, path: str) -> Any:
        """What is there; None: there is no such thing."""
        response = self.client.get(path)
        return None if response.status_code == httpx.codes.NOT_FOUND else self._said(response)

    def search(self, **asked: str) -> list[dict[str, Any]]:
        """Dashboards, by their tags and folders."""
        found: list[dict[str, Any]] = self._said(self.client.get("/search", params={"type": "dash-db", **asked}))
        return found

    def send(self, method: str, path: str, body: Any = None) -> None:
        """Change something."""
        self._said(self.client.request(method, path, json=body))

    def _said(self, response: httpx.Response) -> Any:
        return response.raise_for_status().json()


def _reason(response: httpx.Response) -> str:
    try:
        return f"{response.status_code} {response.json()['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"


def _folder(api: _Api) -> Iterator[str]:
    if api.find(f"/folders/{FOLDER['uid']}") is None:
        api.send("POST", "/folders", FOLDER)
        yield f"folder {FOLDER['title']}: made"


def _data_source(api: _Api, prometheus: str) -> Iterator[str]:
    wanted = {
        "uid": DATA_SOURCE,
        "name": "Mergeline Prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus,
    }
    there = api.find(f"/datasources/uid/{DATA_SOURCE}")
    if there is None:
        api.send("POST", "/datasources", wanted)
        yield f"data source {prometheus}: made"
    elif {key: there.get(key) for key in wanted} != wanted:
        api.send("PUT", f"/datasources/uid/{DATA_SOURCE}", {**there, **wanted})
        yield f"data source {prometheus}: changed"


def _dashboards(api: _Api) -> Iterator[str]:
    from monitoring.dashboards import TAG, dashboards

    ours = {dashboard.uid: json.loads(dashboard.json) for dashboard in dashboards()}
    for uid, wanted in ours.items():
        there = api.find(f"/dashboards/uid/{uid}")
        if there and there["meta"].get("folderUid") == FOLDER["uid"] and _same(there["dashboard"], wanted):
            yield f"dashboard {wanted['title']}: as it was"
            continue
        api.send("POST", "/dashboards/db", {"dashboard": wanted, "folderUid": FOLDER["uid"], "overwrite": True})
        yield f"dashboard {wanted['title']}: {'changed' if there else 'made'}"
    for entry in api.search(tag=TAG, folderUIDs=FOLDER["uid"]):
        # Somebody's own dashboard may lie in the folder, or be a copy with our tag.
        if entry["uid"].startswith(f"{TAG}-") and entry["uid"] not in ours:
            api.send("DELETE", f"/dashboards/uid/{entry['uid']}")
            yield f"dashboard {entry['title']}: removed"


def _same(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return {key: value for key, value in there.items() if key not in _GIVEN_BY_GRAFANA} == {
        key: value for key, value in wanted.items() if key not in _GIVEN_BY_GRAFANA
    }
