"""A labelled data set, photographs, and labels that went from the one to the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.photos import photo
from tests.unit.transfer.made import BACKBONE, CONTENTS, mos_of, options, write_photos
from training.model import backbones
from training.transfer import labels
from training.transfer.embed import Embedder
from training.transfer.run import transfer as run


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(backbones.create(BACKBONE).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def embedder(weights: Path) -> Embedder:
    return Embedder(BACKBONE, weights)


@pytest.fixture(scope="session")
def kadid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree like KADID-10k's: five originals; the distorted pictures are empty files."""
    root = tmp_path_factory.mktemp("kadid10k")
    (root / "images").mkdir()
    rows = ["dist_img,ref_img,dmos,var"]
    for i, content in enumerate(CONTENTS):
        name = content.upper()
        Image.fromarray(photo(160, 120, 100 + i)).save(root / "images" / f"{name}.png")
        for number in range(1, 26):
            for level in range(1, 6):
                coded = f"{name}_{number:02}_{level:02}.png"
                (root / "images" / coded).write_bytes(b"")
                rows.append(f"{coded},{name}.png,{mos_of(content, number, level)!r},0.1")
    (root / "dmos.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def transferred(
    photos: Path, kadid: Path, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Labels in row groups of eight, to have several shards."""
    out = tmp_path_factory.mktemp("transferred")
    with pytest.MonkeyPatch.context() as patch:
        small_groups(patch)
        run(options(photos, kadid, out), embedder)
    return out


def small_groups(patch: pytest.MonkeyPatch) -> None:
    write = labels.write
    patch.setattr(labels, "write", lambda path, found: write(path, found, 8))
