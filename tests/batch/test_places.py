"""Inputs on networks: an HTTP server with ranges, without, slow, broken; S3; one that is killed."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from giqa import batch, uris
from giqa.batch import Changes, Sources
from giqa.video import score_video
from tests.batch.test_tables import GREYS, PICTURES, png, rows
from tests.batch.test_tars import add
from tests.brightness import Brightness
from tests.clips import pan, write
from tests.ports import free_port

pytest.importorskip("aiohttp", reason="needs the extra uri")


class Handler(BaseHTTPRequestHandler):
    """Files from memory, and faults by the first part of the path."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    asked: Counter[str] = Counter()  # noqa: RUF012
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        _, how, name = self.path.split("/", 2)
        self.asked[self.path] += self.command == "GET"
        data = self.files.get(name)
        if how == "flaky" and self.asked[self.path] < 3:
            self.answer(503, b"later")
        elif how == "refused":
            self.answer(403, b"no")
        elif data is None:
            self.answer(404, b"none")
        elif how == "cut" and self.asked[self.path] < 3:
            self.answer(200, data, sent=len(data) // 2)
        elif how == "slow":
            self.answer(200, data, pause=0.02)
        elif how == "ranges" and (wanted := self.headers.get("Range")):
            first, last = wanted.removeprefix("bytes=").split("-")
            end = min(int(last or len(data)), len(data) - 1)
            part = data[int(first) : end + 1]
            self.answer(206, part, f"bytes {first}-{end}/{len(data)}")
        else:
            self.answer(200, data, ranges=how == "ranges")

    def answer(
        self,
        status: int,
        data: bytes,
        content_range: str = "",
        *,
        sent: int | None = None,
        pause: float = 0.0,
        ranges: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data)}"')
        if content_range:
            self.send_header("Content-Range", content_range)
        if ranges or content_range:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        if sent is not None:
            self.wfile.write(data[:sent])
            self.close_connection = True
            self.connection.shutdown(2)
            return
        for i in range(0, len(data), 1024):
            self.wfile.write(data[i : i + 1024])
            time.sleep(pause)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(uris, "_PAUSE_S", 0.01)
    monkeypatch.setattr(Handler, "asked", Counter())
    clip = write(tmp_path / "clip.mp4", pan(30))
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        for i in range(3):
            add(tar, f"{i}.png", PICTURES[i])
        add(tar, "v.mp4", clip.read_bytes())
    files = {f"{i}.png": data for i, data in enumerate(PICTURES)}
    files |= {"clip.mp4": clip.read_bytes(), "s.tar": shard.getvalue()}
    monkeypatch.setattr(Handler, "files", files)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.parametrize("how", ["ranges", "plain", "slow", "flaky", "cut"])
def test_images_and_videos_by_http(
    server: str, tmp_path: Path, brightness: Brightness, how: str
) -> None:
    names = [f"{server}/{how}/{i}.png" for i in range(5)] + [f"{server}/{how}/clip.mp4"]
    batch.run(names, tmp_path / "out", scorer=brightness)
    found = rows(tmp_path / "out")
    assert [r["error_code"] for r in found] == [None] * 35
    assert [r["score"] for r in found[:5]] == pytest.approx([g / 2.55 for g in GREYS])
    alone = score_video(tmp_path / "clip.mp4", brightness)
    assert [r["score"] for r in found[5:]] == [f.score for f in alone.frames]
    assert batch.verify(tmp_path / "out").problems == ()


def test_what_a_server_has_not_is_a_row(
    server: str, tmp_path: Path, brightness: Brightness
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/x.png"
    names = [f"{server}/ranges/none.png", f"{server}/refused/0.png", nobody]
    names += [f"{server}/ranges/none.mp4", "s4://bucket/x.png", "s4://bucket/x.mp4"]
    batch.run(names, tmp_path / "out", scorer=brightness)
    codes = [r["error_code"] for r in rows(tmp_path / "out")]
    assert codes[0] == codes[3] == "not_found"
    assert codes[1] == "permission_denied"
    assert codes[2] == codes[4] == codes[5] == "unreadable"
    assert Handler.asked["/refused/0.png"] <= 2  # a refusal is not asked again


def test_tars_by_http_with_ranges(server: str, tmp_path: Path, brightness: Brightness) -> None:
    batch.run([f"{server}/ranges/s.tar"], tmp_path / "out", scorer=brightness)
    found = rows(tmp_path / "out")
    assert [r["score"] for r in found[:3]] == pytest.approx([g / 2.55 for g in GREYS[:3]])
    assert len(found) == 33


def test_another_etag_is_a_change(server: str, tmp_path: Path, brightness: Brightness) -> None:
    names = [f"{server}/ranges/{i}.png" for i in range(3)]
    batch.run(Sources(inputs=tuple(names)), tmp_path / "out", scorer=brightness)
    Handler.files["1.png"] = png(199)
    found = batch.resume(tmp_path / "out", scorer=brightness)
    assert found.changes == Changes(changed=1)
    assert rows(tmp_path / "out")[1]["score"] == pytest.approx(199 / 2.55)


def test_a_video_by_http_alone(server: str, tmp_path: Path, brightness: Brightness) -> None:
    found = score_video(f"{server}/cut/clip.mp4", brightness)
    assert (found.status, found.path) == ("ok", f"{server}/cut/clip.mp4")
    assert len(found.frames) == 30


def test_a_server_that_says_nothing_costs_a_row(
    tmp_path: Path, brightness: Brightness, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    for name, value in (("_PAUSE_S", 0.01), ("_READ_S", 0.3), ("_CONNECT_S", 0.3)):
        monkeypatch.setattr(uris, name, value)
    uris._options.cache_clear()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        name = f"http://127.0.0.1:{deaf.getsockname()[1]}/x.png"
        batch.run([name], tmp_path / "out", scorer=brightness)
    uris._options.cache_clear()
    assert [r["error_code"] for r in rows(tmp_path / "out")] == ["unreadable"]


S3 = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
server.start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    port = free_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(uris, "_PAUSE_S", 0.01)
    command = [sys.executable, "-c", S3, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir("bucket")
            yield "s3://bucket", process
        finally:
            process.kill()
            s3fs.S3FileSystem.clear_instance_cache()


def put(name: str, data: bytes) -> str:
    import s3fs

    s3fs.S3FileSystem().pipe(name, data)
    return name


def test_s3(
    bucket: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, brightness: Brightness
) -> None:
    root, process = bucket
    clip = write(tmp_path / "clip.mp4", pan(30))
    names = [put(f"{root}/{i}.png", data) for i, data in enumerate(PICTURES)]
    names += [put(f"{root}/clip.mp4", clip.read_bytes()), f"{root}/none.png"]
    table = io.BytesIO()
    import pyarrow as pa

    pq.write_table(pa.table({"url": names[:2], "id": [7, 8]}), table)
    names.append(put(f"{root}/t.parquet", table.getvalue()))
    out = tmp_path / "out"
    batch.run(Sources(inputs=tuple(names), keep=("id",)), out, shard_size=5, scorer=brightness)
    found = rows(out)
    assert [r["score"] for r in found[:5]] == pytest.approx([g / 2.55 for g in GREYS])
    assert [r["error_code"] for r in found[5:36]] == [None] * 30 + ["not_found"]
    assert [r["id"] for r in found[36:]] == [7, 8]
    put(f"{root}/1.png", png(3))
    assert batch.resume(out, scorer=brightness).changes == Changes(changed=2)
    assert batch.verify(out).problems == ()
    # The server goes in mid-run: coded rows, never a hang.
    process.kill()
    process.wait()
    started = time.monotonic()
    other = tmp_path / "other"
    batch.run(names[:6], other, scorer=brightness)
    assert {r["error_code"] for r in rows(other)} == {"unreadable"}
    assert time.monotonic() - started < 120
