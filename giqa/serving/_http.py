"""An HTTP listener that nobody can use up: connections, time and headers have limits.

uvicorn limits none of them before a request has come: idle connections would take the places of
probes, and one byte each ten seconds would keep them for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from giqa.errors import UsageError

_HEADERS_S = 10.0
"""Longest wait for a connection's first request."""
_LIFE_S = 120.0
"""A connection without a request under way is closed at this age, with one at twice that."""
_MOST = 256
"""Connections at the same time. One more takes the place of the oldest that asks for nothing."""
_HEADER_BYTES = 16 * 1024


class _Protocol(H11Protocol):
    """uvicorn's, with limits."""

    def connection_made(self, transport: Any) -> None:
        others: set[Any] = self.connections
        if len(others) >= _MOST:
            oldest = min((c for c in others if c.idle), key=lambda c: c.since, default=None)
            if oldest is None:
                transport.abort()
                self.transport = transport
                return
            oldest.transport.abort()
            others.discard(oldest)
        super().connection_made(transport)
        self.since = self.loop.time()
        self._timers = [
            self.loop.call_later(_HEADERS_S, self._end_if, lambda: self.cycle is None),
            self.loop.call_later(_LIFE_S, self._end_if, lambda: self.idle),
            self.loop.call_later(2 * _LIFE_S, self._end_if, lambda: True),
        ]

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in getattr(self, "_timers", ()):
            timer.cancel()
        if self.flow is not None:  # it was not refused
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.flow is not None:
            super().data_received(data)

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _end_if(self, wanted: Any) -> None:
        if wanted():
            self.transport.abort()


def _unambiguous(app: Any) -> Any:
    """An application that is asked nothing whose end a proxy before it may see elsewhere.

    h11 takes both a length and chunks: a proxy that goes by the other one would pass on the rest
    as somebody's next request.
    """
    refused = PlainTextResponse("ambiguous length\n", 400, headers={"Connection": "close"})

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        names = {name for name, _ in scope["headers"]}
        chunks = b"transfer-encoding" in names
        if chunks and (b"content-length" in names or scope["http_version"] != "1.1"):
            await refused(scope, receive, send)
        else:
            await app(scope, receive, send)

    return asked


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for whoever started the process."""
        yield


class Listener:
    """Serves an ASGI application over HTTP/1.1; a context manager that does so in a thread.

    Args:
        app: the application.
        address: where it listens.
        port: its port.
        option: what named the port, for errors.
        tls: certificate and key, PEM files; None: no TLS.
        client_ca: PEM file of the authority whose clients alone are let in.

    Raises:
        UsageError: the port is taken or may not be used.
    """

    def __init__(
        self,
        app: Any,
        address: str,
        port: int,
        *,
        option: str,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
    ) -> None:
        self._socket = listen(address, port, option)
        secure: dict[str, Any] = {}
        if tls is not None:
            secure = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]}
            if client_ca is not None:
                import ssl

                secure |= {"ssl_ca_certs": str(client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # garbage is not worth a line
        config = uvicorn.Config(
            _unambiguous(app),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            **secure,
        )
        config.load()
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="giqa-http", daemon=True)

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Take no more connections, and end when what is under way is answered."""
        self._server.should_exit = True

    def _run(self) -> None:
        asyncio.run(self.serve())

    def __enter__(self) -> Self:
        """Serve in a thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Serve no more."""
        self.stop()
        self._thread.join()
        self._socket.close()


def listen(address: str, port: int, option: str) -> socket.socket:
    """Bind a TCP port.

    Args:
        address: an IPv4 or IPv6 address, or `localhost`.
        port: the port.
        option: what named it, for errors.

    Raises:
        UsageError: the port is taken or may not be used.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address, port))
        found.listen(128)
    except OSError as e:
        found.close()
        raise UsageError(
            f"cannot listen on {address}:{port}: {e.strerror}", item=option, remedy="choose another"
        ) from e
    return found
