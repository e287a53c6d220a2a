"""Stretches are read from their keyframes, and are the whole video all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giqa import batch
from giqa.batch import Scoring
from giqa.video import Sampling, VideoLimits, read_frames, score_video, stretches
from giqa.video._stream import VideoStream
from tests.brightness import Brightness
from tests.clips import pan, write

KINDS = {
    "closed.mp4": {"codec": "libx264"},
    "reordered.mp4": {"codec": "libx264", "tune": "film", "bf": "3", "b-pyramid": "normal"},
    "open.mp4": {"codec": "libx264", "tune": "film", "bf": "3", "x264-params": "open-gop=1"},
    "reordered.mkv": {"codec": "libx264", "tune": "film", "bf": "3"},
    "m2.ts": {"codec": "mpeg2video", "bf": "2"},
    "reordered.ts": {"codec": "libx264", "tune": "film", "bf": "3"},
    "vp9.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "divx.avi": {"codec": "mpeg4", "bf": "2"},
}


def clip(folder: Path, name: str) -> Path:
    return write(folder / name, pan(90), rate=30, **KINDS[name])  # type: ignore[arg-type]


def read(path: Path, sampling: Sampling, mark: object = None) -> list[tuple[int, float, bytes]]:
    with read_frames(path, sampling, mark=mark) as frames:  # type: ignore[arg-type]
        return [(f.index, f.pts_s, f.image.tobytes()) for f in frames]


@pytest.mark.parametrize("name", KINDS)
def test_stretches_are_the_same_frames(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path, name)
    for sampling in (Sampling(), Sampling(fps=7.5), Sampling(every=5), Sampling(keyframes=True)):
        whole = read(path, sampling)
        parts = stretches(path, sampling, 0.8)
        found = []
        for part in parts:
            own = replace(sampling, start_s=part.start_s, end_s=part.end_s)
            some = read(path, own, part.mark)
            assert part.before == len(found)
            assert part.frames == len(some)
            found += some
        assert [f[:2] for f in found] == [f[:2] for f in whole]
        for (_, _, a), (_, _, b) in zip(found, whole, strict=True):
            assert np.array_equal(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8))
    if name not in ("divx.avi",):
        assert len(stretches(path, Sampling(), 0.8)) >= 3


@pytest.mark.parametrize("name", ["reordered.mp4", "reordered.mkv", "vp9.webm"])
def test_a_stretch_reads_its_own_packets_alone(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path, name)
    counts = []
    packets = VideoStream.packets

    def counted(self: VideoStream):  # type: ignore[no-untyped-def]
        for packet in packets(self):
            counts[-1] += 1
            yield packet

    parts = stretches(path, Sampling(), 0.6)
    monkeypatch.setattr(VideoStream, "packets", counted)
    for part in parts:
        counts.append(0)
        read(path, Sampling(start_s=part.start_s, end_s=part.end_s), part.mark)
    assert len(parts) >= 4
    assert max(counts) < 60  # of 90: reading through would end with all of them
    assert sum(counts) < 90 + 24 * len(parts)


def test_a_mark_that_is_wrong_is_found_out(tmp_path: Path) -> None:
    path = clip(tmp_path, "reordered.mp4")
    part = stretches(path, Sampling(), 0.8)[1]
    assert part.mark is not None
    own = Sampling(start_s=part.start_s, end_s=part.end_s)
    right = read(path, own)
    for wrong in (
        replace(part.mark, size=part.mark.size + 1),
        replace(part.mark, pts=part.mark.pts + 1),
        replace(part.mark, pts=10**12, dts=10**12),
    ):
        assert read(path, own, wrong) == right


def test_a_batch_pools_stretches_as_one_run(tmp_path: Path, brightness: Brightness) -> None:
    import pyarrow.parquet as pq

    from tests.photos import photo

    pictures = [f for s in (1, 2, 3) for f in pan(40, of=photo(300, 150, s, noise=8))]
    path = write(tmp_path / "v.mp4", pictures, tune="film", bf="3")
    for options in ({}, {"start_s": 0.7, "end_s": 3.9}, {"fps": 3.0}, {"max_frames": 50}):
        sampling = Sampling(**{k: v for k, v in options.items() if k != "max_frames"})
        limits = VideoLimits(**{k: v for k, v in options.items() if k == "max_frames"})
        alone = score_video(path, brightness, sampling=sampling, limits=limits)
        out = tmp_path / f"{len(options)}{next(iter(options), '')}"
        scoring = Scoring(chunk_s=0.6, **options)  # type: ignore[arg-type]
        batch.run([str(path)], out, scoring=scoring, shard_size=1, scorer=brightness)
        (row,) = pq.read_table(out / "videos.parquet").to_pylist()
        assert len(list((out / "shards").iterdir())) >= 3
        assert row["pooled"] == alone.pooled
        assert row["scenes"] == [scene.to_json() for scene in alone.scenes]
        assert row["status"] == alone.status
        assert row["notes"] == list(alone.notes)
        assert row["error_code"] == (alone.error and alone.error.code)
        window = alone.worst_window
        assert window is not None
        assert (row["worst_window"]["start_s"], row["worst_window"]["score"]) == (
            window.start_s,
            window.score,
        )
        assert batch.verify(out).problems == ()
    assert len(score_video(path, brightness).scenes) == 3
