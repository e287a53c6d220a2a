"""`giqa video` as a user runs it, and the files it writes."""

import csv
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from giqa.errors import CorruptError
from giqa.video import FrameRow, VideoResult, frame_schema, open_video_writer, pool, write_srt
from tests.clips import pan, write
from tests.tiled import small_bundle


def giqa(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "giqa", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_rows_files_and_code_3(tmp_path: Path) -> None:
    good = write(tmp_path / "good.mp4", pan(12))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(good.read_bytes()[:2000])
    out = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "parquet")}
    (tmp_path / "srt").mkdir()
    ran = giqa(
        *("video", good, broken, tmp_path / "none.mp4", "--every", "2", "--pool", "p5,mean"),
        *(f"--{kind}={path}" for kind, path in out.items()),
        f"--srt={tmp_path / 'srt'}",
        f"--report={tmp_path / 'page.html'}",
    )
    assert ran.returncode == 3, ran.stderr
    table = [line.split("\t") for line in ran.stdout.splitlines()]
    assert [row[1] for row in table] == ["ok", "error", "error"]
    assert [row[-1] for row in table] == ["", "truncated", "not_found"]
    assert "[truncated]" in ran.stderr

    document = json.loads(out["json"].read_text())
    assert document["schema"] == "giqa.video/1"
    assert re.fullmatch(r"giqa-s@.*", document["bundle"])
    videos = document["videos"]
    assert [Path(v["path"]).name for v in videos] == ["good.mp4", "broken.mp4", "none.mp4"]
    assert [row["frame"] for row in videos[0]["frames"]] == [0, 2, 4, 6, 8, 10]
    assert set(videos[0]["frames"][0]) == {"frame", "pts_s", "score", "status"}
    assert set(videos[0]["worst_window"]) == {"start_s", "end_s", "score"}
    assert videos[0]["pooled"] == pool([row["score"] for row in videos[0]["frames"]])
    assert table[0][2:4] == [f"{videos[0]['pooled'][name]:.2f}" for name in ("p5", "mean")]
    assert videos[1]["error"]["code"] == "truncated"

    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/webp;base64,") == 2  # one slot of two seconds: picture, map
    for text in ("good.mp4", "broken.mp4", "none.mp4", "truncated", "h264", "giqa-s@"):
        assert text in page

    with out["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["error_code"] for row in rows] == [""] * 6 + ["truncated", "not_found"]
    assert [float(row["score"]) for row in rows[:6]] == [r["score"] for r in videos[0]["frames"]]
    arrow = pq.read_table(out["parquet"])
    assert arrow.schema.equals(frame_schema())
    assert arrow["frame"].to_pylist() == [0, 2, 4, 6, 8, 10, None, None]
    assert (tmp_path / "srt" / "good.mp4.srt").read_text().startswith("1\n00:00:00,000 --> ")


def test_below_is_4_and_json_alone_on_stdout(tmp_path: Path) -> None:
    good = write(tmp_path / "good.mp4", pan(3))
    ran = giqa("video", good, "--json", "-", "--fail-below", "101", "--bundle", small_bundle())
    assert ran.returncode == 4, ran.stderr
    assert len(json.loads(ran.stdout)["videos"][0]["frames"]) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "a.mp4 --fps 1 --keyframes",
        "a.mp4 --fps 0",
        "a.mp4 --pool median",
        "a.mp4 --json - --csv -",
        "a.mp4 --parquet -",
        "a.mp4 b.mp4 --srt c.srt",
        "a.mp4 --start 2 --end 1",
    ],
)
def test_usage_errors_are_2(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from giqa.cli import main

    monkeypatch.setattr(sys, "argv", ["giqa", "video", *shlex.split(arguments)])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 2, capsys.readouterr().err
    assert capsys.readouterr().out == ""


def result(path: str = "a.mp4", count: int = 50) -> VideoResult:
    rows = [FrameRow(i, i / 25, 50.0 + i) for i in range(count)]
    rows[3] = FrameRow(3, 0.12, error=CorruptError("bad"))
    scores = [row.score for row in rows if row.score is not None]
    return VideoResult(path, "b@1", "e", frames=tuple(rows), pooled=pool(scores))


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_an_interruption_keeps_whole_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"

    def interrupted() -> None:
        with open_video_writer(path, kind, bundle="b@1", engine="e") as writer:
            writer.write(result())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if kind == "json":
        (video,) = json.loads(path.read_text())["videos"]
        assert video["status"] == "partial"
        assert video["frames"][3]["error"]["code"] == "corrupt"
    elif kind == "csv":
        assert len(path.read_text().splitlines()) == 51
    else:
        assert pq.read_table(path)["error_code"].to_pylist().count("corrupt") == 1


def test_subtitles_are_readable(tmp_path: Path) -> None:
    write_srt(tmp_path / "a.srt", result())
    cues = (tmp_path / "a.srt").read_text().strip().split("\n\n")
    times = [re.findall(r"00:00:(\d\d),(\d\d\d)", cue.splitlines()[1]) for cue in cues]
    spans = [tuple(int(s) + int(ms) / 1000 for s, ms in pair) for pair in times]
    assert [int(cue.splitlines()[0]) for cue in cues] == list(range(1, len(cues) + 1))
    assert spans[0][0] == 0
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(end - start >= 0.5 for start, end in spans)
    first = [50.0 + i for i in range(13) if i != 3]
    assert float(cues[0].splitlines()[2]) == pytest.approx(sum(first) / len(first), abs=0.05)
