"""Publishes the dashboards to a Grafana: `mergeline monitor publish`.

It can be repeated: what is there as it shall be is left alone, and what it once put there and no longer has is removed.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from gitops.errors import MergelineError

if TYPE_CHECKING:
    from grafana_client.api import GrafanaApi

FOLDER = {"uid": "mergeline", "title": "Mergeline"}
DATA_SOURCE = "mergeline-prometheus"
"""Uid of the data source."""
TOKEN_VARIABLE = "GRAFANA_TOKEN"  # noqa: S105 - the name of a variable
_TIMEOUT_SECONDS = 30.0
_NOT_FOUND = 404
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
    try:
        from grafana_client.api import GrafanaApi
        from grafana_client.client import GrafanaException
        from niquests.exceptions import RequestException
    except ImportError as error:
        raise PublishError(
            f"{error.name} is not installed: install mergeline[grafana], or run `make install`"
        ) from None
    if not token:
        raise PublishError(
            f"set {TOKEN_VARIABLE} to the token of a service account of {url} with the role Admin: data sources need it"
        )
    if not url.startswith(("http://", "https://")):
        raise PublishError(f"{url} is no address of a Grafana: write https://grafana.example.com")
    try:
        # Without the slash at its end, a path like /grafana would run into the client's own.
        api = GrafanaApi.from_url(f"{url.rstrip('/')}/", credential=token, timeout=_TIMEOUT_SECONDS)
        return [*_folder(api), *_data_source(api, prometheus), *_dashboards(api)]
    except GrafanaException as error:
        raise PublishError(f"Grafana at {url} refused: {error.message}") from error
    except (RequestException, OSError) as error:
        raise PublishError(f"Grafana at {url} cannot be reached: {error}") from error


def _folder(api: "GrafanaApi") -> Iterator[str]:
    if _found(lambda: api.folder.get_folder(FOLDER["uid"])) is None:
        api.folder.create_folder(FOLDER["title"], uid=FOLDER["uid"])
        yield f"folder {FOLDER['title']}: made"


def _data_source(api: "GrafanaApi", prometheus: str) -> Iterator[str]:
    wanted = {
        "uid": DATA_SOURCE,
        "name": "Mergeline Prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus,
    }
    there = _found(lambda: api.datasource.get_datasource_by_uid(DATA_SOURCE))
    if there is None:
        api.datasource.create_datasource(wanted)
        yield f"data source {prometheus}: made"
    elif {key: there.get(key) for key in wanted} != wanted:
        api.datasource.update_datasource_by_uid(DATA_SOURCE, {**there, **wanted})
        yield f"data source {prometheus}: changed"


def _dashboards(api: "GrafanaApi") -> Iterator[str]:
    from monitoring.dashboards import TAG, dashboards

    ours = {dashboard.uid: json.loads(dashboard.json) for dashboard in dashboards()}
    for uid, wanted in ours.items():
        there = _found(partial(api.dashboard.get_dashboard, uid))
        if there and there["meta"].get("folderUid") == FOLDER["uid"] and _same(there["dashboard"], wanted):
            yield f"dashboard {wanted['title']}: as it was"
            continue
        api.dashboard.update_dashboard({"dashboard": wanted, "folderUid": FOLDER["uid"], "overwrite": True})
        yield f"dashboard {wanted['title']}: {'changed' if there else 'made'}"
    for entry in api.search.search_dashboards(type_="dash-db", tag=TAG, folder_uids=FOLDER["uid"]):
        # Somebody's own dashboard may lie in the folder, or be a copy with our tag.
        if entry["uid"].startswith(f"{TAG}-") and entry["uid"] not in ours:
            api.dashboard.delete_dashboard(entry["uid"])
            yield f"dashboard {entry['title']}: removed"


def _same(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return {key: value for key, value in there.items() if key not in _GIVEN_BY_GRAFANA} == {
        key: value for key, value in wanted.items() if key not in _GIVEN_BY_GRAFANA
    }


def _found(ask: Callable[[], Any]) -> Any:
    """What Grafana answers; None where there is no such thing."""
    from grafana_client.client import GrafanaClientError

    try:
        return ask()
    except GrafanaClientError as error:
        if error.status_code != _NOT_FOUND:
            raise
        return None
