"""Finding tritonserver, and the arguments it is given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from giqa.bundle import Bundle
from giqa.contract import GIQA, GIQA_MAP, GIQA_VIEWS, GRAPHS, PREPROCESS
from giqa.errors import MissingExtraError, UsageError
from giqa.kserve import Connection
from giqa.serving import RepositoryOptions, ServerOptions, find_tritonserver
from giqa.serving import _binary as binary
from giqa.serving._binary import BUNDLED_VERSION
from giqa.serving._repository_options import CPU_RESOURCE, CPU_SLOTS


def installation(folder: Path, version: str | None = None) -> Path:
    """What NVIDIA's container has at /opt/tritonserver."""
    path = folder / "bin" / "tritonserver"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    if version is not None:
        (folder / "TRITON_VERSION").write_text(version + "\n")
    return path


def test_the_extra_brings_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = find_tritonserver()
    assert found.bundled
    assert found.version == BUNDLED_VERSION
    assert found.environment()["PATH"].startswith(str(Path(sys.executable).parent))


def test_one_on_path_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = installation(tmp_path, "2.69.0")
    monkeypatch.setenv("PATH", str(path.parent))
    found = find_tritonserver()
    assert (found.path, found.version, found.bundled) == (path, (2, 69), False)
    assert found.lay_out(tmp_path / "none") == []


def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_SERVER_VERSION", raising=False)
    assert find_tritonserver(installation(tmp_path / "a")).version == BUNDLED_VERSION
    assert find_tritonserver(installation(tmp_path / "b", "3.1.0")).version == (3, 1)
    monkeypatch.setenv("TRITON_SERVER_VERSION", "2.70.0")
    assert find_tritonserver(installation(tmp_path / "c")).version == (2, 70)


def test_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(binary, "_WHEEL", "no-such-distribution")
    with pytest.raises(MissingExtraError, match=r"giqa\[server\]"):
        find_tritonserver()
    with pytest.raises(UsageError):
        find_tritonserver(tmp_path)


def arguments(bundle: Bundle, options: ServerOptions, repository: RepositoryOptions) -> list[str]:
    return options.arguments(Path("/run/giqa-serve-1-x"), repository, bundle.manifest)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_arguments(device: str, bundle: Bundle) -> None:
    plain = arguments(bundle, ServerOptions(admin_key="k"), RepositoryOptions(device=device))
    loaded = [a.split("=")[1] for a in plain if a.startswith("--load-model=")]
    assert loaded == [PREPROCESS, *GRAPHS, GIQA, GIQA_MAP, GIQA_VIEWS]  # the others come later
    assert "--grpc-address=127.0.0.1" in plain
    assert "--allow-http=false" in plain
    patience = "--backend-config=python,stub-timeout-seconds=120"
    assert (patience in plain) == (device == "cpu")
    assert "--grpc-restricted-protocol=model-repository,trace,logging:giqa-admin=k" in plain
    assert (f"--rate-limit-resource={CPU_RESOURCE}:{CPU_SLOTS}" in plain) == (device == "cpu")
    pools = [a.rsplit(":")[-1] for a in plain if a.startswith("--cuda-memory-pool")]
    assert [int(p) > 2**26 for p in pools] == [device == "gpu"]
    everything = arguments(
        bundle,
        ServerOptions(
            http_port=1,
            metrics_port=2,
            tls_cert=Path("c"),
            tls_key=Path("k"),
            tls_client_ca=Path("a"),
            token="t",
            cache_bytes=3,
            trace_url="http://x",
            extra=("--log-verbose=1",),
        ),
        RepositoryOptions(device=device),
    )
    for wanted in (
        "--grpc-use-ssl-mutual=true",
        "--grpc-root-cert=a",
        "--cache-config=local,size=3",
        "--metrics-port=2",
        "--trace-config=opentelemetry,url=http://x",
    ):
        assert wanted in everything
    assert everything[-1] == "--log-verbose=1"
    assert sum("giqa-token=t" in a for a in everything) == 2  # gRPC and HTTP


@pytest.mark.parametrize(
    ("url", "target", "tls"),
    [
        ("grpc://localhost", "localhost:8001", False),
        ("grpcs://[::1]:9", "[::1]:9", True),
        ("grpc://10.0.0.1:80/", "10.0.0.1:80", False),
    ],
)
def test_addresses(url: str, target: str, tls: bool) -> None:
    found = Connection.of(url)
    assert (found.target, found.tls) == (target, tls)


@pytest.mark.parametrize(
    "url", ["localhost:8001", "http://x:1", "grpc://", "grpc://x:y", "grpc://u@x", "grpc://x/path"]
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(UsageError):
        Connection.of(url)


def test_secrets_are_not_shown() -> None:
    assert "sesame" not in repr(ServerOptions(token="sesame", admin_key="sesame"))
    shown = repr(Connection(host="x", token="sesame", admin_key="sesame"))
    assert "sesame" not in shown
