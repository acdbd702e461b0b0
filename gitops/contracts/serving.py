"""What is served: models, what is tried beside them, and registered versions, as Git has them."""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gitops.contracts.base import Contract, Name, Sha256, Version
from gitops.contracts.model import EvaluationReport

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
