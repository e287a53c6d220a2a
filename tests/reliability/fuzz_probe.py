"""Fuzz probe and decoding with damaged files: no crash, no hang, no uncoded exception, no chatter.

    python -m tests.reliability.fuzz_probe --files stills --seconds 600 --seed 0
    python -m tests.reliability.fuzz_probe --files clips --seconds 600

`--files` names what is damaged: `stills` of every format, one kind of them (`jxl`, `heif`, `avif`,
`tiff`, `raw`, `jpeg`), or `clips`. Cases are numbered; a case is made from its number alone, so
that a finding can be repeated with `--case N`. They run in a child process, so that even a crash of
a decoder is only counted.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from giqa.bundle import load_bundle
from giqa.decode import Preprocessor, listen, probe, views_by_pillow
from giqa.errors import GiqaError
from giqa.types import Limits
from giqa.video import VideoLimits, read_frames
from tests.clips import pan, write
from tests.decode.test_raw import CAMERAS, LARGE, SMALL
from tests.heif import heic
from tests.jxl_files import JXL
from tests.makers import GOOD, save
from tests.odd_images import AS_GREY, AS_RGB, GREY, RGB, WIDE, tiff

SLOW = 2.0
"""Seconds of CPU time that one file may take."""
_HANG = 60
"""Seconds after which a case ends its process."""
_LEFT_OUT = ("text-bomb.png", "thin.png", "wide.jpg")
_INTERESTING = (0, 1, 2, 7, 8, 127, 128, 217, 218, 254, 255)


def _faxes() -> list[bytes]:
    page = Image.fromarray(GREY).convert("1")
    kinds = ("group3", "group4", "tiff_ccitt")
    return [save(page, "TIFF", compression=one, strip_size=400) for one in kinds]


def _tiffs() -> list[bytes]:
    rgb = {"photometric": "rgb"}
    lzw = [
        tiff(WIDE, compression="lzw", rowsperstrip=1, **rgb),
        tiff(RGB, compression="lzw", predictor=True, tile=(64, 80), **rgb),
        tiff(np.moveaxis(RGB, 2, 0), compression="lzw", planarconfig="separate", **rgb),
    ]
    own = [make() for name, make in (AS_RGB | AS_GREY).items()]
    return _faxes() + lzw + [one for one in own if one[:2] in (b"II", b"MM")]


def _raws() -> list[bytes]:
    return [make(picture) for make in CAMERAS.values() for picture in (LARGE, SMALL)]


def _heifs() -> list[bytes]:
    turned = b"\0\0\0\x09irot\1" + b"\0\0\0\x09imir\0"
    return [
        heic(RGB / 255),
        heic(RGB / 255, bits=10, signal=(9, 16)),
        heic(RGB / 255, extra=turned),
    ]


def _stills() -> list[bytes]:
    usual = [make() for name, make in GOOD.items() if name not in _LEFT_OUT]
    odd = [make() for make in (AS_RGB | AS_GREY).values()]
    return usual + odd + list(JXL.values()) + _heifs() + _tiffs()


def _beginning(*magics: bytes) -> list[bytes]:
    return [one for one in _stills() if any(magic in one[:12] for magic in magics)]


_CLIPS = (
    ("a.mp4", "libx264", {"bf": "2", "tune": "psnr"}),
    ("b.ts", "libx264", {}),
    ("c.avi", "mpeg4", {}),
    ("d.ts", "mpeg2video", {}),
    ("e.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("f.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    ("g.mkv", "libsvtav1", {"preset": "12"}),
    ("h.mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    ("i.mov", "prores_ks", {"pixels": "yuva444p10le"}),
    ("j.avi", "mjpeg", {"pixels": "yuvj420p"}),
    ("k.mkv", "ffv1", {}),
    ("l.mov", "qtrle", {"pixels": "rgb24"}),
    ("m.flv", "flv", {}),
    ("n.apng", "apng", {"pixels": "rgba"}),
    ("o.mp4", "libsvtav1", {"preset": "12"}),
)


def _clips() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [
            write(Path(folder, name), pan(6, 96, 64), codec=codec, **options).read_bytes()
            for name, codec, options in _CLIPS
        ]


FILES: dict[str, Callable[[], list[bytes]]] = {
    "avif": lambda: _beginning(b"avif"),
    "clips": _clips,
    "heif": _heifs,
    "jpeg": lambda: _beginning(b"\xff\xd8\xff"),
    "jxl": lambda: [*JXL.values(), *_beginning(b"JXL ", b"\xff\x0a")],
    "raw": _raws,
    "stills": _stills,
    "tiff": _tiffs,
}
"""What is damaged, by name."""


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


class Cases:
    """Decodes damaged files of a kind.

    Args:
        kind: one of `FILES`.
        seed: another one gives other cases.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self._files, self._seed = FILES[kind](), seed
        self._run = self._clip if kind == "clips" else self._still
        self._preprocess = Preprocessor(global_side=224, local_side=448, batch=1)

    def __call__(self, case: int) -> str:
        """Decode one; name the outcome.

        Raises:
            Exception: anything uncoded is the finding.
        """
        data = mutated(self._files, case, self._seed)
        try:
            return self._run(data)
        except GiqaError as e:
            return e.code

    def _still(self, data: bytes) -> str:
        found = listen(probe(data, Limits(max_pixels=20_000_000, max_frames=100)), data)
        if found.route == "pillow":
            views_by_pillow(data, found, None, global_side=224, local_side=448)
            return "scored by pillow"
        (views,) = self._preprocess([np.frombuffer(data, np.uint8)])
        return views.code if isinstance(views, GiqaError) else "scored by dali"

    def _clip(self, data: bytes) -> str:
        manifest = load_bundle().manifest
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            limits = VideoLimits(max_pixels=1_000_000, max_frames=100)
            with read_frames(file.name, limits=limits) as frames:
                rows = [f for f in frames if f.error is None and (f.index or f.views(manifest))]
                return "whole" if len(rows) == 6 and not frames.notes else "partly"


def child(kind: str, seed: int, first: int, until: float) -> None:
    """Run cases from `first` on until the time is over, reporting each as a line."""
    logging.captureWarnings(True)  # as the command does
    cases = Cases(kind, seed)
    case = first
    while time.time() < until:
        print(json.dumps({"start": case}), flush=True)
        faulthandler.dump_traceback_later(_HANG, exit=True)
        begun = time.process_time()
        try:
            outcome = cases(case)
        except Exception as e:  # the finding
            outcome = f"UNCODED {type(e).__name__}: {e}"
        seconds = time.process_time() - begun
        print(json.dumps({"case": case, "outcome": outcome, "seconds": seconds}), flush=True)
        case += 1


def main() -> int:
    """Entry point; 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", choices=FILES, default="stills")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case alone, in this process")
    parser.add_argument("--child", nargs=2, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.files, options.seed, int(options.child[0]), options.child[1])
        return 0
    if options.case is not None:
        print(Cases(options.files, options.seed)(options.case))
        return 0
    outcomes: collections.Counter[str] = collections.Counter()
    findings: list[str] = []
    slowest = (0.0, -1)
    until, case = time.time() + options.seconds, 0
    command = [sys.executable, "-m", "tests.reliability.fuzz_probe", "--files", options.files]
    command += ["--seed", str(options.seed), "--child"]
    while time.time() < until:
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                [*command, str(case), str(until)], stdout=subprocess.PIPE, stderr=said, text=True
            )
            assert process.stdout is not None
            started, heard = case, 0
            for line in process.stdout:
                row = json.loads(line)
                size = os.fstat(said.fileno()).st_size
                if "start" in row:
                    started, heard = row["start"], size
                    continue
                outcomes[row["outcome"].split(":")[0]] += 1
                slowest = max(slowest, (row["seconds"], row["case"]))
                if row["outcome"].startswith("UNCODED") or row["seconds"] > SLOW:
                    findings.append(
                        f"case {row['case']}: {row['outcome']} in {row['seconds']:.1f} s"
                    )
                if size > heard:
                    said.seek(heard)
                    findings.append(f"case {row['case']}: says {said.readline().strip()}")
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
