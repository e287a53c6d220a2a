"""Rows: one schema, four formats, readable by independent readers."""

import csv
import io
import json
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from giqa.errors import CorruptError, StorageFullError
from giqa.results import COLUMNS, ImageResult, arrow_schema, open_writer

COMMON = {"bundle": "giqa-s@0.1.0", "engine": "openvino-f32", "profile": "fast"}
ROWS = [
    ImageResult(path="a.jpg", score=12.5, width=640, height=480, **COMMON),
    ImageResult(path='odd, "name"\n.png', error=CorruptError("bad", item="x"), **COMMON),
    ImageResult(path="bytes\udcff.jpg", score=99.0, notes=("first_frame", "x"), **COMMON),
]


def write(path: Path, kind: str) -> Path:
    with open_writer(path, kind) as writer:
        for row in ROWS:
            writer.write(row)
    return path


def test_a_row_has_a_score_or_an_error() -> None:
    with pytest.raises(ValueError, match="score or an error"):
        ImageResult(path="x", **COMMON)
    with pytest.raises(ValueError, match="score or an error"):
        ImageResult(path="x", score=1.0, error=CorruptError("bad"), **COMMON)


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (0, "bad"),
        (19.99, "bad"),
        (20, "poor"),
        (40, "fair"),
        (60, "good"),
        (80, "excellent"),
        (100, "excellent"),
    ],
)
def test_bands(score: float, band: str) -> None:
    assert ImageResult(path="x", score=score, **COMMON).band == band


def test_json_formats_agree(tmp_path: Path) -> None:
    as_list = json.loads(write(tmp_path / "r.json", "json").read_bytes())
    as_lines = [
        json.loads(x) for x in write(tmp_path / "r.jsonl", "jsonl").read_bytes().splitlines()
    ]
    assert as_list == as_lines
    assert [row["status"] for row in as_list] == ["ok", "error", "ok"]
    assert as_list[1]["error"]["code"] == "corrupt"
    assert as_list[0]["schema"] == "giqa.image/1"
    assert set(as_list[0]) >= {"score", "band", "bundle", "engine", "width", "height", "notes"}


def test_csv_is_read_back_by_pyarrow_and_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert list(rows[0]) == list(COLUMNS)
    assert rows[1]["path"] == ROWS[1].path
    assert rows[2]["notes"] == "first_frame;x"
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    table = pyarrow.csv.read_csv(path, parse_options=options)
    assert table.num_rows == 3
    assert table["score"].to_pylist() == [12.5, None, 99.0]


def test_parquet_has_the_schema(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path / "r.parquet", "parquet"))
    assert table.schema.equals(arrow_schema())
    assert table["score"].to_pylist() == [12.5, None, 99.0]
    assert table["error_code"].to_pylist() == [None, "corrupt", None]
    assert table["notes"].to_pylist()[2] == ["first_frame", "x"]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_an_interruption_keeps_what_was_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"r.{kind}"

    def interrupted() -> None:
        with open_writer(path, kind) as writer:
            writer.write(ROWS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if kind == "json":
        assert len(json.loads(path.read_text())) == 1
    elif kind == "parquet":
        assert pq.read_table(path).num_rows == 1
    else:
        assert b"a.jpg" in path.read_bytes()


def test_empty_json_is_a_list(tmp_path: Path) -> None:
    with open_writer(tmp_path / "r.json", "json"):
        pass
    assert json.loads((tmp_path / "r.json").read_text()) == []


def test_a_full_disk_is_a_coded_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")

    def fill() -> None:
        with full.open("wb", buffering=0) as f, open_writer(f, "jsonl") as writer:
            writer.write(ROWS[0])

    with pytest.raises(StorageFullError):
        fill()
