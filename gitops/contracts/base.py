"""The base of all contracts, and the types that several of them use."""

import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gitops import bounded_yaml
from gitops.errors import ContractError, did_you_mean

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
            text = path.read_text("utf-8")
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
