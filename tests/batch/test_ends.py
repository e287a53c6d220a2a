"""Batch runs that end badly, as processes: kill -9, a full disk, dead Ray workers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from giqa import batch
from tests.photos import photo

pytestmark = pytest.mark.slow
_PATIENCE_S = 600


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(60):
        Image.fromarray(photo(64, 64, i)).save(folder / f"{i:02d}.jpg")
    (folder / "31.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The rows of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    batch.run([str(photos)], out, shard_size=5)
    return rows(out)


def rows(out: Path) -> list[dict]:
    files = sorted((out / "shards").glob("*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_shards(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while len(list(out.glob("shards/*.parquet"))) < count and process.poll() is None:
        assert time.monotonic() < end, "no shard in time"
        time.sleep(0.01)


def test_kills_lose_and_double_nothing(photos: Path, whole: list[dict], tmp_path: Path) -> None:
    draw, out = random.Random(0), tmp_path / "out"
    command = ["run", photos, "--shard-size", "5", "--out", out]
    for kill in range(3):
        process = start("-m", "giqa", "batch", *command)
        wait_for_shards(out, 3 * kill + 1, process)
        time.sleep(draw.random() * 0.2)
        process.kill()
        process.communicate()
        command = ["resume", out]
    before = {p: p.stat().st_mtime_ns for p in out.glob("shards/*.parquet")}
    process = start("-m", "giqa", "batch", "resume", out)
    said, _ = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 3
    assert f"{12 - len(before)} written now" in said.decode()
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [p for p in out.rglob("*") if p.name.endswith(".tmp")] == []
    assert batch.verify(out).problems == ()
    assert rows(out) == whole


def test_ten_kills_among_500_inputs(tmp_path: Path) -> None:
    """Ten runs, each killed at a time of its own: all resume to the uninterrupted run's rows."""
    draw, folder = random.Random(0), tmp_path / "photos"
    folder.mkdir()
    for i in range(500):
        Image.fromarray(photo(64, 64, i)).save(folder / f"{i:03d}.jpg")
    (folder / "123.jpg").write_bytes(b"no image")
    started = time.monotonic()
    batch_run = ("-m", "giqa", "batch", "run", folder, "--shard-size", "20", "--out")
    start(*batch_run, tmp_path / "whole").communicate(timeout=_PATIENCE_S)
    seconds = time.monotonic() - started
    expected, left = rows(tmp_path / "whole"), []
    assert len(expected) == 500
    for kill in range(10):
        out = tmp_path / f"{kill}"
        process = start(*batch_run, out)
        time.sleep(draw.uniform(0, seconds))
        process.kill()
        process.communicate()
        left.append(len(list(out.glob("shards/*.parquet"))))
        planned = (out / "plan.json").exists()
        process = start(*(("-m", "giqa", "batch", "resume") if planned else batch_run), out)
        process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 3
        assert batch.verify(out).problems == ()
        assert rows(out) == expected
    assert len(set(left)) > 3, left


def test_a_signal_keeps_whole_shards(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("-m", "giqa", "batch", "run", photos, "--shard-size", "5", "--out", out)
    wait_for_shards(out, 1, process)
    second = start("-m", "giqa", "batch", "resume", out)
    _, said = second.communicate(timeout=_PATIENCE_S)
    if process.poll() is None:
        assert second.returncode == 1
        assert b"[folder_in_use]" in said
        assert b"Traceback" not in said
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode in (130, 3)
    assert b"Traceback" not in said
    assert all("is missing" in problem for problem in batch.verify(out).problems)


FULL = """
set -u
mount -t tmpfs -o size=24k none "$1"
"$3" -m giqa batch run "$2" --shard-size 5 --out "$1"; echo "$?"
ls -A "$1/shards" | grep -c tmp
mount -o remount,size=4m "$1"
"$3" -m giqa batch resume "$1" > "$1/said"; echo "$?"
"$3" -m giqa batch verify "$1" > "$1/said"; echo "$?"
"""


def test_a_full_disk_ends_the_run_and_costs_nothing(photos: Path, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"]).returncode:
        pytest.skip("may not mount")
    command = ["unshare", "-rm", "sh", "-c", FULL, "sh", tmp_path, photos, sys.executable]
    ran = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, cwd=Path.cwd())
    assert ran.stdout.split() == [b"1", b"0", b"3", b"0"], ran.stderr.decode()
    assert b"[storage_full]" in ran.stderr
    assert b"Traceback" not in ran.stderr


ON_RAY = """
import json, sys
from pathlib import Path
import ray
from giqa import batch
from giqa.batch import score_dataset

photos, out = sys.argv[1:]
for attempt in range(4):  # Ray gives itself 30 s to start, which busy machines miss
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        break
    except Exception:
        if attempt == 3:
            raise
        ray.shutdown()
runtime = batch.Runtime(executor="ray", workers=2)
print(json.dumps(batch.run([photos], out, shard_size=5, runtime=runtime).written), flush=True)
data = ray.data.from_items(
    [{"image": p.read_bytes(), "p": str(p)} for p in sorted(Path(photos).iterdir())[28:34]]
)
found = score_dataset(data, column="image", runtime=batch.Runtime(workers=1)).take_all()
print(json.dumps([[row["score"], row["error_code"]] for row in found]))
found = score_dataset(data, column="p", runtime=batch.Runtime(workers=1)).take_all()
print(json.dumps([row["path"] for row in found]))
"""


def workers(process: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    """The Ray workers below a process that hold scorers."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any("_Shards" in part for part in child.cmdline()):
                yield child
        except psutil.Error:
            continue


def test_a_dead_ray_worker_loses_nothing(photos: Path, whole: list[dict], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    process = start("-c", ON_RAY, photos, out)
    wait_for_shards(out, 1, process)
    assert process.poll() is None, process.communicate()
    killed = [worker.pid for worker in workers(process)]
    os.kill(killed[0], signal.SIGKILL)
    assert len(list(out.glob("shards/*.parquet"))) < 12, "killed too late"
    said, errors = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0, errors.decode()
    written, scored, paths = map(json.loads, said.splitlines()[-3:])
    assert len(killed) == 2
    assert written == 12
    assert batch.verify(out).problems == ()
    assert rows(out) == whole
    assert sorted(map(str, scored)) == sorted(
        str([row["score"], row["error_code"]]) for row in whole[28:34]
    )
    assert sorted(paths) == [row["path"] for row in whole[28:34]]


@pytest.mark.parametrize("dies", ["gcs_server", "raylet"])
def test_a_dead_head_ends_the_run_and_loses_nothing(
    photos: Path, whole: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    """What holds a cluster together is killed; Ray's driver ends, and the run says why."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    out = tmp_path / "out"
    on_ray = ("--shard-size", "5", "--executor", "ray", "--workers", "2")
    process = start("-m", "giqa", "batch", "run", photos, *on_ray, "--out", out)
    wait_for_shards(out, 2, process)
    assert process.poll() is None, process.communicate()
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.name() == dies:
            child.kill()
            break
    else:
        pytest.fail(f"no {dies}")
    said, errors = process.communicate(timeout=_PATIENCE_S)
    before = len(list(out.glob("shards/*.parquet")))
    assert before < 12, "killed too late"
    assert (process.returncode, said) == (1, b"")
    assert errors.splitlines()[-1].startswith(b"giqa: [worker_failed] Ray ended its driver: ")
    assert {line[:6] for line in errors.splitlines()} == {b"giqa: "}, errors
    assert json.loads((out / "status.json").read_text())["error"] == "worker_failed"
    process = start("-m", "giqa", "batch", "resume", out)
    _, errors = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 3, errors.decode()
    assert rows(out) == whole
    assert batch.verify(out).problems == ()
