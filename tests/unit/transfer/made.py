"""A labelled data set, photographs that resemble it, and what tests say of their transfer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tests.photos import photo
from training.transfer import mapping
from training.transfer.run import Options

BACKBONE = "test_vit"
CONTENTS = [f"i{i:02}" for i in range(1, 6)]
FAST = ("gaussian_blur", "jpeg", "white_noise", "color_block")
"""Types that take a few milliseconds, with and without a seed."""
SIZE = (96, 64)


def mos_of(reference: str, number: int, level: int) -> float:
    """The score of each picture of the made data set, on KADID-10k's 1..5; all are different."""
    return 1 + (CONTENTS.index(reference) * 125 + (number - 1) * 5 + level - 1) / 625 * 4


def write_photos(folder: Path, count: int = 3) -> Path:
    """Photographs that resemble the originals 0, 1, ... of the data set, but are not they."""
    (folder / "deep").mkdir(parents=True)
    for i in range(count):
        old = photo(160, 120, 100 + i).astype(np.float32)
        other = photo(160, 120, 500 + i).astype(np.float32)
        mixed = Image.fromarray((0.7 * old + 0.3 * other).astype(np.uint8))
        mixed = mixed if i != 1 else mixed.crop((20, 0, 110, 120))  # upright
        mixed.save(folder / ("deep" if i else ".") / f"photo {i}.png")
    return folder


def options(photos: Path, root: Path, out: Path, **changes: object) -> Options:
    what = mapping.of_dataset("kadid10k").only(FAST)
    return replace(Options(photos, what, root, out, size=SIZE), **changes)  # type: ignore[arg-type]
