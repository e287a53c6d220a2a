"""`giqa batch run|resume|verify`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from giqa.cli._common import FAILURE, ITEMS_FAILED, Exit, read_secret
from giqa.cli._scorers import server_options
from giqa.contract import PROFILES
from giqa.errors import UsageError
from giqa.precision import CPU_ASKED
from giqa.types import Limits

_DEFAULTS = Limits()
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_SCORING = ("profile", "max_bytes", "max_pixels", "max_frames", "fps", "every", "keyframes")


@click.group()
def batch() -> None:
    """Score any number of inputs to Parquet shards; a run goes on after any end."""


@batch.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, type=_FOLDER, metavar="DIR", help="The run's folder.")
@click.option("--bundle", help="Bundle folder or name.  [default: giqa-s]")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="fast",
    show_default=True,
    help="fast: the whole picture in one view; precise: up to nine views of native pixels.",
)
@click.option(
    "--precision",
    type=click.Choice(CPU_ASKED),
    default="auto",
    show_default=True,
    help="auto: int8 where the bundle has it and the CPU is fast at it, else bf16, else f32.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Images in a shard: the most that a kill costs.",
)
@click.option("--recursive", "-r", is_flag=True, help="Descend into directories.")
@click.option("-0", "null_separated", is_flag=True, help="Lists are NUL-separated.")
@click.option("--column", metavar="C", help="Column of a table.  [default: uri, url or path]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="local: on this machine; ray: on a Ray cluster.",
)
@click.option("--workers", type=click.IntRange(1), help="With ray.  [default: all CPUs]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all; ray: 1]")
@click.option(
    "--batch",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Most images computed together.",
)
@click.option(
    "--url", "urls", multiple=True, metavar="URL", help="Score on servers; several with ray."
)
@server_options
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    default=_DEFAULTS.max_bytes,
    show_default=True,
    help="Largest file, in bytes.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=_DEFAULTS.max_pixels,
    show_default=True,
    help="Most pixels of a picture.",
)
@click.option(
    "--max-frames",
    type=click.IntRange(1),
    default=_DEFAULTS.max_frames,
    show_default=True,
    help="Most frames or pages of a file.",
)
@click.option("--fps", type=click.FloatRange(0, min_open=True), help="Frames of a video a second.")
@click.option("--every", type=click.IntRange(1), help="Each so-many-th frame of a video.")
@click.option("--keyframes", is_flag=True, help="The keyframes of a video.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(
    inputs: tuple[str, ...],
    out: Path,
    shard_size: int,
    recursive: bool,
    null_separated: bool,
    column: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score inputs to Parquet shards in a folder.

    An INPUT is a file, a directory, a pattern, a URI, a list (.txt, .lst, - for stdin), a table of
    URIs (.parquet) or a tar shard (.tar).

    \b
    Examples:
      giqa batch run photos/ --recursive --out scores
      giqa batch run 'shards/*.tar' --out scores --shard-size 500
      giqa batch run uris.parquet --column image --out scores --url grpc://127.0.0.1:8001
    """  # noqa: D301 (click's \b keeps the lines)
    from giqa.batch import Runtime, Scoring, Sources
    from giqa.batch import run as run_batch

    if (options["fps"] is not None) + (options["every"] is not None) + options["keyframes"] > 1:
        raise UsageError("exclude each other", item="--fps, --every, --keyframes")
    scoring = Scoring(**{name: options.pop(name) for name in _SCORING})
    deadline = options.pop("deadline")
    token = read_secret(options["token_file"])
    runtime = Runtime(**options, deadline_s=deadline, token=token)
    sources = Sources(
        inputs=inputs, recursive=recursive, null_separated=null_separated, column=column
    )
    with _progress() as progress:
        summary = run_batch(
            sources,
            out,
            scoring=scoring,
            runtime=runtime,
            shard_size=shard_size,
            stdin=sys.stdin.buffer,
            progress=progress,
        )
    _print(summary, as_json)


@batch.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def resume(folder: Path, as_json: bool) -> None:
    """Go on with a run: score the shards that are not there yet.

    Example: giqa batch resume scores
    """
    from giqa.batch import read_plan
    from giqa.batch import resume as resume_batch

    token = read_secret(read_plan(folder).runtime.token_file)
    with _progress() as progress:
        summary = resume_batch(folder, token=token, progress=progress)
    _print(summary, as_json)


@batch.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(folder: Path, as_json: bool) -> None:
    """Prove a run: a row per input, no duplicates, hashes right; exit 1 if something is wrong.

    Example: giqa batch verify scores
    """
    from giqa.batch import verify as verify_batch

    verdict = verify_batch(folder)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **asdict(verdict)}, indent=1))
    else:
        for problem in verdict.problems:
            click.echo(f"{folder}: {problem}")
        if not verdict.problems:
            click.echo(f"{folder}: {verdict.inputs} inputs, {verdict.rows} rows, hashes right")
        for code, count in verdict.errors.items():
            click.echo(f"{folder}: {count} {code}")
    if verdict.problems:
        raise Exit(FAILURE)


def _print(summary: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(summary), indent=1))
    else:
        click.echo(
            f"{summary.folder}: {summary.inputs} inputs, {summary.rows} rows, "
            f"{summary.shards} shards, {summary.written} written now"
        )
    if summary.failed:
        click.echo(f"giqa: {summary.failed} could not be scored", err=True)
        raise Exit(ITEMS_FAILED)


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on stderr, if that is a terminal."""
    with tqdm(unit="image", disable=not sys.stderr.isatty(), file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
