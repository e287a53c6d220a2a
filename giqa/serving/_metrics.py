"""What a watch tells Prometheus: canaries and repairs, on an endpoint that outlives the server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Lock
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from giqa.errors import DeadlineExceededError, OverloadedError
from giqa.serving._http import Listener

DIFFERENCE: Final = "giqa_canary_difference"
RIGHT: Final = "giqa_canary_right_timestamp_seconds"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_UNDECIDED = (OverloadedError.code, DeadlineExceededError.code)

disable_created_metrics()  # type: ignore[no-untyped-call]


class WatchMetrics:
    """Numbers of one watch; any thread may write and read them.

    Args:
        bundle: the bundle's name and version.
        engine: runtime and precision.
        tolerance: largest difference that is no failure, in points of 100.
    """

    def __init__(self, bundle: str, engine: str, tolerance: float) -> None:
        self._registry = of = CollectorRegistry()
        info = Gauge(
            "giqa_info", "What is served: bundle and engine", ["bundle", "engine"], registry=of
        )
        info.labels(bundle, engine).set(1)
        self._canaries = Counter(
            "giqa_canaries_total",
            "Canary requests by outcome: ok, or the error's code",
            ["outcome"],
            registry=of,
        )
        self._canaries.labels("ok")
        # Registered with the first answer: until then there is nothing to tell.
        self._difference = Gauge(
            DIFFERENCE,
            "Last answer to the known image less its known score, points of 100",
            registry=None,
        )
        Gauge(
            "giqa_canary_tolerance",
            "Largest difference that is no failure, points of 100",
            registry=of,
        ).set(tolerance)
        self._seconds = Gauge(
            "giqa_canary_seconds", "How long the last answer to the known image took", registry=None
        )
        self._right = Gauge(
            RIGHT, "When the known image was last answered rightly, Unix time", registry=None
        )
        self._told: set[Gauge] = set()
        self._loads = Counter(
            "giqa_loads_total", "Models loaded again, by model", ["model"], registry=of
        )
        self._starts = Counter(
            "giqa_starts_total", "Starts of tritonserver after the first", registry=of
        )
        self._gateways = Counter(
            "giqa_gateway_starts_total", "Starts of the gateway after the first", registry=of
        )
        self._tolerance = tolerance
        self._ready = self._stopped = False

    @property
    def ready(self) -> bool:
        """Whether the last canary that told anything was answered rightly."""
        return self._ready and not self._stopped

    def canary(self, outcome: str) -> None:
        """Count a canary.

        Args:
            outcome: `ok` or an error's code.
        """
        self._canaries.labels(outcome).inc()
        if outcome not in _UNDECIDED:  # a long queue is no failure
            self._ready = outcome == "ok"

    def answer(self, difference: float, seconds: float) -> None:
        """Note an answer to the known image.

        Args:
            difference: from the known score, in points of 100.
            seconds: how long it took.
        """
        self._set(self._difference, difference)
        self._set(self._seconds, seconds)
        if abs(difference) <= self._tolerance:
            self._set(self._right, time.time())

    def _set(self, gauge: Gauge, value: float) -> None:
        gauge.set(value)
        if gauge not in self._told:
            self._told.add(gauge)
            self._registry.register(gauge)

    def late(self) -> None:
        """Be ready no more until a canary is answered rightly: nothing moves."""
        self._ready = False

    def load(self, model: str) -> None:
        """Count a model that was loaded again."""
        self._loads.labels(model).inc()

    def start(self) -> None:
        """Count a new start of the server."""
        self._starts.inc()
        self._ready = False

    def gateway(self) -> None:
        """Count a new start of the gateway."""
        self._gateways.inc()

    def stop(self) -> None:
        """Be ready no more: the server is about to refuse work."""
        self._stopped = True

    def text(self) -> str:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry).decode()


class Endpoint(Listener):
    """Serves a watch's numbers at `/metrics`, `/live`, and `/ready`: 200 or 503.

    Args:
        metrics: gives what it serves.
        address: where it listens.
        port: its port.

    Raises:
        UsageError: the port is taken or may not be used.
    """

    def __init__(self, metrics: Callable[[], WatchMetrics], address: str, port: int) -> None:
        async def text(request: Request) -> Response:
            return Response(metrics().text(), media_type=CONTENT_TYPE)

        async def ready(request: Request) -> Response:
            if metrics().ready:
                return PlainTextResponse("ready\n")
            return PlainTextResponse("not ready\n", status_code=503)

        async def live(request: Request) -> Response:
            return PlainTextResponse("live\n")

        routes = [Route("/metrics", text), Route("/ready", ready), Route("/live", live)]
        super().__init__(Starlette(routes=routes), address, port, option="--watch-port")


class TritonMetrics(Listener):
    """Passes on the metrics that a server tells on a UNIX socket: nobody else talks to it.

    Args:
        source: gives the socket.
        address: where this listens.
        port: its port.

    Raises:
        UsageError: the port is taken or may not be used.
    """

    def __init__(self, source: Callable[[], Path], address: str, port: int) -> None:
        one = Lock()
        kept: dict[str, float | str] = {"at": -9.0, "text": ""}

        def text(request: Request) -> Response:  # not a coroutine: it runs in a thread
            try:
                with one:  # however many ask, Triton is asked once a second
                    if time.monotonic() - float(kept["at"]) > 1:
                        kept.update(text=_get(source(), "/metrics"), at=time.monotonic())
                return Response(str(kept["text"]), media_type=CONTENT_TYPE)
            except (OSError, HTTPException) as e:
                message = f"the server is not there: {type(e).__name__}\n"
                return PlainTextResponse(message, status_code=503)

        app = Starlette(routes=[Route("/metrics", text)])
        super().__init__(app, address, port, option="--metrics-port")


class _Unix(HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _get(source: Path, path: str) -> str:
    connection = _Unix(source)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()
