"""A server from its start to its end: ready, watched, drained when it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import FrameType

from giqa.errors import GiqaError
from giqa.serving._gateway_process import GatewayProcess
from giqa.serving._metrics import Endpoint, TritonMetrics
from giqa.serving._python_processes import zombies
from giqa.serving._rollout import Rollout
from giqa.serving._server import Server
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
            stack.enter_context(Endpoint(lambda: watch.metrics, server.options.address, watch_port))
        if metrics_port is not None and (source := server.options.metrics_socket) is not None:
            stack.enter_context(TritonMetrics(lambda: source, server.options.address, metrics_port))
        _run(server, gateway, watch, say, ready)


def _run(
    server: Server,
    gateway: GatewayProcess | None,
    watch: Watch,
    say: Callable[[str], None],
    ready: Callable[[float], None],
) -> None:
    def hurry() -> None:
        watch.metrics.stop()
        server.stopping.set()  # a canary or a start may be waiting

    signals = _Signals(hurry)
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


def serve_rollout(
    rollout: Rollout,
    gateway: GatewayProcess,
    *,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[float], None] = lambda difference: None,
    watch_port: int | None = None,
    metrics_port: int | None = None,
    drain_s: float = 30.0,
) -> None:
    """Serve what a rollout's file names until SIGTERM, SIGINT or SIGHUP, then drain it.

    Args:
        rollout: not started.
        gateway: what clients reach; not started either.
        say: see `serve`.
        ready: see `serve`.
        watch_port: see `serve`; what it tells is of the server with the largest share.
        metrics_port: see `serve`, likewise.
        drain_s: longest wait for requests under way at the end, in seconds.

    Raises:
        GiqaError: one of the servers did not start.
    """

    def tick() -> None:
        _reap({gateway.pid, *rollout.pids()})
        gateway.tell(ready=rollout.metrics.ready)
        if gateway.look():
            rollout.metrics.gateway()

    signals = _Signals(rollout.hurry)
    address = gateway.options.address
    with ExitStack() as stack:
        try:
            difference = rollout.start()
            gateway.options = replace(gateway.options, backends=tuple(rollout.backends()))
            gateway.start()
            if watch_port is not None:
                stack.enter_context(Endpoint(lambda: rollout.metrics, address, watch_port))
            if metrics_port is not None:
                stack.enter_context(TritonMetrics(rollout.source, address, metrics_port))
            signals.interrupt = False
            ready(difference)
            rollout.run(signals.stop, tick)
        except _StopError:
            pass
        finally:
            signals.interrupt = False
            say("stopping: no new requests; those under way are finished")
            gateway.stop(drain_s)
            rollout.stop()
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

    def __init__(self, hurry: Callable[[], None]) -> None:
        self._hurry = hurry
        self.stop = threading.Event()
        self.interrupt = True
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()
        interrupt, self.interrupt = self.interrupt, False
        self._hurry()
        if interrupt:  # a second signal must not interrupt clearing up
            raise _StopError
