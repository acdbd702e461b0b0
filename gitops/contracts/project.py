"""The project file `project.yaml`: what a team says of its parts, its training and its bars."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gitops.contracts.base import Contract, Name, Share
from gitops.errors import did_you_mean


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
