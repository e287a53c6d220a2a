"""Pillow's warnings, kept from the user: remarks on odd metadata are not their business."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_outer = warnings.catch_warnings()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings meanwhile; safe in several threads.

    `warnings.catch_warnings` alone is not: filters belong to the process, and where two threads
    overlap, what the second one restores is what the first one set.
    """
    global _inside, _outer
    with _lock:
        if _inside == 0:
            _outer = warnings.catch_warnings()
            _outer.__enter__()
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _outer.__exit__(None, None, None)
