"""The processes of Triton's Python models, as /proc shows them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


class Stubs:
    """Counts a server's live stubs; those of a model that was loaded again count no more.

    Such a model should end once its requests are answered. But where one of several stubs died at
    work, its request is never answered, and the others stay: they are killed after a while.

    Args:
        patience_s: how long replaced stubs may stay, in seconds.
    """

    def __init__(self, *, patience_s: float) -> None:
        self._patience_s = patience_s
        self._replaced: dict[int, float] = {}

    def live(self, server_pid: int) -> Counter[str]:
        """Count the stubs that serve, and kill replaced ones that stayed too long.

        Args:
            server_pid: the tritonserver process.

        Returns:
            Number of processes by model; empty where there is no /proc.
        """
        processes = dict(stub_processes(server_pid))
        now = time.monotonic()
        self._replaced = {p: since for p, since in self._replaced.items() if p in processes}
        for pid, since in self._replaced.items():
            if now - since > self._patience_s:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return Counter(name for pid, name in processes.items() if pid not in self._replaced)

    @contextlib.contextmanager
    def replacing(self, server_pid: int, model: str) -> Iterator[None]:
        """While this is open, a model is loaded again; if that succeeds, its stubs are replaced.

        Args:
            server_pid: the tritonserver process.
            model: the model.
        """
        before = [pid for pid, name in stub_processes(server_pid) if name == model]
        yield
        self._replaced |= dict.fromkeys(before, time.monotonic())


def zombies(parent: int) -> Iterator[int]:
    """List a process's children that ended and were not waited for.

    Args:
        parent: the process.

    Yields:
        Their numbers.
    """
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, its_parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(its_parent) == parent:
                yield int(folder.name)


def stub_processes(server_pid: int) -> Iterator[tuple[int, str]]:
    """List the stubs of a server that are alive.

    Args:
        server_pid: the tritonserver process.

    Yields:
        Process and model.
    """
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it ended meanwhile
            # The name in parentheses may hold anything; what follows is fixed.
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == server_pid and state not in "ZX":
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                yield int(folder.name), Path(arguments[1].decode()).parent.parent.name
