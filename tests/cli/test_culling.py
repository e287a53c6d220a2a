"""Rows that are chosen and put in an order, and the sheet to look through."""

from __future__ import annotations

import csv
import json
import os
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from giqa.cli._culling import Found, Selection
from giqa.errors import NotFoundError
from giqa.results import ImageResult
from tests.cli.test_outputs import giqa

pytestmark = pytest.mark.usefixtures("small_default")

SCORES = {"a": 50.0, "b": 10.0, "c": 90.0, "d": 30.0, "bad": None}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["a", "b", "c", "d", "bad"]),
        ({"sort": "worst"}, ["b", "d", "a", "c", "bad"]),
        ({"sort": "best"}, ["c", "a", "d", "b", "bad"]),
        ({"sort": "path"}, ["a", "b", "bad", "c", "d"]),
        ({"worst": 2}, ["b", "d"]),
        ({"best": 2}, ["c", "a"]),
        ({"worst": 1, "best": 1}, ["b", "c"]),
        ({"worst": 9}, ["b", "d", "a", "c"]),
        ({"worst": 2, "sort": "best"}, ["d", "b"]),
        ({"below": 50.0}, ["b", "d"]),
        ({"above": 50.0}, ["a", "c"]),
        ({"above": 20.0, "below": 60.0, "sort": "worst"}, ["d", "a"]),
        ({"above": 20.0, "worst": 1}, ["d"]),
    ],
)
def test_which_rows_come_in_which_order(options: dict[str, Any], expected: list[str]) -> None:
    chosen = Selection(**options)
    found: list[str] = []
    for name, score in SCORES.items():
        error = NotFoundError("no") if score is None else None
        row = ImageResult(name, "b", "e", "fast", score=score, error=error)
        found += [one.result.path for one in chosen.add(Found(row))]
    assert found + [one.result.path for one in chosen.rest()] == expected


def test_rows_that_were_chosen_are_printed_and_written(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    ran = giqa("score", photos, "--worst", "2", "--best", "1", "--json", out, "--print0")
    listed = [os.fsdecode(name) for name in ran.stdout_bytes.split(b"\0")[:-1]]
    found = json.loads(out.read_text())
    assert [row["path"] for row in found] == listed
    assert [row["score"] for row in found] == sorted(row["score"] for row in found)
    assert len(found) == 3
    assert ran.exit_code == 3
    assert "1 could not be scored" in ran.stderr


def test_a_sheet_to_look_through(photos: Path, tmp_path: Path) -> None:
    sheet, maps = tmp_path / "sheet.csv", tmp_path / "maps"
    odd = photos / "=cmd,é.jpg"
    odd.write_bytes((photos / "p1.jpg").read_bytes())
    with chdir(photos):
        ran = giqa(
            "score", "=cmd,é.jpg", "p0.jpg", "no.jpg", "--label", sheet, "--bom", "--map", maps
        )
    odd.unlink()
    assert ran.exit_code == 3
    data = sheet.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    found = list(csv.DictReader(data.decode("utf-8-sig").splitlines()))
    assert [r["file"] for r in found] == ["./=cmd,é.jpg", "p0.jpg", "no.jpg"]
    assert [len(r["score"].partition(".")[2]) for r in found] == [2, 2, 0]
    assert {r["label"] for r in found} == {""}
    for row in found[:2]:
        for name in (row["map"], row["thumbnail"]):
            with Image.open(tmp_path / name) as picture:
                picture.load()
    assert [found[2][k] for k in ("error", "map", "thumbnail")] == ["not_found", "", ""]
