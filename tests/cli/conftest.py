"""Photographs to be scored."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.photos import photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for i in range(4):
        Image.fromarray(photo(160, 120, i, noise=i * 12)).save(made / f"p{i}.jpg", quality=90)
    (made / "broken.jpg").write_bytes((made / "p0.jpg").read_bytes()[:900])
    return made
