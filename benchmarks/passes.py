"""One pass over images, timed, and the series that passes make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.noise import Better
from benchmarks.record import Facts, Series

THROUGHPUT = "throughput"
CPU_TIME = "CPU time"
LATENCIES = {"latency p50": 50.0, "latency p95": 95.0, "latency p99": 99.0}
PEAK_MEMORY = "peak memory"
"""Names of metrics, the same in all suites."""


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


def together(images: Sequence[bytes], score: Callable[[Sequence[bytes]], object]) -> Pass:
    """Time all images as one call."""
    cpu, start = time.process_time(), time.perf_counter()
    score(images)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Pass(len(images), seconds, cpu)


def one_by_one(images: Sequence[bytes], score: Callable[[Sequence[bytes]], object]) -> Pass:
    """Time a call per image."""
    cpu, start = time.process_time(), time.perf_counter()
    latencies = []
    for data in images:
        begin = time.perf_counter()
        score([data])
        latencies.append(time.perf_counter() - begin)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Pass(len(images), seconds, cpu, tuple(latencies))


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
        the median, 95th and 99th percentile of a round's latencies in ms.
    """
    shared: Facts = dict(facts or {})

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
        for metric, share in LATENCIES.items():
            found = [1e3 * float(np.percentile(p.latencies, share)) for p in passes]
            yield make(metric, "ms", "lower", found)
