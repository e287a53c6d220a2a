"""Tables of labels: what is read, scaled and refused; images without labels."""

from __future__ import annotations

import csv
import os
from fractions import Fraction
from math import isfinite
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giqa.errors import InputError, NotFoundError, TableInvalidError, UsageError
from training.data.table import Sample, read_table
from training.data.unlabelled import list_images

N = 12
HEADER = "path,mos,subset"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("labels")
    (made / "in").mkdir()
    for i in range(N):
        (made / "in" / f"{i}.png").touch()
    return made


def write(folder: Path, rows: list[str], header: str = HEADER) -> Path:
    table = folder / "labels.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


def write_parquet(folder: Path, **columns: object) -> Path:
    table = folder / "labels.parquet"
    pq.write_table(pa.table(columns), table)
    return table


def refused(table: Path, **scale: float) -> str:
    with pytest.raises(TableInvalidError) as caught:
        read_table(table, **scale)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert caught.value.code == "table_invalid"
    assert caught.value.item == str(table)
    return caught.value.message


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SUBSETS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(FINITE, SUBSETS), min_size=2, max_size=N),
    st.sampled_from(["csv", "parquet"]),
    st.booleans(),
)
def test_any_finite_labels_come_back_scaled(
    folder: Path, labels: list[tuple[float, str]], kind: str, higher_is_better: bool
) -> None:
    scores, subsets = [s for s, _ in labels], [s for _, s in labels]
    names = [f"in/{i}.png" for i in range(len(labels))]
    if kind == "csv":
        table = folder / "labels.csv"
        with table.open("w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([HEADER.split(","), *zip(names, scores, subsets, strict=True)])
    else:
        table = write_parquet(folder, path=names, mos=scores, subset=subsets)
    low, high = min(scores), max(scores)
    width = high - low
    if not (width > 0 and isfinite(width) and isfinite(100 / width)):
        with pytest.raises(UsageError, match="labels cannot range"):
            read_table(table, low=low, high=high)
        return
    found = read_table(table, low=low, high=high, higher_is_better=higher_is_better)
    assert [s.path for s in found] == [folder / n for n in names]
    assert [s.subset for s in found] == subsets
    for score, sample in zip(scores, found, strict=True):
        exact = 100 * (Fraction(score) - Fraction(low)) / (Fraction(high) - Fraction(low))
        assert 0 <= sample.mos <= 100
        assert sample.mos == pytest.approx(
            float(exact if higher_is_better else 100 - exact), abs=1e-9
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=N), st.sampled_from(["csv", "parquet"]))
def test_labels_on_our_scale_are_unchanged(folder: Path, scores: list[float], kind: str) -> None:
    names = [f"in/{i}.png" for i in range(len(scores))]
    if kind == "csv":
        table = write(folder, [f"{n},{s!r},x" for n, s in zip(names, scores, strict=True)])
    else:
        table = write_parquet(folder, path=names, mos=scores)
    found = read_table(table)
    assert [s.mos for s in found] == scores
    assert {s.subset for s in found} == {"x" if kind == "csv" else ""}


def test_paths_are_relative_to_the_table_or_absolute(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, ["in/0.png,1,", f"{folder}/in/1.png,2,blur", "in/../in/2.png,3,"])
    monkeypatch.chdir(folder / "in")
    assert read_table(Path("..") / "labels.csv") == [
        Sample(Path("../in/0.png"), 1),
        Sample(folder / "in" / "1.png", 2, "blur"),
        Sample(Path("../in/../in/2.png"), 3),
    ]


def test_what_spreadsheets_write_is_read(folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_bytes(
        b'\xef\xbb\xbfnote,mos,path\r\n,"1.5",in/0.png\r\n\r\n"a, b", 2 ,"in/1.png"\r\n'
    )
    assert [s.mos for s in read_table(table, low=1, high=2)] == [50, 100]


@pytest.mark.parametrize("kind", [pa.float32(), pa.int8(), pa.decimal128(5, 2), pa.string()])
def test_parquet_scores_of_any_type(folder: Path, kind: pa.DataType) -> None:
    mos = pa.array([3, 4], pa.int8()).cast(kind)
    table = write_parquet(folder, path=["in/0.png", "in/1.png"], mos=mos, subset=[None, "b"])
    found = read_table(table, low=1, high=5, higher_is_better=False)
    assert [(s.mos, s.subset) for s in found] == [(50, ""), (25, "b")]


def test_scores_that_are_none_are_named(folder: Path) -> None:
    bad = ["nan", "inf", "-inf", "good", "", "1e999", "1_0"]
    told = refused(write(folder, [f"in/{i}.png,{s}," for i, s in enumerate(["7", *bad])]))
    assert told == (
        "not a finite number: row 2 'nan', row 3 'inf', row 4 '-inf', row 5 'good', row 6 '' "
        "and 2 more, 7 in all"
    )
    mos = pa.array([None, float("nan"), 3.0])
    told = refused(write_parquet(folder, path=["in/0.png", "in/1.png", "in/2.png"], mos=mos))
    assert told == "not a finite number: row 1 None, row 2 nan"
    told = refused(write_parquet(folder, path=["in/0.png", "in/1.png"], mos=[True, False]))
    assert told == "not a finite number: row 1 True, row 2 False"
    assert "row 2 None" in refused(write(folder, ["in/0.png,1,", "in/1.png"]))


def test_scores_outside_the_range_are_named(folder: Path) -> None:
    table = write(folder, ["in/0.png,1,", "in/1.png,5.01,", "in/2.png,0.5,", "in/3.png,5,"])
    assert refused(table, low=1, high=5) == "outside 1..5: row 2 '5.01', row 3 '0.5'"


@pytest.mark.parametrize(
    ("again", "told"),
    [
        ("in/0.png,1,", "rows 1 and 3 ('in/0.png')"),
        ("in/0.png,2,", "rows 1 and 3 ('in/0.png')"),
        ("./in//0.png,1,", "rows 1 and 3 ('in/0.png', './in//0.png')"),
        ("in/../in/0.png,1,", "rows 1 and 3 ('in/0.png', 'in/../in/0.png')"),
        ("{folder}/in/0.png,1,", "rows 1 and 3 ('in/0.png', '{folder}/in/0.png')"),
        ("link.png,1,", "rows 1 and 3 ('in/0.png', 'link.png')"),
    ],
)
def test_two_rows_of_one_image_are_named(folder: Path, again: str, told: str) -> None:
    if not (folder / "link.png").is_symlink():
        (folder / "link.png").symlink_to("in/0.png")
    table = write(folder, ["in/0.png,1,", "in/1.png,1,", again.format(folder=folder)])
    assert refused(table) == "two rows of one image: " + told.format(folder=folder)


def test_missing_images_are_counted_and_the_first_named(folder: Path) -> None:
    table = write(folder, ["in/0.png,1,", *(f"gone{i}.png,1," for i in range(7)), "in,1,"])
    assert refused(table) == (
        "no such image file: row 2 'gone0.png', row 3 'gone1.png', row 4 'gone2.png', "
        "row 5 'gone3.png', row 6 'gone4.png' and 3 more, 8 in all"
    )
    told = refused(write_parquet(folder, path=["in/0.png", None, "", "a\0b"], mos=[1, 2, 3, 4]))
    assert told == ("no image is named in row 2, 3; no such image file: row 4 'a\\x00b'")


def test_all_kinds_of_faults_are_told_at_once(folder: Path) -> None:
    told = refused(write(folder, ["in/0.png,x,", "in/0.png,101,", "gone.png,1,"]))
    assert told == (
        "not a finite number: row 1 'x'; outside 0..100: row 2 '101'; two rows of one image: "
        "rows 1 and 2 ('in/0.png'); no such image file: row 3 'gone.png'"
    )


def test_too_few_rows(folder: Path) -> None:
    assert refused(write(folder, [])) == "no data row, two are the least"
    assert refused(write(folder, ["in/0.png,1,"])) == "only one data row, two are the least"
    empty = write_parquet(folder, path=pa.array([], pa.string()), mos=pa.array([], pa.float64()))
    assert refused(empty).startswith("no data row")


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("file,mos", "no column 'path'; it has ['file', 'mos']"),
        ("path|mos", "no column 'path' and no column 'mos'; it has ['path|mos']"),
        ("path,mos,mos", "column 'mos' stands there twice"),
        ("", "no column 'path' and no column 'mos'; it has []"),
    ],
)
def test_headers_are_checked(folder: Path, header: str, told: str) -> None:
    assert refused(write(folder, ["in/0.png,1,1"], header)) == told


def test_what_is_no_table(folder: Path) -> None:
    table = write(folder, ["in/0.png,3,5", "in/1.png,3,5"], "path,mos")  # a decimal comma
    assert refused(table) == "row 1 has more fields than the header: ['5']"
    assert refused(write(folder, ['"in/0.png,1,', "in/1.png,2,"])).startswith("not CSV: ")
    table.write_bytes(b"path,mos\nin/\xff.png,1\n")
    assert refused(table) == "not UTF-8 at byte 12"
    other = folder / "labels.parquet"
    other.write_bytes(table.read_bytes())
    assert refused(other).startswith("not Parquet: ")
    pq.write_table(pa.table({"path": ["in/0.png"] * 99, "mos": [1.0] * 99}), other)
    whole = other.read_bytes()
    other.write_bytes(whole[:4] + bytes(80) + whole[84:])
    assert refused(other).startswith("not Parquet: ")
    pq.write_table(pa.table({"path": ["in/0.png"]}), other)
    assert refused(other) == "no column 'mos'; it has ['path']"
    assert "a .csv, .tsv or .parquet" in refused(folder / "labels.json")
    for kind in ("csv", "parquet"):
        with pytest.raises(FileNotFoundError, match="gone"):
            read_table(folder / f"gone.{kind}")


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (5, 1), (0, float("inf")), (float("nan"), 1), (0, 5e-324)]
)
def test_a_range_has_a_width(folder: Path, low: float, high: float) -> None:
    with pytest.raises(UsageError, match="labels cannot range from"):
        read_table(folder / "labels.csv", low=low, high=high)


def test_images_are_listed_through_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", "deep/er/c.webp", "deep/d.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "z.png").symlink_to("a.png")
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    expected = [tmp_path / n for n in ("a.png", "b.JPG", "deep/d.tif", "deep/er/c.webp")]
    assert list_images(tmp_path) == expected
    assert list_images(f"{tmp_path}/*") == expected[:2]
    assert list_images(f"{tmp_path}/deep/*/*.webp") == expected[3:]
    assert list_images(tmp_path / "a.png") == expected[:1]


def test_where_there_is_no_image_it_is_said(tmp_path: Path) -> None:
    for what in (tmp_path, tmp_path / "gone", f"{tmp_path}/*.png"):
        with pytest.raises(NotFoundError, match="no such image|no image|no file"):
            list_images(what)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(NotFoundError, match="no image"):
        list_images(f"{tmp_path}/*")
    for i in range(7):
        (tmp_path / f"{i}.png").symlink_to("gone")
    with pytest.raises(NotFoundError, match=r"0.png, .*4.png and 2 more"):
        list_images(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InputError, match="closed"):
        list_images(tmp_path)
