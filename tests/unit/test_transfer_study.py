"""The study of what quality transfer is worth: a whole one of seconds, its arms and its figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from scipy.stats import spearmanr

from giqa.errors import UsageError
from tests import small
from tests.photos import photo
from training import recipe as recipes
from training.__main__ import main
from training.data.samples import Sample
from training.distortions import distort
from training.model import backbones
from training.transfer import labels, manifest, mapping, study
from training.transfer.embed import Embedder
from training.transfer.rendering import render_all
from training.transfer.run import Options, transfer

pytestmark = pytest.mark.usefixtures("small_presets")

TYPES = {"gaussian_blur": 1, "jpeg": 10}
CONTENTS = 10
SIZE = (96, 72)


def write_kadid(root: Path) -> Path:
    """Ten originals, two types; opinions fall with the level, and differ between originals."""
    (root / "images").mkdir(parents=True)
    rows = ["dist_img,ref_img,dmos,var"]
    for i in range(1, CONTENTS + 1):
        original = photo(*SIZE, 100 + i)
        Image.fromarray(original).save(root / "images" / f"I{i:02}.png")
        for name, number in TYPES.items():
            for level in range(1, 6):
                coded = f"I{i:02}_{number:02}_{level:02}.png"
                made = distort(original, name, level, i)
                Image.fromarray(made).save(root / "images" / coded)
                rows.append(f"{coded},I{i:02}.png,{5 - 0.7 * level - i / 50:.4f},0.1")
    (root / "dmos.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a study takes: `recipe.toml`, `labels`, `pictures`."""
    root = tmp_path_factory.mktemp("study")
    kadid = write_kadid(root / "kadid10k")
    (root / "photos").mkdir()
    for i in range(4):
        Image.fromarray(photo(*SIZE, 500 + i)).save(root / "photos" / f"{i}.png")
    (root / "weights").mkdir()
    small.make_root(root / "weights", 1)
    torch.manual_seed(0)
    save_file(backbones.create("test_vit").state_dict(), root / "vit.safetensors")
    what = mapping.of_dataset("kadid10k").only(list(TYPES))
    options = Options(
        root / "photos", what, kadid, root / "labels", split="train", round=1, size=SIZE
    )
    transfer(options, Embedder("test_vit", root / "vit.safetensors"))
    render_all(root / "labels", root / "pictures")
    recipe = small.recipe(
        root / "weights", root / "run",
        data={"dataset": "kadid10k", "root": kadid, "round": 1, "validation_share": 0.2},
    )  # fmt: skip
    small.to_toml(recipe, root / "recipe.toml")
    return root


def run(root: Path) -> str:
    arguments = [
        "study", str(root / "recipe.toml"), "--labels", str(root / "labels"),
        "--pictures", str(root / "pictures"), "--out", str(root / "out"),
        "--seeds", "2", "--steps", "12", "8", "--resamples", "50",
    ]  # fmt: skip
    return CliRunner().invoke(main, arguments, catch_exceptions=False).stdout


def test_a_study_gives_a_table_and_goes_on(root: Path) -> None:
    table = run(root)
    lines = table.splitlines()
    assert lines[0].startswith("SROCC on 20 pictures of 2 held-out references; 95 %")
    others = [arm for arm in study.ARMS if arm != "transferred"]
    names = [line.split("|")[1].strip() for line in lines[4:]]
    assert names == [*study.ARMS, *(f"transferred - {arm}" for arm in others)]
    gone = root / "out" / "scores" / "shuffled-1.json"
    kept = {p: p.read_bytes() for p in gone.parent.iterdir()}
    gone.unlink()
    changed = {p: p.stat().st_mtime_ns for p in gone.parent.iterdir()}
    assert run(root) == table
    assert {p: p.read_bytes() for p in gone.parent.iterdir()} == kept
    assert all(p.stat().st_mtime_ns == when for p, when in changed.items()), "trained anew"


def test_labels_that_have_seen_the_test_references_are_refused(root: Path) -> None:
    what = recipes.read(root / "recipe.toml")
    options = study.Options(what, root / "labels", root / "pictures", root / "out")
    second = what.data.model_copy(update={"round": 2})
    other = dataclasses.replace(options, recipe=what.model_copy(update={"data": second}))
    with pytest.raises(UsageError, match=r"'train', 1\), the recipe asks for .*'train', 2\)"):
        study.run(other)
    tested = {s.reference for s in study.tested(what)}
    found = labels.all_of(root / "labels" / manifest.LABELS)
    assert tested.isdisjoint(one.reference for one in found)


def test_arms_differ_in_whose_labels_they_take(root: Path) -> None:
    found = list(labels.all_of(root / "labels" / manifest.LABELS))
    # Each photograph another reference, so that the shuffle shows.
    photos = sorted({one.photo for one in found})
    own = {name: f"i{i + 1:02}" for i, name in enumerate(photos)}
    table = {
        (reference, kind, level): 10 * i + level
        for i, reference in enumerate(own.values())
        for kind in ("gaussian blur", "jpeg")
        for level in range(1, 6)
    }
    found = [
        dataclasses.replace(
            one, reference=own[one.photo],
            mos=float(table[own[one.photo], one.source_type, one.level]),
        )
        for one in found
    ]  # fmt: skip
    transferred = study.arm_labels("transferred", found, table, 0)
    assert transferred == [one.mos for one in found]
    mean = study.arm_labels("mean", found, table, 0)
    assert mean == [15 + one.level for one in found]
    shuffled = study.arm_labels("shuffled", found, table, 0)
    assert shuffled != transferred
    assert sorted(shuffled) == sorted(transferred), "the same labels, given to others"
    whole = {one.photo: mos - one.level for one, mos in zip(found, shuffled, strict=True)}
    assert len(whole) == 4
    for one, mos in zip(found, shuffled, strict=True):
        assert mos - one.level == whole[one.photo], "one reference a photograph"


def test_figures_are_means_over_seeds_with_paired_intervals() -> None:
    rng = np.random.default_rng(0)
    test = [Sample(Path(f"{i}"), float(rng.uniform(0, 100)), reference=f"{i // 10}")
            for i in range(60)]  # fmt: skip
    mos = np.array([s.mos for s in test])
    found = {
        arm: [[(mos + rng.normal(0, 5 + 10 * i, 60)).tolist()] * 2 for _ in range(3)]
        for i, arm in enumerate(study.ARMS)
    }
    lines = study.markdown(found, test, 400).splitlines()
    expected = np.mean([spearmanr(scores[0], mos)[0] for scores in found["none"]])
    assert lines[4].startswith(f"| none | {expected:.3f} (")
    values = np.array([[scores[0] for scores in found[arm]] for arm in study.ARMS])
    references = [s.reference for s in test]
    drawn = study.interval(values, mos, references, 400)
    apart = drawn[:, 1] - drawn[:, 0]
    loose = drawn[:, 1] - np.roll(drawn[:, 0], 1)
    assert apart.std() < loose.std(), "both arms are drawn alike"
    same = study.interval(values[[0, 0]], mos, references, 20)
    assert (same[:, 0] == same[:, 1]).all()
