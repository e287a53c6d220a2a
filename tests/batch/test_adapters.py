"""Scores beside the other columns of record batches: by hand, on Spark, on Ray Data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from giqa.batch import score_batches, scored_schema
from giqa.errors import UsageError
from tests.batch.test_tables import GREYS, PICTURES, STRUCT
from tests.brightness import Brightness

SCORES = [g / 2.55 for g in GREYS]


def frame(kind: str, folder: Path) -> pa.RecordBatch:
    for i, data in enumerate(PICTURES):
        (folder / f"{i}.png").write_bytes(data)
    paths = [str(folder / f"{i}.png") for i in range(5)]
    cells: pa.Array = pa.array(paths)
    if kind == "bytes":
        cells = pa.array(PICTURES, pa.binary())
    elif kind == "struct":
        both = zip(PICTURES, paths, strict=True)
        cells = pa.array([{"bytes": data, "path": path} for data, path in both], STRUCT)
    columns = {
        "id": pa.array([10, 11, 12, 13, 14]),
        "image": cells,
        "score": pa.array(list("abcde")),
    }
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize("kind", ["path", "bytes", "struct"])
def test_other_columns_stay(tmp_path: Path, brightness: Brightness, kind: str) -> None:
    batch = frame(kind, tmp_path)
    (found,) = score_batches([batch], column="image", scorer=brightness)
    assert found.schema == scored_schema(batch.schema, "image")
    assert found["score"].to_pylist() == pytest.approx(SCORES)
    assert found["id"].to_pylist() == [10, 11, 12, 13, 14]
    assert found["kept_score"].to_pylist() == list("abcde")
    assert ("image" in found.schema.names) == (kind == "path")


def test_what_is_null_is_a_row(brightness: Brightness) -> None:
    batch = pa.RecordBatch.from_pydict({"path": pa.array([None, "", "no.png"])})
    (found,) = score_batches([batch], scorer=brightness)
    assert found["error_code"].to_pylist() == ["empty", "empty", "not_found"]
    with pytest.raises(UsageError, match="no column nope"):
        list(score_batches([batch], column="nope", scorer=brightness))
    numbers = pa.RecordBatch.from_pydict({"path": [1]})
    with pytest.raises(UsageError, match="neither paths nor bytes"):
        list(score_batches([numbers], scorer=brightness))


ON_SPARK = """
import json, sys
from functools import partial
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
import pyarrow.parquet as pq
from giqa.batch import score_batches, scored_schema

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .getOrCreate()
)
table = sys.argv[1]
schema = from_arrow_schema(scored_schema(pq.read_schema(table), "image"))
frame = spark.read.parquet(table).repartition(2)
scored = frame.mapInArrow(partial(score_batches, column="image"), schema)
print(json.dumps([[r.id, r.status, r.score] for r in scored.orderBy("id").collect()]))
"""


def run(program: str, *arguments: str, **environment: str) -> list[list[object]]:
    here = str(Path(__file__).parents[2])
    paths = os.pathsep.join([here, *(p for p in sys.path if p)])
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    rows: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
    return rows


ALL_OK = [[10 + i, "ok", True] for i in range(5)]
"""Numbers, statuses, and whether there is a score on the scale."""


def told(rows: list[list[object]]) -> list[list[object]]:
    return [[*row[:2], isinstance(row[2], float) and 0 <= row[2] <= 100] for row in rows]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pyspark") is None, reason="no pyspark")
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
def test_spark(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_batches([frame("struct", tmp_path)]), table)
    assert told(run(ON_SPARK, str(table), PYSPARK_PYTHON=sys.executable)) == ALL_OK


@pytest.mark.skipif(find_spec("daft") is None, reason="no Daft")
@pytest.mark.parametrize("kind", ["path", "bytes", "struct"])
def test_daft(tmp_path: Path, brightness: Brightness, kind: str) -> None:
    import daft

    there = daft.from_arrow(pa.Table.from_batches([frame(kind, tmp_path)]))
    scored = score_batches(there.to_arrow_iter(), column="image", scorer=brightness)
    found = daft.from_arrow(pa.Table.from_batches(scored)).sort("id").to_pydict()
    assert found["id"] == [10, 11, 12, 13, 14]
    assert found["score"] == pytest.approx(SCORES)
    assert found["kept_score"] == list("abcde")


ON_RAY = """
import json, sys
import ray
from giqa.batch import Runtime, score_dataset

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
scored = score_dataset(
    ray.data.read_parquet(sys.argv[1]), column="image", runtime=Runtime(workers=1)
)
rows = sorted(scored.take_all(), key=lambda row: row["id"])
print(json.dumps([[row["id"], row["status"], row["score"]] for row in rows]))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="no Ray")
@pytest.mark.parametrize("kind", ["bytes", "path"])
def test_ray_data(tmp_path: Path, kind: str) -> None:
    import pyarrow.parquet as pq

    table = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_batches([frame(kind, tmp_path)]), table)
    assert told(run(ON_RAY, str(table), RAY_USAGE_STATS_ENABLED="0")) == ALL_OK
