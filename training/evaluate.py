"""Agreement of a Scorer with human scores: what is served is what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import tee

import numpy as np

from giqa.bundle import Accuracy, Correlation
from giqa.contract import Profile
from giqa.scorer import Scorer
from training import metrics
from training.data.table import Sample


def evaluate(
    scorer: Scorer,
    samples: Sequence[Sample],
    *,
    dataset: str,
    split: str,
    protocol: str,
    profile: Profile = "fast",
) -> Accuracy:
    """Score labelled images and compare.

    Args:
        scorer: any scorer.
        samples: images with MOS on 0..100.
        dataset: the data set's name, for the record.
        split: which part of it.
        protocol: one sentence on how selection and testing were kept apart.
        profile: view profile.

    Returns:
        Pooled and per-subset agreement.

    Raises:
        GiqaError: an image could not be scored.
    """
    ours, paths = tee(samples)
    predicted = []
    for sample, result in zip(
        ours, scorer.score((s.path for s in paths), profile=profile), strict=True
    ):
        if result.error is not None:
            result.error.item = str(sample.path)
            raise result.error
        predicted.append(result.score)
    pooled, subsets = metrics.summary(
        np.array(predicted), [s.mos for s in samples], [s.subset for s in samples]
    )
    return Accuracy(
        **_rounded(pooled).model_dump(),
        dataset=dataset,
        split=split,
        profile=profile,
        engine=scorer.engine,
        protocol=protocol,
        subsets={name: _rounded(row) for name, row in subsets.items()},
    )


def _rounded(row: metrics.Correlation) -> Correlation:
    return Correlation(
        n=row.n,
        srocc=round(row.srocc, 4),
        srocc_interval=tuple(round(v, 4) for v in row.srocc_interval),  # type: ignore[arg-type]
        plcc=round(row.plcc, 4),
        rmse=round(row.rmse, 3),
    )
