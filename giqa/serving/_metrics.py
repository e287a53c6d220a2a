"""What a server tells Prometheus beside Triton's own metrics: failures by code, canaries, repairs.

Failures are counted by the models on a CPU (`_models`) and come with Triton's metrics.
Canaries and repairs are the watch's and have an endpoint of their own, which lives on while the
server is down.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from giqa.errors import DeadlineExceededError, OverloadedError, UsageError

FAILURES: Final = "giqa_failures_total"
FAILURES_HELP: Final = "Requests that a model answered with an error, by its code"

INFO: Final = "giqa_info"
CANARIES: Final = "giqa_canaries_total"
DIFFERENCE: Final = "giqa_canary_difference"
TOLERANCE: Final = "giqa_canary_tolerance"
SECONDS: Final = "giqa_canary_seconds"
RIGHT: Final = "giqa_canary_right_timestamp_seconds"
LOADS: Final = "giqa_loads_total"
STARTS: Final = "giqa_starts_total"

_TYPES = {
    INFO: ("gauge", "What is served: bundle and engine"),
    CANARIES: ("counter", "Canary requests by outcome: ok, or the error's code"),
    DIFFERENCE: ("gauge", "Last answer to the known image less its known score, points of 100"),
    TOLERANCE: ("gauge", "Largest difference that is no failure, points of 100"),
    SECONDS: ("gauge", "How long the last answer to the known image took"),
    RIGHT: ("gauge", "When the known image was last answered rightly, Unix time"),
    LOADS: ("counter", "Models loaded again, by model"),
    STARTS: ("counter", "Starts of tritonserver after the first"),
}
_UNDECIDED = (OverloadedError.code, DeadlineExceededError.code)


class WatchMetrics:
    """Numbers of one watch; any thread may write and read them.

    Args:
        bundle: the bundle's name and version.
        engine: runtime and precision.
        tolerance: largest difference that is no failure, in points of 100.
    """

    def __init__(self, bundle: str, engine: str, tolerance: float) -> None:
        self._labels = _labels(bundle=bundle, engine=engine)
        self._tolerance = tolerance
        self._lock = threading.Lock()
        self._gauges: dict[str, float] = {}
        self._canaries: Counter[str] = Counter({"ok": 0})
        self._loads: Counter[str] = Counter()
        self._starts = 0
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
        with self._lock:
            self._canaries[outcome] += 1
            if outcome not in _UNDECIDED:  # a long queue is no failure
                self._ready = outcome == "ok"

    def answer(self, difference: float, seconds: float) -> None:
        """Note an answer to the known image.

        Args:
            difference: from the known score, in points of 100.
            seconds: how long it took.
        """
        with self._lock:
            self._gauges[DIFFERENCE] = difference
            self._gauges[SECONDS] = seconds
            if abs(difference) <= self._tolerance:
                self._gauges[RIGHT] = time.time()

    def load(self, model: str) -> None:
        """Count a model that was loaded again."""
        with self._lock:
            self._loads[model] += 1

    def start(self) -> None:
        """Count a new start of the server."""
        with self._lock:
            self._starts += 1
            self._ready = False

    def stop(self) -> None:
        """Be ready no more: the server is about to refuse work."""
        self._stopped = True

    def text(self) -> str:
        """All of it in Prometheus' text format."""
        with self._lock:
            samples: dict[str, dict[str, float]] = {
                INFO: {self._labels: 1},
                CANARIES: {_labels(outcome=o): n for o, n in sorted(self._canaries.items())},
                TOLERANCE: {"": self._tolerance},
                LOADS: {_labels(model=m): n for m, n in sorted(self._loads.items())},
                STARTS: {"": self._starts},
                **{name: {"": value} for name, value in self._gauges.items()},
            }
        lines = []
        for name, (kind, meaning) in _TYPES.items():
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
            found = samples.get(name, {}).items()
            lines += [f"{name}{labels} {value!r}" for labels, value in found]
        return "\n".join(lines) + "\n"


class Endpoint:
    """Serves a watch's numbers at `/metrics`, and at `/ready` 200 or 503; a context manager.

    Args:
        metrics: what it serves.
        address: where it listens.
        port: its port.

    Raises:
        UsageError: the port is taken or may not be used.
    """

    def __init__(self, metrics: WatchMetrics, address: str, port: int) -> None:
        class Handler(_Handler):
            watched = metrics

        class Listener(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = True

        try:
            self._server = Listener((address, port), Handler)
        except OSError as e:
            raise UsageError(
                f"cannot listen on {address}:{port}: {e.strerror}",
                item="--watch-port",
                remedy="choose another",
            ) from e
        self._thread = threading.Thread(target=self._server.serve_forever, name="giqa-metrics")

    def __enter__(self) -> Endpoint:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    watched: WatchMetrics
    timeout = 5  # who says nothing is not waited for

    def do_GET(self) -> None:
        status, text = HTTPStatus.NOT_FOUND, "try /metrics or /ready\n"
        if self.path == "/metrics":
            status, text = HTTPStatus.OK, self.watched.text()
        elif self.path == "/ready":
            ready = self.watched.ready
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            text = "ready\n" if ready else "not ready\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Scrapes are not worth a line."""


def _labels(**values: str) -> str:
    escaped = {
        key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for key, value in values.items()
    }
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}"
