"""Which distortion stands for which one of another data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from giqa.errors import UsageError
from tests.photos import photo
from training.distortions import TYPES, apply, by_name
from training.transfer import calibrate, mapping


def test_kadid_is_mapped_one_to_one() -> None:
    found = mapping.of_dataset("kadid10k").targets
    assert [(t.type, t.value) for t in found] == [(k.name, v) for k in TYPES for v in k.levels]


def test_tid2013_is_mapped_by_psnr() -> None:
    from training.data import tid2013

    found = mapping.of_dataset("tid2013")
    assert {t.source for t in found.targets} <= set(tid2013.TYPES)
    assert [t.psnr for t in found.targets[:5]] == [33, 30, 27, 24, 21]
    assert len(found.targets) == 45


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('type = "jpeg"\nvalue = [50, 40, 30, 20, 0]', "0.0 is not within 1..100"),
        ('type = "jpeg"\nvalue = [50, 40, 30, 20]', "Field required"),
        ('type = "smear"\nvalue = "psnr"', "no such distortion"),
        ('type = "jitter"\nvalue = "psnr"', "not searched by PSNR"),
        ('type = "jpeg"\nvalue = "psnr"', "needs the levels"),
        ('type = "jpeg"\nvalues = [1, 2, 3, 4, 5]', "Extra inputs"),
        ("type = ", "Invalid value"),
    ],
)
def test_wrong_mappings(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f'dataset = "csiq"\n[types.a]\n{text}\n')
    with pytest.raises(UsageError, match=told):
        mapping.read(path)


def test_psnr_is_found_or_refused() -> None:
    image = photo(64, 48, 3)
    for name, target in (("gaussian_blur", 27), ("jpeg", 27), ("white_noise", 21)):
        value, result = calibrate.find(image, by_name(name), target, 0)
        error = np.square(image.astype(float) - result).mean()
        assert 10 * np.log10(255**2 / error) == pytest.approx(target, abs=1.0)
        assert np.array_equal(result, apply(image, name, value, 0))
    flat = np.full((48, 64, 3), 90, np.uint8)
    with pytest.raises(UsageError, match="gaussian_blur: no value brings this picture near 21 dB"):
        calibrate.find(flat, by_name("gaussian_blur"), 21, 0)
