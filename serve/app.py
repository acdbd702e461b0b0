"""The Ray Serve application: `import_path: serve.app:build` in an environment's `serve-config.yaml`."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import ray
from fastapi import FastAPI
from pydantic import Field, field_validator
from ray import serve

from gitops import bundle
from gitops.errors import ContractError
from gitops.manifest import Contract, ServedModel, UserConfig
from gitops.status import Journal
from monitoring.metrics import MODEL_LOADS, SERVING
from serve.assembly import assemble
from serve.endpoints import Endpoints, Limits
from serve.feedback import FeedbackFolder
from serve.grpc_service import InferenceService
from serve.meters import RayMeters
from serve.predictor import Predictor
from serve.preprocess import MAX_BYTES, MAX_PIXELS
from serve.shadow import ShadowJudge
from serve.slot import ModelSlot

DEPLOYMENT = "Classifier"
"""The deployment's name; environments configure it by this."""

# A replica runs in whatever folder Ray gives it.
_ABSOLUTE = r"^[/~]"


class ApplicationArguments(Contract):
    """`args` of the application: a change restarts its replicas."""

    max_bytes: int = Field(default=MAX_BYTES, ge=1, description="Largest file of a photograph, in bytes.")
    max_request_bytes: int = Field(
        default=4 * MAX_BYTES, ge=1, description="Largest form or inference request, in bytes."
    )
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, description="Largest photograph, in pixels.")
    max_files: int = Field(default=16, ge=1, description="Most images of one request.")
    threads: int = Field(default=2, ge=1, le=64, description="Requests that a replica decodes and judges at once.")
    cache: str | None = Field(
        default=None, description="Folder for bundles of remote stores; unset: one that lasts as long as Ray's session."
    )
    feedback: str | None = Field(
        default=None, pattern=_ABSOLUTE, description="Folder that keeps what users say of judgements; unset: nothing."
    )
    journal: str | None = Field(
        default=None,
        pattern=_ABSOLUTE,
        description="The reconciler's folder of this environment, <state>/reconciler/<environment>; unset: the page "
        "shows only what a replica knows by itself.",
    )
    prometheus: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="URL of the Prometheus that has this service's metrics; unset: that of `mergeline monitor up` for "
        "the journal's state folder, or else a replica's own figures.",
    )

    @field_validator("journal")
    @classmethod
    def _is_a_journal(cls, value: str | None) -> str | None:
        # Now, and not in the constructor of each replica, which Serve would start again and again.
        if value is not None:
            try:
                Journal.at(Path(value))
            except ContractError as error:
                raise ValueError(str(error)) from None
        return value


def session_folder() -> Path:
    """A folder for replicas, as long-lived as the cluster, and no other's.

    A fallback must not come from another environment.
    """
    runtime = ray.get_runtime_context()
    return Path(runtime.get_temp_dir(), runtime.get_session_name(), "mergeline")


def opener(arguments: ApplicationArguments, folder: Path) -> Callable[[ServedModel], Predictor]:
    """What fetches, loads and probes a model's bundle; copies of remote ones lie in `folder` if no cache is named."""
    cache = Path(arguments.cache).expanduser() if arguments.cache else folder / "bundles"

    def open_bundle(model: ServedModel) -> Predictor:
        predictor = Predictor.load(bundle.fetch(model.uri, model.sha256, cache), threads=arguments.threads)
        predictor.probe()
        return predictor

    return open_bundle


async def blank_predicted(predictor: Predictor, executor: Executor) -> None:
    """Let a model judge a blank image; whatever it raises is raised.

    Not the bundle's probe, whose file may be gone by now.
    """
    settings = predictor.manifest.preprocessing
    blank = np.zeros((1, settings.height, settings.width, settings.channels), np.uint8)
    await asyncio.get_running_loop().run_in_executor(executor, predictor.predict, blank)


class Classifier(InferenceService):
    """A replica: decodes and judges what it is sent, with the model that `user_config` names."""

    def __init__(self, arguments: ApplicationArguments) -> None:
        context, folder = serve.get_replica_context(), session_folder()
        self._pool = ThreadPoolExecutor(arguments.threads, "judge")
        self._health = ThreadPoolExecutor(1, "health")
        meters = RayMeters(SERVING)
        self._slot = ModelSlot(
            opener(arguments, folder),
            memory=folder / f"{context.app_name}-{context.deployment}.json",
            on_load=lambda succeeded: meters.count(MODEL_LOADS, "loaded" if succeeded else "failed"),
        )
        limits = Limits(**arguments.model_dump(include=set(Limits.__dataclass_fields__)))
        shadow = ShadowJudge(meters, threads=arguments.threads, max_pixels=arguments.max_pixels)
        self._endpoints = Endpoints(self._slot, limits, self._pool, meters, context.replica_tag, shadow)
        self._app = assemble(
            self._endpoints,
            context.app_name,
            journal=Journal.at(Path(arguments.journal).expanduser()) if arguments.journal else None,
            feedback=FeedbackFolder(Path(arguments.feedback).expanduser()) if arguments.feedback else None,
            prometheus=arguments.prometheus,
        )
        cv2.setNumThreads(1)  # the pool's threads are the parallelism

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        return self._app

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Serve and try what `user_config` names; never raises, as Ray Serve would stop a replica that answers."""
        try:
            config = UserConfig.parse(user_config, "user_config of Classifier")
        except ContractError as error:
            self._slot.refuse(str(error))
            return
        await self._slot.want(config.model, config.trial)

    async def check_health(self) -> None:
        """Raise if the model no longer answers; a replica without one is healthy, and tells why it has none."""
        await self._slot.remember()
        if self._slot.loaded:
            # Not behind requests: a busy replica would be replaced by another that is as busy.
            await blank_predicted(self._slot.loaded.predictor, self._health)


def build(args: Mapping[str, object]) -> serve.Application:
    """The application of an environment's `args`.

    Raises:
        ContractError: an argument is unknown or wrong.
    """
    arguments = ApplicationArguments.parse(args, "args of serve.app:build")
    # The surge keeps the old replica answering where the constructor of a new one fails.
    as_deployment = serve.deployment(name=DEPLOYMENT, max_surge_percent=100)
    deployment: serve.Deployment = as_deployment(serve.ingress()(Classifier))
    return deployment.bind(arguments)
