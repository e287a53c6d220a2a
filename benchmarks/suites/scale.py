"""Cost against number of images, image size and views; memory against length."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import images
from benchmarks.child import usage
from benchmarks.contenders import Setup, own
from benchmarks.options import Options
from benchmarks.record import Series
from benchmarks.rounds import interleave
from giqa.bundle import load_bundle
from giqa.contract import Profile
from giqa.decode import view_boxes
from giqa.local import LocalScorer
from giqa.openvino import choose_precision

BATCH = 8
SIDE = 512
COUNTS, QUICK_COUNTS = (16, 32, 64, 128), (1, 2, 4)
"""Numbers of images."""
SIDES, QUICK_SIDES = (256, 512, 1024, 2048, 4096), (256, 512)
"""Widths and heights of images, in pixels."""
CUTS, QUICK_CUTS = ((1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (3, 3)), ((1, 1), (2, 1))
"""Views across and down."""
LENGTH, QUICK_LENGTH, FULL_LENGTH = 2048, 24, 20_480
"""Images of the run in which memory is watched."""
_FILES = 128
_SETTLED = 0.5
"""Part of that run after which memory should be flat."""


def run(options: Options) -> Iterator[Series]:
    """Measure how cost grows.

    Args:
        options: of the run.

    Yields:
        `images N/time` in s, and of a line through all of them the slope in ms an image and R^2;
        `SIDExSIDE/time` and `precise, V views/time` in ms an image; `memory/growth` in MB per
        1,000 images, and the memory while scoring.
    """
    bundle = load_bundle(options.bundle)
    with LocalScorer(bundle, threads=options.threads, batch=BATCH) as scorer:
        yield from _counts(scorer, options)
        yield from _sizes(scorer, options)
        yield from _views(scorer, options)
    yield from _memory(own(choose_precision(bundle, "auto")), options)


def _counts(scorer: LocalScorer, options: Options) -> Iterator[Series]:
    counts = QUICK_COUNTS if options.quick else COUNTS
    data = images.sized(options, SIDE, SIDE, max(counts))
    found = interleave(
        {str(n): partial(_seconds, scorer, data[:n]) for n in counts},
        rounds=options.rounds,
        seed=options.seed,
    )
    for n in counts:
        yield Series(
            name=f"images {n}/time",
            unit="s",
            better="lower",
            values=tuple(found[str(n)]),
            facts={"images": n},
        )
    fits = [line(counts, [found[str(n)][i] for n in counts]) for i in range(options.rounds)]
    slopes, squares = zip(*fits, strict=True)
    yield Series(
        name="images, line/slope",
        unit="ms/image",
        better="lower",
        values=tuple(1e3 * s for s in slopes),
    )
    yield Series(name="images, line/R^2", unit="", better="neither", values=squares)


def _sizes(scorer: LocalScorer, options: Options) -> Iterator[Series]:
    runs: dict[str, Callable[[], float]] = {}
    facts: dict[str, tuple[str, float]] = {}
    for side in QUICK_SIDES if options.quick else SIDES:
        data = images.sized(options, side, side, 1 if options.quick else BATCH)
        runs[f"{side}x{side}"] = partial(_each, scorer, data)
        facts[f"{side}x{side}"] = ("megapixels", side * side / 1e6)
    yield from _per_image(runs, facts, options)


def _views(scorer: LocalScorer, options: Options) -> Iterator[Series]:
    local = scorer.manifest.tensors.local_side
    runs: dict[str, Callable[[], float]] = {}
    facts: dict[str, tuple[str, float]] = {}
    for across, down in QUICK_CUTS if options.quick else CUTS:
        width, height = across * local, down * local
        views = len(view_boxes(width, height, "precise", local))
        data = images.sized(options, width, height, 1 if options.quick else BATCH)
        runs[f"precise, {views} views"] = partial(_each, scorer, data, "precise")
        facts[f"precise, {views} views"] = ("views", views)
    yield from _per_image(runs, facts, options)


def _per_image(
    runs: dict[str, Callable[[], float]], facts: dict[str, tuple[str, float]], options: Options
) -> Iterator[Series]:
    found = interleave(runs, rounds=options.rounds, seed=options.seed)
    for subject, seconds in found.items():
        yield Series(
            name=f"{subject}/time",
            unit="ms/image",
            better="lower",
            values=tuple(1e3 * s for s in seconds),
            facts=dict([facts[subject]]),
        )


def _memory(name: str, options: Options) -> Iterator[Series]:
    length = QUICK_LENGTH if options.quick else FULL_LENGTH if options.full else LENGTH
    setup = Setup(options.bundle, options.threads, BATCH)
    with tempfile.TemporaryDirectory(prefix="giqa-benchmark-") as folder:
        images.write(images.mixed(options, min(length, _FILES)), Path(folder))
        used = usage(name, setup, Path(folder), length)
    settled = [(n, mb) for n, mb in used.samples if n >= _SETTLED * length]
    counts, memory = zip(*settled, strict=True)
    slope, _ = line(counts, memory)
    yield Series(
        name="memory/growth",
        unit="MB per 1000 images",
        better="lower",
        values=(1000 * slope,),
        facts={"images": length, "after": list(counts), "mb": [round(mb, 1) for mb in memory]},
    )
    yield Series(
        name="memory/while scoring",
        unit="MB",
        better="lower",
        values=(max(memory),),
        facts={"images": length},
    )


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fit a straight line by least squares.

    Args:
        x: where, at least two different ones.
        y: what was measured there.

    Returns:
        Slope and R^2, the part of y's variance that the line explains; 1 if y does not vary.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    slope, offset = np.polyfit(xs, ys, 1)
    variance = float(((ys - ys.mean()) ** 2).sum())
    left = float(((ys - offset - slope * xs) ** 2).sum())
    return float(slope), 1 - left / variance if variance else 1.0


def _seconds(scorer: LocalScorer, data: list[bytes], profile: Profile = "fast") -> float:
    start = time.perf_counter()
    for result in scorer.score(data, profile=profile):
        if result.error is not None:
            raise RuntimeError(f"not scored: {result.error}")
    return time.perf_counter() - start


def _each(scorer: LocalScorer, data: list[bytes], profile: Profile = "fast") -> float:
    return _seconds(scorer, data, profile) / len(data)
