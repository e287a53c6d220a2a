"""`python -m build check|engines`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from giqa.bundle import DEFAULT, load_bundle
from giqa.cli import FAILURE, Exit
from giqa.errors import UsageError
from giqa.files import write
from giqa.precision import PRECISIONS, Precision
from giqa.serving import BATCH

BUNDLE = click.option(
    "--bundle", default=DEFAULT, show_default=True, help="Name of a packaged bundle, or a folder."
)
_MAX_BATCH = click.option(
    "--max-batch",
    type=click.IntRange(1, 64),
    default=BATCH["gpu"],
    show_default=True,
    help="Of the profiles.",
)
OF_ENGINES: Precision = "f16"
_LEVEL = click.option(
    "--level", type=click.IntRange(0, 5), help="Optimisation level; 0 builds fastest."
)


@click.command()
@BUNDLE
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="May be repeated.  [default: all that the bundle has]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("8.9", "12.0"),
    show_default=True,
    help="Compute capability; may be repeated.",
)
@_MAX_BATCH
@_LEVEL
@click.option("--json", "to", type=click.Path(dir_okay=False, path_type=Path), help="Report.")
def check(
    bundle: str,
    precisions: tuple[Precision, ...],
    targets: tuple[str, ...],
    max_batch: int,
    level: int | None,
    to: Path | None,
) -> None:
    """Compile a bundle's graphs with TensorRT-RTX, without a GPU; exit 1 if one is refused.

    A refused graph's node and what to change stand in its row.

    Example: python -m build check --bundle giqa-s --precision f16 --target 8.6
    """
    from build.check import NOT_PROVEN
    from build.check import check as run
    from build.graphs import precisions_of

    found = load_bundle(bundle)
    if not precisions:
        precisions = precisions_of(found)
    rows = []
    for row in run(found, precisions, targets, max_batch=max_batch, level=level):
        rows.append(row)
        result = f"{row.bytes / 1e6:.1f} MB, {row.seconds:.1f} s"
        if row.refusal is not None:
            result = f"refused at {row.refusal}\n{'':<27}{row.refusal.remedy}"
        click.echo(f"{row.graph:<14} {row.precision:<5} {result}")
    click.echo(NOT_PROVEN, err=True)
    if to is not None:
        report = {
            "schema": "giqa.check/1",
            "targets": targets,
            "max_batch": max_batch,
            "not_proven": NOT_PROVEN,
            "graphs": [row.to_json() for row in rows],
        }
        write(to, (json.dumps(report, indent=1) + "\n").encode())
    if any(row.refusal is not None for row in rows):
        raise Exit(FAILURE)


@click.command()
@BUNDLE
@click.option("--precision", type=click.Choice(PRECISIONS), default=OF_ENGINES, show_default=True)
@_MAX_BATCH
@click.option("--opt-batch", type=click.IntRange(1, 64), help="Tuned for.  [default: --max-batch]")
@click.option("--hardware-compatible", is_flag=True, help="For every GPU since Ampere.")
@click.option("--version-compatible", is_flag=True, help="For later TensorRTs of this major, too.")
@click.option("--refittable", is_flag=True, help="Weights may be changed later.")
@click.option("--workspace-mb", type=click.IntRange(1), help="GPU memory for the builder.")
@_LEVEL
@click.option(
    "--timing-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remembers timings; made if it does not exist.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of engines; replaced.  [default: BUNDLE/engines]",
)
def engines(
    bundle: str,
    precision: Precision,
    max_batch: int,
    opt_batch: int | None,
    hardware_compatible: bool,
    version_compatible: bool,
    refittable: bool,
    workspace_mb: int | None,
    level: int | None,
    timing_cache: Path | None,
    out: Path | None,
) -> None:
    """Build a bundle's TensorRT engines for this machine's GPU, where TensorRT is; no torch.

    Example: python -m build engines --bundle giqa-s --precision f16
    """
    from build.engines import build_engines
    from build.parser import Settings
    from giqa.serving import PLAN, engines_of

    if opt_batch is not None and opt_batch > max_batch:
        raise UsageError(f"is over --max-batch {max_batch}", item=f"--opt-batch {opt_batch}")
    found = load_bundle(bundle)
    folder = out or engines_of(found)
    settings = Settings(
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        refittable=refittable,
        workspace_mb=workspace_mb,
        level=level,
        timing_cache=timing_cache,
    )
    made = build_engines(
        found,
        folder,
        precision=precision,
        max_batch=max_batch,
        opt_batch=opt_batch,
        settings=settings,
    )
    for name in made:
        click.echo(folder / name / PLAN)
