"""Layouts of single data sets, and files that are not what they should be."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
from scipy.io import loadmat, savemat

from giqa.errors import TableInvalidError
from tests import iqa_trees
from tests.iqa_trees import Tree, write_csv, write_xlsx
from tests.unit.datasets.made import each, refused
from training.data import matlab
from training.data.datasets import load
from training.data.layout import read_words
from training.data.samples import Sample
from training.data.workbook import read_labels


@each("live")
def test_live_leaves_out_copies_and_reads_older_scores(tree: Tree) -> None:
    found = loadmat(tree.root / "dmos_realigned.mat")
    orgs = found["orgs"]
    orgs[0, :3] = 1
    savemat(tree.root / "dmos.mat", {"dmos": found["dmos_new"] * 0 + 50, "orgs": orgs})
    assert len(load("live", tree.root, "all")) == 982
    (tree.root / "dmos_realigned.mat").unlink()
    samples = load("live", tree.root, "all")
    assert len(samples) == 979
    assert {round(s.mos, 3) for s in samples} == {54.167}
    orgs[0, 0] = 2
    savemat(tree.root / "dmos.mat", {"dmos": found["dmos_new"], "orgs": orgs})
    assert refused(tree).startswith("orgs are 0 or 1, not 2.0")
    savemat(tree.root / "dmos.mat", {"dmos": found["dmos_new"][:, 1:], "orgs": orgs})
    assert refused(tree) == (
        "not 982 entries each: dmos has 981, orgs has 982, refnames_all has 982"
    )


def rounded(samples: list[Sample]) -> list[Sample]:
    """Without folders, and as well as a workbook's 16 digits allow."""
    return [replace(s, path=Path(s.path.name), mos=round(s.mos, 9)) for s in samples]


@each("csiq")
def test_csiq_by_its_export_and_by_the_list_that_circulates(tree: Tree) -> None:
    by_workbook = load("csiq", tree.root, "all")
    (tree.root / "csiq.DMOS.xlsx").unlink()
    (tree.root / "dst_imgs_all").mkdir()
    for label in tree.labels:
        path = tree.root / label.path
        path.rename(tree.root / "dst_imgs_all" / path.name)
    for folder in (tree.root / "dst_imgs").iterdir():
        folder.rmdir()
    (tree.root / "dst_imgs").rmdir()
    lines = [f"{Path(label.path).name} {label.score}\n" for label in tree.labels]
    (tree.root / "csiq_label.txt").write_text("".join(lines))
    by_list = load("csiq", tree.root, "all")
    rows = [(label.reference, label.kind, label.level, label.score) for label in tree.labels]
    write_csv(tree.root / "csiq.DMOS.csv", ("image", "dst_type", "dst_lev", "dmos"), rows)
    by_export = load("csiq", tree.root, "all")
    assert by_export == by_list
    assert rounded(by_list) == rounded(by_workbook)
    write_csv(tree.root / "csiq.DMOS.csv", ("image", "dst_type", "dst_lev", "dmos"),
              [*rows[:-1], ("lake", "sharpen", 1, 0.5)])  # fmt: skip
    assert refused(tree) == "unknown type or level: row 120 'lake' 'sharpen' '1'"
    (tree.root / "csiq.DMOS.csv").unlink()
    (tree.root / "csiq_label.txt").write_text("lake.png 0.5\n")
    assert refused(tree) == "not IMAGE.TYPE.LEVEL.png: 'lake.png'"


@each("spaq")
def test_spaq_by_its_export(tree: Tree) -> None:
    by_workbook = load("spaq", tree.root, "all")
    table = tree.root / tree.needed[0]
    table.unlink()
    rows = [(Path(label.path).name, label.score) for label in tree.labels]
    write_csv(table.with_suffix(".csv"), ("Image name", "MOS"), [*rows, ("", "")])
    assert rounded(load("spaq", tree.root, "all")) == rounded(by_workbook)


@each("live-wild")
def test_live_wild_checks_its_lists(tree: Tree) -> None:
    # Some copies have the study's training images beside the others.
    (tree.root / "Images" / "t1.bmp").touch()
    assert len(load("live-wild", tree.root, "all")) == len(tree.labels)
    savemat(tree.root / "Data" / "AllMOS_release.mat", {"AllMOS_release": [[1.0, 2.0]]})
    assert refused(tree) == ("not 27 entries each: AllImages_release has 27, AllMOS_release has 2")


@each("kadid10k")
def test_kadid_checks_the_pairs(tree: Tree) -> None:
    table = tree.root / "dmos.csv"
    text = table.read_text()
    table.write_text(text.replace("I01_01_05.png,I01.png", "I01_01_05.png,I02.png"))
    assert refused(tree) == "not the original of the picture: row 2 'I01_01_05.png' 'I02.png'"
    table.write_text(text.replace("I01_01_05.png", "I01_26_05.png"))
    assert refused(tree) == "not CONTENT_TYPE_LEVEL with types 1..25: row 2 'I01_26_05.png'"


def test_mat_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"

    def told(read: Any, *names: str) -> str:
        with pytest.raises(TableInvalidError) as caught:
            read(path, *names)
        return str(caught.value.message)

    savemat(path, {"x": [[1.0, nan]], "names": iqa_trees.cells(["a", "b"], column=True)})
    assert matlab.names(path, "names") == ["a", "b"]
    assert matlab.numbers(path, "y", "x")[0] == 1
    assert told(matlab.numbers, "y") == "no variable y; it has ['names', 'x']"
    assert told(matlab.numbers, "names") == "names does not hold numbers"
    assert told(matlab.names, "x") == "x does not hold names"
    whole = path.read_bytes()
    for damaged in (b"", b"no mat file", whole[:150], whole[:-20], b"\0" * 400):
        path.write_bytes(damaged)
        assert told(matlab.numbers, "x").startswith(("not a .mat file", "no variable x"))
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    assert told(matlab.numbers, "x") == "MATLAB 7.3 is not read: save it as -v7"


def test_workbooks(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    write_xlsx(
        path,
        {
            "notes & more": [["file", "other"]],
            "first": [["File", "MOS"], ["x", 9]],
            "wanted": [[], [None, "made by"], ["MOS ", None, "file"], [1.5, "c", "a<b"], [],
                       [None, "no row"], [2], [True, None, "d"]],
        },
    )  # fmt: skip
    assert read_labels(path, ("file", "mos"), "Wanted") == [
        {"file": "a<b", "mos": 1.5},
        {"file": None, "mos": 2},
        {"file": "d", "mos": True},
    ]
    assert read_labels(path, ("file", "mos")) == [{"file": "x", "mos": 9}]
    with pytest.raises(TableInvalidError, match=r"\['file', 'dmos'\]; sheets are \['notes & mor"):
        read_labels(path, ("file", "dmos"))
    whole = path.read_bytes()
    for damaged in (b"", b"file,mos\n", whole[:-30], whole.replace(b"workbook", b"werkbook")):
        path.write_bytes(damaged)
        with pytest.raises(TableInvalidError, match="not an Excel workbook"):
            read_labels(path, ("file", "mos"))
    export = tmp_path / "a.csv"
    export.write_text("MOS,File\n1,a\n,\n2,\n")
    assert read_labels(export, ("file", "mos")) == [
        {"file": "a", "mos": "1"}, {"file": None, "mos": "2"}
    ]  # fmt: skip
    export.write_text("MOS\n1\n")
    with pytest.raises(TableInvalidError, match="no column 'file'"):
        read_labels(export, ("file", "mos"))


def test_lists_of_words(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\ufeff1 a\r\n\r\n2\tb\n")
    assert read_words(path, 2) == [["1", "a"], ["2", "b"]]
    path.write_text("1 a\n2 b c\n")
    with pytest.raises(TableInvalidError, match="not 2 words: row 2 '2 b c'"):
        read_words(path, 2)
    path.write_bytes(b"1 \xff")
    with pytest.raises(TableInvalidError, match="not UTF-8 at byte 2"):
        read_words(path, 2)
