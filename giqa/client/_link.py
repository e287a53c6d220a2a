"""One connection to one server: what is sent, again if that helps, and what is answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from giqa.client._flow import Answer, Call, Flow, Job
from giqa.client._retry import GRACE_S, Retry
from giqa.client._shared_memory import Region, Regions
from giqa.client._stream import RequestStream
from giqa.contract import GIQA, Profile
from giqa.errors import DeadlineExceededError, GiqaError, ServerUnavailableError, UsageError
from giqa.forks import Origin
from giqa.kserve import (
    Connection,
    answer,
    import_grpc,
    messages,
    request,
    service_stub,
    to_error,
)
from giqa.results import ImageResult
from giqa.types import Item, Views, ViewScore

_R = TypeVar("_R")


class Link:
    """A connection, used by one event loop of one process.

    Args:
        connection: where the server is.
        flow: what is asked, and what answers must be.
        in_flight: most requests under way.
        deadline_s: seconds that an image may take, with all attempts.
        retry: when to send again.
        streamed: one call for all requests.
        shared_memory: hand inputs over in shared memory.
    """

    def __init__(
        self,
        connection: Connection,
        flow: Flow,
        *,
        in_flight: int,
        deadline_s: float,
        retry: Retry,
        streamed: bool,
        shared_memory: bool,
    ) -> None:
        self._connection, self._flow, self._retry = connection, flow, retry
        self._in_flight, self._deadline_s, self._streamed = in_flight, deadline_s, streamed
        self._regions = Regions() if shared_memory else None
        self._known: set[str] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self._origin: Origin | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Any = None
        self._closed, self._gate = asyncio.Event(), asyncio.Semaphore(in_flight)
        self._closed.set()

    @property
    def is_foreign(self) -> bool:
        """Whether it was opened by the process that this one was forked from."""
        return self._origin is not None and not self._origin.is_here

    def check_process(self) -> None:
        """GRPC's connection and threads do not survive a fork: calls would wait for ever.

        Raises:
            UsageError: another process opened it.
        """
        if self._origin is not None:
            self._origin.check()

    def check_place(self) -> None:
        """A connection belongs to its loop: calls in another fail in gRPC's words, or hang.

        Raises:
            UsageError: another process or event loop opened it.
        """
        self.check_process()
        if self._loop not in (None, asyncio.get_running_loop()):
            raise UsageError(
                "was opened in another event loop",
                item=self._connection.url,
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
        self.check_process()
        if self._channel is not None:
            raise UsageError("is open", item=self._connection.url, remedy="close it first")
        self._grpc = import_grpc()
        self._origin = Origin(self._connection.url, "was opened")
        self._loop = asyncio.get_running_loop()
        self._channel = self._connection.channel(aio=True)
        self._stub = service_stub(self._channel)
        self._stream = RequestStream(self._stub, self._connection) if self._streamed else None
        self._closed = asyncio.Event()
        self._gate = asyncio.Semaphore(self._in_flight)
        self._threads = ThreadPoolExecutor(self._in_flight, thread_name_prefix="giqa-client")
        deadline = time.monotonic() + self._deadline_s
        try:
            await self._again(lambda: self._check_model(GIQA, deadline), deadline)
        except DeadlineExceededError as e:
            await self.close()
            raise ServerUnavailableError(e.message, item=e.item) from e
        except BaseException:
            await self.close()
            raise

    async def score(
        self, items: list[Item], profile: Profile, quality_map: bool
    ) -> list[ImageResult]:
        """Read, probe and score images that may go in one request.

        Returns:
            One row each, in order.
        """

        def prepare() -> list[Job]:
            return [self._flow.prepare(item, profile, quality_map) for item in items]

        async with self._gate:
            self._check_open()
            jobs = await asyncio.get_running_loop().run_in_executor(self._threads, prepare)
            deadline = time.monotonic() + self._deadline_s
            steps = self._flow.steps(jobs)
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

    async def score_views(self, views: Views) -> ViewScore:
        """Score ready-made views.

        Raises:
            ShapeMismatchError: they have another dtype or shape than the manifest's.
            ServerError: the server failed.
        """
        async with self._gate:
            self._check_open()
            call = self._flow.views(views)
            found = await self._ask(call, time.monotonic() + self._deadline_s)
            return self._flow.view_score(found)

    async def close(self) -> None:
        """Disconnect; what the server has is given 3 s to be answered, the rest fails."""
        if self.is_foreign or self._channel is None:
            return  # loop and connection are the parent's
        self.check_place()
        self._closed.set()
        if self._stream is not None:
            await self._stream.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=GRACE_S)
        for region in self._regions.drain() if self._regions else ():
            if region.registered:
                await self._unregister(region)
            region.close()
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
        # gRPC must have nothing left to say when the loop ends.
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._known.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

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
                if await self._is_closed_within(pause):
                    raise

    async def _ask_once(self, call: Call, deadline: float) -> Answer:
        self._check_open()
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
            if isinstance(e, ServerUnavailableError):  # it may come back as another
                self._known.clear()
            raise
        finally:
            if self._regions and region:
                self._regions.give(region)
        self._flow.check_answer(response)
        return answer(response, call.model, call.expected, self._connection.url)

    async def _check_model(self, model: str, deadline: float) -> None:
        """Compare the bundle and a model's tensors with the manifest, once a connection."""
        if self._channel.get_state() is not self._grpc.ChannelConnectivity.READY:
            self._known.clear()  # whoever answers next may be another
        if not self._known:
            message = messages().ModelConfigRequest(name=GIQA)
            self._flow.check_config((await self._rpc("ModelConfig", message, deadline)).config)
        if model not in self._known:
            message = messages().ModelMetadataRequest(name=model)
            self._flow.check_metadata(model, await self._rpc("ModelMetadata", message, deadline))
            self._known.add(model)

    async def _infer(self, message: Any, left: float) -> Any:
        """One unary inference; given up at its deadline, but not cancelled yet."""
        task = asyncio.create_task(self._call("ModelInfer", message, left + GRACE_S))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it was seen
        try:
            return await asyncio.wait_for(asyncio.shield(task), left)
        except TimeoutError:
            raise DeadlineExceededError("no answer in time", item=self._connection.url) from None

    async def _rpc(self, name: str, message: Any, deadline: float) -> Any:
        return await self._call(name, message, self._left(deadline))

    async def _call(self, name: str, message: Any, timeout_s: float) -> Any:
        url = self._connection.url
        if self._channel is None:
            raise ServerUnavailableError("is not open", item=url)
        call = getattr(self._stub, name)(
            message, timeout=timeout_s, metadata=self._connection.metadata
        )
        try:
            return await call
        except self._grpc.aio.AioRpcError as e:
            raise to_error(e.code().name, e.details() or "", url) from e
        except asyncio.CancelledError:
            if self._channel is None:  # closed: that cancels calls, and whoever waits for them
                raise ServerUnavailableError("closed", item=url) from None
            raise

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ServerUnavailableError("is not open", item=self._connection.url)

    async def _is_closed_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._closed.wait(), seconds)
        return False

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError("no answer in time", item=self._connection.url)
        return left

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
        message = messages().SystemSharedMemoryUnregisterRequest(name=region.name)
        with contextlib.suppress(GiqaError):  # the server is gone, and its mapping with it
            await self._rpc("SystemSharedMemoryUnregister", message, time.monotonic() + 2)
