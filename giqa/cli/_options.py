"""The options that commands share, in groups, and the scorer that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from giqa.cli._common import read_secret
from giqa.contract import PROFILES
from giqa.errors import UsageError
from giqa.precision import CPU_ASKED
from giqa.scorer import Scorer
from giqa.types import MOST, Limits

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Folder(click.Path):
    """A folder, there or not; an empty name would be the one that one is in."""

    name = "directory"

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("no name of a folder", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = _Folder()
_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[Any], Any]
_Limits = TypeVar("_Limits")


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


class _Count(click.IntRange):
    """A number of things; that there is a largest one is no news to anybody."""

    def _describe_range(self) -> str:
        return f"x>={self.min}"


COUNT, TIME = _Count(1, MOST), Finite(0.001, 1e6)
"""A number of things; a length in seconds."""


class GroupedOption(click.Option):
    """An option that stands in a group of the command's help and shows its default."""

    def __init__(self, *args: Any, group: str, **options: Any) -> None:
        super().__init__(*args, **{"show_default": True, **options})
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
    help="auto: int8 where the bundle has it and the CPU is fast at it, else bf16, else f32.",
)
BATCH = _ENGINE(
    "--batch",
    type=click.IntRange(1, 64),
    default=8,
    help="Most images computed together.",
)
PROFILE = _ENGINE(
    "--profile",
    type=click.Choice(PROFILES),
    default="fast",
    help="fast: the whole picture in one view; precise: up to nine views of native pixels.",
)
_CPUS = click.IntRange(1, 1024)
THREADS = _ENGINE("--threads", type=_CPUS, help="CPU threads.  [default: all]")
RAY_THREADS = _ENGINE("--threads", type=_CPUS, help="CPU threads.  [default: all; ray: 1]")
URLS = _SERVER(
    "--url", "urls", multiple=True, metavar="URL", help="Score on servers; several with ray."
)
_URL = _SERVER("--url", metavar="URL", help="Score on the server at grpc[s]://HOST:PORT.")
_CONNECTION = (
    _SERVER("--token-file", type=FILE, help="With --url: the server's token."),
    _SERVER("--tls-ca", type=FILE, help="With grpcs://: authorities to trust."),
    _SERVER("--tls-cert", type=FILE, help="With grpcs://: the client's certificate."),
    _SERVER("--tls-key", type=FILE, help="With grpcs://: its key."),
    _SERVER("--tls-name", help="With grpcs://: the name in the server's certificate."),
    _SERVER(
        "--in-flight",
        type=click.IntRange(1, 1024),
        default=16,
        help="With --url: requests under way.",
    ),
    _SERVER(
        "--deadline",
        type=TIME,
        default=30.0,
        metavar="S",
        help="With --url: seconds an image may take.",
    ),
)


def with_options(*options: _Option) -> Callable[[_Command], _Command]:
    """Give a command options, in this order."""

    def give(command: _Command) -> _Command:
        for one in reversed(options):
            command = one(command)
        return command

    return give


ON_A_SERVER = ("token_file", "tls_ca", "tls_cert", "tls_key", "tls_name", "in_flight", "deadline")
"""Options that are for a server."""
server_options = with_options(*_CONNECTION)
"""Give a command the options that say how a server is talked to; `server_of` reads them."""
scorer_options = with_options(BUNDLE, PRECISION, THREADS, BATCH, _URL, *_CONNECTION)
"""Give a command the options that `open_scorer` takes."""


def limit_options(
    at_most: Limits | None = None,
    *,
    file: str = "Largest file, in bytes.",
    pixels: str = "Most pixels of a picture.",
    frames: str = "Most frames or pages of a file.",
) -> Callable[[_Command], _Command]:
    """Give a command limits on what is read, which `limits_of` reads.

    Args:
        at_most: the defaults; None: none that is the same for all that the command reads.
        file: help of `--max-bytes`.
        pixels: help of `--max-pixels`.
        frames: help of `--max-frames`.
    """
    helps = {"max_bytes": file, "max_pixels": pixels, "max_frames": frames}
    return with_options(
        *(
            _LIMIT(
                f"--{name.replace('_', '-')}",
                type=COUNT,
                default=None if at_most is None else getattr(at_most, name),
                help=text,
            )
            for name, text in helps.items()
        )
    )


image_limits = limit_options(Limits())
"""Give a command the limits on images."""


def limits_of(options: dict[str, Any], kind: Callable[..., _Limits]) -> _Limits:
    """The limits of `limit_options`, as far as they are given."""
    names = ("max_bytes", "max_pixels", "max_frames")
    return kind(**{name: options[name] for name in names if options[name] is not None})


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


def check_given(names: Iterable[str], remedy: str) -> None:
    """Refuse options of the command line that would change nothing.

    Raises:
        UsageError: one of them was given.
    """
    context = click.get_current_context(silent=True)
    for name in names:
        if context and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError("changes nothing", item=f"--{name.replace('_', '-')}", remedy=remedy)


def open_scorer(options: dict[str, Any], limits: Limits | None = None) -> Scorer:
    """Make the scorer that options ask for: on a server with `--url`, else in process.

    Args:
        options: the command's options by name; others than `scorer_options` are left alone.
        limits: limits on images.

    Raises:
        GiqaError: as `LocalScorer` and `TritonScorer` do.
        UsageError: an option is for scoring in the other place.
    """
    if options["url"] is None:
        check_given(ON_A_SERVER, "it is for --url")
        from giqa.local import LocalScorer

        return LocalScorer(
            options["bundle"],
            precision=options["precision"],
            threads=options["threads"],
            batch=options["batch"],
            limits=limits,
        )
    from giqa.client import TritonScorer

    check_given(("precision", "threads", "batch"), "the server has its own")
    return TritonScorer(
        options["url"],
        bundle=options["bundle"],
        limits=limits,
        **server_of({**options}),
    )
