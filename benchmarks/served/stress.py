"""What a server does with bursts, and when more is asked of it than it can do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from benchmarks.served.load import Load, Reply, loading
from benchmarks.served.server import TIMEOUT_S, executions, memory_mb, serving
from giqa.bundle import Bundle
from giqa.errors import OverloadedError
from giqa.serving import Server

BURST = 64
_FACTOR = 1.5
_IN_FLIGHT = 32


@dataclass(frozen=True)
class Burst:
    """A burst of requests.

    Attributes:
        executions: how often composing models ran, all together.
        seconds: from the first request to the last answer.
        ms: milliseconds of each request that was answered with a score.
        errors: how many were not, by code.
    """

    executions: int
    seconds: float
    ms: tuple[float, ...]
    errors: dict[str, int]


@dataclass(frozen=True)
class Overload:
    """A server that was asked for more than it can do.

    Attributes:
        asked: images a second that were asked for.
        good: of these, images a second that were scored while the load lasted.
        capacity: images a second with 32 requests in flight, before.
        capacity_after: the same afterwards: a shared machine changes.
        lag_ms: by how much the schedule was missed at most.
        good_ms: milliseconds of each score.
        rejected_ms: milliseconds of each rejection.
        errors: how many failed, by code.
        unanswered: how many got no answer at all.
        memory_mb: of the server, warm and at the end.
        next_ms: milliseconds of the known image, right afterwards.
    """

    asked: float
    good: float
    capacity: float
    capacity_after: float
    lag_ms: float
    good_ms: tuple[float, ...]
    rejected_ms: tuple[float, ...]
    errors: dict[str, int]
    unanswered: int
    memory_mb: tuple[float, float]
    next_ms: float


@contextmanager
def bursting(
    bundle: Bundle, images: Sequence[bytes], **repository: Any
) -> Iterator[Callable[[], Burst]]:
    """A server that is sent bursts of images, no two neighbours of the same length if it can be.

    They fit into its queue, and all are answered.

    Args:
        bundle: what it serves.
        images: encoded images.
        **repository: fields of `giqa.serving.RepositoryOptions`.

    Yields:
        Sends one burst.
    """
    ragged = list({len(data): data for data in images}.values())
    burst = list(islice(cycle(ragged), BURST))
    with (
        serving(bundle, max_queue=BURST, timeout_s=TIMEOUT_S, **repository) as server,
        loading(server, burst) as load,
    ):
        yield lambda: _burst(server, load)


def overload(server: Server, images: Sequence[bytes], seconds: float) -> Overload:
    """Send 1.5 times what a server can do, arrivals of a Poisson process; nothing is sent again.

    Args:
        server: the server.
        images: encoded images.
        seconds: length of the overload.

    Returns:
        What happened.

    Raises:
        RuntimeError: the server scores nothing even when it has time.
        GiqaError: it does not give the known answer afterwards.
    """
    length = min(10.0, seconds)
    with loading(server, images) as load:
        load.closed(in_flight=_IN_FLIGHT, seconds=length / 3)
        before = load.closed(in_flight=_IN_FLIGHT, seconds=length)
        if not before.good_rate:
            first = next((r.error for r in before.replies), "no answer")
            raise RuntimeError(f"the server scored nothing: {first}")
        warm = memory_mb(server)
        asked = _FACTOR * before.good_rate
        found = load.open(asked, seconds)
        end = memory_mb(server)
        start = time.perf_counter()
        server.known_answer(TIMEOUT_S)
        next_ms = 1e3 * (time.perf_counter() - start)
        after = load.closed(in_flight=_IN_FLIGHT, seconds=length)
    refused = [r for r in found.replies if isinstance(r.error, OverloadedError)]
    return Overload(
        asked=asked,
        good=found.good_rate,
        capacity=before.good_rate,
        capacity_after=after.good_rate,
        lag_ms=1e3 * found.lag,
        good_ms=_good(found.replies),
        rejected_ms=tuple(r.ms for r in refused),
        errors=_errors(found.replies),
        unanswered=found.sent - len(found.replies),
        memory_mb=(warm, end),
        next_ms=next_ms,
    )


def _burst(server: Server, load: Load) -> Burst:
    before = executions(server)
    replies = load.burst().replies
    if len(replies) < BURST:
        raise RuntimeError(f"{len(replies)} of {BURST} answered")
    after = executions(server)
    return Burst(
        executions=sum(after.values()) - sum(before.values()),
        seconds=max(r.done for r in replies) - min(r.sent for r in replies),
        ms=_good(replies),
        errors=_errors(replies),
    )


def _good(replies: Sequence[Reply]) -> tuple[float, ...]:
    return tuple(r.ms for r in replies if r.error is None)


def _errors(replies: Sequence[Reply]) -> dict[str, int]:
    return dict(Counter(r.error.code for r in replies if r.error is not None))
