"""A server from its start to its end: ready, watched, drained when it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from giqa.serving._metrics import Endpoint
from giqa.serving._process import Server
from giqa.serving._watch import Watch


def serve(
    server: Server,
    *,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[float], None] = lambda difference: None,
    watch_port: int | None = None,
) -> None:
    """Start a server and keep it alive until SIGTERM or SIGINT, then drain it.

    To be called in the main thread: it handles these signals from then on.

    Args:
        server: one that was not started.
        say: takes lines on what happens.
        ready: is called when the bundle's known image was answered rightly, with the difference
            from the known score in points of 100.
        watch_port: port of the watch's own metrics and of `/ready`; None: none.

    Raises:
        BundleInvalidError: the known image is answered wrongly.
        UsageError: a port is taken or may not be used.
        GiqaError: it did not start, or cannot be kept alive.
    """
    watch = Watch(server, say=say)
    endpoint: AbstractContextManager[object] = nullcontext()
    if watch_port is not None:
        endpoint = Endpoint(watch.metrics, server.options.address, watch_port)
    with endpoint:
        _run(server, watch, say, ready)


def _run(
    server: Server,
    watch: Watch,
    say: Callable[[str], None],
    ready: Callable[[float], None],
) -> None:
    signals = _Signals(server, watch)
    try:
        server.start()
        difference = watch.known_answer()
        signals.interrupt = False
        ready(difference)
        watch.run(signals.stop)
    except _StopError:
        pass
    finally:
        signals.interrupt = False
        watch.metrics.stop()
        say("stopping: no new requests; those under way are finished")
        server.stop()
        say("stopped")


class _StopError(Exception):
    """A signal came before the server was ready."""


class _Signals:
    """SIGTERM and SIGINT end server and watch; while starting, they interrupt it."""

    def __init__(self, server: Server, watch: Watch) -> None:
        self._server, self._watch = server, watch
        self.stop = threading.Event()
        self.interrupt = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()
        self._watch.metrics.stop()
        if self.interrupt:
            raise _StopError
        # At once: a canary may be waiting for its answer.
        threading.Thread(target=self._server.refuse, daemon=True).start()
