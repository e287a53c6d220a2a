"""One bidirectional gRPC call for many requests."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
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

    Safe to use from several threads.

    Args:
        stub: the service.
        connection: for metadata and errors.
    """

    def __init__(self, stub: Any, connection: Connection) -> None:
        self._stub, self._connection = stub, connection
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._open: _Open | None = None
        self._closed = False

    def infer(self, message: Any, timeout_s: float) -> Any:
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
        with self._lock:
            if self._closed:
                raise ServerUnavailableError("closed", item=self._connection.url)
            if self._open is None or self._open.broken:
                self._open = _Open(self._stub, self._connection)
            opened = self._open
            future = opened.send(message)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            opened.forget(message.id)
            raise DeadlineExceededError("no answer in time", item=self._connection.url) from None

    def close(self) -> None:
        """End the stream; what is not answered within 3 s fails."""
        with self._lock:
            self._closed = True
            if self._open is not None:
                self._open.close()


class _Open:
    """A stream that is open, until it breaks."""

    def __init__(self, stub: Any, connection: Connection) -> None:
        self.broken = False
        self._url = connection.url
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()
        self._call = stub.ModelStreamInfer(self._messages(), metadata=connection.metadata)
        self._reader = threading.Thread(target=self._read, name="giqa-stream", daemon=True)
        self._reader.start()

    def send(self, message: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self.broken:
                future.set_exception(ServerUnavailableError("the stream broke", item=self._url))
                return future
            self._waiting[message.id] = future
        self._outbox.put(message)
        return future

    def forget(self, request_id: str) -> None:
        with self._lock:
            self._waiting.pop(request_id, None)

    def close(self) -> None:
        self._outbox.put(None)
        self._reader.join(GRACE_S)
        self._call.cancel()

    def _messages(self) -> Iterator[Any]:
        while (message := self._outbox.get()) is not None:
            yield message

    def _read(self) -> None:
        error: GiqaError = ServerUnavailableError("the server ended the stream", item=self._url)
        try:
            for response in self._call:
                self._settle(response)
        except import_grpc().RpcError as e:
            error = broken(to_error(e.code().name, e.details() or "", self._url))
        with self._lock:
            self.broken = True
            waiting, self._waiting = self._waiting, {}
        self._outbox.put(None)
        for future in waiting.values():
            future.set_exception(error)

    def _settle(self, response: Any) -> None:
        found = response.infer_response
        with self._lock:
            future = self._waiting.pop(found.id, None)
        if future is not None:
            if response.error_message:
                future.set_exception(to_error("", response.error_message, self._url))
            else:
                future.set_result(found)
        elif response.error_message and not found.id:
            # Whose error it is cannot be told: nobody's request is known to live on.
            self._call.cancel()


def broken(error: GiqaError) -> GiqaError:
    """The end of a whole stream is no single request's failure: each may be sent again."""
    if isinstance(error, ServerFailedError):
        return ServerUnavailableError(error.message, item=error.item)
    return error
