"""One pass over images, timed, and the series that passes make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.noise import Better
from benchmarks.record import Facts, Series

THROUGHPUT = "throughput"
CPU_TIME = "CPU time"
LATENCIES = {"latency p50": 50.0, "latency p95": 95.0, "latency p99": 99.0}
PEAK_MEMORY = "peak memory"
"""Names of metrics, the same in all suites."""
_LEAST = {"latency p95": 20, "latency p99": 100}
"""Images that a percentile wants: of fewer it is one of the last ones, by chance."""
LEAST_S = 1.0
"""Least length of a pass: shorter ones tell more of the scheduler than of what runs."""


@dataclass(frozen=True)
class Pass:
    """One contender over its images, once.

    Attributes:
        images: how many.
        seconds: wall time of all.
        cpu_seconds: CPU time of the process, all threads.
        latencies: seconds of each image, if they went one by one.
    """

    images: int
    seconds: float
    cpu_seconds: float
    latencies: tuple[float, ...] = ()


def together(
    images: Sequence[bytes], score: Callable[[Sequence[bytes]], object], least_s: float = 0.0
) -> Pass:
    """Time all images as one call; again, while less than `least_s` seconds have passed."""
    cpu, start, count = time.process_time(), time.perf_counter(), 0
    while not count or time.perf_counter() - start < least_s:
        score(images)
        count += len(images)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Pass(count, seconds, cpu)


def one_by_one(
    images: Sequence[bytes], score: Callable[[Sequence[bytes]], object], least_s: float = 0.0
) -> Pass:
    """Time a call per image; all again, while less than `least_s` seconds have passed."""
    cpu, start = time.process_time(), time.perf_counter()
    latencies: list[float] = []
    while not latencies or time.perf_counter() - start < least_s:
        for data in images:
            begin = time.perf_counter()
            score([data])
            latencies.append(time.perf_counter() - begin)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Pass(len(latencies), seconds, cpu, tuple(latencies))


def percentiles(ms: Sequence[Sequence[float]]) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Percentiles of each round's latencies, those that the shortest round has enough for.

    Args:
        ms: latencies of each round, in any unit.

    Yields:
        The metric's name, and a value a round.
    """
    fewest = min(map(len, ms))
    for metric, share in LATENCIES.items():
        if fewest >= _LEAST.get(metric, 1):
            yield metric, tuple(float(np.percentile(one, share)) for one in ms)


def without_missing(found: Iterable[Series]) -> list[Series]:
    """Series that are held against no others than those among them: some have fewer metrics."""
    found = list(found)
    names = {one.name for one in found}
    return [
        one.model_copy(update={"against": tuple(n for n in one.against if n in names)})
        for one in found
    ]


def series(
    subject: str,
    passes: Sequence[Pass],
    *,
    against: Sequence[str] = (),
    facts: Mapping[str, str | int | float | bool | None] | None = None,
) -> Iterator[Series]:
    """Make series of passes, one per round.

    Args:
        subject: what was measured.
        passes: one per round.
        against: subjects that it alternated with.
        facts: what belongs to it.

    Yields:
        Throughput in images/s and CPU time in ms an image; if the images went one by one, also
        the median, 95th and 99th percentile of a round's latencies in ms, where it has enough.
    """
    shared: Facts = {"images": min(p.images for p in passes), **(facts or {})}

    def make(metric: str, unit: str, better: Better, values: list[float]) -> Series:
        return Series(
            name=f"{subject}/{metric}",
            unit=unit,
            better=better,
            values=tuple(values),
            against=tuple(f"{other}/{metric}" for other in against),
            facts=shared,
        )

    yield make(THROUGHPUT, "images/s", "higher", [p.images / p.seconds for p in passes])
    yield make(CPU_TIME, "ms/image", "lower", [1e3 * p.cpu_seconds / p.images for p in passes])
    if all(p.latencies for p in passes):
        for metric, found in percentiles([p.latencies for p in passes]):
            yield make(metric, "ms", "lower", [1e3 * seconds for seconds in found])
