"""Results as SVG files; the same record gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.record import RESULTS, Record, Series
from giqa.files import write

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "giqa",  # else ids in the file are random
    "svg.fonttype": "none",  # small files, text that can be searched
    "text.parse_math": False,  # names may hold a $
    "font.size": 8,
}
_OWN, _OTHER = "#2563eb", "#9ca3af"
_WIDTH = 7.0
"""In inches."""

_WIDE = 20.0
"""Longest bar by shortest from which on a linear axis would hide the short ones."""
_METRICS = {"limit": "efficiency", "micro": "time"}
"""What a suite's plot shows; others show the metric that they name first."""


def write_plot(found: Record, folder: Path = RESULTS) -> Path:
    """Draw a record.

    Args:
        found: the record.
        folder: where `SUITE.svg` goes; an older one is replaced.

    Returns:
        The file.

    Raises:
        StorageFullError: no space is left.
    """
    path, file = folder / f"{found.suite}.svg", io.BytesIO()
    with rc_context(_STYLE):
        figure = _FIGURES.get(found.suite, bars)(found)
        # Neither a date nor the version of matplotlib.
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    write(path, file.getvalue())
    return path


def bars(found: Record) -> Figure:
    """Draw a bar per subject, median with least and most of the rounds, giqa's own in colour."""
    metric = _METRICS.get(found.suite, found.series[0].metric)
    shown = [one for one in found.series if one.metric == metric]
    figure = Figure(figsize=(_WIDTH, 0.6 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    names = [one.subject for one in shown]
    others = any(name.startswith("giqa") for name in names)
    colours = [_OWN if not others or name.startswith("giqa") else _OTHER for name in names]
    axes.barh(
        names,
        [one.median for one in shown],
        xerr=_whiskers(shown),
        color=colours,
        error_kw={"elinewidth": 0.8},
    )
    axes.invert_yaxis()
    medians = [one.median for one in shown]
    if min(medians) > 0 and max(medians) > _WIDE * min(medians):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # its own would be TeX
        axes.xaxis.set_minor_formatter("")
    arrow = {"higher": "more is better", "lower": "less is better"}.get(shown[0].better, "")
    axes.set_xlabel(f"{metric} ({shown[0].unit}), {arrow}" if arrow else metric)
    axes.margins(y=0.01)
    return figure


def growth(found: Record) -> Figure:
    """Draw the suite `scale`: time against images, megapixels and views, memory against images."""
    figure = Figure(figsize=(_WIDTH, 4.5), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, fact, label in zip(
        panels,
        ("images", "megapixels", "views"),
        ("images", "megapixels, profile fast", "views, profile precise"),
        strict=False,
    ):
        shown = [one for one in found.series if one.metric == "time" and fact in one.facts]
        axes.errorbar(
            [float(str(one.facts[fact])) for one in shown],
            [one.median for one in shown],
            _whiskers(shown),
            marker="o",
            markersize=3,
            capsize=2,
            color=_OWN,
        )
        axes.set(xlabel=label, ylabel=f"time ({shown[0].unit})" if shown else "time")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    for one in found.series:
        if one.name == "memory/growth":
            panels[3].plot(one.facts["after"], one.facts["mb"], color=_OWN, marker=".")
    panels[3].set(xlabel="images", ylabel="memory (MB)")
    panels[3].set_ylim(0, 1.05 * panels[3].get_ylim()[1])
    return figure


def latency(found: Record) -> Figure:
    """Draw the suite `triton`: ways of asking as bars, and latency against throughput as curves."""
    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = [
        one
        for one in found.series
        if one.metric == "throughput" and "," not in one.subject.removesuffix(", shared memory")
    ]
    left.barh(
        [one.subject for one in ways],
        [one.median for one in ways],
        xerr=_whiskers(ways),
        color=[_OTHER if one.subject == "in process" else _OWN for one in ways],
        error_kw={"elinewidth": 0.8},
    )
    left.invert_yaxis()
    left.set_xlabel("throughput (images/s), more is better")
    known = {one.name: one for one in found.series}
    for load, style in (("concurrency", "o-"), ("rate", "s--")):
        for metric, colour in (("latency p50", _OWN), ("latency p95", _OTHER)):
            # From load to load: beyond capacity throughput no longer grows, or falls.
            points = [
                (known[f"{one.subject}/throughput"].median, one.median)
                for one in found.series
                if one.metric == metric
                and one.subject.startswith(f"perf_analyzer, {load}")
                and not one.subject.endswith("shared memory")
            ]
            if points:
                right.plot(
                    *zip(*points, strict=True), style, markersize=3, color=colour,
                    label=f"{metric.removeprefix('latency ')}, {load}",
                )  # fmt: skip
    right.set(xlabel="throughput (images/s)", ylabel="latency (ms)")
    right.set_ylim(bottom=0)
    if right.lines:
        right.legend(frameon=False)
    return figure


_FIGURES: dict[str, Callable[[Record], Figure]] = {"scale": growth, "triton": latency}


def _whiskers(shown: Sequence[Series]) -> list[list[float]]:
    return [
        [one.median - min(one.values) for one in shown],
        [max(one.values) - one.median for one in shown],
    ]
