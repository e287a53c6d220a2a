"""Fuzz probe and decoding with damaged files: no crash, no hang, no uncoded exception.

    python -m tests.reliability.fuzz_probe --seconds 600 --seed 0

Cases are numbered; a case is made from its number alone, so that a finding can be repeated with
`--case N`. They run in a child process, so that even a crash of a decoder is only counted.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import time

import numpy as np

from giqa.decode import Preprocessor, listen, probe, views_by_pillow
from giqa.errors import GiqaError
from giqa.types import Limits
from tests.makers import GOOD
from tests.unit.test_right_pixels import AS_GREY, AS_RGB

SLOW = 2.0
_LEFT_OUT = ("text-bomb.png", "thin.png", "wide.jpg")
_INTERESTING = (0, 1, 2, 7, 8, 127, 128, 217, 218, 254, 255)


def originals() -> list[bytes]:
    """The files that are damaged: odd ones of every format and decoder."""
    usual = [make() for name, make in GOOD.items() if name not in _LEFT_OUT]
    return usual + [make() for make in (AS_RGB | AS_GREY).values()]


def mutated(files: list[bytes], case: int, seed: int) -> bytes:
    """The bytes of one case."""
    rng = random.Random(f"{seed}/{case}")
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        kind = rng.random()
        # Headers decide more than pixels: most damage goes there.
        at = rng.randrange(min(len(data), 800) if rng.random() < 0.7 else len(data))
        if kind < 0.4:
            data[at] = rng.randrange(256)
        elif kind < 0.6:
            data[at] = rng.choice(_INTERESTING)
        elif kind < 0.7:
            del data[at : at + rng.randrange(1, 64)]
        elif kind < 0.8:
            data[at:at] = rng.randbytes(rng.randrange(1, 64))
        elif kind < 0.9:
            other = rng.choice(files)
            start = rng.randrange(len(other))
            data[at : at + 64] = other[start : start + 64]
        else:
            del data[at + 1 :]
    return bytes(data)


def run_case(preprocess: Preprocessor, data: bytes) -> str:
    """Probe and decode; name the outcome.

    Raises:
        Exception: anything uncoded is the finding.
    """
    try:
        found = listen(probe(data, Limits(max_pixels=20_000_000, max_frames=100)), data)
        if found.route == "pillow":
            views_by_pillow(data, found, None, global_side=224, local_side=448)
            return "scored by pillow"
        (views,) = preprocess([np.frombuffer(data, np.uint8)])
    except GiqaError as e:
        return e.code
    return views.code if isinstance(views, GiqaError) else "scored by dali"


def child(first: int, seed: int, until: float) -> None:
    """Run cases from `first` on until the time is over, reporting each as a line."""
    files = originals()
    preprocess = Preprocessor(global_side=224, local_side=448, batch=1)
    case = first
    while time.time() < until:
        print(json.dumps({"start": case}), flush=True)
        begun = time.perf_counter()
        try:
            outcome = run_case(preprocess, mutated(files, case, seed))
        except Exception as e:  # the finding
            outcome = f"UNCODED {type(e).__name__}: {e}"
        seconds = time.perf_counter() - begun
        print(json.dumps({"case": case, "outcome": outcome, "seconds": seconds}), flush=True)
        case += 1


def main() -> int:
    """Entry point; 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case alone, in this process")
    parser.add_argument("--child", nargs=2, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), options.seed, options.child[1])
        return 0
    if options.case is not None:
        data = mutated(originals(), options.case, options.seed)
        print(run_case(Preprocessor(global_side=224, local_side=448, batch=1), data))
        return 0
    outcomes: collections.Counter[str] = collections.Counter()
    findings: list[str] = []
    slowest = (0.0, -1)
    until, case = time.time() + options.seconds, 0
    while time.time() < until:
        command = [sys.executable, "-m", "tests.reliability.fuzz_probe"]
        command += ["--seed", str(options.seed), "--child", str(case), str(until)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        started = case
        for line in process.stdout:
            row = json.loads(line)
            if "start" in row:
                started = row["start"]
                continue
            outcomes[row["outcome"].split(":")[0]] += 1
            slowest = max(slowest, (row["seconds"], row["case"]))
            if row["outcome"].startswith("UNCODED") or row["seconds"] > SLOW:
                findings.append(f"case {row['case']}: {row['outcome']} in {row['seconds']:.1f} s")
            case = row["case"] + 1
        if process.wait():
            findings.append(f"case {started}: crash, exit {process.returncode}")
            case = started + 1
    for finding in findings:
        print(finding)
    print(f"{case} cases, {len(findings)} findings, slowest {slowest[0]:.2f} s (case {slowest[1]})")
    print(json.dumps(dict(outcomes.most_common())))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
