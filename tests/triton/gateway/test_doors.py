"""Who gets in, and what is refused."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest

from giqa.contract import GIQA, GIQA_BYTES, GIQA_VIEWS, IMAGE, SCORE
from giqa.errors import OverloadedError
from giqa.kserve import KEY_PREFIX, TOKEN_KEY, Tensor, messages, request, service_stub, to_error
from giqa.tensors import composing_models
from tests.makers import BAD
from tests.triton.conftest import Served
from tests.triton.gateway.asking import IMG, ask, image, refusal


@pytest.mark.parametrize("token", [None, "", "wrong", "token-of-the-team "])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelConfig", "ModelStatistics"])
def test_nobody_without_a_token(token: str | None, method: str, served: Served) -> None:
    kind = "ModelInferRequest" if method == "ModelInfer" else f"{method}Request"
    stranger = replace(served.connection, token=None)
    shown = () if token is None else ((KEY_PREFIX + TOKEN_KEY, token),)
    code, told = refusal(stranger, method, getattr(messages(), kind)(), metadata=shown)
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
