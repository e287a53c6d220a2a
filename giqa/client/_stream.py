"""One bidirectional gRPC call for many requests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

from giqa.client._retry import GRACE_S
from giqa.errors import (
    DeadlineExceededError,
    GiqaError,
    ServerFailedError,
    ServerUnavailableError,
)
from giqa.kserve import Connection, import_grpc, to_error


class RequestStream:
    """Sends requests down one stream and finds each its answer; opens it again when it broke.

    Args:
        stub: the service.
        connection: for metadata and errors.
    """

    def __init__(self, stub: Any, connection: Connection) -> None:
        self._stub, self._connection = stub, connection
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def infer(self, message: Any, timeout_s: float) -> Any:
        """Send a request and wait for its answer.

        Args:
            message: a `ModelInferRequest`; its id is set here.
            timeout_s: longest wait in seconds.

        Returns:
            The `ModelInferResponse`.

        Raises:
            GiqaError: what the server said, or that the stream broke.
        """
        message.id = str(next(self._numbers))
        if self._reader is None or self._reader.done():
            self._call = self._stub.ModelStreamInfer(metadata=self._connection.metadata)
            self._reader = asyncio.create_task(self._read(self._call))
        future = self._waiting[message.id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    async with self._writing:  # writes of one call must not overlap
                        await self._call.write(message)
                except (asyncio.InvalidStateError, import_grpc().RpcError) as e:
                    if not future.done():
                        raise ServerUnavailableError(
                            "the stream broke", item=self._connection.url
                        ) from e
                return await future
        except TimeoutError:
            raise DeadlineExceededError("no answer in time", item=self._connection.url) from None
        finally:
            self._waiting.pop(message.id, None)

    async def close(self) -> None:
        """End the stream; what is not answered within 3 s fails."""
        if self._reader is not None:
            with contextlib.suppress(Exception):  # it broke already
                await self._call.done_writing()
            await asyncio.wait([self._reader], timeout=GRACE_S)
            self._call.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self, call: Any) -> None:
        url = self._connection.url
        error: GiqaError = ServerUnavailableError("the server ended the stream", item=url)
        try:
            async for response in call:
                found = response.infer_response
                future = self._waiting.get(found.id)
                if future is not None and not future.done():
                    if response.error_message:
                        future.set_exception(to_error("", response.error_message, url))
                    else:
                        future.set_result(found)
                elif response.error_message and not found.id:
                    call.cancel()  # whose error it is cannot be told
        except import_grpc().RpcError as e:
            error = to_error(e.code().name, e.details() or "", url)
            if isinstance(error, ServerFailedError):  # no request's own: each may be sent again
                error = ServerUnavailableError(error.message, item=error.item)
        except asyncio.CancelledError:
            pass  # the call was
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
