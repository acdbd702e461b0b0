"""Which version judges a request: the model that answers, a candidate beside it, or the one that is named."""

from collections.abc import Callable

from gitops.contracts.serving import ServedModel
from serve.protocol import RequestError
from serve.slot import Chosen, Loaded, ModelSlot, Slot

RETRY_AFTER_SECONDS = 5
"""What a 503 tells the client to wait."""


class Judges:
    """The versions that a replica has and should have, and who of them judges.

    Args:
        slot: holds them.
    """

    def __init__(self, slot: ModelSlot) -> None:
        self._slot = slot

    def choose(self, name: str, version: str, client: Callable[[], str | None], *, counts: bool) -> Chosen:
        """Who judges a request: the version that it names; else the model, or the candidate if that has its turn.

        Args:
            name: of the model.
            version: empty: none is named.
            client: says who asks; None: nobody knows.
            counts: whether the request's photographs do; of those that do not, no shadow judges any.

        Raises:
            RequestError: 404, there is no such model or version; 503, it is wanted and not loaded.
        """
        loaded = self.served(name, version)
        chosen = Chosen(loaded) if version else self._slot.choose(loaded, client)
        return chosen if counts else Chosen(chosen.model, counts=False)

    def name_of(self, version: str) -> str:
        """The name of the model that a request means which names none, and perhaps a version (empty: none).

        Raises:
            RequestError: 503, nothing answers.
        """
        # A candidate can be asked for while the model itself is not there.
        meant = [model.name for model in self._models() if model.version == version]
        return meant[0] if meant else self.serving().model.name

    def served(self, name: str, version: str) -> Loaded:
        """The model of a name; or the model or candidate of a version, unless that is empty.

        Raises:
            RequestError: 404, there is none; 503, it is wanted and not loaded.
        """
        self._expect(name, version)
        for loaded in self.loaded() if version else filter(None, [self._slot.loaded]):
            if loaded.model.name == name and version in ("", loaded.model.version):
                return loaded
        tried = self._slot.candidate
        meant = tried if tried.wanted and tried.wanted.version == version else self._slot
        raise unavailable(meant, another_answers=self._slot.loaded is not None)

    def serving(self) -> Loaded:
        """The model that answers.

        Raises:
            RequestError: 503, there is none; the reason says why.
        """
        if self._slot.loaded is None:
            raise unavailable(self._slot, another_answers=False)
        return self._slot.loaded

    def loaded(self) -> list[Loaded]:
        """The model that answers and the candidate, as far as they are loaded."""
        return [loaded for loaded in (self._slot.loaded, self._slot.candidate.loaded) if loaded]

    def knows(self, version: str) -> bool:
        """Whether a model or a candidate of this version has been loaded here, now or before."""
        return version in self._slot.versions or version in self._slot.candidate.versions

    def classes(self, version: str = "") -> tuple[str, ...]:
        """The classes of the version that judged, where it is here still; else of the model, then the candidate's.

        Args:
            version: of the model or the candidate; empty, or another one: nobody in particular.

        Raises:
            RequestError: 503, neither is there.
        """
        loaded = self.loaded()
        judges = [judge for judge in loaded if judge.model.version == version] or loaded or [self.serving()]
        known = (judge.predictor.manifest.classes for judge in judges)
        return tuple(dict.fromkeys(label for classes in known for label in classes))

    def unknown(self, name: str) -> RequestError:
        """The error of a request for a model that is neither served nor tried nor wanted here."""
        known = ", ".join(sorted({model.name for model in self._models()})) or "none"
        return RequestError(404, f"there is no model {name!r} here; known: {known}")

    def _expect(self, name: str, version: str) -> None:
        models = [model for model in self._models() if model.name == name]
        if not models:
            raise self.unknown(name)
        versions = sorted({model.version for model in models})
        if version and version not in versions:
            raise RequestError(404, f"there is no version {version!r} of {name} here; known: {', '.join(versions)}")

    def _models(self) -> list[ServedModel]:
        """What is served or tried, and what is wanted."""
        wanted = (self._slot.wanted, self._slot.candidate.wanted)
        return [*(loaded.model for loaded in self.loaded()), *(model for model in wanted if model)]


def unavailable(slot: Slot, *, another_answers: bool) -> RequestError:
    """The error of a request for what a slot wants and has not."""
    if slot.load_error:
        reason = slot.load_error if another_answers else f"no model is served: {slot.load_error}"
    elif slot.wanted:
        reason = f"{slot.wanted.name} version {slot.wanted.version} is being loaded: try again soon"
    else:
        reason = "no model is wanted here: promote one to this environment"
    return RequestError(503, reason, {"Retry-After": str(RETRY_AFTER_SECONDS)})
