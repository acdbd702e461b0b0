"""What a replica says of its models over HTTP: serve writes it, and whoever watches compares it with what Git wants.

A reader passes over keys that it does not know, which a newer replica may have. A key that comes later has a default
here, since an older replica does not have it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from gitops.contracts.base import Contract, Sha256, Version
from gitops.contracts.serving import FleetConfig, ServedModel, Trial, UserConfig

COUNT_HEADER = "X-Count"
"""A request says with it whether its photographs count: `false` where they were judged before, or are none of the line.

Nobody else can know that a heat-map is asked for of a photograph whose judgement somebody has seen, and wants to see
explained just because it is suspicious; while a camera that asks for nothing but heat-maps shows each photograph once.
"""


class WantedModel(Contract):
    """A bundle: the one that the environment wants, or the one that answers."""

    version: Version
    sha256: Sha256

    @classmethod
    def of(cls, model: ServedModel) -> "WantedModel":
        """The part of a model's description that replicas repeat."""
        return cls(version=model.version, sha256=model.sha256)


class TrialMetadata(Contract):
    """What a replica shall try beside its model, and whether it does."""

    kind: Literal["canary", "shadow"] = Field(description="canary: it answers a share; shadow: it only judges.")
    percent: int | None = Field(description="Share of the requests that it answers; null: none, it is a shadow.")
    version: Version
    sha256: Sha256 = Field(description="Its bundle's digest.")
    loaded: bool = Field(description="Whether it judges; until then the model answers alone.")
    load_error: str | None = Field(description="Why it does not.")

    def is_of(self, trial: Trial) -> bool:
        """Whether `trial` has reached this replica's configuration."""
        wanted = (trial.kind, trial.percent, trial.model.version, trial.model.sha256)
        return (self.kind, self.percent, self.version, self.sha256) == wanted


class ReplicaMetadata(Contract):
    """`GET {route}/v2/models/{name}`: the part about what one replica serves under a name, and what it should."""

    version: Version | None = Field(description="The version that answers; null: none does.")
    sha256: Sha256 | None = Field(description="Its bundle's digest.")
    wanted: WantedModel | None = Field(description="What the environment wants.")
    load_error: str | None = Field(description="Why the wanted bundle is not what answers.")
    trial: TrialMetadata | None = Field(description="What is tried beside the model; null: nothing.")
    replica: str = Field(description="The replica that answered, as Ray Serve's REST API lists it.")

    @property
    def in_memory(self) -> tuple[str, ...]:
        """What answers, each `version@sha256:digest`: the model, and a candidate that has its share of the requests."""
        canary = self.trial if self.trial and self.trial.kind == "canary" and self.trial.loaded else None
        answering = [(self.version, self.sha256), *([(canary.version, canary.sha256)] if canary else [])]
        # Without the model a candidate answers nobody who does not ask for it.
        return tuple(f"{version}@sha256:{digest}" for version, digest in answering) if self.sha256 else ()

    def serves(self, wanted: UserConfig | FleetConfig) -> bool:
        """Whether this replica's answers come from the wanted model, and it tries what is wanted beside it."""
        if isinstance(wanted, FleetConfig):
            return False
        model = wanted.model
        if model is None or (self.version, self.sha256) != (model.version, model.sha256):
            return False
        if wanted.trial is None or self.trial is None:
            return wanted.trial is None and self.trial is None
        return self.trial.is_of(wanted.trial) and self.trial.loaded

    def refusal(self, wanted: UserConfig | FleetConfig) -> str | None:
        """Why this replica cannot serve or try what it was asked to; None: it can, or was not asked yet."""
        if isinstance(wanted, FleetConfig):
            return None
        model = wanted.model
        if self.load_error and model and self.wanted == WantedModel.of(model):
            still = f"version {self.version} goes on answering" if self.version else "no version answers"
            return f"wanted is {model.name} version {model.version}, but {still}: {self.load_error}"
        if wanted.trial and self.trial and self.trial.load_error and self.trial.is_of(wanted.trial):
            return f"wanted is a {wanted.trial}, but version {self.version} answers alone: {self.trial.load_error}"
        return None


class MemberMetadata(Contract):
    """What one replica says of a model of its fleet."""

    wanted: WantedModel
    served: WantedModel | None = Field(description="What answers at once; null: it is not in memory.")
    load_error: str | None = Field(description="Why the wanted version did not load, when it was asked for.")


class FleetMetadata(Contract):
    """`GET {route}/fleet`: the models that one replica holds, and those that it would load if it were asked."""

    replica: str = Field(description="The replica that answered, as Ray Serve's REST API lists it.")
    max_models: int = Field(description="Most models that it holds in memory.")
    models: dict[str, MemberMetadata]
    load_error: str | None = Field(description="Why the last configuration was not followed.")

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The models that answer at once, each `name version@sha256:digest`."""
        return tuple(
            f"{name} {member.served.version}@sha256:{member.served.sha256}"
            for name, member in self.models.items()
            if member.served
        )

    def serves(self, wanted: UserConfig | FleetConfig) -> bool:
        """Whether this replica knows the fleet as it shall be, and holds none of its models in another version."""
        if not isinstance(wanted, FleetConfig):
            return False
        known = {name: member.wanted for name, member in self.models.items()}
        return known == {name: WantedModel.of(model) for name, model in wanted.models.items()} and all(
            member.served in (None, member.wanted) for member in self.models.values()
        )

    def refusal(self, wanted: UserConfig | FleetConfig) -> str | None:
        """Why this replica cannot serve one of the models; None: it can, as far as it was asked to."""
        if not isinstance(wanted, FleetConfig):
            return None
        if self.load_error:
            return f"wanted is {wanted}, and not followed: {self.load_error}"
        for name, member in self.models.items():
            model = wanted.models.get(name)
            if member.load_error and model and member.wanted == WantedModel.of(model):
                still = f"version {member.served.version} goes on answering" if member.served else "no version answers"
                return f"wanted is {name} version {model.version}, but {still}: {member.load_error}"
        return None


@dataclass(frozen=True)
class Answers:
    """What the replicas of an application answered."""

    by_replica: Mapping[str, ReplicaMetadata | FleetMetadata]
    silence: str = ""
    """Why not every running replica answered; empty if each did."""
    busy: bool = False
    """They have too much to do; Serve, which asks for their health on another way, finds those that hang."""
    can_be_asked: bool = True
    """False: the application has no HTTP route, so that there is only Serve's word."""


NO_ANSWERS = Answers({})
