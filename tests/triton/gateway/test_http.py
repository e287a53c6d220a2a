"""Images and KServe v2 over HTTP."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any

import pytest

from giqa import LocalScorer
from giqa.contract import GIQA, IMAGE, SCORE
from tests.triton.conftest import Served
from tests.triton.gateway.asking import IMG, get, post


def test_post_an_image_get_its_row(served: Served, local: LocalScorer) -> None:
    (wanted,) = local.score([IMG], quality_map=True)
    status, row, headers = post(served, IMG, "?map=true", **{"X-Request-Id": "mine-1"})
    assert status == 200
    assert (row["score"], row["bundle"], row["status"]) == (wanted.score, wanted.bundle, "ok")
    assert (row["width"], row["height"]) == (500, 400)
    assert len(row["quality_map"][0]) == 14
    assert headers["X-Request-Id"] == row["path"] == "mine-1"
    (precise,) = local.score([IMG], profile="precise")
    assert post(served, IMG, "?profile=precise")[1]["score"] == precise.score


@pytest.mark.parametrize(
    ("data", "query", "headers", "status", "code"),
    [
        (b"", "", {}, 422, "empty"),
        (b"no picture", "", {}, 415, "unsupported_format"),
        (IMG[:2000], "", {}, 422, "truncated"),
        (IMG, "?profile=best", {}, 400, "usage"),
        (IMG, "?shape=18446744073709551615", {}, 400, "usage"),
        (b"[" * 100_000, "", {}, 415, "unsupported_format"),
        (gzip.compress(bytes(10**7)), "", {"Content-Encoding": "gzip"}, 400, "usage"),
        (bytes(101 * 2**20), "", {}, 413, "too_many_bytes"),
    ],
)
def test_what_http_refuses(
    data: bytes, query: str, headers: dict, status: int, code: str, served: Served, fine: None
) -> None:
    found, row, _ = post(served, data, query, **headers)
    assert (found, row["error"]["code"]) == (status, code)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_http_wants_a_token(token: str | None, served: Served) -> None:
    status, row, headers = post(served, IMG, token=token)
    assert (status, row["error"]["code"]) == (401, "server_refused")
    assert headers["WWW-Authenticate"] == "Bearer"


def test_one_byte_chunks(served: Served, fine: None) -> None:
    """The body that crashes Triton's own HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", served.http, timeout=60)
    headers = {"Authorization": f"Bearer {served.TEAM}"}
    body = (IMG[i : i + 1] for i in range(3000))
    connection.request("POST", "/score", body, headers, encode_chunked=True)
    assert connection.getresponse().status == 422  # truncated, and no more than that
    connection.close()


def test_tritons_own_paths_are_not_there(served: Served) -> None:
    for path in ("/v2/repository/index", "/v2/systemsharedmemory/status", "/v2/trace/setting"):
        assert get(served, "http", path, "POST")[0] in (404, 405)
    assert get(served, "http", "/v2/health/ready")[0] == 200


def infer(served: Served, body: bytes, model: str = GIQA, **headers: str) -> tuple[int, bytes]:
    headers["Authorization"] = f"Bearer {served.TEAM}"
    connection = http.client.HTTPConnection("127.0.0.1", served.http, timeout=60)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("binary", [False, True])
def test_clients_that_speak_v2(binary: bool, served: Served, local: LocalScorer) -> None:
    (wanted,) = local.score([IMG])
    tensor: dict[str, Any] = {"name": IMAGE, "datatype": "UINT8", "shape": [1, len(IMG)]}
    if binary:
        tensor["parameters"] = {"binary_data_size": len(IMG)}
        header = json.dumps({"inputs": [tensor]}).encode()
        length = {"Inference-Header-Content-Length": str(len(header))}
        status, body = infer(served, header + IMG, **length)
    else:
        status, body = infer(served, json.dumps({"inputs": [tensor | {"data": [*IMG]}]}).encode())
    assert status == 200
    (output,) = json.loads(body)["outputs"]
    assert (output["name"], output["shape"]) == (SCORE, [1, 1])
    assert output["data"] == [pytest.approx(wanted.score)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"inputs":' * 50_000,
        b'{"inputs": 5}',
        b'{"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [1, 18446744073709551615]}]}',
        b'{"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [1, -1], "data": [1]}]}',
        b'{"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [1, 1], "data": [1e400]}]}',
        b'{"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [1, 4], "data": 4000000}]}',
        b'{"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [1, 9], '
        b'"parameters": {"binary_data_size": 18446744073709551615}}]}',
        b'{"inputs": [{"name": "IMAGE", "datatype": "UINT8", "shape": [1, 9], '
        b'"parameters": {"shared_memory_region": "a"}}]}',
        b" " * (5 * 2**20),
    ],
    ids=range(12),
)
def test_what_v2_refuses(body: bytes, served: Served, fine: None) -> None:
    status, answer = infer(served, body)
    assert status == 422
    assert json.loads(answer)["error"]["code"] == "shape_mismatch"
    for length in ("-1", "99999999999999999999", "x", "5"):
        assert infer(served, body, **{"Inference-Header-Content-Length": length})[0] == 422
    assert infer(served, body, "fusion")[0] in (404, 422)
