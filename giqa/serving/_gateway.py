"""The gateway: what clients reach, in a process of its own before tritonserver.

Triton listens on a UNIX socket that its user alone may enter; the gateway lets in who has a token,
bounds what is taken before it is read, passes on what an ensemble can answer, and never cancels:
old servers crash of cancelled calls, whoever cancels them. Bytes are passed on as they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from giqa.contract import GIQA, GIQA_ISOLATED
from giqa.errors import (
    GiqaError,
    InputError,
    OverloadedError,
    ServerRefusedError,
    ShapeMismatchError,
)
from giqa.kserve import (
    ADMIN_KEY,
    KEY_PREFIX,
    TOKEN_KEY,
    import_grpc,
    messages,
    to_error,
)
from giqa.serving._gateway_checks import decoding_cost, parameters_of, read_message
from giqa.serving._gateway_options import Backend, GatewayOptions
from giqa.serving._gateway_upstream import Room, Upstream, not_yet
from giqa.serving._requests import RequestLog, request_id_of
from giqa.serving._tokens import Client, Tokens

_RESERVED = b"triton_python_backend_shm_region_"
_READERS = 64
_STRANGERS = 4
_LINE = 8
"""Requests may wait, in memory, whose bytes are so many times those that Triton has."""
_READ_S = 20.0
_LARGE = 96_000_000
"""Decoded bytes of a picture that does not count as large: 32 megapixels."""
_MOST_PEERS = 10_000
_FINISH_S = 50.0
"""Longest wait for what a backend that is served no more has under way."""
_UPSTREAM_S = 600.0
"""Longest life of a call to Triton: its watch comes first."""


class Gateway:
    """Answers clients; see the module.

    Args:
        options: how it listens.
        say: takes lines for the log.
    """

    def __init__(self, options: GatewayOptions, say: Callable[[str], None]) -> None:
        self.options = options
        self._grpc = import_grpc()
        self.tokens = Tokens(Path(options.token_file) if options.token_file else None, say)
        self.log = RequestLog(
            Path(options.request_log) if options.request_log else None, options.request_log_bytes
        )
        self.ready = True
        self._upstreams = [Upstream(backend, options) for backend in options.backends]
        self._peers: dict[str, Upstream] = {}
        self._readers = asyncio.Semaphore(_READERS)
        self._doorstep = asyncio.Semaphore(_STRANGERS)
        self._held = 0
        self._room = Room(options.in_flight_bytes)
        self._pixels = Room(options.decoded_bytes)
        self._calls: set[asyncio.Task[Any]] = set()

    # What comes in ---------------------------------------------------------------------------

    @property
    def max_message(self) -> int:
        """Most bytes of a request."""
        return max(upstream.checks.max_message for upstream in self._upstreams)

    async def stop(self) -> None:
        """Leave the backends; nothing comes in any more."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=1)
        for upstream in self._upstreams:
            await upstream.close()
        self.log.close()

    def client_of(self, metadata: Any) -> Client:
        """Let a client in by its metadata or headers.

        Raises:
            ServerRefusedError: it has no token.
        """
        shown = []
        for key, value in metadata or ():
            if key == KEY_PREFIX + TOKEN_KEY:
                shown.append(value)
            elif key == "authorization" and value[:7].lower() == "bearer ":
                shown.append(value[7:].strip())
        return self.tokens.find(shown[:4])

    def check_admin(self, metadata: Any) -> None:
        """Refuse who has not the admin key.

        Raises:
            ServerRefusedError: it is missing or wrong.
        """
        wanted = self.options.admin_key.encode()
        shown = [v for k, v in metadata or () if k == KEY_PREFIX + ADMIN_KEY]
        if not any(hmac.compare_digest(wanted, value.encode()) for value in shown[:4]):
            raise ServerRefusedError("this protocol is restricted to who has the admin key")

    async def read(self, requests: Any, *, stranger: bool = False) -> bytes:
        """Read a call's one message; not too many at the same time, and not for ever.

        Args:
            requests: the call's.
            stranger: nobody was asked for a token; who was waits for none of these.

        Raises:
            OverloadedError: it did not come in time.
        """
        readers = self._doorstep if stranger else self._readers
        try:
            async with asyncio.timeout(_READ_S), readers:
                raw: bytes = await anext(requests)
                return raw
        except TimeoutError:
            raise OverloadedError(f"the request did not come within {_READ_S:.0f} s") from None
        except StopAsyncIteration:
            raise ShapeMismatchError("a call without a message") from None

    # What goes out ---------------------------------------------------------------------------

    def upstream_of(self, peer: str) -> Upstream:
        """The backend of a connection: all of its answers come from the same bundle.

        Where that is served no more, the next answer says that it comes from another.
        """
        if len(self._upstreams) == 1:
            return self._upstreams[0]
        if (found := self._peers.get(peer)) is None:
            shares = [upstream.backend.share for upstream in self._upstreams]
            (found,) = random.choices(self._upstreams, shares)
            while len(self._peers) >= _MOST_PEERS:
                self._peers.pop(next(iter(self._peers)))
            self._peers[peer] = found
        return found

    async def serve(self, backends: Sequence[Backend]) -> None:
        """Serve other backends from now on; return when the old ones have nothing under way."""
        known = {upstream.backend.target: upstream for upstream in self._upstreams}
        self._upstreams = []
        for backend in backends:
            upstream = known.pop(backend.target, None) or Upstream(backend, self.options)
            upstream.backend = backend
            self._upstreams.append(upstream)
        self._peers.clear()
        if known:
            old = [asyncio.create_task(upstream.finish()) for upstream in known.values()]
            await asyncio.wait(old, timeout=_FINISH_S)

    async def infer(
        self, raw: bytes, client: Client, peer: str, left_s: float | None, way: str = "grpc"
    ) -> bytes:
        """Answer one request.

        Args:
            raw: a `ModelInferRequest`.
            client: who asks.
            peer: the connection.
            left_s: the client's deadline.
            way: for the log.

        Raises:
            GiqaError: why there is no answer.
        """
        started, model, request_id, code = time.monotonic(), "", "", "ok"
        try:
            message = read_message(raw)
            request_id, model = message.id, message.model_name
            upstream = self.upstream_of(peer)
            upstream.checks.check(message)
            client.begin()
            upstream.under_way += 1
            try:
                with self._holding(len(raw)):
                    async with self._decoding(decoding_cost(message)):
                        reply = await self._pass_on(upstream, raw, message, left_s)
            finally:
                upstream.under_way -= 1
                client.end()
            return reply + upstream.mark
        except GiqaError as e:
            code = e.code
            raise
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            self.log.write(
                request_id=request_id_of(request_id),
                client=client.name,
                way=way,
                model=model if model in self._upstreams[0].checks.ensembles else "",
                code=code,
                started=started,
                size=len(raw),
            )

    @contextlib.contextmanager
    def _holding(self, size: int) -> Iterator[None]:
        """Keep a request in memory until it is answered."""
        if self._held and self._held + size > _LINE * self.options.in_flight_bytes:
            raise OverloadedError("too many bytes wait")
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    @contextlib.asynccontextmanager
    async def _decoding(self, cost: int) -> AsyncIterator[None]:
        """Let large pictures through a few at a time: each keeps a model busy for seconds."""
        if cost <= _LARGE:
            yield
            return
        await self._pixels.enter(cost, _UPSTREAM_S)
        try:
            yield
        finally:
            self._pixels.leave(cost)

    async def _pass_on(
        self, upstream: Upstream, raw: bytes, message: Any, left_s: float | None
    ) -> bytes:
        asked = message.parameters["timeout"].int64_param if "timeout" in message.parameters else 0
        if left_s is not None and (asked <= 0 or asked > left_s * 1e6):
            more = parameters_of({"timeout": max(1, int(left_s * 1e6))})
            raw += more.SerializeToString()
        try:
            return await self._call(upstream.infer, raw, upstream)
        except InputError as e:
            if self.options.device != "gpu" or message.model_name != GIQA:
                raise
            first = e
        # One bad image fails its batch there: it is asked for alone, for any client.
        alone = messages().ModelInferRequest(model_name=GIQA_ISOLATED)
        try:
            reply = await self._call(upstream.infer, raw + alone.SerializeToString(), upstream)
        except InputError:
            raise first from None
        return reply + bytes(messages().ModelInferResponse(model_name=GIQA).SerializeToString())

    async def _call(self, method: Any, raw: bytes, upstream: Upstream) -> bytes:
        """Ask Triton; who does not wait for the answer leaves the call to end by itself."""
        await self._room.enter(len(raw), self.options.patience_s)

        async def ask() -> bytes | GiqaError:
            try:
                found: bytes = await method(raw, timeout=_UPSTREAM_S)
                return found
            except self._grpc.aio.AioRpcError as e:
                return to_error(e.code().name, e.details() or "")
            finally:
                self._room.leave(len(raw))

        task = asyncio.create_task(ask())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        found = await asyncio.shield(task)
        if isinstance(found, GiqaError):
            raise not_yet(found)
        return found

    async def plain(self, name: str, raw: bytes, peer: str) -> bytes:
        """Pass on a call that is no inference.

        Raises:
            GiqaError: what Triton said.
        """
        if name == "SystemSharedMemoryRegister" and _RESERVED in raw:
            raise ServerRefusedError("regions of that name are the server's own")
        if name == "ServerReady" and not self.ready:
            return bytes(messages().ServerReadyResponse(ready=False).SerializeToString())
        upstream = self.upstream_of(peer)
        return await self._call(upstream.method(name), raw, upstream)

    async def score(self, data: bytes, *, profile: Any, quality_map: bool) -> Any:
        """Score one image as a client would.

        Returns:
            Its row.

        Raises:
            GiqaError: why it has no score.
        """
        shares = [upstream.backend.share for upstream in self._upstreams]
        (upstream,) = random.choices(self._upstreams, shares)
        upstream.under_way += 1
        try:
            with self._holding(len(data)):
                await self._room.enter(len(data), self.options.patience_s)
                try:
                    scorer = await upstream.scorer()
                    async for row in scorer.score([data], profile=profile, quality_map=quality_map):
                        if row.error is not None:
                            raise not_yet(row.error)
                        return row
                finally:
                    self._room.leave(len(data))
        finally:
            upstream.under_way -= 1
