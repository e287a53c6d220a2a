"""`giqa score`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from giqa.cli._common import BELOW, ITEMS_FAILED, UNREACHABLE, Exit
from giqa.cli._scorers import open_scorer, scorer_options
from giqa.contract import PROFILES, Profile
from giqa.errors import ServerUnavailableError, UsageError
from giqa.results import FORMATS, ImageResult, Writer, open_writer, printable
from giqa.types import Limits

_DEFAULTS = Limits()
_OUT = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="PATH|DIR|GLOB|-...")
@scorer_options
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="fast",
    show_default=True,
    help="fast: the whole picture in one view; precise: up to nine views of native pixels.",
)
@click.option("--recursive", "-r", is_flag=True, help="Descend into directories.")
@click.option("-0", "null_separated", is_flag=True, help="The list on stdin is NUL-separated.")
@click.option("--json", metavar="F", help="Write rows as a JSON list; - is stdout.")
@click.option("--jsonl", metavar="F", help="Write rows as JSON Lines; - is stdout.")
@click.option("--csv", metavar="F", help="Write rows as CSV; - is stdout.")
@click.option("--parquet", metavar="F", help="Write rows as Parquet.")
@click.option("--report", type=_OUT, metavar="F.html", help="Write a page of pictures and charts.")
@click.option(
    "--map", "map_folder", type=_FOLDER, metavar="DIR", help="Write each image's quality map."
)
@click.option("--fail-below", type=float, metavar="X", help="Exit 4 if a score is below X.")
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
def score(
    inputs: tuple[str, ...],
    profile: Profile,
    recursive: bool,
    null_separated: bool,
    report: Path | None,
    map_folder: Path | None,
    fail_below: float | None,
    max_bytes: int,
    max_pixels: int,
    max_frames: int,
    **options: Any,
) -> None:
    """Score images: one row per input, in input order.

    A directory stands for the images in it, - for a list of paths on stdin. The table (path,
    score, band, size, error code) goes to stdout, tab-separated if that is not a terminal.

    \b
    Examples:
      giqa score photo.jpg
      giqa score --recursive --csv scores.csv --fail-below 40 photos/
      find . -name '*.png' -print0 | giqa score -0 --jsonl - -
      giqa score --report photos.html --map maps/ photos/
      giqa score --url grpc://127.0.0.1:8001 photos/
    """  # noqa: D301 (click's \b keeps the lines)
    from giqa.inputs import find

    stdin = sys.stdin.buffer if "-" in inputs else None
    if null_separated and stdin is None:
        raise UsageError("-0 needs - among the inputs", item="-0")
    below = failed = unreachable = 0
    with ExitStack() as stack:
        writers, table = _writers(stack, options)
        limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, max_frames=max_frames)
        scorer = stack.enter_context(open_scorer(options, limits))
        has_map = scorer.manifest.tensors.quality_map
        if map_folder is not None:
            from giqa.report import MapFolder

            if not has_map:
                raise UsageError(f"{scorer.manifest.id} has no quality map", item="--map")
            writers.append(MapFolder(map_folder, limits=limits))
        if report is not None:
            from giqa.report import ImageReport

            page = ImageReport(
                report,
                bundle=scorer.manifest.id,
                engine=scorer.engine,
                profile=profile,
                sources=inputs,
                limits=limits,
            )
            stack.callback(page.close)  # an interruption, too, shows what was done
            writers.append(page)
        maps = has_map and not (report is None and map_folder is None)
        items = find(inputs, recursive=recursive, stdin=stdin, null_separated=null_separated)
        bar = stack.enter_context(_progress(table))
        for result in scorer.score(items, profile=profile, quality_map=maps):
            for writer in writers:
                writer.write(result)
            if table:
                print(_row(result), flush=sys.stdout.isatty())
            bar.update()
            failed += result.error is not None
            unreachable += isinstance(result.error, ServerUnavailableError)
            below += (
                fail_below is not None and result.score is not None and result.score < fail_below
            )
    sys.stdout.flush()
    # First: a breach of --fail-below is a verdict, whatever else failed.
    if below:
        click.echo(f"giqa: {below} scored below {fail_below}", err=True)
        raise Exit(BELOW)
    if failed:
        click.echo(f"giqa: {failed} could not be scored", err=True)
        raise Exit(UNREACHABLE if unreachable else ITEMS_FAILED)


def _writers(stack: ExitStack, files: dict[str, Any]) -> tuple[list[Writer[ImageResult]], bool]:
    """Open the asked-for writers; tell whether stdout is free for the table."""
    to_stdout = [kind for kind in FORMATS if files.get(kind) == "-"]
    if len(to_stdout) > 1 or "parquet" in to_stdout:
        raise UsageError("stdout takes one of json, jsonl, csv", item=f"--{to_stdout[-1]} -")
    writers: list[Writer[ImageResult]] = []
    for kind in FORMATS:
        if (name := files.get(kind)) is not None:
            target: Any = sys.stdout.buffer if name == "-" else Path(name)
            writers.append(stack.enter_context(open_writer(target, kind)))
    return writers, not to_stdout


def _progress(table: bool) -> tqdm[Any]:
    """A bar on stderr, if that is a terminal that the table is not written to."""
    shown = sys.stderr.isatty() and not (table and sys.stdout.isatty())
    return tqdm(unit="image", disable=not shown, file=sys.stderr, mininterval=0.5)


def _row(result: ImageResult) -> str:
    cells = [
        printable(result.path),
        "-" if result.score is None else f"{result.score:.2f}",
        result.band or "-",
        f"{result.width}x{result.height}" if result.width else "-",
        "" if result.error is None else result.error.code,
    ]
    if not sys.stdout.isatty():
        return "\t".join(cells)
    path, score, band, size, code = cells
    return f"{path:<44} {score:>6}  {band:<9} {size:>11}  {code}".rstrip()
