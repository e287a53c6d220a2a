"""What can be chosen: what a repository is rendered for, and how its server listens."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from giqa.contract import (
    GIQA,
    GIQA_BYTES,
    GIQA_ISOLATED,
    GIQA_MAP,
    GIQA_PRECISE,
    GIQA_VIEWS,
    GRAPHS,
    PREPROCESS,
    PREPROCESS_BYTES,
    PREPROCESS_ISOLATED,
    PREPROCESS_PRECISE,
    PREPROCESSES,
)
from giqa.errors import UsageError
from giqa.kserve import ADMIN_KEY, TOKEN_KEY
from giqa.manifest import Manifest
from giqa.precision import Precision
from giqa.serving._folder import shm_prefix
from giqa.serving._gpu import DECODERS, SPARE, Memory, Road, batch_on_gpu, plan, road
from giqa.tensors import Device, engine_tensors, ensembles, max_batch_of
from giqa.types import Limits

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


INFLIGHT_SINCE = (2, 64)
"""First Triton that knows `max_inflight_requests` of ensembles; older ones refuse the config."""
SAFE_REJECTION_SINCE = (2, 69)
"""First Triton whose ensembles survive a full queue between two steps (core pull requests 466 and
483): in older ones a worker thread then waits for ever on a freed lock. What is rendered limits no
queue between steps, but an operator may."""
CPU_RESOURCE = "giqa_cpu"
"""Rate limiter's resource: who executes on the CPU."""
CPU_SLOTS = 3
"""How much of it there is for each of `RepositoryOptions.instances`; an instance of a branch or of
fusion takes one. An instance of preprocessing takes two, so it starts only when no more than one
other works: the queue builds up, and refuses, where work comes in. With less, a branch could not
begin while preprocessing hands over, and both branches not together: a release wakes one of those
that wait."""


PREPROCESS_OF = {
    GIQA: PREPROCESS,
    GIQA_MAP: PREPROCESS,
    GIQA_PRECISE: PREPROCESS_PRECISE,
    GIQA_ISOLATED: PREPROCESS_ISOLATED,
    GIQA_BYTES: PREPROCESS_BYTES,
}
BATCH: dict[Device, int] = {"cpu": 8, "gpu": 32}
"""Most images a composing model takes at once, unless told otherwise. A GPU's products are of a
size with 32: see `python -m benchmarks predict`."""
QUEUE: dict[Device, int] = {"cpu": 64, "gpu": 128}
"""Most requests that wait for preprocessing, unless told otherwise: a few batches of all
instances."""
_GRPC_THREADS = 8
"""Of a GPU's server; Triton's own two are busy with taking in 2,000 files a second."""


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """What a repository is rendered for.

    Attributes:
        device: `cpu` or `gpu`.
        bundle: how the server's models find the bundle: a packaged name or a folder.
        precision: the engines' precision, as it stands in result rows (`openvino-bf16`).
        threads: CPU threads a model uses; 0: all.
        limits: limits on what is decoded (CPU; on a GPU the client keeps them).
        max_batch: most images a composing model takes at once; 0: `BATCH`'s.
        max_queue: most requests that wait for a preprocess model, more are rejected; 0: `QUEUE`'s.
        timeout_s: longest wait for preprocessing in seconds; a request may ask for less.
        instances: instances of each composing model that work at the same time, see
            `instances_on_cpu`; 0, on a GPU only: chosen by `_gpu.plan`.
        memory: most bytes that tensors and pictures may take on a GPU; None: what they need.
        cuda_graphs: capture CUDA graphs of the engines (GPU).
        profiles: optimisation profiles that the engines have (GPU).
        version_compatible: the engines are of an earlier TensorRT than the server's may be (GPU).
        gpus: how many there are.
        cache: let Triton answer repeated requests of `giqa` from its cache.
        server: Triton's version.
    """

    device: Device = "cpu"
    bundle: str = "giqa-s"
    precision: Precision = "f32"
    threads: int = 0
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 0
    max_queue: int = 0
    timeout_s: float = 10.0
    instances: int = 1
    memory: int | None = None
    cuda_graphs: bool = True
    profiles: int = 2
    version_compatible: bool = False
    gpus: int = 1
    cache: bool = False
    server: tuple[int, int] = (2, 51)

    def __post_init__(self) -> None:
        """Fill in what follows from the device."""
        object.__setattr__(self, "max_batch", self.max_batch or BATCH[self.device])
        object.__setattr__(self, "max_queue", self.max_queue or QUEUE[self.device])

    @property
    def engine(self) -> str:
        """Runtime and precision, such as `openvino-bf16`."""
        return f"{'openvino' if self.device == 'cpu' else 'tensorrt'}-{self.precision}"


MAIN_ROAD = (GIQA, GIQA_MAP, GIQA_VIEWS)
"""Ensembles that need `PREPROCESS` and the graphs alone: a server loads them first, and half of a
CPU's processes later. What was killed scores again in two thirds of the time."""


def memory_of(manifest: Manifest, options: RepositoryOptions) -> Memory:
    """Plan a GPU's instances and the memory of what lies there.

    Args:
        manifest: for the tensors' sizes and the number of tiles.
        options: for batch, queue, instances and the limit.

    Raises:
        UsageError: they do not fit into the limit.
    """
    return plan(
        engine_tensors(manifest.tensors, options.precision),
        manifest.tiles,
        max_batch=options.max_batch,
        in_flight={name: in_flight_of(name, options) for name in ensembles("gpu")},
        max_pixels=options.limits.max_pixels,
        threads=options.threads,
        instances=options.instances,
        limit=options.memory,
    )


def road_of(name: str, options: RepositoryOptions) -> Road:
    """How pictures go through a preprocess model on a GPU."""
    return road(
        name,
        max_batch=options.max_batch,
        max_pixels=options.limits.max_pixels,
        threads=options.threads,
    )


def instances_on_cpu(name: str, options: RepositoryOptions) -> int:
    """Tell how many instances, and so processes, a composing model has on a CPU.

    Preprocessing has a spare: Triton looks at a queue with a policy when a request comes in while
    an instance is idle, or after half a second; so a queue stood still although nothing ran. With
    the spare, and without policies between steps, 16 in flight went from 26 to 35 images/s on two
    cores, 64 at once from 3.9 to 1.8 s. It costs 160 MB. `preprocess_isolated`, for a bad batch's
    second try, has none.

    Args:
        name: the model.
        options: for `instances`.
    """
    return options.instances + (name in PREPROCESSES and name != PREPROCESS_ISOLATED)


def in_flight_of(name: str, options: RepositoryOptions) -> int:
    """Most requests of an ensemble in one of its steps, its queue included.

    Triton counts them at every step, in the thread that took the request in, and waits where there
    are more: unary calls of all clients with it. So the limit is above what the first step's queue
    and instances hold; what is too much finds that queue full and is refused. A further batch may
    come together between two steps.

    Args:
        name: the ensemble.
        options: for batch, queue and instances.
    """
    first = PREPROCESS_OF.get(name, PREPROCESS)
    if options.device == "cpu":
        count, batch = instances_on_cpu(first, options), max_batch_of(first, options.max_batch)
    else:
        count = options.instances or (DECODERS if first == PREPROCESS else SPARE)
        batch = batch_on_gpu(first, options.max_batch)
    return options.max_queue + (count + 1) * batch


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
