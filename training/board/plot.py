"""A board as a picture: correlations on the left, shares on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from training.board.results import Board, Measure, Row
from training.board.tables import rows_of
from training.evaluation.plots import STYLE, save

_WIDTH, _LINE, _MARGIN = 11.0, 0.3, 1.2  # inches
_DPI = 100
_MARKERS = "osD^v<"
_SPREAD = 0.6  # of a line, that rows take beside each other


def write(board: Board, folder: Path) -> list[Path]:
    """Write board.png and board.svg.

    Args:
        board: the board.
        folder: exists.

    Raises:
        OSError: a file cannot be written.
    """
    with rc_context(STYLE):
        return save(draw(board), folder / "board")


def draw(board: Board) -> Figure:
    """Draw a board: a line a measure, a marker a row with its 95 % interval."""
    kinds = [
        (unit, [m for m in board.measures if m.unit == unit and not m.detail])
        for unit in ("correlation", "share")
    ]
    most = max(1, *(len(some) for _, some in kinds))
    size = _WIDTH, _MARGIN + _LINE * most
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    rows = rows_of(board)
    for axes, (unit, some) in zip(figure.subplots(1, len(kinds)), kinds, strict=True):
        _panel(axes, some, rows, 100.0 if unit == "share" else 1.0)
        axes.set_xlabel("share in % (95 %)" if unit == "share" else "correlation (95 %)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(rows), frameon=False)
    figure.suptitle(f"{board.model}, {board.engine}")
    return figure


def _panel(axes: Any, some: Sequence[Measure], rows: Sequence[Row], scale: float) -> None:
    colours = colormaps["tab10"]
    for i, row in enumerate(rows):
        at = (i / max(1, len(rows) - 1) - 0.5) * _SPREAD
        points = [
            (line + at, value)
            for line, measure in enumerate(some)
            if (value := row.values.get(measure.key)) is not None and value.value is not None
        ]
        x = [scale * (value.value or 0.0) for _, value in points]
        ends = [value.interval or (value.value or 0.0,) * 2 for _, value in points]
        gaps = [
            [abs(scale * end[side] - centre) for end, centre in zip(ends, x, strict=True)]
            for side in (0, 1)
        ]
        axes.errorbar(
            x, [y for y, _ in points], xerr=gaps, fmt=_MARKERS[i % len(_MARKERS)],
            markersize=4, linewidth=0.8, color=colours(i % 10), label=row.name,
        )  # fmt: skip
    axes.set_yticks(range(len(some)), [m.key for m in some])
    axes.set_ylim(max(1, len(some)) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.4)
    for line in range(1, len(some)):
        axes.axhline(line - 0.5, color="0.9", linewidth=0.6)
