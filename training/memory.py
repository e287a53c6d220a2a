"""Memory of the training process."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # <malloc.h>


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks instead of giving them back to the system.

    A step frees and asks for the same few GiB of activations; by default each large block is
    unmapped and mapped anew, and the page faults cost about a third of a step on two cores.

    Returns:
        Whether it took effect; elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    values = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 * 2**20))
    return all(mallopt(option, value) == 1 for option, value in values)
