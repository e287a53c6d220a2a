"""OpenVINO itself, imported when it is needed, and without its telemetry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from giqa import forks
from giqa.extras import importing

_TELEMETRY = "openvino_telemetry"
_lock = Lock()


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Let what is imported inside find no `openvino_telemetry`: giqa talks to no network.

    OpenVINO and NNCF look for it when they are imported. With it, whoever converts or quantizes a
    model reports it to their makers, from a process that is forked for that; and importing takes
    a quarter longer.
    """
    absent = _TELEMETRY not in sys.modules
    if absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            sys.modules.pop(_TELEMETRY, None)


def import_openvino() -> Any:
    """Import OpenVINO, without its telemetry.

    Raises:
        MissingExtraError: it is not installed.
    """
    with importing("OpenVINO", "cpu"), no_telemetry():
        import openvino
    return openvino


def core() -> Any:
    """The `openvino.Core` of this process.

    Loaded once, in a thread that ends, and kept: OpenVINO's CPU plugin gives the thread that loads
    it a stack for signals, and frees that memory with itself, in whichever thread that happens. The
    next signal of the first one, such as an interrupt, would then crash the process.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: this process was forked from one that used it.
    """
    openvino = import_openvino()
    forks.use_runtime(forks.OPENVINO)
    with _lock:
        return _core(openvino)


@cache
def _core(openvino: Any) -> Any:
    made = openvino.Core()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(made.get_property, "CPU", "OPTIMIZATION_CAPABILITIES").result()
    return made
