"""Four damaged versions of a clean picture, by kind of damage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from training.board import native
from training.distortions import codecs, distort, ranked
from training.distortions.convert import Pixels
from training.fidelity import lost
from training.rendered import labels

NOTHING = "nothing:"
"""How kinds of pictures begin that show nothing: they are worth the same beside any picture."""

COUNT = 4
"""Damaged pictures a group."""

SMALLEST_SIDE = 48
LARGEST = 4_000_000
"""Pixels up to which pictures are enlarged."""

FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)

CODEC_RANGES: Mapping[str, tuple[float, float]] = {
    "jpeg": (85, 5),
    "webp": (85, 2),
    "jpeg2000": (12, 300),
    "hevc": (20, 51),  # x265 takes no more
    "av1": (80, 1),
    "vp9": (25, 63),
}
"""Parameters from what is hardly seen to the worst, see `training.distortions.codecs`."""

_RATIOS = {"jpeg2000"}  # whose parameter is drawn by its logarithm
_JPEG_AGAIN = 2  # how many times as often as another codec
_NATIVE: Mapping[str, tuple[float, float]] = {
    "gaussian_blur": (0.5, 5.5),
    "motion_blur": (0.6, 5.5),
    "noise": (2.5, 45),
}
_FACTORS = (1.4, 10)  # by which pictures are smaller meanwhile
_SIZES_DIFFER = 0.3  # share of groups whose damaged pictures each have a size of their own
_REDUCED = 0.15  # share of ladders one of whose pictures is only made smaller
_ENLARGED = 0.65  # share of resampling groups


class Damaged(NamedTuple):
    """A picture of a group.

    Attributes:
        pixels: (H, W, 3) uint8, sRGB.
        loss: share of the opinion scale that is lost, 0..1, lower is better.
        kind: what was done.
    """

    pixels: Pixels
    loss: float
    kind: str


def resized(picture: Pixels, width: float, height: float, filter_: Image.Resampling) -> Pixels:
    """Scale a picture; no side gets shorter than 8 pixels."""
    size = max(8, round(width)), max(8, round(height))
    return np.asarray(Image.fromarray(picture).resize(size, filter_))


def kadid(base: Pixels, rng: np.random.Generator) -> list[Damaged]:
    """A type of KADID-10k that people rank by level, at four levels."""
    kinds = ranked.names()
    kind, seed = kinds[rng.integers(len(kinds))], int(rng.integers(2**31))
    levels = (1, 2, 3, 5) if rng.uniform() < 0.5 else (1, 3, 4, 5)
    pictures = [distort(base, kind, level, seed) for level in levels]
    losses = labels.in_order(
        [labels.of_type(kind, n, base, p) for n, p in zip(levels, pictures, strict=True)]
    )
    return [Damaged(p, v, f"kadid:{kind}") for p, v in zip(pictures, losses, strict=True)]


def resample(base: Pixels, rng: np.random.Generator) -> list[Damaged]:
    """Down and up again by rising factors, ending at the picture's size or a larger one."""
    height, width = base.shape[:2]
    up = min(rng.uniform(1.2, 4), float(np.sqrt(LARGEST / (height * width))))
    if rng.uniform() > _ENLARGED:
        up = 1.0
    up = max(1.0, up)
    to = width * up, height * up
    filter_ = FILTERS[rng.integers(len(FILTERS))]
    nearest = filter_ is Image.Resampling.NEAREST
    averaging = rng.uniform() < 0.6
    down = Image.Resampling.BOX if averaging else FILTERS[rng.integers(1, len(FILTERS))]
    # The best that enlarging can give.
    best = base if up == 1 else resized(base, *to, Image.Resampling.LANCZOS)
    extra = labels.of_enlargement(up)
    found = []
    if up > 1:
        picture = resized(base, *to, filter_)
        loss = extra + (1 - extra) * lost(best, picture)
        found.append(Damaged(picture, loss, "enlarged"))
    least, most = np.log(_FACTORS)
    factors = np.exp(np.sort(rng.uniform(least, most, COUNT - len(found))))
    for factor in factors:
        small = resized(base, width / factor, height / factor, down)
        picture = resized(small, *to, filter_)
        loss = labels.of_resampling(factor, nearest, best, picture)
        found.append(Damaged(picture, extra + (1 - extra) * loss, "resampled"))
    losses = labels.in_order([item.loss for item in found])
    return [item._replace(loss=loss) for item, loss in zip(found, losses, strict=True)]


def codec(base: Pixels, rng: np.random.Generator) -> list[Damaged]:
    """A codec in use, at four rising strengths."""
    name = draw_codec(rng)
    values = [codec_value(name, at) for at in np.sort(rng.uniform(0, 1, COUNT))]

    def made(picture: Pixels, value: float) -> Pixels:
        return codecs.coded(picture, name, value)

    return _ladder(base, values, made, partial(labels.of_codec, name), name, rng)


def native_scale(base: Pixels, rng: np.random.Generator) -> list[Damaged]:
    """Blur, motion or noise in native pixels, at four rising strengths."""
    name = list(_NATIVE)[rng.integers(len(_NATIVE))]
    weak, strong = _NATIVE[name]
    values = (weak * (strong / weak) ** np.sort(rng.uniform(0, 1, COUNT))).tolist()
    render, seed = native.TYPES[name][0], int(rng.integers(2**31))

    def made(picture: Pixels, value: float) -> Pixels:
        return render(picture, value, np.random.default_rng(seed))

    return _ladder(base, values, made, lambda _, r, p: lost(r, p), f"native:{name}", rng)


def nothing(base: Pixels, rng: np.random.Generator) -> list[Damaged]:
    """Pictures that show nothing or nearly so: one colour, noise, gradients, a shot in the dark."""
    height, width = base.shape[:2]
    shape = height, width, 3
    found = []
    for _ in range(COUNT):
        name = _NOTHING[rng.integers(len(_NOTHING))]
        loss = labels.NOTHING
        if name == "black":
            picture = np.full(shape, rng.integers(0, 12))
        elif name == "white":
            picture = np.full(shape, rng.integers(250, 256))
        elif name == "colour":
            picture = np.broadcast_to(rng.integers(0, 256, 3), shape)
        elif name == "values":
            picture = rng.integers(0, 256, shape)
        elif name == "grain":
            grain = rng.standard_normal((height, width, 1), np.float32) * rng.uniform(2, 60)
            picture = np.broadcast_to(grain + rng.uniform(0, 255), shape)
        elif name == "gradient":
            first, last = rng.uniform(0, 255, (2, 3))
            picture = np.broadcast_to(np.linspace(first, last, width)[None], shape)
        else:
            gain = rng.uniform(0.004, 0.12)
            loss = labels.of_gain(gain)
            picture = base * gain if name == "dark" else 255 - (255 - base.astype(float)) * gain
        pixels = np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
        found.append(Damaged(pixels, loss, f"{NOTHING}{name}"))
    return found


_NOTHING = ("black", "white", "colour", "values", "grain", "gradient", "dark", "bleached")


def draw_codec(rng: np.random.Generator) -> str:
    """A codec; JPEG more often than others."""
    names = [*CODEC_RANGES, *["jpeg"] * (_JPEG_AGAIN - 1)]
    return names[rng.integers(len(names))]


def codec_value(name: str, at: float) -> float:
    """A codec's parameter, from 0 (hardly seen) to 1 (the worst)."""
    weak, strong = CODEC_RANGES[name]
    if name in _RATIOS:
        return float(weak * (strong / weak) ** at)
    return float(weak + (strong - weak) * at)


def references(base: Pixels, rng: np.random.Generator) -> list[Pixels]:
    """What each picture of a group is made from: mostly the clean picture itself.

    In some groups each has a size of its own, so that the smaller picture is at times the worse
    one. Making a picture smaller loses nothing.
    """
    if rng.uniform() >= _SIZES_DIFFER:
        return [base] * COUNT
    return [_reduced(base, rng.uniform(0.5, 1)) for _ in range(COUNT)]


def _ladder(
    base: Pixels,
    values: Sequence[float],
    made: Callable[[Pixels, float], Pixels],
    loss: Callable[[float, Pixels, Pixels], float],
    kind: str,
    rng: np.random.Generator,
) -> list[Damaged]:
    """Rising damage, at one size or several; one picture may be a clean smaller one."""
    each = references(base, rng)
    pictures = [made(reference, v) for reference, v in zip(each, values, strict=True)]
    found = [loss(v, r, p) for v, r, p in zip(values, each, pictures, strict=True)]
    if all(reference is base for reference in each):
        found = labels.in_order(found)
    items = [Damaged(p, v, kind) for p, v in zip(pictures, found, strict=True)]
    if rng.uniform() < _REDUCED:
        smaller = _reduced(base, rng.uniform(0.5, 0.9))
        items[rng.integers(COUNT)] = Damaged(smaller, 0.0, "reduced")
    return items


def _reduced(base: Pixels, factor: float) -> Pixels:
    height, width = base.shape[:2]
    factor = max(factor, SMALLEST_SIDE / min(height, width))
    if factor >= 1:
        return base
    size = round(width * factor), round(height * factor)
    return np.asarray(cv2.resize(base, size, interpolation=cv2.INTER_AREA), np.uint8)
