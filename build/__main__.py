"""`python -m build`: from a bundle to what is deployed."""

from __future__ import annotations

from pathlib import Path

import click

from build.commands import check, engines
from build.docs import docs, site
from build.measuring import parity, quantize
from build.pictures import pictures
from giqa.bundle import DEFAULT, load_bundle
from giqa.cli import errors_to_exit_codes
from giqa.errors import UsageError
from giqa.serving import RepositoryOptions, memory_of, render_repository, write_repository
from giqa.tensors import DEVICES, Device

PRECISIONS: dict[Device, str] = {"cpu": "f32", "gpu": "f16"}
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
@click.option("--precision", help="Of the engines.  [default: cpu f32, gpu f16]")
@click.option("--max-batch", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--max-queue", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--instances",
    type=click.IntRange(1),
    help="Of each model.  [default: cpu 1; gpu 2 of preprocess, 1 of each other]",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(1),
    help="MiB of the GPU's memory that tensors may take.  [default: what they need]",
)
@click.option("--cuda-graphs", is_flag=True, help="Capture CUDA graphs of the engines.")
@click.option("--cache", is_flag=True, help="Let Triton's response cache answer for `giqa`.")
def repository(
    device: Device,
    bundle: str,
    out: Path,
    precision: str | None,
    max_batch: int,
    max_queue: int,
    instances: int | None,
    memory_mb: int | None,
    cuda_graphs: bool,
    cache: bool,
) -> None:
    """Render a Triton model repository from a bundle's manifest.

    On a GPU the engines (`<graph>/1/model.plan`) are to be put in beside, see `engines`; `giqa
    serve --device gpu` does so itself. The server must find the bundle under the name or path
    given here.

    Example: python -m build repository --device cpu --bundle giqa-s --out model_repository/cpu
    """
    if device == "cpu" and (memory_mb or cuda_graphs):
        raise UsageError("is for a GPU", item="--memory-mb, --cuda-graphs")
    options = RepositoryOptions(
        device=device,
        bundle=bundle,
        precision=precision or PRECISIONS[device],
        max_batch=max_batch,
        max_queue=max_queue,
        instances=instances or (1 if device == "cpu" else 0),
        memory=None if memory_mb is None else memory_mb * 2**20,
        cuda_graphs=cuda_graphs,
        cache=cache,
        server=SERVERS[device],
    )
    loaded = load_bundle(bundle)
    files = render_repository(loaded, options)
    write_repository(out, files)
    if device == "gpu":
        memory = memory_of(loaded.manifest, options)
        click.echo("\n".join(memory.lines()))
        click.echo(f"tritonserver --cuda-memory-pool-byte-size=0:{memory.pool}")
    click.echo(f"{out}: {len(files)} files", err=True)


for _command in (check, docs, engines, parity, pictures, quantize, site):
    _group.add_command(_command)


def main() -> None:
    """Run the command line."""
    with errors_to_exit_codes():
        _group(prog_name="python -m build", standalone_mode=False)


if __name__ == "__main__":
    main()
