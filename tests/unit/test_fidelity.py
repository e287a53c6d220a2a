"""The full-reference measure: against other implementations, and what it must never do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from skimage import data
from skimage.metrics import structural_similarity

from giqa.errors import NotFoundError, UsageError
from tests.photos import photo
from training.__main__ import main
from training.distortions import apply
from training.distortions.codecs import coded
from training.fidelity import calibration, features, lost, measure, opinions
from training.fidelity.opinions import Row

PHOTO = np.ascontiguousarray(data.astronaut()[40:341, 60:317])  # odd sides
GREY = np.repeat(PHOTO[..., 1:2], 3, 2)
LADDERS = {
    "gaussian_blur": (0.5, 1, 2, 4, 8),
    "white_noise": (0.001, 0.004, 0.01, 0.04, 0.1),
    "jpeg": (40, 20, 10, 5, 1),
    "jpeg2000": (20, 60, 150, 400),
    "darken": (0.1, 0.3, 0.6, 1),
    "brighten": (0.1, 0.3, 0.6, 1),
    "color_saturation_lab": (1.5, 3, 6, 12),
    "impulse_noise": (0.002, 0.01, 0.05, 0.2),
    "color_diffusion": (1, 3, 6, 12),
}


@pytest.mark.parametrize("picture", [PHOTO, GREY, np.zeros_like(PHOTO), PHOTO[:7, :5]])
def test_equal_pictures_lose_nothing(picture: np.ndarray) -> None:
    assert lost(picture, picture.copy()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", LADDERS)
@pytest.mark.parametrize("picture", [PHOTO, GREY], ids=["colour", "grey"])
def test_more_damage_loses_more(kind: str, picture: np.ndarray) -> None:
    if picture is GREY and kind in ("color_saturation_lab", "color_diffusion"):
        pytest.skip("no colour")
    losses = [lost(picture, apply(picture, kind, value, seed=0)) for value in LADDERS[kind]]
    assert losses == sorted(losses)
    assert losses[0] < 0.5 < losses[-1]
    assert all(0 <= value <= 1 for value in losses)


def test_what_nobody_sees_loses_nearly_nothing() -> None:
    assert lost(PHOTO, coded(PHOTO, "jpeg", 95)) < 0.03
    assert lost(PHOTO, coded(PHOTO, "jpeg", 80)) < 0.08
    shifted = (PHOTO.astype(int) + 1).clip(0, 255).astype(np.uint8)
    assert lost(PHOTO, shifted) < 0.03


def test_ssim_is_that_of_scikit_image() -> None:
    first, second = (features.luma(p) for p in (PHOTO, coded(PHOTO, "jpeg", 20)))
    luminance, structure = features.ssim_terms(first, second)
    # Its map reaches to the border, mirrored with the edge repeated.
    _, wanted = structural_similarity(
        first.astype(float), second.astype(float), gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=255, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(luminance * structure, wanted, atol=2e-3)


def gradients(plane: np.ndarray) -> np.ndarray:
    """Prewitt's magnitude, by loops over a mirrored plane."""
    padded = np.pad(plane.astype(float), 1, mode="symmetric")
    height, width = plane.shape
    found = np.zeros(plane.shape)
    for y in range(height):
        for x in range(width):
            window = padded[y : y + 3, x : x + 3]
            across = (window[:, 0] - window[:, 2]).sum() / 3
            down = (window[0] - window[2]).sum() / 3
            found[y, x] = np.hypot(across, down)
    return found


def test_gmsd_is_that_of_loops() -> None:
    first, second = photo(23, 17, 1), photo(23, 17, 2)
    planes = [features.luma(p) for p in (first, second)]
    for scale in range(features.SCALES):
        one, two = map(gradients, planes)
        similarity = (2 * one * two + 170) / (one**2 + two**2 + 170)
        found = dict(zip(features.NAMES, features.features(first, second), strict=True))
        assert found[f"gmsd_{scale}"] == pytest.approx(similarity.std(), rel=1e-4)
        assert found[f"gms_{scale}"] == pytest.approx(1 - similarity.mean(), rel=1e-4)
        for number, plane in enumerate(planes):  # halves, an odd side's last line twice
            height, width = plane.shape
            even = np.pad(plane, [(0, height % 2), (0, width % 2)], mode="symmetric")
            blocks = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
            planes[number] = blocks.mean((1, 3))
            np.testing.assert_allclose(features.halved(plane), planes[number], atol=1e-3)


def test_luma_is_that_of_pillow() -> None:
    wanted = np.asarray(Image.fromarray(PHOTO).convert("L"), float)
    assert np.abs(features.luma(PHOTO) - wanted).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (11, 4), (33, 32)])
def test_any_size_is_measured(size: tuple[int, int]) -> None:
    picture = photo(size[1], size[0], 3)
    assert lost(picture, picture) == pytest.approx(0, abs=1e-4)
    assert 0 <= lost(picture, 255 - picture) <= 1
    vector = features.features(picture, 255 - picture)
    assert np.isfinite(vector).all()
    assert (vector >= 0).all()


def test_mirrored_pictures_lose_the_same() -> None:
    other = coded(PHOTO, "jpeg", 10)
    turned = [np.ascontiguousarray(p[::-1, ::-1]) for p in (PHOTO[:300, :256], other[:300, :256])]
    assert lost(*turned) == pytest.approx(lost(PHOTO[:300, :256], other[:300, :256]), abs=1e-3)


def test_large_pictures_change_over_without_a_step() -> None:
    wide = [photo(width, 64, 5) for width in (768, 769, 1536, 1537)]
    losses = [lost(p, apply(p, "gaussian_blur", 1.0, seed=0)) for p in wide]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert losses[2] == pytest.approx(losses[3], abs=0.02)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PHOTO, PHOTO[1:]),
        (PHOTO.astype(float), PHOTO.astype(float)),
        (PHOTO[..., 0], PHOTO[..., 0]),
        (PHOTO[:0], PHOTO[:0]),
    ],
)
def test_wrong_pictures_are_refused(first: np.ndarray, second: np.ndarray) -> None:
    with pytest.raises(UsageError, match="give"):
        lost(first, second)


def test_shares_of_kadid_fall_with_opinion() -> None:
    found = opinions.losses()
    assert len(found) == 25
    assert min(min(row) for row in found.values()) == 0
    assert found["jpeg"][4] == pytest.approx(0.9, abs=0.02)


def rows(truth: np.ndarray, count: int = 6) -> list[Row]:
    """Opinions that follow a known measure, of two sets with scales of their own."""
    rng = np.random.default_rng(0)
    made = []
    for reference in range(count):
        for kind in opinions.losses():
            for level in range(1, 6):
                vector = rng.uniform(0, 0.2 * level, len(features.NAMES))
                loss = float(1 - np.exp(-truth @ vector))
                made.append(Row("kadid10k", kind, level, level, f"p{reference}", loss, vector))
        for level in range(1, 6):
            vector = rng.uniform(0, 0.2 * level, len(features.NAMES))
            score = 7 - 6 * float(1 - np.exp(-truth @ vector))
            made.append(Row("tid2013", "jpeg", level, level, f"k{reference}", score, vector))
    return made


def test_calibration_finds_what_made_the_opinions(tmp_path: Path) -> None:
    truth = np.zeros(len(features.NAMES))
    truth[[1, 8, 21]] = 0.5, 1.0, 0.3
    found = calibration.calibrate(rows(truth))
    assert (found.measure.weights >= 0).all()
    assert found.held_out["kadid10k"].srocc > 0.98
    assert found.held_out["tid2013 untouched"].srocc > 0.98
    assert found.held_out["tid2013"].plcc > 0.98
    assert found.measure.correction > 0.8
    assert found.photographs == {"kadid10k": 6, "tid2013": 6}
    calibration.write(tmp_path / "weights.json", found, {"about": "a test"})
    read = measure.read(tmp_path / "weights.json")
    np.testing.assert_allclose(read.weights, found.measure.weights, rtol=1e-5)
    assert read.expected["jpeg"] == pytest.approx(found.measure.expected["jpeg"], abs=1e-4)


def test_weights_of_other_features_are_refused(tmp_path: Path) -> None:
    about = json.loads(measure.WEIGHTS.read_text())
    about["features"] = about["features"][1:]
    (tmp_path / "old.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="other features .*calibrate again"):
        measure.read(tmp_path / "old.json")


def test_shipped_weights_say_where_they_come_from() -> None:
    about = json.loads(measure.WEIGHTS.read_text())
    assert "KADID-10k" in about["provenance"]["opinions"]
    assert about["held_out"]["kadid10k"]["srocc"] > 0.8
    assert about["held_out"]["tid2013 untouched"]["srocc"] > 0.75
    assert min(min(row) for row in about["weights"].values()) >= 0
    assert set(about["expected"]) == set(opinions.losses())


def test_the_command_calibrates_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.fidelity import command

    monkeypatch.setattr(opinions, "SIZE", (48, 40))
    (folder := tmp_path / "photos").mkdir()
    for seed in range(2):
        Image.fromarray(photo(64, 48, seed)).save(folder / f"{seed}.png")
    cache = tmp_path / "cache"
    cache.mkdir()
    for seed in range(2):  # in process: workers would not see the small size
        first = command.measured(command.Job(folder / f"{seed}.png", None), cache)
    again = command.measured(command.Job(folder / "1.png", None), cache)
    assert [row[:-1] for row in again] == [row[:-1] for row in first]
    np.testing.assert_array_equal(again[7].features, first[7].features)
    out = tmp_path / "weights.json"
    result = CliRunner().invoke(
        main, ["fidelity", str(folder), "--cache", str(cache), "--out", str(out), "--about", "made"]
    )
    assert result.exit_code == 0, result.output
    assert "| kadid10k | 250 |" in result.output
    assert measure.read(out).correction == 0
    assert json.loads(out.read_text())["provenance"]["photographs"] == "made"


def test_kodak_photographs_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no photograph 01.png"):
        opinions.kodak(tmp_path)


def test_tid2013_is_rendered_by_its_scores(tmp_path: Path) -> None:
    Image.fromarray(photo(640, 480, 1)).save(tmp_path / "07.png")
    scores = opinions.tid2013_opinions()
    assert len(scores) == 25 * 9 * 5
    assert scores[1, "white_noise", 1] == pytest.approx(5.5143)
