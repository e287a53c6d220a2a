"""Small presets, and a folder that a board's recipe is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from tests.photos import photo
from tests.unit.board.made import RECIPE, run


@pytest.fixture(scope="module", autouse=True)
def presets(small_presets: None) -> None:
    """Every test here needs them."""


def make_folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "tables").mkdir()
    (tmp_path / "steps").mkdir()
    rows = ["path,mos"]
    for number in range(2):
        clean = Image.fromarray(photo(120, 90, number))
        for worse in range(4):
            name = f"{number}-{worse}.png"
            clean.filter(ImageFilter.GaussianBlur(worse)).save(tmp_path / "photos" / name)
            rows.append(f"{name},{5 - worse - 0.2 * number}")
        clean.save(tmp_path / "steps" / f"Quiz_SRC0{number}.png")
        for step in (1, 2, 51):
            kind = ("JPEG", "BPG")[number]
            clean.save(tmp_path / "steps" / f"Quiz_SRC0{number}_{kind}_{step:03d}.jpg")
    (tmp_path / "tables" / "people.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "board.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs, a table and steps; no training images."""
    return make_folder(tmp_path)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder whose pictures are rendered; for reading."""
    folder = make_folder(tmp_path_factory.mktemp("rendered"))
    done = run(folder / "board.toml", "render", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "native: 62 pictures, 62 of them rendered now" in done.output
    return folder
