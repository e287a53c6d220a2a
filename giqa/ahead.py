"""Work ahead of what is asked for, in threads, in order and in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from giqa.forks import Origin

_T = TypeVar("_T")
_R = TypeVar("_R")
_END = object()


def _origin() -> Origin:
    return Origin("an iteration", "was begun", "begin it again in the child")


def mapped(
    function: Callable[[_T], _R],
    source: Iterable[_T],
    *,
    workers: int,
    here: Callable[[_T], bool],
) -> Generator[_R]:
    """Apply a function in threads; results come in order.

    Args:
        function: is called once an item.
        source: is pulled from by the caller's thread, at most `workers` items ahead.
        workers: threads; they end with the iteration.
        here: items that the caller's own thread takes, when their turn comes.

    Yields:
        The results; what the function raises is raised in its place.
    """
    threads = ThreadPoolExecutor(workers, thread_name_prefix="giqa-ahead")
    origin = _origin()

    def submit(item: _T) -> Future[_R] | Callable[[], _R]:
        return partial(function, item) if here(item) else threads.submit(function, item)

    try:
        yield from ordered(submit, source, workers)
    finally:
        if origin.is_here:
            threads.shutdown(cancel_futures=True)


def ordered(
    submit: Callable[[_T], Future[_R] | Callable[[], _R]],
    source: Iterable[_T],
    depth: int,
    *,
    soon: bool = False,
) -> Generator[_R]:
    """Begin with several items at once; results come in order.

    Args:
        submit: begins with an item; or gives what is to be called when its turn comes.
        source: is pulled from by the caller's thread.
        depth: most items that were begun and not given.
        soon: give a result as soon as it is there, before the next item is pulled; otherwise as
            many are begun as may be.

    Yields:
        The results; what failed is raised in its place, and ends the others.

    Raises:
        UsageError: it is continued in a forked child, where it would wait for ever.
    """
    origin = _origin()
    waiting: deque[Future[_R] | Callable[[], _R]] = deque()

    def is_due(one: Future[_R] | Callable[[], _R]) -> bool:
        return not isinstance(one, Future) or (soon and one.done())

    def first() -> _R:
        origin.check()
        one = waiting.popleft()
        return one.result() if isinstance(one, Future) else one()

    try:
        for item in source:
            origin.check()
            waiting.append(submit(item))
            while waiting and (len(waiting) >= depth or is_due(waiting[0])):
                yield first()
        while waiting:
            yield first()
    finally:
        for left in waiting:
            if isinstance(left, Future) and origin.is_here:  # a thread of the parent may hold it
                left.cancel()


def ahead(source: Iterator[_T], depth: int) -> Generator[_T]:
    """Let a thread pull from `source` while what it gave is worked on.

    Args:
        source: pulled from by that thread alone; closed at the end if it is a generator.
        depth: most items that wait.

    Yields:
        The items, in order; then what `source` raised, if it did.

    Raises:
        UsageError: it is continued in a forked child, where it would wait for ever.
    """
    origin = _origin()
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
            origin.check()
        if failure:
            raise failure[0]
    finally:
        if origin.is_here:
            stopped.set()
            thread.join()
