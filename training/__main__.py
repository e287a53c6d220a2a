"""`python -m training`: opinion scores to bundles."""

from __future__ import annotations

from pathlib import Path

import click

from giqa.cli import errors_to_exit_codes
from giqa.errors import GiqaError, UsageError
from giqa.manifest import Accuracy
from giqa.precision import CPU_ASKED, Asked
from training.board.command import command as board
from training.data.rounds import ROUNDS
from training.evaluation.command import command as evaluate
from training.fidelity.command import fidelity
from training.parity import parity
from training.rendered.command import rendered
from training.transfer.command import render, study, transfer


@click.group(help=__doc__)
def main() -> None:
    """Entry point."""


@main.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--rounds",
    type=click.IntRange(1, ROUNDS),
    help="Train and test on so many seeded rounds, and tell the median.",
)
def fit(recipe: Path, rounds: int | None) -> None:
    """Train by RECIPE (TOML); run again to go on after an interruption.

    Example: python -m training fit training/recipes/giqa-s.toml
    """
    from training import recipe as recipes
    from training.evaluation import rounds as tests
    from training.fit import final_weights
    from training.fit import fit as run

    what = recipes.read(recipe)
    if rounds is not None:
        click.echo(tests.markdown(tests.run(what, rounds)), nl=False)
        return
    run(what)
    click.echo(final_weights(what.output))


@main.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def card(recipe: Path, out: Path) -> None:
    """Write a model card's words to be filled in; what RECIPE does not say is a question.

    Example: python -m training card my.toml --out my.card.toml
    """
    from training import recipe as recipes
    from training.card import template

    if out.exists():
        raise UsageError("is there already", item=str(out), remedy="give another --out")
    out.write_text(template(recipes.read(recipe)), encoding="utf-8")
    click.echo(out)


main.add_command(board)
main.add_command(evaluate)
main.add_command(parity)
main.add_command(transfer)
main.add_command(render)
main.add_command(study)
main.add_command(fidelity)
main.add_command(rendered)


@main.command()
@click.option("--recipe", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--card", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--version", required=True, help="major.minor.patch")
@click.option("--name", default="", help="Of the bundle.  [default: the preset's]")
@click.option("--accuracy", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--board",
    "board_file",
    type=click.Path(exists=True, path_type=Path),
    help="board.json of the same weights, for the card.",
)
@click.option(
    "--engines",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also build float32 engines into this folder (needs torch-tensorrt and a GPU).",
)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def export(
    recipe: Path,
    card: Path,
    version: str,
    name: str,
    accuracy: tuple[Path, ...],
    board_file: Path | None,
    engines: Path | None,
    out: Path,
) -> None:
    """Write a finished run as a bundle.

    Example: python -m training export --recipe training/recipes/giqa-s.toml
    --card training/recipes/giqa-s.card.toml --version 0.1.0 --out runs/bundle
    """
    from safetensors.torch import load_file

    from training import provenance
    from training import recipe as recipes
    from training.board.tables import for_card
    from training.card import facts, read_card, title
    from training.engines import compile_plans, write_plans
    from training.export import export_bundle
    from training.fit import final_weights
    from training.model import create

    what, words = recipes.read(recipe), read_card(card)
    for question in words.questions():
        click.echo(f"giqa: {card}: {question}", err=True)
    model = create(what.preset, load_file(final_weights(what.output)))
    # The part that can fail for want of a GPU comes first.
    plans = None if engines is None else compile_plans(model)
    dataset = title(what.data)
    bundle = export_bundle(
        model,
        out,
        version=version,
        accuracy=[Accuracy.model_validate_json(p.read_bytes()) for p in accuracy],
        board="" if board_file is None else for_card(board_file.read_bytes()),
        card=words,
        name=name,
        origins=provenance.read(what.output),
        told=facts(what),
        training={
            "dataset": dataset,
            "freeze": what.freeze.model_dump(mode="json"),
            "variants": None if what.features is None else what.features.variants,
            "optimisation": what.optimisation.model_dump(mode="json"),
        },
        calibrated_on=f"{dataset}, the validation split" if what.calibrate else "none",
    )
    click.echo(bundle.folder)
    if engines is not None and plans is not None:
        write_plans(plans, engines, bundle)


@main.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--folder", required=True, type=click.Path(path_type=Path), help="Feature cache.")
def baseline(recipe: Path, folder: Path) -> None:
    """What ridge regression and a small MLP reach on RECIPE's frozen features.

    The ridge's strength and the MLP's epoch are chosen on validation; BIQ2021's test split is
    measured once, for the figure.

    Example: python -m training baseline training/recipes/giqa-s.toml --folder runs/pooled
    """
    from training import baseline as baselines
    from training import recipe as recipes

    what = recipes.read(recipe)
    for line in baselines.table(what, folder):
        click.echo(line)


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--bundle", help="Bundle folder or name.  [default: giqa-s]")
@click.option("--precision", type=click.Choice(CPU_ASKED), default="auto", show_default=True)
def invariance(folder: Path, bundle: str | None, precision: Asked) -> None:
    """How far scores move when the photographs in FOLDER come as PNG, smaller, turned, squashed.

    Example: python -m training invariance photos
    """
    from giqa.local import LocalScorer
    from training.data.unlabelled import list_images
    from training.evaluation.invariance import invariance as moves

    click.echo("| form | n | median move | p95 | bias |\n|---|---|---|---|---|")
    with LocalScorer(bundle, precision=precision) as scorer:
        for row in moves(scorer, list_images(folder)):
            values = f"{row.median:.2f} | {row.p95:.2f} | {row.bias:+.2f}"
            click.echo(f"| {row.form} | {row.n} | {values} |")


@main.command()
@click.option("--bundle", help="Bundle folder or name.  [default: giqa-s]")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def bands(bundle: str | None, out: Path) -> None:
    """Draw scikit-image's sample photographs, made worse step by step, with scores and bands.

    Example: python -m training bands --out training/bands.jpg
    """
    from PIL import Image
    from skimage import data

    from giqa.local import LocalScorer
    from training.evaluation.bands import bands as draw

    photographs = [Image.fromarray(f()) for f in (data.astronaut, data.coffee, data.rocket)]
    with LocalScorer(bundle) as scorer:
        draw(scorer, photographs).save(out, quality=70)
    click.echo(out)


@main.command()
@click.option("--bundle", help="Bundle folder or name.  [default: giqa-s]")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
def backbones(bundle: str | None, out: Path) -> None:
    """Take both towers out of a bundle's graphs, as files of weights for a recipe; no network.

    Example: python -m training backbones --out runs/backbones
    """
    from giqa.bundle import load_bundle
    from training import towers

    for path in towers.write(load_bundle(bundle), out):
        click.echo(path)


def run() -> None:
    """Run the command line, with the exit codes of `giqa`."""
    with errors_to_exit_codes():
        try:
            main(prog_name="python -m training", standalone_mode=False)
        except GiqaError:
            raise
        except ValueError as e:  # recipes, labels, caches, checkpoints that do not fit together
            raise UsageError(str(e), remedy="") from e


if __name__ == "__main__":
    run()
