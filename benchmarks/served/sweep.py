"""Loads that perf_analyzer puts on a server, and where their requests spend their time there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.served import perf_analyzer
from benchmarks.served.perf_analyzer import Load, Point
from benchmarks.served.server import Step, steps, totals
from giqa.serving import Server

_SHARES = (0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Met:
    """What a load met.

    Attributes:
        point: on the client's side.
        steps: on the server's, by composing model; the warm-up is in it.
    """

    point: Point
    steps: dict[str, Step]


class Sweep:
    """Puts loads on a server.

    Args:
        server: the server.
        program: perf_analyzer.
        data: its input data.
        requests: how many requests of a load are counted, at least; a quarter of it warms up.
        seconds: how long a load of a rate lasts, at least.
    """

    def __init__(
        self, server: Server, program: Path, data: Path, requests: int, seconds: float
    ) -> None:
        self._server, self._program, self._data = server, program, data
        self._requests, self._seconds = requests, seconds

    def measure(self, load: Load) -> Callable[[], Met]:
        """A point of the sweep, to be measured again and again."""

        def measure() -> Met:
            before = totals(self._server)
            address = f"{self._server.connection.host}:{self._server.connection.port}"
            point = perf_analyzer.measure(
                self._program,
                address,
                self._data,
                load,
                requests=max(
                    self._requests, 8 * load.concurrency, round(self._seconds * load.rate)
                ),
                warm_up=self._requests // 4,
                metadata=self._server.connection.metadata,
            )
            return Met(point, steps(before, totals(self._server)))

        return measure


@contextmanager
def sweeping(
    server: Server, images: Sequence[bytes], requests: int, seconds: float = 0.0
) -> Iterator[Sweep]:
    """A sweep with these images as input data.

    Raises:
        UsageError: perf_analyzer is not there.
    """
    program = perf_analyzer.find()
    with TemporaryDirectory(prefix="giqa-sweep-") as folder:
        data = Path(folder) / "input.json"
        perf_analyzer.write_input(data, images)
        yield Sweep(server, program, data, requests, seconds)


def concurrencies(levels: Sequence[int]) -> dict[str, Load]:
    """Loads of so many requests in flight each, by name, with and without shared memory."""
    loads = [Load(concurrency=n, shared_memory=s) for n in levels for s in (False, True)]
    return {str(load): load for load in loads}


def rates(capacity: float) -> dict[str, Load]:
    """Loads of so many requests a second, by the share of the capacity that they are.

    Args:
        capacity: answers a second that the server can give.
    """
    return {f"rate {share:.0%} of capacity": Load(rate=share * capacity) for share in _SHARES}
