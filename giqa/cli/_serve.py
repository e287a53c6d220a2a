"""`giqa serve`."""

from __future__ import annotations

import sys
import time
import tomllib
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from giqa.cli._options import (
    COUNT,
    FILE,
    FOLDER,
    TIME,
    Finite,
    GroupedCommand,
    image_limits,
    option,
)
from giqa.cli._serving import make_gateway, make_server
from giqa.errors import UsageError
from giqa.precision import PRECISIONS

if TYPE_CHECKING:
    from giqa.serving import Server


def _configure(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take options that are not given from a TOML file."""
    if path is None:
        return
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"is no TOML: {e}", item=str(path), remedy="") from e
    options = {
        long[2:]: p
        for p in ctx.command.params
        if isinstance(p, click.Option) and p.name != "config"
        for long in p.opts
    }
    for key, value in found.items():
        if (one := options.get(key)) is None:
            raise UsageError(f"{key!r} is no option", item=str(path))
        what, kinds = _wanted(one)
        if type(value) not in kinds:  # click would take 1.9 for 1, and true, too
            raise UsageError(f"{key!r} wants {what}", item=str(path))
    ctx.default_map = {options[key].name: value for key, value in found.items()}


def _wanted(one: click.Option) -> tuple[str, tuple[type, ...]]:
    """What a value in TOML has to be."""
    if one.is_flag:
        return "true or false", (bool,)
    if isinstance(one.type, click.IntRange):
        return "a whole number", (int,)
    if isinstance(one.type, click.FloatRange):
        return "a number", (int, float)
    return "a text", (str,)


_WHAT, _GPU, _PORTS = option("What is served"), option("On a GPU"), option("Where it listens")
_WHO, _LOAD, _SEEN = option("Who may ask"), option("How much at once"), option("What is seen of it")
_PORT = click.IntRange(1, 65535)
_PAUSE = Finite(0.1)
_TO_FILE = click.Path(dir_okay=False, path_type=Path)
_TIMES = partial(option("Its start, watch and end"), metavar="S")


@click.command(cls=GroupedCommand)
@_WHAT(
    "--config",
    type=FILE,
    callback=_configure,
    is_eager=True,
    expose_value=False,
    help="Options by their names in a TOML file, such as max-queue = 128; those given here win.",
)
@_WHAT(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    help="gpu: in NVIDIA's Triton container, with TensorRT engines.",
)
@_WHAT("--bundle", help="Bundle folder or name.  [default: giqa-s]")
@_WHAT(
    "--rollout",
    type=FILE,
    help="A TOML file with a table [bundles.NAME] for each bundle served: bundle, share of the "
    "clients. Read again when it changes: what is new is loaded beside, asked and switched to.",
)
@_WHAT(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    help="On a CPU as for `giqa score`; on a GPU that of the engines.",
)
@_WHAT("--tritonserver", type=FILE, help="The server to run.  [default: found]")
@_GPU("--engines", type=FOLDER, help="TensorRT engines.  [default: BUNDLE/engines]")
@_GPU(
    "--memory-mb",
    type=COUNT,
    help="MiB of each GPU's memory for pictures and tensors.  [default: two thirds]",
)
@_GPU("--cuda-graphs/--no-cuda-graphs", default=True, help="Capture graphs of frequent batches.")
@_PORTS("--address", default="127.0.0.1", help="Where to listen.")
@_PORTS("--port", type=_PORT, default=8001, help="gRPC.")
@_PORTS(
    "--http-port",
    type=_PORT,
    help="HTTP: POST an image to /score, get JSON; /live, /ready.  [default: off]",
)
@_PORTS("--metrics-port", type=_PORT, help="Triton's Prometheus.  [default: off]")
@_PORTS(
    "--watch-port",
    type=_PORT,
    help="Prometheus, of canaries and repairs; /ready.  [default: off]",
)
@_PORTS("--reflection", is_flag=True, help="Answer gRPC reflection.")
@_WHO("--tls-cert", type=FILE, help="PEM certificate; with --tls-key: gRPC and HTTP with TLS.")
@_WHO("--tls-key", type=FILE, help="Its PEM key.")
@_WHO("--tls-client-ca", type=FILE, help="Let in only clients certified by this PEM.")
@_WHO(
    "--token-file",
    type=FILE,
    help="Clients must show the token in this file, or one of its TOML tables [tokens.NAME] with "
    "token, in_flight, per_minute. Read again when it changes.",
)
@_WHO("--admin-key-file", type=FILE, help="Key for loading models.  [default: random]")
@_WHO(
    "--allow-client-shared-memory",
    is_flag=True,
    help="Let clients on this machine that show the admin key hand images over in shared memory.",
)
@_LOAD(
    "--instances",
    type=COUNT,
    help="Copies of each model, on a CPU one more of preprocessing; they share the CPU threads.  "
    "[default: cpu 1, gpu chosen]",
)
@_LOAD("--threads", type=COUNT, help="CPU threads.  [default: all]")
@_LOAD(
    "--max-batch",
    type=click.IntRange(1, 64),
    help="Most images computed together.  [default: cpu 8, gpu the engines']",
)
@_LOAD(
    "--max-queue",
    type=COUNT,
    help="Requests that wait for preprocessing; more are refused.  [default: cpu 64, gpu 128]",
)
@_LOAD(
    "--queue-timeout",
    type=TIME,
    default=10.0,
    metavar="S",
    help="Longest wait for preprocessing; requests may ask for less.",
)
@_LOAD("--cache-mb", type=COUNT, help="Answer repeated images from a cache.")
@image_limits
@_SEEN(
    "--request-log",
    type=_TO_FILE,
    help="A line of JSON for each request; at 64 MiB a new file, four old ones are kept.",
)
@_SEEN("--trace-url", help="Send OpenTelemetry traces to this collector.")
@_SEEN("--trace-rate", type=COUNT, default=100, help="Trace one of so many requests.")
@_SEEN("--log-file", type=_TO_FILE, help="Add the server's log to this file.")
@_SEEN("--verbose", "-v", is_flag=True, help="The server's log on stderr, too.")
@_TIMES("--start-timeout", type=Finite(1), default=120.0, help="Longest wait until it is ready.")
@_TIMES("--canary-interval", type=_PAUSE, default=2.0, help="Pause between canary requests.")
@_TIMES(
    "--canary-deadline",
    type=_PAUSE,
    default=10.0,
    help="Longest a canary may take; two in a row, while nothing else is done either, are a hang.",
)
@_TIMES(
    "--drain",
    type=Finite(0),
    default=30.0,
    help="Longest wait for requests under way at the end.",
)
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
    from giqa.serving import (
        Folder,
        GatewayProcess,
        Rollout,
        Watch,
        describe_faults,
        read_plan,
        serve_rollout,
    )
    from giqa.serving import serve as serve_until_told

    started = time.monotonic()
    log = _say if o["verbose"] else lambda line: None
    canaries = {"interval_s": o["canary_interval"], "deadline_s": o["canary_deadline"]}
    ports = {"watch_port": o["watch_port"], "metrics_port": o["metrics_port"]}
    with ExitStack() as stack:

        def make(bundle: str | None) -> Server:
            server = make_server(o | {"bundle": bundle}, stack.enter_context(Folder()), log)
            _say(describe_faults(server.repository_options.server))
            return server

        def ready(what: str, difference: float) -> None:
            seconds = time.monotonic() - started
            click.echo(
                f"ready: {gateway.url} serves {what} (known answer off by {abs(difference):.3f}, "
                f"{seconds:.1f} s)"
            )
            sys.stdout.flush()

        if o["rollout"] is None:
            server = make(o["bundle"])
            gateway = GatewayProcess(make_gateway(o, server), _say)
            what = f"{server.bundle.manifest.id} with {server.repository_options.engine}"
            serve_until_told(
                server, gateway=gateway, say=_say, ready=partial(ready, what), **canaries, **ports
            )
            return
        if o["bundle"] is not None or o["engines"] is not None or o["device"] != "cpu":
            raise UsageError("the file names bundles, for a CPU", item="--rollout")
        # Limits, tensors' sizes and batches are alike for all bundles of a gateway.
        first = make(next(iter(read_plan(o["rollout"]))))
        gateway = GatewayProcess(make_gateway(o, first), _say)
        rollout = Rollout(
            o["rollout"],
            gateway=gateway,
            make=make,
            watch=lambda server: Watch(server, say=_say, **canaries),
            say=_say,
        )
        serve_rollout(
            rollout,
            gateway,
            say=_say,
            ready=partial(ready, "what the rollout names"),
            drain_s=o["drain"],
            **ports,
        )


def _say(line: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)
