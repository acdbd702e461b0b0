"""Several applications of one environment on a real Ray Serve, and a fleet of a hundred models in bounded memory."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Response, expect

from gitops.attempt import ReconcileSettings
from gitops.contracts.project import Preprocessing
from gitops.contracts.serving import ModelVersion, ServedModel
from gitops.errors import ContractError, GateError
from gitops.layout import PROJECT_PATH, project_path, serve_config_path
from gitops.promotion import Destination
from gitops.reconcile import Reconciler
from gitops.repository import MAIN, Repository, create_bare
from gitops.serve_api import ServeApi
from gitops.state import State
from serve.preprocess import preprocess
from tests.bundles import expected_score, make_bundle
from tests.conftest import RayCluster
from tests.gitops.deployments import PROJECT, make_version
from tests.processes import processes_named
from tests.serve.conftest import ARGUMENTS, DEADLINE_SECONDS, Service, encoded

MODELS, MAX_MODELS, BROKEN = 100, 8, "part-50"
BOLT = PROJECT.replace("name: screw", "name: bolt").replace("min: 0.95", "min: 0.5")


def application(name: str, route: str, builder: str = "serve.app:build", **args: object) -> dict[str, Any]:
    """An application with one replica and no model yet."""
    fleet = builder.startswith("serve.fleet")
    deployment = {
        "name": "Fleet" if fleet else "Classifier",
        "num_replicas": 1,
        "ray_actor_options": {"num_cpus": 0.3},
        "user_config": {"models" if fleet else "model": None},
    }
    return {
        "name": name,
        "route_prefix": route,
        "import_path": builder,
        "args": {**ARGUMENTS, **args},
        "deployments": [deployment],
    }


def fleet_of(name: str) -> dict[str, Any]:
    return application(name, f"/{name}", "serve.fleet:build", max_models=MAX_MODELS, threads=1)


def version(folder: Path, name: str, number: str, *, wrong: int = 2) -> ModelVersion:
    """A registered version whose bundle loads and answers."""
    place, reports = folder / f"{name}-{number}", folder / "reports" / name
    reports.mkdir(parents=True, exist_ok=True)
    made = make_version(reports, number, wrong=wrong)
    digest = make_bundle(place, name=name, version_salt=int(number) / 10)
    model = ServedModel(name=name, version=number, uri=place.as_uri(), sha256=digest)
    return made.model_copy(update={"model": model, "evaluation": made.evaluation.model_copy(update={"bundle": digest})})


def test_two_projects_and_a_fleet_are_served_and_promoted_beside_each_other(
    service: Service, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    applications = [application("screw", "/"), application("bolt", "/bolt"), fleet_of("parts")]
    config = {"http_options": {"host": "127.0.0.1", "port": service.port}, "applications": applications}
    further = {project_path(name): PROJECT.replace("name: screw", f"name: {name}") for name in ("nut", "washer")}
    seed = {PROJECT_PATH: PROJECT, project_path("bolt"): BOLT, **further}
    create_bare(tmp_path / "bare.git", seed | {serve_config_path("local"): json.dumps(config, indent=1)}, {})
    repository = Repository(tmp_path / "bare.git")
    settings = ReconcileSettings(healthy_seconds=0.5, look_seconds=0.2, observe_seconds=DEADLINE_SECONDS, retry_limit=0)
    api, state = ServeApi(ray_cluster.dashboard_url, ray_cluster.token), State.at(tmp_path / "state")
    reconciler = Reconciler(repository, MAIN, "local", api, state, settings)

    def promote(made: ModelVersion, application: str | None = None) -> None:
        Destination(repository, "local", application).promote(made, merge=True)
        found = reconciler.run_once()
        assert (found.sync.status, found.operation_state and found.operation_state.phase) == ("Synced", "Succeeded"), (
            found.to_json()
        )

    def judged(path: str, **options: Any) -> tuple[str, str]:
        response = httpx.post(f"{service.url}{path}", content=encoded(), timeout=60, **options)
        assert response.status_code == 200, response.text
        answer = response.json()
        return answer["model_name"], answer["model_version"]

    promote(version(tmp_path, "screw", "1"))
    with pytest.raises(GateError, match="screw 2 has"):  # each project has bars of its own
        Destination(repository, "local").promote(version(tmp_path, "screw", "2", wrong=30), merge=True)
    promote(version(tmp_path, "bolt", "1", wrong=30))
    promote(version(tmp_path, "nut", "1"), application="parts")
    promote(version(tmp_path, "washer", "1"), application="parts")
    nut = version(tmp_path, "nut", "2")
    promote(nut)  # the fleet that has it already
    found = reconciler.run_once()
    assert {item.name: item.health.status for item in found.resources} == dict.fromkeys(
        ("screw", "bolt", "parts"), "Healthy"
    )
    assert found.history[-1].models["parts/nut"] == nut.model

    assert judged("/predict") == ("screw", "1")
    assert judged("/bolt/predict") == ("bolt", "1")
    assert judged("/parts/models/nut/predict") == ("nut", "2")
    assert judged("/parts/predict?model=washer") == ("washer", "1")
    for base, name in (("", "screw"), ("/bolt", "bolt"), ("/parts", "nut"), ("/parts/models/nut", "nut")):
        metadata = httpx.get(f"{service.url}{base}/v2/models/{name}").json()
        assert metadata["name"] == name
        image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0K"]}
        refused = httpx.post(f"{service.url}{base}/v2/models/{name}/infer", json={"inputs": [image]})
        assert "error" in refused.json()
        assert refused.status_code == 400
    for base in ("", "/bolt", "/parts/models/nut"):
        page = httpx.get(f"{service.url}{base}/")
        assert 'id="drop' in page.text or "<script" in page.text
        assert httpx.get(f"{service.url}{base}/page/page.js").status_code == 200
        assert httpx.get(f"{service.url}{base}/served").json()["model"]["name"] in ("screw", "bolt", "nut")
    assert 'href="models/nut/"' in httpx.get(f"{service.url}/parts/").text

    with pytest.raises(ContractError, match="parts is a fleet, whose models are promoted at once"):
        Destination(repository, "local").try_beside(version(tmp_path, "nut", "3"), 10)
    Destination(repository, "local").rollback("nut", merge=True)
    assert reconciler.run_once().health.status == "Healthy"
    assert judged("/parts/models/nut/predict") == ("nut", "1")
    assert judged("/bolt/predict") == ("bolt", "1")


def answers_to(page: Page) -> list[Response]:
    """All that the page is answered from now on."""
    answered: list[Response] = []

    def keep(response: Response) -> None:
        answered.append(response)

    page.on("response", keep)
    return answered


def keeps_feedback(base: str) -> bool:
    """Whether an application answers there that keeps feedback."""
    response = httpx.get(f"{base}/served", timeout=DEADLINE_SECONDS)
    return response.is_success and bool(response.json()["feedback"])


def test_the_page_works_wherever_its_application_lies(service: Service, browser: Browser, tmp_path: Path) -> None:
    bolt, nut = version(tmp_path, "bolt", "1").model, version(tmp_path, "nut", "1").model
    alone, parts = application("bolt", "/bolt", feedback=str(tmp_path / "feedback/bolt")), fleet_of("parts")
    parts["args"]["feedback"] = str(tmp_path / "feedback/parts")
    alone["deployments"][0]["user_config"] = {"model": bolt.model_dump()}
    parts["deployments"][0]["user_config"] = {"models": {"nut": nut.model_dump()}}
    service.api.put({"http_options": {"host": "127.0.0.1", "port": service.port}, "applications": [alone, parts]})
    deadline = time.monotonic() + DEADLINE_SECONDS
    places = {"bolt": f"{service.url}/bolt", "nut": f"{service.url}/parts/models/nut"}
    for base in places.values():
        while not keeps_feedback(base):  # an application of an earlier test may answer until this one does
            assert time.monotonic() < deadline
            time.sleep(0.2)
    photograph: FilePayload = {"name": "part.png", "mimeType": "image/png", "buffer": encoded()}
    for name, base in places.items():
        page = browser.new_page()
        answered = answers_to(page)
        page.goto(base)  # without its slash
        expect(page.locator("#model")).to_have_text(f"{name} · v1")
        assert page.url == f"{base}/"
        page.set_input_files("#files", photograph)
        expect(page.locator(".card .version")).to_have_text("v1")
        page.click(".card .heat")
        expect(page.locator(".card img.heated")).to_be_visible()
        page.click(".card .wrong")
        page.click("#report-send")
        expect(page.locator(".card .said")).to_contain_text("reported: it is")
        with page.expect_download() as download:
            page.click("#export")
        assert f',"{name}","1","sha256:' in Path(download.value.path()).read_text("utf-8-sig")
        page.click("#tab-served")
        expect(page.locator("#served")).to_contain_text("Lately")
        page.reload()
        expect(page.locator("#served h1")).to_have_text(f"{name} version 1")
        page.goto(f"{base}/docs")
        expect(page.locator("code", has_text=f"{base.removeprefix(service.url)}/predict").first).to_be_visible()
        page.close()
        assert [response.url for response in answered if response.status >= 400] == []
        assert {response.url for response in answered if not response.url.startswith((f"{base}/", "blob:"))} == {base}
    assert [file.parent.name for file in sorted((tmp_path / "feedback").rglob("feedback.jsonl"))] == ["bolt", "nut"]
    page = browser.new_page()
    page.goto(f"{service.url}/parts")
    link = page.get_by_role("link", name="nut")
    assert link.evaluate("(found) => getComputedStyle(found).fontWeight") == "600"  # its style came from below /parts
    link.click()
    expect(page.locator("#model")).to_have_text("nut · v1")
    page.close()


def salt(name: str) -> float:
    """By which a model of the fleet differs from the others."""
    return int(name.removeprefix("part-")) / 100


@pytest.fixture(scope="module")
def fleet(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServedModel]:
    """A fleet of a hundred models, one of which does not load."""
    folder, models = tmp_path_factory.mktemp("fleet"), {}
    for number in range(MODELS):
        name = f"part-{number}"
        digest = make_bundle(folder / name, name=name, version_salt=salt(name))
        models[name] = ServedModel(name=name, version="1", uri=(folder / name).as_uri(), sha256=digest)
    (folder / BROKEN / "model.xml").write_text("<net/>")
    app = fleet_of("hundred")
    app["deployments"][0]["user_config"] = {"models": {name: model.model_dump() for name, model in models.items()}}
    service.api.put({"http_options": {"host": "127.0.0.1", "port": service.port}, "applications": [app]})
    return models


def test_a_hundred_models_share_a_replica_s_memory(
    service: Service, ray_cluster: RayCluster, fleet: dict[str, ServedModel]
) -> None:
    settings = Preprocessing(align="foreground", height=32, width=64)
    pixels = preprocess(encoded(), settings).pixels
    url = f"{service.url}/hundred"
    with httpx.Client(timeout=DEADLINE_SECONDS, transport=httpx.HTTPTransport(retries=20)) as client:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while client.get(f"{url}/fleet").is_error:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (replica,) = processes_named(ray_cluster.state, "ray::ServeReplica:hundred:Fleet").values()
        memory = {}
        asked = [*fleet, *list(fleet)[::10]]
        for count, name in enumerate(asked, 1):
            response = client.post(f"{url}/predict", params={"model": name}, content=encoded())
            if name == BROKEN:
                assert response.status_code == 503
                assert "model.xml" in response.json()["error"]["reason"]
                # Said until it may be tried again, which is before the others have answered on a slow machine.
                told = client.get(f"{url}/fleet").json()["models"]
                assert [name for name, facts in told.items() if facts["load_error"]] == [BROKEN]
                continue
            answer = response.json()
            assert (answer["model_name"], answer["model_version"]) == (name, "1")
            assert answer["score"] == pytest.approx(expected_score(pixels, salt(name)), abs=1e-5)
            if count in (MAX_MODELS, 40, MODELS, len(asked)):
                memory[count] = replica.memory_info().rss >> 20
        said = client.get(f"{url}/fleet").json()["models"]
    print(f"MiB of a replica of at most {MAX_MODELS} models, by the number of requests: {memory}")
    answered = [name for name in asked if name != BROKEN]
    assert {name for name, facts in said.items() if facts["served"]} == set(answered[-MAX_MODELS:])
    # Measured: 12 MiB more, and 74 where all of them are kept.
    assert memory[len(asked)] - memory[MAX_MODELS] < 40, memory
