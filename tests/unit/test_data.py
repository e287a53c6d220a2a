"""BIQ2021's loader, on generated trees of its real layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from giqa.errors import TableInvalidError
from training.data import biq2021

TRAIN = """Image Name,MOS,,
ss03 (3753).jpg,0.8471,,
ss01 (1726).jpg,0.2874,,
ss02 (12).jpg,0,,
ss02 (7).JPG,1,,
"""
TEST = "Image Name,MOS\nss03 (7805).jpg,0.7321\nss01 (9).jpg,0.5\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "Images").mkdir()
    # As in the distribution: one file's extension differs in case from the table's.
    for name in ("ss03 (3753).jpg", "ss01 (1726).jpg", "ss02 (12).JPG", "ss02 (7).jpg",
                 "ss03 (7805).jpg", "ss01 (9).jpg", "unrelated.txt"):  # fmt: skip
        (tmp_path / "Images" / name).touch()
    (tmp_path / "Train (Images and MOS).csv").write_text(TRAIN)
    (tmp_path / "Test (Images and MOS).csv").write_text(TEST)
    return tmp_path


def test_biq2021_reads_both_splits_in_order(root: Path) -> None:
    train = biq2021.load(root, "train")
    assert [s.path.name for s in train] == [
        "ss03 (3753).jpg", "ss01 (1726).jpg", "ss02 (12).JPG", "ss02 (7).jpg"
    ]  # fmt: skip
    assert [s.mos for s in train] == pytest.approx([84.71, 28.74, 0, 100])
    assert [s.subset for s in train] == ["ss03", "ss01", "ss02", "ss02"]
    assert all(s.path.is_file() for s in train)
    test, _ = biq2021.load(root, "test")
    assert (test.path.name, test.subset) == ("ss03 (7805).jpg", "ss03")
    assert test.mos == pytest.approx(73.21)


@pytest.mark.parametrize("split", ["train", "test"])
def test_biq2021_names_a_missing_table(root: Path, split: str) -> None:
    table = root / f"{split.title()} (Images and MOS).csv"
    table.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{split.title()} \(Images and MOS\)\.csv is missing"
    ):
        biq2021.load(root, split)  # type: ignore[arg-type]


def test_biq2021_names_missing_images(root: Path) -> None:
    (root / "Images" / "ss01 (1726).jpg").unlink()
    with pytest.raises(
        TableInvalidError, match=r"Train .*csv: no such image file: row 2 'ss01 \(1726\).jpg'"
    ):
        biq2021.load(root, "train")
    (root / "Images").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match="Images is missing"):
        biq2021.load(root, "train")


@pytest.mark.parametrize("mos", ["1.01", "-0.2", "1e9"])
def test_biq2021_refuses_scores_outside_the_scale(root: Path, mos: str) -> None:
    table = root / "Test (Images and MOS).csv"
    table.write_text(TEST.replace("0.7321", mos))
    with pytest.raises(ValueError, match=rf"outside 0..1: row 1 '{mos}'"):
        biq2021.load(root, "test")


@pytest.mark.parametrize("mos", ["good", "", "nan", "inf", "-Infinity"])
def test_biq2021_refuses_what_is_no_number(root: Path, mos: str) -> None:
    (root / "Test (Images and MOS).csv").write_text(TEST.replace("0.7321", mos))
    with pytest.raises(ValueError, match=f"not a finite number: row 1 '{mos}'"):
        biq2021.load(root, "test")


@pytest.mark.parametrize("again", ["ss01 (9).jpg", "SS01 (9).JPG"])
def test_biq2021_refuses_two_rows_of_one_image(root: Path, again: str) -> None:
    (root / "Test (Images and MOS).csv").write_text(f"{TEST}{again},0.5,\n".replace(",\n", "\n"))
    with pytest.raises(ValueError, match=r"two rows of one image: rows 2 and 3 \('ss01 \(9\)"):
        biq2021.load(root, "test")


def test_biq2021_takes_the_exact_name_where_two_differ_by_case(root: Path) -> None:
    try:
        (root / "Images" / "SS03 (7805).jpg").touch(exist_ok=False)
    except FileExistsError:
        pytest.skip("the file system does not tell case")
    first, _ = biq2021.load(root, "test")
    assert first.path.name == "ss03 (7805).jpg"


@pytest.mark.parametrize("header", ["Image,MOS", "Image Name,Score", "Image Name;MOS", ""])
def test_biq2021_names_a_missing_column(root: Path, header: str) -> None:
    (root / "Test (Images and MOS).csv").write_text(TEST.replace("Image Name,MOS", header))
    with pytest.raises(ValueError, match="no column '(Image Name|MOS)'"):
        biq2021.load(root, "test")
