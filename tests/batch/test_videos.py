"""Videos in batch runs: stretches put together are the whole video."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from giqa import batch, score_video
from giqa.batch import Scoring
from giqa.local import LocalScorer
from giqa.video import Sampling
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
