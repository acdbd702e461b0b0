"""How a replica's model comes and goes: swaps, failures, retries, and what a new replica falls back to."""

import asyncio
import shutil
import threading
import weakref
from pathlib import Path

import pytest

from gitops import bundle
from gitops.contracts.serving import Canary, ServedModel, Shadow
from serve import slot as slot_module
from serve.predictor import Predictor
from serve.slot import ModelSlot
from tests.bundles import make_bundle

pytestmark = pytest.mark.anyio


class Opener:
    """Opens real bundles; can be held up, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, model: ServedModel) -> Predictor:
        self.asked.append(model.version)
        self.go_on.wait()
        predictor = Predictor.load(bundle.fetch(model.uri, model.sha256, Path("unused")))
        predictor.probe()
        return predictor

    async def was_asked(self, times: int) -> None:
        """Until it has been asked so often."""
        while len(self.asked) < times:
            await asyncio.sleep(0.005)


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def outcomes() -> list[bool]:
    return []


@pytest.fixture
def slot(opener: Opener, outcomes: list[bool], tmp_path: Path) -> ModelSlot:
    return ModelSlot(opener, tmp_path / "memory" / "app.json", outcomes.append)


def served(folder: Path, version: str, name: str = "screw") -> ServedModel:
    digest = make_bundle(folder / version, version_salt=int(version) / 10, name=name)
    return ServedModel(name=name, version=version, uri=(folder / version).as_uri(), sha256=digest)


async def freed(held: "weakref.ref[Predictor]") -> None:
    """Until nobody holds it: the thread that opened it may do so a moment longer."""
    async with asyncio.timeout(30):
        while held() is not None:
            await asyncio.sleep(0.01)


async def test_a_new_model_takes_the_place_of_the_old_one_and_the_old_one_is_freed(
    slot: ModelSlot, tmp_path: Path, outcomes: list[bool]
) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(first)
    assert slot.loaded
    old = weakref.ref(slot.loaded.predictor)
    in_flight = slot.loaded
    await slot.want(second)
    assert slot.loaded.model == second
    assert slot.loaded.predictor.digest == second.sha256
    assert in_flight.predictor.probe() > 0  # a request that began with the old model ends with it
    del in_flight
    await freed(old)
    assert outcomes == [True, True]
    assert slot.versions == {"1", "2"}


async def test_the_old_model_answers_while_the_new_one_is_loaded(
    slot: ModelSlot, opener: Opener, tmp_path: Path
) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(first)
    opener.go_on.clear()
    wish = asyncio.create_task(slot.want(second))
    await opener.was_asked(2)
    assert slot.loaded
    assert (slot.loaded.model, slot.wanted) == (first, second)
    opener.go_on.set()
    await wish
    assert slot.loaded.model == second


@pytest.mark.parametrize("damage", ["missing", "engine", "digest", "name"])
async def test_a_bundle_that_does_not_load_leaves_the_old_one_and_a_reason(
    slot: ModelSlot, tmp_path: Path, outcomes: list[bool], damage: str
) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    if damage == "missing":
        shutil.rmtree(tmp_path / "2")
    elif damage == "engine":
        (tmp_path / "2" / "model.xml").write_text("<net/>")
    elif damage == "digest":
        second = second.model_copy(update={"sha256": "0" * 64})
    else:
        second = second.model_copy(update={"name": "bolt"})
    await slot.want(first)
    await slot.want(second)
    assert slot.loaded
    assert (slot.loaded.model, slot.wanted) == (first, second)
    assert slot.load_error
    assert f"{second.name} version 2 from {second.uri} does not load" in slot.load_error
    assert outcomes == [True, False]
    await slot.want(first)
    assert slot.load_error is None


async def test_an_unexpected_error_of_a_library_does_not_get_out(tmp_path: Path) -> None:
    def explode(model: ServedModel) -> Predictor:
        raise RecursionError("a library went mad")

    slot = ModelSlot(explode, tmp_path / "memory.json", lambda succeeded: None)
    await slot.want(served(tmp_path, "1"))
    assert slot.loaded is None
    assert "RecursionError: a library went mad" in str(slot.load_error)


async def test_the_same_bundle_under_another_version_is_not_loaded_again(
    slot: ModelSlot, opener: Opener, tmp_path: Path
) -> None:
    first = served(tmp_path, "1")
    await slot.want(first)
    await slot.want(first.model_copy(update={"version": "7"}))
    assert slot.loaded
    assert slot.loaded.model.version == "7"
    assert opener.asked == ["1"]


async def test_the_newest_wish_wins_even_if_an_older_one_is_still_loading(
    slot: ModelSlot, opener: Opener, tmp_path: Path
) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    opener.go_on.clear()
    wishes = [asyncio.create_task(slot.want(model)) for model in (first, second)]
    await opener.was_asked(1)
    opener.go_on.set()
    await asyncio.gather(*wishes)
    assert slot.loaded
    assert slot.loaded.model == second


async def test_a_finished_candidate_is_not_loaded_again_though_another_model_is_loading(
    slot: ModelSlot, opener: Opener, tmp_path: Path
) -> None:
    first, second, third = (served(tmp_path, version) for version in "123")
    await slot.want(first, Canary(percent=10, model=third))
    opener.go_on.clear()
    loading = asyncio.create_task(slot.want(second, Canary(percent=10, model=third)))
    await opener.was_asked(3)
    finished = asyncio.create_task(slot.want(third))
    await asyncio.sleep(0)
    opener.go_on.set()
    await asyncio.gather(loading, finished)
    assert slot.loaded
    assert slot.loaded.model == third
    assert opener.asked.count("3") == 1


async def test_a_refusal_outlives_the_load_that_was_under_way(slot: ModelSlot, opener: Opener, tmp_path: Path) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(first)
    opener.go_on.clear()
    wish = asyncio.create_task(slot.want(second))
    await opener.was_asked(2)
    slot.refuse("no such key")
    opener.go_on.set()
    await wish
    assert slot.loaded
    assert (slot.loaded.model, slot.load_error) == (second, "no such key")
    await slot.want(first)
    assert slot.load_error is None


async def test_wanting_nothing_takes_the_model_away(slot: ModelSlot, tmp_path: Path) -> None:
    await slot.want(served(tmp_path, "1"))
    await slot.want(None)
    assert slot.loaded is None
    assert slot.load_error is None


async def test_a_refused_configuration_changes_nothing_but_the_reason(slot: ModelSlot, tmp_path: Path) -> None:
    first = served(tmp_path, "1")
    await slot.want(first)
    slot.refuse("no such key")
    assert slot.loaded
    assert (slot.loaded.model, slot.wanted, slot.load_error) == (first, first, "no such key")


async def test_a_new_replica_takes_what_its_peers_served_last(slot: ModelSlot, opener: Opener, tmp_path: Path) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(first)
    shutil.rmtree(tmp_path / "2")
    await slot.want(second)

    peer = ModelSlot(opener, tmp_path / "memory" / "app.json", lambda succeeded: None)
    await peer.want(second)
    assert peer.loaded
    assert (peer.loaded.model, peer.wanted) == (first, second)
    assert "does not load" in str(peer.load_error)


async def test_a_replica_that_comes_with_an_earlier_configuration_does_not_change_what_is_remembered_for_long(
    slot: ModelSlot, opener: Opener, tmp_path: Path
) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(second)
    late = ModelSlot(opener, tmp_path / "memory" / "app.json", lambda succeeded: None)
    await late.want(first)
    await slot.remember()
    assert ServedModel.read(tmp_path / "memory" / "app.json") == second
    await slot.want(first.model_copy(update={"sha256": "0" * 64}))
    await slot.remember()  # what is wanted does not answer: nothing to remember
    assert ServedModel.read(tmp_path / "memory" / "app.json") == second


@pytest.mark.parametrize("memory", [None, "", "{}"])
async def test_without_a_memory_it_serves_nothing(slot: ModelSlot, tmp_path: Path, memory: str | None) -> None:
    if memory is not None:
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "app.json").write_text(memory)
    await slot.want(served(tmp_path, "1").model_copy(update={"sha256": "0" * 64}))
    assert slot.loaded is None
    assert "does not load" in str(slot.load_error)


async def test_a_bundle_that_comes_late_is_loaded_without_another_wish(
    slot: ModelSlot, tmp_path: Path, outcomes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "FIRST_RETRY_SECONDS", 0.01)
    model = served(tmp_path, "1")
    (tmp_path / "1").rename(tmp_path / "away")
    await slot.want(model)
    assert slot.loaded is None
    while len(outcomes) < 3:
        await asyncio.sleep(0.005)
    (tmp_path / "away").rename(tmp_path / "1")
    while slot.loaded is None:
        await asyncio.sleep(0.005)
    assert (slot.loaded.model, slot.load_error) == (model, None)
    assert outcomes.count(True) == 1


async def test_a_later_wish_ends_the_retries_of_an_earlier_one(
    slot: ModelSlot, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "FIRST_RETRY_SECONDS", 0.01)
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    shutil.rmtree(tmp_path / "2")
    await slot.want(second)
    await slot.want(first)
    asked = len(opener.asked)
    await asyncio.sleep(0.1)
    assert len(opener.asked) == asked
    assert slot.loaded
    assert slot.loaded.model == first


# --- the candidate ----------------------------------------------------------------------------------------------------


async def test_a_candidate_is_loaded_beside_the_model_and_becomes_it_without_loading_again(
    slot: ModelSlot, opener: Opener, outcomes: list[bool], tmp_path: Path
) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(first, Shadow(model=second))
    assert slot.loaded
    assert slot.candidate.loaded
    assert (slot.loaded.model, slot.candidate.loaded.model) == (first, second)
    for percent in (10, 25):  # another way to try it, or another share, loads nothing
        await slot.want(first, Canary(percent=percent, model=second))
    predictor = slot.candidate.loaded.predictor
    await slot.want(second)
    assert (slot.loaded.model, slot.loaded.predictor) == (second, predictor)
    assert not any([slot.candidate.loaded, slot.candidate.wanted, slot.candidate.trial])
    assert sorted(opener.asked) == ["1", "2"]
    assert outcomes == [True, True]


async def test_a_candidate_that_is_taken_away_is_freed(slot: ModelSlot, opener: Opener, tmp_path: Path) -> None:
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(first, Canary(percent=10, model=second))
    assert slot.candidate.loaded
    old = weakref.ref(slot.candidate.loaded.predictor)
    await slot.want(first)
    await freed(old)
    assert sorted(opener.asked) == ["1", "2"]


async def test_the_candidate_before_does_not_judge_while_the_next_one_is_loaded(
    slot: ModelSlot, opener: Opener, tmp_path: Path
) -> None:
    first, second, third = (served(tmp_path, version) for version in "123")
    await slot.want(first, Canary(percent=99, model=second))
    opener.go_on.clear()
    wish = asyncio.create_task(slot.want(first, Canary(percent=99, model=third)))
    await opener.was_asked(3)
    assert slot.loaded
    assert slot.candidate.loaded is None
    assert slot.choose(slot.loaded, lambda: None).model is slot.loaded
    end = asyncio.create_task(slot.want(first))  # before it was there at all
    await asyncio.sleep(0.05)
    opener.go_on.set()
    await asyncio.gather(wish, end)
    assert (slot.candidate.loaded, slot.candidate.wanted) == (None, None)


async def test_a_candidate_that_comes_late_is_loaded_without_another_wish(
    slot: ModelSlot, tmp_path: Path, outcomes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "FIRST_RETRY_SECONDS", 0.01)
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    (tmp_path / "2").rename(tmp_path / "away")
    await slot.want(first, Canary(percent=10, model=second))
    assert slot.loaded
    assert slot.candidate.loaded is None
    assert "screw version 2" in str(slot.candidate.load_error)
    assert slot.load_error is None
    (tmp_path / "away").rename(tmp_path / "2")
    while slot.candidate.loaded is None:
        await asyncio.sleep(0.005)
    assert slot.candidate.load_error is None
    assert ServedModel.read(tmp_path / "memory" / "app.json") == first, "only a model is remembered"


async def test_a_candidate_that_takes_long_keeps_nobody_waiting(
    slot: ModelSlot, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "CANDIDATE_SECONDS", 0.05)
    first, second = served(tmp_path, "1"), served(tmp_path, "2")
    await slot.want(first)
    opener.go_on.clear()
    await slot.want(first, Canary(percent=10, model=second))
    assert slot.loaded
    assert slot.candidate.loaded is None
    opener.go_on.set()
    while slot.candidate.loaded is None:
        await asyncio.sleep(0.005)
    assert slot.candidate.loaded.model == second


async def test_a_candidate_of_another_name_than_what_answers_is_not_chosen(slot: ModelSlot, tmp_path: Path) -> None:
    bolt, second = served(tmp_path, "1", name="bolt"), served(tmp_path, "2")
    await slot.want(bolt)
    missing = second.model_copy(update={"version": "3", "uri": "file:///nowhere"})
    await slot.want(missing, Shadow(model=second))  # what is wanted does not load, so that bolt goes on answering
    assert slot.loaded
    assert slot.candidate.loaded
    assert slot.choose(slot.loaded, lambda: None).shadow is None
