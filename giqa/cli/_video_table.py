"""The table that `giqa video` prints."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from giqa.cli._common import fitted
from giqa.results import printable

if TYPE_CHECKING:
    from giqa.video import VideoResult


def cells_of(result: VideoResult, names: list[str]) -> list[str]:
    """A video's row."""
    pooled, worst = result.pooled, result.worst_window
    return [
        printable(result.path),
        result.status,
        *("-" if pooled is None else f"{pooled[name]:.2f}" for name in names),
        str(len(result.frames)),
        "-" if worst is None else f"{worst.start_s:.2f}-{worst.end_s:.2f}",
        "-" if worst is None else f"{worst.score:.2f}",
        "" if result.error is None else result.error.code,
    ]


def heads_of(names: list[str]) -> list[str]:
    """What the table's columns are called.

    Args:
        names: of what was pooled.
    """
    return ["video", "status", *names, "frames", "worst window", "score", ""]


def line(cells: list[str], heads: list[str]) -> str:
    """A row of the table; if the terminal is too narrow for it, lines that name the values."""
    if not sys.stdout.isatty():
        return "\t".join(cells)
    path, status, *values, code = cells
    widths = [max(len(head), 13 if head == "worst window" else 6) for head in heads[2:-1]]
    rest = 2 + 7 + sum(2 + width for width in widths) + (2 + len(code) if code else 0)
    across = shutil.get_terminal_size().columns
    if rest + 12 <= across:
        shown = (f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        return "  ".join([fitted(path, rest), f"{status:<7}", *shown, code]).rstrip()
    if cells == heads:
        return ""
    first = f"{fitted(path, 11 + len(code))}  {status:<7}  {code}".rstrip()
    pairs = (f"{head}\xa0{value}" for head, value in zip(heads[2:-1], values, strict=True))
    wrap = textwrap.TextWrapper(
        across, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    text = wrap.fill(", ".join(pairs))
    return f"{first}\n{text}".replace("\xa0", " ")
