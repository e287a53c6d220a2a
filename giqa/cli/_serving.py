"""What `giqa serve` serves, made of its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from giqa.cli._common import read_secret
from giqa.cli._options import limits_of
from giqa.errors import EngineMismatchError, UsageError
from giqa.precision import PRECISIONS, Precision
from giqa.types import Limits

if TYPE_CHECKING:
    from giqa.bundle import Bundle
    from giqa.serving import GatewayOptions, Server


def make_server(o: dict[str, Any], folder: Path, say: Callable[[str], None]) -> Server:
    """The server, not started, with its sockets in a folder."""
    from giqa.bundle import load_bundle
    from giqa.openvino import choose_precision, cpu_count
    from giqa.serving import (
        RepositoryOptions,
        Server,
        ServerOptions,
        engines_of,
        find_tritonserver,
    )

    for name in ("engines", "memory_mb"):
        if o["device"] == "cpu" and o[name] is not None:
            raise UsageError("is for --device gpu", item=f"--{name.replace('_', '-')}")
    bundle = load_bundle(o["bundle"])
    binary = find_tritonserver(o["tritonserver"])
    precision = o["precision"]
    engines: Path | None = None
    gpu: dict[str, Any] = {"max_batch": o["max_batch"] or 0}
    if o["device"] == "cpu":
        precision = choose_precision(bundle, precision)
    elif not binary.bundled:  # `Server` refuses one that has no GPU backends
        engines = o["engines"] or engines_of(bundle)
        precision, gpu = _verified(engines, bundle, o)
    else:
        precision = PRECISIONS[0]
    repository = RepositoryOptions(
        device=o["device"],
        bundle=str(bundle.folder.resolve()),
        precision=precision,
        threads=max(1, (o["threads"] or cpu_count()) // (o["instances"] or 1)),
        limits=limits_of(o, Limits),
        max_queue=o["max_queue"] or 0,
        timeout_s=o["queue_timeout"],
        instances=o["instances"] or (1 if o["device"] == "cpu" else 0),
        cache=o["cache_mb"] is not None,
        server=binary.version,
        **gpu,
    )
    options = ServerOptions(
        address=o["address"],
        sockets=folder,
        client_shared_memory=o["allow_client_shared_memory"],
        start_s=o["start_timeout"],
        cache_bytes=(o["cache_mb"] or 0) * 2**20,
        drain_s=o["drain"],
        trace_url=o["trace_url"],
        trace_rate=o["trace_rate"],
        log=o["log_file"],
        extra=o["extra"],
    )
    return Server(bundle, binary, options, repository, say=say, engines=engines)


def make_gateway(o: dict[str, Any], server: Server) -> GatewayOptions:
    """What clients reach of it."""
    from giqa.serving import Backend, GatewayOptions, new_key

    if (o["tls_cert"] is None) != (o["tls_key"] is None):
        raise UsageError("TLS needs a certificate and its key", item="--tls-cert, --tls-key")
    repository, folder = server.repository_options, server.options.sockets

    def text(path: Path | None) -> str | None:
        return None if path is None else str(path.resolve())

    return GatewayOptions(
        address=o["address"],
        port=o["port"],
        socket=f"{folder}/gateway",
        backends=(Backend(target=server.options.grpc_socket, bundle=repository.bundle),),
        device=repository.device,
        http_port=o["http_port"],
        tls_cert=text(o["tls_cert"]),
        tls_key=text(o["tls_key"]),
        tls_client_ca=text(o["tls_client_ca"]),
        token_file=text(o["token_file"]),
        admin_key=read_secret(o["admin_key_file"]) or new_key(),
        client_shared_memory=o["allow_client_shared_memory"],
        max_batch=repository.max_batch,
        limits=repository.limits,
        patience_s=o["queue_timeout"],
        request_log=text(o["request_log"]),
        reflection=o["reflection"],
    )


def _verified(folder: Path, bundle: Bundle, o: dict[str, Any]) -> tuple[Precision, dict[str, Any]]:
    """Verify the engines: what they compute in, and what else follows from them and the GPUs."""
    from giqa.serving import all_gpus, load_engines

    gpus = all_gpus()
    found = load_engines(folder, bundle, *gpus, max_batch=o["max_batch"] or 1)
    (precision,) = {engine.precision for engine in found.values()}
    if o["precision"] not in ("auto", precision):
        raise EngineMismatchError(
            f"the engines compute in {precision}",
            item=f"--precision {o['precision']}",
            remedy=f"leave it out, or: python -m build engines --precision {o['precision']}",
        )
    # The rest is for what engines need inside.
    least = min((gpu.memory for gpu in gpus if gpu.memory is not None), default=None)
    asked = o["memory_mb"]
    memory = asked * 2**20 if asked else (least and 2 * least // 3)
    return precision, {
        "cuda_graphs": o["cuda_graphs"],
        "gpus": len(gpus),
        "max_batch": o["max_batch"] or min(engine.max_batch for engine in found.values()),
        "memory": memory,
        "profiles": min(len(engine.profiles) for engine in found.values()),
        "version_compatible": any(engine.version_compatible for engine in found.values()),
    }
