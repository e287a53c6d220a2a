"""What tutorials and guides tell a reader to type does what they say: their blocks are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from build.docs import PAGES
from tests import clips
from tests.ports import free_port

pytest.importorskip("skimage", reason="needs the extra demo")

# Servers and clusters take long; TensorRT and training need what is not here: those pages' commands
# are parsed by tests/unit/test_docs.py.
_RUN = [
    "scores.md",
    "tutorials/cull.md",
    "tutorials/gate.md",
    "tutorials/video.md",
    "guides/troubleshooting.md",
    "guides/upgrading.md",
    "reference/files.md",
    "reference/python.md",
    "reference/results.md",
    *(
        pytest.param(page, marks=pytest.mark.slow)
        for page in ("tutorials/server.md", "tutorials/batch.md", "guides/triton.md")
    ),
]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with what the pages name: photographs, clips."""
    from skimage import data

    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(photos / f"{name}.jpg", quality=90)
    Image.fromarray(data.coffee()).save(tmp_path / "photo.jpg", quality=90)
    Image.fromarray(data.chelsea()).save(tmp_path / "other.png")
    (tmp_path / "ladder").mkdir()
    for path, bits in (("clip.mp4", 2e6), ("ladder/low.mp4", 1e5), ("ladder/high.mp4", 2e6)):
        clips.write(tmp_path / path, clips.pan(50, 320, 192), bit_rate=int(bits))
    return tmp_path


def _blocks(page: str, ports: dict[str, str]) -> list[tuple[str, str]]:
    text = (PAGES / page).read_text()
    for port, free in ports.items():
        text = text.replace(port, free)
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S)


def _environment() -> dict[str, str]:
    here = Path(sys.executable).parent
    root = PAGES.parents[2]
    return {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


@contextmanager
def _served(block: str, desk: Path) -> Iterator[None]:
    """While the server of a block runs."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {block}"],
        cwd=desk,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert any("ready" in line for line in process.stdout)
            yield
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def _run(kind: str, block: str, desk: Path) -> str:
    command = ["bash", "-euo", "pipefail", "-c"] if kind == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*command, block], cwd=desk, env=_environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, (block, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.parametrize("page", _RUN)
def test_what_a_page_shows_works(page: str, desk: Path) -> None:
    ports = {port: str(free_port()) for port in ("8000", "8001", "8002")}
    blocks = [(kind, block) for kind, block in _blocks(page, ports) if "pip install" not in block]
    assert blocks
    if blocks[0][1].startswith("giqa serve"):
        with _served(blocks[0][1], desk):
            said = [_run(kind, block, desk) for kind, block in blocks[1:]]
    else:
        said = [_run(kind, block, desk) for kind, block in blocks]
    assert any(said)
