"""kill -9 at random moments of a run over files, URIs, tar files, tables and videos together."""

from __future__ import annotations

import http.server
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from giqa import batch
from tests.batch.test_tables import rows
from tests.clips import pan, write
from tests.photos import photo

pytest.importorskip("aiohttp", reason="needs the extra uri")
_KILLS = 10
_PATIENCE_S = 900


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("inputs")
    for i in range(30):
        Image.fromarray(photo(64, 64, i)).save(folder / f"{i:02d}.jpg")
    (folder / "13.jpg").write_bytes(b"no image")
    write(folder / "long.mp4", pan(120), gop=10)
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name in ("00.jpg", "01.jpg", "long.mp4"):
            tar.add(folder / name, name)
    cells = [(folder / f"{i:02d}.jpg").read_bytes() for i in range(10)]
    pq.write_table(pa.table({"image": cells}), folder / "t.parquet")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    root = f"http://127.0.0.1:{server.server_port}"
    yield [
        f"{root}/20.jpg",
        f"{root}/long.mp4",
        f"{root}/none.jpg",
        *map(str, sorted(folder.glob("*.jpg"))),
        *(str(folder / name) for name in ("long.mp4", "s.tar", "t.parquet")),
    ]
    server.shutdown()
    thread.join()
    server.server_close()


def giqa(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "giqa", "batch", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


SLOWLY = """
import sys, time
from giqa import batch
from tests.brightness import Brightness

class Slow(Brightness):
    def score(self, items, **options):
        for result in super().score(items, **options):
            time.sleep(0.02)
            yield result

out, *inputs = sys.argv[1:]
if inputs:
    batch.run(inputs, out, scoring=batch.Scoring(every=3, chunk_s=1.0), shard_size=6, scorer=Slow())
else:
    batch.resume(out, scorer=Slow())
"""


def test_two_kills_lose_nothing(inputs: list[str], tmp_path: Path) -> None:
    """The same with a scorer that costs nothing: killed once in `run` and once in `resume`."""

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parents[2])
        return subprocess.Popen([sys.executable, "-c", SLOWLY, *arguments], cwd=root)

    assert start(str(tmp_path / "whole"), *inputs).wait(_PATIENCE_S) == 0
    out = tmp_path / "out"
    for number, arguments in enumerate(([str(out), *inputs], [str(out)])):
        process = start(*arguments)
        end = time.monotonic() + _PATIENCE_S
        while len(list(out.glob("shards/*.parquet"))) < 2 + 3 * number and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert process.poll() is None, "killed too late"
        process.kill()
        process.wait()
    assert start(str(out)).wait(_PATIENCE_S) == 0
    assert rows(out) == rows(tmp_path / "whole")
    names = [tmp_path / name / "videos.parquet" for name in ("whole", "out")]
    whole, again = (pq.read_table(name).to_pylist() for name in names)
    assert again == whole
    assert len(whole) == 3
    assert batch.verify(out).problems == ()


@pytest.mark.slow
def test_kills_anywhere_lose_nothing(inputs: list[str], tmp_path: Path) -> None:
    draw = random.Random(0)
    started = time.monotonic()
    options = ["--shard-size", "10", "--every", "3"]
    assert giqa("run", *inputs, *options, "--out", str(tmp_path / "whole")).wait(_PATIENCE_S) == 3
    seconds = time.monotonic() - started
    expected = rows(tmp_path / "whole")
    videos = pq.read_table(tmp_path / "whole" / "videos.parquet").to_pylist()
    assert len(videos) == 3
    for kill in range(_KILLS):
        out = tmp_path / str(kill)
        process = giqa("run", *inputs, *options, "--out", str(out))
        time.sleep(draw.uniform(0.2, seconds))
        process.kill()
        process.wait()
        go_on = ["resume"] if (out / "plan.json").exists() else ["run", *inputs, *options, "--out"]
        assert giqa(*go_on, str(out)).wait(_PATIENCE_S) == 3
        assert rows(out) == expected
        assert pq.read_table(out / "videos.parquet").to_pylist() == videos
        assert batch.verify(out).problems == ()
