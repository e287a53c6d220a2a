"""The gateway: what clients reach, in a process of its own before tritonserver.

Triton listens on a UNIX socket that its user alone may enter; the gateway lets in who has a token,
bounds what is taken before it is read, passes on what an ensemble can answer, and never cancels:
old servers crash of cancelled calls, whoever cancels them. Bytes are passed on as they came.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from giqa.bundle import load_bundle
from giqa.client import AsyncTritonScorer
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
    SERVICE,
    TOKEN_KEY,
    Connection,
    import_grpc,
    messages,
    to_error,
)
from giqa.serving._gateway_checks import Checks, parameters_of
from giqa.serving._gateway_options import Backend, GatewayOptions
from giqa.serving._requests import RequestLog, request_id_of
from giqa.serving._tokens import Client, Tokens

_RESERVED = b"triton_python_backend_shm_region_"
_READERS = 64
_READ_S = 20.0
_UPSTREAM_S = 600.0
"""Longest life of a call to Triton: its watch comes first."""


class Room:
    """Lets so many bytes through at the same time; who does not fit waits in turn."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def enter(self, size: int, patience_s: float) -> None:
        """Wait for room; one that is larger than all of it goes alone.

        Raises:
            OverloadedError: there was none in time.
        """
        try:
            async with asyncio.timeout(patience_s), self._turn:
                while self._used and self._used + size > self._most:
                    self._freed.clear()
                    await self._freed.wait()
                self._used += size
        except TimeoutError:
            raise OverloadedError("too many bytes are under way") from None

    def leave(self, size: int) -> None:
        """Give the room back."""
        self._used -= size
        self._freed.set()


class _Upstream:
    """The channel to a backend and what is known of its bundle."""

    def __init__(self, backend: Backend, options: GatewayOptions) -> None:
        self.backend = backend
        self.bundle = load_bundle(backend.bundle)
        self.connection = Connection(host=backend.target)
        self.channel = self.connection.channel(aio=True)
        self.checks = Checks(
            self.bundle.manifest,
            options.device,
            options.max_batch,
            options.limits,
            shared_memory=options.client_shared_memory,
        )
        self.infer = self.method("ModelInfer")
        self._scorer: AsyncTritonScorer | None = None
        self._limits = options.limits
        self._opening = asyncio.Lock()

    def method(self, name: str) -> Any:
        """A method that takes and gives bytes as they are."""
        return self.channel.unary_unary(f"/{SERVICE}/{name}")

    async def scorer(self) -> AsyncTritonScorer:
        """Whoever asks for one image, row and all; connected when first asked."""
        async with self._opening:
            if self._scorer is None:
                found = AsyncTritonScorer(
                    self.connection,
                    bundle=self.bundle,
                    in_flight=64,
                    deadline_s=60,
                    limits=self._limits,
                )
                await found.open()
                self._scorer = found
            return self._scorer

    async def close(self) -> None:
        if self._scorer is not None:
            await self._scorer.close()
        await self.channel.close()


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
        self._upstreams = [_Upstream(options.backend, options)]
        self._peers: dict[str, _Upstream] = {}
        self._readers = asyncio.Semaphore(_READERS)
        self._room = Room(options.in_flight_bytes)
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

    async def read(self, requests: Any) -> bytes:
        """Read a call's one message; not too many at the same time, and not for ever.

        Raises:
            OverloadedError: it did not come in time.
        """
        try:
            async with asyncio.timeout(_READ_S), self._readers:
                raw: bytes = await anext(requests)
                return raw
        except TimeoutError:
            raise OverloadedError(f"the request did not come within {_READ_S:.0f} s") from None
        except StopAsyncIteration:
            raise ShapeMismatchError("a call without a message") from None

    # What goes out ---------------------------------------------------------------------------

    def upstream_of(self, peer: str) -> _Upstream:
        """The backend of a connection: all of its answers come from the same bundle."""
        if len(self._upstreams) == 1:
            return self._upstreams[0]
        return self._peers.get(peer, self._upstreams[0])

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
            message = messages().ModelInferRequest()
            try:
                message.ParseFromString(raw)
            except Exception as e:
                raise ShapeMismatchError("not a ModelInferRequest") from e
            request_id, model = message.id, message.model_name
            upstream = self.upstream_of(peer)
            upstream.checks.check(message)
            client.begin()
            try:
                return await self._pass_on(upstream, raw, message, left_s)
            finally:
                client.end()
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

    async def _pass_on(
        self, upstream: _Upstream, raw: bytes, message: Any, left_s: float | None
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

    async def _call(self, method: Any, raw: bytes, upstream: _Upstream) -> bytes:
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
            raise found
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
        """Score one image as a client would; the row."""
        scorer = await self._upstreams[0].scorer()
        await self._room.enter(len(data), self.options.patience_s)
        try:
            async for row in scorer.score([data], profile=profile, quality_map=quality_map):
                return row
        finally:
            self._room.leave(len(data))
