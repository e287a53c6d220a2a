"""`giqa score --report` and `--map`, as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.photos import photo
from tests.report.pages import Page


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "giqa", "score", *map(str, arguments)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for i in range(3):
        Image.fromarray(photo(300 + 20 * i, 240, i)).save(made / f"p{i}.jpg", quality=92)
    (made / "<script>.jpg").write_bytes((made / "p0.jpg").read_bytes()[:2000])
    return made


def test_a_report_and_maps_beside_the_rows(folder: Path, tmp_path: Path) -> None:
    page, maps, rows = tmp_path / "r.html", tmp_path / "maps", tmp_path / "r.json"
    ran = subprocess.run(
        command(folder, "--report", page, "--map", maps, "--json", rows, "--profile", "precise"),
        capture_output=True,
        timeout=120,
    )
    assert ran.returncode == 3, ran.stderr
    scored = {Path(r["path"]).name: r for r in json.loads(rows.read_text())}
    document = Page.of(page)
    document.check()
    assert "truncated" in document.text
    assert "precise" in document.text
    cards = [a["alt"] for a in document.all("img", "photo")]
    good = [name for name, row in scored.items() if row["status"] == "ok"]
    assert cards == sorted(good, key=lambda name: scored[name]["score"])
    assert len(document.all("img", "map")) == 3
    kinds = ("npz", "png")
    assert sorted(p.name for p in maps.iterdir()) == [
        f"00000{n}-p{n - 2}.jpg.{kind}" for n in (2, 3, 4) for kind in kinds
    ]
    with np.load(maps / "000003-p1.jpg.npz") as held:
        assert held["score"] == np.float32(scored["p1.jpg"]["score"])
        assert held["quality_map"].shape == (len(held["boxes"]), 14, 14)
        assert 0 <= held["quality_map"].min() <= held["quality_map"].max() <= 100


def test_an_interruption_reports_what_was_done(folder: Path, tmp_path: Path) -> None:
    page, names = tmp_path / "r.html", tmp_path / "names"
    names.write_text(100_000 * f"{folder / 'p1.jpg'}\n")
    with (
        names.open("rb") as stdin,
        subprocess.Popen(
            command("-", "--report", page),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(60) == 130
    Page.of(page).check()
