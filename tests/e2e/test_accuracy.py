"""The default weights against human scores (skipped where the data is not at hand)."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.cli.test_cli import giqa


@pytest.mark.slow
def test_srocc_on_held_out_biq2021(data: Path, tmp_path: Path) -> None:
    folder = data / "biq2021-val"
    ran = giqa("score", folder / "images", "--json", tmp_path / "r.json")
    assert ran.returncode == 0, ran.stderr.decode()
    scores = {
        Path(r["path"]).name: r["score"] for r in json.loads((tmp_path / "r.json").read_text())
    }
    with (folder / "mos.csv").open(newline="") as f:
        mos = {row["image"]: float(row["mos"]) for row in csv.DictReader(f)}
    assert scores.keys() == mos.keys()
    names = sorted(mos)
    predicted, actual = (np.array([t[n] for n in names]) for t in (scores, mos))
    srocc = stats.spearmanr(predicted, actual).statistic
    rng = np.random.default_rng(0)
    draws = rng.integers(len(names), size=(1000, len(names)))
    low, high = np.percentile(
        [stats.spearmanr(predicted[d], actual[d]).statistic for d in draws], [2.5, 97.5]
    )
    print(f"\nSROCC {srocc:.4f} ({low:.4f} .. {high:.4f}), n {len(names)}")
    for subset in ("ss01", "ss02", "ss03"):
        part = np.array([n.startswith(subset) for n in names])
        found = stats.spearmanr(predicted[part], actual[part]).statistic
        print(f"{subset} {found:.4f}, n {part.sum()}")
        assert found > 0.3
    assert srocc >= 0.86
    # scores are on the scale of MOS, not merely in its order
    assert np.abs(predicted - 100 * actual).mean() < 10
