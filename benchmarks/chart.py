"""Draws the README's picture of servers side by side from a record.

python -m benchmarks.chart RECORD PICTURE
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_OURS, _OTHERS, _CEILING = "#1f6f54", "#b8c4c0", "#8a6d1f"


def draw(record: dict[str, Any]) -> Figure:
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


def main(arguments: list[str]) -> int:
    """Write the picture."""
    if len(arguments) != 2:
        print(f"usage: {__doc__}", file=sys.stderr)
        return 2
    draw(json.loads(Path(arguments[0]).read_text())).savefig(arguments[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
