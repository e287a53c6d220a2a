"""Tables as people have them, and the splits they bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from giqa.errors import TableInvalidError, UsageError
from training import fit
from training.data.table import read_table
from training.fit import splits
from training.recipe import Recipe

CALLED = {"path": "Image name", "mos": "Mean score", "reference": "Scene", "split": "Part"}


def folder(tmp_path: Path, count: int = 12) -> Path:
    for i in range(count):
        (tmp_path / f"{i}.png").touch()
    return tmp_path


def write(tmp_path: Path, rows: list[str], header: str, name: str = "labels.csv") -> Path:
    table = tmp_path / name
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


def recipe(root: Path, **data: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "preset": "giqa-s", "output": "runs", "threads": 1,
            "data": {"dataset": "table", "root": root, **data},
            "optimisation": {
                "epochs": 1, "batch": 2, "lr": 1e-3, "weight_decay": 0, "warmup_steps": 0, "ema": 0,
            },
        }
    )  # fmt: skip


@pytest.mark.parametrize(("mark", "name"), [("\t", "a.tsv"), (";", "a.csv"), (",", "a.txt")])
def test_other_names_and_marks(tmp_path: Path, mark: str, name: str) -> None:
    folder(tmp_path)
    rows = [mark.join((f"{i}.png", str(i * 10), f"s{i // 2}", "train")) for i in range(6)]
    table = write(tmp_path, rows, mark.join(CALLED.values()), name)
    found = read_table(table, columns=CALLED)
    assert [s.mos for s in found] == [0, 10, 20, 30, 40, 50]
    assert [s.reference for s in found] == ["s0", "s0", "s1", "s1", "s2", "s2"]
    assert {s.split for s in found} == {"train"}
    with pytest.raises(TableInvalidError, match="no column 'path'"):
        read_table(table)
    with pytest.raises(TableInvalidError, match="no column 'Kind'"):
        read_table(table, columns={**CALLED, "subset": "Kind"})
    with pytest.raises(UsageError, match="no such column: score"):
        read_table(table, columns={"score": "Mean score"})


def test_a_content_on_both_sides_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    header = "path,mos,reference,split"
    rows = [f"{i}.png,{i},s{i // 2},{'Test' if i > 8 else 'train'}" for i in range(12)]
    with pytest.raises(TableInvalidError, match="two sides: 's4' in test and train"):
        read_table(write(tmp_path, rows, header))
    rows = [f"{i}.png,{i},s{i},{'fold 2' if i == 3 else 'train'}" for i in range(12)]
    with pytest.raises(TableInvalidError, match="test, train, validation: row 4 'fold 2'"):
        read_table(write(tmp_path, rows, header))
    rows = [f"{i}.png,{i},s{i},{'' if i == 3 else 'train'}" for i in range(12)]
    with pytest.raises(TableInvalidError, match="1 of 12 rows have no split"):
        read_table(write(tmp_path, rows, header))
    assert len(read_table(write(tmp_path, rows, header), columns={"split": ""})) == 12


def test_a_tables_own_split_is_the_recipes(tmp_path: Path) -> None:
    folder(tmp_path)
    sides = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    rows = [f"{i}.png,{i},{side}" for i, side in enumerate(sides)]
    table = write(tmp_path, rows, "path,mos,split")
    train, validation = splits(recipe(table))
    assert (len(train), len(validation), len(fit.tested(recipe(table)))) == (8, 2, 2)
    with pytest.raises(ValueError, match="has a validation split: drop validation_"):
        splits(recipe(table, validation_share=0.2))
    with pytest.raises(ValueError, match="has a column split: drop round"):
        splits(recipe(table, round=1))


def test_contents_never_part(tmp_path: Path) -> None:
    folder(tmp_path)
    rows = [f"{i}.png,{i},s{i // 2}" for i in range(12)]
    table = write(tmp_path, rows, "path,mos,reference")
    seen = set()
    for number in (1, 2, 3):
        what = recipe(table, round=number, validation_share=0.2)
        parts = [*splits(what), fit.tested(what)]
        contents = [{s.reference for s in part} for part in parts]
        assert all(contents)
        assert sum(map(len, contents)) == len(set.union(*contents)) == 6
        seen.add(frozenset(contents[2]))
    assert len(seen) > 1, "rounds differ"
    with pytest.raises(UsageError, match="no test split"):
        fit.tested(recipe(table, validation_share=0.2))
    with pytest.raises(ValueError, match="give validation_share"):
        splits(recipe(table))
