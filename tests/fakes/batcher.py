"""Batches of a GPU server, as Triton's DALI backend has them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from tests.fakes.scripts import DALI_ERROR, RefusalError, decode

if TYPE_CHECKING:
    from tests.fakes.kserve import FakeServer


class Batcher:
    """Gathers images of all clients; one that cannot be decoded fails them all."""

    def __init__(self, owner: FakeServer, window_s: float, most: int) -> None:
        self._owner, self._window_s, self._most = owner, window_s, most
        self._lock = threading.Condition()
        self._open: list[tuple[bytes, Future[Any]]] | None = None

    def __call__(self, image: bytes) -> tuple[int, int]:
        future: Future[Any] = Future()
        with self._lock:
            first = self._open is None
            if self._open is None:
                self._open = []
            batch = self._open
            batch.append((image, future))
            if first:
                self._lock.wait_for(lambda: len(batch) >= self._most, self._window_s)
                if self._open is batch:
                    self._open = None
            elif len(batch) >= self._most:
                self._open = None  # whoever comes next begins another
                self._lock.notify_all()
        if first:
            sizes = [decode(one) for one, _ in batch]
            with self._owner.lock:
                self._owner.batches.append(len(batch))
            for size, (_, waiting) in zip(sizes, batch, strict=True):
                if None in sizes:
                    waiting.set_exception(RefusalError(self._owner.dali, DALI_ERROR))
                else:
                    waiting.set_result(size)
        found: tuple[int, int] = future.result(10)
        return found
