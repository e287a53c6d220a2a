"""AsyncTritonScorer: scores on a Triton server from asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from giqa import checks
from giqa.client._scorer import ServerScorer
from giqa.contract import Profile
from giqa.results import ImageResult
from giqa.sources import items as items_of
from giqa.sources import to_item
from giqa.types import Source, Views, ViewScore

_T = TypeVar("_T")
_R = TypeVar("_R")


class AsyncTritonScorer(ServerScorer):
    """Scores images on a server, see `TritonScorer`; for asyncio.

    It belongs to the event loop and the process that opened it, and says so in others. It can be
    pickled, and is to be opened there.

    Args:
        url: `grpc://HOST[:PORT]`, with TLS `grpcs://HOST[:PORT]`; or a `Connection`.
        bundle: the bundle that the server must serve, see `giqa.load_bundle`; None: the default.
        in_flight: most requests under way.
        batch: images in one request, see `TritonScorer`.
        deadline_s: seconds that an image may take, with all attempts.
        retry: when to send again.
        transport: `unary` or `stream`.
        shared_memory: hand inputs over in shared memory; the server must be on this machine.
        limits: limits that hold before anything is sent.
        **connection: `token`, `admin_key`, `ca`, `cert`, `key`, `server_name`, `keepalive_s` of
            `Connection`.

    Raises:
        MissingExtraError: tritonclient is not installed.
        UsageError: `url` is no such address.

    Example:
        >>> async def main():
        ...     async with AsyncTritonScorer("grpc://127.0.0.1:8001") as scorer:
        ...         async for result in scorer.score(["photo.jpg"]):
        ...             print(result.path, result.score, result.error)
    """

    async def open(self) -> None:
        """Connect and compare the server's bundle with ours.

        Raises:
            ServerUnavailableError: the server cannot be reached within the deadline.
            ServerRefusedError: it wants another token.
            EngineMismatchError: it serves another bundle, or tensors other than the manifest's.
            UsageError: another process opened it, or it is open.
        """
        await self._link.open()

    async def score(
        self,
        items: Source | Iterable[Source] | AsyncIterable[Source],
        *,
        profile: Profile = "fast",
        quality_map: bool = False,
    ) -> AsyncIterator[ImageResult]:
        """Score images lazily, in order, one result each; bad items become error results.

        Args:
            items: one or many of what `giqa.score` takes; pulled as the work proceeds.
            profile: `fast` or `precise`.
            quality_map: fill in `ImageResult.quality_map` where the model has a map.

        Yields:
            One result an item.

        Raises:
            UsageError: there is no such profile, or another event loop or process opened it.
        """
        checks.wanted(profile, quality_map)
        self._link.check_place()
        limits = self._flow.limits
        source: Any = items if isinstance(items, AsyncIterable) else items_of(items, limits)
        chunks = _chunks(source, self._batch, lambda item: to_item(item, limits))
        async for rows in self._ahead(lambda c: self._link.score(c, profile, quality_map), chunks):
            for row in rows:
                yield row

    async def score_views(
        self, views: Iterable[Views] | AsyncIterable[Views]
    ) -> AsyncIterator[ViewScore]:
        """Score ready-made views lazily, in order.

        Args:
            views: all with the manifest's sizes.

        Yields:
            One score each.

        Raises:
            ShapeMismatchError: views have another dtype or shape than the manifest's.
            ServerError: the server failed on one of them.
        """
        self._link.check_place()
        work = self._link.score_views
        async for score in self._ahead(lambda one: work(*one), _chunks(views, 1)):
            yield score

    async def close(self) -> None:
        """Disconnect; what the server has is given 3 s to be answered, the rest fails."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def _ahead(
        self, work: Callable[[_T], Coroutine[Any, Any, _R]], source: AsyncIterator[_T]
    ) -> AsyncIterator[_R]:
        """Work on several at once, give results in order, read no further than needed."""
        pending: deque[asyncio.Task[_R]] = deque()
        try:
            more = True
            while True:
                self._link.check_place()
                while more and len(pending) < 2 * self._in_flight:
                    try:
                        chunk = await anext(source)
                    except StopAsyncIteration:
                        more = False
                        break
                    pending.append(asyncio.create_task(work(chunk)))
                    if pending[0].done():
                        break
                if not pending:
                    return
                yield await pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)


async def _chunks(
    items: Iterable[Any] | AsyncIterable[Any], size: int, of: Callable[[Any], Any] = lambda one: one
) -> AsyncIterator[list[Any]]:
    chunk: list[Any] = []
    source = items if isinstance(items, AsyncIterable) else _asynchronous(items)
    async for item in source:
        chunk.append(of(item))
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _asynchronous(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item
