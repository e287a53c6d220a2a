"""Renditions beside each other, and what other tools read of a video's scores."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from giqa.cli import group
from giqa.errors import UsageError
from giqa.report import write_comparison
from giqa.video import (
    SceneWriter,
    VideoResult,
    compare,
    score_video,
    timecode,
    write_vmaf,
)
from tests.brightness import Brightness
from tests.clips import pan, write
from tests.report.pages import ABOUT, Page, info, rendition


def noise(count: int, seed: int, spread: float = 2.0) -> np.ndarray:
    """Scores whose neighbours are alike."""
    rng, values = np.random.default_rng(seed), [0.0]
    for step in rng.normal(0, spread * math.sqrt(1 - 0.8**2), count):
        values.append(0.8 * values[-1] + step)
    return np.array(values[1:])


def code(found: Result) -> int:
    """The exit code that `giqa` itself ends with."""
    codes = {UsageError: 2}
    return codes.get(type(found.exception)) or getattr(found.exception, "code", found.exit_code)


def test_verdicts() -> None:
    base = 60 + noise(500, 1)
    found = compare(
        [
            rendition("a", base),
            rendition("worse", base - 3 + noise(500, 2)),
            rendition("better", base + 3 + noise(500, 3)),
            rendition("same", base.copy()),
            rendition("hardly", base - 0.2),
            rendition("unsure", base - 0.6 + noise(500, 4, 8.0)),
        ]
    )
    verdicts = [r.whole.verdict for r in found.renditions[1:] if r.whole]
    assert verdicts == ["worse", "better", "within noise", "within noise", "within noise"]
    worse = found.renditions[1].whole
    assert worse is not None
    assert worse.low is not None
    assert worse.high is not None
    assert worse.low < worse.mean < worse.high < 0
    assert worse.mean == pytest.approx(-3, abs=0.7)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(300):
        base = np.full(300, 60.0)
        found = compare([rendition("a", base), rendition("b", base + noise(300, seed))])
        whole = found.renditions[1].whole
        assert whole is not None
        assert whole.low is not None
        assert whole.high is not None
        inside += whole.low <= 0 <= whole.high
    assert 0.88 < inside / 300 <= 1.0  # frames taken for independent would give 0.5


def test_other_rates_are_matched_by_time() -> None:
    def curve(fps: float) -> np.ndarray:
        return 60 + 10 * np.sin(np.arange(int(8 * fps)) / fps)

    for fps in (24000 / 1001, 30.0, 50.0, 12.5):
        found = compare([rendition("a", curve(25.0)), rendition("b", curve(fps) - 2, fps)])
        whole = found.renditions[1].whole
        assert whole is not None
        assert whole.mean == pytest.approx(-2, abs=0.1)
        assert whole.frames >= 199 if fps > 20 else 90
    short = compare([rendition("a", curve(25.0)), rendition("b", curve(25.0)[:50])])
    whole = short.renditions[1].whole
    assert whole is not None
    assert whole.frames == 50


def test_scenes_have_differences_of_their_own() -> None:
    base = np.full(300, 60.0)
    other = base + noise(300, 1, 0.5)
    other[100:200] -= 10
    found = compare([rendition("a", base, cuts=(4.0, 8.0)), rendition("b", other)])
    scenes = found.renditions[1].scenes
    assert [s.verdict for s in scenes] == ["within noise", "worse", "within noise"]
    assert [(s.start_s, s.frames) for s in scenes] == [(0.0, 100), (4.0, 100), (8.0, 100)]


def test_what_cannot_be_compared() -> None:
    one = rendition("a", np.full(9, 60.0))
    with pytest.raises(UsageError, match="two videos"):
        compare([one])
    other = VideoResult("b", "b@2", "openvino-f32")
    with pytest.raises(UsageError, match="different bundles"):
        compare([one, other])
    with pytest.raises(UsageError, match="margin"):
        compare([one, one], margin=float("nan"))
    nothing = VideoResult("c", **ABOUT)
    assert compare([one, nothing]).renditions[1].whole is None
    assert compare([nothing, one]).renditions[1].whole is None
    single = compare([rendition("a", np.array([50.0])), rendition("b", np.array([10.0]))])
    whole = single.renditions[1].whole
    assert whole is not None
    assert (whole.mean, whole.low, whole.verdict) == (-40.0, None, "within noise")


@pytest.mark.parametrize(
    ("seconds", "fps", "code"),
    [
        (0.0, 25.0, "00:00:00:00"),
        (3661.52, 25.0, "01:01:01:13"),
        (10.0, 24000 / 1001, "00:00:10:00"),
        (1800 * 1001 / 30000, 30000 / 1001, "00:01:00;02"),
        (1799 * 1001 / 30000, 30000 / 1001, "00:00:59;29"),
        (17982 * 1001 / 30000, 30000 / 1001, "00:10:00;00"),
        (107892 * 1001 / 30000, 30000 / 1001, "01:00:00;00"),
        (3600 * 1001 / 60000, 60000 / 1001, "00:01:00;04"),
    ],
)
def test_timecodes(seconds: float, fps: float, code: str) -> None:
    # The fourth frame number after a minute at 23.976 counts frames, not seconds.
    expected = code if fps != 24000 / 1001 else "00:00:10:00"
    assert timecode(seconds, info(fps)) == expected
    assert timecode(1.0, None) == "00:00:01:00"


def test_libvmafs_log_and_scenes(tmp_path: Path) -> None:
    one = rendition("a,b.mp4", np.array([10.0, 20.0, 60.0, 70.0]), 2.0, (1.0,))
    write_vmaf(tmp_path / "v.json", one)
    log = json.loads((tmp_path / "v.json").read_text())
    assert [f["frameNum"] for f in log["frames"]] == [0, 1, 2, 3]
    assert [f["metrics"]["giqa"] for f in log["frames"]] == [10.0, 20.0, 60.0, 70.0]
    pooled = log["pooled_metrics"]["giqa"]
    assert (pooled["min"], pooled["max"], pooled["mean"]) == (10.0, 70.0, 40.0)
    assert log["fps"] == 2.0
    file = io.BytesIO()
    SceneWriter(file).write(one)
    first, second = csv.DictReader(io.StringIO(file.getvalue().decode()))
    assert (first["path"], first["mean"], first["end_timecode"]) == (
        "a,b.mp4",
        "15.0",
        "00:00:01:00",
    )
    assert (second["start_s"], second["frames"], second["difference"]) == ("1.0", "2", "")


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A clip, the same in few bits, and the same again."""
    folder = tmp_path_factory.mktemp("ladder")
    names = (("source", 4_000_000), ("low", 30_000), ("again", 4_000_000))
    return [write(folder / f"{name}.mp4", pan(60, 320, 192), bit_rate=bits) for name, bits in names]


def test_the_command_compares(ladder: list[Path], tmp_path: Path) -> None:
    out = {name: tmp_path / name for name in ("c.json", "c.html", "s.csv")}
    options = ["--json", out["c.json"], "--report", out["c.html"], "--scenes-csv", out["s.csv"]]
    found = CliRunner().invoke(
        group, ["video", "--compare", "--every", "3", *map(str, [*options, *ladder])]
    )
    assert code(found) == 4, found.output
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    verdicts = {Path(row[1]).name: row[-1] for row in lines if row[0] == "compared"}
    assert verdicts == {"low.mp4": "worse", "again.mp4": "within noise"}
    document = json.loads(out["c.json"].read_text())
    assert document["schema"] == "giqa.comparison/1"
    assert [r["difference"] and r["difference"]["verdict"] for r in document["renditions"]] == [
        None,
        "worse",
        "within noise",
    ]
    rates = [step["bit_rate"] for step in document["ladder"]]
    assert rates == sorted(rates)
    assert len(rates) == 3
    rows = list(csv.DictReader(io.StringIO(out["s.csv"].read_text())))
    assert [row["verdict"] for row in rows] == ["", "worse", "within noise"]
    page = Page.of(out["c.html"])
    page.check()
    assert len([a for a in page.all("path", "curve") if "d" in a]) >= 3
    assert len(page.all("img", "photo")) >= 3
    assert "low.mp4" in page.text
    same = CliRunner().invoke(
        group, ["video", "--compare", "--every", "6", str(ladder[0]), str(ladder[2])]
    )
    assert code(same) == 0, same.output
    alone = CliRunner().invoke(group, ["video", "--compare", str(ladder[0])])
    assert code(alone) == 2


def test_a_page_of_videos_that_are_gone(tmp_path: Path) -> None:
    base = np.full(60, 60.0)
    names = ("<b>.mp4", "x.mp4")
    found = compare([rendition(name, base - 5 * i) for i, name in enumerate(names)])
    write_comparison(tmp_path / "c.html", found)
    page = Page.of(tmp_path / "c.html")
    page.check()
    assert "worse" in page.text
    assert "<b>.mp4" in page.text


def test_a_pipe_is_the_file(ladder: list[Path], brightness: Brightness) -> None:
    with ladder[0].open("rb") as file:
        piped = score_video(file, brightness)
    assert piped.path == "-"
    assert piped.frames == score_video(ladder[0], brightness).frames


@pytest.mark.usefixtures("small_default")
def test_the_command_reads_a_pipe(ladder: list[Path]) -> None:
    data = ladder[0].read_bytes()
    found = CliRunner().invoke(group, ["video", "--every", "30", "-"], input=data)
    assert code(found) == 0, found.output
    assert found.stdout.split("\t")[:2] == ["-", "ok"]
    over = CliRunner().invoke(group, ["video", "--max-bytes", "100", "-"], input=data)
    assert "too_many_bytes" in over.stdout
    nothing = CliRunner().invoke(group, ["video", "-"], input=b"")
    assert "empty" in nothing.stdout
    assert code(nothing) == 3


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tiff", "webp"])
def test_numbered_pictures_are_a_video(tmp_path: Path, brightness: Brightness, kind: str) -> None:
    from PIL import Image

    greys = (20, 90, 160, 230, 40)
    for i, grey in enumerate(greys):
        Image.new("RGB", (64, 48), (grey,) * 3).save(tmp_path / f"f{i + 998:04d}.{kind}")
    (tmp_path / f"f12345.{kind}").with_suffix(".txt").write_text("x")
    found = score_video(tmp_path / f"f%04d.{kind}", brightness, rate=24)
    assert [f.frame for f in found.frames] == [0, 1, 2, 3, 4]
    assert [f.pts_s for f in found.frames] == pytest.approx([i / 24 for i in range(5)])
    assert [f.score for f in found.frames] == pytest.approx([g / 2.55 for g in greys], abs=1.0)
    assert found.status == "ok"
    (tmp_path / f"f1000.{kind}").unlink()
    (tmp_path / f"f0999.{kind}").write_bytes(b"")
    found = score_video(str(tmp_path / f"f%04d.{kind}"), brightness)
    assert [f.frame for f in found.frames] == [0, 1, 2, 3, 4]
    assert [f.status for f in found.frames] == ["ok", "error", "error", "ok", "ok"]
    assert found.status == "partial"


@pytest.mark.usefixtures("small_default")
def test_a_video_that_is_not_whole_ends_with_3(tmp_path: Path) -> None:
    from PIL import Image

    for i in (0, 2):
        Image.new("RGB", (64, 48), (90,) * 3).save(tmp_path / f"{i}.png")
    found = CliRunner().invoke(group, ["video", str(tmp_path / "%d.png")])
    assert found.stdout.split("\t")[1] == "partial"
    assert code(found) == 3


def test_no_numbered_pictures(tmp_path: Path, brightness: Brightness) -> None:
    found = score_video(tmp_path / "f%04d.png", brightness)
    assert found.error is not None
    assert found.error.code == "not_found"
    literal = write(tmp_path / "100%d.mp4", pan(3))
    assert score_video(literal, brightness).status == "ok"
