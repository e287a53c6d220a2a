"""Plots of an evaluation, as PNG and SVG; the same evaluation gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from giqa.contract import SCORE_MAX, SCORE_MIN
from training.evaluation.results import DataSet, Evaluation
from training.metrics import Logistic

SIZE = (900, 675)
"""Width and height of a PNG in pixels."""

_DPI = 150
_LEGEND = 24
"""Most subsets that a legend names."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "giqa",  # else ids in the file are random
    "text.parse_math": False,  # names may hold a $
    "font.size": 8,
}


def write_plots(found: Evaluation, folder: Path) -> list[Path]:
    """Write a scatter plot per data set and, where it was measured, SROCC against V.

    Args:
        found: the evaluation.
        folder: is made if need be; files in it with the same names are replaced.

    Returns:
        The files: `scatter-<data set>` and `srocc-against-v`, each as .png and .svg.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with rc_context(STYLE):
        for one in found.datasets:
            name = re.sub(r"[^\w.-]+", "_", one.name)
            written += save(scatter(one), folder / f"scatter-{name}")
        curves = [one for one in found.datasets if one.views]
        if curves:
            written += save(against_views(curves), folder / "srocc-against-v")
    return written


def scatter(found: DataSet) -> Figure:
    """Draw opinion scores against scores, coloured by subset, with the 4-parameter logistic."""
    figure = _figure()
    axes = figure.subplots()
    scored = [row for row in found.rows if row.score is not None]
    names = sorted({row.subset for row in scored})
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, max(2, len(names))))
    for name, colour in zip(names, colours, strict=False):
        part = [(row.score, row.mos) for row in scored if row.subset == name]
        x, y = zip(*part, strict=True)
        axes.scatter(x, y, s=6, color=colour, alpha=0.6, linewidths=0, label=name or "images")
    if found.logistic4 is not None:
        grid = np.linspace(SCORE_MIN, SCORE_MAX, 201)
        curve = Logistic(found.logistic4.parameters)(grid)
        axes.plot(grid, curve, color="black", linewidth=1, label="logistic")
    axes.set(
        xlim=(SCORE_MIN, SCORE_MAX),
        ylim=(SCORE_MIN, SCORE_MAX),
        xlabel="score",
        ylabel="opinion score (MOS)",
        title=f"{found.name}, {found.split}: n {found.n}, SROCC {_number(found.srocc)}, "
        f"PLCC {_number(found.plcc)}",
    )
    if 1 < len(names) <= _LEGEND:
        figure.legend(loc="outside right upper", markerscale=2, frameon=False)
    return figure


def against_views(sets: Sequence[DataSet]) -> Figure:
    """Draw SROCC with its interval against the most views V, a line per data set."""
    figure = _figure()
    axes = figure.subplots()
    for one in sets:
        rows = [row for row in one.views if row.agreement.srocc is not None]
        views = [row.views for row in rows]
        srocc = np.array([row.agreement.srocc for row in rows], float)
        ends = np.array([row.agreement.srocc_interval or (np.nan, np.nan) for row in rows])
        gaps = np.abs(ends.reshape(-1, 2).T - srocc)
        axes.errorbar(views, srocc, gaps, marker="o", markersize=4, capsize=3, label=one.name)
    ticks = sorted({row.views for one in sets for row in one.views})
    axes.set(
        xticks=ticks,
        xlabel="views V at most (1: the whole frame; more: native pixels)",
        ylabel="SROCC (95 %)",
    )
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _figure() -> Figure:
    return Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, layout="constrained")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG; within `rc_context(STYLE)` the same one gives the same bytes.

    Args:
        figure: the figure.
        stem: path of the files without their ends.
    """
    # Neither a date nor the version of matplotlib.
    kinds: dict[str, dict[str, str | None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
    }
    paths = []
    for kind, metadata in kinds.items():
        path = stem.with_name(f"{stem.name}.{kind}")
        figure.savefig(path, format=kind, metadata=metadata)
        paths.append(path)
    return paths


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
