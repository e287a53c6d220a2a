"""Tables of pictures and paths: bytes, structs, lists, nulls; keys come through to the rows."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from giqa import batch
from giqa.batch import Sources
from giqa.batch._read import read_items
from giqa.batch._sources import Listing
from giqa.errors import UsageError
from giqa.types import Limits
from tests.brightness import Brightness
from tests.clips import pan, write

GREYS = (10, 60, 110, 160, 210)


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(grey) for grey in GREYS]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def rows(out: Path) -> list[dict]:
    files = sorted((out / "shards").glob("*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


def save(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    elif path.suffix == ".feather":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    else:  # as Hugging Face's cache has it
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


COLUMNS = {
    "binary": pa.array(PICTURES, pa.binary()),
    "large": pa.array(PICTURES, pa.large_binary()),
    "struct": pa.array([{"bytes": p, "path": None} for p in PICTURES], STRUCT),
    "named": pa.array([{"bytes": p, "path": f"{i}.png"} for i, p in enumerate(PICTURES)], STRUCT),
    "dictionary": pa.array(PICTURES, pa.binary()).dictionary_encode(),
    "bytes alone": pa.array(
        [{"bytes": p} for p in PICTURES], pa.struct([("bytes", pa.large_binary())])
    ),
}


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_pictures_in_tables_are_scored(
    tmp_path: Path, brightness: Brightness, kind: str, suffix: str
) -> None:
    table = pa.table({"id": list("abcde"), "image": COLUMNS[kind]})
    source = save(table, tmp_path / f"t{suffix}")
    out = tmp_path / "out"
    sources = Sources(inputs=(str(source),), keep=("id",))
    batch.run(sources, out, shard_size=2, scorer=brightness)
    found = rows(out)
    assert [row["score"] for row in found] == pytest.approx([g / 2.55 for g in GREYS])
    assert [row["id"] for row in found] == list("abcde")
    names = [f"{source}::{i}" + (f":{i}.png" if kind == "named" else "") for i in range(5)]
    assert [row["path"] for row in found] == names
    assert batch.verify(out).problems == ()


def test_what_is_null_or_empty_has_a_row(tmp_path: Path, brightness: Brightness) -> None:
    (tmp_path / "there.png").write_bytes(PICTURES[4])
    cells = [
        {"bytes": PICTURES[0], "path": "a.png"},
        None,
        {"bytes": None, "path": str(tmp_path / "there.png")},
        {"bytes": None, "path": None},
        {"bytes": b"", "path": ""},
        {"bytes": b"no picture", "path": "x.png"},
    ]
    pq.write_table(pa.table({"image": pa.array(cells, STRUCT)}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"path": ["", None, "no.png"]}), tmp_path / "u.parquet")
    inputs = [str(tmp_path / name) for name in ("t.parquet", "u.parquet")]
    batch.run(inputs, tmp_path / "out", scorer=brightness)
    codes = [row["error_code"] for row in rows(tmp_path / "out")]
    assert codes == [
        None,
        "empty",
        None,
        "empty",
        "empty",
        "corrupt",
        "empty",
        "empty",
        "not_found",
    ]


def test_lists_are_several_inputs_of_a_row(tmp_path: Path, brightness: Brightness) -> None:
    many = [PICTURES[:2], [], None, PICTURES[2:]]
    table = pa.table({"key": [7, 8, 9, 10], "images": pa.array(many, pa.list_(pa.binary()))})
    paths = [["a.png", "b.png"], [], None, ["c.png"]]
    table = table.append_column("paths", pa.array(paths))
    structs = [None if m is None else [{"bytes": p, "path": "p"} for p in m] for m in many]
    table = table.append_column("structs", pa.array(structs, pa.list_(STRUCT)))
    pq.write_table(table, tmp_path / "t.parquet")
    for i, grey in enumerate(GREYS[:3]):
        (tmp_path / f"{'abc'[i]}.png").write_bytes(png(grey))
    for column, keys in (
        ("images", [7, 7, 8, 9, 10, 10, 10]),
        ("structs", [7, 7, 8, 9, 10, 10, 10]),
        ("paths", [7, 7, 8, 9, 10]),
    ):
        sources = Sources(inputs=("t.parquet",), folder=str(tmp_path), column=column, keep=("key",))
        out = tmp_path / column
        batch.run(sources, out, scorer=brightness)
        found = rows(out)
        assert [row["key"] for row in found] == keys
        assert [row["error_code"] for row in found if row["key"] in (8, 9)] == ["empty"] * 2
        scores = [row["score"] for row in found if row["score"] is not None]
        assert scores == pytest.approx([g / 2.55 for g in GREYS[: len(scores)]])


KEPT = {
    "number": pa.array([1, None], pa.int16()),
    "text": pa.array(["ä", None]),
    "time": pa.array([datetime(2026, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
    "money": pa.array([Decimal("1.20"), None], pa.decimal128(9, 2)),
    "tags": pa.array([["x", "y"], []]),
    "raw": pa.array([b"\xff", b""], pa.binary()),
    "score": pa.array([0.5, 0.25]),
    "dictionary": pa.array(["x", None]).dictionary_encode(),
    "struct": pa.array([{"a": [1]}, None]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())),
    "day": pa.array([1, None], pa.date32()),
    "nothing": pa.nulls(2),
}


def test_keys_keep_their_types(tmp_path: Path, brightness: Brightness) -> None:
    table = pa.table({"image": PICTURES[:2], **KEPT})
    pq.write_table(table, tmp_path / "t.parquet")
    sources = Sources(inputs=(str(tmp_path / "t.parquet"),), keep=tuple(KEPT))
    batch.run(sources, tmp_path / "out", scorer=brightness)
    found = pq.read_table(tmp_path / "out" / "shards")
    for name, values in KEPT.items():
        own = "kept_score" if name == "score" else name
        assert found.schema.field(own).type == values.type
        assert found[own].to_pylist() == values.to_pylist()
    assert batch.verify(tmp_path / "out").problems == ()


def test_what_cannot_be_kept_is_said(tmp_path: Path, brightness: Brightness) -> None:
    pq.write_table(pa.table({"image": PICTURES, "id": [1] * 5}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": PICTURES, "id": ["1"] * 5}), tmp_path / "b.parquet")

    def run(*inputs: str, keep: str) -> None:
        sources = Sources(inputs=inputs, folder=str(tmp_path), keep=(keep,))
        batch.run(sources, tmp_path / "out", scorer=brightness)

    with pytest.raises(UsageError, match="no table has a column nope"):
        run("a.parquet", keep="nope")
    with pytest.raises(UsageError, match="elsewhere int64"):
        run("a.parquet", "b.parquet", keep="id")
    with pytest.raises(UsageError, match="pictures themselves"):
        run("a.parquet", keep="image")
    with pytest.raises(UsageError, match="names a column twice"):
        Sources(inputs=("a.parquet",), keep=("id", "id"))
    odd = pa.table({"image": PICTURES[:1], "odd": pa.array([{}], pa.struct([]))})
    save(odd, tmp_path / "c.feather")
    with pytest.raises(UsageError, match="cannot be written to Parquet"):
        run("c.feather", keep="odd")
    twice = pa.table(
        [pa.array(PICTURES), pa.array(range(5)), pa.array(range(5))], ["image", "n", "n"]
    )
    pq.write_table(twice, tmp_path / "d.parquet")
    with pytest.raises(UsageError, match="2 columns n"):
        run("d.parquet", keep="n")


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_columns_of_other_types(tmp_path: Path, brightness: Brightness, suffix: str) -> None:
    """Types that nobody lists hold inputs, or are said to hold none: no traceback, none is lost."""
    for i, data in enumerate(PICTURES):
        (tmp_path / f"{i}.png").write_bytes(data)
    names = ["0.png", "1.png", None, "0.png"]
    raw = pa.array([b"0.png", b"caf\xe9.png"])
    not_utf8 = pa.StringArray.from_buffers(2, *raw.buffers()[1:])
    good: dict[str, tuple[pa.Array, list[str | None]]] = {
        "dictionary": (pa.array(names).dictionary_encode(), [None, None, "empty", None]),
        "lists": (pa.array([["0.png", None], ["9.png"]]), [None, "empty", "not_found"]),
        "view": (pa.array(["0.png"], pa.string_view()), [None]),
        "not UTF-8": (not_utf8, [None, "not_found"]),
        "fixed": (pa.array(PICTURES[:1], pa.binary(len(PICTURES[0]))), [None]),
        "nested names": (
            pa.StructArray.from_arrays([pa.array(PICTURES[:2]), not_utf8], ["bytes", "path"]),
            [None, None],
        ),
    }
    if suffix == ".feather":
        runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["0.png", "9.png"])
        good["runs"] = runs, [None, None, "not_found"]
        views = pa.array([PICTURES[:2], []], pa.list_view(pa.binary()))
        good["list views"] = views, [None, None, "empty"]
    for i, (cells, codes) in enumerate(good.values()):
        source = save(
            pa.table({"other.path": cells, "n": range(len(cells))}), tmp_path / f"{i}{suffix}"
        )
        sources = Sources(inputs=(source.name,), folder=str(tmp_path), column="other.path")
        batch.run(sources, out := tmp_path / f"out{i}", scorer=brightness)
        assert [row["error_code"] for row in rows(out)] == codes
    bad = {
        "lists of lists": pa.array([[PICTURES[:1]]]),
        "numbers": pa.array([1]),
        "nulls": pa.nulls(1),
        "map": pa.array([[("a", b"")]], pa.map_(pa.string(), pa.binary())),
        "struct": pa.array([{"image": {"bytes": b""}}]),
    }
    for i, cells in enumerate(bad.values()):
        source = save(pa.table({"image": cells}), tmp_path / f"bad{i}{suffix}")
        for column in (None, "image"):
            with pytest.raises(UsageError):
                batch.run(
                    Sources(inputs=(str(source),), column=column),
                    tmp_path / "no",
                    scorer=brightness,
                )
    twice = save(pa.table([pa.array(PICTURES)] * 2, ["image"] * 2), tmp_path / f"twice{suffix}")
    with pytest.raises(UsageError, match="2 columns image"):
        batch.run([str(twice)], tmp_path / "no", scorer=brightness)


def test_a_damaged_table_costs_itself_alone(tmp_path: Path, brightness: Brightness) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.parquet").write_bytes(b"junk")
    (folder / "b.png").write_bytes(PICTURES[0])
    paths = pa.table({"path": [f"{i:04d}.png" for i in range(3000)], "id": range(3000)})
    options = {"use_dictionary": False, "row_group_size": 1000, "compression": "snappy"}
    pq.write_table(paths, folder / "c.parquet", **options)
    data = bytearray((folder / "c.parquet").read_bytes())
    data[-9000:-8000] = b"\xff" * 1000
    (folder / "c.parquet").write_bytes(bytes(data))
    sources = Sources(inputs=(str(folder),), keep=("id",))
    batch.run(sources, tmp_path / "out", shard_size=5000, scorer=brightness)
    found = rows(tmp_path / "out")
    assert [row["error_code"] for row in found[:2]] == ["corrupt", None]
    assert found[-1]["error_code"] == "corrupt"
    assert 1000 < len(found) < 3000
    assert batch.verify(tmp_path / "out").problems == ()


def test_a_runs_inputs_can_be_fed_back(tmp_path: Path, brightness: Brightness) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(PICTURES[0])
    with tarfile.open(folder / "s.tar", "w") as tar:
        info = tarfile.TarInfo("b.png")
        info.size = len(PICTURES[1])
        tar.addfile(info, io.BytesIO(PICTURES[1]))
    pq.write_table(pa.table({"image": PICTURES[2:]}), folder / "t.parquet")
    write(folder / "v.mp4", pan(30))
    inputs = ("a.png", "s.tar", "t.parquet", "v.mp4", "gone*.png")
    scoring = batch.Scoring(chunk_s=0.4)
    sources = Sources(inputs=inputs, folder=str(folder))
    batch.run(sources, tmp_path / "one", scoring=scoring, scorer=brightness)
    again = [str(tmp_path / "one" / "inputs.parquet")]
    batch.run(again, tmp_path / "two", scoring=scoring, scorer=brightness)
    first, second = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(first) == 36
    for name in ("input", "score", "error_code", "frame", "pts_s"):
        assert [row[name] for row in first] == [row[name] for row in second]


def test_a_hugging_face_folder_is_taken_as_it_is(tmp_path: Path, brightness: Brightness) -> None:
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    for part in range(2):
        cells = [{"bytes": p, "path": f"{part}-{i}.png"} for i, p in enumerate(PICTURES)]
        table = pa.table({"image": pa.array(cells, STRUCT), "label": list(range(5))})
        pq.write_table(table, data / f"train-0000{part}-of-00002.parquet")
    pq.write_table(pa.table({"n": [1]}), data / "stats.parquet")
    (tmp_path / "set" / "README.md").write_text("---\n")
    (tmp_path / "set" / "dataset_infos.json").write_text("{}")
    sources = Sources(inputs=(str(tmp_path / "set"),), recursive=True, keep=("label",))
    out = tmp_path / "set" / "scores"  # the run's own tables are no inputs
    summary = batch.run(sources, out, scorer=brightness)
    assert (summary.inputs, summary.failed) == (10, 0)
    passed = {".parquet without inputs": 1, ".md": 1, ".json": 1}
    assert {k: v for k, v in summary.passed.items() if k in passed} == passed
    assert [row["label"] for row in rows(out)] == list(range(5)) * 2
    assert batch.resume(out, scorer=brightness).changes == batch.Changes()
    other = batch.run(sources, tmp_path / "other", scorer=brightness)
    assert other.inputs == 10
    assert other.passed["of a run"] >= 1


def test_reading_in_order_reads_each_batch_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": PICTURES * 20}), tmp_path / "t.parquet", row_group_size=7)
    listed = list(Listing(Sources(inputs=("t.parquet",), folder=str(tmp_path))))
    items = list(read_items(listed, str(tmp_path), Limits()))
    assert [item.data for item in items] == PICTURES * 20
    some = [listed[i] for i in (99, 3, 4, 50, 0)]
    found = [item.data for item in read_items(some, str(tmp_path), Limits())]
    assert found == [(PICTURES * 20)[i] for i in (99, 3, 4, 50, 0)]
