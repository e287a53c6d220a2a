"""From photographs and a labelled data set to labels: embed, refuse leaks, match, transfer."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from giqa import files
from giqa.errors import NotFoundError, UsageError
from training.data.checks import some
from training.data.unlabelled import list_images
from training.distortions.types import SMALLEST_SIDE
from training.transfer import labels, manifest, match, sources
from training.transfer.embed import Embedded, Embedder, why_unreadable
from training.transfer.mapping import Mapping, Size

LEFT_OUT = "left_out.csv"
"""Photographs without labels: photo, reason, detail."""


_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        photos: folder of photographs, with all folders in it.
        mapping: of the data set; what is rendered.
        root: the data set's folder.
        out: where labels go.
        cache: where features go; a folder in `out` unless given.
        references: see `sources.read`.
        split: see `sources.read`.
        round: see `sources.read`.
        floor: smallest similarity, -1..1; photographs below it get no label.
        size: of rendered pictures, turned for upright photographs; None leaves them as they are.
        seed: of the distortions, 0 or more.
        skip_leaks: leave photographs out that are a reference, instead of refusing them.
    """

    photos: Path
    mapping: Mapping
    root: Path
    out: Path
    cache: Path | None = None
    references: Path | None = None
    split: str = "all"
    round: int | None = None
    floor: float = 0.0
    size: Size | None = None
    seed: int = 0
    skip_leaks: bool = False


@dataclass
class _Photos:
    """The photographs, what was found of them, and why some are left out."""

    names: list[str]
    found: Embedded
    out: dict[int, tuple[str, str]] = field(default_factory=dict)

    def rest(self) -> list[int]:
        return [i for i in range(len(self.names)) if i not in self.out]

    def counts(self) -> Counter[str]:
        return Counter(reason for reason, _ in self.out.values())


def transfer(options: Options, embedder: Embedder) -> manifest.Manifest:
    """Write labels.parquet, left_out.csv and manifest.json.

    Args:
        options: what is asked for.
        embedder: makes the features.

    Returns:
        The manifest.

    Raises:
        UsageError: a photograph is a reference, no photograph is left, or an option makes no sense.
        NotFoundError: no photograph, or an original is missing.
        InputError: an original cannot be read.
        TableInvalidError: the data set's labels cannot be used.
        StorageFullError: no room; finished features stay.
    """
    _check(options)
    labelled = sources.read(
        options.mapping, options.root, options.split, options.round, options.references
    )
    paths = list_images(options.photos)
    cache = options.cache or options.out / "cache"
    references = embedder(labelled.pictures, cache / "references", what="references")
    for row in np.flatnonzero(~references.readable):
        raise why_unreadable(labelled.pictures[row])
    photos = _Photos(
        [path.relative_to(options.photos).as_posix() for path in paths],
        embedder(paths, cache / "photos", what="photos"),
    )
    _leave_out(photos, paths, options.size)
    _refuse_leaks(photos, references, labelled, skip=options.skip_leaks)
    chosen, quantiles = _match(photos, references, labelled, options.floor)
    if not chosen:
        raise UsageError(
            f"no photograph is left: {dict(photos.counts())}",
            item=str(options.photos),
            remedy="give other photographs, or a lower --floor",
        )
    options.out.mkdir(parents=True, exist_ok=True)
    # An interrupted run must not leave a manifest beside labels that it is not of.
    (options.out / manifest.MANIFEST).unlink(missing_ok=True)
    made = labels.write(options.out / manifest.LABELS, _labels(options, photos, labelled, chosen))
    _write_left_out(options.out / LEFT_OUT, photos)
    counts = photos.counts()
    found = manifest.Manifest(
        version=manifest.giqa_version(),
        photos=str(options.photos.resolve()),
        source=manifest.Source(
            dataset=options.mapping.dataset,
            split=options.split,
            round=options.round,
            references=sum(labelled.usable),
            types=list(dict.fromkeys(t.type for t in options.mapping.targets)),
        ),
        matching=manifest.Matching(
            backbone=embedder.backbone,
            pool=embedder.pool,
            weights=embedder.digest,
            floor=options.floor,
            similarity=quantiles,
        ),
        size=options.size,
        seed=options.seed,
        distortions=manifest.of_distortions(),
        counts=manifest.Counts(
            photos=len(paths),
            labelled=len(chosen),
            below_floor=counts["below_floor"],
            leaks=counts["leak"],
            duplicates=counts["duplicate"],
            too_small=counts["too_small"],
            unreadable=counts["unreadable"],
            labels=made,
        ),
        labels=manifest.digest_of(options.out / manifest.LABELS),
    )
    manifest.write(options.out, found)
    return found


def _check(options: Options) -> None:
    if not -1 <= options.floor <= 1:
        raise UsageError(f"{options.floor} is no cosine", item="--floor", remedy="give -1..1")
    if options.seed < 0:
        raise UsageError(f"{options.seed}", item="--seed", remedy="give 0 or more")
    if options.size is not None and min(options.size) < SMALLEST_SIDE:
        raise UsageError(
            f"{options.size}", item="--size", remedy=f"both sides must have {SMALLEST_SIDE}"
        )
    if not options.photos.is_dir():
        raise NotFoundError("no such folder", item=str(options.photos))


def rendered_size(own: Size, size: Size | None) -> Size | None:
    """The size at which a photograph is rendered.

    Args:
        own: its upright width and height.
        size: what is asked for; None: as it is.

    Returns:
        Width and height, turned if the photograph is upright; None if it is too small, as
        magnified photographs are not pristine.
    """
    if size is None:
        return own if min(own) >= SMALLEST_SIDE else None
    wide, high = max(size), min(size)
    turned = (high, wide) if own[1] > own[0] else (wide, high)
    return turned if own[0] >= turned[0] and own[1] >= turned[1] else None


def _leave_out(photos: _Photos, paths: Sequence[Path], size: Size | None) -> None:
    first: dict[str, int] = {}
    for i, path in enumerate(paths):
        width, height = map(int, photos.found.sizes[i])
        if not photos.found.readable[i]:
            photos.out[i] = "unreadable", str(why_unreadable(path))
        elif (other := first.setdefault(photos.found.sha256[i], i)) != i:
            photos.out[i] = "duplicate", photos.names[other]
        elif rendered_size((width, height), size) is None:
            photos.out[i] = "too_small", f"{width} x {height}"


def _refuse_leaks(
    photos: _Photos, references: Embedded, labelled: sources.Labelled, *, skip: bool
) -> None:
    """A label for a reference, held out or not, would let a model see what it is tested on."""
    rest = photos.rest()
    told = []
    for leak in match.leaks(_rows(photos.found, rest), references):
        how = "the same bytes" if leak.same_bytes else f"similarity {leak.similarity:.4f}"
        name = photos.names[rest[leak.photo]]
        reference = labelled.pictures[leak.reference]
        photos.out[rest[leak.photo]] = "leak", f"{reference.name}: {how}"
        told.append(f"{name!r} is {reference.name!r} ({how})")
    if told and not skip:
        raise UsageError(
            some("photographs that are references:", told),
            remedy="take them away, or leave them out with --skip-leaks",
        )


def _match(
    photos: _Photos, references: Embedded, labelled: sources.Labelled, floor: float
) -> tuple[list[tuple[int, int, float]], dict[str, float]]:
    """(photograph, reference, similarity) of those above the floor, and quantiles of all."""
    rest, usable = photos.rest(), np.flatnonzero(labelled.usable)
    if not rest:
        return [], {}
    found = match.nearest(photos.found.features[rest], references.features[usable])
    chosen = []
    for photo, best, similarity in zip(
        rest, found.reference.tolist(), found.similarity.tolist(), strict=True
    ):
        reference = int(usable[best])
        if similarity < floor:
            name = labelled.names[reference]
            photos.out[photo] = "below_floor", f"{name}: similarity {similarity:.4f}"
        else:
            chosen.append((photo, reference, similarity))
    values = np.percentile(found.similarity, _QUANTILES)
    quantiles = {f"p{q}": round(float(v), 4) for q, v in zip(_QUANTILES, values, strict=True)}
    return chosen, quantiles


def _labels(
    options: Options,
    photos: _Photos,
    labelled: sources.Labelled,
    chosen: Sequence[tuple[int, int, float]],
) -> Iterator[labels.Label]:
    for photo, reference, similarity in chosen:
        width, height = map(int, photos.found.sizes[photo])
        size = rendered_size((width, height), options.size)
        assert size is not None
        common: dict[str, Any] = {
            "photo": photos.names[photo],
            "sha256": photos.found.sha256[photo],
            "width": size[0],
            "height": size[1],
            "dataset": options.mapping.dataset,
            "reference": labelled.names[reference],
            "similarity": similarity,
        }
        yield from labels.of_photo(options.mapping.targets, labelled.scores, common, options.seed)


def _rows(found: Embedded, rows: Sequence[int]) -> Embedded:
    return Embedded(
        found.features[rows],
        found.thumbnails[rows],
        [found.sha256[i] for i in rows],
        found.sizes[rows],
    )


def _write_left_out(path: Path, photos: _Photos) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("photo", "reason", "detail"))
    for photo, (reason, detail) in sorted(photos.out.items()):
        writer.writerow((photos.names[photo], reason, detail))
    files.write(path, text.getvalue().encode("utf-8", "surrogateescape"))
