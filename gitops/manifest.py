"""The contracts between stages: what one part of the line writes and another reads (pydantic only)."""

import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gitops import bounded_yaml
from gitops.errors import ContractError, did_you_mean
from monitoring.metrics import DriftKind, WindowOutcome

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A DNS-like label: it becomes part of paths, branches, routes and Kubernetes names."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
"""A model version as MLflow's registry counts them: 1, 2, 3 …"""
Share = Annotated[float, Field(ge=0, le=1)]
Split = Literal["train", "validation", "test"]


class Contract(BaseModel):
    """Base of all contracts: frozen, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, data: object, source: str, *, extra: Literal["ignore"] | None = None) -> Self:
        """Validate `data`, naming `source` and every offending key in the error.

        Args:
            data: the values by their keys.
            source: where they come from.
            extra: "ignore" passes over unknown keys, which another release of ours may have written.

        Raises:
            ContractError: a key is unknown (the nearest known one is named), missing or wrong.
        """
        try:
            return cls.model_validate(data, extra=extra)
        except ValidationError as error:
            lines = "\n".join(f"  {line}" for line in _explain(cls, error))
            raise ContractError(f"{source} is not a valid {cls.__name__}:\n{lines}") from error

    @classmethod
    def from_yaml(cls, text: str, source: str) -> Self:
        """Parse YAML (or JSON) text; `source` is named in errors."""
        return cls.parse(bounded_yaml.load(text, source), source)

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Parse JSON; it is YAML too, whose parser is a hundred times slower."""
        try:
            return cls.parse(json.loads(text), source)
        except json.JSONDecodeError as error:
            raise ContractError(f"{source} is not JSON: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a YAML or JSON file."""
        try:
            text = path.read_text()
        except OSError as error:
            raise ContractError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ContractError(f"{path} is not UTF-8 text: {error}") from error
        return cls.from_json(text, str(path)) if path.suffix == ".json" else cls.from_yaml(text, str(path))

    def to_json(self) -> str:
        """Indented JSON with a final newline; the same value always gives the same bytes."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def _explain(cls: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "(the whole file)"
        text = item["msg"]
        if item["type"] == "extra_forbidden":
            text = f"unknown key; {did_you_mean(str(item['loc'][-1]), _known_keys(cls, item['loc'][:-1]))}"
        lines.append(f"{where}: {text}")
    return lines


def _known_keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Keys of the model at `path`: pydantic reports the path, but not the model that stands there."""
    models = [cls]
    for part in path:
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if fields:  # an index into a list, or the tag of a union, leaves the models as they are
            models = [model for field in fields for model in _models_in(field)]
    return sorted({key for model in models for key in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


# --- the project file -------------------------------------------------------------------------------------------------


class DataSource(Contract):
    """Where the photographs come from."""

    source: Literal["rendered", "folder", "kaggle"] = Field(description="Which kind of source.")
    path: str | None = Field(default=None, description="folder: the folder, in Kaggle's layout or one folder a class.")
    kaggle: str | None = Field(default=None, description="kaggle: owner/dataset.")
    folders: dict[str, Name | None] = Field(
        default={},
        description="Names of folders that mean a class of another name; null: what lies in one is left out (masks).",
    )
    labels: str | None = Field(default=None, description="A Label Studio JSON export that overrides the labels.")
    kind_pattern: str | None = Field(
        default=None, description="A regular expression over file names whose group `kind` is the type of defect."
    )
    rendered_images: int = Field(default=300, ge=20, description="rendered: how many images to draw.")
    rendered_defective_share: Share = Field(default=0.35, description="rendered: share of defective ones.")
    seed: int = Field(default=7, description="rendered: seed of the drawing.")
    max_quarantine_share: Share = Field(
        default=0.05, description="The extraction fails when more than this share of files cannot be read."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source == "folder" and not self.path:
            raise ValueError("source 'folder' needs `path`")
        if self.source == "kaggle" and not self.kaggle:
            raise ValueError("source 'kaggle' needs `kaggle: owner/dataset`")
        return self


class Preprocessing(Contract):
    """From the bytes of a photograph to the model's input; the same for training and serving."""

    align: Literal["foreground", "none"] = Field(
        default="foreground", description="foreground: find the part on its plain background and straighten it."
    )
    height: int = Field(default=160, ge=32, le=2048, description="Height of the model's input, in pixels.")
    width: int = Field(default=512, ge=32, le=2048, description="Width of the model's input, in pixels.")
    channels: Literal[1, 3] = Field(default=1, description="1: gray, 3: RGB.")
    margin: float = Field(default=0.04, ge=0, le=1, description="Free space around the part, as a share of its length.")


class SplitShares(Contract):
    """Shares of the splits; the rest trains."""

    validation: Share = Field(
        default=0.2, description="Chooses the epoch, and the threshold where nothing is cross-validated; may be 0 then."
    )
    test: Share = Field(default=0.2, description="Held out: only the evaluation reads it.")
    seed: int = Field(default=0, description="Changes which images fall where.")

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.test == 0 or self.validation + self.test >= 1:
            raise ValueError("`test` must be more than 0, and `validation` and `test` leave something to train on")
        return self


class Assertion(Contract):
    """What must hold for the images of a dataset before anything is trained on it."""

    measure: str = Field(description="Name of a per-image measure, or of a measure of the whole dataset.")
    min: float | None = Field(default=None, description="Smallest allowed value, inclusive.")
    max: float | None = Field(default=None, description="Largest allowed value, inclusive.")
    share: Share = Field(default=1.0, description="Share of the images for which it must hold.")

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"the assertion on {self.measure!r} always holds: give it `min`, `max` or both")
        return self


class Memory(Contract):
    """What a model remembers of good parts: the features of a few good images, place by place.

    How far an image's features lie from the nearest remembered ones at the same place is itself a feature of the head,
    and says where a defect is. It pays where parts are straightened, so that the same place means the same of each.
    """

    images: int = Field(default=128, ge=3, le=1024, description="Most good training images that are remembered.")
    dimensions: int = Field(default=64, ge=1, le=320, description="Principal components of the features that are kept.")
    stride: Literal[8, 16, 32] = Field(default=16, description="Which features: input pixels between two of them.")


class Augmentation(Contract):
    """How strongly training images are varied, each from 0 (not at all) to 1."""

    place: Share = Field(
        default=0.5, description="Rotation, shift and size. Little where parts are straightened and remembered."
    )
    light: Share = Field(default=0.5, description="Brightness, contrast, gamma, noise.")
    lens: Share = Field(default=0.5, description="Blur and JPEG compression, of some images.")


class Training(Contract):
    """How the model is trained."""

    backbone: Literal["efficientnet_lite0", "small_cnn"] = Field(
        default="efficientnet_lite0", description="The network below the classification head."
    )
    weights: Literal["imagenet", "none"] = Field(
        default="imagenet", description="imagenet: start from weights that an installed package ships."
    )
    head: Literal["fitted", "random"] = Field(
        default="fitted", description="fitted: the head begins as a logistic regression on the backbone's features."
    )
    epochs: int = Field(default=2, ge=1, description="Most epochs; a few are enough for a fitted head.")
    patience: int = Field(default=6, ge=1, description="Stop after so many epochs without a better validation loss.")
    batch_size: int = Field(default=16, ge=1, description="Global batch: all workers together.")
    learning_rate: float = Field(
        default=1e-5,
        gt=0,
        description="Peak of the schedule, for the head. A fitted one has large weights, which more would shake loose.",
    )
    backbone_rate: Share = Field(
        default=0.0, description="The backbone's learning rate as a share of the head's; 0: it stays as it is."
    )
    frozen_epochs: int = Field(default=0, ge=0, description="First epochs, in which only the head learns.")
    warmup_epochs: float = Field(default=1, ge=0, description="Epochs in which the learning rate rises to its peak.")
    weight_decay: float = Field(default=1e-4, ge=0, description="AdamW's decay.")
    clip_norm: float = Field(default=1.0, gt=0, description="Largest norm of a step's gradient.")
    memory: Memory | None = Field(
        default=None, description="Compare with good parts, place by place; what lies below its features stays frozen."
    )
    feature_strides: tuple[Literal[8, 16, 32], ...] = Field(
        default=(16, 32),
        min_length=1,
        description="The backbone's features that the head pools, by how many input pixels lie between two of them.",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of the pooled features left out in training.")
    augmentation: Augmentation = Augmentation()
    workers: int = Field(default=2, ge=1, description="Ray Train workers.")
    seed: int = Field(default=0, description="Seed of initial weights, shuffling and augmentation.")

    @model_validator(mode="after")
    def _each_stride_once(self) -> Self:
        if len(set(self.feature_strides)) < len(self.feature_strides):
            raise ValueError("`feature_strides` names one twice")
        return self


class CrossValidation(Contract):
    """How the training split is turned into an estimate: each fold is judged by a model that has not seen it."""

    folds: int = Field(
        default=0, ge=0, le=20, description="Folds; 0: none, so that the validation split chooses the threshold."
    )

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.folds == 1:
            raise ValueError("one fold leaves nothing to train on: take 0 (none), or 2 and more")
        return self


class Costs(Contract):
    """What a wrong decision costs, in any unit: only their ratio counts."""

    missed_defect: float = Field(default=1.0, gt=0, description="A part that is not good, called good.")
    false_alarm: float = Field(default=1.0, gt=0, description="A good part, called not good.")


METRICS = (
    *("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "precision", "recall", "f1"),
    *("auroc", "average_precision", "brier", "expected_calibration_error", "loss"),
)
"""What an evaluation measures; accuracy_low and accuracy_high are the ends of a 95 % interval."""
ESTIMATE_PREFIX = "cross_validated_"
"""Begins the names of the same metrics (but the loss) of training images, judged out of fold."""


class Gate(Contract):
    """A bar that a model's evaluation must reach before it may be merged."""

    metric: str = Field(description="A field of EvaluationReport.metrics.")
    min: float | None = Field(default=None, description="Smallest allowed value, inclusive.")
    max: float | None = Field(default=None, description="Largest allowed value, inclusive.")

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"the gate {self.metric!r} lets everything pass: give it `min`, `max` or both")
        known_metrics = (*METRICS, *(f"{ESTIMATE_PREFIX}{name}" for name in METRICS if name != "loss"))
        if self.metric not in known_metrics:
            raise ValueError(f"there is no metric {self.metric!r}; {did_you_mean(self.metric, known_metrics)}")
        return self


class Project(Contract):
    """project.yaml: the scope that every stage obeys."""

    name: Name = Field(description="Name of the project and of its model.")
    goal: str = Field(description="What the model is for, in a sentence.")
    owner: str = Field(description="Who answers for it.")
    classes: tuple[Name, ...] = Field(min_length=2, description="Class names; the first is the good one.")
    data: DataSource
    preprocessing: Preprocessing = Preprocessing()
    split: SplitShares = SplitShares()
    quality: tuple[Assertion, ...] = Field(default=(), description="What a dataset must fulfil.")
    training: Training = Training()
    cross_validation: CrossValidation = CrossValidation()
    costs: Costs = Costs()
    measurement: tuple[str, ...] = Field(default=("accuracy", "loss"), description="The metrics that are shown first.")
    gates: tuple[Gate, ...] = Field(default=(), description="The bars that a promotion must reach.")
    environments: tuple[Name, ...] = Field(min_length=1, description="Environments, in the order of promotion.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("`classes` names one twice")
        unknown = [name for name in self.data.folders.values() if name is not None and name not in self.classes]
        if unknown:
            raise ValueError(f"`data.folders` names {unknown[0]!r}, which is none of {', '.join(self.classes)}")
        estimated = [gate.metric for gate in self.gates if gate.metric.startswith(ESTIMATE_PREFIX)]
        if estimated and self.cross_validation.folds == 0:
            raise ValueError(f"the gate {estimated[0]!r} needs folds: raise `cross_validation.folds`")
        if self.split.validation == 0 and self.cross_validation.folds == 0:
            raise ValueError("the threshold needs data: raise `split.validation` or `cross_validation.folds`")
        return self


# --- datasets ---------------------------------------------------------------------------------------------------------


class Quarantined(Contract):
    """A file that was set aside."""

    filename: str
    reason: str = Field(description="Why it was set aside, in words.")


class Feedback(Contract):
    """What somebody said of one served photograph: a line of a feedback file; a label once a person confirms it."""

    id: str | None = Field(default=None, max_length=128, description="Of the request that judged the photograph.")
    filename: str | None = Field(
        default=None, max_length=1000, description="Name of the photograph's file, where that is known."
    )
    sha256: Sha256 | None = Field(default=None, description="Of the photograph's file; it counts before the name.")
    photograph: str | None = Field(
        default=None, description="The photograph's file, relative to the feedback's; unset: it is known elsewhere."
    )
    label: str = Field(max_length=200, description="The class that it should have had.")
    said: str | None = Field(default=None, max_length=200, description="The class that was shown, at `threshold`.")
    score: Share | None = Field(default=None, description="The model's probability that the part is not good.")
    threshold: Share | None = Field(
        default=None, description="Smallest score that was shown as not good: whoever looked may have moved it."
    )
    model_name: Name | None = None
    model_version: Version | None = None
    model_digest: str | None = Field(
        default=None, pattern=r"^sha256:[0-9a-f]{64}$", description="Of the bundle that judged it."
    )
    sampled: bool = Field(
        default=False,
        description="Whether the photograph was chosen by chance, whatever it was judged as: only such ones tell how "
        "often a version is right.",
    )
    comment: str | None = Field(default=None, max_length=2000, description="What else there is to say.")
    by: str | None = Field(default=None, max_length=200, description="Who says so.")
    at: AwareDatetime | None = Field(default=None, description="When it was said, RFC 3339.")

    @model_validator(mode="after")
    def _names_a_photograph(self) -> Self:
        if not (self.filename or self.sha256):
            raise ValueError("it names no photograph: give `sha256` or `filename`")
        return self


class ChangedFiles(Contract):
    """Photographs that one kind of change concerns."""

    count: int = 0
    filenames: tuple[str, ...] = Field(default=(), description="The first of their names, sorted; not always all.")


class DatasetChanges(Contract):
    """What a dataset has otherwise than its parent; photographs are told apart by their SHA-256, not by their names."""

    added: ChangedFiles = ChangedFiles()
    removed: ChangedFiles = ChangedFiles()
    relabelled: ChangedFiles = Field(default=ChangedFiles(), description="In both, with another label.")


class LookalikeBars(Contract):
    """In how large a share of their bits the hashes of look-alikes differ at most; null: only copies are alike."""

    photograph: Share | None = Field(default=0.055, description="Of the perceptual hashes of the photographs.")
    part: Share | None = Field(default=0.115, description="Of the difference hashes of the model's inputs.")


class DatasetManifest(Contract):
    """What a dataset is: `datasets/<digest>/manifest.json`."""

    digest: Sha256 = Field(description="Of the images' contents, their labels, splits and the parameters.")
    project: Name
    source: str = Field(description="Where the images came from, as a URI or path.")
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    split: SplitShares | None = Field(default=None, description="How it was split; a child of the same keeps splits.")
    images: int = Field(description="Rows in the Parquet shards.")
    counts: dict[Split, dict[str, int]] = Field(description="Images by split and class.")
    kinds: dict[str, int] = Field(default={}, description="Images by type of defect, where it is known.")
    duplicates: int = Field(description="Images that are a near-duplicate of another.")
    lookalikes: LookalikeBars = Field(
        default=LookalikeBars(), description="What counts as a near-duplicate here; lower where all parts look alike."
    )
    quarantined: tuple[Quarantined, ...] = ()
    shards: tuple[str, ...] = Field(description="Parquet files, relative to the manifest.")
    parent: Sha256 | None = Field(
        default=None, description="The project's dataset when this one was made first; no part of the digest."
    )
    changes: DatasetChanges | None = Field(default=None, description="Since the parent.")


class ImageFinding(Contract):
    """One assertion's outcome."""

    assertion: Assertion
    passed: bool
    failing_share: Share
    failing_images: tuple[str, ...] = Field(default=(), description="File names that break it.")


class QualityReport(Contract):
    """The profile of a dataset and the outcome of its assertions."""

    dataset: Sha256
    images: int
    measures: dict[str, dict[str, float]] = Field(description="Per measure: min, p05, median, p95, max, mean.")
    class_balance: dict[str, int]
    duplicate_groups: tuple[tuple[str, ...], ...] = Field(default=(), description="File names that look the same.")
    findings: tuple[ImageFinding, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every assertion holds."""
        return all(finding.passed for finding in self.findings)


# --- models -----------------------------------------------------------------------------------------------------------


class EpochMetrics(Contract):
    """Figures of one epoch."""

    epoch: int
    loss: float = Field(description="Mean training loss (cross-entropy, nats).")
    validation_loss: float | None = Field(default=None, description="None without a validation split.")
    validation_accuracy: Share | None = None
    learning_rate: float
    seconds: float
    weights: Sha256 | None = Field(default=None, description="Digest of the weights, which all workers have alike.")


class TrainingResult(Contract):
    """What training leaves behind: `runs/<id>/result.json`."""

    dataset: Sha256
    mlflow_run_id: str
    checkpoint: str = Field(description="Path of the best epoch's `model.keras`, relative to this file.")
    best_epoch: int
    epochs: tuple[EpochMetrics, ...]
    workers: int
    training: Training
    restarts: int = Field(default=0, description="How often training was resumed from a checkpoint.")


class OutOfFold(Contract):
    """A training image as a model judged it that has not seen it."""

    filename: str
    label: int = Field(description="The truth: index into the classes.")
    kind: str | None = None
    fold: int
    logits: tuple[float, ...] = Field(description="One for each class, before calibration.")


class CrossValidationResult(Contract):
    """The estimate that the gates believe: `runs/<id>/cross-validation.json`."""

    dataset: Sha256
    folds: int
    predictions: tuple[OutOfFold, ...] = Field(description="Every training image once, sorted by file name.")


class BundleFile(Contract):
    """A file of a bundle."""

    path: str = Field(description="Relative to the bundle.")
    sha256: Sha256
    bytes: int


class ThresholdChoice(Contract):
    """The decision threshold, and how it was chosen."""

    value: Share = Field(description="A photograph whose score is at least this is not good.")
    method: str = Field(description="How it was chosen, in words.")
    split: Split | Literal["out-of-fold"] = Field(default="validation", description="The data that it was chosen on.")


class Calibration(Contract):
    """How logits became probabilities: they are multiplied, and that of the good class is moved (Platt, 1999)."""

    scale: float = Field(default=1.0, gt=0)
    shift: float = Field(default=0.0, description="Added to the good class's logit.")


class Probe(Contract):
    """A question with a known answer, asked before a replica swaps to the bundle."""

    path: str = Field(description="An image file of the bundle; drawn, not a photograph.")
    score: Share = Field(description="The score that the engine gave when the bundle was exported.")
    tolerance: float = Field(default=0.02, description="Largest allowed difference; engines differ a little by CPU.")


class ReferenceSample(Contract):
    """What drift is measured against: the bundle's `reference` file. Images that were judged unseen, n of them."""

    labels: tuple[str, ...] = Field(description="What the model said of each, (n,).")
    values: dict[str, tuple[float | None, ...]] = Field(
        description="Score, confidence and what was measured, by name, (n,) each; null where there is none."
    )
    embeddings: tuple[tuple[float, ...] | None, ...] = Field(
        description="(n, dimensions); null for an image that the network was fitted to."
    )

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        for name, column in {**self.values, "embeddings": self.embeddings}.items():
            if len(column) != len(self.labels):
                raise ValueError(f"`{name}` has {len(column)} entries, and there are {len(self.labels)} labels")
        return self


class EvidenceGrid(Contract):
    """Where the cells of a model's evidence lie in its input: cell i is centred on pixel stride · i + offset."""

    stride: int = Field(ge=1, description="Pixels from one cell to the next, both ways.")
    offset_x: float = Field(description="Pixel, from 0, on which the first column is centred.")
    offset_y: float = Field(description="Pixel, from 0, on which the first row is centred.")


InferencePrecision = Literal["f32", "bf16"]
"""What a network computes in: IEEE 754's single precision, or bfloat16, which keeps 8 of its 24 significant bits."""


class BundleManifest(Contract):
    """`manifest.json` of a bundle. Its SHA-256 is the bundle's digest, so it holds nothing that changes by itself."""

    name: Name
    classes: tuple[str, ...] = Field(description="The first is the good one.")
    preprocessing: Preprocessing
    threshold: ThresholdChoice
    calibration: Calibration = Field(default=Calibration(), description="What the head's weights already contain.")
    engine: Literal["openvino"] = Field(description="What runs the engine file.")
    engine_file: str = Field(description="The engine file, relative to the bundle.")
    inference_precision: InferencePrecision = Field(
        default="f32",
        description="What the network computes in where the CPU can, else f32; bf16 where no decision changed by it.",
    )
    saved_model: str = Field(description="The SavedModel's folder, relative to the bundle.")
    reference: str = Field(description="What drift is measured against, relative to the bundle.")
    evidence: EvidenceGrid
    probe: Probe
    agreement: float = Field(description="Largest difference between the engine's and Keras's probabilities.")
    dataset: Sha256
    training: Training
    frameworks: dict[str, str] = Field(description="Versions that made the bundle.")
    files: tuple[BundleFile, ...] = Field(description="Every file but this one, sorted by path.")


class Prediction(Contract):
    """One image of the held-out split as the bundle judged it."""

    filename: str
    label: str = Field(description="The truth.")
    predicted: str
    score: Share = Field(description="Probability that the part is not good.")
    kind: str | None = None


class OutOfFoldEstimate(Contract):
    """How models of this kind do on training images that they have not seen."""

    folds: int
    images: int
    confusion: dict[str, dict[str, int]] = Field(description="Truth → predicted → images.")
    per_kind: dict[str, dict[str, float]] = Field(default={}, description="Type of defect → recall, images.")


class RobustnessSlice(Contract):
    """How a bundle does on held-out photographs to which something was done."""

    variation: str = Field(description="What was done, in words.")
    images: int
    accuracy: Share
    auroc: Share
    parts_found: Share | None = Field(description="Share in which a part was found; None where none is looked for.")


class EvaluationReport(Contract):
    """How a bundle does on images that nothing was fitted to."""

    bundle: Sha256
    dataset: Sha256
    split: Split = "test"
    images: int
    metrics: dict[str, float] = Field(
        description="accuracy, loss (nats), balanced_accuracy, auroc, precision, recall, f1, brier, …, by name; those "
        "that begin with cross_validated_ are of the training images, each judged by a model that has not seen it."
    )
    threshold: ThresholdChoice
    confusion: dict[str, dict[str, int]] = Field(description="Truth → predicted → images.")
    per_class: dict[str, dict[str, float]] = Field(description="Class → precision, recall, f1, images.")
    per_kind: dict[str, dict[str, float]] = Field(default={}, description="Type of defect → recall, images.")
    calibration: tuple[tuple[float, float, int], ...] = Field(
        default=(), description="Reliability bins: mean score, share of defective, images."
    )
    cross_validation: OutOfFoldEstimate | None = Field(default=None, description="None where there were no folds.")
    robustness: tuple[RobustnessSlice, ...] = Field(
        default=(), description="Empty where the photographs are not there any more."
    )


VERSION_HEADER = "X-Model-Version"
"""By which a request may name the version that shall judge, and by which an answer names the one that did."""


class ServedModel(Contract):
    """The model an environment wants: `user_config.model` of a deployment."""

    name: Name
    version: Version
    uri: str = Field(description="The bundle's folder: file://, s3://, or whatever pyarrow.fs knows.")
    sha256: Sha256 = Field(description="The bundle's digest.")

    def __str__(self) -> str:
        """In words."""
        return f"{self.name} {self.version}"


class Canary(Contract):
    """A candidate that answers a share of the requests: `user_config.canary` of a deployment."""

    kind: ClassVar[Literal["canary"]] = "canary"

    percent: int = Field(ge=1, le=99, description="Share of the requests that the candidate answers, in percent.")
    model: ServedModel = Field(description="The candidate.")

    def __str__(self) -> str:
        """In words."""
        return f"canary of version {self.model.version} ({self.percent} %)"


class Shadow(Contract):
    """A candidate that judges the same photographs without answering: `user_config.shadow` of a deployment."""

    kind: ClassVar[Literal["shadow"]] = "shadow"
    percent: ClassVar[None] = None

    model: ServedModel = Field(description="The candidate.")

    def __str__(self) -> str:
        """In words."""
        return f"shadow of version {self.model.version}"


Trial = Canary | Shadow
"""What is tried beside the model that answers."""


class UserConfig(Contract):
    """`user_config` of a deployment that serves a model: a change is applied without a restart."""

    model: ServedModel | None = Field(default=None, description="What shall be served; null: nothing yet.")
    canary: Canary | None = Field(default=None, description="A candidate that answers a share; null: none.")
    shadow: Shadow | None = Field(default=None, description="A candidate that answers nothing; null: none.")

    @model_validator(mode="after")
    def _one_trial_beside_a_model(self) -> Self:
        if self.canary and self.shadow:
            raise ValueError("`canary` and `shadow` stand there together: take one of them out")
        if (trial := self.trial) is None:
            return self
        if self.model is None:
            raise ValueError(f"`{trial.kind}` needs a `model` beside which it is tried")
        if trial.model.name != self.model.name:
            raise ValueError(f"`{trial.kind}` is a model of {trial.model.name}, `model` one of {self.model.name}")
        if trial.model.version == self.model.version:
            raise ValueError(f"`{trial.kind}` has version {trial.model.version}, which is that of `model` itself")
        return self

    @classmethod
    def of(cls, model: ServedModel | None, trial: Trial | None = None) -> Self:
        """What serves `model`, and tries `trial` beside it."""
        return cls.model_validate({"model": model} | ({trial.kind: trial} if trial else {}))

    def __str__(self) -> str:
        """In words."""
        served = f"{self.model.name} version {self.model.version}" if self.model else "no model"
        return f"{served} with a {self.trial}" if self.trial else served

    @property
    def trial(self) -> Trial | None:
        """What is tried beside the model; None: nothing."""
        return self.canary or self.shadow

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The model and the candidate, where there are such."""
        return tuple(model for model in (self.model, self.trial and self.trial.model) if model)


class FleetConfig(Contract):
    """`user_config` of a deployment that serves many models, and loads each when it is asked for."""

    models: dict[Name, ServedModel] = Field(default={}, description="What shall be served, by name; null: nothing yet.")

    @field_validator("models", mode="before")
    @classmethod
    def _none_is_nothing(cls, value: object) -> object:
        return {} if value is None else value

    @model_validator(mode="after")
    def _each_under_its_name(self) -> Self:
        for name, model in self.models.items():
            if model.name != name:
                raise ValueError(f"`models.{name}` is a model of {model.name}: it stands under its own name")
        return self

    def __str__(self) -> str:
        """In words."""
        return f"a fleet of {len(self.models)} models"


class ModelVersion(Contract):
    """`gitops/models/<name>/<version>.yaml`: a registered version, as Git keeps it."""

    model: ServedModel
    created: str = Field(description="When it was registered, RFC 3339 in UTC.")
    mlflow_run_id: str
    evaluation: EvaluationReport


# --- drift ------------------------------------------------------------------------------------------------------------


class DriftFinding(Contract):
    """A feature of a window, compared with what it should be like."""

    kind: DriftKind
    feature: str
    statistic: str = Field(description="ks, ks_less (only smaller values count), mmd or share_difference.")
    value: float
    p_value: Share = Field(description="How likely so large a value is without drift, corrected for the whole window.")
    wasserstein: float | None = Field(
        default=None,
        description="How far values moved, in standard deviations of the reference; None: no single value.",
    )
    drifted: bool
    label: str | None = Field(
        default=None,
        description="Under which it differs most; None where labels were compared, and in older windows.",
    )


class LabelCounts(Contract):
    """How often a version gave each label at first: what later windows are compared with."""

    labels: dict[str, int]


class DriftWindow(Contract):
    """A window of photographs and what was found; the photographs' figures are in the Parquet file of the same name."""

    application: str
    model: ServedModel
    outcome: WindowOutcome
    photographs: int
    began_at: AwareDatetime
    ended_at: AwareDatetime = Field(description="When its last photograph came.")
    judged_at: AwareDatetime | None = Field(
        default=None, description="When it was judged, which may be long after its end; None: nobody kept it."
    )
    labels: dict[str, int] = Field(description="How often each label was given.")
    compares_labels: bool = Field(description="Whether there were earlier windows to compare the labels with.")
    findings: tuple[DriftFinding, ...] = ()
    drifting_since: AwareDatetime | None = Field(
        default=None, description="When the first of the windows in a row that drifted began; None: this one did not."
    )
    examples: tuple[Sha256, ...] = Field(
        default=(),
        description="Photographs whose files the window keeps, those first that the model was least sure of.",
    )

    @property
    def drifted(self) -> tuple[DriftFinding, ...]:
        """What drifted, the least likely first."""
        return tuple(sorted((found for found in self.findings if found.drifted), key=lambda found: found.p_value))


# --- comparisons ------------------------------------------------------------------------------------------------------


LEAST_P = 0.001
"""Below it a p value is not written out: three digits say enough."""


class ComparedVersion(Contract):
    """One of the two versions of a comparison."""

    model: ServedModel
    threshold: Share = Field(description="Its bundle's: a photograph whose score is at least this is not good.")
    dataset: Sha256 = Field(description="What it was trained on.")


class MetricDifference(Contract):
    """A metric of both versions on the same images."""

    a: float
    b: float
    difference: float = Field(description="b − a: above 0, B is better.")
    low: float = Field(description="Lower end of the difference's 95 % interval.")
    high: float = Field(description="Its upper end.")


class McNemar(Contract):
    """McNemar's exact test: the images that only one of the two judges right."""

    only_a_right: int
    only_b_right: int
    p_value: Share = Field(description="Two-sided: how likely so uneven a split is where both are right equally often.")

    @property
    def p_text(self) -> str:
        """The p value as it is written."""
        return f"p = {self.p_value:.3f}" if self.p_value >= LEAST_P else f"p < {LEAST_P}"


class Disagreement(Contract):
    """An image that the two versions judge differently."""

    filename: str
    label: str = Field(description="The truth.")
    a: str = Field(description="What A says.")
    b: str = Field(description="What B says.")
    a_score: Share = Field(description="Probability that the part is not good, by A.")
    b_score: Share = Field(description="The same by B.")


class Newcomers(Contract):
    """What two versions say of photographs that are in the dataset of the second, and not in that of the first.

    The first had not seen them. Of the second, held-out ones are judged by itself, the others out of fold.
    """

    images: int
    labels: dict[str, int] = Field(description="The truth: how many of each class, in their order.")
    held_out: int = Field(description="Those of them in the test split.")
    left_out: int = Field(default=0, description="Further ones, which look like some that the first was made of.")
    not_judged: int = Field(
        default=0, description="Further ones, in the validation split: the second was chosen by them."
    )
    a_right: int = Field(description="Judged right by the first.")
    b_right: int = Field(description="Judged right by the second.")
    mcnemar: McNemar

    @property
    def summary(self) -> str:
        """What it came to, in a line."""
        if not self.images:
            chosen = f", {self.not_judged} chose the threshold" if self.not_judged else ""
            return f"no photograph that came since and tells something: {self.left_out} look like older ones{chosen}"
        kinds = ", ".join(f"{count} {label}" for label, count in self.labels.items() if count)
        alike = f"; {self.left_out} more look like older ones" if self.left_out else ""
        alike += f"; {self.not_judged} more chose the threshold" if self.not_judged else ""
        return (
            f"{self.images} photographs that came since ({kinds}; {self.held_out} held out, the others judged out of "
            f"fold): {self.b_right} right against {self.a_right}, McNemar {self.mcnemar.p_text}{alike}"
        )


class Comparison(Contract):
    """Two versions on the same images, to none of which either was fitted: `comparisons/<name>/<A>-<B>/…`."""

    a: ComparedVersion
    b: ComparedVersion
    dataset: Sha256 = Field(description="Whose images both judged.")
    split: Split = "test"
    images: int
    metrics: dict[str, MetricDifference] = Field(
        description="accuracy, balanced_accuracy, auroc, recall, precision, by name."
    )
    mcnemar: McNemar
    resamples: int = Field(description="Of the bootstrap that the intervals come from.")
    disagreements: tuple[Disagreement, ...] = ()
    left_out: tuple[str, ...] = Field(
        default=(), description="File names of the split that one of the two was fitted to, or to lookalikes of them."
    )
    newcomers: Newcomers | None = Field(
        default=None, description="None: none came since, or nobody can say which, or how the second would judge them."
    )
    warnings: tuple[str, ...] = Field(default=(), description="What makes the figures less sure, in words.")

    @property
    def summary(self) -> str:
        """What it came to, in a line."""
        one, other = self.a.model, self.b.model
        found = self.metrics["accuracy"]
        mind = f"; mind: {'; '.join(self.warnings)}" if self.warnings else ""
        newcomers = f"; {self.newcomers.summary}" if self.newcomers else ""
        return (
            f"{other} against {one} on {self.images} held-out images: "
            f"accuracy {found.b:.4f} against {found.a:.4f} ({found.difference:+.4f}; 95 %: {found.low:+.4f} to "
            f"{found.high:+.4f}), McNemar {self.mcnemar.p_text}{newcomers}{mind}"
        )
