"""One competitor: lines of JSON in, lines of JSON out.

    python -m benchmarks.peers.worker NAME THREADS

Answers `{"ready": true}` once it can score; then, to each line `{"images": [PATH, ...],
"single": BOOL}`, with `seconds`, `cpu_seconds`, `latencies` (seconds of each image, if single),
`scores` and `peak_mb`, or with `{"error": TEXT}`, which is its last answer. Files are read before
the clock starts. Runs in the competitors' environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.peers.adapters import Score, create


@cache
def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _pass(score: Score, paths: list[str], single: bool) -> dict[str, Any]:
    images = [_read(path) for path in paths]
    cpu, start = time.process_time(), time.perf_counter()
    if single:
        scores, latencies = [], []
        for data in images:
            begin = time.perf_counter()
            scores += score([data], True)
            latencies.append(time.perf_counter() - begin)
    else:
        scores, latencies = score(images, False), []
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "latencies": latencies,
        "scores": scores,
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    """Highest resident memory; getrusage's would be the parent's, inherited."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def main() -> None:
    """Serve until standard input ends."""
    name, threads, *bundle = sys.argv[1:]
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        score = create(name, int(threads), *bundle)
        say({"ready": True})
        for line in sys.stdin:
            asked = json.loads(line)
            say(_pass(score, asked["images"], asked["single"]))
    except Exception as e:
        say({"error": f"{type(e).__name__}: {e}"})
        raise


if __name__ == "__main__":
    main()
