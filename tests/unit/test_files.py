"""Files that appear whole or not at all, wherever they are written."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from giqa import files
from giqa.errors import StorageFullError, UnwritableError, UsageError
from giqa.files import Output, check_apart
from giqa.results import FORMATS, Format, ImageResult, open_writer
from giqa.video import VIDEO_FORMATS
from training import checkpoint

ROW = ImageResult(path="a.jpg", score=5.0, bundle="b@1", engine="e", profile="fast")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError) as caught:
        files.write(path, b"new")
    assert caught.value.item == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def read(path: Path, kind: Format) -> int:
    """Rows of a file, which must be whole."""
    if kind == "parquet":
        return int(pq.read_table(path).num_rows)
    text = path.read_text()
    if kind == "json":
        return len(__import__("json").loads(text))
    return text.count("\n") - (kind == "csv")


def plain(folder: Path) -> Path:
    return folder / "new"


def old(folder: Path) -> Path:
    (folder / "old").write_bytes(b"old")
    (folder / "old").chmod(0o640)
    return folder / "old"


def link(folder: Path) -> Path:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_bytes(b"old")
    (folder / "link").symlink_to("deep/file")
    return folder / "link"


def dangling(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nothing yet")
    return folder / "link"


def long(folder: Path) -> Path:
    return folder / ("é" * 127)


TARGETS = [plain, old, link, dangling, long]


class StopError(Exception):
    """Ends a run from outside."""


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("moment", ["before", "first", "none", "end"])
def test_targets_times_formats_times_moments(
    tmp_path: Path, kind: Format, target: Callable[[Path], Path], moment: str
) -> None:
    path = target(tmp_path)
    before = path.read_bytes() if path.exists() else None
    was_link = path.is_symlink()
    output = Output(path)
    if moment in ("before", "first"):
        with suppress(StopError), open_writer(output, kind) as rows:
            if moment == "first":
                rows.write(ROW)
            assert (path.read_bytes() if path.exists() else None) == before
            raise StopError
    else:
        with open_writer(output, kind) as rows:
            for _ in range(3 if moment == "end" else 0):
                rows.write(ROW)
                assert (path.read_bytes() if path.exists() else None) == before
    if moment == "before":
        assert (path.read_bytes() if path.exists() else None) == before
    else:
        assert read(path, kind) == {"first": 1, "none": 0, "end": 3}[moment]
    assert path.is_symlink() == was_link
    if target is old:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_fifo_is_written_to_and_stays_one(tmp_path: Path, kind: Format) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.append(path.read_bytes()))
    reader.start()
    with open_writer(path, kind) as rows:
        rows.write(ROW)
    reader.join(60)
    assert stat.S_ISFIFO(path.stat().st_mode)
    (tmp_path / "copy").write_bytes(said[0])
    assert read(tmp_path / "copy", kind) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_a_device_stays_one(tmp_path: Path, kind: Format) -> None:
    """As root, what replaces /dev/null takes it from everybody."""
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    for path in (Path(os.devnull), link):
        with open_writer(path, kind) as rows:
            rows.write(ROW)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert link.is_symlink()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_a_descriptor_is_written_to_where_it_stands(
    tmp_path: Path, kind: Format, form: str
) -> None:
    """As the shell opened it: `3>>file`, a pipe of `>(cat)`; it is not closed either."""
    read_end, write_end = os.pipe()
    name = form.format(write_end)
    if form == "link":
        (tmp_path / "link").symlink_to(f"/dev/fd/{write_end}")
        name = str(tmp_path / "link")
    with open_writer(Path(name), kind) as rows:
        rows.write(ROW)
    os.write(write_end, b"")
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        (tmp_path / "copy").write_bytes(pipe.read())
    assert read(tmp_path / "copy", kind) == 1
    with (tmp_path / "log").open("ab") as log:
        log.write(b"before\n")
        log.flush()
        with Output(f"/dev/fd/{log.fileno()}") as output:
            output.open().write(b"row\n")
        log.write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nrow\nafter\n"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_device_is_named(kind: Format) -> None:
    def fill() -> None:
        with open_writer(Path("/dev/full"), kind) as rows:
            for _ in range(9000):
                rows.write(ROW)

    with pytest.raises(StorageFullError) as caught:
        fill()
    assert caught.value.item == "/dev/full"


@pytest.mark.parametrize(
    "name", ["folder", "folder/", "none/file", "file/below", "", "nul\0", "socket", "loop"]
)
def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, name: str) -> None:
    import socket

    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "loop").symlink_to("loop")
        path = f"{tmp_path}/{name}" if name else ""
        with pytest.raises(UnwritableError) as caught:
            Output(path)
    assert caught.value.item == path
    assert ".tmp" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UnwritableError):
        Output(tmp_path / "a")


def test_outputs_with_one_path_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    here = os.path.relpath(tmp_path / "a")
    for pair in (("a", "a"), ("a", "b"), ("new", "./new"), ("fifo", "fifo")):
        with pytest.raises(UsageError, match="asked for twice"):
            check_apart(Output(f"{tmp_path}/{name}") for name in pair)
    with pytest.raises(UsageError, match="asked for twice"):
        check_apart([Output(here), Output(tmp_path / "a")])
    with pytest.raises(UsageError, match="asked for twice"):
        check_apart([Output("/dev/fd/1"), Output("/proc/self/fd/1")])
    check_apart(
        [Output(tmp_path / "a"), Output(tmp_path / "c"), Output("/dev/null"), Output("/dev/null")]
    )


def test_a_stream_is_flushed_and_stays_open() -> None:
    stream = io.BytesIO()
    with open_writer(stream, "csv") as rows:
        rows.write(ROW)
    assert stream.getvalue().count(b"\n") == 2


ALL_OUTPUTS = """
import sys
from contextlib import ExitStack
from pathlib import Path
from giqa.cli._culling import Found, Sheet
from giqa.files import Output
from giqa.rows import rows_into
from giqa.report import ImageReport
from giqa.results import FORMATS, ImageResult, open_writer
from giqa.video import VIDEO_FORMATS, VideoResult, open_video_writer

about = {"bundle": "b", "engine": "e"}
row = ImageResult(path="a", score=1.0, profile="fast", **about)
video = VideoResult("v", **about)
folder, count = Path(sys.argv[1]), int(sys.argv[2])
with ExitStack() as stack:
    opened = [(open_writer(folder / kind, kind), row) for kind in FORMATS]
    for kind in VIDEO_FORMATS:
        writer = open_video_writer(folder / f"video.{kind}", kind, **about)
        opened.append((writer, video))
    opened.append((ImageReport(folder / "report", profile="fast", **about), row))
    opened.append((rows_into(Output(folder / "label"), Sheet), Found(row)))
    entered = [(stack.enter_context(writer), one) for writer, one in opened]
    for _ in range(count):
        for writer, one in entered:
            writer.write(one)
        print("written", flush=True)
"""


def test_a_killed_writer_leaves_the_old_files(tmp_path: Path) -> None:
    """Of every output there is; what a kill leaves beside them is in nobody's way."""
    names = (*FORMATS, *(f"video.{kind}" for kind in VIDEO_FORMATS), "report", "label")
    for name in names:
        (tmp_path / name).write_bytes(b"old")
    command = [sys.executable, "-c", ALL_OUTPUTS, str(tmp_path)]
    with subprocess.Popen([*command, "1000000"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.2)
        child.send_signal(signal.SIGKILL)
    assert {name: (tmp_path / name).read_bytes() for name in names} == dict.fromkeys(names, b"old")
    subprocess.run([*command, "3"], check=True, stdout=subprocess.DEVNULL)
    assert [read(tmp_path / kind, kind) for kind in FORMATS] == [3] * len(FORMATS)
    assert all((tmp_path / name).read_bytes() != b"old" for name in names)


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with suppress(AttributeError), open_writer(path, "json") as rows:
        rows.write(ROW)
        rows.write(None)  # type: ignore[arg-type]
        pytest.fail("that is no row")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_may_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    parts = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=files.write, args=(path, part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in parts
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_and_what_they_are(tmp_path: Path) -> None:
    path, value = tmp_path / "a.safetensors", torch.arange(6.0).reshape(2, 3)
    checkpoint.write_tensors(path, {"a": value, "b": value.T}, {"preset": "x"})
    with safe_open(path, "pt") as f:
        assert f.metadata() == {"preset": "x"}
        assert torch.equal(f.get_tensor("b"), value.T)
