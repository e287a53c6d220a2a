"""Score labelled images and compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import tee
from typing import Literal

import numpy.typing as npt

from giqa.contract import Profile
from giqa.manifest import Accuracy, Correlation
from giqa.results import ImageResult
from giqa.scorer import Scorer
from training import metrics
from training.data.table import Sample
from training.evaluation.results import Agreement, DataSet, Interval, Mapped, Row

RESAMPLES = 2000

Watch = Callable[[ImageResult], object]


def evaluate(
    scorer: Scorer,
    samples: Sequence[Sample],
    *,
    dataset: str,
    split: str,
    protocol: str,
    profile: Profile = "fast",
    resamples: int = RESAMPLES,
    seed: int = 0,
    watch: Watch | None = None,
) -> DataSet:
    """Score labelled images and compare; an image that cannot be scored is counted and left out.

    Args:
        scorer: any scorer.
        samples: images with MOS on 0..100.
        dataset: the data set's name, for the record.
        split: which part of it.
        protocol: one sentence on how selection and testing were kept apart.
        profile: view profile.
        resamples: bootstrap resamples behind each interval.
        seed: seed of the bootstrap.
        watch: called with every result, in the order of `samples`.

    Returns:
        Pooled and per-subset agreement, and a row per image.

    Raises:
        GiqaError: the scorer failed as a whole; an image's failure is its row's.
    """
    ours, theirs = tee(samples)
    rows = []
    for sample, result in zip(
        ours, scorer.score((s.path for s in theirs), profile=profile), strict=True
    ):
        if watch is not None:
            watch(result)
        rows.append(
            Row(
                path=str(sample.path),
                subset=sample.subset,
                mos=sample.mos,
                score=result.score,
                error=None if result.error is None else result.error.code,
            )
        )
    names = sorted({row.subset for row in rows} - {""})
    return DataSet(
        **dict(_of_rows(rows, resamples, seed)),
        name=dataset,
        split=split,
        protocol=protocol,
        failed=sum(row.score is None for row in rows),
        subsets={
            name: _of_rows([row for row in rows if row.subset == name], resamples, seed)
            for name in names
        },
        rows=rows,
    )


def _of_rows(rows: Sequence[Row], resamples: int, seed: int) -> Agreement:
    pairs = [(row.score, row.mos) for row in rows if row.score is not None]
    predicted, actual = [p for p, _ in pairs], [a for _, a in pairs]
    return agreement(predicted, actual, resamples=resamples, seed=seed)


def agreement(
    predicted: Sequence[float],
    actual: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Compute all figures of one set of images.

    Args:
        predicted: (n,) scores on 0..100; n may be 0.
        actual: (n,) opinion scores on 0..100, in the same order.
        resamples: bootstrap resamples behind each interval.
        seed: seed of the bootstrap.

    Returns:
        The figures; None where one is undefined.

    Raises:
        ValueError: unequal lengths, NaN or infinity.
    """
    n = len(predicted)
    if n < 2:
        rmse = abs(predicted[0] - actual[0]) if n else None
        return Agreement(n=n, rmse=rmse)

    def interval(metric: metrics.Metric) -> Interval | None:
        ends = metrics.bootstrap_interval(metric, predicted, actual, n=resamples, seed=seed)
        return None if math.isnan(ends[0]) else ends

    return Agreement(
        n=n,
        srocc=_defined(metrics.srocc(predicted, actual)),
        srocc_interval=interval(metrics.srocc),
        plcc=_defined(metrics.plcc(predicted, actual)),
        plcc_interval=interval(metrics.plcc),
        krcc=_defined(metrics.krcc(predicted, actual)),
        rmse=metrics.rmse(predicted, actual),
        logistic4=_mapped(predicted, actual, 4),
        logistic5=_mapped(predicted, actual, 5),
    )


def _mapped(
    predicted: npt.ArrayLike, actual: Sequence[float], parameters: Literal[4, 5]
) -> Mapped | None:
    if len(actual) <= parameters:  # it would pass through all points
        return None
    mapping = metrics.fit_logistic(predicted, actual, parameters=parameters)
    mapped = mapping(predicted)
    return Mapped(
        plcc=_defined(metrics.plcc(mapped, actual)),
        rmse=metrics.rmse(mapped, actual),
        parameters=mapping.parameters,
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def to_accuracy(found: DataSet, *, engine: str, profile: Profile) -> Accuracy:
    """Give a data set's figures the form in which a bundle's manifest carries them.

    Args:
        found: what `evaluate` found.
        engine: runtime and precision that were measured, as `Scorer.engine`.
        profile: the profile that was measured.

    Returns:
        Rounded figures; subsets whose correlation is undefined are left out.

    Raises:
        ValueError: the pooled correlation is undefined.
    """
    protocol = found.protocol
    if found.failed:
        protocol = f"{protocol} {found.failed} images could not be scored.".strip()
    return Accuracy(
        **_rounded(found).model_dump(),
        dataset=found.name,
        split=found.split,
        profile=profile,
        engine=engine,
        protocol=protocol,
        subsets={
            name: _rounded(row) for name, row in found.subsets.items() if row.srocc is not None
        },
    )


def _rounded(row: Agreement) -> Correlation:
    if row.srocc is None or row.plcc is None:
        raise ValueError(f"the correlation over {row.n} images is undefined")
    interval = row.srocc_interval
    logistic = None if row.logistic4 is None else row.logistic4.plcc
    return Correlation(
        n=row.n,
        srocc=round(row.srocc, 4),
        srocc_interval=interval and (round(interval[0], 4), round(interval[1], 4)),
        plcc=round(row.plcc, 4),
        rmse=None if row.rmse is None else round(row.rmse, 3),
        krcc=None if row.krcc is None else round(row.krcc, 4),
        plcc_logistic=None if logistic is None else round(logistic, 4),
    )
