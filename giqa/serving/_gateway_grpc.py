"""The gateway's gRPC: KServe's methods, health, reflection."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from giqa.errors import (
    DeadlineExceededError,
    EngineMismatchError,
    GiqaError,
    InputError,
    OverloadedError,
    ServerRefusedError,
    ServerUnavailableError,
    ShapeMismatchError,
    UsageError,
)
from giqa.kserve import SERVICE, import_grpc, messages
from giqa.serving._gateway import Gateway
from giqa.serving._gateway_checks import read_message

TELL = "/giqa.Gateway/Tell"
"""A method for the supervisor, on the gateway's own socket."""

_CLIENTS = ("ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics")
_ADMINS = ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
_REGIONS = tuple(
    f"{kind}SharedMemory{what}"
    for kind in ("System", "Cuda")
    for what in ("Status", "Register", "Unregister")
)
_EMPTY = ("ServerLive", "ServerReady")
_OPEN = (*_EMPTY, "ModelReady")
_MOST_PLAIN = 64 * 1024
_MOST_CALLS = 1024
_MOST_STREAMS = 512
_IDLE_STREAM_S = 600.0
_STREAM_CALLS = 64
_UNLIMITED = 2**31 - 1


async def listen(gateway: Gateway) -> Any:
    """Listen for a gateway.

    Returns:
        The gRPC server, started.

    Raises:
        UsageError: the port is taken, or a PEM file is none.
    """
    grpc, o = import_grpc(), gateway.options
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", gateway.max_message),
            ("grpc.max_send_message_length", _UNLIMITED),
            # A compressed message would be unpacked before it is counted.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 60_000),  # who is gone is found out
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.server_handshake_timeout_ms", 20_000),
            ("grpc.max_connection_idle_ms", 600_000),
            ("grpc.max_concurrent_streams", 256),
            ("grpc.max_metadata_size", 16 * 1024),
        ],
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    server.add_generic_rpc_handlers((_handlers(gateway),))
    if o.reflection:
        from grpc_reflection.v1alpha import reflection

        messages()  # registers what is told
        names = (SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    host = f"[{o.address}]" if ":" in o.address else o.address
    try:
        server.add_insecure_port(f"unix:{o.socket}")
        if o.tls_cert is None or o.tls_key is None:
            port = server.add_insecure_port(f"{host}:{o.port}")
        else:
            ca = None if o.tls_client_ca is None else Path(o.tls_client_ca).read_bytes()
            pair = (Path(o.tls_key).read_bytes(), Path(o.tls_cert).read_bytes())
            credentials = grpc.ssl_server_credentials([pair], ca, ca is not None)
            port = server.add_secure_port(f"{host}:{o.port}", credentials)
    except (RuntimeError, OSError) as e:
        raise UsageError(f"cannot listen on {host}:{o.port}: {e}", item="--port") from e
    if port != o.port:
        raise UsageError(f"cannot listen on {host}:{o.port}", item="--port")
    await server.start()
    return server


def _handlers(gateway: Gateway) -> Any:
    """The gRPC methods, as a generic handler."""
    grpc = import_grpc()
    statuses = _statuses()

    async def refuse(context: Any, error: GiqaError) -> None:
        kind = next((s for k, s in statuses if isinstance(error, k)), grpc.StatusCode.INTERNAL)
        await context.abort(kind, told(error))

    async def infer(requests: Any, context: Any) -> bytes:
        try:
            client = gateway.client_of(context.invocation_metadata())
            raw = await gateway.read(requests)
            left = context.time_remaining()
            return await gateway.infer(raw, client, context.peer(), left)
        except GiqaError as e:
            await refuse(context, e)
            raise AssertionError from e

    async def plain(name: str, requests: Any, context: Any) -> bytes:
        try:
            metadata = context.invocation_metadata()
            if name not in _OPEN:
                gateway.client_of(metadata)
            if name in _ADMINS or name in _REGIONS:
                gateway.check_admin(metadata)
            if name in _REGIONS and not gateway.options.client_shared_memory:
                raise ServerRefusedError("shared memory is off: this protocol is restricted")
            # Messages without fields are not read: strangers may ask these, too.
            raw = b""
            if name not in _EMPTY:
                raw = await gateway.read(requests, stranger=name in _OPEN)
            if len(raw) > _MOST_PLAIN and name not in _ADMINS:
                raise ShapeMismatchError(f"{len(raw)} bytes of {name}")
            return await gateway.plain(name, raw, context.peer())
        except GiqaError as e:
            await refuse(context, e)
            raise AssertionError from e

    async def health(requests: Any, context: Any) -> bytes:
        return b"\x08\x01" if gateway.ready else b"\x08\x02"  # SERVING, NOT_SERVING

    streams: set[_Stream] = set()

    async def stream(requests: Any, context: Any) -> None:
        try:
            gateway.client_of(context.invocation_metadata())
            if len(streams) >= _MOST_STREAMS:  # other calls find a place
                raise OverloadedError(f"{len(streams)} streams are open")
        except GiqaError as e:
            await refuse(context, e)
        found = _Stream(gateway, context)
        streams.add(found)
        try:
            await found.run(requests)
        finally:
            streams.discard(found)

    async def tell(requests: Any, context: Any) -> bytes:
        if not context.peer().startswith("unix:"):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        return b""

    once = grpc.stream_unary_rpc_method_handler
    methods: dict[str, Any] = {
        f"/{SERVICE}/{name}": once(partial(plain, name))
        for name in (*_CLIENTS, *_ADMINS, *_REGIONS, *_OPEN)
    }
    methods[f"/{SERVICE}/ModelInfer"] = once(infer)
    methods[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(stream)
    methods["/grpc.health.v1.Health/Check"] = once(health)
    methods[TELL] = once(tell)

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
        def service(self, details: Any) -> Any:
            return methods.get(details.method)

    return Handlers()


class _Stream:
    """One call for many requests: each is answered by itself, as it is ready."""

    def __init__(self, gateway: Gateway, context: Any) -> None:
        self._gateway, self._context = gateway, context
        self._writing = asyncio.Lock()
        self._room = asyncio.Semaphore(_STREAM_CALLS)

    async def run(self, requests: Any) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._room.acquire()
                try:
                    async with asyncio.timeout(_IDLE_STREAM_S):
                        raw = await anext(requests)
                except (StopAsyncIteration, TimeoutError):
                    break
                task = asyncio.create_task(self._one(raw))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, raw: bytes) -> None:
        response = messages().ModelStreamInferResponse()
        try:
            # Each time: a token may be taken away while the stream is open.
            client = self._gateway.client_of(self._context.invocation_metadata())
            found = await self._gateway.infer(raw, client, self._context.peer(), None)
            response.infer_response.MergeFromString(found)
        except GiqaError as e:
            response.error_message = told(e)
            with contextlib.suppress(Exception):  # whose it is cannot be told
                response.infer_response.id = read_message(raw).id
        finally:
            self._room.release()
        async with self._writing:
            await self._context.write(response.SerializeToString())


def told(error: GiqaError) -> str:
    """An error as clients of any language read it: `[code] message`."""
    item = f"{error.item}: " if error.item and isinstance(error, InputError) else ""
    return f"[{error.code}] {item}{error.message}"


def _statuses() -> list[tuple[type[GiqaError], Any]]:
    code = import_grpc().StatusCode
    return [
        (InputError, code.INVALID_ARGUMENT),
        (ServerRefusedError, code.UNAUTHENTICATED),
        (OverloadedError, code.RESOURCE_EXHAUSTED),
        (DeadlineExceededError, code.DEADLINE_EXCEEDED),
        (ServerUnavailableError, code.UNAVAILABLE),
        (EngineMismatchError, code.NOT_FOUND),
    ]
