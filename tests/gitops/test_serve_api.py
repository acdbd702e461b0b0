"""The client against a real cluster, and what it says when there is none."""

from pathlib import Path

import pytest

from gitops.errors import StalledError, WaitingError
from gitops.serve_api import ServeApi, ServeDetails, ray_token
from ray_jobs.cluster import free_port
from tests.conftest import RayCluster


def test_a_cluster_answers_its_owner(ray_cluster: RayCluster) -> None:
    api = ServeApi(ray_cluster.dashboard_url + "/", ray_cluster.token)
    assert api.session() == api.session()
    assert api.session().startswith("session_")
    assert "no such application" not in api.applications().applications


@pytest.mark.parametrize("token", [None, "a-wrong-token"])
def test_a_wrong_token_is_named(ray_cluster: RayCluster, token: str | None) -> None:
    with pytest.raises(StalledError, match=r"refuses the token.*RAY_AUTH_TOKEN"):
        ServeApi(ray_cluster.dashboard_url, token).applications()


def test_a_refused_configuration_comes_with_rays_words(ray_cluster: RayCluster) -> None:
    config = {"applications": [{"name": "one", "import_path": "not an import path"}]}
    with pytest.raises(StalledError, match=r"(?s)refuses the PUT \(400\).*import path"):
        ServeApi(ray_cluster.dashboard_url, ray_cluster.token).put(config)


def test_no_cluster_is_worth_waiting_for() -> None:
    with pytest.raises(WaitingError, match=r"does not answer.*is the cluster up"):
        ServeApi(f"http://127.0.0.1:{free_port(0)}").applications()


@pytest.mark.parametrize("address", ["http://:not a port", "127.0.0.1:8265"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(StalledError, match=r"not an address"):
        ServeApi(address).applications()


def test_applications_on_their_way_out_are_not_living() -> None:
    raw = {
        "applications": {name: {"name": name, "status": name} for name in ("RUNNING", "DELETING")},
        "new_in_ray_3": 1,
    }
    assert ServeDetails.parse(raw, "a test").living.keys() == {"RUNNING"}


def test_the_token_is_looked_for_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ray_token({}) is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of home\n")
    assert ray_token({}) == "of home"
    named = tmp_path / "named"
    named.write_text("of a file\n")
    assert ray_token({"RAY_AUTH_TOKEN_PATH": str(named)}) == "of a file"
    assert ray_token({"RAY_AUTH_TOKEN_PATH": str(named), "RAY_AUTH_TOKEN": "of a variable"}) == "of a variable"


def test_a_named_token_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StalledError, match=r"cannot read Ray's token from .*nowhere"):
        ray_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "nowhere")})
