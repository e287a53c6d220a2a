"""`giqa serve` seen from a network: who gets in, what is refused, and that it goes on."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from giqa import LocalScorer, TritonScorer
from giqa.client import Retry
from giqa.contract import FUSION, GIQA, GIQA_BYTES, GIQA_VIEWS, GLOBAL_BRANCH, IMAGE, SCORE
from giqa.errors import OverloadedError, ServerRefusedError
from giqa.kserve import Connection, Tensor, messages, request, service_stub, to_error
from giqa.tensors import composing_models
from tests.makers import BAD, jpeg
from tests.triton.conftest import Served

IMG = jpeg(500, 400)


def ask(connection: Connection, name: str, message: Any, **call: Any) -> Any:
    with connection.channel() as channel:
        method = getattr(service_stub(channel), name)
        return method(message, timeout=60, metadata=connection.metadata, **call)


def image(data: bytes = IMG, shape: tuple[int, ...] | None = None, model: str = GIQA) -> Any:
    tensor = Tensor("UINT8", (1, len(data)) if shape is None else shape, data)
    return request(model, {IMAGE: tensor}, [SCORE])


def refusal(connection: Connection, name: str, message: Any, **call: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as e:
        ask(connection, name, message, **call)
    return e.value.code(), e.value.details()


@pytest.fixture
def fine(served: Served) -> Any:
    """After whatever a test did, the same processes answer rightly."""
    before = served.process.pid, stub_count(served)
    yield
    reply = ask(served.connection, "ModelInfer", image())
    assert len(reply.raw_output_contents[0]) == 4
    assert (served.process.pid, stub_count(served)) == before
    assert "anew" not in (served.folder / "log").read_text()


def stub_count(served: Served) -> int:
    found = subprocess.run(
        ["pgrep", "-fc", f"giqa-serve-{served.process.pid}-"], capture_output=True, text=True
    )
    return int(found.stdout)


# Who gets in -------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong", "token-of-the-team "])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelConfig", "ModelStatistics"])
def test_nobody_without_a_token(token: str | None, method: str, served: Served) -> None:
    kind = "ModelInferRequest" if method == "ModelInfer" else f"{method}Request"
    connection = replace(served.connection, token=token)
    code, told = refusal(connection, method, getattr(messages(), kind)())
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert told.startswith("[server_refused]")


def test_a_bearer_is_let_in(served: Served) -> None:
    with served.connection.channel() as channel:
        metadata = (("authorization", f"Bearer {served.TEAM}"),)
        assert service_stub(channel).ModelInfer(image(), timeout=60, metadata=metadata).outputs


ADMIN = ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"]
REGIONS = [
    f"{kind}SharedMemory{what}"
    for kind in ("System", "Cuda")
    for what in ("Status", "Register", "Unregister")
]


@pytest.mark.parametrize("method", [*ADMIN, *REGIONS])
def test_a_token_opens_no_other_door(method: str, served: Served, fine: None) -> None:
    for admin in (None, "wrong", served.TEAM):
        connection = replace(served.connection, admin_key=admin)
        code, _ = refusal(connection, method, getattr(messages(), f"{method}Request")())
        assert code == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", REGIONS)
def test_shared_memory_is_off_for_all(method: str, served: Served, fine: None) -> None:
    connection = replace(served.connection, admin_key=served.ADMIN)
    _, told = refusal(connection, method, getattr(messages(), f"{method}Request")())
    assert "shared memory is off" in told


def test_an_administrator_is_let_in(served: Served) -> None:
    connection = replace(served.connection, admin_key=served.ADMIN)
    assert ask(connection, "RepositoryIndex", messages().RepositoryIndexRequest()).models


def test_a_small_client_has_limits(served: Served) -> None:
    connection = replace(served.connection, token=served.SMALL)
    codes = []
    for _ in range(9):
        try:
            ask(connection, "ModelInfer", image())
            codes.append("ok")
        except grpc.RpcError as e:
            codes.append(to_error(e.code().name, e.details()).code)
    assert codes[0] == "ok"
    assert codes[-1] == OverloadedError.code
    ask(served.connection, "ModelInfer", image())  # others do not feel it


def test_tokens_are_read_again(served: Served) -> None:
    new = replace(served.connection, token="brand-new")
    before = served.tokens.read_text()
    served.tokens.write_text(before + '\n[tokens.new]\ntoken = "brand-new"\n')
    try:
        time.sleep(1.5)
        assert ask(new, "ModelInfer", image()).outputs
        served.tokens.write_text("not = [TOML")  # what cannot be used changes nothing
        time.sleep(1.5)
        assert ask(new, "ModelInfer", image()).outputs
    finally:
        served.tokens.write_text(before)
    time.sleep(1.5)
    code, _ = refusal(new, "ModelInfer", image())
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "brand-new" not in (served.folder / "log").read_text()


def test_secrets_are_in_no_list_of_processes(served: Served) -> None:
    whole = psutil.Process(served.process.pid)
    own = [str(process.pid) for process in (whole, *whole.children(recursive=True))]
    ps = ["ps", "ww", "-o", "args", "-p", ",".join(own)]
    listed = subprocess.run(ps, capture_output=True, text=True).stdout
    assert "tritonserver" in listed
    for secret in (served.TEAM, served.SMALL, served.ADMIN):
        assert secret not in listed
    assert "restricted" not in listed  # nothing that Triton would be told


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(0, 10), (1, 0), (1, -10), (-1, 10), (2, 5), (1, 2**63 - 1), (10,), (1, 1, 10), ()]
)
def test_no_shape_but_one_image(shape: tuple[int, ...], served: Served, fine: None) -> None:
    code, told = refusal(served.connection, "ModelInfer", image(b"0123456789", shape))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert told.startswith("[shape_mismatch]")


@pytest.mark.parametrize("model", [*composing_models("cpu"), "", "no-such", "../giqa", "giqa\0"])
def test_models_inside_ensembles_are_closed(model: str, served: Served, fine: None) -> None:
    code, told = refusal(served.connection, "ModelInfer", image(model=model))
    assert code == grpc.StatusCode.NOT_FOUND
    assert told.startswith("[engine_mismatch]")


def test_no_views_beyond_the_most(served: Served, fine: None) -> None:
    for count in (0, 10, 14, 100_000):
        small = {
            "GLOBAL_VIEW": Tensor("UINT8", (1, count, 224, 224, 3), b""),
            "LOCAL_VIEW": Tensor("UINT8", (1, count, 448, 448, 3), b""),
        }
        code, _ = refusal(served.connection, "ModelInfer", request(GIQA_VIEWS, small, [SCORE]))
        assert code == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("what", ["input", "output"])
@pytest.mark.parametrize(
    "key", ["shared_memory_region", "shared_memory_offset", "cuda_shared_memory_region"]
)
def test_no_tensor_in_shared_memory(what: str, key: str, served: Served, fine: None) -> None:
    message = image()
    tensor = message.inputs[0] if what == "input" else message.outputs[0]
    tensor.parameters[key].string_param = "triton_python_backend_shm_region_1"
    code, told = refusal(served.connection, "ModelInfer", message)
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "off" in told


def test_outputs_are_few_and_known(served: Served, fine: None) -> None:
    for names in ([SCORE] * 2, [f"O{i}" for i in range(20_000)], ["QUALITY_MAP"]):
        message = request(GIQA, {IMAGE: Tensor("UINT8", (1, len(IMG)), IMG)}, names)
        code, _ = refusal(served.connection, "ModelInfer", message)
        assert code == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("count", [0, 2, 1000])
def test_as_many_contents_as_inputs(count: int, served: Served, fine: None) -> None:
    message = image()
    del message.raw_input_contents[:]
    message.raw_input_contents.extend([IMG] * count)
    with pytest.raises(grpc.RpcError) as e:
        ask(served.connection, "ModelInfer", message)
    assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_large_message_is_refused_before_it_is_copied(served: Served, fine: None) -> None:
    def shared() -> int:
        names = Path("/dev/shm").glob(f"*giqa-serve-{served.process.pid}-*")
        return sum(path.stat().st_size for path in names)

    before = shared()
    for size in (101, 300):
        code, _ = refusal(served.connection, "ModelInfer", image(bytes(size * 2**20)))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert shared() == before


def test_a_compressed_message_is_refused_before_it_is_unpacked(served: Served, fine: None) -> None:
    code, _ = refusal(
        served.connection,
        "ModelInfer",
        image(bytes(90 * 2**20)),
        compression=grpc.Compression.Gzip,
    )
    assert code == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", list(BAD)[::4])
def test_messages_begin_with_a_code(name: str, served: Served) -> None:
    """For clients in any language."""
    make, _ = BAD[name]
    code, told = refusal(served.connection, "ModelInfer", image(make() or b"x"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert re.match(r"\[[a-z_]+\] ", told)


def test_which_of_a_batch_is_bad_is_told(served: Served) -> None:
    tensor = Tensor.of_texts([IMG, IMG, b"no picture"])
    code, told = refusal(
        served.connection, "ModelInfer", request(GIQA_BYTES, {IMAGE: tensor}, [SCORE])
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert told.startswith("[unsupported_format] image 3 of 3: ")


# That it goes on ---------------------------------------------------------------------------------


def test_cancels_and_short_deadlines_end_nothing(served: Served, fine: None) -> None:
    def hostile(n: int) -> None:
        with served.connection.channel() as channel:
            stub = service_stub(channel)
            for i in range(12):
                message = image()
                if n % 3 == 0:
                    message.parameters["timeout"].int64_param = 1 + 300 * i
                metadata = served.connection.metadata
                call = stub.ModelInfer.future(message, timeout=0.002 * (i + 1), metadata=metadata)
                if n % 2:
                    time.sleep(0.002 * i)
                    call.cancel()
                else:
                    call.exception()

    threads = [threading.Thread(target=hostile, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


@pytest.mark.parametrize("port", ["grpc", "http", "metrics", "watch"])
def test_garbage_and_idle_connections(port: str, served: Served, fine: None) -> None:
    address = ("127.0.0.1", getattr(served, port))
    for junk in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(1000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
    ):
        with socket.create_connection(address) as connection:
            connection.sendall(junk[:1000])
            with suppress(OSError):
                connection.sendall(junk[1000:])
    idle = [socket.create_connection(address) for _ in range(300)]
    try:
        if port in ("http", "watch"):
            for _ in range(3):
                assert get(served, port, "/live") == (200, "live\n")
        elif port == "metrics":
            assert get(served, port, "/metrics")[0] == 200
        else:
            assert ask(served.connection, "ModelInfer", image()).outputs
    finally:
        for connection in idle:
            connection.close()


def get(served: Served, port: str, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", getattr(served, port), timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_probes(served: Served) -> None:
    for port in ("http", "watch"):
        for path, text in (("/live", "live\n"), ("/ready", "ready\n")):
            assert get(served, port, path) == (200, text)
            assert get(served, port, path, "HEAD") == (200, "")
    with served.connection.channel() as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"  # SERVING


def test_reflection_tells_the_service(served: Served) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    with served.connection.channel() as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in found.get_services()


def test_metrics_of_triton_and_the_watch(served: Served) -> None:
    assert "nv_inference_count" in get(served, "metrics", "/metrics")[1]
    assert "giqa_canaries_total" in get(served, "watch", "/metrics")[1]


# HTTP --------------------------------------------------------------------------------------------


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


# Records -----------------------------------------------------------------------------------------


def test_each_request_is_a_line(served: Served) -> None:
    message = image()
    message.id = "of-this-test"
    ask(served.connection, "ModelInfer", message)
    post(served, b"no picture", **{"X-Request-Id": 'evil"\n{}'.replace("\n", " ")})
    rows = [json.loads(line) for line in served.requests.read_text().splitlines()]
    (mine,) = [row for row in rows if row["id"] == "of-this-test"]
    assert set(mine) == {"time", "id", "client", "way", "model", "code", "ms", "bytes"}
    assert (mine["client"], mine["way"], mine["model"], mine["code"]) == (
        "team",
        "grpc",
        GIQA,
        "ok",
    )
    assert mine["bytes"] > len(IMG)
    assert mine["ms"] > 0
    assert (rows[-1]["way"], rows[-1]["code"]) == ("http", "unsupported_format")
    assert "evil" not in rows[-1]["id"]


def test_clients_of_ours_get_their_rows(served: Served, local: LocalScorer) -> None:
    images = [jpeg(300 + i, 200, seed=i) for i in range(6)] + [b"no picture"]
    wanted = [r.error.code if r.error else r.score for r in local.score(images)]
    for way in ({}, {"transport": "stream"}, {"batch": 4}):
        with TritonScorer(served.url, token=served.TEAM, **way) as scorer:
            found = [r.error.code if r.error else r.score for r in scorer.score(images)]
        assert found == wanted
    with pytest.raises(ServerRefusedError):
        TritonScorer(served.url, token="wrong", retry=Retry(attempts=1))
    key = {"token": served.TEAM, "admin_key": served.ADMIN}
    with TritonScorer(served.url, shared_memory=True, **key) as scorer:
        (row,) = scorer.score([IMG])
    assert row.error is not None
    assert row.error.code == "server_refused"


def test_the_graphs_are_not_asked(served: Served) -> None:
    """What NaN tokens would give, nobody outside can ask."""
    for model in (FUSION, GLOBAL_BRANCH):
        code, _ = refusal(served.connection, "ModelInfer", image(model=model))
        assert code == grpc.StatusCode.NOT_FOUND
