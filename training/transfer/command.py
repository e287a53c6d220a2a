"""`python -m training transfer`, `render` and `study`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from giqa.cli import ITEMS_FAILED, Exit
from giqa.errors import UsageError
from giqa.results import printable
from training.data.rounds import ROUNDS

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(file_okay=False, path_type=Path)
_BACKBONE = "vit_base_patch16_clip_quickgelu_224.openai"
_SHOWN = 5


@click.command()
@click.argument("photos", type=_FOLDER)
@click.option("--dataset", default="kadid10k", show_default=True, help="Whose scores are taken.")
@click.option("--root", required=True, type=_FOLDER, help="The data set's folder.")
@click.option("--weights", required=True, type=_FILE, help="The backbone's, as safetensors.")
@click.option("--out", required=True, type=_OUT)
@click.option("--backbone", default=_BACKBONE, show_default=True, help="timm model name.")
@click.option(
    "--pool",
    type=click.Choice(["token", "mean"]),
    default="token",
    show_default=True,
    help="Of a ViT: the class token, or the mean of the others.",
)
@click.option(
    "--split",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="train: no score of references that `evaluate --split test` measures on.",
)
@click.option("--round", type=click.IntRange(1, ROUNDS), help="With --split train.  [default: 1]")
@click.option(
    "--references", type=_FOLDER, help="Originals.  [default: where the data set has them]"
)
@click.option("--mapping", type=_FILE, help="TOML of types and values.  [default: the data set's]")
@click.option("--types", metavar="TYPE,...", default="", help="Only these.  [default: all]")
@click.option(
    "--floor",
    type=click.FloatRange(-1, 1),
    default=0.0,
    show_default=True,
    help="Photographs less similar to every reference get no label.",
)
@click.option(
    "--size",
    metavar="WxH",
    help="Of rendered pictures, or `native`.  [default: the data set's]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--skip-leaks", is_flag=True, help="Leave out photographs that are a reference.")
@click.option("--cache", type=_OUT, help="Folder of features.  [default: cache in --out]")
def transfer(
    photos: Path,
    dataset: str,
    root: Path,
    weights: Path,
    backbone: str,
    pool: Any,
    mapping: Path | None,
    types: str,
    size: str | None,
    **others: Any,
) -> None:
    """Label the photographs in PHOTOS, to be rendered, by the references they resemble most.

    Photographs without a label are listed in left_out.csv; the exit code is 3 if some could not
    be read.

    Example: python -m training transfer photos --dataset kadid10k --root data/kadid10k
    --weights runs/backbones/clip_vit_b16.safetensors --out transferred
    """
    from training.transfer import mapping as mappings
    from training.transfer.embed import Embedder
    from training.transfer.run import LEFT_OUT, Options
    from training.transfer.run import transfer as run

    what = mappings.read(mapping) if mapping is not None else mappings.of_dataset(dataset)
    if what.dataset != dataset:
        raise UsageError(f"is of {what.dataset}, not of {dataset}", item=str(mapping))
    what = what.only([name.strip() for name in types.split(",") if name.strip()])
    chosen = what.size if size is None else _size(size)
    options = Options(photos=photos, mapping=what, root=root, size=chosen, **others)
    found = run(options, Embedder(backbone, weights, pool))
    counts = found.counts
    click.echo(
        f"{counts.labels} labels for {counts.labelled} of {counts.photos} photographs; "
        f"below the floor: {counts.below_floor}, references: {counts.leaks}, "
        f"duplicates: {counts.duplicates}, too small: {counts.too_small}, "
        f"unreadable: {counts.unreadable} ({options.out / LEFT_OUT})",
        err=True,
    )
    click.echo(options.out)
    if counts.unreadable:
        raise Exit(ITEMS_FAILED)


def _size(text: str) -> tuple[int, int] | None:
    if text == "native":
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"{text!r}", item="--size", remedy="give such as 512x384, or native")
    return int(width), int(height)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--out", required=True, type=_OUT)
@click.option("--photos", type=_FOLDER, help="Where photographs are now.  [default: as then]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--dry-run", is_flag=True, help="Only estimate time and room.")
def render(folder: Path, out: Path, **others: Any) -> None:
    """Render the pictures that FOLDER, written by `transfer`, has labels for.

    Run again to go on after an interruption. The exit code is 3 if a picture cannot have the PSNR
    that its label asks for; such pictures are left out.

    Example: python -m training render transferred --out pictures --workers 2
    """
    from training.transfer.rendering import render_all

    done = render_all(
        folder, out, tell=lambda line: click.echo(f"giqa: {line}", err=True), **others
    )
    if others["dry_run"]:
        return
    for line in done.failed[:_SHOWN]:
        click.echo(f"giqa: {printable(line)}", err=True)
    click.echo(done.table or out)
    if done.failed:
        click.echo(f"giqa: {len(done.failed)} pictures could not be made", err=True)
        raise Exit(ITEMS_FAILED)


@click.command()
@click.argument("recipe", type=_FILE)
@click.option("--labels", required=True, type=_FOLDER)
@click.option("--pictures", required=True, type=_FOLDER)
@click.option("--out", required=True, type=_OUT)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--steps", nargs=2, type=click.IntRange(1), default=(500, 500), show_default=True)
@click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True)
def study(recipe: Path, resamples: int, **others: Any) -> None:
    """Measure what quality transfer is worth on the references that RECIPE's round holds out.

    Labels and pictures are what `transfer` and `render` wrote. Run again to go on after an
    interruption.

    Example: python -m training study training/recipes/kadid10k.toml --labels transferred
    --pictures pictures --out runs/study
    """
    from training import recipe as recipes
    from training.transfer import study as studies

    what = recipes.read(recipe)
    found = studies.run(studies.Options(recipe=what, **others))
    click.echo(studies.markdown(found, studies.tested(what), resamples), nl=False)
