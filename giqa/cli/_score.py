"""`giqa score`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from giqa.cli import _options as options_
from giqa.cli._common import Tally, fitted, output, stdin
from giqa.cli._culling import ORDERS, Found, Selection, Sheet, names_beside
from giqa.cli._options import FOLDER, Finite, GroupedCommand, open_scorer, option
from giqa.contract import Profile
from giqa.errors import UsageError
from giqa.files import Output, check_apart
from giqa.results import FORMATS, Format, ImageResult, open_writer, printable
from giqa.rows import Closable, rows_into
from giqa.types import Item, Limits

if TYPE_CHECKING:
    from giqa.report import MapFolder

_IN, _OUT, _CULL = option("Inputs"), option("Outputs"), option("Culling")


@click.command(cls=GroupedCommand)
@click.argument("inputs", nargs=-1, required=True, metavar="PATH|DIR|GLOB|URL|-...")
@_IN("--recursive", "-r", is_flag=True, help="Descend into directories.")
@_IN("-0", "null_separated", is_flag=True, help="The list on stdin is NUL-separated.")
@_OUT("--json", metavar="F", help="Write rows as a JSON list; - is stdout.")
@_OUT("--jsonl", metavar="F", help="Write rows as JSON Lines; - is stdout.")
@_OUT("--csv", metavar="F", help="Write rows as CSV; - is stdout.")
@_OUT("--parquet", metavar="F", help="Write rows as Parquet.")
@_OUT("--report", metavar="F.html", help="Write a page of pictures and charts.")
@_OUT("--map", "map_folder", type=FOLDER, metavar="DIR", help="Write each image's quality map.")
@_OUT("--fail-below", type=Finite(), metavar="X", help="Exit 4 if a score is below X.")
@_CULL(
    "--sort",
    type=click.Choice(ORDERS),
    help="Order of the rows; all are kept in memory for it.  [default: of the inputs]",
)
@_CULL("--worst", type=click.IntRange(1), metavar="N", help="Only the N lowest scores.")
@_CULL("--best", type=click.IntRange(1), metavar="N", help="Only the N highest scores.")
@_CULL("--below", type=Finite(), metavar="X", help="Only scores below X.")
@_CULL("--above", type=Finite(), metavar="X", help="Only scores of at least X.")
@_CULL("--print0", is_flag=True, help="Print names alone, each ended by NUL, for xargs -0.")
@_CULL(
    "--label",
    metavar="F.csv",
    help="Write a sheet to look through: file, score, band, a label to fill in, and with --map "
    "the names of map and thumbnail.",
)
@_CULL("--bom", is_flag=True, help="With --label: begin with a byte order mark, as Excel wants it.")
@options_.PROFILE
@options_.scorer_options
@options_.image_limits
def score(
    inputs: tuple[str, ...],
    profile: Profile,
    recursive: bool,
    null_separated: bool,
    report: str | None,
    map_folder: Path | None,
    fail_below: float | None,
    label: str | None,
    bom: bool,
    print0: bool,
    **options: Any,
) -> None:
    """Score images: one row per input, in input order.

    A directory stands for the images in it, - for a list of paths on stdin. The table (path,
    score, band, size, error code) goes to stdout, tab-separated if that is not a terminal.

    \b
    Examples:
      giqa score photo.jpg
      giqa score --recursive --csv scores.csv --fail-below 40 photos/
      giqa score --worst 20 --print0 photos/ | xargs -0 mv -t aside/
      find . -name '*.png' -print0 | giqa score -0 --jsonl - -
      giqa score --report photos.html --map maps/ --label photos.csv photos/
      giqa score --url grpc://127.0.0.1:8001 photos/
    """  # noqa: D301 (click's \b keeps the lines)
    from giqa.inputs import find, listed

    listing = stdin() if "-" in inputs else None
    if null_separated and listing is None:
        raise UsageError("-0 needs - among the inputs", item="-0")
    below, above = options["below"], options["above"]
    if below is not None and above is not None and not above < below:
        raise UsageError(f"no score is below {below:g} and at least {above:g}", item="--below")
    if bom and label is None:
        raise UsageError("needs --label", item="--bom")
    files, table = _outputs(inputs, options, label=label, report=report, stdout=print0)
    if map_folder is not None and os.path.realpath(map_folder) in map(os.path.realpath, inputs):
        raise _among(map_folder)
    limits = options_.limits_of(options, Limits)
    chosen = Selection(**{name: options[name] for name in ("sort", "worst", "best")},
                       below=below, above=above)  # fmt: skip
    tally, passed = Tally(fail_below), Counter[str]()
    with ExitStack() as stack:
        scorer = stack.enter_context(open_scorer(options, limits))
        sheet: Closable[Found] | None = None
        if label is not None:
            make = files["label"]
            sheet = stack.enter_context(rows_into(make, lambda f: Sheet(f, mark=bom)))
        rows = [stack.enter_context(open_writer(files[k], k)) for k in FORMATS if k in files]
        has_map = scorer.manifest.tensors.quality_map
        maps: MapFolder | None = None
        if map_folder is not None:
            from giqa.report import MapFolder

            if not has_map:
                raise UsageError(f"{scorer.manifest.id} has no quality map", item="--map")
            maps = MapFolder(map_folder, limits=limits, thumbnails=label is not None)
        page = None
        if report is not None:
            from giqa.report import ImageReport

            page = stack.enter_context(
                ImageReport(
                    Path(report),
                    bundle=scorer.manifest.id,
                    engine=scorer.engine,
                    profile=profile,
                    sources=inputs,
                    limits=limits,
                )
            )
        found_items = find(
            inputs,
            recursive=recursive,
            stdin=listing,
            null_separated=null_separated,
            passed=passed,
            without=map_folder,
        )
        items = _apart(found_items, files.values(), maps)
        bar = stack.enter_context(_progress(table))

        def emit(found: Found) -> None:
            for writer in rows:
                writer.write(found.result)
            if sheet is not None:
                sheet.write(found)
            if print0:
                if found.result.score is not None:
                    sys.stdout.buffer.write(os.fsencode(found.result.path) + b"\0")
            elif table:
                print(_row(found.result), flush=sys.stdout.isatty())

        wanted = has_map and (page is not None or maps is not None)
        try:
            for result in scorer.score(items, profile=profile, quality_map=wanted):
                names: tuple[str, ...] = ()
                if page is not None:
                    page.write(result)
                if maps is not None and map_folder is not None:
                    maps.write(result)
                    names = names_beside(map_folder, label, maps.map, maps.thumbnail)
                for found in chosen.add(Found(result, *names)):
                    emit(found)
                bar.update()
                tally.add(result.error, result.score)
        finally:  # what an interruption leaves is written, too
            for found in chosen.rest():
                emit(found)
    sys.stdout.flush()
    if passed:
        click.echo(f"giqa: passed over {listed(passed)}", err=True)
    tally.finish()


def _outputs(
    inputs: tuple[str, ...], options: dict[str, Any], *, stdout: bool, **others: str | None
) -> tuple[dict[Any, Output], bool]:
    """Look at everything that will be written to; tell whether stdout is free for the table."""
    names = {kind: options[kind] for kind in FORMATS} | others
    given: dict[Format | str, str] = {kind: n for kind, n in names.items() if n is not None}
    to_stdout = [kind for kind, name in given.items() if name == "-"]
    if len(to_stdout) + stdout > 1 or "parquet" in to_stdout or "report" in to_stdout:
        item = f"--{to_stdout[-1]} -"
        raise UsageError("stdout takes one of json, jsonl, csv, label, print0", item=item)
    files = {kind: output(name) for kind, name in given.items()}
    check_apart(files.values(), inputs)
    return files, not any(file.place == "descriptor 1" for file in files.values())


def _apart(
    items: Iterable[Item], outputs: Iterable[Output], maps: MapFolder | None
) -> Iterator[Item]:
    """Refuse to write over what a directory, pattern or list names."""
    taken = [output for output in outputs if os.path.exists(output.place)]
    for item in items:
        if taken and item.path is not None:
            check_apart(taken, [str(item.path)])
        if maps is not None and item.path is not None and maps.holds(item.path):
            raise _among(item.path)
        yield item


def _among(maps: Path) -> UsageError:
    """Maps would be written over pictures, or be scored as such."""
    return UsageError("is an input, too", item=str(maps), remedy="give maps a folder of their own")


def _progress(table: bool) -> tqdm[Any]:
    """A bar on stderr, if that is a terminal that the table is not written to."""
    shown = sys.stderr.isatty() and not (table and sys.stdout.isatty())
    return tqdm(unit="image", disable=not shown, file=sys.stderr, mininterval=0.5)


def _row(result: ImageResult) -> str:
    name = printable(result.path)
    score = "-" if result.score is None else f"{result.score:.2f}"
    size = f"{result.width}x{result.height}" if result.width else "-"
    code = "" if result.error is None else result.error.code
    if not sys.stdout.isatty():
        return "\t".join([name, score, result.band or "-", size, code])
    if code:
        return f"{fitted(name, 27)} {score:>6}  {code}"
    return f"{fitted(name, 33)} {score:>6}  {result.band:<9} {size:>11}"
