"""The gateway's HTTP: POST an image, get its row as JSON."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from giqa.contract import GIQA, GIQA_MAP, GIQA_PRECISE
from giqa.errors import (
    DeadlineExceededError,
    EngineMismatchError,
    GiqaError,
    InputError,
    OverloadedError,
    ServerRefusedError,
    ServerUnavailableError,
    TooManyBytesError,
    UnsupportedFormatError,
    UsageError,
)
from giqa.results import IMAGE_SCHEMA
from giqa.serving._gateway import Gateway
from giqa.serving._gateway_v2 import LENGTH_HEADER, to_body, to_message
from giqa.serving._http import Listener
from giqa.serving._requests import request_id_of

_BODY_S = 30.0
_ANSWER_S = 70.0
_READERS = 32
_LISTEN = 4
"""How many times the limit is read, and forgotten, before the connection is cut."""
_WAITING = 128
_STATUSES: tuple[tuple[type[GiqaError], HTTPStatus], ...] = (
    (TooManyBytesError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedFormatError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (ServerRefusedError, HTTPStatus.UNAUTHORIZED),
    (OverloadedError, HTTPStatus.TOO_MANY_REQUESTS),
    (ServerUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (DeadlineExceededError, HTTPStatus.GATEWAY_TIMEOUT),
    (EngineMismatchError, HTTPStatus.NOT_FOUND),
)


class _Http:
    """The routes of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._readers = asyncio.Semaphore(_READERS)
        self._waiting = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/score", self.score, methods=["POST"]),
                Route("/v2/models/{model}/infer", self.infer, methods=["POST"]),
                Route("/v2/models/{model}/ready", self.ready),
                *(Route(path, self.live) for path in ("/live", "/v2/health/live")),
                *(Route(path, self.ready) for path in ("/ready", "/v2/health/ready")),
            ]
        )

    async def live(self, request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(self, request: Request) -> Response:
        if self._gateway.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", status_code=HTTPStatus.SERVICE_UNAVAILABLE)

    async def score(self, request: Request) -> Response:
        """`POST /score?profile=fast|precise&map=true`: the body is the file."""
        started = time.monotonic()
        name = request_id_of(request.headers.get("x-request-id", ""))
        who, model, code, size = "", "", "ok", 0
        try:
            client = self._gateway.client_of(request.headers.items())
            who = client.name
            profile, quality_map = _options(request)
            model = GIQA_PRECISE if profile == "precise" else GIQA_MAP if quality_map else GIQA
            client.begin()
            try:
                data = await self._body(request, self._gateway.options.limits.max_bytes)
                size = len(data)
                row = await asyncio.wait_for(
                    self._gateway.score(data, profile=profile, quality_map=quality_map), _ANSWER_S
                )
            finally:
                client.end()
            found = row.to_json() | {"path": name}
            if row.quality_map is not None:
                found["boxes"] = row.boxes.tolist()
                found["quality_map"] = row.quality_map.round(2).tolist()
            return _json(found, name)
        except TimeoutError:
            code = DeadlineExceededError.code
            return _failed(DeadlineExceededError("no answer in time"), name)
        except ClientDisconnect:
            code = "cancelled"
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except GiqaError as e:
            code = e.code
            return _failed(e, name)
        finally:
            self._gateway.log.write(
                request_id=name,
                client=who,
                way="http",
                model=model,
                code=code,
                started=started,
                size=size,
            )

    async def infer(self, request: Request) -> Response:
        """`POST /v2/models/ENSEMBLE/infer`, for clients that speak KServe's v2."""
        name = request_id_of(request.headers.get("x-request-id", ""))
        try:
            client = self._gateway.client_of(request.headers.items())
            body = await self._body(request, self._gateway.max_message)
            length = request.headers.get(LENGTH_HEADER)
            message, binary = to_message(request.path_params["model"], body, length)
            message.id = message.id or name
            peer = f"http:{request.client}"
            answer = self._gateway.infer(message.SerializeToString(), client, peer, None, "http")
            content, headers = to_body(await asyncio.wait_for(answer, _ANSWER_S), binary=binary)
            return Response(content, headers=headers | {"X-Request-Id": name})
        except TimeoutError:
            return _failed(DeadlineExceededError("no answer in time"), name)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except GiqaError as e:
            return _failed(e, name)

    async def _body(self, request: Request, most: int) -> bytes:
        """Read a body, not beyond the limit, and not for ever."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise UsageError(
                "compressed bodies are not taken", item="Content-Encoding", remedy="send the file"
            )
        if self._waiting >= _WAITING:
            raise OverloadedError("too many requests are being read")
        self._waiting += 1
        try:
            async with asyncio.timeout(_BODY_S), self._readers:
                body, size = bytearray(), 0
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        body += chunk
                    elif size > _LISTEN * most:
                        break
                    else:  # who is still sending does not see an answer
                        body.clear()
                if size > most:
                    raise TooManyBytesError(f"more than {most} bytes")
                return bytes(body)
        except TimeoutError:
            raise OverloadedError(f"the body did not come within {_BODY_S:.0f} s") from None
        finally:
            self._waiting -= 1


def listener(gateway: Gateway) -> Listener:
    """HTTP of a gateway.

    Raises:
        UsageError: the port is taken or may not be used.
    """
    o = gateway.options
    assert o.http_port is not None
    pair = None
    if o.tls_cert is not None and o.tls_key is not None:
        pair = Path(o.tls_cert), Path(o.tls_key)
    ca = None if o.tls_client_ca is None else Path(o.tls_client_ca)
    app = _Http(gateway).app()
    return Listener(app, o.address, o.http_port, option="--http-port", tls=pair, client_ca=ca)


def _options(request: Request) -> tuple[str, bool]:
    query = request.query_params
    profile, quality_map = query.get("profile", "fast"), query.get("map", "false").lower()
    if set(query) - {"profile", "map"} or profile not in ("fast", "precise"):
        raise UsageError("is not profile=fast|precise, map=true|false", item="the query", remedy="")
    if quality_map not in ("true", "false", "1", "0"):
        raise UsageError("is neither true nor false", item="map", remedy="")
    return profile, quality_map in ("true", "1")


def _json(content: Any, name: str, status: int = HTTPStatus.OK) -> Response:
    return JSONResponse(content, status_code=status, headers={"X-Request-Id": name})


def _failed(error: GiqaError, name: str) -> Response:
    status = next(
        (s for kind, s in _STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR
    )
    told = {"code": error.code, "message": error.message, "remedy": error.remedy}
    found = {"schema": IMAGE_SCHEMA, "path": name, "status": "error", "score": None, "error": told}
    response = _json(found, name, status)
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        response.headers["Retry-After"] = "1"
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
