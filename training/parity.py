"""`python -m training parity`: every runtime against the model in PyTorch float32."""

from __future__ import annotations

from pathlib import Path

import click

from build.measuring import (
    DATA,
    IMAGES,
    JSON,
    LIMIT,
    MARKDOWN,
    THREADS,
    URLS,
    report,
    views_of,
)
from giqa.bundle import load_bundle
from giqa.openvino import cpu_count


@click.command()
@click.option("--bundle", required=True, help="What the weights were exported to.")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The run's final weights.",
)
@click.option("--preset", required=True, help="Their preset.")
@DATA
@IMAGES
@URLS
@LIMIT
@THREADS
@JSON
@MARKDOWN
def parity(
    bundle: str,
    weights: Path,
    preset: str,
    data: Path | None,
    images: Path | None,
    urls: tuple[str, ...],
    limit: int | None,
    threads: int | None,
    to: Path | None,
    markdown: Path | None,
) -> None:
    """Compare every runtime on this machine with PyTorch in float32; exit 1 below a gate.

    Example: python -m training parity --bundle runs/bundle --preset giqa-s
    --weights runs/giqa-s/final.safetensors --data validation
    """
    import torch

    from build import runtimes
    from build.parity import compare
    from training.evaluation.torch_scorer import load_model
    from training.rounding import round_weights
    from training.torch_runtime import torch_runtime

    found = load_bundle(bundle)
    model = load_model(weights, preset)
    round_weights(model)
    torch.set_num_threads(threads or cpu_count())
    views, mos = views_of(found, data, images, limit, threads or cpu_count())
    makers, absent = runtimes.here(found, threads=threads, urls=urls)
    made = [
        lambda: torch_runtime(model, "bf16"),
        lambda: runtimes.onnx_runtime(found, threads=threads),
        *makers,
    ]
    table = compare(
        found.manifest.id,
        views,
        torch_runtime(model, "f32"),
        runtimes.one_by_one(made),
        mos=mos,
        absent=absent,
        watch=lambda name: click.echo(name, err=True),
    )
    report(table, to, markdown)
