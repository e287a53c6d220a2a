"""TritonScorer: scores on a Triton server over gRPC."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Any, TypeVar

from giqa import checks
from giqa.ahead import ordered
from giqa.client._scorer import ServerScorer
from giqa.closing import Closing
from giqa.contract import Profile
from giqa.results import ImageResult
from giqa.sources import items as items_of
from giqa.types import Source, Views, ViewScore

_T = TypeVar("_T")
_R = TypeVar("_R")


class TritonScorer(ServerScorer, Closing):
    """Scores images on a server that `giqa serve` or `model_repository` set up.

    Keeps order, sends up to `in_flight` requests at the same time and reads no further ahead than
    twice that: memory is bounded for any length of input. Safe to use from several threads. Where
    it is unpickled, it connects when first used; in a forked child it says that it cannot be used.

    Args:
        url: `grpc://HOST[:PORT]`, with TLS `grpcs://HOST[:PORT]`; or a `Connection`.
        bundle: the bundle that the server must serve, see `giqa.load_bundle`; None: the default.
        in_flight: most requests under way.
        batch: images in one request (ensemble `giqa_bytes`, on a CPU server with profile `fast`
            and no map); a bad image among them costs its neighbours a second request, no more.
        deadline_s: seconds that an image may take, with all attempts; also the longest wait for
            the server's preprocessing.
        retry: when to send again.
        transport: `unary`, a call for each request; or `stream`, one call for all.
        shared_memory: hand inputs over in shared memory; the server must be on this machine.
        limits: limits that hold before anything is sent.
        **connection: `token`, `admin_key`, `ca`, `cert`, `key`, `server_name`, `keepalive_s` of
            `Connection`.

    Raises:
        ServerUnavailableError: the server cannot be reached within the deadline.
        ServerRefusedError: it wants another token.
        EngineMismatchError: it serves another bundle, or tensors other than the manifest's.
        MissingExtraError: tritonclient is not installed.
        UsageError: an argument makes no sense, such as `url`.

    Example:
        >>> from giqa import TritonScorer
        >>> with TritonScorer("grpc://127.0.0.1:8001") as scorer:  # doctest: +SKIP
        ...     for result in scorer.score(["photo.jpg"]):
        ...         print(result.path, result.score, result.error)
    """

    def _set(self, *made: Any) -> None:
        super()._set(*made)
        self._connecting, self._connected = threading.Lock(), False

    def _begin(self) -> None:
        self._link.check_process()
        with self._connecting:
            if self._connected:
                return
            self._loop = _loop()
            opened = asyncio.run_coroutine_threadsafe(self._link.open(), self._loop)
            try:
                opened.result()
            except BaseException:  # such as an interrupt
                opened.cancel()
                raise
            self._connected = True

    def score(
        self,
        items: Source | Iterable[Source],
        *,
        profile: Profile = "fast",
        quality_map: bool = False,
    ) -> Iterator[ImageResult]:
        """Score images lazily, in order, one result each; bad items become error results.

        Args:
            items: one or many of what `giqa.score` takes; pulled as the work proceeds.
            profile: `fast` or `precise`.
            quality_map: fill in `ImageResult.quality_map` where the model has a map.

        Returns:
            One result an item.

        Raises:
            UsageError: there is no such profile.
        """
        checks.wanted(profile, quality_map)
        self._begin()
        chunks = _chunks(items_of(items, self._flow.limits), self._batch)
        return _rows(self._ahead(lambda c: self._link.score(c, profile, quality_map), chunks))

    def score_views(self, views: Iterable[Views]) -> Iterator[ViewScore]:
        """Score ready-made views lazily, in order.

        Args:
            views: all with the manifest's sizes.

        Yields:
            One score each.

        Raises:
            ShapeMismatchError: views have another dtype or shape than the manifest's.
            ServerError: the server failed on one of them.
        """
        self._begin()
        return self._ahead(self._link.score_views, iter(views))

    def close(self) -> None:
        """End what is under way and disconnect; the scorer cannot be used afterwards.

        What the server has is given 3 s to be answered; the rest, and what is asked for later,
        fails with `server_unavailable`.
        """
        if self._connected and not self._link.is_foreign:  # else they are the parent's
            asyncio.run_coroutine_threadsafe(self._link.close(), self._loop).result()

    def _ahead(
        self, work: Callable[[_T], Coroutine[Any, Any, _R]], source: Iterator[_T]
    ) -> Iterator[_R]:
        def submit(one: _T) -> Future[_R]:
            self._link.check_process()
            return asyncio.run_coroutine_threadsafe(work(one), self._loop)

        return ordered(submit, source, 2 * self._in_flight, soon=True)


_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all scorers of this process, in a thread that lives as long.

    One for all, as gRPC wakes all loops together; never closed, as it hands late events of a closed
    loop to the others, whose own are lost then.
    """
    with _lock:
        if os.getpid() not in _loops:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="giqa-client", daemon=True).start()
        return _loops[os.getpid()]


def _unlock() -> None:
    """A child that was forked while another thread held the lock would wait for it for ever."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk


def _rows(parts: Iterator[list[ImageResult]]) -> Iterator[ImageResult]:
    for rows in parts:
        yield from rows
