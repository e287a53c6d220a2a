"""`python -m training rendered`."""

from __future__ import annotations

from pathlib import Path

import click

from giqa.cli import ITEMS_FAILED, Exit
from giqa.results import printable

_SHOWN = 5


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--dry-run", is_flag=True, help="Only estimate time and room.")
def rendered(recipe: Path, out: Path, workers: int, dry_run: bool) -> None:
    """Render groups of a clean picture and four damaged ones by RECIPE (TOML), and what they lose.

    Run again to go on after an interruption. The exit code is 3 if a photograph could not be read;
    its groups are left out.

    Example: python -m training rendered training/rendered/example.toml --out rendered --dry-run
    """
    from training.rendered import recipe as recipes
    from training.rendered.writing import render

    done = render(
        recipes.read(recipe),
        out,
        workers=workers,
        dry_run=dry_run,
        tell=lambda line: click.echo(f"giqa: {line}", err=True),
    )
    if dry_run:
        return
    for line in done.failed[:_SHOWN]:
        click.echo(f"giqa: {printable(line)}", err=True)
    click.echo(done.table)
    if done.failed:
        click.echo(f"giqa: {len(done.failed)} groups could not be made", err=True)
        raise Exit(ITEMS_FAILED)
