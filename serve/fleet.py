"""Many models in one Ray Serve application: `import_path: serve.fleet:build` in an environment's `serve-config.yaml`.

Each model has the whole interface of `serve.app` below `/models/{name}`; `/v2/models/{name}` and
`/predict?model={name}` lead there too. It is loaded by the first request for it, one of them when a replica starts; as
many as `max_models` stay in a replica's memory.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
from fastapi import FastAPI, Request, Response
from ray import serve
from starlette.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from gitops.arguments import FleetArguments
from gitops.contracts.serving import FleetConfig
from gitops.environment import FLEET, MEMBERS
from gitops.errors import ContractError
from gitops.status import Journal
from gitops.wire import FleetMetadata
from monitoring.metrics import MODEL_LOADS, REQUESTS, SERVING, Meters, Outcome
from serve.app import deployment_of, opener, session_folder
from serve.assembly import assemble
from serve.endpoints import Endpoints, Limits
from serve.errors import PROTOCOL, answer_errors
from serve.feedback import FEEDBACK, FeedbackFolder
from serve.grpc_service import InferenceService
from serve.lifecycle import START_SECONDS, AnswerCheck, Change, Start
from serve.members import Loader, Member, Members
from serve.metadata import server_metadata
from serve.meters import RayMeters
from serve.pages import HEADERS, add_files
from serve.protocol import FleetReadiness, Liveness, ModelMetadata, Readiness, RequestError, ServerMetadata
from serve.routes import METADATA, MODEL, PREDICT, VERSION, inferring, new_application
from serve.shadow import ShadowJudge
from serve.slot import ModelSlot
from serve.workers import Workers

_METHODS = ["GET", "HEAD", "POST"]
_JUDGING = ("/predict", "/infer")
_INDEX_HEAD = (
    "<!doctype html><html lang=en><meta charset=utf-8>"
    '<meta name=viewport content="width=device-width, initial-scale=1"><meta name=color-scheme content="light dark">'
    "<title>Mergeline</title><link rel=icon href=page/icon.svg><link rel=stylesheet href=page/page.css>"
    "<script src=page/theme.js></script>"
)


class Fleet(InferenceService):
    """A replica: judges what it is sent with the model that a request names, of those that `user_config` names."""

    def __init__(self, arguments: FleetArguments) -> None:
        context = serve.get_replica_context()
        self._arguments, self._name, self._replica = arguments, context.app_name, context.replica_tag
        self._folder = session_folder()
        self._open_bundle = opener(arguments, self._folder)
        self._workers = Workers(arguments.threads)
        self._check, self._change = AnswerCheck(), Change()
        self._start = Start()
        self._meters = RayMeters(SERVING, model="")
        self._members = Members(self._member, self._multiplexed, self._unanswered)
        cv2.setNumThreads(1)  # the workers' threads are the parallelism

    def _multiplexed(self, load: Loader) -> Loader:
        """Ray Serve's own keeping of models: bounded, and the least recently used goes first."""

        async def load_model(name: str) -> Member:
            return await load(name)

        kept: Loader = serve.multiplexed(max_num_models_per_replica=self._arguments.max_models)(load_model)
        return kept

    def _unanswered(self, name: str, outcome: Outcome) -> None:
        self._meters.with_labels(model=name).count(REQUESTS, outcome, "none")

    def _member(self, name: str) -> Member:
        """A member without a model yet."""
        meters, arguments = self._meters.with_labels(model=name), self._arguments
        slot = ModelSlot(
            self._open_bundle,
            memory=self._folder / f"{self._name}-{FLEET}-{name}.json",
            on_load=lambda succeeded: meters.count(MODEL_LOADS, "loaded" if succeeded else "failed"),
        )
        shadow = ShadowJudge(meters, threads=arguments.threads, max_pixels=arguments.max_pixels)
        endpoints = Endpoints(slot, Limits.of(arguments), self._workers, meters, self._replica, shadow)
        app = assemble(
            endpoints,
            f"{self._name}/{name}",
            journal=Journal.at(Path(arguments.journal).expanduser()) if arguments.journal else None,
            feedback=FeedbackFolder(Path(arguments.feedback).expanduser() / name) if arguments.feedback else None,
            prometheus=arguments.prometheus,
            labels={"application": self._name, "model": name},
        )
        return Member(slot, endpoints, app)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        return application(FleetEndpoints(self._members, self._replica, self._arguments.max_models), self._meters)

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Serve what `user_config` names.

        Raises:
            MergelineError: the replica is new, and cannot read it, or none of its models loads.
        """
        try:
            config = FleetConfig.parse(user_config, "user_config of Fleet")
        except ContractError as error:
            if not self._start.is_over:
                self._start.refuse(str(error))
            self._members.load_error = str(error)
        else:
            await self._change(self._members.want(config.models), answers=bool(self._members.wanted))
        if not self._start.is_over and (reason := await self._members.load_any(START_SECONDS)):
            self._start.refuse(reason)
        self._start.is_over = True

    async def check_health(self) -> None:
        """Raise if the model that was asked for last no longer answers; a replica without one is healthy."""
        self._start.check()
        member = self._members.latest
        loaded = member.slot.loaded if member else None
        if member and loaded:
            await member.slot.remember()
            await self._check(loaded.predictor)

    # --- gRPC ---------------------------------------------------------------------------------------------------------

    async def endpoints_of(self, name: str) -> Endpoints:
        """What answers for a model, loaded if need be."""
        return (await self._members.get(name)).endpoints

    async def endpoints_to_judge(self, name: str) -> Endpoints:
        """What answers a request to judge for a model, loaded if need be; one that nothing answers is measured."""
        return (await self._members.to_judge(name)).endpoints

    def is_ready(self) -> bool:
        """Whether there are models to ask for."""
        return bool(self._members.wanted)

    @property
    def meters(self) -> Meters:
        """Where refusals are counted that no model has to do with."""
        return self._meters


class _HandedOn(Response):
    """An answer that a member's own application gives."""

    def __init__(self, member: Member, root_path: str) -> None:
        super().__init__()
        self._member = member
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._member.app({**scope, "root_path": self._root_path, "path_params": {}}, receive, send)


@dataclass(frozen=True)
class FleetEndpoints:
    """What answers at a fleet's own paths; what is asked of one model is handed on to that model's application."""

    members: Members
    replica: str
    """This replica's id, as Ray Serve's REST API lists it."""
    max_models: int
    """Most models that this replica holds in memory."""

    async def fleet(self) -> FleetMetadata:
        """The models of the fleet, and which of them are in memory here; none is loaded for it."""
        return FleetMetadata(
            replica=self.replica,
            max_models=self.max_models,
            models=self.members.facts(),
            load_error=self.members.load_error,
        )

    async def live(self) -> Liveness:
        """Whether the process answers."""
        return Liveness()

    async def ready(self) -> FleetReadiness:
        """Whether there are models to ask for; 503 if not."""
        if not self.members.wanted:
            reason = self.members.load_error or "no model is wanted here: promote one to this environment"
            raise RequestError(503, reason)
        return FleetReadiness()

    async def server(self) -> ServerMetadata:
        """What this server is."""
        return server_metadata()

    async def index(self) -> Response:
        """A page with a link to each model's own."""
        links = "".join(
            f'<li><a href="models/{name}/">{name}</a> <span class=soft>v{model.version}</span>'
            for name, model in ((html.escape(name), model) for name, model in self.members.wanted.items())
        )
        body = f"<main class=reference><h1>Models</h1><ul class=models>{links or '<li>None yet.'}</ul></main>"
        return Response(_INDEX_HEAD + body, 200, HEADERS, "text/html; charset=utf-8")

    async def to_page(self, name: str) -> Response:
        """To the model's own page: below a path that ends with a slash its relative addresses are right."""
        return RedirectResponse(f"{name}/", 307)

    async def named_by_query(self, request: Request, model: str = "") -> Response:
        """Judge photographs, or take feedback on one, as the model `model` does."""
        if not model:
            path = request.scope["path"]
            raise RequestError(400, f"say which model is meant: {path}?model=NAME; GET /fleet lists them")
        return await self._handed_on(request, model)

    async def model(self, request: Request, name: str) -> Response:
        """What the model's own application answers at this path; it is loaded for it."""
        return await self._handed_on(request, name)

    async def version(self, request: Request, name: str, version: str) -> Response:  # noqa: ARG002 - the path has it
        """What the model's own application answers at this path; it is loaded for it."""
        return await self._handed_on(request, name)

    async def below(self, request: Request, name: str) -> Response:
        """What the model's own application answers at the rest of this path."""
        return await self._handed_on(request, name, below=f"{MEMBERS}/{name}")

    async def _handed_on(self, request: Request, name: str, below: str = "") -> Response:
        """The answer of a model's own application, which takes itself to lie at `below` of this one."""
        judges = request.method == "POST" and request.scope["path"].endswith(_JUDGING)
        member = await (self.members.to_judge(name) if judges else self.members.get(name))
        return _HandedOn(member, f"{request.scope.get('root_path', '')}{below}")


def application(endpoints: FleetEndpoints, meters: Meters) -> FastAPI:
    """The ASGI application over a replica's members."""
    app = new_application(
        f"Judges photographs of parts, with many models: each has the whole interface below {MEMBERS}/{{name}}, "
        f"described at {MEMBERS}/{{name}}/docs."
    )
    app.add_api_route("/fleet", endpoints.fleet, methods=["GET"])
    app.add_api_route(PROTOCOL, endpoints.server, **METADATA)
    app.add_api_route(f"{PROTOCOL}/health/live", endpoints.live, **METADATA)
    app.add_api_route(f"{PROTOCOL}/health/ready", endpoints.ready, **METADATA)
    app.add_api_route("/predict", endpoints.named_by_query, **PREDICT)
    app.add_api_route("/feedback", endpoints.named_by_query, **FEEDBACK)
    app.add_api_route(MODEL, endpoints.model, **METADATA, response_model=ModelMetadata)
    app.add_api_route(f"{MODEL}/ready", endpoints.model, **METADATA, response_model=Readiness)
    app.add_api_route(f"{MODEL}/infer", endpoints.model, **inferring(version_in_path=False))
    app.add_api_route(VERSION, endpoints.version, **METADATA, response_model=ModelMetadata)
    app.add_api_route(f"{VERSION}/ready", endpoints.version, **METADATA, response_model=Readiness)
    app.add_api_route(f"{VERSION}/infer", endpoints.version, **inferring(version_in_path=True))
    app.add_api_route("/", endpoints.index, methods=["GET", "HEAD"], include_in_schema=False)
    for path, endpoint in (
        (MODEL, endpoints.model),  # whatever else there is, and other methods
        (f"{MODEL}/{{rest:path}}", endpoints.model),
        (f"{MEMBERS}/{{name}}", endpoints.to_page),
        (f"{MEMBERS}/{{name}}/{{rest:path}}", endpoints.below),
    ):
        app.add_api_route(path, endpoint, methods=_METHODS, include_in_schema=False)
    add_files(app)
    answer_errors(app, meters, lambda: None)
    return app


def build(args: Mapping[str, object]) -> serve.Application:
    """The application of an environment's `args`.

    Raises:
        ContractError: an argument is unknown or wrong.
    """
    arguments = FleetArguments.parse(args, "args of serve.fleet:build")
    return deployment_of(Fleet, FLEET).bind(arguments)
