"""Compares the ratios of a run with those of a record, and fails where one has fallen.

python -m benchmarks.check RECORD RUN

Both are pytest-benchmark's JSON. A ratio says how many times as fast ours is as what it was measured beside, in one
run on one machine, so that it can be compared with another run's; seconds cannot.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.services import PEERS

ALLOWED = 0.25
"""A ratio may fall by this share: two runs of the same code differ by up to half of it on a shared machine."""


@dataclass(frozen=True)
class Compared:
    """A ratio in the record and in the run."""

    benchmark: str
    beside: str
    recorded: float
    now: float | None
    """None: it was not measured."""

    @property
    def verdict(self) -> str:
        """`ok`, or what is wrong."""
        if self.now is None:
            return "MISSING"
        return "FALLEN" if self.now < self.recorded * (1 - ALLOWED) else "ok"


def compare(record: dict[str, Any], run: dict[str, Any]) -> list[Compared]:
    """Every ratio of the record; those with peers only if the run has them, as it can go without."""
    recorded, now, peers = _ratios(record), _ratios(run), {peer.name for peer in PEERS}
    return [Compared(*key, value, now.get(key)) for key, value in recorded.items() if key in now or key[1] not in peers]


def _ratios(report: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {
        (entry["name"], beside): value
        for entry in report["benchmarks"]
        for beside, value in entry["extra_info"].get("ratios", {}).items()
    }


def main(arguments: list[str]) -> int:
    """Print the comparison; exit status 1 where a ratio has fallen or was not measured, or where there is none."""
    if len(arguments) != 2:
        print(f"usage: {__doc__}", file=sys.stderr)
        return 2
    try:
        record, run = (json.loads(Path(file).read_text()) for file in arguments)
    except OSError as error:
        print(f"error: {error}; `make bench` writes a record", file=sys.stderr)
        return 2
    compared = compare(record, run)
    for one in compared:
        print(f"{one.verdict:7} {one.benchmark} beside {one.beside}: {one.recorded} in the record, {one.now} now")
    if not compared:
        print("error: the record and the run have no ratio in common", file=sys.stderr)
    return int(not compared or any(one.verdict != "ok" for one in compared))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
