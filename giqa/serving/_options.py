"""What can be chosen of a server: how it listens, who may do what."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from giqa.contract import GRAPHS, PREPROCESS
from giqa.errors import UsageError
from giqa.kserve import ADMIN_KEY, TOKEN_KEY
from giqa.manifest import Manifest
from giqa.serving._folder import shm_prefix
from giqa.serving._repository_options import (
    CPU_RESOURCE,
    CPU_SLOTS,
    MAIN_ROAD,
    RepositoryOptions,
    memory_of,
)

EXIT_S = 10
"""Longest wait for models to unload, after all requests were answered."""
_GUARDED = "metadata,inference,model-config,statistics"
_ADMIN = "model-repository,trace,logging"
_SHARED_MEMORY = "shared-memory"
_NOBODY = "giqa-nobody"
"""Key of what nobody may use: its value is drawn at random and told to no one."""
_DECIDED = (
    *("--model-repository", "--model-store", "--model-control-mode", "--load-model"),
    *("--allow-grpc", "--grpc-address", "--grpc-port", "--grpc-restricted-protocol"),
    *("--grpc-use-ssl", "--grpc-server-cert", "--grpc-server-key", "--grpc-root-cert"),
    *("--allow-http", "--http-address", "--http-port", "--http-restricted-api"),
    *("--allow-metrics", "--metrics-address", "--metrics-port"),
    *("--allow-sagemaker", "--allow-vertex-ai", "--reuse-grpc-port", "--reuse-http-port"),
    *("--cache-config", "--response-cache-byte-size", "--cache-directory"),
    *("--backend-directory", "--repoagent-directory", "--rate-limit", "--exit-timeout-secs"),
)
"""What `giqa serve` decides: given to tritonserver beside, it would undo a guard."""


_GRPC_THREADS = 8
"""Of a GPU's server; Triton's own two are busy with taking in 2,000 files a second."""


def new_key() -> str:
    """Draw a key that nobody guesses."""
    return secrets.token_hex(16)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server listens and what it writes down.

    Attributes:
        address: the address to listen on.
        port: gRPC port.
        sockets: a folder for UNIX sockets, in which the server alone listens instead: for a gateway
            (see `Gateway`) or a supervisor on this machine. Whoever may enter it may do everything.
        http_port: Triton's own HTTP; None: none. It has no TLS, and only servers without known
            faults may offer it beyond this machine.
        metrics_port: port of the Prometheus metrics; None: none.
        tls_cert: PEM file of the server's certificate; with `tls_key`: gRPC with TLS.
        tls_key: PEM file of the certificate's key.
        tls_client_ca: PEM file of the authority whose clients alone are let in.
        token: what clients must show; None: nothing.
        admin_key: what loading and unloading models needs; drawn at random unless given.
        client_shared_memory: let clients with the admin key hand tensors over in shared memory.
        cache_bytes: size of the response cache; 0: none.
        drain_s: longest wait for requests under way when it stops, in seconds.
        start_s: longest wait until it is ready, in seconds.
        trace_url: OpenTelemetry collector to send traces to.
        trace_rate: one of so many requests is traced.
        log: file that the server's log is added to.
        extra: further arguments of tritonserver; none that are decided here.

    Raises:
        UsageError: options that exclude each other.
    """

    address: str = "127.0.0.1"
    port: int = 8001
    sockets: Path | None = None
    http_port: int | None = None
    metrics_port: int | None = 8002
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token: str | None = field(default=None, repr=False)
    admin_key: str = field(default_factory=new_key, repr=False)
    client_shared_memory: bool = False
    cache_bytes: int = 0
    drain_s: float = 30.0
    start_s: float = 120.0
    trace_url: str | None = None
    trace_rate: int = 100
    log: Path | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be together."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs a certificate and its key", item="--tls-cert, --tls-key")
        if self.client_shared_memory and self.cache_bytes:
            raise UsageError(
                "the cache's key is made before a region is read: its owner could change it "
                "meanwhile, and others would get the wrong answer",
                item="--cache-mb, --allow-client-shared-memory",
                remedy="choose one",
            )
        for argument in self.extra:
            name = "--" + argument.lstrip("-").split("=")[0].replace("_", "-")
            short = argument.startswith("-") and not argument.startswith("--")
            # Options may be shortened as long as they are not ambiguous.
            if short or (argument.startswith("-") and any(d.startswith(name) for d in _DECIDED)):
                raise UsageError(
                    "is decided by giqa", item=argument, remedy="see the options of `giqa serve`"
                )

    @property
    def grpc_socket(self) -> str:
        """Where a server with `sockets` listens, as gRPC names it."""
        return f"unix:{self.sockets}/grpc:1"  # Triton adds a port to whatever address

    @property
    def metrics_socket(self) -> Path | None:
        """Where a server with `sockets` tells its metrics, over HTTP."""
        return None if self.sockets is None else self.sockets / "metrics"

    def arguments(
        self, folder: Path, repository: RepositoryOptions, manifest: Manifest
    ) -> list[str]:
        """Build tritonserver's arguments, but for those that its installation needs.

        Args:
            folder: the server's own folder; the model repository is `models` in it.
            repository: what the models were rendered for.
            manifest: the bundle's manifest.
        """
        names = (PREPROCESS, *GRAPHS, *MAIN_ROAD)
        return [
            f"--model-repository={folder / 'models'}",
            *self._grpc(),
            # Clients may ping a quiet connection; by default that closes it.
            "--grpc-http2-min-recv-ping-interval-without-data=5000",
            "--grpc-keepalive-permit-without-calls=1",
            f"--exit-timeout-secs={EXIT_S}",
            # Explicit: a model whose process died can be loaded again, one by one.
            "--model-control-mode=explicit",
            # The other ensembles follow by request: scores must not wait for them.
            *(f"--load-model={name}" for name in names),
            *self._http(),
            *self._tls(),
            *self._tracing(),
            *([f"--cache-config=local,size={self.cache_bytes}"] if self.cache_bytes else ()),
            *device_arguments(repository, manifest),
            *_stubs(folder, repository, self.start_s),
            *self.extra,
        ]

    def _grpc(self) -> list[str]:
        if self.sockets is not None:
            return [f"--grpc-address=unix:{self.sockets}/grpc", "--grpc-port=1"]
        host = f"[{self.address}]" if ":" in self.address else self.address
        return [
            f"--grpc-address={host}",
            f"--grpc-port={self.port}",
            *self._guards("--grpc-restricted-protocol"),
        ]

    def _guards(self, option: str) -> list[str]:
        admin = f"{ADMIN_KEY}={self.admin_key}"
        found = [f"{option}={_ADMIN}:{admin}"]
        if self.token is not None:
            found.append(f"{option}={_GUARDED}:{TOKEN_KEY}={self.token}")
        key = admin if self.client_shared_memory else f"{_NOBODY}={new_key()}"
        return [*found, f"{option}={_SHARED_MEMORY}:{key}"]

    def _http(self) -> list[str]:
        host = f"ipv6:{self.address}" if ":" in self.address else self.address
        found = ["--allow-http=false"]
        if self.http_port is not None:
            found = [
                "--allow-http=true",
                f"--http-address={host}",
                f"--http-port={self.http_port}",
                *self._guards("--http-restricted-api"),
            ]
        if self.sockets is not None:
            return [*found, f"--metrics-address=unix:{self.metrics_socket}", "--metrics-port=1"]
        if self.metrics_port is None:
            return [*found, "--allow-metrics=false"]
        return [*found, f"--metrics-address={host}", f"--metrics-port={self.metrics_port}"]

    def _tls(self) -> list[str]:
        if self.tls_cert is None or self.sockets is not None:
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


def _stubs(folder: Path, repository: RepositoryOptions, start_s: float) -> list[str]:
    if repository.device == "gpu":
        return []
    return [
        f"--backend-config=python,shm-region-prefix-name={shm_prefix(folder)}",
        # By default a model that is not there in 30 s, on a busy machine, ends the server.
        f"--backend-config=python,stub-timeout-seconds={max(30, int(start_s))}",
    ]


def device_arguments(repository: RepositoryOptions, manifest: Manifest) -> list[str]:
    """What a server that has these models must be told.

    Args:
        repository: what the models were rendered for.
        manifest: the bundle's.

    Returns:
        Arguments of tritonserver.
    """
    if repository.device == "gpu":
        pool = memory_of(manifest, repository).pool
        found = [f"--cuda-memory-pool-byte-size={gpu}:{pool}" for gpu in range(repository.gpus)]
        found.append(f"--grpc-infer-thread-count={_GRPC_THREADS}")
        if repository.version_compatible:
            # They bring code of their own, which runs in the server: only for plans that need it.
            found.append("--backend-config=tensorrt,version-compatible=true")
        return found
    return [
        "--rate-limit=execution_count",
        f"--rate-limit-resource={CPU_RESOURCE}:{CPU_SLOTS * repository.instances}",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        "--cuda-memory-pool-byte-size=0:0",
    ]
