"""`giqa batch run|resume|update|verify|report`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from giqa.cli import _options
from giqa.cli._batch_report import report
from giqa.cli._common import FAILURE, Exit, Tally, read_secret, stdin
from giqa.cli._options import (
    COUNT,
    FOLDER,
    ON_A_SERVER,
    TIME,
    Finite,
    GroupedCommand,
    check_given,
    option,
    server_options,
)

if TYPE_CHECKING:
    from giqa.batch import Progress, Summary

_SCORING = (
    *("profile", "max_bytes", "max_pixels", "max_frames", "fps", "every", "keyframes"),
    *("start_s", "end_s", "scenes", "window_s"),
)
_RUN, _IN, _VIDEO = option("The run"), option("Inputs"), option("Videos")
_LOG_S = 60.0
"""Seconds between lines of progress where there is no terminal."""


@click.group()
def batch() -> None:
    """Score any number of inputs to Parquet shards; a run goes on after any end."""


batch.add_command(report)


@batch.command(cls=GroupedCommand)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@_RUN("--out", required=True, type=FOLDER, metavar="DIR", help="The run's folder.")
@_RUN(
    "--shard-size",
    type=COUNT,
    default=1000,
    help="Images in a shard: the most that a kill costs.",
)
@_RUN(
    "--check",
    type=click.Choice(["stat", "hash", "none"]),
    default="stat",
    help="What tells that an input changed: size and time or ETag; SHA-256; nothing.",
)
@_RUN(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="local: in this process; ray: by workers of a Ray cluster.",
)
@_RUN("--workers", type=COUNT, help="With ray.  [default: all CPUs]")
@_RUN("--json", "as_json", is_flag=True, help="Print JSON.")
@_IN("--recursive", "-r", is_flag=True, help="Descend into directories.")
@_IN("-0", "null_separated", is_flag=True, help="Lists are NUL-separated.")
@_IN(
    "--column",
    metavar="C",
    help="Column of a table: paths, bytes or {bytes, path}.  [default: the first that fits]",
)
@_IN("--keep", metavar="COLUMNS", help="Columns that rows carry, too, separated by commas.")
@_options.PROFILE
@_options.BUNDLE
@_options.PRECISION
@_options.RAY_THREADS
@_options.BATCH
@_options.URLS
@server_options
@_options.limit_options(
    file="Largest file, in bytes.  [default: images 100 MiB, videos any]",
    pixels="Most pixels of a picture.  [default: 200 million]",
    frames="Most frames or pages of an image, most scored frames of a video.  "
    "[default: 10,000, 1 million]",
)
@_VIDEO("--fps", type=Finite(0, min_open=True), help="Frames of a video a second.")
@_VIDEO("--every", type=COUNT, help="Each so-many-th frame of a video.")
@_VIDEO("--keyframes", is_flag=True, help="The keyframes of a video.")
@_VIDEO("--start", "start_s", type=float, metavar="S", help="Begin videos at S seconds.")
@_VIDEO("--end", "end_s", type=float, metavar="S", help="End videos before S seconds.")
@_VIDEO("--scenes/--no-scenes", default=True, help="Find videos' cuts.")
@_VIDEO(
    "--window", "window_s", type=TIME, default=1.0, metavar="S", help="Length of the worst window."
)
def run(
    inputs: tuple[str, ...],
    out: Path,
    shard_size: int,
    recursive: bool,
    null_separated: bool,
    column: str | None,
    keep: str | None,
    check: Any,
    as_json: bool,
    **options: Any,
) -> None:
    """Score inputs to Parquet shards in a folder.

    An INPUT is a file, a directory, a pattern, a URI, a list (.txt, .lst, - for stdin), a table of
    paths or of pictures (.parquet, .arrow, .feather) or a tar shard (.tar).

    \b
    Examples:
      giqa batch run photos/ --recursive --out scores
      giqa batch run 'shards/*.tar' --out scores --shard-size 500
      giqa batch run uris.parquet --column image --keep id --out scores --url grpc://127.0.0.1:8001
    """  # noqa: D301 (click's \b keeps the lines)
    from giqa.batch import Runtime, Scoring, Sources
    from giqa.batch import run as run_batch

    if not options["urls"]:
        check_given(ON_A_SERVER, "it is for --url")
    scoring = Scoring(**{name: options.pop(name) for name in _SCORING})
    deadline = options.pop("deadline")
    token = read_secret(options["token_file"])
    runtime = Runtime(**options, deadline_s=deadline, token=token)
    sources = Sources(
        inputs=inputs,
        recursive=recursive,
        null_separated=null_separated,
        column=column,
        keep=tuple(name.strip() for name in keep.split(",")) if keep else (),
        check=check,
    )
    with _progress() as progress:
        summary = run_batch(
            sources,
            out,
            scoring=scoring,
            runtime=runtime,
            shard_size=shard_size,
            stdin=stdin() if "-" in inputs else None,
            progress=progress,
        )
    _print(summary, as_json)


@batch.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def resume(folder: Path, as_json: bool) -> None:
    """Go on with a run: score the shards that are not there yet, and what changed since.

    Example: giqa batch resume scores
    """
    from giqa.batch import resume as resume_batch

    _go_on(folder, as_json, resume_batch)


@batch.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def update(folder: Path, as_json: bool) -> None:
    """Bring a run up to its inputs: new ones get shards of their own, gone ones are marked.

    Example: giqa batch update scores
    """
    from giqa.batch import update as update_batch

    _go_on(folder, as_json, update_batch)


def _go_on(folder: Path, as_json: bool, how: Callable[..., Summary]) -> None:
    from giqa.batch import read_plan

    token = read_secret(read_plan(folder).runtime.token_file)
    with _progress() as progress:
        summary = how(folder, token=token, progress=progress)
    changes = summary.changes
    if changes.changed:
        click.echo(f"giqa: {changes.changed} inputs changed: scored again", err=True)
    if changes.new:
        taken = how.__name__ == "update"
        what = "appended" if taken else "`giqa batch update` takes them in"
        click.echo(f"giqa: {changes.new} inputs are new: {what}", err=True)
    if changes.gone:
        click.echo(f"giqa: {changes.gone} inputs are gone: their rows stay", err=True)
    _print(summary, as_json)


@batch.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
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
        if verdict.gone:
            click.echo(f"{folder}: {verdict.gone} inputs are gone")
    _passed(verdict.passed)
    if verdict.problems:
        raise Exit(FAILURE)


def _passed(passed: dict[str, int]) -> None:
    """Say what was no input: nothing that was named is passed over in silence."""
    from collections import Counter

    from giqa.inputs import listed

    if passed:
        click.echo(f"giqa: passed over, no inputs: {listed(Counter(passed))}", err=True)


def _print(summary: Summary, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(summary), indent=1))
    else:
        click.echo(
            f"{summary.folder}: {summary.inputs} inputs, {summary.rows} rows, "
            f"{summary.shards} shards, {summary.written} written now"
            + (f", {summary.videos} videos" if summary.videos else "")
        )
    _passed(summary.passed)
    if summary.failed:
        from giqa.batch import failures

        tally = Tally()
        for error in failures(summary.folder):
            tally.add(error, None)
        tally.finish()


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on stderr, if that is a terminal; else a line a minute."""
    terminal = sys.stderr.isatty()
    said = time.monotonic()
    shape = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
    with tqdm(disable=not terminal, file=sys.stderr, bar_format=shape, total=1) as bar:

        def show(now: Progress) -> None:
            nonlocal said
            left = "" if now.eta_s is None else f", {tqdm.format_interval(now.eta_s)} left"
            told = f"{now.rate:.1f} images/s{left}, {now.failed} failed"
            if terminal:
                bar.total = now.total
                bar.set_postfix_str(told, refresh=False)
                bar.n = now.done
                bar.refresh()
            elif now.state == "running" and time.monotonic() - said >= _LOG_S:
                said = time.monotonic()
                click.echo(f"giqa: {now.done} of {now.total}, {told}", err=True)

        yield show
