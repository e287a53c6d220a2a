"""What is asked of a gateway, and what it says."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

import grpc
import pytest

from giqa.contract import GIQA, IMAGE, SCORE
from giqa.kserve import Connection, Tensor, request, service_stub
from tests.makers import jpeg
from tests.triton.conftest import Served

IMG = jpeg(500, 400)


def ask(connection: Connection, name: str, message: Any, **call: Any) -> Any:
    with connection.channel() as channel:
        method = getattr(service_stub(channel), name)
        return method(message, timeout=60, **{"metadata": connection.metadata, **call})


def image(data: bytes = IMG, shape: tuple[int, ...] | None = None, model: str = GIQA) -> Any:
    tensor = Tensor("UINT8", (1, len(data)) if shape is None else shape, data)
    return request(model, {IMAGE: tensor}, [SCORE])


def refusal(connection: Connection, name: str, message: Any, **call: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as e:
        ask(connection, name, message, **call)
    return e.value.code(), e.value.details()


def get(served: Served, port: str, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", getattr(served, port), timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def post(
    served: Served, data: bytes, query: str = "", token: str | None = Served.TEAM, **headers: str
) -> tuple[int, Any, Any]:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    url = f"http://127.0.0.1:{served.http}/score{query}"
    asked = urllib.request.Request(url, data, headers, method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=60) as response:
            return response.status, json.loads(response.read()), response.headers
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.loads(e.read()), e.headers
