"""A batch run whose Ray workers share servers, one of which is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from giqa import batch
from giqa.serving import Server
from tests.photos import photo
from tests.ports import free_port

pytestmark = pytest.mark.slow

ON_RAY = """
import json, sys
import ray
from giqa import batch

photos, out, *urls = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
runtime = batch.Runtime(executor="ray", workers=2, urls=tuple(urls))
print(json.dumps(batch.run([photos], out, shard_size=3, runtime=runtime).written))
"""


def test_workers_go_to_the_server_that_is_there(server: Server, url: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    photos, out, alone = tmp_path / "photos", tmp_path / "out", tmp_path / "alone"
    photos.mkdir()
    for i in range(12):
        Image.fromarray(photo(64, 64, i)).save(photos / f"{i:02d}.jpg")
    (photos / "07.jpg").write_bytes(b"no image")
    gone = f"grpc://127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", ON_RAY, str(photos), str(out), url, gone]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout.splitlines()[-1]) == 4
    assert batch.verify(out).problems == ()
    batch.run([str(photos)], alone, shard_size=3, runtime=batch.Runtime(urls=(url,)))
    shards = [sorted((folder / "shards").iterdir()) for folder in (out, alone)]
    assert [s.name for s in shards[0]] == [s.name for s in shards[1]]
    assert [s.read_bytes() for s in shards[0]] == [s.read_bytes() for s in shards[1]]
