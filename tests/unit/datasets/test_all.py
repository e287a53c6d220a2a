"""What holds for every data set, and how it is split."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from giqa.errors import TableInvalidError, UsageError
from tests import iqa_trees
from tests.iqa_trees import Tree, grey
from tests.unit.datasets.made import each, refused
from training.data.datasets import NAMES, WITHOUT_PICTURES, info, load
from training.data.rounds import ROUNDS

SYNTHETIC = [name for name in NAMES if info(name).kind == "synthetic"]


def relabel(tree: Tree, score: object) -> None:
    """Write the tables again with another label of the first training picture."""
    i = next(i for i, label in enumerate(tree.labels) if i >= len(tree.labels) // 2)
    for made in ("src_imgs", "reference_images", "refimgs"):
        for path in (tree.root / made).glob("*"):
            path.unlink()
        if (tree.root / made).is_dir():
            (tree.root / made).rmdir()
    tree.labels[i] = replace(tree.labels[i], score=score)
    tree.write(draw=False)


def load_parts(tree: Tree) -> None:
    for split in info(tree.name).splits or ("all",):
        load(tree.name, tree.root, split)


@each(*NAMES)
def test_each_picture_gets_its_own_score_the_worse_the_lower(tree: Tree) -> None:
    samples = load(tree.name, tree.root, "all")
    assert len(samples) == len({s.path for s in samples}) == len(tree.labels)
    assert {s.path for s in samples} == {tree.root / label.path for label in tree.labels}
    for sample in samples:
        assert sample.mos == pytest.approx(grey(sample.path), abs=0.7)  # steps of grey
    assert max(s.mos for s in samples) - min(s.mos for s in samples) > 80


@each(*SYNTHETIC)
def test_content_type_and_level_of_synthetic_sets(tree: Tree) -> None:
    expected = {tree.root / label.path: label for label in tree.labels}
    types: dict[str, set[str]] = defaultdict(set)
    for sample in load(tree.name, tree.root, "all"):
        label = expected[sample.path]
        assert sample.reference == label.reference
        assert sample.level == (label.level or None)
        types[label.kind].add(sample.subset)
    assert all(len(names) == 1 for names in types.values())
    assert len(set.union(*types.values())) == len(types)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_known_before(name: str) -> None:
    about = info(name)
    worst, best = iqa_trees.ENDS[name]
    assert (about.name, about.low, about.high) == (name, min(worst, best), max(worst, best))
    assert about.higher_is_better == (best > worst)
    assert (about.scale.mos(worst), about.scale.mos(best)) == (0, 100)
    assert about.terms


@each(*NAMES)
def test_what_is_missing_is_named(tree: Tree) -> None:
    for needed in tree.needed:
        path = tree.root / needed
        aside = path.with_name("aside")
        path.rename(aside)
        with pytest.raises(FileNotFoundError) as caught:
            load_parts(tree)
        assert f"{info(tree.name).title}: {path}" in str(caught.value)
        aside.rename(path)
    load(tree.name, tree.root, "all")


@each(*WITHOUT_PICTURES)
def test_scores_without_pictures(tree: Tree) -> None:
    """The same as with them, but for the spelling of names that only folders know."""
    samples = load(tree.name, tree.root, "all")
    folder = tree.root / Path(tree.labels[0].path).parent
    folder.rename(tree.root / "aside")
    alone = load(tree.name, tree.root, "all", pictures=False)
    lower = [replace(s, path=folder / s.path.name.lower()) for s in alone]
    assert lower == [replace(s, path=folder / s.path.name.lower()) for s in samples]


@each(*NAMES)
def test_a_table_that_disagrees_with_the_pictures(tree: Tree) -> None:
    path = tree.root / tree.labels[-1].path
    renamed = path.with_stem(f"{path.stem}x")
    path.rename(renamed)
    said = refused(tree)
    assert "no such image file: row " in said
    assert path.name.lower() in said.lower()
    if tree.name != "biq2021":  # each of its tables is of a part
        assert f"pictures without a label: '{renamed.name}'" in said
        renamed.rename(path)
        (path.parent / f"extra{path.suffix}").touch()
        assert refused(tree) == f"pictures without a label: 'extra{path.suffix}'"


@each(*NAMES)
@pytest.mark.parametrize("score", [nan, 1e6])
def test_scores_that_cannot_be(tree: Tree, score: float) -> None:
    relabel(tree, score)
    about = info(tree.name)
    said = "not a finite number" if score != score else f"outside {about.low:g}..{about.high:g}"
    assert refused(tree).startswith(f"{said}: row ")


@each("live", "csiq", "tid2013")
def test_an_original_that_is_not_there(tree: Tree) -> None:
    folder = next(tree.root / n for n in ("refimgs", "src_imgs", "reference_images")
                  if (tree.root / n).is_dir())  # fmt: skip
    gone = sorted(folder.iterdir())[0]
    gone.unlink()
    assert refused(tree) == f"no original in {folder.name} of content '{gone.stem}'"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()  # nothing needs them
    assert load(tree.name, tree.root, "all")


@each(*NAMES)
def test_case_and_other_files_do_not_matter(tree: Tree) -> None:
    for label in tree.labels[1::3]:
        path = tree.root / label.path
        path.rename(path.with_name(path.name.swapcase()))
        (path.parent / "Thumbs.db").touch()
        (path.parent / "info.txt").touch()
    assert len(load(tree.name, tree.root, "all")) == len(tree.labels)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("live", "databaserelease2"), ("tid2013", "TID2013"), ("kadid10k", "kadid10k"),
     ("live-wild", "ChallengeDB_release"), ("spaq", "Dataset"), ("csiq", "CSIQ")],
)  # fmt: skip
def test_the_folder_of_an_archive_is_entered(tmp_path: Path, name: str, folder: str) -> None:
    (tmp_path / folder).mkdir()
    tree = iqa_trees.small(name, tmp_path / folder).write(draw=False)
    assert len(load(name, tmp_path, "all")) == len(tree.labels)


@each(*NAMES)
def test_splits_part_the_data_set(tree: Tree) -> None:
    everything = load(tree.name, tree.root, "all")
    splits = info(tree.name).splits or ("train", "test")
    rounds = (None,) if info(tree.name).splits else (None, *range(1, ROUNDS + 1))
    tests = set()
    for number in rounds:
        parts = [load(tree.name, tree.root, split, round=number) for split in splits]
        assert all(parts)
        assert Counter(s for part in parts for s in part) == Counter(everything)
        contents = [{s.reference or s.path.name for s in part} for part in parts]
        assert sum(map(len, contents)) == len(set.union(*contents))
        tests.add(frozenset(contents[-1]))
    assert len(tests) > len(rounds) // 3  # of five contents, one is for testing
    first = load(tree.name, tree.root, splits[-1])
    if len(rounds) > 1:
        assert first == load(tree.name, tree.root, splits[-1], round=1)


@each("koniq10k")
def test_koniq_goes_by_the_authors_sets(tree: Tree) -> None:
    sizes = [len(load("koniq10k", tree.root, split)) for split in info("koniq10k").splits]
    assert sizes == [10, 5, 5]
    sets = tree.root / "koniq10k_distributions_sets.csv"
    text = sets.read_text()
    for changed, said in (
        (text.replace("test", "tset", 1), "no set of the three, or two of them: row 4 '4.jpg'"),
        (text.replace("\n3.jpg", "\n33.jpg"), "without a score: '33.jpg'; without a set: '3.jpg'"),
        (f"{text}1.jpg,1,test\n", "no set of the three, or two of them: row 21 '1.jpg' 'test'"),
    ):
        sets.write_text(changed)
        with pytest.raises(TableInvalidError, match=said):
            load("koniq10k", tree.root, "test")
    assert len(load("koniq10k", tree.root, "all")) == 20  # needs no sets


@each("koniq10k")
def test_koniq_in_half_size_and_other_folders(tree: Tree) -> None:
    (tree.root / "1024x768").rename(tree.root / "koniq10k_512x384")
    (tree.root / "metadata").mkdir()
    for name in ("koniq10k_scores_and_distributions.csv", "koniq10k_distributions_sets.csv"):
        (tree.root / name).rename(tree.root / "metadata" / name)
    assert len(load("koniq10k", tree.root, "train")) == 10


def test_names_and_splits_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data set 'ava'; there are biq2021, csiq"):
        info("ava")
    with pytest.raises(UsageError, match="no split 'validation'; it has train, test"):
        load("live", tmp_path, "validation")
    with pytest.raises(UsageError, match="official split, no rounds"):
        load("koniq10k", tmp_path, "test", round=1)
    tree = iqa_trees.small("spaq", tmp_path).write(draw=False)
    for number in (0, ROUNDS + 1):
        with pytest.raises(ValueError, match=r"rounds are 1\.\.10"):
            load(tree.name, tree.root, "test", round=number)
