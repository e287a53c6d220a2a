"""`python -m build engines|check|quantize|parity`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from build.graphs import PRECISIONS, Precision
from giqa.bundle import DEFAULT, Bundle, load_bundle
from giqa.cli.common import FAILURE, Exit
from giqa.contract import GRAPHS
from giqa.errors import UsageError
from giqa.files import write

if TYPE_CHECKING:  # loads DALI
    from build.parity import Table
    from giqa.preprocess import Views

_BUNDLE = click.option(
    "--bundle", default=DEFAULT, show_default=True, help="Name of a packaged bundle, or a folder."
)
_MAX_BATCH = click.option(
    "--max-batch", type=click.IntRange(1, 64), default=8, show_default=True, help="Of the profile."
)
_LEVEL = click.option(
    "--level", type=click.IntRange(0, 5), help="Optimisation level; 0 builds fastest."
)


@click.command()
@_BUNDLE
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="May be repeated.  [default: fp32 and fp16, int8 where the bundle has it]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("8.9",),
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

    Example: python -m build check --bundle giqa-s --precision fp16 --target 8.6
    """
    from build.check import NOT_PROVEN
    from build.check import check as run

    found = load_bundle(bundle)
    if not precisions:
        precisions = ("fp32", "fp16")
        precisions += ("int8",) if found.manifest.int8_graphs else ()
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
@_BUNDLE
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp16", show_default=True)
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

    Example: python -m build engines --bundle giqa-s --precision fp16
    """
    from build.engines import build_engines
    from build.parser import Settings
    from giqa.triton.engines import PLAN, engines_of

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


_DATA = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Validation images: `mos.csv` (columns image, mos) and the folder `images`.",
)
_LIMIT = click.option("--limit", type=click.IntRange(2), help="Use that many images.")
_THREADS = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")


@click.command()
@_BUNDLE
@_DATA
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Or a folder of photographs without scores.",
)
@click.option("--url", "urls", multiple=True, help="Also a running server: grpc://HOST:PORT.")
@_LIMIT
@_THREADS
@click.option("--json", "to", type=click.Path(dir_okay=False, path_type=Path), help="Report.")
@click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="The table.  [stdout]"
)
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
    from giqa.graphs import cpu_count

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
    return decode(paths, bundle.manifest.tensors, threads), mos


def report(table: Table, to: Path | None, markdown: Path | None) -> None:
    """Write a table of parity; exit with 1 if a runtime fails its gate."""
    if to is not None:
        write(to, (json.dumps(table.to_json(), indent=1) + "\n").encode())
    if markdown is not None:
        write(markdown, table.to_markdown().encode())
    else:
        click.echo(table.to_markdown(), nl=False)
    if any(row.passes is False for row in table.rows):
        raise Exit(FAILURE)


@click.command()
@_BUNDLE
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
@_DATA
@click.option("--version", required=True, help="The new bundle's: major.minor.patch")
@_THREADS
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Must not exist.")
def quantize(
    bundle: str,
    calibration: Path,
    limit: int,
    graphs: tuple[str, ...],
    data: Path | None,
    version: str,
    threads: int | None,
    out: Path,
) -> None:
    """Write a bundle with int8 graphs, for CPUs and for TensorRT.

    With --data the int8 scores are compared with float32's, and exit code 1 says that they miss
    the gate.

    Example: python -m build quantize --calibration photos --version 0.1.1 --out runs/int8
    """
    from build import runtimes
    from build.images import decode, read_images
    from build.parity import compare
    from build.quantize import quantize as run
    from giqa.graphs import cpu_count

    found = load_bundle(bundle)
    threads = threads or cpu_count()
    paths = read_images(calibration, limit)
    made = run(
        found,
        decode(paths, found.manifest.tensors, threads),
        out,
        version=version,
        graphs=graphs or GRAPHS,
        threads=threads,
    )
    click.echo(made.folder)
    if data is not None:
        views, mos = views_of(found, data, None, None, threads)
        int8 = runtimes.openvino(made, "int8", threads=threads)
        reference = runtimes.onnx_runtime(found, threads=threads)
        report(compare(made.manifest.id, views, reference, [int8], mos=mos), None, None)
