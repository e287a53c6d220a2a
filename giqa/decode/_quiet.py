"""Pillow's warnings are remarks on odd metadata: they decide about no picture."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_lock = threading.Lock()


def unheard(work: Callable[[], _T]) -> _T:
    """Do what may warn, such that a warning ends nothing.

    Filters of warnings belong to the process, and so to the caller: they are left alone, and say
    whether a warning is shown. Only where they turn one into an error the work is done again with
    warnings ignored; otherwise a picture's score would depend on them.
    """
    try:
        return work()
    except Warning:
        with _lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
