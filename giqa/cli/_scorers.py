"""The options that say what scores, and the scorer they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from giqa.cli._common import read_secret
from giqa.precision import CPU_ASKED
from giqa.scorer import Scorer
from giqa.types import Limits

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--bundle", help="Bundle folder or name.  [default: giqa-s]"),
    click.option(
        "--precision",
        type=click.Choice(CPU_ASKED),
        default="auto",
        show_default=True,
        help="auto: int8 where the bundle has it and the CPU is fast at it, else bf16, else f32.",
    ),
    click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]"),
    click.option(
        "--batch",
        type=click.IntRange(1, 64),
        default=8,
        show_default=True,
        help="Most images computed together.",
    ),
    click.option("--url", metavar="URL", help="Score on the server at grpc[s]://HOST:PORT."),
)
_SERVER = (
    click.option("--token-file", type=_FILE, help="With --url: the server's token."),
    click.option("--tls-ca", type=_FILE, help="With grpcs://: authorities to trust."),
    click.option("--tls-cert", type=_FILE, help="With grpcs://: the client's certificate."),
    click.option("--tls-key", type=_FILE, help="With grpcs://: its key."),
    click.option("--tls-name", help="With grpcs://: the name in the server's certificate."),
    click.option(
        "--in-flight",
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="With --url: requests under way.",
    ),
    click.option(
        "--deadline",
        type=click.FloatRange(0.001),
        default=30.0,
        show_default=True,
        metavar="S",
        help="With --url: seconds an image may take.",
    ),
)


def scorer_options(command: _Command) -> _Command:
    """Give a command the options that `open_scorer` takes."""
    return _with(server_options(command), _OPTIONS)


def server_options(command: _Command) -> _Command:
    """Give a command the options that say how a server is talked to; `server_of` reads them."""
    return _with(command, _SERVER)


def server_of(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `TritonScorer` from `server_options`; tokens are read.

    Args:
        options: the command's options by name; these are taken out.
    """
    return {
        "in_flight": options.pop("in_flight"),
        "deadline_s": options.pop("deadline"),
        "token": read_secret(options.pop("token_file")),
        "ca": options.pop("tls_ca"),
        "cert": options.pop("tls_cert"),
        "key": options.pop("tls_key"),
        "server_name": options.pop("tls_name"),
    }


def _with(command: _Command, options: tuple[Callable[[_Command], _Command], ...]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def open_scorer(options: dict[str, Any], limits: Limits | None = None) -> Scorer:
    """Make the scorer that options ask for: on a server with `--url`, else in process.

    Args:
        options: the command's options by name; others than `scorer_options` are left alone.
        limits: limits on images.

    Raises:
        GiqaError: as `LocalScorer` and `TritonScorer` do.
    """
    if options["url"] is None:
        from giqa.local import LocalScorer

        return LocalScorer(
            options["bundle"],
            precision=options["precision"],
            threads=options["threads"],
            batch=options["batch"],
            limits=limits,
        )
    from giqa.client import TritonScorer

    return TritonScorer(
        options["url"],
        bundle=options["bundle"],
        limits=limits,
        **server_of({**options}),
    )
