"""Judges the photographs of requests, without Ray: reads a request, lets workers judge, writes the answer."""

import asyncio
import base64
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.datastructures import UploadFile

from gitops.arguments import ApplicationArguments
from gitops.contracts.serving import VERSION_HEADER
from gitops.wire import COUNT_HEADER
from monitoring import metrics
from monitoring.metrics import Meters, RequestStage
from serve import inference, tensors
from serve.bodies import limited, limited_form
from serve.choosing import Judges
from serve.counting import Counting, counts
from serve.envelope import as_json
from serve.heatmap import Evidence
from serve.inference import Answer, Question
from serve.metadata import Metadata
from serve.predictor import Judgement
from serve.preprocess import ImageError
from serve.protocol import (
    CLIENT_HEADER,
    ErrorDetail,
    ExplainedAnswer,
    Explanation,
    FormAnswer,
    ImageAnswer,
    JudgedFile,
    Point,
    RefusedFile,
    RequestError,
)
from serve.sampling import Sampler
from serve.shadow import ShadowJudge
from serve.slot import Chosen, Loaded, ModelSlot
from serve.tensors import Verdict
from serve.trace import Trace
from serve.workers import Inquiry, Reading, Workers

T = TypeVar("T")

HEATMAP = "heatmap"
"""What `explain` may be."""


@dataclass(frozen=True)
class Limits:
    """What a request may bring."""

    max_bytes: int
    """Largest file of one photograph, in bytes."""
    max_request_bytes: int
    """Largest form or inference request, in bytes."""
    max_pixels: int
    """Largest photograph, in pixels."""
    max_files: int
    """Most photographs of a form or inference request."""

    @classmethod
    def of(cls, arguments: ApplicationArguments) -> "Limits":
        """Those that an application's arguments set."""
        return cls(**arguments.model_dump(include=set(cls.__dataclass_fields__)))


class Endpoints:
    """Judges what is sent over HTTP and gRPC; `serve.routes` says what is answered at which path.

    Args:
        slot: holds the model and the candidate.
        limits: what a request may bring.
        workers: decode and predict; the event loop only reads and writes.
        meters: where it is counted.
        replica: this replica's id, as Ray Serve's REST API lists it.
        shadow: judges afterwards what a shadow shall see.
        sampler: hands some of the photographs to the monitor; None: there is none.
    """

    def __init__(
        self,
        slot: ModelSlot,
        limits: Limits,
        workers: Workers,
        meters: Meters,
        replica: str,
        shadow: ShadowJudge,
        sampler: Sampler | None = None,
    ) -> None:
        self.slot = slot
        self.limits = limits
        self.workers = workers
        self.meters = meters
        self.replica = replica
        self.judges = Judges(slot)
        self.metadata = Metadata(slot, self.judges, replica)
        self.counting = Counting(slot, meters, shadow, sampler)
        self._shadow = shadow

    async def predict(self, request: Request) -> Response:
        """Judge a photograph (the body is its file), or those of a form (multipart/form-data)."""
        request.state.trace = trace = Trace()
        self._check_judge(request)  # without one there is no need to read the body
        explained = _wants_explanation(request)
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
        return as_json(ImageAnswer(**_identity(request, chosen.model), **asdict(outcome)))

    async def _explain(self, request: Request, chosen: Chosen, data: bytes) -> Response:
        """The heat-map as a picture, or inside of the JSON answer for who asks for JSON."""
        predictor, trace, max_pixels = chosen.model.predictor, request.state.trace, self.limits.max_pixels

        def explained(_: list[Judgement | ImageError]) -> tuple[Judgement, Evidence]:
            return predictor.explain(data, max_pixels=max_pixels, trace=trace)

        try:
            judgement, evidence = await self._inquire(chosen, trace, lambda: Reading((), explained))
        except ImageError as error:
            raise RequestError(error.status, str(error)) from None
        self.counting.judged(chosen, [data], [judgement])
        identity = _identity(request, chosen.model)
        x, y = (round(place, 1) for place in evidence.point)
        if _takes_json(request.headers.get("accept", "")):
            picture = base64.b64encode(evidence.overlay).decode()
            explanation = Explanation(point=Point(x=x, y=y), strength=evidence.strength, heatmap=picture)
            return as_json(ExplainedAnswer(**identity, **asdict(judgement), explanation=explanation))
        headers = {
            "X-Label": judgement.label,
            "X-Score": f"{judgement.score:.6f}",
            "X-Threshold": f"{judgement.threshold:.6f}",
            "X-Evidence-Point": f"{x},{y}",
        }
        return Response(evidence.overlay, 200, headers, "image/png")

    async def _predict_form(self, request: Request) -> Response:
        within = limited_form(request, self.limits.max_request_bytes)
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
        return as_json(answer, error.status if error else 200)

    async def _judge(self, chosen: Chosen, images: list[bytes], trace: Trace) -> list[Judgement | ImageError]:
        outcomes = await self._inquire(chosen, trace, lambda: Reading(images, list))
        self.counting.judged(chosen, images, outcomes)
        return outcomes

    async def _inquire(self, chosen: Chosen, trace: Trace, read: Callable[[], Reading[T]]) -> T:
        """Let the workers judge photographs.

        Raises:
            RequestError, ImageError: what reading, or writing the answer, raises.
        """
        working = self.workers.judge(Inquiry(chosen.model.predictor, read, self.limits.max_pixels, trace))
        self._shadow.make_way(working)
        return await asyncio.wrap_future(working)

    async def infer(self, request: Request, name: str) -> Response:
        """Judge photographs, each on its own: the tensors and their order are those of the model's metadata."""
        return await self._infer(request, name, "")

    async def infer_version(self, request: Request, name: str, version: str) -> Response:
        """Judge photographs, each on its own, with the version of the model that the path names."""
        return await self._infer(request, name, version)

    async def _infer(self, request: Request, name: str, version: str) -> Response:
        request.state.trace = trace = Trace()
        self.judges.served(name, version)  # else there is no need to read the body
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
        self, chosen: Chosen, trace: Trace, read: Callable[[], Question], write: Callable[[Answer], T]
    ) -> T:
        """Judge the photographs of an inference request.

        Args:
            chosen: who shall judge.
            trace: is told what took how long.
            read: makes the request of what came; a worker runs it, as it does `write`.
            write: makes what goes out of the answer.

        Raises:
            RequestError: the request cannot be understood; or no photograph could be judged: the first one's error.
        """
        model, predictor, limits = chosen.model.model, chosen.model.predictor, self.limits

        def reading() -> Reading[tuple[Question, list[Verdict | ImageError], T]]:
            question = read()
            trace.lap(RequestStage.READ)

            def written(judged: list[Judgement | ImageError]) -> tuple[Question, list[Verdict | ImageError], T]:
                outcomes = inference.verdicts(predictor, question, judged, limits.max_pixels, trace)
                rows = tensors.tensors(outcomes, predictor.manifest.classes, question.outputs)
                return question, outcomes, write(Answer(question, model, rows))

            return Reading(inference.to_judge(question), written)

        question, outcomes, written = await self._inquire(chosen, trace, reading)
        judged = [outcome.judgement if isinstance(outcome, Verdict) else outcome for outcome in outcomes]
        self.counting.judged(chosen, question.images, judged)
        refused = [outcome for outcome in judged if isinstance(outcome, ImageError)]
        none_judged = len(refused) == len(judged)
        # The error that is raised is counted where it is answered.
        for error in refused[1:] if none_judged else refused:
            self.meters.count(metrics.REFUSALS, str(error.status))
        if none_judged:
            raise RequestError(refused[0].status, str(refused[0]))
        return written

    def _chosen(self, request: Request, name: str = "", version: str = "") -> Chosen:
        """Who judges a request; whatever it is answered from now on bears the version of that model.

        Args:
            request: its headers may name a version and a client, and say that its photographs do not count.
            name: of the model; empty: whichever answers.
            version: that its path names; empty: none.

        Raises:
            RequestError: 400, a header cannot be understood; 404, there is no such model or version; 503, it is wanted
                and not loaded.
        """
        version = version or request.headers.get(VERSION_HEADER, "")
        chosen = self.judges.choose(
            name or self.judges.name_of(version),
            version,
            lambda: request.headers.get(CLIENT_HEADER),
            counts=counts(request.headers.get(COUNT_HEADER)),
        )
        request.state.trace.version = chosen.model.model.version
        return chosen

    def _check_judge(self, request: Request) -> None:
        """Whether there is who shall judge a request that names no model; its headers may name a version.

        Raises:
            RequestError: 404, there is no such version; 503, it is wanted and not loaded.
        """
        version = request.headers.get(VERSION_HEADER, "")
        self.judges.served(self.judges.name_of(version), version)


def _wants_explanation(request: Request) -> bool:
    explain = request.query_params.get("explain")
    if explain not in (None, HEATMAP):
        raise RequestError(400, f"explain={explain} is not known: ask for explain={HEATMAP}")
    return explain is not None


def _takes_json(accept: str) -> bool:
    """Whether JSON is among what a client names as acceptable (RFC 9110, 12.5.1)."""
    for entry in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        if media_type == "application/json":
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False


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
