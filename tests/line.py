"""A line on one machine, driven as a user does it: by typing commands."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Line:
    """A state folder with a running line."""

    folder: Path
    port: int
    project: str
    """The project file, with the places `seed`, `bar` and `epochs`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write_project(self, *, seed: int = 0, bar: float = 0.0, epochs: int = 2) -> None:
        (self.folder / "project.yaml").write_text(self.project.format(seed=seed, bar=bar, epochs=epochs))

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        result = subprocess.run(
            [sys.executable, "-m", "mergeline", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result

    def status(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.run("status", "--json").stdout)
        return value

    def photograph(self) -> bytes:
        return next((self.folder / ".mergeline/sources").rglob("*.png")).read_bytes()

    def await_version(self, version: str) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            status = self.status()
            resources = status["resources"]
            assert isinstance(resources, list)
            served = [str(entry).split("@")[0] for resource in resources for entry in resource["served"]]
            words = [
                status[key][word]  # type: ignore[index]
                for key, word in (("sync", "status"), ("health", "status"), ("operationState", "phase"))
            ]
            if served == [version] and words == ["Synced", "Healthy", "Succeeded"]:
                return
            time.sleep(0.3)
        pytest.fail(f"version {version} is not served: {self.status()}")
