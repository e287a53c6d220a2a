"""Evaluation: figures against SciPy, failures, tables, plots, what goes into manifests."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import optimize, stats

from giqa.errors import CorruptError
from giqa.manifest import Accuracy
from giqa.results import ImageResult
from training.board import results as boards
from training.board.tables import for_card
from training.card import Card, model_card
from training.data.table import Sample
from training.evaluation import (
    DataSet,
    Evaluation,
    Row,
    ViewsRow,
    agreement,
    evaluate,
    to_accuracy,
)
from training.evaluation.plots import SIZE, write_plots
from training.evaluation.tables import markdown
from training.metrics import Logistic
from training.model import PRESETS

N = 60


class Told:
    """A scorer that gives known scores by path; None is a failure."""

    engine = "told-f32"
    manifest = SimpleNamespace(id="told@0.0.0")

    def __init__(self, scores: dict[str, float | None]) -> None:
        self.scores = scores

    def score(self, items: Iterable[Any], *, profile: str = "fast") -> Iterator[ImageResult]:
        for item in items:
            score = self.scores[str(item)]
            error = CorruptError("cannot be decoded", item=str(item)) if score is None else None
            yield ImageResult(str(item), "told@0.0.0", self.engine, profile, score, error)  # type: ignore[arg-type]


def made(n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and opinion scores that agree through a bent curve, with noise and ties."""
    rng = np.random.default_rng(seed)
    predicted = np.round(rng.uniform(5, 95, n), 1)
    actual = 100 / (1 + np.exp(-(predicted - 45) / 12)) + rng.normal(0, 6, n)
    return predicted, np.round(np.clip(actual, 0, 100))


def samples(actual: np.ndarray, subsets: tuple[str, ...] = ("",)) -> list[Sample]:
    return [
        Sample(Path(f"{i}.png"), float(mos), subsets[i % len(subsets)])
        for i, mos in enumerate(actual)
    ]


def run(predicted: Any, actual: np.ndarray, **options: Any) -> DataSet:
    ours = samples(actual, options.pop("subsets", ("",)))
    scores = {str(s.path): p for s, p in zip(ours, predicted, strict=True)}
    words = {"dataset": "made", "split": "all", "protocol": "Made.", "resamples": 200}
    return evaluate(Told(scores), ours, **{**words, **options})  # type: ignore[arg-type]


def whole(*datasets: DataSet) -> Evaluation:
    return Evaluation(
        bundle="told@0.0.0",
        fingerprint="0" * 64,
        engine="told-f32",
        profile="fast",
        resamples=200,
        seed=0,
        datasets=list(datasets),
    )


def test_figures_agree_with_scipy() -> None:
    predicted, actual = made()
    found = agreement(predicted.tolist(), actual.tolist())
    assert found.n == N
    assert found.srocc == pytest.approx(stats.spearmanr(predicted, actual).statistic, abs=1e-12)
    assert found.plcc == pytest.approx(stats.pearsonr(predicted, actual).statistic, abs=1e-12)
    assert found.krcc == pytest.approx(stats.kendalltau(predicted, actual).statistic, abs=1e-12)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((predicted - actual) ** 2)), abs=1e-12)


def four(x: Any, upper: float, lower: float, centre: float, width: float) -> Any:
    return lower + (upper - lower) / (1 + np.exp(-(x - centre) / width))


def five(x: Any, a: float, b: float, c: float, d: float, e: float) -> Any:
    return a * (0.5 - 1 / (1 + np.exp(b * (x - c)))) + d * x + e


@pytest.mark.parametrize(
    ("name", "curve", "start"),
    [("logistic4", four, (100, 0, 50, 10)), ("logistic5", five, (50, 0.1, 50, 0.5, 20))],
)
def test_the_logistic_agrees_with_curve_fit(name: str, curve: Any, start: Any) -> None:
    predicted, actual = made()
    mapped = getattr(agreement(predicted.tolist(), actual.tolist(), resamples=10), name)
    theirs = curve(predicted, *optimize.curve_fit(curve, predicted, actual, start, maxfev=9999)[0])
    assert mapped.rmse == pytest.approx(np.sqrt(np.mean((theirs - actual) ** 2)), rel=1e-4)
    assert mapped.plcc == pytest.approx(stats.pearsonr(theirs, actual).statistic, abs=1e-4)
    np.testing.assert_allclose(curve(predicted, *mapped.parameters), theirs, atol=0.05)
    # The kept parameters give the kept figures: plots draw what is reported.
    again = Logistic(mapped.parameters)(predicted)
    assert mapped.plcc == pytest.approx(stats.pearsonr(again, actual).statistic, abs=1e-12)


@pytest.mark.parametrize("name", ["srocc", "plcc"])
def test_intervals_agree_with_scipy_bootstrap(name: str) -> None:
    predicted, actual = made()
    measure = stats.spearmanr if name == "srocc" else stats.pearsonr
    theirs = stats.bootstrap(
        (predicted, actual),
        lambda x, y: measure(x, y).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1500,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    found = agreement(predicted.tolist(), actual.tolist())
    low, high = getattr(found, f"{name}_interval")
    assert low < getattr(found, name) < high
    # Ends of intervals vary from draw to draw by some hundredths of their width.
    slack = 0.15 * (theirs.high - theirs.low)
    assert low == pytest.approx(theirs.low, abs=slack)
    assert high == pytest.approx(theirs.high, abs=slack)
    assert agreement(predicted.tolist(), actual.tolist()) == found, "a seed, the same interval"


def test_subsets_are_measured_by_themselves() -> None:
    predicted, actual = made()
    found = run(predicted.tolist(), actual, subsets=("blur", "noise", ""))
    assert list(found.subsets) == ["blur", "noise"]
    part = agreement(predicted[::3].tolist(), actual[::3].tolist(), resamples=200)
    assert found.subsets["blur"] == part
    assert found.n == N


def test_a_failed_image_is_counted_and_left_out() -> None:
    predicted, actual = made()
    scores: list[float | None] = predicted.tolist()
    scores[7] = None
    watched: list[ImageResult] = []
    found = run(scores, actual, watch=watched.append)
    assert (found.n, found.failed, len(found.rows), len(watched)) == (N - 1, 1, N, N)
    assert found.rows[7] == Row(path="7.png", subset="", mos=actual[7], score=None, error="corrupt")
    kept = np.arange(N) != 7
    oracle = stats.spearmanr(predicted[kept], actual[kept]).statistic
    assert found.srocc == pytest.approx(oracle, abs=1e-12)
    assert to_accuracy(found, engine="e", profile="fast").protocol == (
        "Made. 1 images could not be scored."
    )


def test_what_is_undefined_is_null() -> None:
    _, actual = made()
    collapsed = run([50.0] * N, actual)
    assert collapsed.srocc is collapsed.plcc is collapsed.krcc is None
    assert collapsed.srocc_interval is None
    assert collapsed.rmse is not None
    text = whole(collapsed).to_json()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    with pytest.raises(ValueError, match="undefined"):
        to_accuracy(collapsed, engine="e", profile="fast")
    assert agreement([], []).rmse is None
    assert agreement([40.0], [50.0]).rmse == 10
    # A curve through all points says nothing.
    assert agreement([1, 2, 3, 4], [1, 3, 2, 5], resamples=10).logistic4 is None
    nothing = run([None] * 3, actual[:3])
    assert (nothing.n, nothing.failed, nothing.srocc) == (0, 3, None)
    assert "| all | 0 | - | - |" in markdown(whole(nothing))


def test_the_json_comes_back_and_names_its_schema() -> None:
    predicted, actual = made()
    found = whole(run(predicted.tolist(), actual, subsets=("a", "b")))
    text = found.to_json()
    assert json.loads(text)["schema"] == "giqa.evaluation/1"
    assert Evaluation.model_validate_json(text) == found
    with pytest.raises(ValueError, match="schema"):
        Evaluation.model_validate_json(text.replace("giqa.evaluation/1", "giqa.evaluation/2"))


def test_accuracy_is_what_a_manifest_carries() -> None:
    predicted, actual = made()
    found = run(predicted.tolist(), actual, subsets=("a", "b"))
    row = to_accuracy(found, engine="openvino-f32", profile="fast")
    assert Accuracy.model_validate_json(row.model_dump_json()) == row
    assert row.krcc == pytest.approx(found.krcc, abs=1e-4)
    assert found.logistic4 is not None
    assert row.plcc_logistic == pytest.approx(found.logistic4.plcc, abs=1e-4)
    assert set(row.subsets) == {"a", "b"}
    card = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])
    text = model_card(PRESETS["giqa-s"], "0.0.1", [row], card)
    assert f"{row.krcc:.3f}" in text
    assert f"{row.plcc_logistic:.3f}" in text


def test_a_card_has_the_board_that_was_measured() -> None:
    value = boards.Value(value=0.8, interval=(0.7, 0.9), n=12)
    board = boards.Board(
        model="giqa-s@0.0.1",
        fingerprint="",
        engine="openvino-f32",
        resamples=100,
        seed=0,
        sets={"h265": boards.SetInfo(pictures=12, digest="")},
        unmeasured={"flive": "not asked for"},
        measures=[boards.Measure(set="h265", name="SROCC", unit="correlation")],
        rows=[
            boards.Row(name="whole score", how="all", values={"h265: SROCC": value}, absent={}),
            boards.Row(name="ridge", how="none", values={}, absent={"h265": "not asked for"}),
        ],
    )
    card = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])
    text = model_card(PRESETS["giqa-s"], "0.0.1", [], card, board=for_card(board.to_json()))
    assert "| h265 | SROCC | 12 | 0.800 (0.700 .. 0.900) |" in text
    assert "ridge" not in text
    assert "not measured" not in text
    assert "## Board" not in model_card(PRESETS["giqa-s"], "0.0.1", [], card)


def test_accuracy_of_older_manifests_keeps_its_bytes() -> None:
    old = {"n": 10, "srocc": 0.9, "srocc_interval": None, "plcc": 0.8, "rmse": 5.0}
    words = {"dataset": "d", "split": "s", "profile": "fast", "engine": "e", "protocol": "p"}
    row = {**old, **words, "subsets": {"a": old}}
    assert Accuracy.model_validate(row).model_dump(mode="json") == row


def test_tables_show_every_data_set() -> None:
    first, second = (
        run(*(v.tolist() if i == 0 else v for i, v in enumerate(made(seed=seed))), dataset=name)
        for seed, name in ((0, "one"), (1, "two|x"))
    )
    text = markdown(whole(first, second))
    across = text[text.index("## Data sets") : text.index("## one")]
    assert "| one, all | 60 |" in across
    assert "two\\|x" in across
    assert first.srocc is not None
    assert second.srocc is not None
    assert f"| mean |  | {(first.srocc + second.srocc) / 2:.3f} |" in across
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in tables}
    assert widths == {9, 10}, "every row of a table has all its cells"
    assert "## Data sets" not in markdown(whole(first))


def test_plots_are_pictures_and_always_the_same(tmp_path: Path) -> None:
    predicted, actual = made()
    found = run(predicted.tolist(), actual, subsets=("blur $", "noise"), dataset="a/b")
    curve = [ViewsRow(views=v, mean=v, agreement=found.subsets["noise"]) for v in (1, 2, 4)]
    evaluation = whole(found.model_copy(update={"views": curve}))
    written = write_plots(evaluation, tmp_path / "one")
    again = write_plots(evaluation, tmp_path / "two")
    assert [p.name for p in written] == [
        "scatter-a_b.png",
        "scatter-a_b.svg",
        "srocc-against-v.png",
        "srocc-against-v.svg",
    ]
    for ours, theirs in zip(written, again, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
        if ours.suffix == ".svg":
            assert ET.parse(ours).getroot().tag.endswith("svg")
            continue
        with Image.open(ours) as picture:
            assert picture.size == SIZE
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_plots_of_nothing_scored_are_drawn(tmp_path: Path) -> None:
    nothing = run([None] * 3, made()[1][:3])
    row = ViewsRow(views=1, mean=1, agreement=agreement([], []))
    assert len(write_plots(whole(nothing.model_copy(update={"views": [row]})), tmp_path)) == 4
