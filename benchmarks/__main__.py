"""`python -m benchmarks`: speed and memory, measured."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from giqa.errors import UsageError

_DATA = Path("../shared/data/biq2021-val/images")


@click.group(help=__doc__)
def main() -> None:
    """Entry point."""


@main.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=_DATA,
    show_default=True,
    help="Folder of JPEG files.",
)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--memory/--no-memory", default=True, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the result here.")
def run(images: Path, threads: int, rounds: int, memory: bool, out: Path | None) -> None:
    """Measure the in-process engine next to plain PyTorch.

    Example: python -m benchmarks run --images photos --json result.json
    """
    from benchmarks import engine

    result = {
        "machine": engine.machine(),
        "speed": engine.speed(_read(images), threads=threads, rounds=rounds),
    }
    if memory:
        result["memory"] = engine.memory(images, (500, 2000), threads)
    _write(result, out)


@main.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=_DATA,
    show_default=True,
    help="Folder of JPEG files.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(5),
    default=60,
    show_default=True,
    help="Length of the overload.",
)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the result here.")
def serve(images: Path, rounds: int, seconds: float, out: Path | None) -> None:
    """Measure a Triton server on this CPU next to the in-process engine.

    Example: python -m benchmarks serve --images photos --json result.json
    """
    from benchmarks import serve

    data = _read(images)
    result: dict[str, Any] = {"images": len(data), "rounds": rounds}
    try:
        with closing(serve.measure(data, rounds=rounds, seconds=seconds)) as sections:
            for name, found in sections:
                result[name] = found
                click.echo(serve.summary(name, found), err=True)
    finally:  # also what was measured until something failed
        _write(result, out)


def _read(folder: Path) -> list[bytes]:
    paths = sorted(p for p in folder.iterdir() if p.is_file())
    if not paths:
        raise UsageError("no files", item=str(folder))
    return [p.read_bytes() for p in paths]


def _write(result: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(result, indent=1)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
