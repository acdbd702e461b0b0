"""`args` of our applications, as an environment's `serve-config.yaml` has them: the gates read them as replicas do."""

from pathlib import Path

from pydantic import Field, field_validator

from gitops.contracts.base import Contract
from gitops.errors import ContractError
from gitops.status import Journal

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 50_000_000

# A replica runs in whatever folder Ray gives it.
_ABSOLUTE = r"^[/~]"


class ApplicationArguments(Contract):
    """`args` of the application: a change restarts its replicas."""

    max_bytes: int = Field(default=MAX_BYTES, ge=1, description="Largest file of a photograph, in bytes.")
    max_request_bytes: int = Field(
        default=4 * MAX_BYTES, ge=1, description="Largest form or inference request, in bytes."
    )
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, description="Largest photograph, in pixels.")
    max_files: int = Field(default=16, ge=1, description="Most images of one request.")
    threads: int = Field(default=2, ge=1, le=64, description="Requests whose network a replica runs side by side.")
    threads_alone: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="CPU threads of the network for a request that is alone; unset: `threads`.",
    )
    cache: str | None = Field(
        default=None, description="Folder for bundles of remote stores; unset: one that lasts as long as Ray's session."
    )
    feedback: str | None = Field(
        default=None, pattern=_ABSOLUTE, description="Folder that keeps what users say of judgements; unset: nothing."
    )
    journal: str | None = Field(
        default=None,
        pattern=_ABSOLUTE,
        description="The reconciler's folder of this environment, <state>/reconciler/<environment>; unset: the page "
        "shows only what a replica knows by itself.",
    )
    prometheus: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="URL of the Prometheus that has this service's metrics; unset: that of `mergeline monitor up` for "
        "the journal's state folder, or else a replica's own figures.",
    )

    windows: str | None = Field(
        default=None,
        pattern=_ABSOLUTE,
        description="Folder that keeps windows of photographs, by which drift is judged; unset: there is no monitor.",
    )
    windows_kept: int = Field(default=200, ge=1, description="Windows that are kept, the latest ones.")
    window_hours: float = Field(default=24, gt=0, description="After which a window is judged though it is not full.")
    window_photographs: int = Field(
        default=8, ge=0, description="Files that a window keeps, of those that the model was least sure of."
    )
    sample_seconds: float = Field(
        default=1, ge=0, description="Between two photographs that a replica hands to the monitor."
    )

    @field_validator("journal")
    @classmethod
    def _is_a_journal(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                Journal.at(Path(value))
            except ContractError as error:
                raise ValueError(str(error)) from None
        return value


class FleetArguments(ApplicationArguments):
    """`args` of the application: a change restarts its replicas."""

    max_models: int = Field(default=8, ge=1, description="Most models that a replica holds in memory.")

    @field_validator("windows")
    @classmethod
    def _has_no_monitor(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError("a fleet has no monitor: leave it out, or null")
        return value
