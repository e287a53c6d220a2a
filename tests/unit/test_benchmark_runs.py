"""Clips and batch runs that are measured."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import clips, rows, runs
from tests.photos import photo


def test_a_clip_is_what_was_asked_for(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "clip.mp4", frames=25, gop=10)
    assert clips.decode(path) == 25
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (1280, 720, 25)
        keys = [p.pts * p.time_base for p in container.demux(stream) if p.size and p.is_keyframe]
    assert np.diff([float(key) for key in keys]) == pytest.approx([0.4, 0.4])


def test_rate_is_that_of_the_second_half(tmp_path: Path) -> None:
    # Slow at first: shards after 100 s and 110 s; then one of 4 rows every 2 s.
    times = (100, 110, 120, 122, 124, 126)
    shards = [tmp_path / f"{i}.parquet" for i in range(len(times))]
    for shard, time in zip(shards, times, strict=True):
        pq.write_table(pa.table({"score": [1.0] * 4}), shard)
        os.utime(shard, (time, time))
    assert runs.rate(shards) == pytest.approx(3 * 4 / (126 - 120))
    assert runs.rate(shards[::-1]) == runs.rate(shards)
    with pytest.raises(ValueError, match="2 shards tell no rate"):
        runs.rate(shards[:2])


@given(
    grows=st.floats(-5, 5),
    start=st.floats(0, 1000),
    counts=st.lists(st.integers(0, 3), min_size=8, max_size=40),
)
def test_slope_of_a_line(grows: float, start: float, counts: list[int]) -> None:
    shards = np.cumsum([*counts, *[1] * 8])
    # Neither what happens in the first half, loading the graphs above all, counts, nor the end.
    inner = [shards[-1] <= 2 * n and n < shards[-1] for n in shards]
    seen = [(int(n), start + grows * n if k else -99.0) for n, k in zip(shards, inner, strict=True)]
    assert runs.slope(seen, 500) == pytest.approx(grows / 0.5, abs=1e-6)


def test_slope_needs_shards() -> None:
    with pytest.raises(RuntimeError, match="too few"):
        runs.slope([(1, 5.0), (1, 5.0)], 10)


def test_a_run_is_watched(tmp_path: Path) -> None:
    Image.fromarray(photo(32, 32)).save(tmp_path / "a.jpg")
    (tmp_path / "b.bin").write_text("no picture")
    listing = tmp_path / "list.txt"
    listing.write_text(f"{tmp_path / 'a.jpg'}\n{tmp_path / 'b.bin'}\n" * 20)
    command = [listing, "--out", tmp_path / "out", "--shard-size", "4", "--threads", "1"]
    found = runs.watch(command, tmp_path / "out")
    assert found.rows == 40
    assert found.peak_mb > 100
    with pytest.raises(RuntimeError, match="exit code 2: .*holds a run already"):
        runs.watch(command, tmp_path / "out")


def test_rows_alone_cost_little() -> None:
    """Planning, running and verifying over a scorer that costs nothing."""
    found = rows.measure(2000)
    assert found.rows == 2000
    assert min(found.plan_s, found.run_s, found.verify_s) > 0
    assert 0 < found.peak_mb < 700
