"""The dashboards' JSON: whole, stable, and as Grafana reads it."""

import json

import pytest

from monitoring.dashboards import TAG, Dashboard, dashboards

BOARDS = dashboards()
boards = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


@boards
def test_a_dashboard_is_as_grafana_reads_it(board: Dashboard) -> None:
    built = json.loads(board.json)
    assert (built["uid"], built["title"], built["tags"]) == (board.uid, board.title, [TAG])
    assert built["schemaVersion"] >= 36
    assert {variable["type"] for variable in built["templating"]["list"]} <= {"datasource", "query", "textbox"}
    drawn = [panel for panel in built["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in drawn] == [panel.title for panel in board.panels]
    for panel, declared in zip(drawn, board.panels, strict=True):
        assert [target["expr"] for target in panel["targets"]] == [query.expression for query in declared.queries]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(declared.queries)


@boards
def test_panels_stand_beside_each_other(board: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(board.json)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@boards
def test_a_choice_that_is_asked_for_is_offered(board: Dashboard) -> None:
    asked = {name for name in ("namespace", "application", "environment", "project") if f"${name}" in board.json}
    assert asked == {variable.name for variable in board.variables}


def test_drift_links_to_its_examples() -> None:
    (board,) = [board for board in BOARDS if board.uid == "mergeline-drift"]
    built = json.loads(board.json)
    assert [link["url"] for link in built["links"]] == ["${service}/#served"]
    (service,) = [variable for variable in built["templating"]["list"] if variable["name"] == "service"]
    assert service["query"] == "http://127.0.0.1:8000"


def test_the_same_dashboard_gives_the_same_text() -> None:
    assert [board.json for board in dashboards()] == [board.json for board in BOARDS]
    assert len({board.uid for board in BOARDS}) == len(BOARDS)
    assert all(board.uid.startswith(f"{TAG}-") for board in BOARDS)  # `publish` prunes by that
