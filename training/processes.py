"""Processes that render: one command at a time in a folder, and workers that end with it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from giqa.errors import UsageError

_DEATH_SIGNAL = 1  # <sys/prctl.h>


@contextmanager
def alone(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a second process from writing the same files.

    Args:
        out: the folder; exists.
        wait: until another one has finished.

    Raises:
        UsageError: another one renders into `out`.
    """
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as e:
            raise UsageError(
                "another process renders there", item=str(out), remedy="wait for it"
            ) from e
        yield


def begin(parent: int) -> None:
    """Die with the parent, or a worker would go on writing what the next run writes, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends us
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
