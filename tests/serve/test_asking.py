"""`mergeline predict` against a real server: tables, JSON, heat-maps, retries and what a script is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gitops.contracts.serving import Canary, ServedModel
from gitops.errors import MergelineError
from gitops.layout import serve_config_path
from gitops.repository import create_bare
from gitops.seed import seed_environment
from gitops.state import State
from mergeline.verbs import app
from serve.asking import Asking, default_client, heatmap_name, is_loopback, label_at, photographs
from tests.bundles import make_bundle
from tests.http_server import Handler, listening
from tests.serve.site import site
from tests.test_mergeline import ROOT


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("asking")
    bundle = folder / "bundle"
    model = ServedModel(name="screw", version="7", sha256=make_bundle(bundle, align="none"), uri=bundle.as_uri())
    with site(model, folder) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good parts, one of them deeper and in a file of another kind, and a defective one."""
    folder = tmp_path / "parts"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name, level in {"a.png": 250, "more/b.TIF": 240, "c.jpg": 5, ".hidden/x.png": 5}.items():
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, np.full((60, 80), level, np.uint8))[1].tobytes())
    (folder / "notes.txt").write_text("no image")
    return folder


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], env={"COLUMNS": "300"})


def test_a_folder_is_judged_and_the_status_says_what_came_of_it(url: str, folder: Path) -> None:
    result = predict(folder, "--url", url)
    assert result.exit_code == 3
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [(Path(line[0]).name, line[1]) for line in lines[1:]] == [
        ("a.png", "good"),
        ("c.jpg", "defective"),
        ("b.TIF", "good"),
    ]
    assert "2 good, 1 not good" in result.stderr
    assert predict(folder / "a.png", folder / "more", "--url", f"{url}/").exit_code == 0
    broken = predict(folder / "notes.txt", folder, "--url", url)  # what is named is asked about, whatever it is
    assert broken.exit_code == 1
    assert "not an image" in broken.stdout


def test_json_threshold_and_heatmaps(url: str, folder: Path, tmp_path: Path) -> None:
    result = predict(
        folder, folder / "a.png", "--url", url, "--json", "--threshold", "0", "--explain", tmp_path / "heat"
    )
    assert result.exit_code == 3
    answers = json.loads(result.stdout)
    assert [Path(answer["file"]).name for answer in answers] == ["a.png", "c.jpg", "b.TIF"]  # each once
    assert {(answer["label"], answer["good"], answer["threshold"]) for answer in answers} == {("defective", False, 0)}
    assert answers[0]["model_version"] == "7"
    for answer in answers:
        picture = cv2.imread(answer["heatmap"])
        assert picture is not None
        assert picture.shape == (60, 80, 3)


def test_of_several_classes_the_likeliest_that_is_not_good() -> None:
    probabilities = {"good": 0.5, "bent": 0.2, "rusty": 0.3}
    assert label_at(probabilities, 0.6) == "good"
    assert label_at(probabilities, 0.5) == "rusty"


@pytest.mark.parametrize(
    ("paths", "words"), [(["nowhere.png"], "there is no file nowhere.png"), ([""], "there is no image below")]
)
def test_what_is_not_there_is_said(
    tmp_path: Path, paths: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MergelineError, match=words):
        photographs(Path(path) for path in paths)


def test_what_was_not_looked_at_below_a_folder_is_said(url: str, folder: Path) -> None:
    (folder / "c.jpg").rename(folder / "c.JFIF")
    (folder / "more/b.TIF").rename(folder / "more/b.heic")
    result = predict(folder, "--url", url)
    assert "1 good, 1 not good" in result.stderr
    assert f"not looked at, as no photographs by their names: 2, {folder}/notes.txt the first of them" in result.stderr
    assert "not looked at" not in predict(folder / "more/b.heic", "--url", url).stderr, "what is named is taken"
    result = predict(folder, folder / "notes.txt", folder / "more/b.heic", "--url", url)
    assert "not looked at" not in result.stderr, "beside its folder too"


def test_a_service_that_is_not_there_is_one_error_and_not_one_a_file(folder: Path) -> None:
    result = predict(folder, "--url", "http://127.0.0.1:9")
    assert isinstance(result.exception, MergelineError)
    assert "nothing answers at http://127.0.0.1:9" in str(result.exception)


def test_a_service_without_a_model_or_a_wrong_address_is_one_error(
    url: str, folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with site(None, tmp_path) as empty, pytest.raises(MergelineError, match="is not ready: no model is wanted here"):
        list(Asking(empty).ask(photographs([folder])))
    with refusing(0, ready=b"<h1>It works</h1>") as (other, asked):
        with pytest.raises(MergelineError, match=r"is not a service of Mergeline \(status 200\)"):
            list(Asking(other).ask(photographs([folder])))
        assert asked == []
    with (
        refusing(0, ready=b"Request timed out", status=408) as (other, _),
        pytest.raises(
            MergelineError, match=r"no replica takes requests at .* \(status 408\): all are busy, or none runs"
        ),
    ):
        list(Asking(other).ask(photographs([folder])))
    with refusing(0, ready=b'{"ready":true}') as (fleet, asked):
        with pytest.raises(MergelineError, match=r"is a fleet of models: name one of .*/fleet, as .*/models/NAME"):
            list(Asking(fleet).ask(photographs([folder])))
        assert asked == []
    for wrong in (f"{url}/elsewhere", "ftp://127.0.0.1", "127.0.0.1:8000", "http://[", "http://"):
        with pytest.raises(MergelineError, match="give --url"):
            list(Asking(wrong).ask(photographs([folder])))


def test_heatmaps_of_several_files_lie_apart_and_inside_of_their_folder(tmp_path: Path) -> None:
    paths = [
        "a-b/c.png",
        "a/b-c.png",
        "a/b/c.png",
        "/a/b/c.png",
        "../a/b/c.png",
        "x/../../a/b/c.png",
    ]
    found = [heatmap_name(Path(path)) for path in paths]
    assert found[:3] == [Path(f"{path}.heatmap.png") for path in paths[:3]]
    assert [str(path).split(".png.")[0] for path in found[3:6]] == ["a/b/c", "a/b/c", "x/a/b/c"]
    assert len({heatmap_name(Path(path)) for path in paths}) == len(paths)
    assert all((tmp_path / path).resolve().is_relative_to(tmp_path) for path in found)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost:8000/x", True),
        ("http://[::1]:8000", True),
        ("http://10.0.0.7:8000", False),
        ("https://screws.example.com", False),
        ("nonsense", False),
    ],
)
def test_only_for_this_machine_proxies_are_not_asked(url: str, expected: bool) -> None:
    assert is_loopback(url) == expected


def test_the_url_is_that_of_the_environment(tmp_path: Path, folder: Path) -> None:
    state = State.at(tmp_path / "state")
    text = seed_environment("screw", "local", 9).replace("route_prefix: /", "route_prefix: /inspection")
    create_bare(state.repository, {serve_config_path("local"): text}, {})
    result = predict(folder, "--project", ROOT / "project.yaml", "--state", state.root)
    assert "nothing answers at http://127.0.0.1:9/inspection" in str(result.exception)
    result = predict(folder, "--project", ROOT / "project.yaml", "--state", tmp_path / "nowhere")
    assert "give --url or --state" in str(result.exception)


def test_a_canary_judges_all_of_a_client_s_files_or_none(folder: Path, tmp_path: Path) -> None:
    places = {version: tmp_path / version for version in "12"}
    model, candidate = (
        ServedModel(
            name="screw",
            version=version,
            sha256=make_bundle(place, align="none", version_salt=int(version) / 10),
            uri=place.as_uri(),
        )
        for version, place in places.items()
    )

    def versions(*arguments: object) -> set[str]:
        result = predict(folder, "--url", url, "--json", *arguments)
        return {answer["model_version"] for answer in json.loads(result.stdout)}

    with site(model, tmp_path, trial=Canary(percent=50, model=candidate)) as url:
        found = [versions("--client", f"line-{number}") for number in range(12)]
        assert all(len(versions) == 1 for versions in found)
        assert set.union(*found) == {"1", "2"}
        mine = versions()
        assert len(mine) == 1
        assert versions() == mine == versions("--client", default_client())


READY = b'{"ready": true, "name": "screw", "version": "1"}'


@contextmanager
def refusing(times: int, *, ready: bytes = READY, status: int = 200, cut: int = 0) -> Iterator[tuple[str, list[str]]]:
    """A service that is full so many times, and then has no model: not ours, which is never full by itself.

    Args:
        times: how often it is full.
        ready: what it says of its readiness.
        status: with which it says so.
        cut: how often it ends the connection without an answer, before all that.
    """
    asked: list[str] = []

    class Full(Handler):
        def do_GET(self) -> None:
            self.say(status, ready)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            if len(asked) <= cut:
                self.close_connection = True
            elif len(asked) <= cut + times:
                self.say(503, b"full", **{"Retry-After": "0"})
            else:
                self.say(500, b'{"error": {"status": 500, "reason": "an error of ours"}, "id": "1"}')

    with listening(Full) as url:
        yield url, asked


def test_a_busy_service_is_asked_again_and_an_error_is_not(folder: Path) -> None:
    with refusing(2) as (url, asked):
        (answer,) = Asking(url).ask([folder / "a.png"])
    assert answer.error == "an error of ours"
    assert len(asked) == 3


def test_a_connection_that_breaks_is_made_again_a_few_times(folder: Path) -> None:
    with refusing(1, cut=2) as (url, asked):
        (answer,) = Asking(url).ask([folder / "a.png"])
    assert (answer.error, len(asked)) == ("an error of ours", 4)
    with refusing(0, cut=100) as (url, asked):
        (answer,) = Asking(url).ask([folder / "a.png"])
    assert "disconnected" in str(answer.error)
    assert len(asked) == 3
