"""Distortions of places and values; ranking by people; documents."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from skimage import color, data, filters

from giqa.errors import MissingExtraError, TableInvalidError, UnreadableError
from tests.unit.distortions.made import LEVELS, NAMES, error, gray, rendered, sample
from training.distortions import TYPES, Distortion, apply, by_name, distort, ranked, spatial
from training.distortions.convert import to_uint8


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


def test_readme_tells_parameters() -> None:
    text = Path(ranked.__file__).with_name("README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*?) \| (.*?) \|", text, re.M)
    assert rows == [row(kind) for kind in TYPES]


def row(kind: Distortion) -> tuple[str, str, str, str]:
    levels = ", ".join(f"{value:g}" for value in kind.levels)
    return str(kind.number), kind.name, kind.parameter, levels
