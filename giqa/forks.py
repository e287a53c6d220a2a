"""What a forked child must leave to its parent.

Threads do not come along with a fork. DALI's pipelines, OpenVINO's requests, FFmpeg's decoders and
gRPC's channels stop theirs when they are freed: in the child that crashes or waits for ever,
whenever its garbage collector meets what the parent left. What threads of the parent were to give
never comes. Nor do the libraries begin anew in the child of a process that used them: of sixty
children that compiled graphs while their parent was scoring four crashed, and gRPC never connects.
"""

from __future__ import annotations

import os
import threading
from typing import TypeVar
from weakref import WeakSet

from giqa.errors import UsageError

_T = TypeVar("_T")

OPENVINO, DALI, GRPC = "OpenVINO", "DALI", "gRPC"
"""Libraries with threads of their own, see `use_runtime`."""
IN_CHILDREN = (
    "start processes with `spawn` or `forkserver`, where a pickled scorer opens anew; "
    "or score nothing before you fork"
)
"""What to do instead of using a scorer in a forked child."""

_lock = threading.Lock()
_native: WeakSet[object] = WeakSet()
_held: list[object] = []
"""What is there while this process is being forked. In a child it stays here, and so alive."""
_runtimes: dict[str, Origin] = {}


def keep(native: _T) -> _T:
    """Let forked children keep an object that they must not free.

    Args:
        native: takes weak references; freed in this process as any other.

    Returns:
        The object.
    """
    with _lock:
        _native.add(native)
    return native


class Origin:
    """The process that something was made by and belongs to.

    Args:
        what: what it is, for the error.
        made: how it came to be, such as `was opened`.
        remedy: what to do in a forked child.
    """

    def __init__(self, what: str, made: str, remedy: str = IN_CHILDREN) -> None:
        self._process = os.getpid()
        self._what, self._made, self._remedy = what, made, remedy

    @property
    def is_here(self) -> bool:
        """Whether this is that process, and not one that was forked from it."""
        return self._process == os.getpid()

    def check(self) -> None:
        """Say so where it does not work, instead of waiting for ever.

        Raises:
            UsageError: this process was forked from the one that made it.
        """
        if not self.is_here:
            raise UsageError(
                f"{self._made} before this process was forked",
                item=self._what,
                remedy=self._remedy,
            )


def use_runtime(name: str) -> None:
    """Begin to use a library with threads of its own in this process.

    Args:
        name: `OPENVINO`, `DALI` or `GRPC`.

    Raises:
        UsageError: a process that this one was forked from used it.
    """
    _runtimes.setdefault(name, Origin(name, "was used")).check()


def _before() -> None:
    _lock.acquire()
    _held.extend(_native)


def _in_parent() -> None:
    held = _held.copy()  # the last of some, which are freed when the lock is not held any more
    _held.clear()
    _lock.release()
    del held


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_in_parent, after_in_child=lambda: _lock.release()
    )
