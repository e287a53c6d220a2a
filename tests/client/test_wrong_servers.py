"""Another bundle, other tensors, tokens that are not valid, TLS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from giqa.bundle import Bundle
from giqa.client import TritonScorer
from giqa.contract import GIQA, GIQA_BYTES, GIQA_MAP, GIQA_PRECISE, Profile
from giqa.errors import EngineMismatchError, ServerRefusedError, ServerUnavailableError
from tests.fakes.clients import QUICK, WAYS, assert_right, connect, each_transport, every_way, items
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import TOKEN_HEADER


@pytest.mark.parametrize(
    "said",
    [{"bundle_digest": "0" * 64}, {"bundle_digest": ""}, None],
    ids=["another bundle", "no digest", "not giqa's"],
)
def test_another_bundle_is_refused_before_any_image(
    server: FakeServer, bundle: Bundle, said: dict[str, str] | None
) -> None:
    server.parameters = {} if said is None else {**server.parameters, **said}
    with pytest.raises(EngineMismatchError):
        connect(server, bundle)
    assert server.infers() == []
    assert [seen.rpc for seen in server.seen] == ["ModelConfig"]


METADATA: dict[str, Callable[[Any], None]] = {
    "missing output": lambda m: m.ClearField("outputs"),
    "extra input": lambda m: m.inputs.add(name="MORE", datatype="FP32", shape=(-1, 1)),
    "dtype": lambda m: setattr(m.outputs[0], "datatype", "FP16"),
    "shape": lambda m: m.outputs[0].shape.append(7),
    "name": lambda m: setattr(m.inputs[0], "name", "PICTURE"),
}


@pytest.mark.parametrize("wrong", METADATA)
def test_other_tensors_are_refused_before_any_image(
    server: FakeServer, bundle: Bundle, wrong: str
) -> None:
    server.spoil_metadata[GIQA] = METADATA[wrong]
    with pytest.raises(EngineMismatchError):
        connect(server, bundle)
    assert server.infers() == []


@pytest.mark.parametrize("model", [GIQA_PRECISE, GIQA_MAP, GIQA_BYTES])
def test_other_tensors_of_another_model(
    server: FakeServer, bundle: Bundle, images: list[bytes], model: str
) -> None:
    server.spoil_metadata[model] = METADATA["dtype"]
    profile: Profile = "precise" if model == GIQA_PRECISE else "fast"
    with connect(server, bundle, batch=4) as scorer:
        rows = list(scorer.score(images[:4], profile=profile, quality_map=model == GIQA_MAP))
        assert [row.error.code for row in rows] == ["engine_mismatch"] * 4
    assert server.infers(model) == []


@every_way
def test_the_token_is_sent_with_everything(bundle: Bundle, images: list[bytes], way: str) -> None:
    with FakeServer(bundle=bundle, token="secret") as server:
        with connect(server, bundle, token="secret", **WAYS[way]) as scorer:
            assert_right(list(scorer.score(items(images[:9]))), images[:9])
        assert {seen.metadata.get(TOKEN_HEADER) for seen in server.seen} == {"secret"}
        assert {"ModelConfig", "ModelMetadata", "infer"} <= {seen.rpc for seen in server.seen}


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_wrong_token_is_refused_at_once(bundle: Bundle, token: str | None) -> None:
    with FakeServer(bundle=bundle, token="secret") as server:
        with pytest.raises(ServerRefusedError):
            connect(server, bundle, token=token)
        assert len(server.seen) == 1


@each_transport
def test_a_token_that_was_changed(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    with connect(server, bundle, token="old", transport=transport) as scorer:
        server._token = "new"
        (row,) = scorer.score(images[:1])
    assert row.error.code == "server_refused"
    assert len(server.infers()) <= 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Keys and certificates of two servers at 127.0.0.1, each its own authority."""
    made = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        key, cert = folder / "key.pem", folder / "cert.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
                *("-keyout", str(key), "-out", str(cert)),
            ],
            check=True,
            capture_output=True,
        )
        made.append((key, cert))
    return made


@pytest.fixture
def tls(bundle: Bundle, certificates: list[tuple[Path, Path]]) -> Iterator[FakeServer]:
    key, cert = certificates[0]
    with FakeServer(bundle=bundle, tls=(key.read_bytes(), cert.read_bytes())) as made:
        yield made


@each_transport
def test_tls(
    tls: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    certificates: list[tuple[Path, Path]],
    transport: str,
) -> None:
    with connect(tls, bundle, ca=certificates[0][1], transport=transport) as scorer:
        assert_right(list(scorer.score(items(images[:9]))), images[:9])


def test_a_plain_client_of_a_tls_server(tls: FakeServer, bundle: Bundle) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError):
        TritonScorer(tls.url.replace("grpcs", "grpc"), bundle=bundle, retry=QUICK, deadline_s=3)
    assert time.monotonic() - start < 4


def test_a_tls_client_of_a_plain_server(
    server: FakeServer, bundle: Bundle, certificates: list[tuple[Path, Path]]
) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError) as caught:
        TritonScorer(
            server.url.replace("grpc", "grpcs"),
            bundle=bundle,
            ca=certificates[0][1],
            retry=QUICK,
            deadline_s=3,
        )
    assert time.monotonic() - start < 4
    assert "grpcs://" in caught.value.remedy


def test_a_certificate_of_somebody_else(
    tls: FakeServer, bundle: Bundle, certificates: list[tuple[Path, Path]]
) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError) as caught:
        connect(tls, bundle, ca=certificates[1][1], deadline_s=3)
    assert time.monotonic() - start < 4
    assert "certificates" in caught.value.remedy
    assert tls.seen == []
