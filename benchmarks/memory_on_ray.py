"""Memory of a batch run on Ray as it grows: of the program, Ray's driver and the workers.

`python -m benchmarks.memory_on_ray COUNT...` scores a small picture so many times with two workers
on this machine, and prints a line of JSON for each: the highest resident memory (MiB) of each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from PIL import Image

_LOOKS_S = 0.5
WORKERS = 2


def measure(count: int) -> dict[str, float]:
    """Run, and look at its processes.

    Returns:
        `inputs`, and by `program`, `driver`, `worker` (the larger one), `ray` (all of Ray's own
        processes together) the highest resident memory in MiB.

    Raises:
        RuntimeError: the run failed.
    """
    most = dict.fromkeys(("program", "driver", "worker", "ray"), 0.0)
    with TemporaryDirectory(prefix="giqa-memory-") as name:
        folder = Path(name)
        Image.effect_noise((64, 64), 60).convert("RGB").save(folder / "a.jpg")
        (folder / "many.txt").write_text(f"{folder / 'a.jpg'}\n" * count)
        command = [sys.executable, "-m", "giqa", "batch", "run", str(folder / "many.txt")]
        command += ["--executor", "ray", "--workers", str(WORKERS), "--shard-size", "100"]
        with (folder / "said").open("wb") as said:
            run = subprocess.Popen(
                [*command, "--out", str(folder / "out")], stdout=said, stderr=said
            )
            while run.poll() is None:
                found = dict.fromkeys(most, 0.0)
                for kind, size in _processes(run.pid):
                    found[kind] = found[kind] + size if kind == "ray" else max(found[kind], size)
                most = {kind: max(size, found[kind]) for kind, size in most.items()}
                time.sleep(_LOOKS_S)
        if run.returncode:
            raise RuntimeError((folder / "said").read_text())
    return {"inputs": count, **{kind: round(size, 1) for kind, size in most.items()}}


def _processes(program: int) -> Iterator[tuple[str, float]]:
    """Kind and resident memory of each process of a run."""
    try:
        parent = psutil.Process(program)
        yield "program", parent.memory_info().rss / 2**20
        below = parent.children(recursive=True)
    except psutil.Error:
        return
    for child in below:
        try:
            line, size = " ".join(child.cmdline()), child.memory_info().rss / 2**20
        except psutil.Error:
            continue
        kind = "driver" if "giqa.batch._driver" in line else "ray"
        yield "worker" if "_Shards" in line else kind, size


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps(measure(int(argument))), flush=True)
