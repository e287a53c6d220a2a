"""Chains of realistic steps: what happens to a picture between a camera and a screen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from training.board import native
from training.distortions import codecs
from training.distortions.convert import Pixels
from training.fidelity import lost
from training.rendered import damage, labels
from training.rendered.damage import FILTERS, Damaged

_GAMMA = 2.2
_STEPS = ("expose", "blur", "noise", "colour", "scale", "code")
"""In the order in which they happen."""

_AS_IT_HAPPENS = 0.7  # share of chains in that order
_LONGEST = 4

# By hand: factors of light that are too much, and what they lose at least.
_LIGHT = (1, 2, 4, 8, 12)
_LIGHT_LOST = (0, 0.15, 0.4, 0.7, 0.85)

Step = Callable[[Pixels, float, np.random.Generator], tuple[Pixels, float]]
"""A picture, the chain's strength in 0..1 and a generator, to a picture and what it loses at
least, where the measure is not to be trusted."""


def chain(base: Pixels, rng: np.random.Generator) -> list[Damaged]:
    """Four chains of one to four steps, each of its own strength."""
    found = []
    for reference in damage.references(base, rng):
        names = rng.permutation(_STEPS)[: rng.integers(1, _LONGEST + 1)].tolist()
        if rng.uniform() < _AS_IT_HAPPENS:
            names.sort(key=_STEPS.index)
        picture, strength, least = reference, rng.uniform(0.1, 1), 0.0
        for name in names:
            picture, extra = _DO[name](picture, strength, rng)
            least = max(least, extra)
        loss = max(least, lost(reference, picture))
        found.append(Damaged(picture, loss, f"chain:{'+'.join(names)}"))
    return found


def exposed(picture: Pixels, light: float) -> Pixels:
    """Multiply a picture's light, as a longer or shorter exposure does."""
    linear = (np.arange(256) / 255) ** _GAMMA * light
    table = np.rint(255 * linear.clip(0, 1) ** (1 / _GAMMA)).astype(np.uint8)
    return table[picture]


def _expose(picture: Pixels, strength: float, rng: np.random.Generator) -> tuple[Pixels, float]:
    light = float(np.exp(rng.uniform(-1, 1) * 3 * strength))
    if rng.uniform() < 0.2:  # far off, down to black
        light = float(np.exp(rng.uniform(*np.log((0.0005, 0.1)))))
    if light < 1:
        return exposed(picture, light), labels.of_gain(light ** (1 / _GAMMA))
    least = float(np.interp(np.log(light), np.log(_LIGHT), _LIGHT_LOST))
    return exposed(picture, light), least


def _blur(picture: Pixels, strength: float, rng: np.random.Generator) -> tuple[Pixels, float]:
    if rng.uniform() < 0.5:
        return native.gaussian_blur(picture, 0.4 + 3 * strength * rng.uniform()), 0.0
    reach = 0.5 + 6 * strength * rng.uniform()
    return native.motion_blur(picture, reach, rng.uniform(0, 180)), 0.0


def _noise(picture: Pixels, strength: float, rng: np.random.Generator) -> tuple[Pixels, float]:
    return native.noise(picture, 1 + 30 * strength * rng.uniform(), rng), 0.0


def _colour(picture: Pixels, strength: float, rng: np.random.Generator) -> tuple[Pixels, float]:
    gains = 1 + rng.uniform(-0.5, 0.5, 3) * strength
    return np.rint((picture * gains).clip(0, 255)).astype(np.uint8), 0.0


def _scale(picture: Pixels, strength: float, rng: np.random.Generator) -> tuple[Pixels, float]:
    height, width = picture.shape[:2]
    factor = 1 + 4 * strength * rng.uniform()
    small = damage.resized(picture, width / factor, height / factor, Image.Resampling.BOX)
    filter_ = FILTERS[rng.integers(len(FILTERS))]
    return damage.resized(small, width, height, filter_), 0.0


def _code(picture: Pixels, strength: float, rng: np.random.Generator) -> tuple[Pixels, float]:
    name = damage.draw_codec(rng)
    return codecs.coded(picture, name, damage.codec_value(name, strength * rng.uniform())), 0.0


_DO: dict[str, Step] = {
    "expose": _expose,
    "blur": _blur,
    "noise": _noise,
    "colour": _colour,
    "scale": _scale,
    "code": _code,
}
