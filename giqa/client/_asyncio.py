"""AsyncTritonScorer: scores on a Triton server from asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from giqa import checks
from giqa.client._asyncio_stream import AsyncRequestStream
from giqa.client._flow import Answer, Call, Job, Steps
from giqa.client._retry import GRACE_S
from giqa.client._scorer import ServerScorer
from giqa.client._shared_memory import Region
from giqa.contract import GIQA, Profile
from giqa.errors import DeadlineExceededError, GiqaError, ServerUnavailableError, UsageError
from giqa.kserve import answer, import_grpc, messages, request, service_stub, to_error
from giqa.results import ImageResult
from giqa.sources import items as items_of
from giqa.sources import to_item
from giqa.types import Item, Source, Views, ViewScore

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

    def _begin(self) -> None:
        self._calls: set[asyncio.Task[Any]] = set()
        self._channel: Any = None
        self._stub: Any = None
        self._stream: AsyncRequestStream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def _check_place(self) -> None:
        """A connection belongs to its loop: calls in another fail in gRPC's words, or hang."""
        self._check_process()
        if self._loop not in (None, asyncio.get_running_loop()):
            raise UsageError(
                "was opened in another event loop",
                item=type(self).__name__,
                remedy="open one in each event loop",
            )

    async def open(self) -> None:
        """Connect and compare the server's bundle with ours.

        Raises:
            ServerUnavailableError: the server cannot be reached within the deadline.
            ServerRefusedError: it wants another token.
            EngineMismatchError: it serves another bundle, or tensors other than the manifest's.
            UsageError: another process opened it, or it is open.
        """
        self._check_process()
        if self._channel is not None:
            raise UsageError("is open", item=type(self).__name__, remedy="close it first")
        import_grpc()
        self._process, self._loop = os.getpid(), asyncio.get_running_loop()
        self._channel = self._connection.channel(aio=True)
        self._stub = service_stub(self._channel)
        if self._transport == "stream":
            self._stream = AsyncRequestStream(self._stub, self._connection)
        deadline = time.monotonic() + self._deadline_s

        async def look() -> None:
            config = await self._rpc(
                "ModelConfig", messages().ModelConfigRequest(name=GIQA), deadline
            )
            self._flow.check_config(config.config)
            await self._check_model(GIQA, deadline)

        try:
            await self._again(look, deadline)
        except BaseException:
            await self.close()
            raise

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

        async def work(chunk: list[Item]) -> list[ImageResult]:
            def prepare() -> list[Job]:
                return [self._flow.prepare(item, profile, quality_map) for item in chunk]

            return await self._run(await asyncio.to_thread(prepare))

        checks.wanted(profile, quality_map)
        self._check_place()
        limits = self._flow.limits
        source: Any = items if isinstance(items, AsyncIterable) else items_of(items, limits)
        async for rows in self._ahead(
            work, _chunks(source, self._batch, lambda item: to_item(item, limits))
        ):
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
        self._check_place()

        async def work(one: list[Views]) -> ViewScore:
            call = self._flow.views(one[0])
            return self._flow.view_score(await self._ask(call, time.monotonic() + self._deadline_s))

        async for score in self._ahead(work, _chunks(views, 1)):
            yield score

    async def close(self) -> None:
        """Disconnect; what the server has is given 3 s to be answered."""
        if self._foreign:
            return  # loop and connection are the parent's
        if self._channel is not None:
            self._check_place()
        if self._calls:
            await asyncio.wait(self._calls, timeout=GRACE_S)
        for region in self._regions.drain() if self._regions else ():
            if region.registered:
                await self._unregister(region)
            region.close()
        if self._stream is not None:
            await self._stream.close()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

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
        self, work: Callable[[_T], Awaitable[_R]], source: AsyncIterator[_T]
    ) -> AsyncIterator[_R]:
        """Work on several at once, give results in order, read no further than needed."""
        gate = asyncio.Semaphore(self._in_flight)

        async def limited(chunk: _T) -> _R:
            async with gate:
                return await work(chunk)

        pending: deque[asyncio.Task[_R]] = deque()
        try:
            more = True
            while True:
                while more and len(pending) < 2 * self._in_flight:
                    try:
                        chunk = await anext(source)
                    except StopAsyncIteration:
                        more = False
                        break
                    pending.append(asyncio.create_task(limited(chunk)))
                    if pending[0].done():
                        break
                if not pending:
                    return
                yield await pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _run(self, jobs: list[Job]) -> list[ImageResult]:
        """Drive the steps of a chunk."""
        deadline = time.monotonic() + self._deadline_s
        steps: Steps = self._flow.steps(jobs)
        try:
            call = next(steps)
            while True:
                try:
                    found = await self._ask(call, deadline)
                except GiqaError as e:
                    call = steps.throw(e)
                else:
                    call = steps.send(found)
        except StopIteration as e:
            rows: list[ImageResult] = e.value
            return rows

    async def _ask(self, call: Call, deadline: float) -> Answer:
        """Send a request, again if that helps, and read its answer."""
        return await self._again(lambda: self._ask_once(call, deadline), deadline)

    async def _again(self, work: Callable[[], Awaitable[_R]], deadline: float) -> _R:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await work()
            except GiqaError as e:
                pause = self._retry.pause(attempt, e)
                if pause is None or pause >= deadline - time.monotonic():
                    raise
                await asyncio.sleep(pause)

    async def _ask_once(self, call: Call, deadline: float) -> Answer:
        await self._check_model(call.model, deadline)
        region = await self._region(call, deadline) if self._regions else None
        try:
            places = region.fill(call.inputs) if region else None
            left = self._left(deadline)
            message = request(
                call.model, call.inputs, [*call.expected], timeout_s=left, places=places
            )
            if self._stream is not None:
                response = await self._stream.infer(message, left)
            else:
                response = await self._infer(message, left)
        except GiqaError as e:
            if self._regions and region and region.name in e.message:  # it was restarted
                for gone in self._regions.forget(region):
                    await self._unregister(gone)
                    gone.close()
                region = None
                raise ServerUnavailableError(e.message, item=e.item) from e
            raise
        finally:
            if self._regions and region:
                self._regions.give(region)
        self._flow.check_answer(response)
        return answer(response, call.model, call.expected, self._connection.url)

    async def _check_model(self, model: str, deadline: float) -> None:
        """Compare the bundle and a model's tensors with the manifest, once a connection."""
        if self._channel is not None and (
            self._channel.get_state() is not import_grpc().ChannelConnectivity.READY
        ):
            self._known.clear()  # whoever answers now may be another
        if not self._known:
            message = messages().ModelConfigRequest(name=GIQA)
            response = await self._rpc("ModelConfig", message, deadline)
            self._flow.check_config(response.config)
        if model not in self._known:
            message = messages().ModelMetadataRequest(name=model)
            self._flow.check_metadata(model, await self._rpc("ModelMetadata", message, deadline))
            self._known.add(model)

    async def _rpc(self, name: str, message: Any, deadline: float) -> Any:
        if self._channel is None:
            raise ServerUnavailableError("not open", item=self._connection.url)
        try:
            return await getattr(self._stub, name)(
                message, timeout=self._left(deadline), metadata=self._connection.metadata
            )
        except import_grpc().aio.AioRpcError as e:
            raise to_error(e.code().name, e.details() or "", self._connection.url) from e

    async def _infer(self, message: Any, left: float) -> Any:
        """One unary inference; given up at its deadline, but not cancelled yet."""
        if self._channel is None:
            raise ServerUnavailableError("not open", item=self._connection.url)

        async def call() -> Any:
            try:
                return await self._stub.ModelInfer(
                    message, timeout=left + GRACE_S, metadata=self._connection.metadata
                )
            except import_grpc().aio.AioRpcError as e:
                return to_error(e.code().name, e.details() or "", self._connection.url)

        task = asyncio.create_task(call())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            found = await asyncio.wait_for(asyncio.shield(task), left)
        except TimeoutError:
            raise DeadlineExceededError("no answer in time", item=self._connection.url) from None
        if isinstance(found, GiqaError):
            raise found
        return found

    async def _region(self, call: Call, deadline: float) -> Region:
        """Take a region that the server knows."""
        assert self._regions is not None
        region, replaced = self._regions.take(call.inputs)
        if replaced is not None:
            await self._unregister(replaced)
            replaced.close()
        if not region.registered:
            message = messages().SystemSharedMemoryRegisterRequest(
                name=region.name, key=region.key, byte_size=region.size
            )
            try:
                await self._rpc("SystemSharedMemoryRegister", message, deadline)
            except BaseException:
                self._regions.drop(region)
                raise
            region.set_registered()
        return region

    async def _unregister(self, region: Region) -> None:
        try:
            message = messages().SystemSharedMemoryUnregisterRequest(name=region.name)
            await self._rpc("SystemSharedMemoryUnregister", message, time.monotonic() + 2)
        except GiqaError:
            pass  # the server is gone, and its mapping with it


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
