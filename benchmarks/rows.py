"""Many rows over a scorer that costs nothing: what planning, running and verifying cost themselves.

`python -m benchmarks.rows COUNT...` prints a line of JSON for each: CPU seconds and peak memory,
each in a process of its own. CPU time, as wall time tells of a busy machine more than of the work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.child import memory_mb
from giqa import batch
from giqa.bundle import load_bundle
from giqa.results import ImageResult
from giqa.types import Item


@dataclass(frozen=True)
class Cost:
    """What a run of so many rows took.

    Attributes:
        rows: how many.
        plan_s: CPU seconds until the plan stood.
        run_s: CPU seconds of the run after that.
        verify_s: CPU seconds of `verify`.
        peak_mb: highest resident memory, of all three.
    """

    rows: int
    plan_s: float
    run_s: float
    verify_s: float
    peak_mb: float


class Free:
    """A scorer that looks at nothing."""

    engine = "free"

    def __init__(self) -> None:
        self.manifest = load_bundle().manifest

    def score(self, items: Iterable[Item], **_: Any) -> Iterator[ImageResult]:
        """Give each item the same score."""
        for item in items:
            yield ImageResult(item.name, self.manifest.id, self.engine, "fast", score=50.0)


def measure(count: int) -> Cost:
    """Plan, run and verify in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.rows", "--here", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Cost(**json.loads(done.stdout))


def _here(count: int) -> Cost:
    stands: list[float] = []
    with TemporaryDirectory(prefix="giqa-rows-") as name:
        listing, picture = Path(name, "many.txt"), Path(name, "a.png")
        picture.write_bytes(b"x")
        with listing.open("w", encoding="utf-8") as file:
            for _ in range(count):
                file.write(f"{picture}\n")
        start = time.process_time()

        def note(_: batch.Progress) -> None:
            if not stands:
                stands.append(time.process_time())

        scorer: Any = Free()
        batch.run([str(listing)], Path(name, "out"), scorer=scorer, progress=note)
        ran = time.process_time()
        if (problems := batch.verify(Path(name, "out")).problems) != ():
            raise RuntimeError(problems[0])
        verified = time.process_time()
    # Not getrusage's: that begins with what the process had before it became this program.
    peak = memory_mb("VmHWM")
    return Cost(count, stands[0] - start, ran - stands[0], verified - ran, peak)


if __name__ == "__main__":
    if sys.argv[1] == "--here":
        print(json.dumps(_here(int(sys.argv[2])).__dict__))
    else:
        for argument in sys.argv[1:]:
            print(json.dumps(measure(int(argument)).__dict__), flush=True)
