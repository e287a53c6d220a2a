"""Load for a Triton server: bursts, closed and open loops of bare requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

from benchmarks.served.server import TIMEOUT_S
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.errors import GiqaError
from giqa.kserve import Connection, Tensor, answer, request, service_stub, to_error
from giqa.serving import Server

RAMP_S = 1.0
"""Not counted at the beginning of a load: the server fills up."""


@dataclass(frozen=True)
class Reply:
    """One answer: when it was asked for and when it came, in seconds."""

    sent: float
    done: float
    error: GiqaError | None

    @property
    def ms(self) -> float:
        """How long it took."""
        return 1e3 * (self.done - self.sent)


@dataclass(frozen=True)
class Run:
    """What was sent between `start` and `end`; `lag`: seconds the schedule was missed by."""

    start: float
    end: float
    sent: int
    lag: float
    replies: list[Reply]

    @property
    def good_rate(self) -> float:
        """Good answers a second, without the ramp."""
        start = min(self.start + RAMP_S, (self.start + self.end) / 2)
        good = sum(r.error is None and start <= r.done < self.end for r in self.replies)
        return good / (self.end - start)


class Load:
    """Sends images as bare requests, one attempt each."""

    def __init__(self, channel: Any, connection: Connection, images: Sequence[bytes]) -> None:
        self._stub, self._connection = service_stub(channel), connection
        self._messages = [
            request(GIQA, {IMAGE: Tensor("UINT8", (1, len(i)), i)}, [SCORE], timeout_s=TIMEOUT_S)
            for i in images
        ]

    def burst(self) -> Run:
        """Every image once, all at the same time."""
        return self._run(self._messages, lambda n: 0.0)

    def closed(self, *, in_flight: int, seconds: float) -> Run:
        """As fast as answers come."""
        slots = threading.Semaphore(in_flight)
        end = time.perf_counter() + seconds

        def more() -> Iterator[Any]:
            for message in cycle(self._messages):
                if not slots.acquire(timeout=2 * TIMEOUT_S) or time.perf_counter() >= end:
                    return
                yield message

        return self._run(more(), lambda n: 0.0, slots.release)

    def open(self, rate: float, seconds: float, seed: int = 0) -> Run:
        """Arrivals of a Poisson process, whatever comes back."""
        gaps = np.random.default_rng(seed).exponential(1 / rate, round(rate * seconds))
        due = np.cumsum(gaps).tolist()
        return self._run(islice(cycle(self._messages), len(due)), due.__getitem__)

    def _run(
        self,
        source: Iterable[Any],
        due: Callable[[int], float],
        after: Callable[[], None] = lambda: None,
    ) -> Run:
        replies: list[Reply] = []
        start = time.perf_counter()
        sent, lag = 0, 0.0
        for sent, message in enumerate(source, 1):
            late = time.perf_counter() - start - due(sent - 1)
            if late < 0:
                time.sleep(-late)
                late = time.perf_counter() - start - due(sent - 1)
            lag = max(lag, late)
            call = self._stub.ModelInfer.future(
                message, timeout=TIMEOUT_S, metadata=self._connection.metadata
            )
            call.add_done_callback(partial(self._done, replies, time.perf_counter(), after))
        end = time.perf_counter()
        while len(replies) < sent and time.perf_counter() < end + 2 * TIMEOUT_S:
            time.sleep(0.005)
        return Run(start, end, sent, lag, list(replies))

    def _done(
        self, replies: list[Reply], sent: float, after: Callable[[], None], call: Any
    ) -> None:
        done, error, url = time.perf_counter(), None, self._connection.url
        try:
            if call.code().value[0]:
                raise to_error(call.code().name, call.details() or "", url)
            answer(call.result(0), GIQA, {SCORE: ("FP32", (1, 1))}, url)
        except GiqaError as e:
            error = e
        replies.append(Reply(sent, done, error))
        after()


@contextmanager
def loading(server: Server, images: Sequence[bytes]) -> Iterator[Load]:
    """A load of images for a server."""
    with server.connection.channel() as channel:
        yield Load(channel, server.connection, images)
