"""Tar shards: nothing that they hold goes by without a row or a count."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from giqa import batch
from giqa.batch import Scoring
from giqa.cli import group
from giqa.errors import GiqaError
from giqa.video import score_video
from tests.batch.test_tables import PICTURES, rows
from tests.brightness import Brightness
from tests.clips import pan, write


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **about: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in about.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.mp4", pan(30))


def test_videos_in_tars_are_scored(tmp_path: Path, clip: Path, brightness: Brightness) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "0.mp4", clip.read_bytes())
        add(tar, "0.json", b"{}")
        add(tar, "1.png", PICTURES[1])
        add(tar, "cut.mkv", clip.read_bytes()[:500])
    found = batch.run([str(tmp_path / "s.tar")], tmp_path / "out", scorer=brightness)
    assert (found.inputs, found.videos, found.passed) == (3, 2, {".json": 1})
    own = rows(tmp_path / "out")
    alone = score_video(clip, brightness)
    frames = [row for row in own if row["path"].endswith("0.mp4")]
    assert [(r["frame"], r["pts_s"], r["score"]) for r in frames] == [
        (f.frame, f.pts_s, f.score) for f in alone.frames
    ]
    assert own[-1]["error_code"] in ("truncated", "corrupt", "unsupported_format")
    (first, second) = pq.read_table(tmp_path / "out" / "videos.parquet").to_pylist()
    assert first["pooled"] == alone.pooled
    assert (first["status"], second["status"]) == ("ok", "error")
    assert batch.verify(tmp_path / "out").problems == ()


def test_links_in_tars_are_what_they_name(tmp_path: Path, brightness: Brightness) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "d/a.png", PICTURES[0])
        add(tar, "hard.png", type=tarfile.LNKTYPE, linkname="d/a.png")
        add(tar, "d/soft.png", type=tarfile.SYMTYPE, linkname="./a.png")
        add(tar, "again.png", type=tarfile.SYMTYPE, linkname="d/soft.png")
        add(tar, "b.png", PICTURES[1])
        add(tar, "early.png", type=tarfile.SYMTYPE, linkname="late.png")
        add(tar, "nowhere.png", type=tarfile.LNKTYPE, linkname="x.png")
        add(tar, "loop.png", type=tarfile.SYMTYPE, linkname="loop.png")
        add(tar, "late.png", PICTURES[2])
        add(tar, "fifo.png", type=tarfile.FIFOTYPE)
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, "short", type=tarfile.SYMTYPE, linkname="d")
        add(tar, "through.png", type=tarfile.SYMTYPE, linkname="short/a.png")
        for i in range(12):
            add(tar, f"{i}.png", type=tarfile.SYMTYPE, linkname=f"{i - 1}.png" if i else "b.png")
        add(tar, "one.png", type=tarfile.SYMTYPE, linkname="other.png")
        add(tar, "other.png", type=tarfile.SYMTYPE, linkname="one.png")
        add(tar, "deeper", type=tarfile.SYMTYPE, linkname="deeper/deeper")
        add(tar, "deep.png", type=tarfile.SYMTYPE, linkname="deeper/x.png")
    batch.run([str(tmp_path / "s.tar")], tmp_path / "out", scorer=brightness)
    found = {row["path"].split("::")[1]: row for row in rows(tmp_path / "out")}
    assert len(found) == 26
    score = {name: row["score"] for name, row in found.items()}
    assert score["hard.png"] == score["d/soft.png"] == score["again.png"] == score["d/a.png"]
    assert score["early.png"] == score["late.png"]
    assert score["through.png"] == score["d/a.png"]
    assert score["11.png"] == score["b.png"]
    codes = {name: row["error_code"] for name, row in found.items() if row["error_code"]}
    assert codes == {
        "nowhere.png": "not_found",
        **dict.fromkeys(("loop.png", "one.png", "other.png", "deep.png"), "not_found"),
        "fifo.png": "unsupported_format",
    }


def test_a_webdataset_folder_is_taken_as_it_is(
    tmp_path: Path, clip: Path, brightness: Brightness
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"train-{shard:06d}.tar", "w") as tar:
            for i in range(3):
                add(tar, f"{shard}{i}.json", b"{}")
                add(tar, f"{shard}{i}.seg.png", PICTURES[i])
                add(tar, f"{shard}{i}.cls", b"1")
            add(tar, f"{shard}9.mp4", clip.read_bytes())
    (folder / "sizes.json").write_text("{}")
    found = batch.run([str(folder)], folder / "scores", scorer=brightness)
    assert (found.inputs, found.videos, found.failed) == (8, 2, 0)
    assert {k: found.passed[k] for k in (".json", ".cls")} == {".json": 7, ".cls": 6}
    names = [row["path"].split("/set/")[1] for row in rows(folder / "scores")]
    assert names[0] == "train-000000.tar::00.seg.png"
    assert len(set(names)) == 8


def test_odd_members_have_their_rows(tmp_path: Path, brightness: Brightness) -> None:
    """Tar files in tar files, empty members, names of all kinds, the same name twice."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        add(tar, "in.png", PICTURES[0])
    names = ("a\nb.png", "/abs.png", "../up.png", "caf\udce9.png", "a::b.png", "x.PNG", "é" * 200)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in names:
            add(tar, name.removesuffix(".png") + ".png", PICTURES[0])
        add(tar, "twice.png", PICTURES[1])
        add(tar, "twice.png", PICTURES[2])
        add(tar, "empty.png")
        add(tar, "empty.mp4")
        add(tar, "inner.tar", inner.getvalue())
    summary = batch.run([str(tmp_path / "s.tar")], tmp_path / "out", scorer=brightness)
    found = rows(tmp_path / "out")
    assert len(found) == len(names) + 4
    assert {row["score"] for row in found[: len(names)]} == {found[0]["score"]}
    assert found[len(names)]["score"] < found[len(names) + 1]["score"]
    assert [row["error_code"] for row in found[-2:]] == ["empty"] * 2
    assert summary.passed == {".tar": 1}
    assert batch.verify(tmp_path / "out").problems == ()
    assert batch.resume(tmp_path / "out", scorer=brightness).changes == batch.Changes()


def test_what_is_no_file_has_a_row_or_an_error(tmp_path: Path, brightness: Brightness) -> None:
    """FIFOs would wait for a writer for ever; loops of links lead nowhere."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "up").symlink_to("..")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dangling.mp4").symlink_to("nowhere")
    (folder / "good.png").write_bytes(PICTURES[0])
    for suffix in ("png", "mp4", "tar", "parquet", "arrow"):
        os.mkfifo(folder / f"fifo.{suffix}")
    for name in ("zero.tar", "zero.parquet", "zero.feather"):
        (folder / name).write_bytes(b"")
    sources = batch.Sources(inputs=(str(folder),), recursive=True)
    batch.run(sources, tmp_path / "out", scorer=brightness)
    found = {Path(row["path"]).name: row["error_code"] for row in rows(tmp_path / "out")}
    assert found.pop("good.png") is None
    assert found.pop("dangling.mp4") == "not_found"
    assert {found.pop(name) for name in list(found) if name.startswith("fifo")} == {"unreadable"}
    assert found.pop("loop.png") == "unreadable"
    assert found == dict.fromkeys(("zero.tar", "zero.parquet", "zero.feather"), "corrupt")
    os.mkfifo(tmp_path / "list.txt")
    for name in ("list.txt", "in/fifo.parquet"):
        with pytest.raises(GiqaError, match="is a FIFO"):
            batch.run([str(tmp_path / name)], tmp_path / "other", scorer=brightness)


def test_lists_and_tables_of_nothing_have_rows_or_are_counted(
    tmp_path: Path, brightness: Brightness
) -> None:
    (tmp_path / "l.txt").write_text("\n")
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), tmp_path / "t.parquet")
    names = [str(tmp_path / name) for name in ("l.txt", "t.parquet")]
    batch.run(names, tmp_path / "out", scorer=brightness)
    assert [row["error_code"] for row in rows(tmp_path / "out")] == ["not_found"] * 2
    (tmp_path / "in").mkdir()
    (tmp_path / "t.parquet").rename(tmp_path / "in" / "t.parquet")  # one part of a data set
    (tmp_path / "in" / "a.png").write_bytes(PICTURES[0])
    summary = batch.run([str(tmp_path / "in")], tmp_path / "parts", scorer=brightness)
    assert (summary.rows, summary.failed, summary.passed) == (1, 0, {"empty .parquet": 1})


def test_what_holds_nothing_has_a_row_that_says_so(tmp_path: Path, brightness: Brightness) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.psd", "Makefile"):
        (tmp_path / "texts" / name).write_text("x")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with tarfile.open(tmp_path / "labels.tar", "w") as tar:
        add(tar, "0.json", b"{}")
        add(tar, "0.cls", b"1")
    names = ("empty", "texts", "empty.tar", "labels.tar")
    found = batch.run([str(tmp_path / n) for n in names], tmp_path / "out", scorer=brightness)
    own = rows(tmp_path / "out")
    assert [row["error_code"] for row in own] == ["not_found"] * 4
    assert "2 .txt, 1 .psd, 1 without a suffix" in own[1]["error_message"]
    assert "1 .cls, 1 .json" in own[3]["error_message"]
    assert found.passed == {".txt": 2, ".psd": 1, "without a suffix": 1, ".json": 1, ".cls": 1}


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    for name in ("a.cr3", "b.psd", "c.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "sub").mkdir()
    arguments = ["batch", "run", str(tmp_path), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(group, arguments)
    assert "passed over, no inputs: 2 folders, 1 .cr3, 1 .psd, 1 .txt" in found.stderr
    passed = json.loads((tmp_path / "out" / "plan.json").read_text())["passed"]
    assert passed["folders"] >= 1
    assert passed[".txt"] == 1


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_bytes": 500}, "too_many_bytes"),
        ({"max_pixels": 100}, "too_many_pixels"),
        ({"max_frames": 7}, "too_many_frames"),
    ],
)
@pytest.mark.parametrize("place", ["file", "tar"])
def test_limits_hold_for_videos(
    tmp_path: Path,
    clip: Path,
    brightness: Brightness,
    limits: dict[str, int],
    code: str,
    place: str,
) -> None:
    source = clip
    if place == "tar":
        source = tmp_path / "s.tar"
        with tarfile.open(source, "w") as tar:
            add(tar, "v.mp4", clip.read_bytes())
    batch.run([str(source)], tmp_path / "out", scoring=Scoring(**limits), scorer=brightness)
    found = rows(tmp_path / "out")
    assert found[-1]["error_code"] == code
    assert len(found) == (8 if code == "too_many_frames" else 1)
    assert batch.verify(tmp_path / "out").problems == ()


def test_a_full_disk_is_no_fault_of_a_video(
    tmp_path: Path, clip: Path, brightness: Brightness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "v.mp4", clip.read_bytes())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("giqa.batch._read.Spool._copy", full)
    with pytest.raises(GiqaError) as caught:
        batch.run([str(tmp_path / "s.tar")], tmp_path / "out", scorer=brightness)
    assert caught.value.code == "storage_full"
