"""How many pictures a second each type distorts: `python -m training.distortions.speed`."""

from __future__ import annotations

import statistics
import time

import click
import numpy as np

from training.distortions.convert import Pixels
from training.distortions.types import LEVELS, TYPES, Distortion, distort


def measure(image: Pixels, kind: Distortion, rounds: int) -> float:
    """Pictures a second: each level once a round, the median round counts."""
    times = []
    for seed in range(rounds):
        start = time.perf_counter()
        for level in range(1, LEVELS + 1):
            distort(image, kind, level, seed)
        times.append((time.perf_counter() - start) / LEVELS)
    return 1 / statistics.median(times)


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--size", nargs=2, default=(512, 384), show_default=True, type=click.IntRange(32))
def main(rounds: int, size: tuple[int, int]) -> None:
    """Print a table of all types."""
    width, height = size
    # Waves with noise: neither flat, which codecs love, nor all noise.
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (7 + c)) + np.cos(y / (11 + c)) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    image = np.clip(128 + 50 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
    for kind in TYPES:
        click.echo(f"| {kind.number} | `{kind.name}` | {measure(image, kind, rounds):.1f} |")


if __name__ == "__main__":
    main()
