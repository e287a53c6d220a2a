"""In-process speed and memory, next to the same model in PyTorch eager float32 with Pillow.

Speed: rounds alternate between the two in one process, over the same JPEG bytes in memory, with
the same number of threads; the ratio is taken round by round, so that a slow spell hits both.
Memory: peak resident memory of a fresh process that scores N images, for two N.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from giqa.engine import LocalScorer


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def _eager(preset: str, threads: int) -> Callable[[Sequence[bytes]], None]:
    """The same architecture in PyTorch float32, one image at a time, views by Pillow."""
    import io

    import torch
    from PIL import Image

    from training.model import create

    torch.set_num_threads(threads)
    model = create(preset)  # speed does not depend on the weights
    side = model.preset.local_branch.view

    @torch.inference_mode()
    def run(images: Sequence[bytes]) -> None:
        for data in images:
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            local = picture.resize((side, side), Image.Resampling.BILINEAR)
            coarse = local.reduce(side // model.preset.global_branch.view)
            model(*(torch.from_numpy(np.array(v))[None, None] for v in (coarse, local)))

    return run


def speed(images: Sequence[bytes], *, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds an image of both, and their ratio, over alternating rounds.

    Args:
        images: encoded images.
        threads: threads of each.
        rounds: how often each runs over its images; the slower one takes a quarter of them.

    Returns:
        Spreads of ms an image, of images a second, and of the ratio.
    """
    few = images[: max(8, len(images) // 4)]
    ours: list[float] = []
    eager: list[float] = []
    with LocalScorer(threads=threads) as scorer:
        run_eager = _eager(scorer.manifest.name, threads)
        failed = [r for r in scorer.score(images) if r.error is not None]  # also the warm-up
        if failed:
            raise RuntimeError(f"{len(failed)} images could not be scored: {failed[0].error}")
        run_eager(few[:4])
        for _ in range(rounds):
            start = time.perf_counter()
            for _result in scorer.score(images):
                pass
            ours.append(1e3 * (time.perf_counter() - start) / len(images))
            start = time.perf_counter()
            run_eager(few)
            eager.append(1e3 * (time.perf_counter() - start) / len(few))
        engine = scorer.engine
    return {
        "images": len(images),
        "threads": threads,
        "rounds": rounds,
        "engine": engine,
        "ms_per_image": _spread(ours),
        "images_per_s": _spread([1e3 / t for t in ours]),
        "eager_f32_ms_per_image": _spread(eager),
        "times_faster": _spread([e / o for e, o in zip(eager, ours, strict=True)]),
    }


def memory(folder: Path, counts: Sequence[int], threads: int) -> dict[str, Any]:
    """Resident memory (MB) of a fresh process for each number of images.

    `peak_mb` is the process's highest, which loading the graphs may set; `scoring_mb` the highest
    while scoring. `growth` compares the last with the first number of images.
    """
    rows: dict[str, dict[str, float]] = {}
    for count in counts:
        command = [sys.executable, "-m", "benchmarks.engine", str(folder), str(count), str(threads)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows[str(count)] = {name: round(mb, 1) for name, mb in json.loads(out).items()}
    first, last = rows[str(counts[0])], rows[str(counts[-1])]
    return {"images": rows, "growth": {n: round(last[n] / first[n] - 1, 4) for n in first}}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    from giqa.graphs import cpu_capabilities, cpu_count

    return {
        "cpus": cpu_count(),
        "capabilities": cpu_capabilities(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _child(folder: Path, count: int, threads: int) -> None:
    paths = sorted(p for p in folder.iterdir() if p.is_file())
    done, scoring = 0, 0.0
    with LocalScorer(threads=threads) as scorer:
        for result in scorer.score(islice(cycle(paths), count)):
            done += result.error is None
            if done % 20 == 0:
                scoring = max(scoring, _memory_mb("VmRSS"))
    assert done == count, f"{done} of {count} scored"
    print(json.dumps({"peak_mb": _memory_mb("VmHWM"), "scoring_mb": scoring}))


def _memory_mb(field: str) -> float:
    """A field of /proc/self/status; getrusage's peak would be the parent's, inherited."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    _child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
