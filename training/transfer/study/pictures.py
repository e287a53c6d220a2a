"""The study's pictures: photographs with transferred labels, the references, the ranking test."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from giqa.errors import NotFoundError, TableInvalidError, UsageError
from training import cache, files
from training.data.unlabelled import list_images
from training.distortions import by_name, ranked
from training.distortions.groups import LEVELS
from training.evaluation.ranking import SIDE
from training.transfer import labels, manifest, mapping, sources
from training.transfer.embed import Embedder
from training.transfer.labels import Label, Scores
from training.transfer.mapping import Mapping
from training.transfer.rendering import render_groups
from training.transfer.run import Options, transfer
from training.transfer.shards import Job, encode, read_part, remove_temporary
from training.transfer.study.config import Study

CLEAN = "clean"
_GROUP = 40
"""Labels that are rendered as one: small, as an interruption costs them."""

References = dict[str, str]
"""The reference that gives a photograph its labels, by the photograph's name."""


@dataclass(frozen=True)
class Rendered:
    """Pictures on disk.

    Attributes:
        labels: of those that could be made.
        paths: their files, in the same order.
    """

    labels: list[Label]
    paths: list[Path]


@dataclass(frozen=True)
class Matched:
    """Labels by round.

    Attributes:
        scores: all of TID2013's for the references.
        pictures: the labels of round 1; those of the others are the same but for the score.
        references: by round, each photograph's.
        held_out: by round, references whose scores no photograph got.
        originals: an image file a reference.
        features: content features of length 1, in the order of `originals`.
    """

    scores: Scores
    pictures: list[Label]
    references: dict[int, References]
    held_out: dict[int, list[str]]
    originals: dict[str, Path]
    features: npt.NDArray[np.float32]


def match(study: Study, root: Path, backbone: str, weights: Path, what: Mapping) -> Matched:
    """Transfer labels, once a round, and choose photographs.

    Args:
        study: the study.
        root: TID2013's folder, see `source`.
        backbone: timm model name, of what photographs are matched by.
        weights: its safetensors file.
        what: the types that are rendered.

    Returns:
        Labels of photographs that have some in every round, drawn by their SHA-256.

    Raises:
        NotFoundError: fewer photographs than are asked for.
        GiqaError: see `run.transfer`.
    """
    everything = sources.read(what, root, "all", None, None)
    embedder: Embedder | None = None
    found: dict[int, list[Label]] = {}
    held_out: dict[int, list[str]] = {}
    for number in study.rounds:
        out = study.out / f"labels-{number}"
        options = Options(
            study.photos, what, root, out, study.out / "cache",
            split="train", round=number, skip_leaks=True,
        )  # fmt: skip
        if not _transferred(out, what):
            embedder = embedder or Embedder(backbone, weights)
            transfer(options, embedder)
        found[number] = list(labels.all_of(out / "labels.parquet"))
        known = sources.read(what, root, "train", number, None)
        held_out[number] = [
            n for n, usable in zip(known.names, known.usable, strict=True) if not usable
        ]
    references = {n: {one.photo: one.reference for one in rows} for n, rows in found.items()}
    everywhere = set.intersection(*(set(r) for r in references.values()))
    digests = {one.photo: one.sha256 for one in found[1] if one.photo in everywhere}
    chosen = sorted(digests, key=lambda name: digests[name])[: study.photographs]
    if len(chosen) < study.photographs:
        raise NotFoundError(f"only {len(chosen)} photographs have labels", item=str(study.photos))
    kept = set(chosen)
    return Matched(
        everything.scores,
        [one for one in found[1] if one.photo in kept],
        {n: {name: r[name] for name in chosen} for n, r in references.items()},
        held_out,
        dict(zip(everything.names, everything.pictures, strict=True)),
        _features(study.out / "cache" / "references"),
    )


def _features(folder: Path) -> npt.NDArray[np.float32]:
    """Content features that `Embedder` left behind."""
    found = np.asarray(cache.read(folder)[0][0], np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _transferred(folder: Path, what: Mapping) -> bool:
    """Whether a folder holds labels of these types, whole."""
    try:
        types = manifest.read(folder).source.types
    except (NotFoundError, TableInvalidError):
        return False
    return types == list(dict.fromkeys(target.type for target in what.targets))


def shuffled(references: References, seed: int) -> References:
    """The placebo: the same references, as often, each given to a photograph at random."""
    names = [*references]
    order = np.random.default_rng(seed).permutation(len(names))
    return {name: references[names[i]] for name, i in zip(names, order, strict=True)}


def relabelled(found: Sequence[Label], references: References, scores: Scores) -> list[float]:
    """MOS in 0..100 of pictures whose photographs take the labels of these references."""
    return [scores[references[one.photo], one.source_type, one.level] for one in found]


def averaged(found: Sequence[Label], usable: Sequence[str], scores: Scores) -> list[float]:
    """MOS in 0..100 that every photograph shares: means over references, by type and level."""
    return [
        math.fsum(scores[name, one.source_type, one.level] for name in usable) / len(usable)
        for one in found
    ]


def own(matched: Matched, what: Mapping) -> list[Label]:
    """Labels of held-out references: their own scores."""
    names = sorted({name for held in matched.held_out.values() for name in held})
    return [
        label
        for name in names
        for label in labels.of_photo(
            what.targets, matched.scores, _common(matched.originals[name], what.dataset, name), 0
        )
    ]


def _common(path: Path, dataset: str, reference: str) -> dict[str, Any]:
    with Image.open(path) as image:
        width, height = image.size
    return {
        "photo": path.name,
        "sha256": _digest(path),
        "width": width,
        "height": height,
        "dataset": dataset,
        "reference": reference,
        "similarity": 1.0,
    }


def clean(study: Study) -> list[Path]:
    """The ranking test's photographs, brought down to its size, as PNG files of their own.

    Raises:
        NotFoundError: there are not so many.
    """
    folder = study.out / CLEAN
    folder.mkdir(parents=True, exist_ok=True)
    named = sorted((_digest(path), path) for path in list_images(study.clean))[: study.ranked]
    if len(named) < study.ranked:
        raise NotFoundError(f"only {len(named)} photographs", item=str(study.clean))
    made = []
    for digest, path in named:
        small = folder / f"{digest[:16]}.png"
        if not small.is_file():
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            files.write(small, encode(np.asarray(upright), "png"))
        made.append(small)
    return made


def damaged(photos: Sequence[Path]) -> list[Label]:
    """Labels of the ranking test: all ranked types at levels 1, 3 and 5; their score says nothing.

    Args:
        photos: what `clean` gave.
    """
    found = []
    for number, path in enumerate(photos):
        common = _common(path, "", "")
        for name, level in product(ranked.names(), LEVELS[1:]):
            kind = by_name(name)
            key = f"{path.stem}_{kind.number:02}_{level}"
            value = float(kind.levels[level - 1])
            found.append(
                Label(
                    **common, key=key, source_type=name, type=name, level=level,
                    value=value, psnr=None, seed=number, mos=0.0,
                )
            )  # fmt: skip
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def render(out: Path, wanted: list[Label], photos: Path, workers: int) -> Rendered:
    """Render labels, or go on where an interrupted run stopped.

    Args:
        out: folder of pictures and of their labels.
        wanted: the labels.
        photos: the folder of photographs.
        workers: processes.

    Returns:
        What could be made; a PSNR that cannot be reached costs one picture.

    Raises:
        UsageError: the folder holds pictures of other labels.
        GiqaError: see `shards.write_group`.
    """
    out.mkdir(parents=True, exist_ok=True)
    job = Job(out / "labels.parquet", photos, out)
    if not job.labels.is_file():
        labels.write(job.labels, wanted, _GROUP)
    there = list(labels.all_of(job.labels))
    if [(one.key, one.photo) for one in there] != [(one.key, one.photo) for one in wanted]:
        raise UsageError("holds pictures of another study", item=str(out), remedy="delete it")
    groups = range(len(labels.groups(job.labels)))
    left = [group for group in groups if not job.done(group)]
    if left:
        remove_temporary(out)
        for _ in render_groups(job, left, workers):
            pass
    made = {row["key"]: path for group in groups for row, path in _made(job, group)}
    kept = [one for one in wanted if one.key in made]
    return Rendered(kept, [made[one.key] for one in kept])


def _made(job: Job, group: int) -> Iterator[tuple[dict[str, object], Path]]:
    for row in read_part(job, group):
        if "error" not in row:
            yield row, job.shard(group) / str(row["file"])


def targets(types: Sequence[str]) -> Mapping:
    """TID2013's types that are rendered."""
    return mapping.of_dataset("tid2013").only(types)
