"""How near to the machine's limit: operations counted, time taken, peak measured beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median

from benchmarks import images
from benchmarks.contenders import Setup, opened, own, precisions
from benchmarks.counting import BATCH, BRANCHES, END_TO_END, PARTS, example, work
from benchmarks.options import Options
from benchmarks.peaks import QUICK_SHAPES, SHAPES, Product, bandwidth, products
from benchmarks.record import Series
from benchmarks.rounds import interleave
from build.runtimes import openvino
from giqa.bundle import Bundle, load_bundle
from giqa.contract import GRAPHS
from giqa.precision import BOUNDS, Precision

SIDE = 512
"""Width and height of the images, in pixels."""
_SECONDS = 0.3
"""Least time of one measurement of a graph."""


def run(options: Options) -> Iterator[Series]:
    """Measure peaks, graphs and the whole way in turn, and relate them.

    Args:
        options: of the run.

    Yields:
        Each graph's operations and the numbers it moves; peaks in GFLOP/s and bandwidth in GB/s;
        of each graph, of both branches one after the other, and of the whole way from JPEG bytes
        to score: ms an image, the least that peak or bandwidth allow, and the efficiency in %:
        operations / (time x peak).
    """
    bundle = load_bundle(options.bundle)
    counts = work(bundle)
    for name, found in counts.items():
        yield _fact(f"{name}/operations", "GFLOP/image", [found.flops / 1e9])
        yield _fact(f"{name}/numbers moved", "million/image", [found.values / 1e6])
        yield _fact(f"{name}/numbers streamed", "million/image", [found.streamed / 1e6])

    shapes = QUICK_SHAPES if options.quick else SHAPES
    ways = list(products(options.threads, shapes))
    memory = bandwidth(options.threads)
    kinds = precisions(bundle)
    with ExitStack() as stack:
        timed = {
            f"{name} {precision}": call
            for precision in kinds
            for name, call in _timed(bundle, precision, options, stack).items()
        }
        found_in = interleave(
            {**{way.name: way.run for way in ways}, **memory, **timed},
            rounds=options.rounds,
            seed=options.seed,
        )
    for name in memory:
        yield _fact(f"memory, {name}/bandwidth", "GB/s", [v / 1e9 for v in found_in[name]])
    for way in ways:
        yield _fact(f"{way.name}/peak", "GFLOP/s", [v / 1e9 for v in found_in[way.name]])
    for precision in kinds:
        parts = (found_in[f"{name} {precision}"] for name in PARTS)
        found_in[f"{BRANCHES} {precision}"] = [sum(one) for one in zip(*parts, strict=True)]
    peaks = _peaks(ways, found_in)
    rate = max(median(found_in[name]) for name in memory)
    for precision in kinds:
        for name, needed in counts.items():
            subject, peak = f"{name} {precision}", peaks[precision]
            seconds = found_in[subject]
            least = max(needed.flops / peak, needed.values * BOUNDS[precision].bytes / rate)
            yield Series(
                name=f"{subject}/time",
                unit="ms/image",
                better="lower",
                values=tuple(1e3 * s for s in seconds),
                facts={"batch": BATCH, "threads": options.threads},
            )
            yield _fact(f"{subject}/least time", "ms/image", [1e3 * least])
            yield Series(
                name=f"{subject}/efficiency",
                unit="%",
                better="higher",
                values=tuple(100 * needed.flops / (s * peak) for s in seconds),
                facts={"batch": BATCH, "threads": options.threads, "peak": peak / 1e9},
            )


def _timed(
    bundle: Bundle, precision: Precision, options: Options, stack: ExitStack
) -> dict[str, Callable[[], float]]:
    """What measures each graph and the whole way once: seconds an image."""
    graphs = openvino(bundle, precision, threads=options.threads).graphs
    assert graphs is not None
    timed: dict[str, Callable[[], float]] = {
        name: partial(_seconds, partial(graphs, name, example(bundle, name, BATCH)), BATCH)
        for name in GRAPHS
    }
    data = images.sized(options, SIDE, SIDE, BATCH if options.quick else 4 * BATCH)
    setup = Setup(options.bundle, options.threads, BATCH)
    score = stack.enter_context(opened(own(precision), setup))
    timed[END_TO_END] = partial(_seconds, partial(score, data), len(data))
    return timed


def _seconds(call: Callable[[], object], count: int) -> float:
    """Of one image, mean of as many calls as fill the least time."""
    calls, start = 0, time.perf_counter()
    passed = 0.0
    while passed < _SECONDS:
        call()
        calls += 1
        passed = time.perf_counter() - start
    return passed / (calls * count)


def _peaks(ways: Sequence[Product], found: Mapping[str, Sequence[float]]) -> dict[Precision, float]:
    """The best of all libraries and shapes, by precision, in operations a second."""
    peaks: dict[Precision, float] = {}
    for way in ways:
        peaks[way.precision] = max(peaks.get(way.precision, 0), median(found[way.name]))
    return peaks


def _fact(name: str, unit: str, values: Sequence[float]) -> Series:
    return Series(name=name, unit=unit, better="neither", values=tuple(values))
