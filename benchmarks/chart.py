"""Draws the pictures of the README and the docs from a record: servers side by side, and replicas that follow the load.

python -m benchmarks.chart RECORD FOLDER
"""

import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_OURS, _OTHERS, _CEILING = "#1f6f54", "#b8c4c0", "#8a6d1f"


def servers(record: dict[str, Any]) -> Figure:
    """Requests a second of each server (the median of its turns), one panel for each number of connections."""
    entries = [entry for entry in record["benchmarks"] if "requests_per_second" in entry["extra_info"]]
    panels = sorted({entry["params"]["concurrency"] for entry in entries})
    kinds = sorted({entry["params"]["kind"] for entry in entries}, reverse=True)
    figure = Figure(figsize=(11, 2.4 * len(kinds) + 0.8), layout="constrained")
    axes = figure.subplots(len(kinds), len(panels), squeeze=False)
    for entry in entries:
        kind, concurrency = entry["params"]["kind"], entry["params"]["concurrency"]
        axis = axes[kinds.index(kind)][panels.index(concurrency)]
        rates = entry["extra_info"]["requests_per_second"]
        medians = sorted((statistics.median(values), name) for name, values in rates.items() if all(values))
        colors = [{"mergeline": _OURS, "process pool": _CEILING}.get(name, _OTHERS) for _, name in medians]
        bars = axis.barh([name for _, name in medians], [value for value, _ in medians], color=colors)
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axis.margins(x=0.15)
        axis.set_title(f"{kind.upper()}, {concurrency} connection{'s' if concurrency > 1 else ''}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.supxlabel("photographs a second (process pool: the same work without HTTP)", fontsize=9)
    return figure


def autoscaling(record: dict[str, Any]) -> Figure:
    """Clients and answers a second, replicas, and latencies over time."""
    (found,) = (entry["extra_info"] for entry in record["benchmarks"] if "windows" in entry["extra_info"])
    windows, ends = found["windows"], [0, *itertools.accumulate(seconds for _, seconds in found["steps"])]
    at = [window["seconds"] for window in windows]
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    top.stairs([clients for clients, _ in found["steps"]], ends, color=_CEILING, label="clients")
    top.plot(at, [window["requests_per_second"] for window in windows], color=_OURS, label="answers a second")
    middle.step(*zip(*found["replicas"], strict=True), where="post", color=_OURS, label="replicas that answer")
    middle.set_ylim(0, 1 + max(count for _, count in found["replicas"]))
    middle.yaxis.get_major_locator().set_params(integer=True)
    bottom.plot(at, [window["p50"] for window in windows], color=_OURS, label="latency, p50 (s)")
    bottom.plot(at, [window["p99"] for window in windows], color=_OURS, linestyle=":", label="latency, p99 (s)")
    bottom.set_xlabel("seconds", fontsize=9)
    for axis in (top, middle, bottom):
        axis.legend(fontsize=8, frameon=False, loc="upper right")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure


def main(arguments: list[str]) -> int:
    """Write the pictures."""
    if len(arguments) != 2:
        print(f"usage: {__doc__}", file=sys.stderr)
        return 2
    record, folder = json.loads(Path(arguments[0]).read_text()), Path(arguments[1])
    for draw in (servers, autoscaling):
        draw(record).savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
