"""`python -m build parity|quantize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from build.commands import BUNDLE
from build.numerics import SMOOTH
from giqa.bundle import Bundle, load_bundle
from giqa.cli import FAILURE, Exit
from giqa.contract import GRAPHS
from giqa.errors import UsageError
from giqa.files import write

if TYPE_CHECKING:  # loads DALI
    from build.parity import Table
    from giqa.types import Views

DATA = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Validation images: `mos.csv` (columns image, mos) and the folder `images`.",
)
LIMIT = click.option("--limit", type=click.IntRange(2), help="Use that many images.")
THREADS = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")


IMAGES = click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Or a folder of photographs without scores.",
)
URLS = click.option("--url", "urls", multiple=True, help="Also a running server: grpc://HOST:PORT.")
JSON = click.option("--json", "to", type=click.Path(dir_okay=False, path_type=Path), help="Report.")
MARKDOWN = click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="The table.  [stdout]"
)


@click.command()
@BUNDLE
@DATA
@IMAGES
@URLS
@LIMIT
@THREADS
@JSON
@MARKDOWN
def parity(
    bundle: str,
    data: Path | None,
    images: Path | None,
    urls: tuple[str, ...],
    limit: int | None,
    threads: int | None,
    to: Path | None,
    markdown: Path | None,
) -> None:
    """Compare every runtime on this machine with ONNX Runtime in float32; exit 1 below a gate.

    `python -m training parity` compares with PyTorch. A server's row stands for what it serves on:
    TensorRT, where that is a GPU.

    Example: python -m build parity --data validation --json parity.json
    """
    from build import runtimes
    from build.parity import compare
    from giqa.openvino import cpu_count

    found = load_bundle(bundle)
    views, mos = views_of(found, data, images, limit, threads or cpu_count())
    makers, absent = runtimes.here(found, threads=threads, urls=urls)
    table = compare(
        found.manifest.id,
        views,
        runtimes.onnx_runtime(found, threads=threads),
        runtimes.one_by_one(makers),
        mos=mos,
        absent=absent,
        watch=lambda name: click.echo(name, err=True),
    )
    report(table, to, markdown)


def views_of(
    bundle: Bundle, data: Path | None, images: Path | None, limit: int | None, threads: int
) -> tuple[list[Views], list[float] | None]:
    """Views, and opinion scores where there are any, of what the options name.

    Raises:
        UsageError: neither or both.
        GiqaError: an image or the table cannot be read.
    """
    from build.images import decode, read_images, read_labelled

    mos: list[float] | None = None
    if data is not None and images is None:
        paths, mos = read_labelled(data, limit)
    elif images is not None and data is None:
        paths = read_images(images, limit)
    else:
        raise UsageError("give one of them", item="--data, --images")
    return decode(paths, bundle.manifest, threads), mos


def report(table: Table, to: Path | None, markdown: Path | None) -> None:
    """Write a table of parity; exit with 1 if a runtime fails its gate."""
    if to is not None:
        write(to, (json.dumps(table.to_json(), indent=1) + "\n").encode())
    if markdown is not None:
        write(markdown, table.to_markdown().encode())
    else:
        click.echo(table.to_markdown(), nl=False)
    if not table.passes:
        raise Exit(FAILURE)


@click.command()
@BUNDLE
@click.option(
    "--calibration",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="A folder of photographs, none of those in --data.",
)
@click.option("--limit", type=click.IntRange(8), default=64, show_default=True, help="Of them.")
@click.option(
    "--graph",
    "graphs",
    type=click.Choice(GRAPHS),
    multiple=True,
    help="What is quantized; may be repeated.  [default: all]",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1),
    default=SMOOTH,
    show_default=True,
    help="How far outliers of activations move into the weights of matrix products.",
)
@DATA
@click.option("--version", required=True, help="The new bundle's: major.minor.patch")
@THREADS
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Must not exist.")
def quantize(
    bundle: str,
    calibration: Path,
    limit: int,
    graphs: tuple[str, ...],
    smooth: float,
    data: Path | None,
    version: str,
    threads: int | None,
    out: Path,
) -> None:
    """Write a bundle that computes in int8, too, on CPUs and with TensorRT.

    With --data the int8 scores are compared with float32's first. If they miss the gate, nothing is
    written, and the exit code is 1.

    Example: python -m build quantize --calibration photos --data validation --version 0.1.1
    --out runs/int8
    """
    from build import runtimes
    from build.images import decode, read_images
    from build.parity import compare
    from build.quantize import quantize as run
    from giqa.openvino import cpu_count

    found = load_bundle(bundle)
    threads = threads or cpu_count()

    def gate(made: Bundle) -> bool:
        if data is None:
            return True
        views, mos = views_of(found, data, None, None, threads)
        int8 = runtimes.openvino(made, "int8", threads=threads)
        reference = runtimes.onnx_runtime(found, threads=threads)
        table = compare(made.manifest.id, views, reference, [int8], mos=mos)
        click.echo(table.to_markdown(), err=True)
        return table.passes

    made = run(
        found,
        decode(read_images(calibration, limit), found.manifest, threads),
        out,
        version=version,
        graphs=graphs or GRAPHS,
        smooth=smooth,
        threads=threads,
        gate=gate,
    )
    if made is None:
        click.echo(f"{out} was not written: the int8 scores miss the gate", err=True)
        raise Exit(FAILURE)
    click.echo(made.folder)
