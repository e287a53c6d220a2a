"""What is said of a whole run: a page, a summary, and how far it is from another run."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from giqa import batch
from giqa.batch import Sources
from giqa.cli import group
from tests.batch.test_tables import GREYS, png
from tests.batch.test_tars import add
from tests.brightness import Brightness
from tests.clips import pan, write
from tests.report.pages import Page


@pytest.fixture
def run(tmp_path: Path, brightness: Brightness) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i, grey in enumerate(GREYS):
        (folder / f"{i}.png").write_bytes(png(grey))
    (folder / "bad.png").write_bytes(b"no picture")
    write(folder / "v.mp4", pan(20))
    with tarfile.open(folder / "s.tar", "w") as tar:
        add(tar, "in-tar.png", png(77))
    batch.run(Sources(inputs=(str(folder),)), tmp_path / "out", scorer=brightness)
    return tmp_path / "out"


def test_a_page_of_a_whole_run(run: Path, tmp_path: Path, brightness: Brightness) -> None:
    folder = tmp_path / "in"
    (folder / "1.png").write_bytes(png(GREYS[1] + 40))
    (folder / "2.png").unlink()
    batch.run([str(folder)], tmp_path / "later", scorer=brightness)
    page = tmp_path / "r.html"
    arguments = ["batch", "report", str(tmp_path / "later"), "--against", str(run)]
    said = CliRunner().invoke(group, [*arguments, "--out", str(page)])
    assert said.exit_code == 0, said.output
    assert "6 scored" in said.stdout  # four pictures, one in a tar file, one video
    assert "1 corrupt" in said.stdout
    assert "6 in both runs" in said.stdout  # the video is one of them, however many frames it has
    found = Page.of(page)
    found.check()
    assert "Quality of 6 images and 1 video" in found.text
    assert len(found.all("img", "photo")) == 6
    for words in ("in-tar.png", "v.mp4", "corrupt", "Against another run", "1.png", "15.7"):
        assert words in found.text
    document = json.loads(CliRunner().invoke(group, [*arguments, "--json"]).stdout)
    assert document["scored"] == 6
    assert document["failed"] == {"corrupt": 1}
    assert document["drift"]["only_there"] == 1
    assert document["drift"]["largest"] == pytest.approx(40 / 2.55, abs=0.01)
    (change,) = document["drift"]["changes"]
    assert change["path"].endswith("1.png")


def test_a_run_is_not_apart_from_itself(run: Path) -> None:
    found = batch.drift(run, run)
    assert (found.mean, found.largest, found.ks, found.changes) == (0.0, 0.0, 0.0, ())
    assert (found.only_here, found.only_there) == (0, 0)


def test_a_video_has_one_row_as_in_one_run(run: Path, tmp_path: Path) -> None:
    from giqa.video import score_video

    (row,) = pq.read_table(run / "videos.parquet").to_pylist()
    alone = score_video(tmp_path / "in" / "v.mp4", Brightness())
    assert row["schema"] == "giqa.video/1"
    assert row["pooled"] == alone.pooled
    assert row["scenes"] == [scene.to_json() for scene in alone.scenes]
    assert alone.worst_window is not None
    assert row["worst_window"]["start_s"] == alone.worst_window.start_s
    assert row["stream"]["codec"] == "h264"
    assert row["frames"] == 20


def test_thumbnails_of_worst_windows(tmp_path: Path, brightness: Brightness) -> None:
    """Of each video the worst frame, wherever the video is; those that are gone are told."""
    dark = [np.full((96, 160, 3), 20 if i == 33 else 200, np.uint8) for i in range(60)]
    clip = write(tmp_path / "a b.mp4", dark)
    write(tmp_path / "gone.mp4", pan(10))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "in.mp4", clip.read_bytes())
    inputs = [str(tmp_path / name) for name in ("a b.mp4", "s.tar", "gone.mp4")]
    batch.run(inputs, tmp_path / "out", scorer=brightness)
    (tmp_path / "gone.mp4").unlink()
    arguments = ["batch", "report", str(tmp_path / "out"), "--thumbnails", str(tmp_path / "worst")]
    said = CliRunner().invoke(group, arguments)
    assert said.exit_code == 0, said.output
    assert "2 thumbnails, 1 videos are gone" in said.stdout
    names = ["000000-a_b.mp4-1.320s.jpg", "000001-s.tar_in.mp4-1.320s.jpg"]
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == names
    for name in names:
        with Image.open(tmp_path / "worst" / name) as picture:
            assert picture.size == (160, 96)
            assert abs(float(np.asarray(picture).mean()) - 20) < 4
    document = json.loads(CliRunner().invoke(group, [*arguments, "--json"]).stdout)
    assert [one["file"] for one in document["thumbnails"]] == [*names, ""]
