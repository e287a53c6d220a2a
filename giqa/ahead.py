"""Work ahead of what is asked for, in threads, in order and in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
_END = object()


def mapped(
    function: Callable[[_T], _R],
    source: Iterable[_T],
    *,
    workers: int | None = None,
    pool: ThreadPoolExecutor | None = None,
    depth: int | None = None,
    here: Callable[[_T], bool] | None = None,
) -> Generator[_R]:
    """Apply a function in threads; results come in order.

    Args:
        function: is called once an item.
        source: is pulled from by the caller's thread, at most `depth` items ahead.
        workers: threads; they end with the iteration.
        pool: threads of someone else's, instead.
        depth: most results that wait, those under way included; as many as workers unless given.
        here: items that the caller's own thread takes, when their turn comes.

    Yields:
        The results; what the function raises is raised in its place.
    """
    waiting: deque[Future[_R] | _T] = deque()
    own = pool is None
    threads = pool or ThreadPoolExecutor(workers or 1, thread_name_prefix="giqa-ahead")
    most = depth or workers or 1

    def result(one: Future[_R] | _T) -> _R:
        return one.result() if isinstance(one, Future) else function(one)

    try:
        for item in source:
            direct = here is not None and here(item)
            waiting.append(item if direct else threads.submit(function, item))
            while waiting and (len(waiting) >= most or not isinstance(waiting[0], Future)):
                yield result(waiting.popleft())
        while waiting:
            yield result(waiting.popleft())
    finally:
        for left in waiting:
            if isinstance(left, Future):
                left.cancel()
        if own:
            threads.shutdown(cancel_futures=True)


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

    thread = threading.Thread(target=work, name="giqa-ahead", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not _END:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()
