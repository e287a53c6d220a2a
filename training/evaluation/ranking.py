"""The ranking test: do photographs score lower the more they are damaged? No labels needed."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice, product
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from giqa.results import ImageResult
from giqa.scorer import Scorer
from training.distortions import ranked
from training.distortions.groups import LEVELS, damaged
from training.evaluation.measure import Watch
from training.evaluation.results import Interval

SCHEMA = "giqa.ranking/1"
SIDE = 512
"""Photographs are brought down to it first: levels mean what they do in KADID-10k near its size."""

_CLEAN, _FIRST, _MIDDLE, _LAST = range(len(LEVELS))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Share(_Strict):
    """What share of some cases came out right."""

    n: int = Field(ge=0)
    right: float | None = Field(ge=0, le=1, description="None: there are no cases")
    interval: Interval | None = Field(description="95 % bootstrap over photographs")


class TypeRow(_Strict):
    """A type of damage, or all of them."""

    triples: Share = Field(description="score(level 1) > score(level 3) > score(level 5)")
    clean: Share = Field(description="score(as it is) > score(level 3)")
    means: tuple[float | None, ...] = Field(description="scores as it is, at levels 1, 3, 5")


class Ranking(_Strict):
    """The test's outcome."""

    schema_: Literal[SCHEMA] = Field(default=SCHEMA, alias="schema")  # type: ignore[valid-type]
    bundle: str
    engine: str
    photographs: int = Field(gt=0)
    side: int = Field(gt=0, description="longest side of the photographs in pixels")
    failed: int = Field(ge=0, description="pictures that gave no score")
    resamples: int = Field(gt=0)
    seed: int
    all: TypeRow
    types: dict[str, TypeRow]

    def to_json(self) -> str:
        """The outcome as it is written to a file."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"


def rank(
    scorer: Scorer,
    photographs: Sequence[Path],
    *,
    side: int = SIDE,
    types: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    processes: int = 2,
    watch: Watch | None = None,
) -> Ranking:
    """Damage photographs, score them and count what is in order.

    Args:
        scorer: any scorer.
        photographs: clean image files that Pillow reads.
        side: larger ones are brought down to this longest side in pixels first.
        types: types of damage; those that people rank by level (ranking.toml) unless given.
        resamples: bootstrap resamples behind each interval.
        seed: of the bootstrap. Damage is seeded by the photograph's place in the list.
        processes: that damage.
        watch: called with every result.

    Returns:
        Shares over all types and for each.

    Raises:
        GiqaError: the scorer failed as a whole.
        OSError: a photograph cannot be read.
        ValueError: there is none.
    """
    if not photographs:
        raise ValueError("no photograph to rank with")
    names = tuple(types or ranked.names())
    scores = np.empty((len(photographs), len(names), len(LEVELS)), np.float64)
    with ExitStack() as stack:
        # Spawned: a fork of a process whose threads compute may hang.
        pool = stack.enter_context(
            ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
        )
        results = scorer.score(_pictures(pool, photographs, names, side, processes))
        for number, result in enumerate(results):
            if watch is not None:
                watch(result)
            photo, rest = divmod(number, 1 + len(names) * (len(LEVELS) - 1))
            if rest == 0:  # every type starts from the same picture
                scores[photo, :, _CLEAN] = _value(result)
            else:
                kind, level = divmod(rest - 1, len(LEVELS) - 1)
                scores[photo, kind, level + 1] = _value(result)
    return Ranking(
        bundle=scorer.manifest.id,
        engine=scorer.engine,
        photographs=len(photographs),
        side=side,
        failed=int(np.isnan(scores[:, 0, _CLEAN]).sum() + np.isnan(scores[..., _FIRST:]).sum()),
        resamples=resamples,
        seed=seed,
        all=judge(scores, resamples, seed),
        types={n: judge(scores[:, [i]], resamples, seed) for i, n in enumerate(names)},
    )


def _value(result: ImageResult) -> float:
    return float("nan") if result.score is None else result.score


def _pictures(
    pool: ProcessPoolExecutor,
    photographs: Sequence[Path],
    names: Sequence[str],
    side: int,
    processes: int,
) -> Iterator[bytes]:
    """Each photograph as PNG, then its types at their levels; a few are made ahead."""

    def started() -> Iterator[Future[bytes]]:
        for number, path in enumerate(photographs):
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((side, side), Image.Resampling.LANCZOS)
            photo = np.asarray(upright)
            yield pool.submit(damaged, photo, None, 0, number)
            for name, level in product(names, LEVELS[_FIRST:]):
                yield pool.submit(damaged, photo, name, level, number)

    coming = started()
    waiting = list(islice(coming, 4 * processes))
    while waiting:
        yield waiting.pop(0).result()
        waiting.extend(islice(coming, 1))


def judge(scores: npt.NDArray[np.float64], resamples: int, seed: int) -> TypeRow:
    """Shares over scores (photographs, types, levels); NaN: could not be scored."""
    first, middle, last = (scores[..., i] for i in (_FIRST, _MIDDLE, _LAST))
    order = np.where(np.isnan(first + middle + last), np.nan, (first > middle) & (middle > last))
    clean = scores[..., _CLEAN]
    above = np.where(np.isnan(clean + middle), np.nan, clean > middle)
    means = (_mean(scores[..., i]) for i in range(len(LEVELS)))
    return TypeRow(
        triples=share(order, resamples, seed),
        clean=share(above, resamples, seed),
        means=tuple(means),
    )


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def share(right: npt.NDArray[np.float64], resamples: int, seed: int) -> Share:
    """Share of ones, and its bootstrap interval.

    Args:
        right: (photographs, cases) of 0 and 1; NaN: no case.
        resamples: photographs are drawn again, whole.
        seed: of the draw.
    """
    known = ~np.isnan(right)
    count, good = known.sum(1), np.nansum(right, 1)
    if not count.any():
        return Share(n=0, right=None, interval=None)
    drawn = np.random.default_rng(seed).integers(len(right), size=(resamples, len(right)))
    total = count[drawn].sum(1)
    shares = good[drawn].sum(1)[total > 0] / total[total > 0]
    low, high = np.quantile(shares, (0.025, 0.975))
    return Share(
        n=int(count.sum()),
        right=float(good.sum() / count.sum()),
        interval=(float(low), float(high)),
    )


def markdown(found: Ranking) -> str:
    """The outcome as a Markdown table."""
    lines = [
        f"`{found.bundle}`, `{found.engine}`; {found.photographs} photographs of at most "
        f"{found.side} pixels; {found.failed} pictures could not be scored; intervals: bootstrap "
        f"over photographs, {found.resamples} resamples.",
        "",
        "| damage | n | 1 > 3 > 5 (95 %) | clean > 3 (95 %) | mean score: clean, 1, 3, 5 |",
        "|---|---|---|---|---|",
    ]
    for name, row in (("all", found.all), *found.types.items()):
        means = ", ".join("-" if m is None else f"{m:.1f}" for m in row.means)
        cells = (name, row.triples.n, _percent(row.triples), _percent(row.clean), means)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _percent(share: Share) -> str:
    if share.right is None or share.interval is None:
        return "-"
    low, high = share.interval
    return f"{100 * share.right:.1f} % ({100 * low:.1f} .. {100 * high:.1f})"


def pictures(photographs: int, types: Sequence[str] | None = None) -> int:
    """How many pictures `rank` scores, given so many photographs."""
    return photographs * (1 + len(types or ranked.names()) * (len(LEVELS) - 1))
