"""A supervisor's calls to its server: given up where they are late, never cancelled."""

from __future__ import annotations

import threading
import time
from typing import Any

from giqa.errors import DeadlineExceededError, ServerUnavailableError
from giqa.kserve import Connection, import_grpc, service_stub, to_error

_ABANDONED_S = 60.0
"""How much longer than its deadline a call may live in the server."""


class Calls:
    """Calls of the KServe service, over one channel.

    Args:
        connection: how the server is reached.
        stopping: ends what waits for an answer.
    """

    def __init__(self, connection: Connection, stopping: threading.Event) -> None:
        self._connection, self._stopping = connection, stopping
        self._channel: Any = None
        self._stub: Any = None
        self._late: set[Any] = set()

    def open(self) -> None:
        """Open the channel; the server need not be there yet."""
        self._channel = self._connection.channel()
        self._stub = service_stub(self._channel)

    def close(self) -> None:
        """Close the channel, if there is one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def call(self, name: str, message: Any, timeout_s: float) -> Any:
        """Make one call, see `Server.call`."""
        grpc, url = import_grpc(), self._connection.url
        end = time.monotonic() + timeout_s
        try:
            call = getattr(self._stub, name).future(
                message, timeout=timeout_s + _ABANDONED_S, metadata=self._connection.metadata
            )
            while True:  # a signal's handler may set `stopping` meanwhile
                try:
                    return call.result(max(0.0, min(0.5, end - time.monotonic())))
                except grpc.FutureTimeoutError:
                    if time.monotonic() >= end or self._stopping.is_set():
                        self._late.add(call)  # gRPC cancels a call that nobody holds
                        call.add_done_callback(self._late.discard)
                        raise DeadlineExceededError(
                            f"no answer in {timeout_s:g} s", item=url
                        ) from None
        except grpc.FutureCancelledError as e:
            raise ServerUnavailableError("stopped", item=url) from e
        except grpc.RpcError as e:
            raise to_error(e.code().name, e.details() or "", url) from e
        except ValueError as e:  # gRPC's way to say that the channel was closed
            raise ServerUnavailableError("stopped", item=url) from e
