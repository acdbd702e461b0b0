"""The HTTP interface of a replica: routes over a model slot, without Ray in them."""

import asyncio
import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version as package_version
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message, Scope

from gitops.manifest import VERSION_HEADER, Contract, ServedModel
from gitops.wire import WantedModel
from monitoring import metrics
from monitoring.metrics import Meters, Outcome, RequestStage
from serve import inference, tensors
from serve.envelope import Envelope
from serve.inference import Answer, Asked, InferenceAnswer
from serve.predictor import Judgement
from serve.preprocess import ImageError
from serve.protocol import (
    CLIENT_HEADER,
    ErrorAnswer,
    ErrorDetail,
    ExplainedAnswer,
    Explanation,
    FormAnswer,
    ImageAnswer,
    InferenceError,
    JudgedFile,
    Liveness,
    ModelMetadata,
    Point,
    Readiness,
    RefusedFile,
    RequestError,
    ServerMetadata,
)
from serve.recent import Recent
from serve.sampling import Sampler
from serve.shadow import ShadowJudge
from serve.slot import Chosen, Loaded, ModelSlot, Slot
from serve.tensors import Verdict
from serve.trace import Trace

T = TypeVar("T")

HEATMAP = "heatmap"
"""What `explain` may be."""
PROTOCOL = "/v2"
"""Where the Open Inference Protocol's paths begin."""
RETRY_AFTER_SECONDS = 5
"""What a 503 tells the client to wait."""
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"files": {"type": "array", "items": _BYTES["schema"]}}}
REQUEST_BODY = {
    "required": True,
    "description": "A PNG, JPEG, BMP or TIFF file as it is, under any content type; or a form with several of them.",
    "content": {"application/octet-stream": _BYTES, "image/*": _BYTES, "multipart/form-data": {"schema": _FILES}},
}
"""What OpenAPI shall say of the bodies of `/predict`."""


_EXPLAIN = {
    "name": "explain",
    "in": "query",
    "schema": {"type": "string", "enum": [HEATMAP]},
    "description": "Answer with the photograph, coloured where the evidence is; with `Accept: application/json` inside "
    "of the JSON answer, which also says where it is strongest.",
}


_WHO_JUDGES = [
    {
        "name": VERSION_HEADER,
        "in": "header",
        "schema": {"type": "string", "pattern": r"^[1-9][0-9]{0,8}$"},
        "description": "The version that shall judge, of the model and the candidate beside it; without it, as below.",
    },
    {
        "name": CLIENT_HEADER,
        "in": "header",
        "schema": {"type": "string"},
        "description": "Who asks: a canary answers the same clients each time; those who do not say so, by chance.",
    },
]


@dataclass(frozen=True)
class Limits:
    """What a request may bring."""

    max_bytes: int
    """Of one photograph's file."""
    max_request_bytes: int
    """Of a whole form or inference request."""
    max_pixels: int
    """Of one photograph."""
    max_files: int
    """Of a form or inference request."""


@dataclass(frozen=True)
class Endpoints:
    """What answers at each path; `application` says which is where."""

    slot: ModelSlot
    limits: Limits
    pool: Executor
    """Decodes and predicts; the event loop only reads and writes."""
    meters: Meters
    replica: str
    """This replica's id, as Ray Serve's REST API lists it."""
    shadow: ShadowJudge
    """Judges afterwards what a shadow shall see."""
    sampler: Sampler | None = None
    """Hands some of the photographs to the monitor; None: there is none."""
    recent: Recent = field(default_factory=Recent)
    """What became of the latest requests."""

    async def predict(self, request: Request) -> Response:
        """Judge a photograph (the body is its file), or those of a form (multipart/form-data)."""
        request.state.trace = trace = Trace()
        self.served(*self._named(request))  # without who shall judge there is no need to read the body
        explained = _explanation_asked(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            if explained:
                raise RequestError(400, f"explain={HEATMAP} takes one photograph, sent as it is: send them one by one")
            return await self._predict_form(request)
        if kind.startswith("multipart/"):
            raise RequestError(415, f"{kind} is not accepted: send multipart/form-data, or the image's bytes alone")
        data = await limited(request, self.limits.max_bytes).body()
        trace.lap(RequestStage.READ)
        chosen = self._chosen(request)
        if explained:
            return await self._explain(request, chosen, data)
        outcome = (await self._judge(chosen, [data], trace))[0]
        if isinstance(outcome, ImageError):
            raise RequestError(outcome.status, str(outcome))
        return _json(ImageAnswer(**_identity(request, chosen.model), **asdict(outcome)))

    async def _explain(self, request: Request, chosen: Chosen, data: bytes) -> Response:
        """The heat-map as a picture, or inside of the JSON answer for who asks for JSON."""
        predictor, trace = chosen.model.predictor, request.state.trace
        try:
            judgement, evidence = await self._work(
                trace, lambda: predictor.explain(data, max_pixels=self.limits.max_pixels, trace=trace)
            )
        except ImageError as error:
            raise RequestError(error.status, str(error)) from None
        self._count(chosen, [data], [judgement])
        identity = _identity(request, chosen.model)
        x, y = (round(place, 1) for place in evidence.point)
        if "application/json" in request.headers.get("accept", ""):
            picture = base64.b64encode(evidence.overlay).decode()
            explanation = Explanation(point=Point(x=x, y=y), strength=evidence.strength, heatmap=picture)
            return _json(ExplainedAnswer(**identity, **asdict(judgement), explanation=explanation))
        headers = {
            "X-Label": judgement.label,
            "X-Score": f"{judgement.score:.6f}",
            "X-Threshold": f"{judgement.threshold:.6f}",
            "X-Evidence-Point": f"{x},{y}",
        }
        return Response(evidence.overlay, 200, headers, "image/png")

    async def _predict_form(self, request: Request) -> Response:
        within = limited(request, self.limits.max_request_bytes)
        async with within.form(max_files=self.limits.max_files) as form:
            files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            contents = [await file.read() if (file.size or 0) <= self.limits.max_bytes else None for file in files]
        if not files:
            raise RequestError(400, "the form holds no file: send each photograph as a part with a filename")
        trace: Trace = request.state.trace
        trace.lap(RequestStage.READ)
        chosen = self._chosen(request)
        judged = iter(await self._judge(chosen, [data for data in contents if data is not None], trace))
        too_large = ImageError(413, f"the file is larger than {self.limits.max_bytes} bytes")
        outcomes = [too_large if data is None else next(judged) for data in contents]
        entries = tuple(_entry(file.filename or "", item) for file, item in zip(files, outcomes, strict=True))
        refused = [entry.error for entry in entries if isinstance(entry, RefusedFile)]
        for detail in refused:
            self.meters.count(metrics.REFUSALS, str(detail.status))
        error = refused[0] if len(refused) == len(entries) else None
        answer = FormAnswer(**_identity(request, chosen.model), predictions=entries, error=error)
        return _json(answer, error.status if error else 200)

    async def _judge(self, chosen: Chosen, images: list[bytes], trace: Trace) -> list[Judgement | ImageError]:
        predictor = chosen.model.predictor
        outcomes = await self._work(
            trace, lambda: predictor.judge(images, max_pixels=self.limits.max_pixels, trace=trace)
        )
        self._count(chosen, images, outcomes)
        return outcomes

    async def _work(self, trace: Trace, work: Callable[[], T]) -> T:
        """Let the pool do a request's work.

        Raises:
            ImageError, RequestError: whatever the work raises.
        """

        def begun() -> T:
            trace.lap(RequestStage.QUEUE)
            return work()

        working = self.pool.submit(begun)
        self.shadow.make_way(working)
        return await asyncio.wrap_future(working)

    def measured(self, trace: Trace) -> AbstractContextManager[None]:
        """Measure a request to judge that does not come over HTTP, where the answer's status says how it ended."""
        return outcome_told(partial(self.ended, trace))

    def ended(self, trace: Trace, outcome: Outcome) -> None:
        """Measure a request to judge whose answer begins, or for whose answer nobody waits any more."""
        loaded, seconds = self.slot.loaded, trace.elapsed()
        version = trace.version or (loaded.model.version if loaded else "none")
        self.recent.add(outcome, seconds)
        self.meters.count(metrics.REQUESTS, outcome, version)
        if outcome is Outcome.ANSWERED:
            self.meters.observe(metrics.REQUEST_SECONDS, seconds, version)
            for stage, spent in trace.seconds.items():
                self.meters.observe(metrics.REQUEST_STAGE_SECONDS, spent, stage, version)

    def _count(
        self, chosen: Chosen, images: Sequence[bytes | ImageError], outcomes: Sequence[Judgement | ImageError]
    ) -> None:
        """Count the judgements of images, let the shadow compare its own, and offer them to the monitor."""
        version, judged = chosen.model.model.version, [found for found in outcomes if isinstance(found, Judgement)]
        for found in judged:
            self.meters.count(metrics.JUDGEMENTS, version, found.label)
            self.meters.observe(metrics.SCORES, found.score, version)
        if judged:
            self.meters.observe(metrics.REQUEST_PHOTOGRAPHS, len(judged))
        if not (chosen.shadow or self.sampler):
            return
        answered = [
            (image, outcome)
            for image, outcome in zip(images, outcomes, strict=True)
            if isinstance(image, bytes) and isinstance(outcome, Judgement)
        ]
        if chosen.shadow:
            self.shadow.compare(chosen.shadow, answered)
        if self.sampler:
            self.sampler.offer(chosen.model.model, [image for image, _ in answered])

    def _chosen(self, request: Request, name: str = "", version: str = "") -> Chosen:
        """Who judges a request; whatever it is answered from now on bears the version of that model.

        Args:
            request: its headers may name a version and a client.
            name: of the model; empty: whichever answers.
            version: that its path names; empty: none.

        Raises:
            RequestError: 404, there is no such model or version; 503, it is wanted and not loaded.
        """
        name, version = self._named(request, name, version)
        chosen = self.choose(name, version, lambda: request.headers.get(CLIENT_HEADER))
        request.state.trace.version = chosen.model.model.version
        return chosen

    def _named(self, request: Request, name: str = "", version: str = "") -> tuple[str, str]:
        """Name and version of who shall judge; the version may be empty.

        Raises:
            RequestError: 503, none is named, and nothing answers.
        """
        version = version or request.headers.get(VERSION_HEADER, "")
        # A candidate can be asked for while the model itself is not there.
        meant = [model.name for model in self._models() if model.version == version]
        return name or (meant[0] if meant else self.serving().model.name), version

    def choose(self, name: str, version: str, client: Callable[[], str | None]) -> Chosen:
        """Who judges a request: the version that it names; else the model, or the candidate if that has its turn.

        Args:
            name: of the model.
            version: empty: none is named.
            client: says who asks; None: nobody knows.

        Raises:
            RequestError: 404, there is no such model or version; 503, it is wanted and not loaded.
        """
        loaded = self.served(name, version)
        return Chosen(loaded) if version else self.slot.choose(loaded, client)

    async def infer(self, request: Request, name: str) -> Response:
        """Judge photographs, each on its own: the tensors and their order are those of the model's metadata."""
        return await self._infer(request, name, "")

    async def infer_version(self, request: Request, name: str, version: str) -> Response:
        """The same, of the version that is named."""
        return await self._infer(request, name, version)

    async def _infer(self, request: Request, name: str, version: str) -> Response:
        request.state.trace = trace = Trace()
        self.served(name, version)  # else there is no need to read the body
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise RequestError(415, f"the content encoding {encoding} is not accepted: send the request as it is")
        body = await limited(request, self.limits.max_request_bytes).body()
        trace.lap(RequestStage.READ)
        json_length = request.headers.get(inference.LENGTH_HEADER)
        limits = self.limits
        chosen = self._chosen(request, name, version)
        content, json_length_of_answer = await self.judge_tensors(
            chosen,
            trace,
            lambda: inference.read(body, json_length, max_files=limits.max_files, max_bytes=limits.max_bytes),
            lambda answer: inference.write(answer, request.state.id),
        )
        if json_length_of_answer is None:
            return Response(content, 200, None, "application/json")
        headers = {inference.LENGTH_HEADER: str(json_length_of_answer)}
        return Response(content, 200, headers, "application/octet-stream")

    async def judge_tensors(
        self, chosen: Chosen, trace: Trace, read: Callable[[], Asked], write: Callable[[Answer], T]
    ) -> T:
        """Judge the photographs of an inference request.

        Args:
            chosen: who shall judge.
            trace: is told what took how long.
            read: makes the request of what came; it runs in the pool, as does `write`.
            write: makes what goes out of the answer.

        Raises:
            RequestError: the request cannot be understood; or no photograph could be judged: the first one's error.
        """
        model, predictor = chosen.model.model, chosen.model.predictor

        def work() -> tuple[Asked, list[Verdict | ImageError], T]:
            asked = read()
            trace.lap(RequestStage.READ)
            outcomes = inference.verdicts(predictor, asked, self.limits.max_pixels, trace)
            found = tensors.tensors(outcomes, predictor.manifest.classes, asked.outputs)
            return asked, outcomes, write(Answer(asked, model, found))

        asked, outcomes, written = await self._work(trace, work)
        said = [outcome.judgement if isinstance(outcome, Verdict) else outcome for outcome in outcomes]
        self._count(chosen, asked.images, said)
        refused = [outcome for outcome in said if isinstance(outcome, ImageError)]
        nothing = len(refused) == len(said)
        # The error that is raised is counted where it is answered.
        for error in refused[1:] if nothing else refused:
            self.meters.count(metrics.REFUSALS, str(error.status))
        if nothing:
            raise RequestError(refused[0].status, str(refused[0]))
        return written

    async def live(self) -> Liveness:
        """Whether the process answers."""
        return Liveness()

    async def ready(self) -> Readiness:
        """Whether a model is served; 503 with the reason if not."""
        model = self.serving().model
        return Readiness(name=model.name, version=model.version)

    async def server(self) -> ServerMetadata:
        """What this server is."""
        return server_metadata()

    async def model_version(self, name: str, version: str) -> ModelMetadata:
        """The same, of the version that is named; 503 with the reason if it is only wanted."""
        return self._metadata(name, self.served(name, version))

    async def model(self, name: str) -> ModelMetadata:
        """What this replica serves under a name, what it should serve, and why the two differ."""
        slot = self.slot
        loaded = slot.loaded if slot.loaded and slot.loaded.model.name == name else None
        if loaded is None and (slot.wanted is None or slot.wanted.name != name):
            raise self._unknown(name)
        return self._metadata(name, loaded)

    def _metadata(self, name: str, loaded: Loaded | None) -> ModelMetadata:
        slot = self.slot
        wanted = slot.wanted if slot.wanted and slot.wanted.name == name else None
        return ModelMetadata(
            name=name,
            versions=tuple(found.model.version for found in self._loaded() if found.model.name == name),
            version=loaded.model.version if loaded else None,
            sha256=loaded.predictor.digest if loaded else None,
            replica=self.replica,
            wanted=WantedModel.of(wanted) if wanted else None,
            load_error=slot.load_error,
            trial=slot.candidate.metadata,
            **(_description(loaded) if loaded else {}),
        )

    async def model_ready(self, name: str) -> Readiness:
        """Whether this model is served; 503 with the reason if not."""
        return Readiness(name=name, version=self.served(name, "").model.version)

    async def version_ready(self, name: str, version: str) -> Readiness:
        """Whether this version is served; 503 with the reason if it is only wanted."""
        return Readiness(name=name, version=self.served(name, version).model.version)

    def served(self, name: str, version: str) -> Loaded:
        """The model of a name; or the model or candidate of a version, unless that is empty.

        Raises:
            RequestError: 404, there is none; 503, it is wanted and not loaded.
        """
        self._expect(name, version)
        for loaded in self._loaded() if version else filter(None, [self.slot.loaded]):
            if loaded.model.name == name and version in ("", loaded.model.version):
                return loaded
        tried = self.slot.candidate
        meant = tried if tried.wanted and tried.wanted.version == version else self.slot
        raise unavailable(meant, another_answers=self.slot.loaded is not None)

    def knows(self, version: str) -> bool:
        """Whether a model or a candidate of this version has been loaded here, now or before."""
        return version in self.slot.versions or version in self.slot.candidate.versions

    def _loaded(self) -> list[Loaded]:
        """The model that answers, and the candidate."""
        return [loaded for loaded in (self.slot.loaded, self.slot.candidate.loaded) if loaded]

    def _expect(self, name: str, version: str) -> None:
        models = [model for model in self._models() if model.name == name]
        if not models:
            raise self._unknown(name)
        versions = sorted({model.version for model in models})
        if version and version not in versions:
            raise RequestError(404, f"there is no version {version!r} of {name} here; known: {', '.join(versions)}")

    def _models(self) -> list[ServedModel]:
        """What is served or tried, and what is wanted."""
        wanted = (self.slot.wanted, self.slot.candidate.wanted)
        return [*(loaded.model for loaded in self._loaded()), *(model for model in wanted if model)]

    def serving(self) -> Loaded:
        """The model that answers.

        Raises:
            RequestError: 503, there is none; the reason says why.
        """
        if self.slot.loaded is None:
            raise unavailable(self.slot, another_answers=False)
        return self.slot.loaded

    def classes(self, version: str = "") -> tuple[str, ...]:
        """The classes of the version that judged, where it is here still; else of the model, then the candidate's.

        Args:
            version: of the model or the candidate; empty, or another one: nobody in particular.

        Raises:
            RequestError: 503, neither is there.
        """
        loaded = self._loaded()
        judges = [found for found in loaded if found.model.version == version] or loaded or [self.serving()]
        known = (found.predictor.manifest.classes for found in judges)
        return tuple(dict.fromkeys(label for classes in known for label in classes))

    def _unknown(self, name: str) -> RequestError:
        known = ", ".join(sorted({model.name for model in self._models()})) or "none"
        return RequestError(404, f"there is no model {name!r} here; known: {known}")


@contextmanager
def outcome_told(ended: Callable[[Outcome], None]) -> Iterator[None]:
    """Tell how the block, which answers a request or a part of it, ended; whatever it raises is raised."""
    outcome = Outcome.FAILED
    try:
        yield
        outcome = Outcome.ANSWERED
    except RequestError as error:
        outcome = Outcome.of(error.status)
        raise
    except asyncio.CancelledError:
        outcome = Outcome.GONE
        raise
    finally:
        ended(outcome)


def server_metadata() -> ServerMetadata:
    """What this server is."""
    extensions = ("binary_tensor_data",)
    return ServerMetadata(name="mergeline", version=package_version("mergeline"), extensions=extensions)


def new_application(description: str) -> FastAPI:
    """An ASGI application without routes."""
    return FastAPI(title="Mergeline", description=description, version=package_version("mergeline"))


def application(endpoints: Endpoints) -> FastAPI:
    """The ASGI application over a replica's endpoints."""
    app = new_application("Judges photographs of parts.")
    errors: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": ErrorAnswer, "description": "The request cannot be answered; the reason says why."},
        "503": {"model": ErrorAnswer, "description": "No model is served, or the service is full."},
    }
    app.add_api_route(
        "/predict",
        endpoints.predict,
        methods=["POST"],
        response_model=ImageAnswer | ExplainedAnswer | FormAnswer,
        responses={
            **errors,
            "4XX": {**errors["4XX"], "model": ErrorAnswer | FormAnswer},  # a form is answered file by file
            200: {"content": {"image/png": {}}, "description": "The judgement, or the heat-map."},
        },
        openapi_extra={"requestBody": REQUEST_BODY, "parameters": [_EXPLAIN, *_WHO_JUDGES]},
    )
    inference_errors = {status: {**answer, "model": InferenceError} for status, answer in errors.items()}
    for path, endpoint in (
        (PROTOCOL, endpoints.server),
        (f"{PROTOCOL}/health/live", endpoints.live),
        (f"{PROTOCOL}/health/ready", endpoints.ready),
        (f"{PROTOCOL}/models/{{name}}", endpoints.model),
        (f"{PROTOCOL}/models/{{name}}/ready", endpoints.model_ready),
        (f"{PROTOCOL}/models/{{name}}/versions/{{version}}", endpoints.model_version),
        (f"{PROTOCOL}/models/{{name}}/versions/{{version}}/ready", endpoints.version_ready),
    ):
        app.add_api_route(path, endpoint, methods=["GET"], responses=inference_errors)
    for path, infer in (
        (f"{PROTOCOL}/models/{{name}}/infer", endpoints.infer),
        (f"{PROTOCOL}/models/{{name}}/versions/{{version}}/infer", endpoints.infer_version),
    ):
        app.add_api_route(
            path,
            infer,
            methods=["POST"],
            response_model=InferenceAnswer,
            responses={**inference_errors, 200: inference.RESPONSE},
            openapi_extra={
                "requestBody": inference.REQUEST_BODY,
                "parameters": [inference.LENGTH_PARAMETER, *(_WHO_JUDGES if infer == endpoints.infer else ())],
            },
        )

    slot = endpoints.slot
    answer_errors(app, endpoints.meters, lambda: slot.loaded.model.version if slot.loaded else None, endpoints.ended)
    return app


def answer_errors(
    app: FastAPI,
    meters: Meters,
    version: Callable[[], str | None],
    ended: Callable[[Trace, Outcome], None] | None = None,
) -> None:
    """Let an application answer every error in our form, and bear the headers of every answer.

    Args:
        app: what was made by `new_application`.
        meters: where refusals are counted.
        version: the one that serves, for answers without a judgement; None: none.
        ended: told of each request to judge how it ended; None: there are none.
    """

    def refuse(scope: Scope, error: RequestError) -> Response:
        meters.count(metrics.REFUSALS, str(int(error.status)))
        request_id = scope["state"]["id"]
        if f"{scope['path'].removeprefix(scope.get('root_path', ''))}/".startswith(f"{PROTOCOL}/"):
            return _json(InferenceError(error=error.reason, id=request_id), error.status, error.headers)
        detail = ErrorDetail(status=error.status, reason=error.reason)
        return _json(ErrorAnswer(error=detail, id=request_id), error.status, error.headers)

    @app.exception_handler(RequestError)
    async def refuse_ours(request: Request, error: RequestError) -> Response:
        return refuse(request.scope, error)

    @app.exception_handler(HTTPException)
    async def refuse_theirs(request: Request, error: HTTPException) -> Response:
        return refuse(request.scope, _explained(request, error))

    app.add_middleware(Envelope, version=version, refuse=refuse, ended=ended)


def _explained(request: Request, error: HTTPException) -> RequestError:
    """An error of the framework in our words, where its own say little."""
    reasons = {
        404: f"there is nothing at {request.url.path}: POST /predict takes photographs, GET /docs lists the rest",
        405: f"{request.method} is not possible at {request.url.path}: see GET /docs",
    }
    return RequestError(error.status_code, reasons.get(error.status_code, error.detail), error.headers)


def unavailable(slot: Slot, *, another_answers: bool) -> RequestError:
    """The error of a request for what a slot wants and has not."""
    if slot.load_error:
        reason = slot.load_error if another_answers else f"no model is served: {slot.load_error}"
    elif slot.wanted:
        reason = f"{slot.wanted.name} version {slot.wanted.version} is being loaded: try again soon"
    else:
        reason = "no model is wanted here: promote one to this environment"
    return RequestError(503, reason, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _explanation_asked(request: Request) -> bool:
    asked = request.query_params.get("explain")
    if asked not in (None, HEATMAP):
        raise RequestError(400, f"explain={asked} is not known: ask for explain={HEATMAP}")
    return asked is not None


def limited(request: Request, limit: int) -> Request:
    """The request, with a body that raises 413 past `limit` bytes; at once where its length is announced."""
    # What still comes after the answer is thrown away by the server. To close the connection, which looks cheaper,
    # resets it under the answer, so that many clients never see it.
    error = RequestError(413, f"the request is larger than {limit} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise error
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise error
        return message

    return Request(request.scope, receive)


def _entry(filename: str, outcome: Judgement | ImageError) -> JudgedFile | RefusedFile:
    if isinstance(outcome, ImageError):
        return RefusedFile(filename=filename, error=ErrorDetail(status=outcome.status, reason=str(outcome)))
    return JudgedFile(filename=filename, **asdict(outcome))


def _identity(request: Request, loaded: Loaded) -> dict[str, Any]:
    return {
        "id": request.state.id,
        "model_name": loaded.model.name,
        "model_version": loaded.model.version,
        "model_digest": f"sha256:{loaded.predictor.digest}",
    }


def _description(loaded: Loaded) -> dict[str, Any]:
    manifest = loaded.predictor.manifest
    return {
        "inputs": tensors.inputs(),
        "outputs": tensors.outputs(manifest.classes),
        "classes": manifest.classes,
        "threshold": manifest.threshold.value,
    }


def _json(body: Contract, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(exclude_none=True), status, headers, "application/json")
