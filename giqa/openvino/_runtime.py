"""OpenVINO itself, imported when it is needed, and without its telemetry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from giqa.extras import importing

_TELEMETRY = "openvino_telemetry"


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
