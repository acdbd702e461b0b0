"""What is printed: text as it is, whatever stands in it, and tables, whose cells are such text or have a colour."""

import json
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.measure import Measurement, measure_renderables
from rich.table import Table
from rich.text import Text

_LEAST_PROSE, _UNBOUNDED = 10, 1_000_000  # columns of the screen


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)


out, err = _console(), _console(stderr=True)


class Prose(str):
    """The heading of a column whose cells may be folded between words."""

    __slots__ = ()


def say(text: str) -> None:
    """Print a text and a line's end."""
    out.print(text)


def say_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def say_table(*headings: str, rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table: on a screen only prose is folded, and nothing is cut off; elsewhere each row is one line.

    Args:
        headings: of the columns, `Prose` where a column may be folded; no heading is shown where all are empty.
        rows: a cell for each heading; a `Text` has its own colours.
    """
    rows = list(rows)
    table = Table(box=None, show_header=any(headings))
    for heading in headings:
        table.add_column(heading, no_wrap=not isinstance(heading, Prose), overflow="fold")
    for row in rows:
        table.add_row(*row)
    unbounded = out.options.update_width(_UNBOUNDED)
    table.width = Measurement.get(out, unbounded, table).maximum
    if out.is_terminal:
        prose = [cells for cells in zip(headings, *rows, strict=True) if isinstance(cells[0], Prose)]
        widths = [measure_renderables(out, unbounded, cells).maximum for cells in prose]
        least = table.width - sum(max(0, width - _LEAST_PROSE) for width in widths)
        table.width = min(table.width, max(out.width, least))
    out.print(table)
