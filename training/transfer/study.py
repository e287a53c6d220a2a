"""What quality transfer is worth: a network learns with it, without it, on two placebos.

An arm takes a minute: an MLP (`training.baseline`) learns on pooled features (`training.pooled`)
of pictures with transferred labels, then on the recipe's training images, and is measured on those
of the data set's references that were held out of both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from giqa import files
from giqa.errors import TableInvalidError, UsageError
from training import baseline, metrics, pooled
from training.data import datasets
from training.data.samples import Sample
from training.data.table import read_table
from training.fit import SEEDS, splits
from training.model import create
from training.recipe import Recipe
from training.rounding import round_weights
from training.transfer import labels, manifest, rendering
from training.transfer.labels import Label, Scores

ARMS = ("none", "transferred", "shuffled", "mean")
"""`none`: the recipe's images in both stages; `shuffled`: each photograph takes the labels of
another one's reference; `mean`: means over references by type and level."""
STAGES = ("stage 1", "both")

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """One study.

    Attributes:
        recipe: of the data set, one with references and rounds, and backbones.
        labels: what `transfer --split train` of the same round wrote.
        pictures: what `render` made of them.
        out: folder of everything that is made.
        seeds: how many.
        steps: of 64 images, of each stage.
    """

    recipe: Recipe
    labels: Path
    pictures: Path
    out: Path
    seeds: int = 3
    steps: tuple[int, int] = (500, 500)


def arm_labels(arm: str, found: Sequence[Label], table: Scores, seed: int) -> list[float]:
    """MOS on 0..100 that an arm gives to pictures.

    Args:
        arm: `transferred`, `shuffled` or `mean`.
        found: the pictures' labels.
        table: scores of the references that may give labels.
        seed: of the shuffle.
    """
    if arm == "transferred":
        return [one.mos for one in found]
    if arm == "mean":
        by_level: dict[tuple[str, int], list[float]] = {}
        for (_, kind, level), mos in table.items():
            by_level.setdefault((kind, level), []).append(mos)
        return [float(np.mean(by_level[one.source_type, one.level])) for one in found]
    owners = {one.photo: one.reference for one in found}
    order = np.random.default_rng(seed).permutation(len(owners))
    given = [*owners.values()]
    other = {photo: given[i] for photo, i in zip(owners, order, strict=True)}
    return [table[other[one.photo], one.source_type, one.level] for one in found]


def run(options: Options) -> dict[str, list[list[list[float]]]]:
    """Train all arms, or go on where an interrupted run stopped.

    Returns:
        By arm, a seed, a stage (`STAGES`), the scores of the test pictures on 0..100.

    Raises:
        UsageError: recipe and labels are not of one round.
        TableInvalidError: a picture has no label.
        GiqaError: see `pooled.pooled`.
    """
    what = options.recipe
    torch.set_num_threads(what.threads)
    _check(options)
    model = create(what.preset)
    model.load_backbones(what.weights.global_branch, what.weights.local_branch)
    round_weights(model)
    train, _ = splits(what)
    table = labels.scores(_split(what, "train"))  # with what is validation's, as `transfer`
    rendered, given = _pictures(options)
    variants = 1 if what.features is None else what.features.variants

    def features(name: str, samples: Sequence[Sample], variants: int = 1) -> Array:
        found = pooled.pooled(
            options.out / name, model, samples,
            variants=variants, seed=SEEDS["train"], amp=what.optimisation.amp,
        )  # fmt: skip
        # Rows are drawn again and again: in memory.
        return np.concatenate([np.asarray(a, np.float32).reshape(len(a), -1) for a in found], 1)

    own, pictures, test = baseline.standardised(
        features("train", train, variants),
        features("pictures", rendered),
        features("test", tested(what)),
    )
    targets = pooled.Labelled([s.mos for s in train], variants)
    found: dict[str, list[list[list[float]]]] = {arm: [] for arm in ARMS}
    todo = [(seed, arm) for seed in range(options.seeds) for arm in ARMS]
    for seed, arm in todo:
        first, at = targets, own
        if arm != "none":
            first, at = pooled.Labelled(arm_labels(arm, given, table, seed)), pictures
        path = options.out / "scores" / f"{arm}-{seed}.json"
        about = _digest(options, arm, seed, [first, targets], [train, rendered])
        known = json.loads(path.read_text()) if path.is_file() else {}
        if known.get("about") != about:
            scores = _arm(options, seed, [(at, first), (own, targets)], test)
            known = {"about": about, "scores": scores}
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, json.dumps(known).encode())
        found[arm].append(known["scores"])
    return found


def _check(options: Options) -> None:
    """Labels of references that the study tests on would make its outcome worthless."""
    source, data = manifest.read(options.labels).source, options.recipe.data
    mine = (data.dataset, "train", data.round or 1)
    theirs = (source.dataset, source.split, source.round or 1)
    if mine != theirs:
        raise UsageError(
            f"labels are of {theirs}, the recipe asks for {mine}",
            item=str(options.labels),
            remedy="run transfer with --split train and the recipe's round",
        )


def tested(what: Recipe) -> list[Sample]:
    """The pictures of the references that the recipe's round holds out."""
    return _split(what, "test")


def _split(what: Recipe, split: str) -> list[Sample]:
    return datasets.load(what.data.dataset, what.data.root, split, round=what.data.round)


def _pictures(options: Options) -> tuple[list[Sample], list[Label]]:
    """Rendered pictures with their labels."""
    table = options.pictures / rendering.TABLE
    samples = read_table(table)
    known = {one.key: one for one in labels.all_of(options.labels / manifest.LABELS)}
    if missing := [s.path.name for s in samples if s.path.stem not in known]:
        raise TableInvalidError(
            f"{len(missing)} pictures have no label, such as {missing[0]}", item=str(table)
        )
    return samples, [known[s.path.stem] for s in samples]


def _digest(
    options: Options,
    arm: str,
    seed: int,
    targets: Sequence[pooled.Labelled],
    images: Sequence[Sequence[Sample]],
) -> str:
    """What decides an arm's scores."""
    what = options.recipe.model_dump(mode="json", include={"preset", "optimisation", "data"})
    told = [what, arm, seed, options.steps, [[s.path.name for s in part] for part in images]]
    digest = hashlib.sha256(json.dumps(told).encode())
    for target in targets:
        digest.update(target.all_mos.tobytes())
    return digest.hexdigest()


def _arm(
    options: Options,
    seed: int,
    stages: Sequence[tuple[Array, pooled.Labelled]],
    test: Array,
) -> list[list[float]]:
    """Train the network through the stages; scores of the test pictures after each."""
    torch.manual_seed(seed)
    net = baseline.Mlp(test.shape[1])
    learnt = baseline.MLP.model_copy(update={"seed": seed})
    found = []
    for (features, targets), steps in zip(stages, options.steps, strict=True):
        pooled.learn(net, [features], targets, learnt, steps)
        found.append([round(float(x), 4) for x in pooled.predict(net, [test])])
    return found


def interval(values: Floats, mos: Floats, references: Sequence[str], resamples: int) -> Floats:
    """Draw references and seeds again, and take SROCC, the mean over seeds.

    Args:
        values: (arms, seeds, n) scores of the test pictures.
        mos: (n,) their opinion scores.
        references: (n,) their references, which are drawn whole.
        resamples: how many.

    Returns:
        (resamples, arms), the same draws for all arms, so that differences are paired.
    """
    rng = np.random.default_rng(0)
    names = np.array(references)
    rows = [np.flatnonzero(names == name) for name in sorted(set(references))]
    seeds = values.shape[1]
    found = np.empty((resamples, len(values)))
    for i in range(resamples):
        drawn = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        again = rng.integers(seeds, size=seeds)
        for arm, own in enumerate(values):
            found[i, arm] = np.mean([metrics.srocc(own[s, drawn], mos[drawn]) for s in again])
    return found


def markdown(
    found: Mapping[str, list[list[list[float]]]], test: Sequence[Sample], resamples: int
) -> str:
    """SROCC of every arm, and by how much `transferred` is above the others, with intervals."""
    mos, references = np.array([s.mos for s in test]), [s.reference for s in test]
    rows: dict[str, list[str]] = {arm: [] for arm in ARMS}
    rows |= {f"transferred - {arm}": [] for arm in ARMS if arm != "transferred"}
    for stage in range(len(STAGES)):
        values = np.array([[scores[stage] for scores in found[arm]] for arm in ARMS])
        drawn = dict(zip(ARMS, interval(values, mos, references, resamples).T, strict=True))
        means = {
            arm: float(np.mean([metrics.srocc(v, mos) for v in own]))
            for arm, own in zip(ARMS, values, strict=True)
        }
        for arm in ARMS:
            rows[arm].append(_cell(means[arm], drawn[arm], ".3f"))
            if arm != "transferred":
                apart = drawn["transferred"] - drawn[arm]
                gain = means["transferred"] - means[arm]
                rows[f"transferred - {arm}"].append(_cell(gain, apart, "+.3f"))
    head = (
        f"SROCC on {len(test)} pictures of {len(set(references))} held-out references; 95 %, "
        f"bootstrap over references and seeds ({resamples} resamples).\n\n"
        f"| arm | {' | '.join(STAGES)} |\n|---{'|---' * len(STAGES)}|\n"
    )
    return head + "".join(f"| {name} | {' | '.join(cells)} |\n" for name, cells in rows.items())


def _cell(mean: float, drawn: Floats, form: str) -> str:
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return f"{mean:{form}} ({low:{form}} .. {high:{form}})"
