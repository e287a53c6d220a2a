"""`giqa serve`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from giqa.cli._common import read_secret
from giqa.errors import EngineMismatchError
from giqa.precision import PRECISIONS, Precision
from giqa.types import Limits

if TYPE_CHECKING:
    from giqa.bundle import Bundle
    from giqa.serving import Server

_LIMITS = Limits()
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="gpu: in NVIDIA's Triton container, with TensorRT engines.",
)
@click.option("--bundle", help="Bundle folder or name.  [default: giqa-s]")
@click.option("--precision", default="auto", show_default=True, help="As for `giqa score`.")
@click.option(
    "--engines",
    type=click.Path(file_okay=False, path_type=Path),
    help="TensorRT engines, with --device gpu.  [default: BUNDLE/engines]",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(1),
    help="MiB of each GPU's memory for pictures and tensors.  [default: two thirds]",
)
@click.option(
    "--cuda-graphs/--no-cuda-graphs",
    default=True,
    show_default=True,
    help="Capture CUDA graphs of the frequent batches, with --device gpu.",
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8001, show_default=True, help="gRPC."
)
@click.option(
    "--http-port", type=click.IntRange(1, 65535), help="HTTP, without TLS.  [default: off]"
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Prometheus.  [default: off]")
@click.option(
    "--watch-port",
    type=click.IntRange(1, 65535),
    help="Prometheus, of canaries and repairs; /ready.  [default: off]",
)
@click.option(
    "--instances",
    type=click.IntRange(1),
    help="Copies of each model, on a CPU one more of preprocessing; they share the CPU threads.  "
    "[default: cpu 1, gpu chosen]",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@click.option(
    "--max-batch",
    type=click.IntRange(1, 64),
    help="Most images computed together.  [default: cpu 8, gpu the engines']",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    help="Requests that wait for preprocessing; more are refused.  [default: cpu 64, gpu 128]",
)
@click.option(
    "--queue-timeout",
    type=click.FloatRange(0.001),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Longest wait for preprocessing; requests may ask for less.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    default=_LIMITS.max_bytes,
    show_default=True,
    help="Largest file, in bytes.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=_LIMITS.max_pixels,
    show_default=True,
    help="Most pixels of a picture.",
)
@click.option(
    "--max-frames",
    type=click.IntRange(1),
    default=_LIMITS.max_frames,
    show_default=True,
    help="Most frames or pages of a file.",
)
@click.option("--tls-cert", type=_FILE, help="PEM certificate; with --tls-key: gRPC with TLS.")
@click.option("--tls-key", type=_FILE, help="Its PEM key.")
@click.option("--tls-client-ca", type=_FILE, help="Let in only clients certified by this PEM.")
@click.option("--tls-ca", type=_FILE, help="What canaries trust.  [default: --tls-cert]")
@click.option("--tls-name", help="The name in the certificate, for canaries.")
@click.option("--tls-canary-cert", type=_FILE, help="What canaries show, with --tls-client-ca.")
@click.option("--tls-canary-key", type=_FILE, help="Its PEM key.")
@click.option("--token-file", type=_FILE, help="Clients must show the token in this file.")
@click.option("--admin-key-file", type=_FILE, help="Key for loading models.  [default: random]")
@click.option("--cache-mb", type=click.IntRange(1), help="Answer repeated images from a cache.")
@click.option("--trace-url", help="Send OpenTelemetry traces to this collector.")
@click.option(
    "--trace-rate",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Trace one of so many requests.",
)
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the server's log to this file.",
)
@click.option("--verbose", "-v", is_flag=True, help="The server's log on stderr, too.")
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Longest wait for requests under way at the end.",
)
@click.option("--tritonserver", type=_FILE, help="The server to run.  [default: found]")
@click.argument("extra", nargs=-1, metavar="[-- TRITONSERVER OPTIONS...]")
def serve(**o: Any) -> None:
    """Serve scores over gRPC with Triton; say when ready, watch, drain on SIGTERM.

    The server is tritonserver on PATH, else the one that the extra `server` brings. It is ready
    when it gives the right answer to the bundle's known image; the line that says so goes to
    stdout. Canary requests find models that died, which are loaded again.

    \b
    Examples:
      giqa serve --port 8001 --metrics-port 8002
      giqa score --url grpc://127.0.0.1:8001 photos/
      giqa serve --address 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --token-file token
    """  # noqa: D301 (click's \b keeps the lines)
    from giqa.serving import serve as serve_until_told

    started = time.monotonic()
    server = _server(o, _say if o["verbose"] else lambda line: None)

    def ready(difference: float) -> None:
        click.echo(
            f"ready: {server.connection.url} serves {server.bundle.manifest.id} with "
            f"{server.repository_options.engine} (known answer off by {abs(difference):.3f}, "
            f"{time.monotonic() - started:.1f} s)"
        )
        sys.stdout.flush()

    serve_until_told(server, say=_say, ready=ready, watch_port=o["watch_port"])


def _server(o: dict[str, Any], say: Callable[[str], None]) -> Server:
    from giqa.bundle import load_bundle
    from giqa.openvino import choose_precision, cpu_count
    from giqa.serving import (
        RepositoryOptions,
        Server,
        ServerOptions,
        engines_of,
        find_tritonserver,
        new_key,
    )

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
        limits=Limits(**{key: o[key] for key in ("max_bytes", "max_pixels", "max_frames")}),
        max_queue=o["max_queue"] or 0,
        timeout_s=o["queue_timeout"],
        instances=o["instances"] or (1 if o["device"] == "cpu" else 0),
        cache=o["cache_mb"] is not None,
        server=binary.version,
        **gpu,
    )
    options = ServerOptions(
        address=o["address"],
        port=o["port"],
        http_port=o["http_port"],
        metrics_port=o["metrics_port"],
        tls_cert=o["tls_cert"],
        tls_key=o["tls_key"],
        tls_client_ca=o["tls_client_ca"],
        token=read_secret(o["token_file"]),
        admin_key=read_secret(o["admin_key_file"]) or new_key(),
        cache_bytes=(o["cache_mb"] or 0) * 2**20,
        drain_s=o["drain"],
        trace_url=o["trace_url"],
        trace_rate=o["trace_rate"],
        log=o["log_file"],
        extra=o["extra"],
    )
    client = {
        "ca": o["tls_ca"] or o["tls_cert"],
        "cert": o["tls_canary_cert"],
        "key": o["tls_canary_key"],
        "server_name": o["tls_name"],
    }
    return Server(bundle, binary, options, repository, say=say, client=client, engines=engines)


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


def _say(line: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)
