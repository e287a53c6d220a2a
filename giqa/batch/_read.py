"""From units to items for a scorer: what is no plain file is read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from giqa.batch._units import Unit
from giqa.errors import GiqaError, TooManyBytesError, TruncatedError
from giqa.types import Item, Limits
from giqa.uris import local_path, read_uri

_AHEAD = 16
"""Images that are read ahead from tar files and other places, and threads that do it."""


def read_items(units: Iterable[Unit], folder: str, limits: Limits) -> Iterator[Item]:
    """Turn units into items, in order; at most 16 of them are held in memory.

    Plain files become items with a path: scorers read them while they infer.

    Args:
        units: images.
        folder: where relative paths begin.
        limits: `max_bytes` holds before reading.

    Yields:
        One item a unit; one that cannot be read carries its error.
    """
    waiting: deque[Item | Future[Item]] = deque()
    pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="giqa-read")
    try:
        for unit in units:
            waiting.append(_plain(unit, folder) or pool.submit(_fetch, unit, folder, limits))
            while waiting and (len(waiting) == _AHEAD or isinstance(waiting[0], Item)):
                yield _item(waiting.popleft())
        while waiting:
            yield _item(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _item(one: Item | Future[Item]) -> Item:
    return one if isinstance(one, Item) else one.result()


def _plain(unit: Unit, folder: str) -> Item | None:
    if (error := unit.error) is not None:
        return Item(unit.name, error=error)
    path = local_path(unit.name, folder) if unit.tar is None else None
    return None if path is None else Item(unit.name, Path(path))


def _fetch(unit: Unit, folder: str, limits: Limits) -> Item:
    most = limits.max_bytes
    try:
        if unit.tar is None:  # one byte more shows the scorer that it is too large
            return Item(unit.name, data=read_uri(unit.name, folder, size=most + 1))
        assert unit.size is not None
        if unit.size > most:
            raise TooManyBytesError(f"{unit.size} bytes, the limit is {most}", item=unit.name)
        data = read_uri(unit.tar, folder, unit.offset or 0, unit.size)
        if len(data) < unit.size:
            raise TruncatedError(f"{len(data)} of {unit.size} bytes", item=unit.name)
        return Item(unit.name, data=data)
    except GiqaError as e:
        return Item(unit.name, error=e)
