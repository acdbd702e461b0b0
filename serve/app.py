"""The Ray Serve application: `import_path: serve.app:build` in an environment's `serve-config.yaml`."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from gitops import bundle
from gitops.arguments import ApplicationArguments
from gitops.contracts.serving import ServedModel, UserConfig
from gitops.environment import CLASSIFIER, MONITOR
from gitops.errors import ContractError
from gitops.status import Journal
from monitoring.metrics import DRIFT, DRIFT_SAMPLES, MODEL_LOADS, SERVING, Meters
from serve.assembly import assemble
from serve.endpoints import Endpoints, Limits
from serve.feedback import FeedbackFolder
from serve.grpc_service import InferenceService
from serve.lifecycle import START_SECONDS, STARTS, AnswerCheck, Change, Start
from serve.meters import RayMeters
from serve.monitor import DriftMonitor, Settings
from serve.predictor import Predictor
from serve.sampling import MOST_WAITING, Sampler
from serve.shadow import ShadowJudge
from serve.slot import ModelSlot
from serve.windows import WindowFolder
from serve.workers import Workers

log = logging.getLogger("ray.serve")

# Linux's lowest claim to the CPUs, for the thread that asks and those that it starts: requests come first.
_LEAST_CLAIM = 19
_MONITOR_OPTIONS: dict[str, Any] = {
    "ray_actor_options": {"num_cpus": 0},
    "max_ongoing_requests": 4 * MOST_WAITING,
    "max_constructor_retry_count": 3,  # one that does not start must not keep a new cluster from its requests for long
}


def session_folder() -> Path:
    """A folder for replicas, as long-lived as the cluster, and no other's.

    A fallback must not come from another environment.
    """
    runtime = ray.get_runtime_context()
    return Path(runtime.get_temp_dir(), runtime.get_session_name(), "mergeline")


def opener(arguments: ApplicationArguments, folder: Path) -> Callable[[ServedModel], Predictor]:
    """What fetches, loads and probes a model's bundle; copies of remote ones lie in `folder` if no cache is named."""
    cache = _cache(arguments, folder)

    def open_bundle(model: ServedModel) -> Predictor:
        predictor = Predictor.load(
            bundle.fetch(model.uri, model.sha256, cache),
            threads=arguments.threads,
            threads_alone=arguments.threads_alone,
        )
        predictor.probe()
        return predictor

    return open_bundle


class Classifier(InferenceService):
    """A replica: decodes and judges what it is sent, with the model that `user_config` names."""

    def __init__(self, arguments: ApplicationArguments, monitor: DeploymentHandle[Any] | None = None) -> None:
        context, folder = serve.get_replica_context(), session_folder()
        # Several wait for each other now and then (kornia-rs decodes under Python's lock): one more works meanwhile.
        # One alone has none to wait for: a second would only break up its pairs.
        self._workers = Workers(arguments.threads + 1 if arguments.threads > 1 else 1)
        self._check, self._change = AnswerCheck(), Change()
        meters = RayMeters((*SERVING, DRIFT_SAMPLES))
        self._slot = ModelSlot(
            opener(arguments, folder),
            memory=folder / f"{context.app_name}-{context.deployment}.json",
            on_load=lambda succeeded: meters.count(MODEL_LOADS, "loaded" if succeeded else "failed"),
        )
        shadow = ShadowJudge(meters, threads=arguments.threads, max_pixels=arguments.max_pixels)
        sampler = None
        if monitor is not None:
            hand_over = partial(_hand_over, monitor)
            sampler = Sampler(hand_over, meters, seconds=arguments.sample_seconds)
        self._endpoints = Endpoints(
            self._slot, Limits.of(arguments), self._workers, meters, context.replica_tag, shadow, sampler
        )
        self._app = assemble(
            self._endpoints,
            context.app_name,
            journal=Journal.at(Path(arguments.journal).expanduser()) if arguments.journal else None,
            feedback=FeedbackFolder(Path(arguments.feedback).expanduser()) if arguments.feedback else None,
            prometheus=arguments.prometheus,
            windows=_windows(arguments.windows, context.app_name) if arguments.windows else None,
        )
        self._start = Start()
        cv2.setNumThreads(1)  # the workers' threads are the parallelism

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        return self._app

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Serve and try what `user_config` names.

        Raises:
            MergelineError: the replica is new, and has nothing to answer with.
        """
        try:
            config = UserConfig.parse(user_config, "user_config of Classifier")
        except ContractError as error:
            self._slot.refuse(str(error))
        else:
            await self._change(self._slot.want(config.model, config.trial), answers=self._slot.loaded is not None)
        if not self._start.is_over and self._slot.loaded is None:
            await self._slot.retried(START_SECONDS)
            if self._slot.load_error:
                self._start.refuse(self._slot.load_error)
        self._start.is_over = True

    async def check_health(self) -> None:
        """Raise if the model no longer answers; a replica without one is healthy, and tells why it has none."""
        self._start.check()
        await self._slot.remember()
        if self._slot.loaded:
            await self._check(self._slot.loaded.predictor)

    # --- gRPC ---------------------------------------------------------------------------------------------------------

    async def endpoints_of(self, name: str) -> Endpoints:  # noqa: ARG002 - they say themselves which name they know
        """What answers for every model that is asked for."""
        return self._endpoints

    async def endpoints_to_judge(self, name: str) -> Endpoints:
        """What answers every request to judge."""
        return await self.endpoints_of(name)

    def is_ready(self) -> bool:
        """Whether a model is served."""
        return self._slot.loaded is not None

    @property
    def meters(self) -> Meters:
        """Where refusals are counted."""
        return self._endpoints.meters


class Monitor:
    """Watches what the replicas answer, beside them: whatever becomes of it, they go on answering."""

    def __init__(self, arguments: ApplicationArguments) -> None:
        os.nice(_LEAST_CLAIM)
        application, cache = serve.get_replica_context().app_name, _cache(arguments, session_folder())
        self._pool = ThreadPoolExecutor(1, "monitor")
        self._monitor = DriftMonitor(
            WindowFolder(_windows(str(arguments.windows), application), arguments.windows_kept),
            application,
            lambda model: Predictor.load(bundle.fetch(model.uri, model.sha256, cache)),
            RayMeters(tuple(metric for metric in DRIFT if metric is not DRIFT_SAMPLES)),
            Settings(
                window_seconds=3600 * arguments.window_hours,
                photographs=arguments.window_photographs,
                max_pixels=arguments.max_pixels,
            ),
            Path(arguments.feedback).expanduser() if arguments.feedback else None,
        )
        cv2.setNumThreads(1)

    async def take(self, model: ServedModel, photograph: bytes) -> bool:
        """Measure a photograph that a model has judged; False if it is of no use."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._monitor.take, model, photograph)

    async def check_health(self) -> None:
        """Called now and then by Ray Serve: what has waited long enough is judged. Never raises."""
        # Nobody waits for it: behind photographs it may take a while.
        self._pool.submit(self._monitor.look_round)


async def _hand_over(monitor: "DeploymentHandle[Any]", model: ServedModel, photograph: bytes) -> bool:
    response = monitor.take.remote(model, photograph)
    try:
        return bool(await response)
    except asyncio.CancelledError:  # it took too long
        response.cancel()  # type: ignore[no-untyped-call]
        raise


def _windows(folder: str, application: str) -> Path:
    return Path(folder).expanduser() / application


def _cache(arguments: ApplicationArguments, folder: Path) -> Path:
    return Path(arguments.cache).expanduser() if arguments.cache else folder / "bundles"


def deployment_of(replica: type[InferenceService], name: str) -> serve.Deployment:
    """The deployment of this name whose replicas are made by `replica`, which is given its arguments by `bind`."""
    # The surge keeps the old replica answering where the constructor of a new one fails.
    as_deployment = serve.deployment(name=name, max_surge_percent=100, max_constructor_retry_count=STARTS)
    deployment: serve.Deployment = as_deployment(serve.ingress()(replica))
    return deployment


def build(args: Mapping[str, object]) -> serve.Application:
    """The application of an environment's `args`.

    Raises:
        ContractError: an argument is unknown or wrong.
    """
    arguments = ApplicationArguments.parse(args, "args of serve.app:build")
    deployment = deployment_of(Classifier, CLASSIFIER)
    if arguments.windows is None:
        return deployment.bind(arguments)
    as_monitor = serve.deployment(name=MONITOR, max_surge_percent=100, **_MONITOR_OPTIONS)
    return deployment.bind(arguments, as_monitor(Monitor).bind(arguments))
