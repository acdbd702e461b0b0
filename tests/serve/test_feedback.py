"""Feedback as it is taken and kept: with the photograph, whole or not at all, by several writers, within bounds."""

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gitops.contracts.dataset import Feedback
from gitops.contracts.serving import Canary, ServedModel
from monitoring import metrics
from monitoring.metrics import Meters
from serve.endpoints import Endpoints
from serve.feedback import LINES, FeedbackFolder, add_feedback
from serve.protocol import RequestError
from serve.routes import application
from serve.slot import ModelSlot
from serve.workers import Workers
from tests.bundles import make_bundle
from tests.serve.conftest import Tally, encoded
from tests.serve.site import LIMITS, NoMeters, open_bundle, shadow
from tests.serve.test_endpoints import assert_error, by_pillow

pytestmark = pytest.mark.anyio

SAID = Feedback(filename="part.png", label="good")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "feedback"


@pytest.fixture
async def client(tmp_path: Path, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path, FeedbackFolder(folder, 100_000)) as client:
        yield client


def serving(
    tmp_path: Path, folder: FeedbackFolder | None, *, with_model: bool = True, meters: Meters | None = None
) -> httpx.AsyncClient:
    slot = ModelSlot(open_bundle, tmp_path / "memory.json", lambda succeeded: None)
    place, workers = tmp_path / "bundle", Workers(2)
    model = ServedModel(name="screw", version="1", sha256=make_bundle(place), uri=place.as_uri())
    endpoints = Endpoints(slot, LIMITS, workers, meters or NoMeters(), "a-replica", shadow(NoMeters()))
    app = application(endpoints)
    add_feedback(app, endpoints, folder)

    class Client(httpx.AsyncClient):
        async def __aenter__(self) -> "Client":
            await slot.want(model if with_model else None)
            await super().__aenter__()
            return self

        async def __aexit__(self, *_: Any) -> None:
            workers.close()
            await super().__aexit__()

    return Client(transport=httpx.ASGITransport(app), base_url="http://replica")


def lines_of(folder: Path) -> list[Feedback]:
    text = (folder / LINES).read_text()
    return [Feedback.parse(json.loads(line), "a line") for line in text.splitlines()]


def form(**changes: Any) -> dict[str, Any]:
    said = {"label": "good", "said": "defective", "score": "0.9", "id": "42", "by": "Ada", "model_name": "screw"}
    said |= {"model_version": "1", "model_digest": "sha256:" + "0" * 64, "comment": "a hair, no scratch"}
    data = {key: value for key, value in (said | changes).items() if value is not None}
    return {"files": {"photograph": ("line 4/pärt.png", encoded(), "image/png")}, "data": data}


async def test_what_is_said_is_kept_with_the_photograph(client: httpx.AsyncClient, folder: Path) -> None:
    response = await client.post("/feedback", **form())
    assert response.status_code == 201, response.text
    digest = hashlib.sha256(encoded()).hexdigest()
    assert response.json() == {"label": "good", "sha256": digest}
    (kept,) = lines_of(folder)
    assert (kept.label, kept.said, kept.score, kept.by) == ("good", "defective", 0.9, "Ada")
    assert (kept.filename, kept.sha256, kept.photograph) == ("line 4/pärt.png", digest, f"photographs/{digest}.png")
    assert kept.at is not None
    assert (folder / str(kept.photograph)).read_bytes() == encoded()


async def test_it_is_counted_once_and_by_versions_that_are_here(tmp_path: Path, folder: Path, tally: Tally) -> None:
    async with serving(tmp_path, FeedbackFolder(folder), meters=tally) as client:
        for said in (form(), form(), form(id="43", model_version="7", said="good"), form(id="44", said=None)):
            assert (await client.post("/feedback", **said)).status_code == 201  # the second is a retry
    counted = {("1", "corrected"): 1, ("unknown", "confirmed"): 1, ("1", "unknown"): 1}
    assert tally.of(metrics.FEEDBACK) == counted


async def test_one_photograph_lies_there_once_and_every_word_about_it(client: httpx.AsyncClient, folder: Path) -> None:
    for label in ("good", "defective"):
        assert (await client.post("/feedback", **form(label=label))).status_code == 201
    assert [item.label for item in lines_of(folder)] == ["good", "defective"]
    assert len(list((folder / "photographs").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"label": "rusty"}, 400, "'rusty' is no class of the model: it has good, defective"),
        ({"label": None}, 400, "label"),
        ({"score": "much"}, 400, "score"),
        ({"model_version": "x"}, 400, "model_version"),
        ({"comment": "x" * 3000}, 400, "comment"),
        ({"comment": "x" * 20_000}, 400, "maximum size"),
        ({"id": "x" * 129}, 400, "id"),
        ({"label": "x" * 201}, 400, "label"),
        ({"said": "x" * 201}, 400, "said"),
        ({"threshold": "2"}, 400, "threshold"),
        ({"label": ["good", "defective"]}, 400, "more than once: label"),
    ],
)
async def test_what_is_wrong_is_refused_and_not_kept(
    client: httpx.AsyncClient, folder: Path, changes: dict[str, Any], status: int, words: str
) -> None:
    assert_error(await client.post("/feedback", **form(**changes)), status, words)
    assert not folder.exists()


async def test_only_photographs_of_our_own_pages_are_kept(client: httpx.AsyncClient, folder: Path) -> None:
    for data, status, words in ((b"text", 400, "not an image"), (by_pillow("GIF"), 415, "GIF")):
        files = {"photograph": ("a.png", data)}
        assert_error(await client.post("/feedback", files=files, data={"label": "good"}), status, words)
    assert_error(await client.post("/feedback", files={"x": (None, "1")}), 400, "no file `photograph`")
    too_large = {"photograph": ("a.png", b"\0" * (LIMITS.max_bytes + 1))}
    assert_error(await client.post("/feedback", files=too_large, data={"label": "good"}), 413, "larger than")
    assert_error(await client.post("/feedback", **form(), headers={"sec-fetch-site": "cross-site"}), 403, "other sites")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"origin": "http://replica"}, 201),
        ({"origin": "https://REPLICA", "sec-fetch-site": "same-origin"}, 201),
        ({"origin": "http://10.0.0.7:8000", "host": "10.0.0.7:8000"}, 201),
        ({"origin": "http://10.0.0.7:3000", "host": "10.0.0.7:8000"}, 403),
        ({"origin": "http://elsewhere"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
async def test_pages_of_other_sites_are_told_by_what_browsers_send(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    response = await client.post("/feedback", **form(), headers=headers)
    assert response.status_code == status, response.text


async def test_without_a_model_nobody_knows_the_classes(tmp_path: Path, folder: Path) -> None:
    async with serving(tmp_path, FeedbackFolder(folder), with_model=False) as client:
        assert_error(await client.post("/feedback", **form()), 503, "no model is wanted")
    assert not folder.exists()


async def test_a_candidate_has_classes_of_its_own(tmp_path: Path, folder: Path) -> None:
    slot = ModelSlot(open_bundle, tmp_path / "memory.json", lambda succeeded: None)
    names = {"1": ("good", "defective"), "2": ("good", "scratch")}
    digests = {version: make_bundle(tmp_path / version, classes=classes) for version, classes in names.items()}
    model, candidate = (
        ServedModel(name="screw", version=version, sha256=digest, uri=(tmp_path / version).as_uri())
        for version, digest in digests.items()
    )
    await slot.want(model, Canary(percent=50, model=candidate))
    with closing(Workers(2)) as workers:
        endpoints = Endpoints(slot, LIMITS, workers, NoMeters(), "a-replica", shadow(NoMeters()))
        app = application(endpoints)
        add_feedback(app, endpoints, FeedbackFolder(folder))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
            kept = await client.post("/feedback", **form(label="scratch", model_version="2"))
            assert kept.status_code == 201, kept.text
            refused = await client.post("/feedback", **form(label="scratch", model_version="1"))
            assert_error(refused, 400, "'scratch' is no class of the model: it has good, defective")
            for gone in ("9", None):  # nobody knows any more which of the two it was
                assert (await client.post("/feedback", **form(label="scratch", model_version=gone))).status_code == 201
            await slot.want(model.model_copy(update={"version": "3", "uri": "file:///nowhere", "sha256": "0" * 64}))


async def test_who_lost_the_answer_and_says_it_again_says_it_once(client: httpx.AsyncClient, folder: Path) -> None:
    for changes in ({}, {}, {"comment": "a scratch after all"}, {"by": "Bea"}, {"by": "Bea"}, {}):
        assert (await client.post("/feedback", **form(**changes))).status_code == 201
    assert [(item.by, item.comment) for item in lines_of(folder)] == [
        ("Ada", "a hair, no scratch"),
        ("Ada", "a scratch after all"),
        ("Bea", "a hair, no scratch"),
        ("Ada", "a hair, no scratch"),
    ]


async def test_where_feedback_is_off_the_answer_says_how_to_turn_it_on(tmp_path: Path) -> None:
    async with serving(tmp_path, None) as client:
        assert_error(await client.post("/feedback", **form()), 404, "args.feedback")


async def test_a_full_folder_refuses_and_keeps_what_it_has(client: httpx.AsyncClient, folder: Path) -> None:
    (folder / "photographs").mkdir(parents=True)
    (folder / "photographs/earlier.png").write_bytes(b"\0" * 99_900)
    assert_error(await client.post("/feedback", **form()), 507, "mergeline label import")
    assert not (folder / LINES).exists()
    (folder / "photographs/earlier.png").unlink()
    assert (await client.post("/feedback", **form())).status_code == 201


def test_the_folder_is_looked_through_only_now_and_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, counted = FeedbackFolder(folder, 64 * 2000), 0
    measure = store._measure

    def count() -> int:
        nonlocal counted
        counted += 1
        return measure()

    monkeypatch.setattr(store, "_measure", count)
    for number in range(20):  # of about 350 bytes each: each 2000 bytes it is counted
        store.keep(SAID.model_copy(update={"id": str(number)}), encoded())
    assert 3 <= counted <= 5
    assert len(lines_of(folder)) == 20


async def test_a_slow_disk_keeps_no_photograph_waiting(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, end = FeedbackFolder(folder), threading.Event()
    keep = store.keep
    monkeypatch.setattr(store, "keep", lambda said, photograph: end.wait(10) and keep(said, photograph))
    async with serving(tmp_path, store) as client:
        waiting = [asyncio.create_task(client.post("/feedback", **form(id=str(number)))) for number in range(4)]
        await asyncio.sleep(0.2)
        assert (await client.post("/predict", content=encoded())).status_code == 200
        assert not any(task.done() for task in waiting)
        end.set()
        assert {(await task).status_code for task in waiting} == {201}


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be kept"):
        FeedbackFolder(tmp_path / "file").keep(SAID, encoded())


def test_several_writers_at_once_lose_nothing(folder: Path) -> None:
    def write(writer: int) -> None:
        for number in range(10):  # a folder of its own each, as replicas have
            FeedbackFolder(folder).keep(SAID.model_copy(update={"id": f"{writer}-{number}"}), encoded())

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {item.id for item in lines_of(folder)} == {
        f"{writer}-{number}" for writer in range(4) for number in range(10)
    }


def test_a_line_that_a_crash_cut_off_does_not_spoil_the_next(folder: Path) -> None:
    store = FeedbackFolder(folder)
    store.keep(SAID, encoded())
    with (folder / LINES).open("a") as file:
        file.write('{"filename": "ha')
    store.keep(SAID, encoded(".jpg"))
    assert [str(item.photograph)[-4:] for item in lines_of(folder)] == [".png", ".jpg"]
