"""`python -m build`: from a bundle to what is deployed."""

from __future__ import annotations

from pathlib import Path

import click

from build.commands import OF_ENGINES, check, engines
from build.docs import docs, site
from build.measuring import parity, quantize
from build.pictures import pictures
from giqa.bundle import DEFAULT, load_bundle
from giqa.cli import errors_to_exit_codes
from giqa.errors import UsageError
from giqa.precision import PRECISIONS, Precision
from giqa.serving import (
    RepositoryOptions,
    device_arguments,
    memory_of,
    render_repository,
    write_repository,
)
from giqa.tensors import DEVICES, Device

OF_DEVICES: dict[Device, Precision] = {"cpu": "f32", "gpu": OF_ENGINES}
SERVERS: dict[Device, tuple[int, int]] = {"cpu": (2, 51), "gpu": (2, 69)}
"""Oldest Triton that a checked-in repository is for."""


@click.group(help=__doc__)
def _group() -> None:
    """Entry point."""


@_group.command()
@click.option("--device", type=click.Choice(DEVICES), required=True)
@click.option(
    "--bundle", default=DEFAULT, show_default=True, help="Name of a packaged bundle, or a folder."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Replaced."
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the engines.  [default: cpu f32, gpu f16]",
)
@click.option("--max-batch", type=click.IntRange(1, 64), help="[default: cpu 8, gpu 32]")
@click.option("--max-queue", type=click.IntRange(1), help="[default: cpu 64, gpu 128]")
@click.option(
    "--instances",
    type=click.IntRange(1),
    help="Of each model.  [default: cpu 1; gpu 3, 2 and 2 of preprocess, 1 of each other]",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(1),
    help="MiB of the GPU's memory for pictures and tensors.  [default: what they need]",
)
@click.option(
    "--cuda-graphs/--no-cuda-graphs", default=None, help="Of the engines.  [default: with them]"
)
@click.option("--cache", is_flag=True, help="Let Triton's response cache answer for `giqa`.")
def repository(
    device: Device,
    bundle: str,
    out: Path,
    precision: Precision | None,
    max_batch: int | None,
    max_queue: int | None,
    instances: int | None,
    memory_mb: int | None,
    cuda_graphs: bool | None,
    cache: bool,
) -> None:
    """Render a Triton model repository from a bundle's manifest.

    On a GPU the engines (`<graph>/1/model.plan`) are to be put in beside, see `engines`; `giqa
    serve --device gpu` does so itself. The server must find the bundle under the name or path
    given here.

    Example: python -m build repository --device cpu --bundle giqa-s --out model_repository/cpu
    """
    if device == "cpu" and (memory_mb or cuda_graphs is not None):
        raise UsageError("is for a GPU", item="--memory-mb, --cuda-graphs")
    options = RepositoryOptions(
        device=device,
        bundle=bundle,
        precision=precision or OF_DEVICES[device],
        max_batch=max_batch or 0,
        max_queue=max_queue or 0,
        instances=instances or (1 if device == "cpu" else 0),
        memory=None if memory_mb is None else memory_mb * 2**20,
        cuda_graphs=cuda_graphs is not False,
        cache=cache,
        server=SERVERS[device],
    )
    loaded = load_bundle(bundle)
    files = render_repository(loaded, options)
    write_repository(out, files)
    if device == "gpu":
        click.echo("\n".join(memory_of(loaded.manifest, options).lines()))
        click.echo(" ".join(["tritonserver", *device_arguments(options, loaded.manifest)]))
    click.echo(f"{out}: {len(files)} files", err=True)


for _command in (check, docs, engines, parity, pictures, quantize, site):
    _group.add_command(_command)


def main() -> None:
    """Run the command line."""
    with errors_to_exit_codes():
        _group(prog_name="python -m build", standalone_mode=False)


if __name__ == "__main__":
    main()
