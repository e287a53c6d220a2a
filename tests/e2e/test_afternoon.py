"""A researcher's afternoon: what the training guide tells to type, from a table to a server.

On 60 pictures and without a network: proxies point to where nobody listens, hubs are told to be
offline. The recipe is the guide's, its numbers sized to so few.
"""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from build.docs import ROOT
from tests.ports import free_port

data = pytest.importorskip("skimage.data", reason="needs the extra demo")
pytest.importorskip("openvino", reason="needs the extra train")

GUIDE = (ROOT / "training" / "README.md").read_text()
NOWHERE = "http://127.0.0.1:9"


def _table(desk: Path) -> None:
    """Crops of four photographs, sharp to blurred and blocky, with an opinion that says so."""
    (desk / "images").mkdir()
    rng = np.random.default_rng(0)
    with (desk / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "mos", "reference"])
        for i in range(60):
            name = ("coffee", "chelsea", "rocket", "astronaut")[i % 4]
            picture = Image.fromarray(getattr(data, name)())
            x, y = (int(rng.integers(0, n - 256)) for n in picture.size)
            level = i // 4 % 5
            part = picture.crop((x, y, x + 256, y + 256))
            part = part.filter(ImageFilter.GaussianBlur(level))
            encoded = io.BytesIO()
            part.save(encoded, "JPEG", quality=95 - 20 * level)
            path = f"images/{i:02}.jpg"
            (desk / path).write_bytes(encoded.getvalue())
            table.writerow(
                [path, f"{np.clip(5 - level + rng.normal(0, 0.1), 1, 5):.2f}", f"{name}-{i}"]
            )


def _recipe(desk: Path) -> None:
    """The guide's first recipe, for fewer pictures."""
    (text,) = re.findall(r"^```toml\n(preset = .*?)^```", GUIDE, re.M | re.S)
    for line, fewer in (
        ("validation_share = 0.1", "validation_share = 0.2"),
        ("batch = 32", "batch = 8"),
        ("warmup_steps = 30", "warmup_steps = 6"),
    ):
        assert text.count(line) == 1
        text = text.replace(line, fewer)
    (desk / "my.toml").write_text(text)


def _commands() -> list[str]:
    (block,) = re.findall(r"^```sh\n(make test\n.*?)^```", GUIDE, re.M | re.S)
    lines = block.replace("\\\n", "").splitlines()
    assert lines[0] == "make test"  # is what runs this
    return [line.replace(".venv/bin/python", "python") for line in lines[1:]]


@pytest.fixture
def environment() -> dict[str, str]:
    here = Path(sys.executable).parent
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    return {
        **os.environ,
        **proxies,
        "no_proxy": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


@pytest.mark.slow
def test_from_a_table_to_a_server(tmp_path: Path, environment: dict[str, str]) -> None:
    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-4000:])
        return done.stdout

    _table(tmp_path)
    _recipe(tmp_path)
    Image.fromarray(data.coffee()).save(tmp_path / "photo.jpg")
    said = {command: run(command) for command in _commands()}
    assert any("fit my.toml" in command for command in said)
    *_, (last, row) = said.items()
    assert last == "giqa score photo.jpg --bundle runs/mine/bundle"
    assert "photo.jpg" in row

    # What was learnt: pictures of another blur, in order, where the untrained would not know.
    for level in (0, 2, 5):
        part = Image.fromarray(data.coffee()).crop((80, 80, 336, 336))
        part.filter(ImageFilter.GaussianBlur(level)).save(tmp_path / f"level{level}.png")
    order = run("giqa score level*.png --bundle runs/mine/bundle --csv -")
    scores = [float(line["score"]) for line in csv.DictReader(order.splitlines())]
    assert len(scores) == 3
    assert sorted(scores, reverse=True) == scores

    port = free_port()
    with subprocess.Popen(
        ["bash", "-c", f"exec giqa serve --bundle runs/mine/bundle --port {port}"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert any("ready" in line for line in server.stdout)
            url = f"grpc://127.0.0.1:{port}"
            served = run(f"giqa score level*.png --url {url} --bundle runs/mine/bundle --csv -")
            found = [float(line["score"]) for line in csv.DictReader(served.splitlines())]
            assert found == pytest.approx(scores, abs=1.0)
            server.terminate()
            assert server.wait(60) == 0
        finally:
            server.kill()
