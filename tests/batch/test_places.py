"""Inputs on networks: an HTTP server with ranges, without, slow, broken; S3; one that is killed."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from giqa import batch, remote
from giqa.batch import Changes, Sources
from giqa.results import ImageResult
from giqa.types import Item
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
        elif how == "long":  # than it is; then nothing comes
            self.answer(200, data, length=len(data) + 1000)
            self.close_connection = True
        elif how == "short":
            self.answer(200, data, length=len(data) // 2)
            self.close_connection = True
        elif how == "unsaid":
            self.answer(200, data, length=-1)
            self.close_connection = True
        elif how == "packed":
            self.answer(200, gzip.compress(data), packed=True)
        elif how == "garbage":
            self.wfile.write(b"\x00\xff\r\n\r\n")
            self.close_connection = True
        elif how == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
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
        length: int | None = None,
        packed: bool = False,
    ) -> None:
        self.send_response(status)
        if length != -1:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        if packed:
            self.send_header("Content-Encoding", "gzip")
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
        with suppress(ConnectionError):  # a client has what it was promised
            for i in range(0, len(data), 1024):
                self.wfile.write(data[i : i + 1024])
                time.sleep(pause)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote, "_PAUSE_S", 0.01)
    monkeypatch.setattr(Handler, "asked", Counter())
    clip = write(tmp_path / "clip.mp4", pan(30))
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        for i in range(3):
            add(tar, f"{i}.png", PICTURES[i])
        add(tar, "v.mp4", clip.read_bytes())
    files = {f"{i}.png": data for i, data in enumerate(PICTURES)}
    table = io.BytesIO()
    pq.write_table(pa.table({"image": PICTURES, "id": range(5)}), table)
    files |= {
        "clip.mp4": clip.read_bytes(),
        "s.tar": shard.getvalue(),
        "t.parquet": table.getvalue(),
    }
    monkeypatch.setattr(Handler, "files", files)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.parametrize("how", ["ranges", "plain", "slow", "flaky", "cut", "unsaid", "packed"])
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


@pytest.mark.parametrize("how", ["ranges", "plain", "flaky", "unsaid", "packed"])
def test_tars_and_tables_by_http(
    server: str, tmp_path: Path, brightness: Brightness, how: str
) -> None:
    """Where a server has no ranges, too, and does not even say how long a file is."""
    batch.run(
        [f"{server}/{how}/{name}" for name in ("s.tar", "t.parquet")],
        tmp_path / "out",
        scorer=brightness,
    )
    found = rows(tmp_path / "out")
    assert {r["error_code"]: r["error_message"] for r in found} == {None: None}
    assert [r["score"] for r in found[:3]] == pytest.approx([g / 2.55 for g in GREYS[:3]])
    assert len(found) == 38
    assert [r["score"] for r in found[33:]] == pytest.approx([g / 2.55 for g in GREYS])


@pytest.mark.parametrize("how", ["ranges", "plain", "unsaid"])
def test_files_beyond_a_block(
    server: str, tmp_path: Path, brightness: Brightness, how: str
) -> None:
    """fsspec reads 5 MB at once; servers without ranges know only the beginning."""
    picture = io.BytesIO()
    Image.new("L", (2400, 2400), 90).save(picture, "BMP")
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        add(tar, "0.bmp", picture.getvalue())
        add(tar, "1.png", PICTURES[1])
    Handler.files |= {"large.bmp": picture.getvalue(), "large.tar": shard.getvalue()}
    names = [f"{server}/{how}/{name}" for name in ("large.bmp", "large.tar")]
    batch.run(names, tmp_path / "out", scorer=brightness)
    scores = [r["score"] for r in rows(tmp_path / "out")]
    assert scores == pytest.approx([90 / 2.55, 90 / 2.55, GREYS[1] / 2.55])


@pytest.mark.parametrize("how", ["long", "short", "garbage", "loop", "refused"])
def test_servers_that_lie_cost_their_rows(
    server: str, tmp_path: Path, brightness: Brightness, how: str
) -> None:
    good = f"{server}/ranges/4.png"
    names = [f"{server}/{how}/{name}" for name in ("0.png", "clip.mp4", "s.tar")]
    (tmp_path / "list.txt").write_text(f"{server}/{how}/t.parquet\n{good}\n")
    batch.run([*names, str(tmp_path / "list.txt")], tmp_path / "out", scorer=brightness)
    found = rows(tmp_path / "out")
    assert found[-1]["path"] == good
    assert found[-1]["error_code"] is None
    coded = {"unreadable", "permission_denied", "truncated", "corrupt"}
    whole = [row for row in found if "::" not in row["path"]]
    assert {row["error_code"] for row in whole[:-1]} <= coded
    wholes = {row["path"].split("::")[0] for row in found}
    assert wholes == {*names, f"{server}/{how}/t.parquet", good}


def test_another_etag_is_a_change(server: str, tmp_path: Path, brightness: Brightness) -> None:
    names = [f"{server}/ranges/{i}.png" for i in range(3)]
    batch.run(Sources(inputs=tuple(names)), tmp_path / "out", scorer=brightness)
    Handler.files["1.png"] = png(199)
    found = batch.resume(tmp_path / "out", scorer=brightness)
    assert found.changes == Changes(changed=1)
    assert rows(tmp_path / "out")[1]["score"] == pytest.approx(199 / 2.55)


def test_a_server_that_is_away_changes_nothing(
    server: str, tmp_path: Path, brightness: Brightness
) -> None:
    """What cannot be asked is neither gone nor changed."""
    inputs = (f"{server}/ranges/0.png", f"{server}/ranges/1.png", f"{server}/flaky/3.png")
    batch.run(Sources(inputs=inputs), tmp_path / "out", scorer=brightness)
    before, files = rows(tmp_path / "out"), dict(Handler.files)
    handle = Handler.do_GET

    def refuse(self: Handler) -> None:
        self.path = self.path.replace("ranges", "refused").replace("flaky", "refused")
        handle(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "do_GET", refuse)
        found = batch.resume(tmp_path / "out", scorer=brightness).changes
    assert found == Changes()
    assert rows(tmp_path / "out") == before
    Handler.files = {name: data for name, data in files.items() if name != "1.png"}
    assert batch.resume(tmp_path / "out", scorer=brightness).changes.gone == 1


def test_a_video_by_http_alone(server: str, tmp_path: Path, brightness: Brightness) -> None:
    found = score_video(f"{server}/cut/clip.mp4", brightness)
    assert (found.status, found.path) == ("ok", f"{server}/cut/clip.mp4")
    assert len(found.frames) == 30


def test_a_server_that_says_nothing_costs_a_row(
    tmp_path: Path, brightness: Brightness, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    for name, value in (("_PAUSE_S", 0.01), ("_READ_S", 0.3), ("_CONNECT_S", 0.3)):
        monkeypatch.setattr(remote, name, value)
    remote._options.cache_clear()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        name = f"http://127.0.0.1:{deaf.getsockname()[1]}/x.png"
        batch.run([name], tmp_path / "out", scorer=brightness)
    remote._options.cache_clear()
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
    monkeypatch.setattr(remote, "_PAUSE_S", 0.01)
    monkeypatch.setattr(remote, "_TRIES", 2)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # beside our own
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
    table, objects = io.BytesIO(), {"a.png": PICTURES[0], "b.png": PICTURES[1]}
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
    others = [put(f"{root}/{i}-{name}", data) for i in range(7) for name, data in objects.items()]

    class Killing(Brightness):
        def score(self, items: Iterable[Item], **options: Any) -> Iterator[ImageResult]:
            for number, result in enumerate(super().score(items, **options)):
                if number == 5:
                    process.kill()
                    process.wait()
                yield result

    started = time.monotonic()
    other = tmp_path / "other"
    batch.run([*others, names[5]], other, shard_size=2, scorer=Killing())
    codes = [row["error_code"] for row in rows(other)]
    assert len(codes) == 15
    assert codes[:5] == [None] * 5
    assert set(codes[5:]) == {None, "unreadable"}
    assert codes[-1] == "unreadable"
    assert time.monotonic() - started < 120
    assert batch.verify(other).problems == ()
