"""`python -m training study`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def study(file: Path) -> None:
    """Measure what quality transfer is worth, as FILE (TOML) says; run again to go on.

    Prints a Markdown table: means over seeds with 95 % bootstrap intervals.

    Example: python -m training study training/transfer/study/saqt.toml
    """
    from training.transfer.study import config, outcome
    from training.transfer.study.run import run

    click.echo(outcome.markdown(run(config.read(file))), nl=False)
