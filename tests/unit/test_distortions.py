"""The 25 distortions: known values, independent implementations, properties, refusals.

Run as a script it writes the known values beside itself.
"""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage import color, data, filters, restoration

from giqa.errors import MissingExtraError, TableInvalidError, UnreadableError, UsageError
from training.distortions import TYPES, Distortion, apply, blur, by_name, distort, ranked, spatial
from training.distortions.brightness import tone_curve
from training.distortions.convert import Floats, Pixels, lab_to_rgb, rgb_to_lab, to_float, to_uint8
from training.distortions.denoise import denoise_dct

KNOWN = Path(__file__).with_suffix(".json")
NAMES = [kind.name for kind in TYPES]
LEVELS = range(1, 6)
RANDOM = [kind.name for kind in TYPES if kind.random]
# Another release of a codec or palette may choose a little differently.
LOOSE = ("color_quantization", "jpeg", "jpeg2000")
GENERATOR = np.random.default_rng(0)

every = pytest.mark.parametrize("name", NAMES)


@lru_cache
def sample() -> Pixels:
    """A photograph, 160 x 120."""
    portrait = Image.fromarray(data.astronaut()[:384])
    image = np.array(portrait.resize((160, 120), Image.Resampling.LANCZOS))
    image.flags.writeable = False  # nothing may write into what it is given
    return image


@lru_cache
def rendered(name: str, level: int) -> Pixels:
    return distort(sample(), name, level, seed=7)


def gray(value: int, height: int = 256, width: int = 300) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def error(a: Pixels, b: Pixels) -> float:
    """Mean square, in 0..1."""
    return float(np.mean((to_float(a) - to_float(b)) ** 2))


def measures(name: str, level: int) -> list[float]:
    """Mean absolute change, and the means of R, G and B, in 0..255."""
    out = rendered(name, level).astype(float)
    return [round(float(v), 3) for v in (np.abs(out - sample()).mean(), *out.mean((0, 1)))]


# All of them


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


# Refusals


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


# Colour spaces


def test_lab_agrees_with_skimage() -> None:
    image = GENERATOR.random((40, 50, 3), np.float32)
    lab = rgb_to_lab(image)
    assert lab.dtype == np.float32
    np.testing.assert_allclose(lab, color.rgb2lab(image), atol=0.02)
    np.testing.assert_allclose(lab_to_rgb(lab), image, atol=1e-4)
    assert np.ptp(rgb_to_lab(np.full((1, 1, 3), 0.5, np.float32))[0, 0, 1:]) < 1e-3
    corners = np.stack(np.meshgrid(*[[0, 255]] * 3), -1).reshape(1, 8, 3).astype(np.uint8)
    assert np.array_equal(to_uint8(lab_to_rgb(rgb_to_lab(to_float(corners)))), corners)


def test_all_uint8_survive_floats() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(to_uint8(to_float(image)), image)
    assert to_uint8(np.array([-1, 2], np.float32)).tolist() == [0, 255]


# Blur


@pytest.mark.parametrize("sigma", by_name("gaussian_blur").levels)
def test_gaussian_blur_agrees_with_skimage(sigma: float) -> None:
    oracle = filters.gaussian(to_float(sample()), sigma, truncate=2, mode="nearest", channel_axis=2)
    got = apply(sample(), "gaussian_blur", sigma, 0).astype(int)
    assert np.abs(got - to_uint8(oracle)).max() <= 1


@pytest.mark.parametrize("radius", [1, 2, 4, 6, 8, 3.3])
def test_lens_blur(radius: float) -> None:
    kernel = blur.disk(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert 1 / kernel.max() == pytest.approx(math.pi * radius**2, rel=0.02)
    assert np.array_equal(kernel, kernel.T)
    oracle = np.stack(
        [ndimage.convolve(to_float(sample())[..., c], kernel, mode="nearest") for c in range(3)], -1
    )
    got = apply(sample(), "lens_blur", radius, 0).astype(int)
    assert np.abs(got - to_uint8(oracle)).max() <= 1


def test_motion_blur() -> None:
    box = np.zeros((7, 7))
    box[3, 1:6] = 0.2
    np.testing.assert_allclose(blur.line(5, 0), box, atol=1e-6)
    np.testing.assert_allclose(blur.line(5, math.pi / 2), box.T, atol=1e-6)
    assert np.array_equal(rendered("motion_blur", 1), sample())
    for angle in (0.3, 1.2, 2.5):
        kernel = blur.line(10, angle)
        y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
        # Its long axis is the principal one of the second moments; images have y downwards.
        xx, yy, xy = (float((kernel * m).sum()) for m in (x * x, y * y, x * y))
        assert math.atan2(-2 * xy, xx - yy) / 2 % math.pi == pytest.approx(angle, abs=0.03)


# Colour


def test_color_diffusion_agrees_with_skimage() -> None:
    lab = color.rgb2lab(sample())
    for c in (1, 2):
        lab[..., c] = 3 * ndimage.gaussian_filter(lab[..., c], 6.5, mode="nearest", truncate=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours that no screen shows
        oracle = color.lab2rgb(lab)
    assert error(rendered("color_diffusion", 2), to_uint8(oracle)) < 1e-5


@pytest.mark.parametrize("level", LEVELS)
def test_color_saturation_hsv_agrees_with_skimage(level: int) -> None:
    hsv = color.rgb2hsv(sample())
    hsv[..., 1] *= by_name("color_saturation_hsv").levels[level - 1]
    got = rendered("color_saturation_hsv", level).astype(int)
    assert np.abs(got - to_uint8(color.hsv2rgb(hsv))).max() <= 1


@pytest.mark.parametrize("level", LEVELS)
def test_color_saturation_lab_agrees_with_skimage(level: int) -> None:
    lab = color.rgb2lab(sample()) * [1, *[by_name("color_saturation_lab").levels[level - 1]] * 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours that no screen shows
        oracle = to_uint8(color.lab2rgb(lab))
    # skimage cuts a negative Z to 0; the standard's line goes on.
    same = (lab[..., :1] + 16) / 116 - lab[..., 2:] / 200 > 0
    assert same.mean() > 0.6
    got = rendered("color_saturation_lab", level)
    assert error(np.where(same, got, 0), np.where(same, oracle, 0)) < 1e-5
    if level == 1:
        assert error(rendered("color_saturation_lab", 1), sample()) < 1e-6


def test_color_shift_moves_green_at_edges() -> None:
    image = gray(60)
    image[:, 150:] = 200
    assert np.array_equal(apply(image, "color_shift", 0, 0), image)
    out = apply(image, "color_shift", 8, 3)
    assert np.array_equal(out[..., ::2], image[..., ::2])
    changed = np.flatnonzero((out != image).any((0, 2)))
    assert changed.size
    assert np.abs(changed - 149.5).max() <= 8.5


@pytest.mark.parametrize("level", LEVELS)
def test_color_quantization_counts_colours(level: int) -> None:
    wanted = int(by_name("color_quantization").levels[level - 1])
    out = rendered("color_quantization", level)
    assert 0.9 * wanted <= len(np.unique(out.reshape(-1, 3), axis=0)) <= wanted
    picture = Image.fromarray(sample())
    palette = picture.quantize(wanted, Image.Quantize.MEDIANCUT)
    plain = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    assert error(out, sample()) < error(np.asarray(plain.convert("RGB")), sample())


# Compression


def coded(codec: str, **options: object) -> tuple[Pixels, int]:
    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, codec, **options)
    return np.asarray(Image.open(file)), file.tell()


@pytest.mark.parametrize("quality", [1, 4, 43, 100])
def test_jpeg_is_pillows(quality: int) -> None:
    oracle, _ = coded("JPEG", quality=quality)
    assert np.array_equal(apply(data.astronaut(), "jpeg", quality, 0), oracle)


@pytest.mark.parametrize("ratio", [16, 120, 400])
def test_jpeg2000_has_its_ratio(ratio: int) -> None:
    options = {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True}
    oracle, size = coded("JPEG2000", **options)
    assert np.array_equal(apply(data.astronaut(), "jpeg2000", ratio, 0), oracle)
    assert oracle.size / size == pytest.approx(ratio, rel=0.05)


# Noise


@pytest.mark.parametrize("variance", by_name("white_noise").levels)
def test_white_noise_has_its_variance(variance: float) -> None:
    noise = to_float(apply(gray(128), "white_noise", variance, 0)) - 128 / 255
    assert noise.var((0, 1)) == pytest.approx(variance, rel=0.03)
    assert np.abs(noise.mean((0, 1))).max() < 0.002
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02
    assert stats.kurtosis(noise.ravel()) == pytest.approx(0, abs=0.05)


def test_white_noise_ycbcr_has_its_variance() -> None:
    out = apply(gray(128), "white_noise_ycbcr", 0.003, 0)
    noise = color.rgb2ycbcr(out) / 255
    assert noise.var((0, 1)) == pytest.approx(0.003, rel=0.05)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("density", [*by_name("impulse_noise").levels, 0, 1])
def test_impulse_noise_has_its_density(density: float) -> None:
    out = apply(gray(128), "impulse_noise", density, 0)
    for extreme in (0, 255):
        share = density / 2
        deviation = math.sqrt(share * (1 - share) / out.size)
        assert (out == extreme).mean() == pytest.approx(share, abs=4 * deviation)
    assert set(np.unique(out)) <= {0, 128, 255}


def test_multiplicative_noise_has_its_variance() -> None:
    for value in (60, 120):
        noise = to_float(apply(gray(value), "multiplicative_noise", 0.05, 0)) - value / 255
        assert noise.var() == pytest.approx(0.05 * (value / 255) ** 2, rel=0.03)
        assert np.abs(noise).max() <= math.sqrt(3 * 0.05) * value / 255 + 0.5 / 255
    assert not apply(gray(0), "multiplicative_noise", 0.05, 0).any()


def test_denoising_removes_noise() -> None:
    clean = to_float(sample())
    for variance in (0.01, 0.05):
        sigma = math.sqrt(variance)
        noise = np.random.default_rng(0).normal(0, sigma, clean.shape).astype(np.float32)
        noisy: Floats = clean + noise
        ours = np.mean((denoise_dct(noisy, sigma) - clean) ** 2)
        oracle = restoration.denoise_nl_means(
            noisy, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, channel_axis=2
        )
        assert ours < 0.35 * variance
        assert ours < 1.2 * np.mean((oracle - clean) ** 2)
    np.testing.assert_allclose(denoise_dct(clean, 0), clean, atol=1e-5)


# Brightness and contrast


def ramp() -> Pixels:
    return np.arange(256, dtype=np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)


@pytest.mark.parametrize("name", ["brighten", "darken", "contrast_change"])
def test_tone_curves_rise(name: str) -> None:
    kind = by_name(name)
    for value in (*kind.levels, *np.linspace(kind.lowest, kind.highest, 9)):
        out = apply(ramp(), kind, float(value), 0)[0].astype(int)
        assert np.diff(out, axis=0).min() >= 0
        assert out[0].max() == 0
        assert out[-1].min() == 255
        change = out - ramp()[0]
        if name == "brighten":
            assert change.min() >= 0
        if name == "darken":
            assert change.max() <= 0


def test_tone_curves_go_through_their_points() -> None:
    mid = ramp()[0, :, 0] / np.float32(255)
    parabola = np.clip(1.4 * mid - 0.4 * mid**2, 0, 1)
    np.testing.assert_allclose(tone_curve(mid, [0.5], [0.6]), parabola, atol=1e-6)
    assert np.abs(apply(ramp(), "brighten", 0.2, 0)[0, :, 0] - 255 * parabola).max() < 1.5
    assert apply(gray(128), "darken", 0.4, 0)[0, 0, 0] == pytest.approx(255 * 0.3, abs=1)
    at = np.float32([0.3, 0.5, 0.7])
    got = tone_curve(at, [0.3, 0.5, 0.7], [0.2, 0.5, 0.8])
    np.testing.assert_allclose(got, [0.2, 0.5, 0.8], atol=1e-6)


def test_contrast_change_both_ways() -> None:
    assert np.array_equal(apply(sample(), "contrast_change", -0.2, 0), sample())
    spread = [apply(sample(), "contrast_change", a, 0).std() for a in (-0.6, -0.4, 0, 0.15, 0.3)]
    assert spread == sorted(spread)


@pytest.mark.parametrize("shift", [0.15, 0, -0.15])
def test_mean_shift_is_a_sum(shift: float) -> None:
    want = np.clip(sample().astype(float) + 255 * shift, 0, 255)
    assert np.abs(apply(sample(), "mean_shift", shift, 0) - want).max() < 0.51


def test_mean_shift_has_no_order() -> None:
    changes = [float(rendered("mean_shift", level).mean()) for level in LEVELS]
    assert changes == sorted(changes, reverse=True)
    assert np.array_equal(rendered("mean_shift", 3), sample())


# Places


def test_jitter() -> None:
    assert np.array_equal(apply(sample(), "jitter", 0, 0), sample())
    steep = np.broadcast_to(np.arange(0, 240, 2, np.uint8)[None, :, None], (90, 120, 3)).copy()
    moved = apply(steep, "jitter", 1, 0).astype(int) - steep
    # Five offsets add up, but what was scattered before is averaged between pixels again.
    assert 1 < moved[:, 20:-20].std() / 2 < math.sqrt(5)
    assert abs(moved.mean()) < 0.2
    assert np.ptp(moved, axis=2).max() == 0  # channels move together


def test_non_eccentricity_patch() -> None:
    coordinates = np.zeros((200, 220, 3), np.uint8)
    coordinates[..., 0], coordinates[..., 1] = np.indices((200, 220))
    assert np.array_equal(apply(coordinates, "non_eccentricity_patch", 0, 0), coordinates)
    out = apply(coordinates, "non_eccentricity_patch", 1, 5).astype(int) - coordinates
    changed = np.argwhere(out.any(2))
    assert np.ptp(changed, axis=0).tolist() == [15, 15]
    assert len(changed) == 256
    offsets = out[tuple(changed.T)][:, :2]
    assert (offsets == offsets[0]).all()
    assert np.abs(offsets).max() <= 8
    many = apply(coordinates, "non_eccentricity_patch", 20, 5)
    assert 0.3 * 20 * 256 < (many != coordinates).any(2).sum() <= 20 * 256


@pytest.mark.parametrize("level", LEVELS)
def test_pixelate(level: int) -> None:
    scale = 0.95 - by_name("pixelate").levels[level - 1] ** 0.6
    coordinates = np.zeros((100, 130, 3), np.uint8)
    coordinates[..., 0], coordinates[..., 1] = np.indices((100, 130))
    out = distort(coordinates, "pixelate", level, 0)
    assert len(np.unique(out[..., 0])) == round(100 * scale)
    assert len(np.unique(out[..., 1])) == round(130 * scale)
    assert np.abs(out.astype(int) - coordinates).max() <= 1 / scale


@pytest.mark.parametrize("thresholds", [1, 2, 3])
def test_otsu_is_as_good_as_skimages(thresholds: int) -> None:
    image = data.astronaut()[..., 1]
    got = spatial.multi_otsu(np.bincount(image.ravel(), minlength=256), thresholds)
    assert got is not None
    ours = np.digitize(image, got)
    oracle = np.digitize(image, filters.threshold_multiotsu(image, thresholds + 1), right=True)

    def within(classes: npt.NDArray[np.intp]) -> float:
        parts = [image[classes == c] for c in range(thresholds + 1)]
        return sum(part.var() * part.size for part in parts)

    # Both look for the best there is; skimage does so in single precision.
    assert within(ours) <= within(oracle)
    assert (ours != oracle).mean() < 0.01


def test_otsu_of_few_values() -> None:
    histogram = np.bincount([3, 3, 9, 200], minlength=256)
    assert spatial.multi_otsu(histogram, 3) is None
    found = spatial.multi_otsu(histogram, 2)
    assert found is not None
    assert found.tolist() == [9, 200]


@pytest.mark.parametrize("level", LEVELS)
def test_quantization_counts_values(level: int) -> None:
    thresholds = by_name("quantization").levels[level - 1]
    values = np.unique(rendered("quantization", level))
    assert len(values) == thresholds + 1
    np.testing.assert_allclose(values, np.linspace(0, 255, len(values)), atol=0.51)
    order = np.argsort(sample().ravel(), kind="stable")
    assert (np.diff(rendered("quantization", level).ravel()[order].astype(int)) >= 0).all()


def test_color_block() -> None:
    one = apply(gray(0), "color_block", 1, 1)
    assert one.any(2).sum() == 32 * 32
    assert len(np.unique(one.reshape(-1, 3), axis=0)) == 2
    many = apply(gray(0), "color_block", 10, 1)
    assert 2 * 1024 < many.any(2).sum() <= 10 * 1024


def test_high_sharpen_agrees_with_skimage() -> None:
    lab = color.rgb2lab(sample())
    lab[..., 0] = filters.unsharp_mask(lab[..., 0], 3, 1, preserve_range=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours that no screen shows
        oracle = to_uint8(color.lab2rgb(lab))
    # Its Gaussian is cut at 4 sigma, ours at 2.
    assert error(rendered("high_sharpen", 1), oracle) < 0.02 * error(sample(), oracle)


# Ranking by people


def test_ranking_is_current() -> None:
    assert ranked.RANKING.read_text() == ranked.render(ranked.read_means(ranked.table_path()))


def test_ranking_leaves_out_what_has_no_order() -> None:
    assert set(NAMES) - set(ranked.names()) == {"mean_shift", "contrast_change"}
    assert [name for name in NAMES if name in ranked.names()] == list(ranked.names())


def test_direction_of_the_table() -> None:
    means = ranked.read_means(ranked.table_path())
    assert all(1 <= m <= 5 for mos in means.values() for m in mos)
    # sigma 0.1 changes nothing that can be seen, sigma 5 everything: higher is better
    assert means[1][0] > 4.5
    assert means[1][4] < 1.5


def test_table_without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="giqa\\[labels\\]"):
        ranked.table_path()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dis_img_path,score\nI01_01_01.png,4\n",
        "dis_img_path,score\nI01_01.png,4\n",
        "dis_img_path\nI01_01_01.png\n",
        "dis_img_path,score\nI01_01_01.png\n",
    ],
)
def test_bad_tables(text: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(TableInvalidError):
        ranked.read_means(tmp_path / "table.csv")
    with pytest.raises(UnreadableError):
        ranked.read_means(tmp_path / "none.csv")


# Documents and commands


def test_readme_tells_parameters() -> None:
    text = Path(ranked.__file__).with_name("README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*?) \| (.*?) \|", text, re.M)
    assert rows == [row(kind) for kind in TYPES]


def row(kind: Distortion) -> tuple[str, str, str, str]:
    levels = ", ".join(f"{value:g}" for value in kind.levels)
    return str(kind.number), kind.name, kind.parameter, levels


if __name__ == "__main__":
    lines = [f'"{n}": {json.dumps([measures(n, level) for level in LEVELS])}' for n in NAMES]
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
