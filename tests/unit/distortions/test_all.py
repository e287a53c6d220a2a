"""What holds for every distortion: values, seeds, sizes, order of levels, refusals.

Run as a script it writes the known values beside itself.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from giqa.errors import UsageError
from tests.unit.distortions.made import GENERATOR, LEVELS, NAMES, error, gray, rendered, sample
from training.distortions import TYPES, apply, by_name, distort

KNOWN = Path(__file__).with_suffix(".json")
RANDOM = [kind.name for kind in TYPES if kind.random]
# Another release of a codec or palette may choose a little differently.
LOOSE = ("color_quantization", "jpeg", "jpeg2000")
every = pytest.mark.parametrize("name", NAMES)


def measures(name: str, level: int) -> list[float]:
    """Mean absolute change, and the means of R, G and B, in 0..255."""
    out = rendered(name, level).astype(float)
    return [round(float(v), 3) for v in (np.abs(out - sample()).mean(), *out.mean((0, 1)))]


@every
@pytest.mark.parametrize("level", LEVELS)
def test_known_values(name: str, level: int) -> None:
    want = json.loads(KNOWN.read_text())[name][level - 1]
    tolerance = {"rel": 0.2, "abs": 2} if name in LOOSE else {"rel": 0.02, "abs": 0.1}
    assert measures(name, level) == pytest.approx(want, **tolerance)
    assert rendered(name, level).dtype == np.uint8
    assert rendered(name, level).shape == sample().shape


def test_types_are_those_of_kadid() -> None:
    assert [kind.number for kind in TYPES] == list(range(1, 26))
    assert len(set(NAMES)) == 25
    assert all(by_name(kind.name) is kind for kind in TYPES)
    for kind in TYPES:
        assert len(set(kind.levels)) == 5
        for value in (*kind.levels, kind.lowest, kind.highest):
            kind.check(value)


@every
def test_same_seed_same_bytes(name: str) -> None:
    first = rendered(name, 4)
    np.random.seed(1)  # global state must not matter
    assert np.array_equal(first, distort(sample(), by_name(name), 4, 7))
    assert np.array_equal(first, apply(sample(), name, by_name(name).levels[3], 7))
    assert np.array_equal(first, distort(np.asfortranarray(sample()), name, 4, 7))


@every
def test_seed_matters_where_it_says_so(name: str) -> None:
    same = np.array_equal(rendered(name, 4), distort(sample(), name, 4, seed=8))
    assert same == (name not in RANDOM)


def test_types_and_values_draw_their_own_numbers() -> None:
    noises = [
        apply(gray(128, 64, 64), "white_noise", value, 3).astype(float) - 128
        for value in (0.005, 0.0051)
    ]
    noises.append(apply(gray(128, 64, 64), "multiplicative_noise", 0.02, 3).astype(float) - 128)
    found = np.corrcoef([noise.ravel() for noise in noises])
    assert np.abs(found - np.eye(3)).max() < 0.05


@every
@pytest.mark.parametrize("size", [(33, 47), (32, 32), (37, 900)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    image = GENERATOR.integers(0, 256, (*size, 3), dtype=np.uint8)
    for level in (1, 5):
        out = distort(image, name, level, 0)
        assert out.shape == image.shape
        assert out.dtype == np.uint8


@every
@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_pictures(name: str, value: int) -> None:
    image = gray(value, 41, 35)
    out = distort(image, name, 5, 0)
    assert out.shape == image.shape
    moves_only = {"gaussian_blur", "lens_blur", "motion_blur", "jitter", "pixelate", "quantization"}
    moves_only |= {"color_shift", "non_eccentricity_patch", "high_sharpen", "color_diffusion"}
    if name in moves_only:
        assert np.abs(out.astype(int) - image).max() <= 1


@every
def test_gray_pictures(name: str) -> None:
    image = np.repeat(sample()[..., 1:2], 3, 2)
    out = distort(image, name, 3, 0).astype(int)
    coloured = {"color_shift", "white_noise", "white_noise_ycbcr", "impulse_noise", "color_block"}
    coloured |= {"multiplicative_noise", "denoise", "color_quantization"}
    if name not in coloured:
        assert np.ptp(out, axis=2).max() <= 2


@pytest.mark.parametrize(
    "name",
    sorted(
        set(NAMES)
        # Their levels are no order of strength, or evenly spaced values may happen to fit better.
        - {"mean_shift", "contrast_change", "quantization"}
    ),
)
def test_strength_grows_with_level(name: str) -> None:
    seeds = range(4 if name in RANDOM else 1)
    errors = [
        np.mean([error(distort(sample(), name, level, s), sample()) for s in seeds])
        for level in LEVELS
    ]
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((64, 64, 3)), "uint8"),
        (np.zeros((64, 64), np.uint8), "RGB"),
        (np.zeros((64, 64, 4), np.uint8), "RGB"),
        (np.zeros((31, 64, 3), np.uint8), "64 x 31"),
        (np.zeros((64, 0, 3), np.uint8), "too small"),
        ([[1, 2, 3]], "list"),
        (None, "NoneType"),
    ],
)
def test_bad_pictures(image: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        distort(image, "jpeg", 1, 0)  # type: ignore[arg-type]


@every
def test_values_out_of_range(name: str) -> None:
    kind = by_name(name)
    for value in (kind.lowest - 0.001, kind.highest + 1, math.nan, math.inf, True, "1", None):
        with pytest.raises(UsageError) as caught:
            apply(sample(), kind, value, 0)  # type: ignore[arg-type]
        assert caught.value.item == name
    if kind.whole:
        with pytest.raises(UsageError, match="whole"):
            apply(sample(), kind, kind.lowest + 0.5, 0)


@every
def test_ends_of_the_range(name: str) -> None:
    kind = by_name(name)
    # Thousands of patches are only slow.
    for value in (kind.lowest, min(kind.highest, 1000) if kind.whole else kind.highest):
        assert apply(sample()[:48, :48], kind, value, 0).shape == (48, 48, 3)


@pytest.mark.parametrize("level", [0, 6, 1.5, -1, True, "3", None])
def test_bad_levels(level: object) -> None:
    with pytest.raises(UsageError, match="level"):
        distort(sample(), "jpeg", level, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.0, None, True, "1"])
def test_bad_seeds(seed: object) -> None:
    with pytest.raises(UsageError, match="seed"):
        distort(sample(), "jpeg", 1, seed)  # type: ignore[arg-type]


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match="gaussian_blur"):
        distort(sample(), "blur", 1, 0)


if __name__ == "__main__":
    lines = [f'"{n}": {json.dumps([measures(n, level) for level in LEVELS])}' for n in NAMES]
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
