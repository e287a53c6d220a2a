"""How a server listens, and the arguments of tritonserver that say so."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from giqa.bundle import Manifest
from giqa.triton.connection import ADMIN_KEY, TOKEN_KEY
from giqa.triton.repository import CPU_RESOURCE, CPU_SLOTS, Options, memory_of
from giqa.triton.tensors import composing_models, ensembles

EXIT_S = 10
"""Longest wait for models to unload, after all requests were answered."""
_GUARDED = "metadata,inference,shared-memory,model-config,statistics"
_ADMIN = "model-repository,trace,logging"


def new_key() -> str:
    """Draw a key that nobody guesses."""
    return secrets.token_hex(16)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server listens and what it writes down.

    Attributes:
        address: the address to listen on.
        port: gRPC port.
        http_port: HTTP port; None: no HTTP (it has no TLS).
        metrics_port: port of the Prometheus metrics; None: none.
        tls_cert: PEM file of the server's certificate; with `tls_key`: gRPC with TLS.
        tls_key: PEM file of the certificate's key.
        tls_client_ca: PEM file of the authority whose clients alone are let in.
        token: what clients must show; None: nothing.
        admin_key: what loading and unloading models needs; drawn at random unless given.
        cache_bytes: size of the response cache; 0: none.
        drain_s: longest wait for requests under way when it stops, in seconds.
        start_s: longest wait until it is ready, in seconds.
        trace_url: OpenTelemetry collector to send traces to.
        trace_rate: one of so many requests is traced.
        log: file that the server's log is added to.
        extra: further arguments of tritonserver.
    """

    address: str = "127.0.0.1"
    port: int = 8001
    http_port: int | None = None
    metrics_port: int | None = 8002
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token: str | None = field(default=None, repr=False)
    admin_key: str = field(default_factory=new_key, repr=False)
    cache_bytes: int = 0
    drain_s: float = 30.0
    start_s: float = 120.0
    trace_url: str | None = None
    trace_rate: int = 100
    log: Path | None = None
    extra: tuple[str, ...] = ()

    def arguments(self, folder: Path, repository: Options, manifest: Manifest) -> list[str]:
        """Build tritonserver's arguments, but for those that its installation needs.

        Args:
            folder: the server's own folder; the model repository is `models` in it.
            repository: what the models were rendered for.
            manifest: the bundle's manifest.
        """
        names = (*composing_models(repository.device), *ensembles(repository.device))
        return [
            f"--model-repository={folder / 'models'}",
            f"--grpc-address={self.address}",
            f"--grpc-port={self.port}",
            # Clients may ping a quiet connection; by default that closes it.
            "--grpc-http2-min-recv-ping-interval-without-data=5000",
            "--grpc-keepalive-permit-without-calls=1",
            f"--exit-timeout-secs={EXIT_S}",
            # Explicit: a model whose process died can be loaded again, one by one.
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in names),
            *self._guards("--grpc-restricted-protocol"),
            *self._http(),
            *self._tls(),
            *self._tracing(),
            *([f"--cache-config=local,size={self.cache_bytes}"] if self.cache_bytes else ()),
            *_device(folder, repository, manifest),
            *self.extra,
        ]

    def _guards(self, option: str) -> list[str]:
        found = [f"{option}={_ADMIN}:{ADMIN_KEY}={self.admin_key}"]
        if self.token is not None:
            found.append(f"{option}={_GUARDED}:{TOKEN_KEY}={self.token}")
        return found

    def _http(self) -> list[str]:
        found = [f"--allow-http={'false' if self.http_port is None else 'true'}"]
        if self.http_port is not None:
            found += [f"--http-address={self.address}", f"--http-port={self.http_port}"]
            found += self._guards("--http-restricted-api")
        found.append(f"--allow-metrics={'false' if self.metrics_port is None else 'true'}")
        if self.metrics_port is not None:
            found += [
                f"--metrics-address={self.address}",
                f"--metrics-port={self.metrics_port}",
            ]
        return found

    def _tls(self) -> list[str]:
        if self.tls_cert is None:
            return []
        found = [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.tls_cert}",
            f"--grpc-server-key={self.tls_key}",
        ]
        if self.tls_client_ca is not None:
            found += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.tls_client_ca}"]
        return found

    def _tracing(self) -> list[str]:
        if self.trace_url is None:
            return []
        return [
            "--trace-config=mode=opentelemetry",
            f"--trace-config=opentelemetry,url={self.trace_url}",
            f"--trace-config=rate={self.trace_rate}",
            "--trace-config=level=TIMESTAMPS",
        ]


def shm_prefix(folder: Path) -> str:
    """How the names of the Python models' shared memory begin."""
    return f"{folder.name}-"


def _device(folder: Path, repository: Options, manifest: Manifest) -> list[str]:
    if repository.device == "gpu":
        return [f"--cuda-memory-pool-byte-size=0:{memory_of(manifest, repository).pool}"]
    return [
        "--rate-limit=execution_count",
        f"--rate-limit-resource={CPU_RESOURCE}:{CPU_SLOTS * repository.instances}",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        "--cuda-memory-pool-byte-size=0:0",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix(folder)}",
    ]
