"""The options that commands share, in groups, and the scorer that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from giqa.cli._common import read_secret
from giqa.contract import PROFILES
from giqa.precision import CPU_ASKED
from giqa.scorer import Scorer
from giqa.types import Limits

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[Any], Any]
_LIMITS = Limits()


class Finite(click.FloatRange):
    """A number, and not `nan` or `inf`."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse what is no finite number of the range."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return float(found)

    def _describe_range(self) -> str:
        bounded = self.min is not None or self.max is not None
        return super()._describe_range() if bounded else ""


class GroupedOption(click.Option):
    """An option that stands in a group of the command's help."""

    def __init__(self, *args: Any, group: str = "Options", **options: Any) -> None:
        super().__init__(*args, **options)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help has groups of options, in the order in which they come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section a group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def option(group: str) -> Callable[..., _Option]:
    """`click.option` for a group of the help."""
    return partial(click.option, cls=GroupedOption, group=group)


_ENGINE, _SERVER, _LIMIT = option("What scores"), option("On a server"), option("Limits")

BUNDLE = _ENGINE("--bundle", help="Bundle folder or name.  [default: giqa-s]")
PRECISION = _ENGINE(
    "--precision",
    type=click.Choice(CPU_ASKED),
    default="auto",
    show_default=True,
    help="auto: int8 where the bundle has it and the CPU is fast at it, else bf16, else f32.",
)
BATCH = _ENGINE(
    "--batch",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Most images computed together.",
)
PROFILE = _ENGINE(
    "--profile",
    type=click.Choice(PROFILES),
    default="fast",
    show_default=True,
    help="fast: the whole picture in one view; precise: up to nine views of native pixels.",
)
_THREADS = _ENGINE("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
_URL = _SERVER("--url", metavar="URL", help="Score on the server at grpc[s]://HOST:PORT.")
_CONNECTION = (
    _SERVER("--token-file", type=FILE, help="With --url: the server's token."),
    _SERVER("--tls-ca", type=FILE, help="With grpcs://: authorities to trust."),
    _SERVER("--tls-cert", type=FILE, help="With grpcs://: the client's certificate."),
    _SERVER("--tls-key", type=FILE, help="With grpcs://: its key."),
    _SERVER("--tls-name", help="With grpcs://: the name in the server's certificate."),
    _SERVER(
        "--in-flight",
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="With --url: requests under way.",
    ),
    _SERVER(
        "--deadline",
        type=Finite(0.001),
        default=30.0,
        show_default=True,
        metavar="S",
        help="With --url: seconds an image may take.",
    ),
)
_IMAGES = (
    _LIMIT(
        "--max-bytes",
        type=click.IntRange(1),
        default=_LIMITS.max_bytes,
        show_default=True,
        help="Largest file, in bytes.",
    ),
    _LIMIT(
        "--max-pixels",
        type=click.IntRange(1),
        default=_LIMITS.max_pixels,
        show_default=True,
        help="Most pixels of a picture.",
    ),
    _LIMIT(
        "--max-frames",
        type=click.IntRange(1),
        default=_LIMITS.max_frames,
        show_default=True,
        help="Most frames or pages of a file.",
    ),
)


def with_options(*options: _Option) -> Callable[[_Command], _Command]:
    """Give a command options, in this order."""

    def give(command: _Command) -> _Command:
        for one in reversed(options):
            command = one(command)
        return command

    return give


server_options = with_options(*_CONNECTION)
"""Give a command the options that say how a server is talked to; `server_of` reads them."""
scorer_options = with_options(BUNDLE, PRECISION, _THREADS, BATCH, _URL, *_CONNECTION)
"""Give a command the options that `open_scorer` takes."""
image_limits = with_options(*_IMAGES)
"""Give a command the limits on images; `limits_of` reads them."""


def limits_of(options: dict[str, Any]) -> Limits:
    """The limits of `image_limits`."""
    return Limits(**{key: options[key] for key in ("max_bytes", "max_pixels", "max_frames")})


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
