"""`python -m training`: opinion scores to bundles."""

from __future__ import annotations

import json
from pathlib import Path

import click

from giqa.bundle import Accuracy
from giqa.contract import PROFILES, Profile

NAMES = {"biq2021": "BIQ2021"}


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


@main.command()
@click.option("--recipe", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--bundle", default=None, help="Folder or name; the default bundle unless given.")
@click.option("--split", type=click.Choice(["validation", "named", "test"]), required=True)
@click.option("--profile", type=click.Choice(PROFILES), default="fast")
@click.option("--precision", default="auto")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures here.")
def evaluate(
    recipe: Path, bundle: str | None, split: str, profile: Profile, precision: str, out: Path | None
) -> None:
    """Measure a bundle against the recipe's data set.

    `validation` is the recipe's whole validation split, `named` the part of it that the recipe
    lists by name, `test` the official test split.

    Example: python -m training evaluate --recipe training/recipes/giqa-s.toml --split named
    """
    from giqa.engine import LocalScorer
    from training import recipe as recipes
    from training.data import biq2021
    from training.evaluate import evaluate as run
    from training.fit import named_files, splits

    what = recipes.read(recipe)
    if split == "test":
        samples = biq2021.load(what.data.root, "test")
        protocol = "Official test split, used once, for this figure."
    else:
        _, samples = splits(what)
        protocol = "Held out of the official training split; the epoch was chosen on it."
        if split == "named":
            names = named_files(what)
            samples = [s for s in samples if s.path.name in names]
            split = f"validation, {len(samples)} fixed by name"
    with LocalScorer(bundle, precision=precision) as scorer:  # type: ignore[arg-type]
        found = run(
            scorer,
            samples,
            dataset=NAMES[what.data.dataset],
            split=split,
            protocol=protocol,
            profile=profile,
        )
    text = json.dumps(found.model_dump(mode="json"), indent=1)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(text)


@main.command()
@click.option("--recipe", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--card", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--version", required=True, help="major.minor.patch")
@click.option("--accuracy", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def export(recipe: Path, card: Path, version: str, accuracy: tuple[Path, ...], out: Path) -> None:
    """Write a finished run as a bundle.

    Example: python -m training export --recipe training/recipes/giqa-s.toml
    --card training/recipes/giqa-s.card.toml --version 0.1.0 --out runs/bundle
    """
    from safetensors.torch import load_file

    from training import recipe as recipes
    from training.card import read_card
    from training.export import export_bundle
    from training.fit import final_weights
    from training.model import create

    what = recipes.read(recipe)
    model = create(what.preset, load_file(final_weights(what.output)))
    bundle = export_bundle(
        model,
        out,
        version=version,
        accuracy=[Accuracy.model_validate_json(p.read_bytes()) for p in accuracy],
        card=read_card(card),
        training={
            "dataset": NAMES[what.data.dataset],
            "variants": what.features.variants,
            "optimisation": what.optimisation.model_dump(mode="json"),
        },
    )
    click.echo(bundle.folder)


if __name__ == "__main__":
    main(prog_name="python -m training")
