"""Runs an iterator in a thread of its own, a few items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

_T = TypeVar("_T")
_END = object()


def ahead(source: Iterator[_T], depth: int) -> Generator[_T]:
    """Let a thread pull from `source` while what it gave is worked on.

    Args:
        source: pulled from by that thread alone; closed at the end if it is a generator.
        depth: most items that wait.

    Yields:
        The items, in order; then what `source` raised, if it did.
    """
    items: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in source:
                if not put(item):
                    break
        except BaseException as e:
            failure.append(e)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
            put(_END)

    thread = threading.Thread(target=work, name="giqa-video", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not _END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()
