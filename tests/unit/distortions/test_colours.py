"""Blur, colour, compression, noise and tone: each does what it is named after."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage import color, data, filters, restoration

from tests.unit.distortions.made import GENERATOR, LEVELS, error, gray, rendered, sample
from training.distortions import apply, blur, by_name
from training.distortions.brightness import tone_curve
from training.distortions.convert import Floats, Pixels, lab_to_rgb, rgb_to_lab, to_float, to_uint8
from training.distortions.denoise import denoise_dct


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
