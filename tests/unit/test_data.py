"""Loaders and splits, on generated trees of the data sets' real layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data import biq2021
from training.data.table import Sample, hold_out

TRAIN = """Image Name,MOS,,
ss03 (3753).jpg,0.8471,,
ss01 (1726).jpg,0.2874,,
ss02 (12).jpg,0,,
ss02 (7).JPG,1,,
"""
TEST = "Image Name,MOS\nss03 (7805).jpg,0.7321\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "Images").mkdir()
    # As in the distribution: one file's extension differs in case from the table's.
    for name in ("ss03 (3753).jpg", "ss01 (1726).jpg", "ss02 (12).JPG", "ss02 (7).jpg",
                 "ss03 (7805).jpg", "unrelated.txt"):  # fmt: skip
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
    (test,) = biq2021.load(root, "test")
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


def test_biq2021_names_a_missing_image(root: Path) -> None:
    (root / "Images" / "ss01 (1726).jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"Images/ss01 \(1726\).jpg is missing"):
        biq2021.load(root, "train")


@pytest.mark.parametrize("mos", ["1.01", "-0.2", "nan", "inf"])
def test_biq2021_refuses_scores_outside_the_scale(root: Path, mos: str) -> None:
    table = root / "Test (Images and MOS).csv"
    table.write_text(TEST.replace("0.7321", mos))
    with pytest.raises(ValueError, match=rf"ss03 \(7805\).jpg has MOS '{mos}', outside 0..1"):
        biq2021.load(root, "test")


@pytest.mark.parametrize("mos", ["good", ""])
def test_biq2021_refuses_what_is_no_number(root: Path, mos: str) -> None:
    (root / "Test (Images and MOS).csv").write_text(TEST.replace("0.7321", mos))
    with pytest.raises(ValueError, match="outside 0..1"):
        biq2021.load(root, "test")


def samples(n: int) -> list[Sample]:
    return [Sample(Path("images") / f"{i:03}.png", float(i)) for i in range(n)]


def test_hold_out_parts_the_samples_in_order() -> None:
    everything = samples(100)
    named = {"007.png", "090.png"}
    train, held = hold_out(everything, named, 10, seed=1)
    assert (len(train), len(held)) == (88, 12)
    assert named <= {s.path.name for s in held}
    assert sorted(train + held, key=everything.index) == everything
    for part in (train, held):
        assert part == sorted(part, key=everything.index)


def test_hold_out_is_decided_by_its_seed() -> None:
    everything = samples(100)
    first = hold_out(everything, [], 10, seed=1)
    assert first == hold_out(everything, [], 10, seed=1)
    assert first != hold_out(everything, [], 10, seed=2)


def test_hold_out_of_nothing_and_of_everything() -> None:
    everything = samples(5)
    assert hold_out(everything, [], 0, seed=0) == (everything, [])
    assert hold_out(everything, ["001.png"], 4, seed=0) == ([], everything)
    with pytest.raises(ValueError, match=r"[Ss]ample larger"):
        hold_out(everything, ["001.png"], 5, seed=0)


def test_hold_out_names_what_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"not there: \['gone.png'\]"):
        hold_out(samples(3), ["001.png", "gone.png"], 0, seed=0)
