"""What was seen of photographs as columns of numbers: those of a bundle's reference, and those of a window."""

from collections.abc import Sequence

import numpy as np

from gitops.contracts.model import ReferenceSample
from gitops.errors import BundleError
from monitoring.drift import CONFIDENCE, SCORE, Observations
from serve.measures import Measures
from serve.predictor import Observation, Predictor


def reference_of(predictor: Predictor) -> Observations:
    """What the bundle says that the line should look like.

    Raises:
        ContractError: it has no reference that can be read.
        BundleError: the reference's embeddings are not of this network.
    """
    manifest = predictor.manifest
    sample = ReferenceSample.read(predictor.bundle.folder / manifest.reference)
    settings = manifest.preprocessing
    blank = np.zeros((1, settings.height, settings.width, settings.channels), np.uint8)
    dimensions = predictor.embed(blank).shape[1]
    if any(len(vector) != dimensions for vector in sample.embeddings if vector is not None):
        raise BundleError(
            f"bundle {predictor.digest[:12]}: {manifest.reference} has embeddings that are not of its network, whose "
            f"own have {dimensions} dimensions: export the model again"
        )
    missing = (np.nan,) * dimensions
    return Observations(
        labels=np.array(sample.labels, np.str_),
        values={name: np.array(values, np.float64) for name, values in sample.values.items()},
        embeddings=np.array([vector or missing for vector in sample.embeddings], np.float64).reshape(-1, dimensions),
    )


def observations_of(observed: Sequence[Observation]) -> Observations:
    """The photographs of a window, n ≥ 1."""
    columns = {
        SCORE: [item.judgement.score for item in observed],
        CONFIDENCE: [item.confidence for item in observed],
        **{name: [float(getattr(item.measures, name)) for item in observed] for name in Measures.model_fields},
    }
    return Observations(
        labels=np.array([item.judgement.label for item in observed], np.str_),
        values={name: np.array(values, np.float64) for name, values in columns.items()},
        embeddings=np.array([item.embedding for item in observed], np.float64),
    )
