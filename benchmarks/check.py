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

ALLOWED = 0.25
"""A ratio may fall by this share: two runs of the same code differ by up to half of it on a shared machine."""


@dataclass(frozen=True)
class Compared:
    """A ratio in the record and in the run."""

    benchmark: str
    beside: str
    recorded: float
    now: float

    @property
    def has_fallen(self) -> bool:
        """Whether it is a regression."""
        return self.now < self.recorded * (1 - ALLOWED)


def compare(record: dict[str, Any], run: dict[str, Any]) -> list[Compared]:
    """Every ratio that both have."""
    recorded, now = _ratios(record), _ratios(run)
    return [Compared(*key, value, now[key]) for key, value in recorded.items() if key in now]


def _ratios(report: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {
        (entry["name"], beside): value
        for entry in report["benchmarks"]
        for beside, value in entry["extra_info"].get("ratios", {}).items()
    }


def main(arguments: list[str]) -> int:
    """Print the comparison; the exit status is 1 where a ratio has fallen, or where there is none to compare."""
    if len(arguments) != 2:
        print(f"usage: {__doc__}", file=sys.stderr)
        return 2
    record, run = (json.loads(Path(file).read_text()) for file in arguments)
    compared = compare(record, run)
    for one in compared:
        verdict = "FALLEN" if one.has_fallen else "ok"
        print(f"{verdict:6} {one.benchmark} beside {one.beside}: {one.recorded} in the record, {one.now} now")
    if not compared:
        print("error: the record and the run have no ratio in common", file=sys.stderr)
    return int(not compared or any(one.has_fallen for one in compared))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
