"""The whole study: pictures, features, arms, figures. Run again, it goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from tqdm import tqdm

from training import cache, features, files, recipe
from training.context import ContextOnly, Pooled, pooled
from training.data.samples import Sample
from training.distortions import ranked
from training.distortions.groups import LEVELS, groups
from training.fit import ONCE, SEEDS, splits
from training.model import PRESETS, Giqa, create
from training.recipe import Recipe
from training.rounding import round_weights
from training.sources import CachedSource
from training.trainee import Trainee, freeze
from training.transfer.study import outcome, pictures, source
from training.transfer.study.arms import Labelled, Part, predict, train
from training.transfer.study.config import Arm, Study
from training.transfer.study.outcome import Result, Scores, Truth
from training.transfer.study.pooling import Pooler, calibrate
from training.transfer.study.premise import premise

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Material:
    """What all arms share."""

    matched: pictures.Matched
    transferred: pictures.Rendered
    own: pictures.Rendered
    clean: list[Path]
    damaged: pictures.Rendered


@dataclass(frozen=True)
class _Data:
    """The same as features."""

    biq: Part
    variants: int
    validation: Pooled
    transferred: Pooled
    own: Pooled
    ranking: Pooled
    groups: Pooled | None


def run(study: Study) -> Result:
    """Run a study, or go on where an interrupted run stopped.

    Args:
        study: what to do.

    Returns:
        The premise and all figures; in the study's folder as `figures.json`, too.

    Raises:
        NotFoundError: pictures, tables or weights are missing.
        ValueError: a folder holds something else, or the recipe does not fit.
        GiqaError: see `run.transfer`, `pictures.render`.
    """
    what = recipe.read(study.recipe)
    if what.features is None or what.weights.global_branch is None:
        raise ValueError(f"{study.recipe} needs [features] and the ViT's weights")
    torch.set_num_threads(what.threads)
    backbone = PRESETS[what.preset].global_branch.backbone
    material = _material(study, backbone, what.weights.global_branch)
    model = create(what.preset)
    model.load_backbones(what.weights.global_branch, what.weights.local_branch)
    depth = freeze(model, what.freeze)
    round_weights(model)
    data, validation = _data(study, what, model, depth, material)
    truth = Truth(
        mos=[s.mos for s in validation],
        subsets=[s.subset for s in validation],
        own_mos=[one.mos for one in material.own.labels],
        own_references=[one.reference for one in material.own.labels],
        held_out=[material.matched.held_out[n] for n in study.rounds],
    )
    found: dict[str, list[Scores]] = {arm: [] for arm in study.arms}
    todo = [(seed, arm) for seed in range(study.seeds) for arm in study.arms]
    for seed, arm in tqdm(todo, "arms", disable=None, file=sys.stderr, leave=False):
        found[arm].append(_arm(study, what, arm, seed, data, material))
    matched = material.matched
    result = Result(
        premise=premise(
            matched.scores, [*matched.originals], matched.features, resamples=study.resamples
        ),
        figures=outcome.table(found, truth, resamples=study.resamples),
    )
    files.write(study.out / outcome.FIGURES, f"{result.model_dump_json(indent=1)}\n".encode())
    return result


def _material(study: Study, backbone: str, weights: Path) -> _Material:
    types = pictures.targets(study.types)
    table = ranked.table_path("TID2013")
    root = source.write_tree(study.out / "tid2013", study.kodak, table, types.size)
    matched = pictures.match(study, root, backbone, weights, types)
    clean = pictures.clean(study)

    def render(name: str, wanted: list[pictures.Label], photos: Path) -> pictures.Rendered:
        return pictures.render(study.out / name, wanted, photos, study.workers)

    return _Material(
        matched,
        render("transferred", matched.pictures, study.photos),
        render("own", pictures.own(matched, types), root / source.REFERENCES),
        clean,
        render("ranking", pictures.damaged(clean), study.out / pictures.CLEAN),
    )


def _data(
    study: Study, what: Recipe, model: Giqa, depth: int, material: _Material
) -> tuple[_Data, Sequence[Sample]]:
    assert what.features is not None
    folder, own = what.features.folder, study.out / "features"
    trainee = Trainee(model, depth)

    variants, amp = what.features.variants, what.optimisation.amp

    def of_biq(name: str, samples: Sequence[Sample], to: Path) -> Pooled:
        cached = features.build(
            folder / name, model, samples, depth=depth,
            variants=1 if name in ONCE else variants, seed=SEEDS[name], amp=amp,
        )  # fmt: skip
        return pooled(to, trainee, CachedSource([(samples, cached)]), what, _CPU)

    samples, validation = splits(what)
    found = of_biq("train", samples, folder / f"pooled-{what.preset}")
    # Its rows are drawn again and again: in memory.
    biq = Part([np.array(a) for a in found], Labelled([s.mos for s in samples], variants))
    pooler = Pooler(model, amp)
    return _Data(
        biq,
        variants,
        of_biq("validation", validation, own / "validation"),
        pooler(material.transferred.paths, own / "transferred"),
        pooler(material.own.paths, own / "own"),
        pooler([*material.clean, *material.damaged.paths], own / "ranking"),
        _groups(what, samples, of_biq),
    ), validation


def _groups(
    what: Recipe, samples: Sequence[Sample], of_biq: Callable[[str, Sequence[Sample], Path], Pooled]
) -> Pooled | None:
    """The recipe's groups of damaged training images; no arm sees them damaged."""
    if what.ranking is None or what.features is None:
        return None
    folder = what.features.folder
    damaged = groups(samples, folder / "ranking-pictures", what.ranking.images, what.threads)
    return of_biq("ranking", damaged, folder / f"pooled-{what.preset}-ranking")


def _arm(
    study: Study, what: Recipe, arm: Arm, seed: int, data: _Data, material: _Material
) -> Scores:
    """Train an arm, or read what an earlier call made of the same settings."""
    path = study.out / "scores" / f"{arm}-{seed}.json"
    options = what.optimisation.model_copy(update={"seed": seed})
    settings = {
        "study": study.model_dump_json(
            include={"first_steps", "second_steps", "joint_images", "joint_weight"}
        ),
        "options": options.model_dump_json(),
        "preset": what.preset,
        "pictures": cache.fingerprint(
            [Sample(p, 0) for p in (*material.transferred.paths, *material.own.paths)]
        ),
        "photographs": cache.fingerprint([Sample(p, 0) for p in material.clean]),
    }
    try:
        there = Scores.model_validate_json(path.read_bytes())
        if there.settings == settings:
            return there
    except (FileNotFoundError, ValidationError):
        pass
    torch.manual_seed(seed)
    part = ContextOnly(create(what.preset))
    calibrate(part, data.biq.features, data.variants)
    given = _labels(arm, seed, study, data, material)
    stages = train(part, arm, study, options, data.biq, given)
    first, own = (_rounded(predict(part, data.own)) for _ in stages)
    scores = Scores(
        arm=arm,
        seed=seed,
        settings=settings,
        validation=_rounded(predict(part, data.validation)),
        own=own,
        first=first,
        ranking=_by_level(predict(part, data.ranking), len(material.clean)),
        groups=[] if data.groups is None else _grouped(predict(part, data.groups)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, scores.model_dump_json(by_alias=True).encode())
    return scores


def _labels(arm: Arm, seed: int, study: Study, data: _Data, material: _Material) -> Part | None:
    if arm == "none":
        return None
    matched = material.matched
    found, number = material.transferred.labels, study.rounds[seed]
    references = matched.references[number]
    if arm == "mean":
        usable = [n for n in matched.originals if n not in matched.held_out[number]]
        mos = pictures.averaged(found, usable, matched.scores)
    else:
        if arm.startswith("placebo"):
            references = pictures.shuffled(references, seed)
        mos = pictures.relabelled(found, references, matched.scores)
    return Part(data.transferred, Labelled(mos))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in values]


def _by_level(scores: np.ndarray, photographs: int) -> list[list[list[float]]]:
    """Scores of clean pictures, then of all others, to photographs x types x levels."""
    clean, rest = scores[:photographs], scores[photographs:]
    damaged = rest.reshape(photographs, len(ranked.names()), len(LEVELS) - 1)
    first = np.broadcast_to(clean[:, None, None], (*damaged.shape[:2], 1))
    return [[_rounded(r) for r in rows] for rows in np.concatenate([first, damaged], -1)]


def _grouped(scores: np.ndarray) -> list[list[list[float]]]:
    """The same of groups of one type each."""
    return [[_rounded(row)] for row in scores.reshape(-1, len(LEVELS))]
