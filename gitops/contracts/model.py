"""What training, export and evaluation leave behind: results, bundles and evaluation reports."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gitops.contracts.base import Contract, Name, Sha256, Share, Split
from gitops.contracts.project import Preprocessing, Training


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
