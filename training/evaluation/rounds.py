"""Seeded rounds: a run for each, measured on what it held out, and the median over them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from statistics import median

from giqa import files
from training.card import title
from training.evaluation.measure import evaluate
from training.evaluation.results import DataSet
from training.evaluation.torch_scorer import TorchScorer
from training.fit import final_weights, fit, tested
from training.recipe import Recipe

RESULT = "test.json"


def of_round(recipe: Recipe, number: int) -> Recipe:
    """A round's recipe: its own split, output and feature cache, below the recipe's."""
    changes: dict[str, object] = {
        "data": recipe.data.model_copy(update={"round": number}),
        "output": recipe.output / f"round-{number}",
    }
    if recipe.features is not None:
        folder = recipe.features.folder / f"round-{number}"
        changes["features"] = recipe.features.model_copy(update={"folder": folder})
    return Recipe.model_validate(recipe.model_copy(update=changes).model_dump())


def run(recipe: Recipe, count: int) -> list[DataSet]:
    """Train and test on rounds 1 .. count, or go on; a finished round's feature cache is removed.

    Args:
        recipe: of a data set or table without a split of its own.
        count: how many rounds.

    Returns:
        Agreement on each round's test images, in order.

    Raises:
        GiqaError: see `fit`.
        ValueError: likewise, or the data have an official split.
    """
    found = []
    for number in range(1, count + 1):
        one = of_round(recipe, number)
        path = one.output / RESULT
        if not path.is_file():
            fit(one)
            samples = tested(one)
            with TorchScorer.load(final_weights(one.output), one.preset) as scorer:
                measured = evaluate(
                    scorer, samples, dataset=title(one.data), split=f"test, round {number}",
                    protocol="A fifth of the contents, drawn by a seed.",
                )  # fmt: skip
            files.write(path, measured.model_dump_json(indent=1).encode())
            if one.features is not None:
                shutil.rmtree(one.features.folder, ignore_errors=True)
        found.append(DataSet.model_validate_json(path.read_bytes()))
    return found


def markdown(found: Sequence[DataSet]) -> str:
    """SROCC and PLCC of every round and their medians, as a table."""
    lines = ["| round | n | SROCC | PLCC |", "|---|---|---|---|"]
    for number, one in enumerate(found, 1):
        lines.append(f"| {number} | {one.n} | {_number(one.srocc)} | {_number(one.plcc)} |")
    middle = (median(getattr(one, name) or 0.0 for one in found) for name in ("srocc", "plcc"))
    return "\n".join([*lines, f"| median | | {' | '.join(map(_number, middle))} |"]) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
