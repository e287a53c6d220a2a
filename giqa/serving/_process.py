"""The process of a tritonserver: begun, ended, and the ports that it is to have."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO

from giqa.errors import UsageError
from giqa.serving._options import EXIT_S, ServerOptions

_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; it outlives exec
if os.getppid() != int(sys.argv[1]):
    sys.exit("giqa has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the server, which ends, gracefully, when the supervisor is gone. A program of its own:
what runs between fork and exec in a process with gRPC's threads may crash."""


class Process:
    """A tritonserver that runs, in a group of its own.

    Args:
        arguments: the program and what follows it.
        environment: its environment.
    """

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
            umask=0o077,
        )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def output(self) -> IO[bytes]:
        """What it prints."""
        assert self._process.stdout is not None
        return self._process.stdout

    def end(self, *, kill: bool) -> int:
        """End it and what it started.

        Args:
            kill: at once; otherwise it has time to end by itself.

        Returns:
            Its exit status.
        """
        if kill:
            self._process.kill()
        elif self.alive:
            self._process.terminate()
        try:
            status = self._process.wait(EXIT_S + 5)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        self._kill_group()
        self._process.wait()
        return status

    def _kill_group(self) -> None:
        """End what it may have left: its stubs are in its group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        for _ in range(50):  # init reaps them
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.02)


def check_ports(options: ServerOptions) -> None:
    """Refuse ports that cannot be had; what lies where sockets are to be goes.

    Raises:
        UsageError: one is taken or may not be used.
    """
    if options.sockets is not None:
        for name in ("grpc:1", "metrics"):
            (options.sockets / name).unlink(missing_ok=True)
        return
    asked = (
        ("--port", options.port),
        ("--http-port", options.http_port),
        ("--metrics-port", options.metrics_port),
    )
    for option, port in asked:
        if port is None:
            continue
        family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
        with socket.socket(family) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((options.address, port))
            except OSError as e:
                raise UsageError(
                    f"cannot listen on {options.address}:{port}: {e.strerror}",
                    item=option,
                    remedy="choose another",
                ) from e
