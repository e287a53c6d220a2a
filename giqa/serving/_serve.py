"""A server from its start to its end: ready, watched, drained when it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType

from giqa.errors import GiqaError
from giqa.serving._gateway_process import GatewayProcess
from giqa.serving._metrics import Endpoint, TritonMetrics
from giqa.serving._process import Server
from giqa.serving._python_processes import zombies
from giqa.serving._watch import Watch


def serve(
    server: Server,
    *,
    gateway: GatewayProcess | None = None,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[float], None] = lambda difference: None,
    watch_port: int | None = None,
    metrics_port: int | None = None,
    interval_s: float = 2.0,
    deadline_s: float = 10.0,
) -> None:
    """Start a server and keep it alive until SIGTERM, SIGINT or SIGHUP, then drain it.

    To be called in the main thread: it handles these signals from then on.

    Args:
        server: one that was not started.
        gateway: what clients reach, where that is not the server itself; not started either.
        say: takes lines on what happens.
        ready: is called when the bundle's known image was answered rightly, with the difference
            from the known score in points of 100.
        watch_port: port of the watch's own metrics and of `/ready`; None: none.
        metrics_port: port of Triton's own metrics, where it listens on sockets; None: none.
        interval_s: pause between canaries in seconds.
        deadline_s: longest a canary may take in seconds.

    Raises:
        BundleInvalidError: the known image is answered wrongly.
        UsageError: a port is taken or may not be used.
        GiqaError: it did not start.
    """
    watch: Watch

    def others() -> None:
        _reap({server.pid, None if gateway is None else gateway.pid})
        if gateway is None:
            return
        try:
            gateway.tell(ready=watch.metrics.ready)
            if gateway.look():
                watch.metrics.gateway()
        except GiqaError as e:  # tried again at the next look; the server is not to blame
            say(f"the gateway: {e}")

    watch = Watch(server, say=say, interval_s=interval_s, deadline_s=deadline_s, others=others)
    with ExitStack() as stack:
        if watch_port is not None:
            stack.enter_context(Endpoint(watch.metrics, server.options.address, watch_port))
        if metrics_port is not None and (source := server.options.metrics_socket) is not None:
            stack.enter_context(TritonMetrics(source, server.options.address, metrics_port))
        _run(server, gateway, watch, say, ready)


def _run(
    server: Server,
    gateway: GatewayProcess | None,
    watch: Watch,
    say: Callable[[str], None],
    ready: Callable[[float], None],
) -> None:
    signals = _Signals(server, watch)
    try:
        server.start()
        difference = watch.known_answer()
        if gateway is not None:
            gateway.start()
        signals.interrupt = False
        ready(difference)
        watch.run(signals.stop)
    except _StopError:
        pass
    finally:
        signals.interrupt = False
        server.stopping.clear()
        watch.metrics.stop()
        say("stopping: no new requests; those under way are finished")
        if gateway is not None:
            gateway.stop(server.options.drain_s)
        server.stop()
        say("stopped")


def _reap(known: set[int | None]) -> None:
    """Take note of orphans that ended: as the first process of a container, it is theirs to do."""
    for pid in zombies(os.getpid()):
        if pid not in known:
            with suppress(OSError):
                os.waitpid(pid, os.WNOHANG)


class _StopError(Exception):
    """A signal came before the server was ready."""


class _Signals:
    """SIGTERM, SIGINT and SIGHUP end server and watch; while starting, they interrupt it."""

    def __init__(self, server: Server, watch: Watch) -> None:
        self._server, self._watch = server, watch
        self.stop = threading.Event()
        self.interrupt = True
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()
        self._watch.metrics.stop()
        if self.interrupt:
            self.interrupt = False  # a second one must not interrupt clearing up
            raise _StopError
        self._server.stopping.set()  # a canary or a start may be waiting
