"""`python -m benchmarks`: speed and memory, measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.options import QUICK_ROUNDS, Options
from benchmarks.record import RESULTS, Record, Series
from benchmarks.rounds import limited
from benchmarks.suites import EVERYWHERE, SUITES
from benchmarks.wheels import PARTS
from giqa.cli import FAILURE, ITEMS_FAILED, errors_to_exit_codes
from giqa.errors import UsageError
from giqa.serving import BATCH

GPU_LIMIT = 300
"""Seconds that a part of `make gpu` may take."""
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(help=__doc__)
def main() -> None:
    """Entry point."""


@main.command()
@click.argument("suites", nargs=-1, type=click.Choice(list(SUITES)), metavar="[SUITE]...")
@click.option("--images", type=_FOLDER, help="JPEG files; without, sample photographs.")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Opinion scores (CSV: path, mos), for suites that look at accuracy, too.",
)
@click.option("--bundle", help="Folder or name of a packaged bundle; the default one unless given.")
@click.option("--threads", type=click.IntRange(1), default=Options.threads, show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(2),
    help=f"Counted rounds; {Options.rounds} unless given, with --quick {QUICK_ROUNDS}.",
)
@click.option("--seed", type=click.IntRange(0), default=Options.seed, show_default=True)
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    help=f"Seconds until a suite stops and keeps what it found; {GPU_LIMIT} for those on a GPU, "
    "else none.",
)
@click.option("--quick", is_flag=True, help="Only see that the suites run.")
@click.option("--full", is_flag=True, help="The long forms, such as 20,000 images for memory.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the results; benchmarks/results unless given, none with --quick.",
)
def run(
    suites: tuple[str, ...],
    rounds: int | None,
    limit: float | None,
    quick: bool,
    out: Path | None,
    **given: Any,
) -> None:
    """Run suites, all but `gpu` unless named, each in a process of its own.

    The exit code is 3 where time ran out before a suite's end.

    Example: python -m benchmarks run engine scale --images photos
    """
    names = list(dict.fromkeys(suites or EVERYWHERE))
    if len(names) > 1:
        given |= {"rounds": rounds, "limit": limit, "quick": quick, "out": out}
        sys.exit(max(_alone(name, given) for name in names))
    rounds = rounds or (QUICK_ROUNDS if quick else Options.rounds)
    options = Options(**given, rounds=rounds, quick=quick)
    with errors_to_exit_codes():
        from benchmarks import record
        from benchmarks import suites as all_suites
        from benchmarks.page import in_words

        suite, folder = names[0], None if quick and not out else out or RESULTS
        if limit is None and suite not in EVERYWHERE:
            limit = GPU_LIMIT
        keep = partial(record.save, folder=folder) if folder else None
        told = _told(limited(all_suites.run(suite, options), limit))
        found = record.record(suite, told, options, keep)
        for one in found.comparisons:
            click.echo(
                f"{one.series}: {in_words(one.ratio, found.get(one.series).unit)}, next to "
                f"{one.against} (x{one.low:.2f} .. x{one.high:.2f})",
                err=True,
            )
        if folder:
            click.echo(record.save(found, folder))
        if found.unfinished:
            kept = f"what it found ({len(found.series)} series) is kept"
            click.echo(f"{suite}: {found.unfinished}; {kept}", err=True)
            sys.exit(ITEMS_FAILED)


def _alone(name: str, given: Mapping[str, Any]) -> int:
    """This command for one suite: none then runs among the threads of another."""
    flags = [f"--{key}" for key, value in given.items() if value is True]
    flags += [
        f"--{key}={value}"
        for key, value in given.items()
        if value is not None and not isinstance(value, bool)
    ]
    command = [sys.executable, "-m", "benchmarks", "run", name, *flags]
    code = subprocess.run(command, check=False).returncode
    if code:
        click.echo(f"{name}: exit code {code}", err=True)
    return FAILURE if code < 0 else code  # ended by a signal


def _told(series: Iterator[Series]) -> Iterator[Series]:
    for one in series:
        low, high = min(one.values), max(one.values)
        click.echo(f"{one.name}: {one.median:.4g} {one.unit} ({low:.4g} .. {high:.4g})", err=True)
        yield one


@main.command()
@click.argument("base", type=click.Path(exists=True, path_type=Path))
@click.argument("new", type=click.Path(exists=True, path_type=Path))
@click.option("--tolerance", type=click.FloatRange(0), default=0.05, show_default=True)
def compare(base: Path, new: Path, tolerance: float) -> None:
    """Tell what changed from BASE to NEW: two results, or two folders of them.

    The exit code is 1 if anything became slower beyond the noise.

    Example: python -m benchmarks compare before/engine.json benchmarks/results/engine.json
    """
    from benchmarks.compare import compare as changes

    with errors_to_exit_codes():
        slower = False
        for before, after in _pairs(base, new):
            for line in _apart(before, after):
                click.echo(line, err=True)
            for change in changes(before, after, tolerance=tolerance):
                slower |= change.verdict == "slower"
                click.echo(
                    f"{after.suite}\t{change.series}\t{change.ratio or '-'}\t{change.verdict}"
                )
    sys.exit(int(slower))


def _pairs(base: Path, new: Path) -> Iterator[tuple[Record, Record]]:
    from benchmarks.record import load

    if base.is_file() and new.is_file():
        yield load(base), load(new)
        return
    if base.is_file() or new.is_file():
        raise UsageError("two files or two folders, not one of each", item=str(new))
    names = sorted({p.name for p in base.glob("*.json")} & {p.name for p in new.glob("*.json")})
    for name in sorted({p.name for p in (*base.glob("*.json"), *new.glob("*.json"))} - {*names}):
        click.echo(f"{name}: in one of the folders only", err=True)
    if not names:
        raise UsageError("the folders have no result in common", item=str(new))
    for name in names:
        yield load(base / name), load(new / name)


def _apart(base: Record, new: Record) -> Iterator[str]:
    """Why two runs may not be comparable."""
    for what in ("machine", "options"):
        old, now = getattr(base, what), getattr(new, what)
        for key in sorted(old.keys() | now.keys()):
            if key != "load" and old.get(key) != now.get(key):
                yield f"{new.suite}: {key}: {old.get(key)} then, {now.get(key)} now"


@main.command()
@click.argument("part", type=click.Choice(PARTS))
def wheels(part: str) -> None:
    """List what PART of `make gpu` needs beside PyTorch, for pip.

    Example: python -m benchmarks wheels gpu_graphs > wheels.txt
    """
    from benchmarks.wheels import wheels as wheels_of

    click.echo("\n".join(wheels_of(part)))


@main.command()
@click.argument("results", default=RESULTS, type=_FOLDER)
def plot(results: Path) -> None:
    """Draw RESULTS and write their tables into benchmarks/README.md.

    Example: python -m benchmarks plot
    """
    from benchmarks import page
    from benchmarks.plots import write_plot
    from giqa.files import write

    with errors_to_exit_codes():
        found = page.records(results)
        for one in found:
            click.echo(write_plot(one, results))
        if results.resolve() == RESULTS:
            text = page.with_results(page.README.read_text(encoding="utf-8"), found)
            write(page.README, text.encode())
            click.echo(page.README)
        else:
            for one in found:
                click.echo("\n\n".join("\n".join(table) for table in page.tables(one)))


@main.command()
@click.option("--bundle", help="Folder or name of a packaged bundle; the default one unless given.")
@click.option("--batch", type=click.IntRange(1, 64), default=BATCH["gpu"], show_default=True)
def predict(bundle: str | None, batch: int) -> None:
    """Predict images/s of GPU servers by arithmetic, and name what limits them.

    Example: python -m benchmarks predict --batch 64
    """
    from benchmarks.predict import GPUS, table, ways
    from giqa.bundle import load_bundle
    from giqa.precision import GPU_PREDICTED

    with errors_to_exit_codes():
        loaded = load_bundle(bundle)
        click.echo(table(loaded, batch=batch, precisions=GPU_PREDICTED))
        for name, found in ways(loaded, GPUS[-1]):
            click.echo(f"{found.gpu}, {name}: {found.rate:,.0f} images/s ({found.limit})")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
