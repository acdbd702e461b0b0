"""What a replica says of itself below the Open Inference Protocol's paths: whether it is ready, and with what."""

from importlib.metadata import version as package_version
from typing import Any

from gitops.wire import WantedModel
from serve import tensors
from serve.choosing import Judges
from serve.protocol import Liveness, ModelMetadata, Readiness, ServerMetadata
from serve.slot import Loaded, ModelSlot


class Metadata:
    """Answers at the protocol's paths that judge nothing.

    Args:
        slot: what it is said of.
        judges: over the same slot.
        replica: this replica's id, as Ray Serve's REST API lists it.
    """

    def __init__(self, slot: ModelSlot, judges: Judges, replica: str) -> None:
        self._slot = slot
        self._judges = judges
        self._replica = replica

    async def live(self) -> Liveness:
        """Whether the process answers."""
        return Liveness()

    async def ready(self) -> Readiness:
        """Whether a model is served; 503 with the reason if not."""
        model = self._judges.serving().model
        return Readiness(name=model.name, version=model.version)

    async def server(self) -> ServerMetadata:
        """What this server is."""
        return server_metadata()

    async def model_version(self, name: str, version: str) -> ModelMetadata:
        """What this replica serves in a version of a model; 503 with the reason if it is only wanted."""
        return self._metadata(name, self._judges.served(name, version))

    async def model(self, name: str) -> ModelMetadata:
        """What this replica serves under a name, what it should serve, and why the two differ."""
        slot = self._slot
        loaded = slot.loaded if slot.loaded and slot.loaded.model.name == name else None
        if loaded is None and (slot.wanted is None or slot.wanted.name != name):
            raise self._judges.unknown(name)
        return self._metadata(name, loaded)

    def _metadata(self, name: str, loaded: Loaded | None) -> ModelMetadata:
        slot = self._slot
        wanted = slot.wanted if slot.wanted and slot.wanted.name == name else None
        return ModelMetadata(
            name=name,
            versions=tuple(held.model.version for held in self._judges.loaded() if held.model.name == name),
            version=loaded.model.version if loaded else None,
            sha256=loaded.predictor.digest if loaded else None,
            replica=self._replica,
            wanted=WantedModel.of(wanted) if wanted else None,
            load_error=slot.load_error,
            trial=slot.candidate.metadata,
            **(_description(loaded) if loaded else {}),
        )

    async def model_ready(self, name: str) -> Readiness:
        """Whether this model is served; 503 with the reason if not."""
        return Readiness(name=name, version=self._judges.served(name, "").model.version)

    async def version_ready(self, name: str, version: str) -> Readiness:
        """Whether this version is served; 503 with the reason if it is only wanted."""
        return Readiness(name=name, version=self._judges.served(name, version).model.version)


def server_metadata() -> ServerMetadata:
    """What this server is."""
    extensions = ("binary_tensor_data",)
    return ServerMetadata(name="mergeline", version=package_version("mergeline"), extensions=extensions)


def _description(loaded: Loaded) -> dict[str, Any]:
    manifest = loaded.predictor.manifest
    return {
        "inputs": tensors.inputs(),
        "outputs": tensors.outputs(manifest.classes),
        "classes": manifest.classes,
        "threshold": manifest.threshold.value,
    }
