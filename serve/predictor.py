"""Loads a model bundle and judges photographs with it: the same code for the evaluation and for the service."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from gitops.arguments import MAX_PIXELS
from gitops.bundle import VerifiedBundle
from gitops.contracts.model import BundleManifest, InferencePrecision
from gitops.errors import BundleError
from monitoring.metrics import RequestStage
from serve.heatmap import Evidence, show
from serve.measures import Measures, measure
from serve.preprocess import Aligned, ImageError, Pixels, align, decode
from serve.trace import Together, Trace

if TYPE_CHECKING:
    from serve.engine import openvino

GOOD = 0
"""Index of the good class in `classes`, in probabilities and in labels."""
INPUT, OUTPUT, EVIDENCE, EMBEDDING = "image", "probabilities", "evidence", "embedding"
"""Names of the input and the outputs, in the engine file as in the SavedModel's serving signature."""
BATCH = 2
"""Images that the network takes at once; more are run in turns. A core needs longer for each of three and more than for
each of two (docs/serving.md), and who asks meanwhile waits until a batch is done."""
_FIRST_CALL = threading.Lock()


def scores_of(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """The score of an image: the probability that its part is not good, 1 − p(good).

    Args:
        probabilities: (n, classes), the good class first.

    Returns:
        float64, (n,), between 0 and 1.
    """
    return np.clip(1.0 - probabilities[:, GOOD].astype(np.float64), 0.0, 1.0)


def decide(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.intp]:
    """The class of an image: good below the threshold, else the most probable of the other classes.

    Args:
        probabilities: (n, classes), the good class first.
        threshold: smallest score that is not good.

    Returns:
        Indices of classes, (n,).
    """
    others = 1 + np.argmax(probabilities[:, 1:], axis=1)
    return np.where(scores_of(probabilities) < threshold, GOOD, others)


@dataclass(frozen=True)
class Judgement:
    """What a bundle says of one photograph."""

    label: str
    """One of the bundle's classes."""
    score: float
    """Probability that the part is not good."""
    threshold: float
    """Smallest score that is not good."""
    probabilities: dict[str, float]
    """Probability of each class, in the bundle's order."""
    part_found: bool
    """Whether a part was found and straightened; False also where the bundle looks for none."""


@dataclass(frozen=True)
class Observation:
    """What is kept of a photograph to see whether the line is still as it was."""

    judgement: Judgement
    measures: Measures
    embedding: NDArray[np.float32]
    """(dimensions,): what the network saw, in short."""

    @property
    def confidence(self) -> float:
        """Probability of the likeliest class."""
        return max(self.judgement.probabilities.values())


class Predictor:
    """A loaded bundle; any number of threads may use it at once."""

    # Of all bundles in this process: a candidate's call takes the CPUs of the model's.
    _calls: ClassVar[int] = 0
    _expected: ClassVar[int] = 0
    _counting: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        bundle: VerifiedBundle,
        many: "openvino.CompiledModel",
        alone: "openvino.CompiledModel",
        precision: InferencePrecision,
    ) -> None:
        """Hold what `load` has read: the engine file compiled for calls side by side, and for a call that is alone."""
        self.bundle = bundle
        self.digest = bundle.digest
        self.manifest = bundle.manifest
        self.inference_precision = precision
        """What the network computes in, here."""
        self._many = many
        self._alone = alone
        self._thread = threading.local()
        self.answered_at = -math.inf
        """When the network answered last, by the monotonic clock."""

    @classmethod
    def load(
        cls,
        bundle: VerifiedBundle,
        *,
        threads: int = 1,
        threads_alone: int | None = None,
        inference_precision: InferencePrecision | None = None,
    ) -> Self:
        """Compile a bundle's engine file.

        Args:
            bundle: its files are not verified again.
            threads: CPU threads for the network: as many calls run side by side, each on one.
            threads_alone: that a call uses which is alone; None: all of `threads`.
            inference_precision: what the network shall compute in, if this CPU can; None: as the bundle says.

        Raises:
            BundleError: this machine's engine cannot load it.
        """
        folder, manifest = bundle.folder, bundle.manifest
        wanted = inference_precision or manifest.inference_precision
        chosen: InferencePrecision = wanted if computes_in(wanted) else "f32"
        many = _compile(folder, manifest, chosen, threads=threads, streams=threads)
        threads_alone = threads_alone or threads
        alone = _compile(folder, manifest, chosen, threads=threads_alone, streams=1) if threads_alone > 1 else many
        predictor = cls(bundle, many, alone, chosen)
        settings = manifest.preprocessing
        blank = np.zeros((1, settings.height, settings.width, settings.channels), np.uint8)
        # OpenVINO's binding looks NumPy up in its first call. Two first calls side by side were seen to wait for each
        # other for ever (2026.4: the guard of a static variable against Python's lock); after this one there is none.
        with _FIRST_CALL:
            predictor.predict(blank)
        return predictor

    @classmethod
    def expect(cls, calls: int) -> None:
        """Count calls that wait for a thread, or (negative) have got one: while any waits, none is alone."""
        with cls._counting:
            Predictor._expected += calls

    def predict(self, inputs: Pixels) -> NDArray[np.float32]:
        """Run the network.

        Args:
            inputs: uint8, (n, height, width, channels) as the manifest's preprocessing says; n may be 0.

        Returns:
            Probabilities, float32, (n, classes).
        """
        settings = self.manifest.preprocessing
        shape = (settings.height, settings.width, settings.channels)
        if inputs.shape[1:] != shape or inputs.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 of shape (n, {shape[0]}, {shape[1]}, {shape[2]}), got {inputs.dtype} "
                f"of shape {inputs.shape}: make inputs with serve.preprocess"
            )
        with self._call():
            return self._probabilities(inputs)

    def evidence(self, images: Pixels) -> NDArray[np.float32]:
        """Where the network sees that a part is not good.

        Args:
            images: uint8, (n, height, width, channels); n must not be 0.

        Returns:
            float32, (n, rows, columns); the manifest's `evidence` says where its cells lie. Larger is stranger, in the
            model's own unit (standard deviations of good parts, where it has a memory of them).
        """
        return self._output(EVIDENCE, images)

    def embed(self, images: Pixels) -> NDArray[np.float32]:
        """What the network sees, in short: images that look alike to it lie close to each other.

        Args:
            images: uint8, (n, height, width, channels); n must not be 0.

        Returns:
            float32, (n, dimensions).
        """
        return self._output(EMBEDDING, images)

    def observe(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Observation:
        """Judge a photograph, and measure it.

        Args:
            data: the bytes of a PNG, JPEG, BMP or TIFF file.
            max_pixels: larger photographs are refused.

        Raises:
            ImageError: it cannot be used.
        """
        with self._call():
            photograph, aligned = self._prepare(data, max_pixels, Trace())
            outputs = self._infer(aligned.pixels[None])
        (judgement,) = self._judgements(outputs[OUTPUT], [aligned])
        return Observation(judgement, measure(photograph, aligned), outputs[EMBEDDING][0])

    def explain(
        self, data: bytes, *, max_pixels: int = MAX_PIXELS, trace: Trace | None = None
    ) -> tuple[Judgement, Evidence]:
        """Judge a photograph, and show on it where the evidence is.

        Args:
            data: the bytes of a PNG, JPEG, BMP or TIFF file.
            max_pixels: larger photographs are refused.
            trace: is told what took how long; None: nobody asks.

        Raises:
            ImageError: it cannot be used.
        """
        trace = trace or Trace()
        with self._call():
            photograph, aligned = self._prepare(data, max_pixels, trace)
            outputs = self._infer(aligned.pixels[None])
        judgement = self._judgements(outputs[OUTPUT], [aligned])[0]
        evidence = show(photograph, aligned, outputs[EVIDENCE][0], self.manifest.evidence)
        trace.lap(RequestStage.INFER)
        return judgement, evidence

    def judge(
        self, images: Sequence[bytes], *, max_pixels: int = MAX_PIXELS, trace: Trace | Together | None = None
    ) -> list[Judgement | ImageError]:
        """Judge photographs; one that cannot be used gets its error, and the others their judgement.

        Args:
            images: the bytes of PNG, JPEG, BMP or TIFF files.
            max_pixels: larger photographs are refused.
            trace: is told what took how long; None: nobody asks.

        Returns:
            One entry an image, in their order.
        """
        trace = trace or Trace()
        with self._call():
            prepared = [self._prepared(data, max_pixels, trace) for data in images]
            usable = [item for item in prepared if isinstance(item, Aligned)]
            settings = self.manifest.preprocessing
            batch = np.empty((len(usable), settings.height, settings.width, settings.channels), np.uint8)
            for row, item in enumerate(usable):
                batch[row] = item.pixels
            judgements = iter(self._judgements(self._probabilities(batch), usable))
            trace.lap(RequestStage.INFER)
        return [item if isinstance(item, ImageError) else next(judgements) for item in prepared]

    def probe(self) -> float:
        """Judge the bundle's own probe image, whose score is known.

        Returns:
            The score.

        Raises:
            BundleError: the score is not what it was when the bundle was exported.
        """
        probe = self.manifest.probe
        answer = self.judge([(self.bundle.folder / probe.path).read_bytes()])[0]
        if isinstance(answer, ImageError):
            raise BundleError(
                f"bundle {self.digest[:12]}: its probe {probe.path} cannot be used: {answer}. Export again"
            )
        if not abs(answer.score - probe.score) <= probe.tolerance:  # written so that NaN fails
            raise BundleError(
                f"bundle {self.digest[:12]}: its probe {probe.path} scores {answer.score:.4f} here, and "
                f"{probe.score:.4f} where it was exported (at most {probe.tolerance} apart): do not serve it; export "
                f"it again with the engine and preprocessing installed here (made by {_makers(self.manifest)})"
            )
        return answer.score

    def _prepared(self, data: bytes, max_pixels: int, trace: Trace | Together) -> Aligned | ImageError:
        try:
            return self._prepare(data, max_pixels, trace)[1]
        except ImageError as error:
            return error

    def _prepare(self, data: bytes, max_pixels: int, trace: Trace | Together) -> tuple[Pixels, Aligned]:
        """The photograph, and the network's input."""
        settings = self.manifest.preprocessing
        try:
            photograph = decode(data, settings.channels, max_pixels=max_pixels)
        finally:
            trace.lap(RequestStage.DECODE)
        aligned = align(photograph, settings)
        trace.lap(RequestStage.PREPROCESS)
        return photograph, aligned

    def _judgements(self, probabilities: NDArray[np.float32], images: Sequence[Aligned]) -> list[Judgement]:
        classes, threshold = self.manifest.classes, self.manifest.threshold.value
        rows = zip(probabilities, scores_of(probabilities), decide(probabilities, threshold), images, strict=True)
        return [
            Judgement(
                label=classes[label],
                score=float(score),
                threshold=threshold,
                probabilities=dict(zip(classes, row.tolist(), strict=True)),
                part_found=image.part is not None,
            )
            for row, score, label, image in rows
        ]

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Count a call from its first byte on: what still decodes will soon want a thread as well."""
        with self._counting:
            Predictor._calls += 1
        try:
            yield
        finally:
            with self._counting:
                Predictor._calls -= 1

    def _output(self, name: str, images: Pixels) -> NDArray[np.float32]:
        turns = range(0, len(images), BATCH)
        with self._call():
            return np.concatenate([self._infer(images[start : start + BATCH])[name] for start in turns])

    def _probabilities(self, inputs: Pixels) -> NDArray[np.float32]:
        turns = range(0, len(inputs), BATCH)
        parts = [self._infer(inputs[start : start + BATCH])[OUTPUT] for start in turns]
        return np.concatenate([np.empty((0, len(self.manifest.classes)), np.float32), *parts])

    def _infer(self, batch: Pixels) -> dict[str, NDArray[np.float32]]:
        kind = "many" if self._calls + self._expected > 1 else "alone"
        # A request holds the buffers of one call, so each thread has its own.
        if not hasattr(self._thread, kind):
            model = self._many if kind == "many" else self._alone
            setattr(self._thread, kind, model.create_infer_request())
        request: openvino.InferRequest = getattr(self._thread, kind)
        outputs = request.infer({INPUT: batch}, share_inputs=False)
        self.answered_at = time.monotonic()
        # Copies: the request writes into the same memory again.
        return {name: np.array(outputs[name], np.float32) for name in (OUTPUT, EVIDENCE, EMBEDDING)}


def computes_in(precision: InferencePrecision) -> bool:
    """Whether this CPU has instructions for a precision; OpenVINO emulates what some have not, slowly."""
    from serve.engine import openvino

    capabilities = cast("list[str]", openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return {"f32": "FP32", "bf16": "BF16"}[precision] in capabilities


def _compile(
    folder: Path, manifest: BundleManifest, precision: InferencePrecision, *, threads: int, streams: int
) -> "openvino.CompiledModel":
    from serve.engine import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # mapped weights would kill the process if the file were cut off
    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # unasked, OpenVINO takes bf16 where the CPU can
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # several replicas would be pinned to the same cores
    }
    try:
        model = core.compile_model(core.read_model(folder / manifest.engine_file), "CPU", settings)
    except RuntimeError as error:
        raise BundleError(
            f"bundle {folder}: OpenVINO {openvino.__version__} cannot load {manifest.engine_file} (made by "
            f"{_makers(manifest)}): {_reason(error)}. Export the model again with the version installed here"
        ) from error
    _check_signature(folder, manifest, model)
    return model


def _makers(manifest: BundleManifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.frameworks.items())


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says, in one line and without the places in its own source."""
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith("Exception from "))


def _check_signature(folder: Path, manifest: BundleManifest, model: "openvino.CompiledModel") -> None:
    settings = manifest.preprocessing
    image, classes = (settings.height, settings.width, settings.channels), len(manifest.classes)
    wanted = {
        INPUT: f"−1×{image[0]}×{image[1]}×{image[2]}",
        OUTPUT: f"−1×{classes}",
        EVIDENCE: "−1×rows×columns",
        EMBEDDING: "−1×dimensions",
    }
    found = {
        # A tensor may have several names; what converts a model may keep its own beside the signature's.
        next((name for name in wanted if name in port.names), port.any_name): "×".join(
            str(size.get_length()) if size.is_static else "−1" for size in port.partial_shape
        )
        for port in (*model.inputs, *model.outputs)
    }
    for name in (EVIDENCE, EMBEDDING):  # how finely these are divided is the model's own affair
        if found.get(name, "").count("×") == wanted[name].count("×"):
            wanted[name] = found[name]
    if found != wanted:
        raise BundleError(
            f"bundle {folder}: {manifest.engine_file} should have the input and outputs {wanted} (−1: the batch), and "
            f"has {found}: export the model again"
        )
