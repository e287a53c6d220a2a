"""Packages of extras: imported where they are used, and named where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from giqa.errors import MissingExtraError, OutOfMemoryError

_NO_MEMORY = (
    "Cannot allocate memory",
    "failed to map segment",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
)


@contextmanager
def importing(package: str, extra: str = "") -> Iterator[None]:
    """Import a package inside.

    Args:
        package: what it is called.
        extra: brings it; empty: `pip install PACKAGE` does.

    Raises:
        MissingExtraError: it is not installed, or does not import.
        OutOfMemoryError: the process may not have the memory.
    """
    try:
        yield
    except ImportError as e:
        if is_out_of_memory(e):
            raise OutOfMemoryError(f"{package} does not import: {e}") from e
        remedy = None if extra else f"pip install {package}"
        raise MissingExtraError(
            f"{package} does not import: {e}", extra=extra, remedy=remedy
        ) from e


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library's error says, in its own words, that there is no memory left."""
    text = str(error)
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)
