"""`python -m training`: opinion scores to bundles."""

from __future__ import annotations

from pathlib import Path

import click

from giqa.cli import errors_to_exit_codes
from giqa.errors import GiqaError, UsageError
from giqa.manifest import Accuracy
from giqa.openvino import PRECISIONS, Precision
from training.evaluation.choices import NAMES
from training.evaluation.command import command as evaluate
from training.parity import parity
from training.transfer.command import render, study, transfer


@click.group(help=__doc__)
def main() -> None:
    """Entry point."""


@main.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def fit(recipe: Path) -> None:
    """Train by RECIPE (TOML); run again to go on after an interruption.

    Example: python -m training fit training/recipes/giqa-s.toml
    """
    from training import recipe as recipes
    from training.fit import final_weights
    from training.fit import fit as run

    what = recipes.read(recipe)
    run(what)
    click.echo(final_weights(what.output))


main.add_command(evaluate)
main.add_command(parity)
main.add_command(transfer)
main.add_command(render)
main.add_command(study)


@main.command()
@click.option("--recipe", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--card", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--version", required=True, help="major.minor.patch")
@click.option("--accuracy", multiple=True, type=click.Path(exists=True, path_type=Path))
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
    accuracy: tuple[Path, ...],
    engines: Path | None,
    out: Path,
) -> None:
    """Write a finished run as a bundle.

    Example: python -m training export --recipe training/recipes/giqa-s.toml
    --card training/recipes/giqa-s.card.toml --version 0.1.0 --out runs/bundle
    """
    from safetensors.torch import load_file

    from training import recipe as recipes
    from training.card import read_card
    from training.engines import compile_plans, write_plans
    from training.export import export_bundle
    from training.fit import final_weights
    from training.model import create

    what = recipes.read(recipe)
    model = create(what.preset, load_file(final_weights(what.output)))
    # The part that can fail for want of a GPU comes first.
    plans = None if engines is None else compile_plans(model)
    name = NAMES.get(what.data.dataset, what.data.root.stem)
    bundle = export_bundle(
        model,
        out,
        version=version,
        accuracy=[Accuracy.model_validate_json(p.read_bytes()) for p in accuracy],
        card=read_card(card),
        training={
            "dataset": name,
            "freeze": what.freeze.model_dump(mode="json"),
            "variants": None if what.features is None else what.features.variants,
            "optimisation": what.optimisation.model_dump(mode="json"),
        },
        calibrated_on=f"{name}, the validation split" if what.calibrate else "none",
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
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True)
def invariance(folder: Path, bundle: str | None, precision: Precision) -> None:
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
