"""TritonScorer: scores on a Triton server over gRPC."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from giqa import checks
from giqa.client._flow import Answer, Call, Job, Steps
from giqa.client._retry import GRACE_S
from giqa.client._scorer import ServerScorer
from giqa.client._shared_memory import Region
from giqa.client._stream import RequestStream
from giqa.closing import Closing
from giqa.contract import GIQA, Profile
from giqa.errors import DeadlineExceededError, GiqaError, ServerUnavailableError
from giqa.kserve import (
    answer,
    import_grpc,
    messages,
    request,
    service_stub,
    to_error,
)
from giqa.results import ImageResult
from giqa.sources import items as items_of
from giqa.types import Item, Source, Views, ViewScore

_T = TypeVar("_T")
_R = TypeVar("_R")


class TritonScorer(ServerScorer, Closing):
    """Scores images on a server that `giqa serve` or `model_repository` set up.

    Keeps order, sends up to `in_flight` requests at the same time and reads no further ahead than
    twice that: memory is bounded for any length of input. Safe to use from several threads. It can
    be pickled, and opens anew there; in a forked child it says that it cannot be used.

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

    def _begin(self) -> None:
        self._process = os.getpid()
        self._closed = threading.Event()
        self._grpc = import_grpc()
        self._channel = self._connection.channel()
        self._stub = service_stub(self._channel)
        streamed = self._transport == "stream"
        self._stream = RequestStream(self._stub, self._connection) if streamed else None
        self._calls: set[Any] = set()
        self._pool = ThreadPoolExecutor(self._in_flight, thread_name_prefix="giqa-triton")
        self._channel.subscribe(self._lost)
        try:
            self._check_server()
        except BaseException:
            self.close()
            raise

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
        self._check_process()

        def work(chunk: list[Item]) -> list[ImageResult]:
            return self._run([self._flow.prepare(i, profile, quality_map) for i in chunk])

        chunks = _chunks(items_of(items, self._flow.limits), self._batch)
        return _rows(self._ahead(work, chunks))

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
        self._check_process()

        def work(one: Views) -> ViewScore:
            call = self._flow.views(one)
            return self._flow.view_score(self._ask(call, time.monotonic() + self._deadline_s))

        return self._ahead(work, iter(views))

    def close(self) -> None:
        """End what is under way and disconnect; the scorer cannot be used afterwards.

        What the server has is given 3 s to be answered; the rest, and what is asked for later,
        fails with `server_unavailable`.
        """
        self._closed.set()
        if self._foreign:
            return  # threads and connection are the parent's
        if self._stream:
            self._stream.close()
        end = time.monotonic() + GRACE_S
        while self._calls and time.monotonic() < end:
            time.sleep(0.01)
        self._channel.close()
        self._pool.shutdown(wait=True)
        regions = self._regions.drain() if self._regions else []
        if any(region.registered for region in regions):
            with self._connection.channel() as channel:
                self._stub = service_stub(channel)
                for region in regions:
                    if region.registered:
                        self._unregister(region)
        for region in regions:
            region.close()

    def _ahead(self, work: Callable[[_T], _R], source: Iterator[_T]) -> Iterator[_R]:
        """Work on several at once, give results in order, read no further than needed."""
        pending: deque[Future[_R]] = deque()
        try:
            while True:
                while (
                    len(pending) < 2 * self._in_flight and (chunk := next(source, None)) is not None
                ):
                    pending.append(self._submit(work, chunk))
                    if pending[0].done():
                        break
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _submit(self, work: Callable[[_T], _R], chunk: _T) -> Future[_R]:
        try:
            return self._pool.submit(work, chunk)
        except RuntimeError as e:  # the pool's way to say that it was shut down
            raise ServerUnavailableError("closed", item=self._connection.url) from e

    def _run(self, jobs: list[Job]) -> list[ImageResult]:
        """Drive the steps of a chunk."""
        deadline = time.monotonic() + self._deadline_s
        steps: Steps = self._flow.steps(jobs)
        try:
            call = next(steps)
            while True:
                try:
                    found = self._ask(call, deadline)
                except GiqaError as e:
                    call = steps.throw(e)
                else:
                    call = steps.send(found)
        except StopIteration as e:
            rows: list[ImageResult] = e.value
            return rows

    def _ask(self, call: Call, deadline: float) -> Answer:
        """Send a request, again if that helps, and read its answer."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._ask_once(call, deadline)
            except GiqaError as e:
                pause = self._retry.pause(attempt, e)
                left = deadline - time.monotonic()
                if pause is None or pause >= left or self._closed.wait(pause):
                    raise

    def _ask_once(self, call: Call, deadline: float) -> Answer:
        if self._closed.is_set():
            raise ServerUnavailableError("closed", item=self._connection.url)
        self._check_model(call.model, deadline)
        region = self._region(call, deadline) if self._regions else None
        try:
            places = region.fill(call.inputs) if region else None
            left = self._left(deadline)
            message = request(
                call.model, call.inputs, [*call.expected], timeout_s=left, places=places
            )
            if self._stream is not None:
                response = self._stream.infer(message, left)
            else:
                response = self._infer(message, left)
        except GiqaError as e:
            if self._regions and region and region.name in e.message:  # it was restarted
                for gone in self._regions.forget(region):
                    self._unregister(gone)
                    gone.close()
                region = None
                raise ServerUnavailableError(e.message, item=e.item) from e
            raise
        finally:
            if self._regions and region:
                self._regions.give(region)
        self._flow.check_answer(response)
        return answer(response, call.model, call.expected, self._connection.url)

    def _check_server(self) -> None:
        """Wait for the server and compare its bundle with ours."""
        deadline = time.monotonic() + self._deadline_s
        attempt = 0
        while True:
            attempt += 1
            try:
                self._check_model(GIQA, deadline)
                return
            except DeadlineExceededError as e:
                raise ServerUnavailableError(e.message, item=e.item) from e
            except GiqaError as e:
                pause = self._retry.pause(attempt, e)
                if pause is None or pause >= deadline - time.monotonic():
                    raise
                time.sleep(pause)

    def _lost(self, state: Any) -> None:
        """Whoever answers after the connection was lost may be another: look again."""
        if state is not self._grpc.ChannelConnectivity.READY:
            self._known.clear()

    def _check_model(self, model: str, deadline: float) -> None:
        """Compare the bundle and a model's tensors with the manifest, once a connection."""
        if not self._known:
            message = messages().ModelConfigRequest(name=GIQA)
            self._flow.check_config(self._rpc("ModelConfig", message, deadline).config)
        if model not in self._known:
            message = messages().ModelMetadataRequest(name=model)
            self._flow.check_metadata(model, self._rpc("ModelMetadata", message, deadline))
            self._known.add(model)

    def _rpc(self, name: str, message: Any, deadline: float) -> Any:
        try:
            return getattr(self._stub, name)(
                message, timeout=self._left(deadline), metadata=self._connection.metadata
            )
        except self._grpc.RpcError as e:
            raise to_error(e.code().name, e.details() or "", self._connection.url) from e
        except ValueError as e:  # gRPC's way to say that the channel was closed
            raise ServerUnavailableError("closed", item=self._connection.url) from e

    def _infer(self, message: Any, left: float) -> Any:
        """One unary inference; given up at its deadline, but not cancelled yet."""
        try:
            call = self._stub.ModelInfer.future(
                message, timeout=left + GRACE_S, metadata=self._connection.metadata
            )
        except ValueError as e:  # gRPC's way to say that the channel was closed
            raise ServerUnavailableError("closed", item=self._connection.url) from e
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return call.result(left)
        except self._grpc.FutureTimeoutError:
            raise DeadlineExceededError("no answer in time", item=self._connection.url) from None
        except self._grpc.FutureCancelledError:
            raise ServerUnavailableError("closed", item=self._connection.url) from None
        except self._grpc.RpcError as e:
            raise to_error(e.code().name, e.details() or "", self._connection.url) from e

    def _region(self, call: Call, deadline: float) -> Region:
        """Take a region that the server knows."""
        assert self._regions is not None
        region, replaced = self._regions.take(call.inputs)
        if replaced is not None:
            self._unregister(replaced)
            replaced.close()
        if not region.registered:
            message = messages().SystemSharedMemoryRegisterRequest(
                name=region.name, key=region.key, byte_size=region.size
            )
            try:
                self._rpc("SystemSharedMemoryRegister", message, deadline)
            except BaseException:
                self._regions.drop(region)
                raise
            region.set_registered()
        return region

    def _unregister(self, region: Region) -> None:
        try:
            message = messages().SystemSharedMemoryUnregisterRequest(name=region.name)
            self._rpc("SystemSharedMemoryUnregister", message, time.monotonic() + 2)
        except GiqaError:
            pass  # the server is gone, and its mapping with it


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk


def _rows(parts: Iterator[list[ImageResult]]) -> Iterator[ImageResult]:
    for rows in parts:
        yield from rows
