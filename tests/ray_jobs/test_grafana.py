"""Publishing to a Grafana: against an HTTP server that keeps state as Grafana's API does.

No Grafana is in the registries. What the server answers follows Grafana's HTTP API reference: folders, data sources by
uid, `POST /api/dashboards/db`, search, and 404 for what is not there.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from monitoring.dashboards import dashboards
from ray_jobs.grafana import DATA_SOURCE, FOLDER, PublishError, publish
from tests.http_server import Handler, listening

TOKEN = "glsa_secret"
PROMETHEUS = "http://127.0.0.1:9090"


class Grafana:
    """What a Grafana keeps."""

    def __init__(self) -> None:
        self.url = ""
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.boards: dict[str, dict[str, Any]] = {}
        self.changes = 0

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        place = urlsplit(path)
        match method, place.path.removeprefix("/grafana/api").split("/")[1:]:
            case "GET", ["folders", uid]:
                return self._get(self.folders, uid)
            case "POST", ["folders"]:
                return self._put(self.folders, body["uid"], {"id": 1, **body})
            case "GET", ["datasources", "uid", uid]:
                return self._get(self.sources, uid)
            case "POST", ["datasources"]:
                return self._put(self.sources, body["uid"], {"id": 1, "readOnly": False, **body})
            case "PUT", ["datasources", "uid", uid]:
                return self._put(self.sources, uid, body)
            case "GET", ["dashboards", "uid", uid]:
                return self._get(self.boards, uid)
            case "POST", ["dashboards", "db"]:
                return self._save(body)
            case "DELETE", ["dashboards", "uid", uid]:
                self.changes += 1
                return 200, {"title": self.boards.pop(uid)["dashboard"]["title"]}
            case "GET", ["search"]:
                return 200, self._search(parse_qs(place.query))
        return 404, {"message": "Not found"}

    def _get(self, kept: dict[str, dict[str, Any]], uid: str) -> tuple[int, Any]:
        return (200, kept[uid]) if uid in kept else (404, {"message": "not found"})

    def _put(self, kept: dict[str, dict[str, Any]], uid: str, value: dict[str, Any]) -> tuple[int, Any]:
        self.changes += 1
        kept[uid] = value
        return 200, value

    def _save(self, body: dict[str, Any]) -> tuple[int, Any]:
        uid = body["dashboard"]["uid"]
        there = self.boards.get(uid)
        if there and not body.get("overwrite"):
            return 412, {"message": "A dashboard with the same uid already exists", "status": "name-exists"}
        version = there["dashboard"]["version"] + 1 if there else 1
        board = {**body["dashboard"], "id": len(self.boards) + 1, "version": version}
        self._put(self.boards, uid, {"dashboard": board, "meta": {"folderUid": body.get("folderUid", "")}})
        return 200, {"uid": uid, "version": version, "status": "success"}

    def _search(self, asked: dict[str, list[str]]) -> list[dict[str, Any]]:
        return [
            {"uid": uid, "title": kept["dashboard"]["title"]}
            for uid, kept in self.boards.items()
            if set(asked.get("tag", [])) <= set(kept["dashboard"]["tags"])
            and kept["meta"]["folderUid"] in asked.get("folderUIDs", [kept["meta"]["folderUid"]])
        ]


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    kept = Grafana()

    class Api(Handler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                status, said = kept.answer(self.command, self.path, body)
            else:
                status, said = 401, {"message": "Invalid API key"}
            self.say(status, json.dumps(said).encode(), **{"Content-Type": "application/json"})

        do_GET = do_POST = do_PUT = do_DELETE = _do

    with listening(Api) as url:
        kept.url = f"{url}/grafana"
        yield kept


def board(uid: str, folder: str, tag: str = "mergeline") -> dict[str, Any]:
    return {"dashboard": {"uid": uid, "title": uid, "tags": [tag], "version": 1}, "meta": {"folderUid": folder}}


def test_all_is_made_and_the_second_time_nothing_is_changed(grafana: Grafana) -> None:
    said = publish(grafana.url, TOKEN, PROMETHEUS)
    assert list(grafana.folders) == [FOLDER["uid"]]
    assert grafana.sources[DATA_SOURCE]["url"] == PROMETHEUS
    assert set(grafana.boards) == {ours.uid for ours in dashboards()}
    assert {kept["meta"]["folderUid"] for kept in grafana.boards.values()} == {FOLDER["uid"]}
    assert all(line.endswith(": made") for line in said)
    changes = grafana.changes
    assert all(line.endswith(": as it was") for line in publish(f"{grafana.url}/", TOKEN, PROMETHEUS))
    assert grafana.changes == changes


def test_what_was_changed_by_hand_is_put_back(grafana: Grafana) -> None:
    publish(grafana.url, TOKEN, PROMETHEUS)
    changed = grafana.boards["mergeline-serving"]["dashboard"]
    changed["title"] = "Mine"
    said = publish(grafana.url, TOKEN, "http://prometheus:9090")
    assert [line for line in said if not line.endswith("as it was")] == [
        "data source http://prometheus:9090: changed",
        "dashboard Mergeline: serving: changed",
    ]
    assert grafana.boards["mergeline-serving"]["dashboard"]["version"] == 2
    assert grafana.sources[DATA_SOURCE]["readOnly"] is False  # what is not ours stays


def test_only_its_own_are_removed(grafana: Grafana) -> None:
    ours = FOLDER["uid"]
    grafana.boards = {
        "mergeline-old": board("mergeline-old", ours),
        "copy": board("copy", ours),
        "mergeline-elsewhere": board("mergeline-elsewhere", "another"),
        "mergeline-untagged": board("mergeline-untagged", ours, "other"),
    }
    assert "dashboard mergeline-old: removed" in publish(grafana.url, TOKEN, PROMETHEUS)
    assert set(grafana.boards) - {made.uid for made in dashboards()} == {
        "copy",
        "mergeline-elsewhere",
        "mergeline-untagged",
    }


@pytest.mark.parametrize(
    ("url", "token", "said"),
    [
        (None, "wrong", "refused: 401 Invalid API key"),
        (None, "", "set GRAFANA_TOKEN"),
        ("http://127.0.0.1:9", TOKEN, "cannot be reached"),
        ("grafana.example.com", TOKEN, "is no address of a Grafana"),
        ("http://a:b:c", TOKEN, "cannot be reached: Invalid port"),
    ],
)
def test_what_cannot_be_published_says_why(grafana: Grafana, url: str | None, token: str, said: str) -> None:
    with pytest.raises(PublishError, match=said):
        publish(url or grafana.url, token, PROMETHEUS)
    assert grafana.changes == 0
