"""Which frames a video has, in which order and when: as FFmpeg's own program tells it.

Over containers, codecs and damage. Where there is no ffprobe, a decoder of one thread says it.
"""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from giqa.errors import GiqaError
from giqa.video import Frame, read_frames
from tests.clips import pan, write

COUNT = 24
X264 = {"bf": "3", "tune": "psnr", "preset": "veryfast"}
VPX = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "8"}
X265 = {"bf": "3", "preset": "ultrafast", "x265-params": "log-level=none"}
FORMATS: dict[str, tuple[str, dict[str, str], str]] = {
    "h264": ("libx264", X264, "mp4 ts avi mov mkv flv 3gp m2ts mpg nut mxf"),
    "open": ("libx264", {**X264, "x264-params": "open-gop=1"}, "mkv ts"),
    "hevc": ("libx265", X265, "mkv ts mp4"),
    "mpeg2": ("mpeg2video", {"bf": "2"}, "ts mpg mkv mxf vob avi"),
    "mpeg1": ("mpeg1video", {"bf": "2"}, "mpg"),
    "mpeg4": ("mpeg4", {"bf": "2"}, "avi mp4 mkv ts"),
    "vp8": ("libvpx", VPX, "webm ivf"),
    "vp9": ("libvpx-vp9", VPX, "webm mp4 ivf"),
    "av1": ("libsvtav1", {"preset": "12"}, "mkv mp4 ivf"),
    "mjpeg": ("mjpeg", {"pixels": "yuvj420p"}, "avi mov"),
    "prores": ("prores_ks", {"pixels": "yuv422p10le"}, "mov mkv"),
    "ffv1": ("ffv1", {}, "mkv avi"),
    "wmv2": ("wmv2", {}, "wmv"),
    "qtrle": ("qtrle", {"pixels": "rgb24"}, "mov"),
    "apng": ("apng", {"pixels": "rgb24"}, "apng"),
    "gif": ("gif", {"pixels": "rgb8"}, "gif"),
}
USUAL = ("h264.mp4", "h264.ts", "h264.avi", "open.mkv", "mpeg2.mpg", "mpeg4.avi", "vp9.webm")
ENDLESS = ("ts", "m2ts", "mpg", "vob", "wmv", "mxf", "nut")
"""Containers that do not say how long they are, or not by their frames."""
TOLD = {"gif": ["alpha_flattened"]}


def cut(data: bytearray) -> None:
    del data[len(data) * 6 // 10 :]


def changed(data: bytearray) -> None:
    draw = random.Random(len(data))
    for _ in range(4):
        at = draw.randrange(len(data) // 4, len(data) * 8 // 10)
        data[at : at + 20] = draw.randbytes(20)


def emptied(data: bytearray) -> None:
    at = len(data) // 2
    data[at : at + len(data) // 8] = bytes(len(data) // 8)


DAMAGE: dict[str, Callable[[bytearray], None]] = {
    "cut": cut,
    "changed": changed,
    "emptied": emptied,
}


def every() -> Iterator[object]:
    for name, (_, _, suffixes) in FORMATS.items():
        for suffix in suffixes.split():
            file = f"{name}.{suffix}"
            yield pytest.param(file, marks=[] if file in USUAL else pytest.mark.slow)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def made(folder: Path, file: str) -> Path:
    name, _, suffix = file.partition(".")
    codec, options, _ = FORMATS[name]
    if not (path := folder / f"{name}.{suffix}").exists():
        write(path, pan(COUNT, 96, 64), codec=codec, gop=10, **options)
    return path


def oracle(path: Path, damaged: bool = False) -> list[float]:
    """The time of each frame that FFmpeg decodes; NaN where it does not know it.

    Versions of FFmpeg and of its decoders do not get equally far in damaged files: then, our own
    one's is the measure where that is less.
    """
    found: list[list[float]] = []
    if shutil.which("ffprobe"):
        command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-of", "json"]
        command += ["-show_entries", "frame=best_effort_timestamp_time", str(path)]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        frames = json.loads(done.stdout or b"{}").get("frames", [])
        found.append([float(f.get("best_effort_timestamp_time", "nan")) for f in frames])
    if damaged or not found:
        found.append(list(by_one_thread(path)))
    return min(found, key=len)


def same_times(found: list[float], expected: list[float]) -> bool:
    """Whether frames come as far behind each other as FFmpeg says of those that it knows."""
    if np.any(np.diff(expected) <= 0):  # it is lost
        return True
    apart = np.subtract(found, expected)
    apart = apart[~np.isnan(apart)]
    return bool(np.ptp(apart) < 0.002) if len(apart) else True


def by_one_thread(path: Path) -> Iterator[float]:
    with suppress(av.error.FFmpegError, IndexError), av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            with suppress(av.error.FFmpegError):
                yield from (f.time if f.time is not None else np.nan for f in packet.decode())


def read(path: Path) -> tuple[list[Frame], list[str], GiqaError | None]:
    frames: list[Frame] = []
    try:
        with read_frames(path) as reader:
            notes = reader.notes
            frames += reader
    except GiqaError as e:
        return frames, [] if not frames else notes, e
    return frames, notes, None


def of_good(frames: list[Frame]) -> list[float]:
    return [frame.pts_s for frame in frames if frame.error is None]


@pytest.mark.parametrize("file", list(every()))
def test_frames_are_those_of_ffprobe(folder: Path, file: str) -> None:
    path = made(folder, file)
    frames, notes, error = read(path)
    assert (notes, error) == (TOLD.get(file.partition(".")[0], []), None)
    assert [frame.index for frame in frames] == list(range(COUNT))
    if file == "h264.mxf":  # ffprobe guesses times in order of decoding
        assert len(oracle(path)) == COUNT
    else:
        assert same_times(of_good(frames), oracle(path))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", list(every()))
def test_damage_costs_no_frame_that_ffprobe_has(folder: Path, file: str, damage: str) -> None:
    path = made(folder, file)
    data = bytearray(path.read_bytes())
    DAMAGE[damage](data)
    (bad := path.with_name(f"{damage}-{path.name}")).write_bytes(data)
    frames, notes, error = read(bad)
    assert [f.index for f in frames] == sorted({f.index for f in frames})
    assert np.all(np.diff([f.pts_s for f in frames]) > 0)
    good = of_good(frames)
    expected = oracle(bad, damaged=True)
    assert len(good) >= len(expected)
    # Program streams and H.264 in MXF tell few times: both guess.
    if len(good) == len(expected) and file.partition(".")[2] not in ("mpg", "vob", "mxf"):
        assert same_times(good, expected)
    told = error is not None or set(notes) - {"alpha_flattened"} or len(good) < len(frames)
    if damage == "cut" and file.partition(".")[2] not in ENDLESS:
        assert told
