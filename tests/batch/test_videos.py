"""Videos in batch runs: stretches put together are the whole video."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from giqa import batch, score_video
from giqa.batch import Scoring
from giqa.cli import group
from giqa.local import LocalScorer
from giqa.video import Sampling
from tests.brightness import Brightness
from tests.clips import pan, write
from tests.photos import photo


def test_stretches_are_the_whole_video(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    clip = write(inputs / "b.mp4", pan(75))
    (inputs / "c.mp4").write_bytes(clip.read_bytes()[:3000])
    Image.fromarray(photo(80, 60, 1)).save(inputs / "a.jpg")
    with LocalScorer() as scorer:
        alone = score_video(clip, scorer, sampling=Sampling(every=6), scenes=False)
        scoring = Scoring(every=6, chunk_s=0.7)
        summary = batch.run(
            [str(inputs)], tmp_path / "out", scoring=scoring, shard_size=2, scorer=scorer
        )
    files = sorted((tmp_path / "out" / "shards").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert len(files) > 2
    frames = [row for row in rows if row["path"] == str(clip)]
    assert [(r["frame"], r["pts_s"]) for r in frames] == [(f.frame, f.pts_s) for f in alone.frames]
    assert [r["score"] for r in frames] == pytest.approx([f.score for f in alone.frames], abs=1e-6)
    others = {Path(row["path"]).name: row for row in rows if row["path"] != str(clip)}
    assert others["a.jpg"]["status"] == "ok"
    assert others["a.jpg"]["frame"] is None
    assert others["c.mp4"]["error_code"] == "truncated"
    assert summary.rows == len(rows)
    verdict = batch.verify(tmp_path / "out")
    assert verdict.problems == ()
    assert verdict.inputs == 3


@pytest.mark.parametrize("span", [(0.5, 2.3), (None, 1.0), (2.0, None)])
def test_a_part_of_each_video(
    span: tuple[float | None, float | None], tmp_path: Path, brightness: Brightness
) -> None:
    """`--start` and `--end`: the frames and pools of that part alone, from a file and a tar."""
    clip = write(tmp_path / "v.mp4", pan(75), gop=10)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(clip, "v.mp4")
    sampling = Sampling(start_s=span[0], end_s=span[1])
    alone = score_video(clip, brightness, sampling=sampling)
    assert 0 < len(alone.frames) < 75
    options = [
        word
        for name, value in zip(("--start", "--end"), span, strict=True)
        if value is not None
        for word in (name, str(value))
    ]
    context = (
        group.commands["batch"]
        .commands["run"]
        .make_context(  # type: ignore[attr-defined]
            "run", [str(clip), "--out", "x", *options]
        )
    )
    assert (context.params["start_s"], context.params["end_s"]) == span
    scoring = Scoring(start_s=span[0], end_s=span[1], chunk_s=0.4)
    inputs = [str(clip), str(tmp_path / "s.tar")]
    batch.run(inputs, tmp_path / "out", scoring=scoring, scorer=brightness)
    files = sorted((tmp_path / "out" / "shards").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    wanted = [(f.frame, f.pts_s, f.score) for f in alone.frames]
    for path in (str(clip), f"{tmp_path / 's.tar'}::v.mp4"):
        found = [(r["frame"], r["pts_s"], r["score"]) for r in rows if r["path"] == path]
        assert found == wanted
    for row in pq.read_table(tmp_path / "out" / "videos.parquet").to_pylist():
        assert row["pooled"] == alone.pooled
