"""Agreement against the number of views V: what another look at a picture is worth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from giqa.decode import Decoder
from giqa.openvino import cpu_count
from giqa.scorer import Scorer
from giqa.types import BoxArray, Item, Views
from training.data.table import Sample
from training.evaluation.measure import RESAMPLES, agreement
from training.evaluation.results import ViewsRow

_BATCH = 8

_Asked = tuple[int, int, list[int]]
"""Image, its number of views, and the V that this answers."""


def spread(boxes: BoxArray) -> list[int]:
    """Order views so that the first few already see the whole picture.

    First the view nearest to the picture's centre, then always the one that is farthest from
    those taken: fewer views are a part of more views.

    Args:
        boxes: (V, 4) regions x0, y0, x1, y1 in pixels, as `giqa.decode.view_boxes` gives them.

    Returns:
        V indices into `boxes`.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    middle = (boxes[:, :2].min(0) + boxes[:, 2:].max(0)) / 2.0
    order = [int(np.linalg.norm(centres - middle, axis=1).argmin())]
    while len(order) < len(boxes):
        gaps = np.linalg.norm(centres[:, None] - centres[order], axis=2)
        gaps[order] = -1.0
        # Of several equally far from the nearest, the one that is farthest from the others.
        order.append(int(np.lexsort((gaps.sum(1), gaps.min(1).round(3)))[-1]))
    return order


def by_views(
    scorer: Scorer,
    samples: Sequence[Sample],
    counts: Sequence[int],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    fast: Sequence[float | None] | None = None,
    watch: Callable[[], object] | None = None,
) -> list[ViewsRow]:
    """Measure with at most V views an image, for several V.

    V = 1 is profile `fast` (the whole frame). More are views of profile `precise`, in the order
    of `spread`, decoded here and scored through `Scorer.score_views`; a picture that `precise`
    cuts into fewer takes part with those it has.

    Args:
        scorer: any scorer.
        samples: images with MOS on 0..100.
        counts: numbers of views, each 1 or more.
        resamples: bootstrap resamples behind each interval.
        seed: seed of the bootstrap.
        fast: scores of profile `fast`, if known already; None where there is none.
        watch: called after every image.

    Returns:
        A row for each number of views, ascending; all over the same images, namely those that
        can be scored at every one of them.

    Raises:
        ValueError: a count below 1.
        GiqaError: the scorer failed as a whole.
    """
    wanted = sorted(set(counts))
    if not wanted or wanted[0] < 1:
        raise ValueError(f"numbers of views {list(counts)}: one or more, each at least 1")
    scores: dict[int, list[float | None]] = {n: [None] * len(samples) for n in wanted}
    used: dict[int, list[int]] = {n: [1] * len(samples) for n in wanted}
    if wanted[0] == 1:
        if fast is None:
            fast = [row.score for row in scorer.score(s.path for s in samples)]
        scores[1] = list(fast)
    asked: deque[_Asked] = deque()
    views = _cut(scorer, samples, [n for n in wanted if n > 1], asked, watch)
    for found in scorer.score_views(views):
        image, number, serves = asked.popleft()
        for n in serves:
            scores[n][image], used[n][image] = found.score, number
    scored = [i for i, row in enumerate(zip(*scores.values(), strict=True)) if None not in row]
    return [
        ViewsRow(
            views=n,
            mean=float(np.mean([used[n][i] for i in scored])) if scored else 1.0,
            agreement=agreement(
                [score for i in scored if (score := scores[n][i]) is not None],
                [samples[i].mos for i in scored],
                resamples=resamples,
                seed=seed,
            ),
        )
        for n in wanted
    ]


def _cut(
    scorer: Scorer,
    samples: Sequence[Sample],
    counts: Sequence[int],
    asked: deque[_Asked],
    watch: Callable[[], object] | None,
) -> Iterator[Views]:
    """Decode images and give their views, noting in `asked` what each is for."""
    if not counts:
        return
    decoder = Decoder(scorer.manifest, batch=_BATCH, threads=cpu_count())
    for start in range(0, len(samples), _BATCH):
        items = [Item.of(s.path) for s in samples[start : start + _BATCH]]
        for i, one in enumerate(decoder(items, "precise"), start):
            if watch is not None:
                watch()
            if one.views is None or one.boxes is None:
                continue
            order = spread(one.boxes)
            for number in sorted({min(n, len(order)) for n in counts}):
                # In reading order, so that all of them are just what `precise` scores.
                part = sorted(order[:number])
                asked.append((i, number, [n for n in counts if min(n, len(order)) == number]))
                yield Views(one.views.global_view[part], one.views.local_view[part])
