"""`python -m training board`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from giqa import files
from giqa.errors import UsageError
from giqa.precision import CPU_ASKED, Asked

if TYPE_CHECKING:
    from training.board.recipe import BoardRecipe

JSON = "board.json"
TABLE = "board.md"


@click.command(name="board")
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("step", type=click.Choice(["measure", "render"]), default="measure")
@click.option("--bundle", help="Measure a bundle: folder or name.  [default: giqa-s]")
@click.option(
    "--run",
    type=click.Path(exists=True, path_type=Path),
    metavar="R",
    help="Measure a finished run instead: its folder, or its final.safetensors.",
)
@click.option("--precision", type=click.Choice(CPU_ASKED), default="auto", show_default=True)
@click.option("--sets", metavar="A,B...", help="These sets alone.  [default: all of the recipe]")
@click.option(
    "--left-out",
    multiple=True,
    metavar="SUBSET=RUN",
    help="A run that SUBSET was left out of: measures it there; repeatable.",
)
@click.option("--whole", is_flag=True, help="Leave the score's parts out.")
@click.option("--probes/--no-probes", default=True, show_default=True, help="Ridge and MLP, too.")
@click.option("--batch", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="render: processes.  [default: threads]")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help=f"Write {JSON}, {TABLE} and the plot there.",
)
def command(
    recipe: Path,
    step: Literal["measure", "render"],
    bundle: str | None,
    run: Path | None,
    precision: Asked,
    sets: str | None,
    left_out: tuple[str, ...],
    whole: bool,
    probes: bool,
    batch: int,
    resamples: int,
    seed: int,
    workers: int | None,
    out: Path | None,
) -> None:
    """Measure a score wherever it should hold, by RECIPE (TOML): one table, JSON and a plot.

    The step `render` makes the pictures that the board derives from photographs, once. Both can be
    interrupted at any time; the same command goes on.

    \b
    Examples:
      python -m training board training/recipes/board.toml render
      python -m training board training/recipes/board.toml --precision f32 --out runs/board/0.3.0
      python -m training board training/recipes/board.toml --run runs/mine --sets h265,native
    """  # noqa: D301 (click's \b keeps the lines)
    from training.board import recipe as recipes  # it brings torch

    what = recipes.read(recipe)
    chosen = _chosen(what, sets)
    if step == "render":
        _render(what, chosen, workers or what.threads)
        return
    if run is not None and bundle is not None:
        raise UsageError("excludes --bundle", item="--run")
    if run is not None and precision not in ("auto", "f32"):
        raise UsageError("runs are measured in float32", item=f"--precision {precision}")
    from training.board import plot, scorers, tables
    from training.board.measure import Wanted, measure
    from training.board.measures import Draw

    wanted = Wanted(chosen, probes, dict(map(_pair, left_out)), Draw(resamples, seed))
    open_run = partial(scorers.of_run, threads=what.threads, batch=batch, whole=whole)
    opened = (
        open_run(run)
        if run is not None
        else scorers.of_bundle(bundle, precision, threads=what.threads, batch=batch, whole=whole)
    )
    with opened as model:
        board = measure(what, model, wanted, open_run)
    text = tables.markdown(board)
    click.echo(text, nl=False)
    if out is not None:
        with files.storage(out):
            out.mkdir(parents=True, exist_ok=True)
            files.write(out / JSON, board.to_json().encode())
            files.write(out / TABLE, text.encode())
            plot.write(board, out)


def _render(what: BoardRecipe, chosen: list[str], workers: int) -> None:
    from training.board.render import renderings

    for one in renderings(what, chosen):
        now = one.run(workers)
        click.echo(f"{one.name}: {len(one.jobs)} pictures, {now} of them rendered now")


def _chosen(what: BoardRecipe, text: str | None) -> list[str]:
    names = what.names
    if text is None:
        return names
    asked = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(asked) - set(names)):
        raise UsageError(
            f"the recipe has no set {', '.join(map(repr, unknown))}",
            item="--sets",
            remedy=f"it has {', '.join(names)}",
        )
    return [name for name in names if name in asked]


def _pair(text: str) -> tuple[str, Path]:
    match = re.fullmatch(r"([^=]+)=(.+)", text)
    if match is None or not Path(match[2]).exists():
        raise UsageError(f"{text!r} is not SUBSET=RUN with a run that is there", item="--left-out")
    return match[1], Path(match[2])
