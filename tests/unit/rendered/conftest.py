"""Photographs to be rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.photos import photo


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(photo(120, 100, seed)).save(folder / f"{seed}.png")
    return folder
