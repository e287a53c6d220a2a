"""The board's figures against SciPy, scikit-learn and hands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from training.board import measures, ridge
from training.board.measures import Draw, Figure
from training.board.pictures import Picture

DRAW = Draw(resamples=50)
NOWHERE = Path("nowhere.png")


def picture(**what: object) -> Picture:
    return Picture(NOWHERE, **what)  # type: ignore[arg-type]


def by_name(figures: object) -> dict[str, Figure]:
    found = list(figures)  # type: ignore[call-overload]
    assert len({f.name for f in found}) == len(found)
    return {f.name: f for f in found}


def test_agreement_is_scipys_pooled_within_references_and_in_subsets() -> None:
    rng = np.random.default_rng(0)
    mos, scores = rng.uniform(0, 100, 60), rng.uniform(0, 100, 60)
    scores += 0.5 * mos
    pictures = [
        picture(mos=m, reference=f"r{i % 6}", subset="ab"[i % 2]) for i, m in enumerate(mos)
    ]
    found = by_name(measures.opinions(pictures, scores, DRAW))
    assert found["SROCC"].value.value == pytest.approx(spearmanr(scores, mos)[0])
    assert found["PLCC"].value.value == pytest.approx(pearsonr(scores, mos)[0])
    assert found["SROCC"].value.n == 60
    low, high = found["SROCC"].value.interval or (1, 0)
    assert low < spearmanr(scores, mos)[0] < high
    each = [spearmanr(scores[r::6], mos[r::6])[0] for r in range(6)]
    assert found["SROCC within references"].value.value == pytest.approx(np.mean(each))
    assert found["SROCC within references"].value.n == 6
    assert found["SROCC b"].value.value == pytest.approx(spearmanr(scores[1::2], mos[1::2])[0])


def test_without_references_nothing_is_said_within_them() -> None:
    pictures = [picture(mos=m) for m in (1.0, 2.0, 3.0)]
    found = by_name(measures.opinions(pictures, np.array([1.0, 2.0, 3.0]), DRAW))
    assert set(found) == {"SROCC", "PLCC"}


def test_equal_scores_order_nothing_and_few_pictures_say_nothing() -> None:
    truth = np.array([1.0, 2, 3, 1, 2, 3, 1, 2, 5, 5, 5])
    scores = np.array([1.0, 2, 3, 7, 7, 7, 2, 1, 1, 2, 3])
    groups = ["right"] * 3 + ["constant score"] * 3 + ["two"] * 2 + ["constant truth"] * 3
    found = measures.within(scores, truth, groups, DRAW)
    assert (found.value, found.n) == (0.5, 2)


def damaged() -> tuple[list[Picture], np.ndarray]:
    """Two photographs, two types, three levels."""
    table = {
        ("0", "blur"): (80, 70, 60, 50),  # in order, clean above all
        ("0", "noise"): (80, 90, 60, 50),  # in order, clean above the middle one only
        ("1", "blur"): (40, 30, 35, 20),  # not in order, clean above all
        ("1", "noise"): (40, 50, 45, 45),  # a tie is no order; clean below
    }
    pictures, scores = [], []
    for reference in "01":
        pictures.append(picture(reference=reference))
        scores.append(table[reference, "blur"][0])
        for kind in ("blur", "noise"):
            for level, score in zip((1, 3, 5), table[reference, kind][1:], strict=True):
                pictures.append(picture(reference=reference, kind=kind, level=level))
                scores.append(score)
    return pictures, np.array(scores, float)


def test_triples_by_hand() -> None:
    pictures, scores = damaged()
    found = by_name(measures.damage(pictures, scores, DRAW, native=True))
    assert found["triples in order"].value.value == 0.5
    assert found["triples in order"].value.n == 4
    assert found["clean above all"].value.value == 0.5
    assert found["triples, blur"].value.value == 0.5
    assert found["clean above all, blur"].value.value == 1.0
    assert not found["triples, blur"].detail
    found = by_name(measures.damage(pictures, scores, DRAW, native=False))
    assert found["clean above level 3"].value.value == 0.75
    assert found["clean above level 3, noise"].value.value == 0.5
    assert found["triples, blur"].detail


def test_steps_rise_with_their_number() -> None:
    pictures, scores = [picture(reference=r) for r in "ab"], [0.0, 0.0]
    for reference, kind, rises in (("a", "jpeg", 1), ("b", "bpg", -1)):
        for level in (1, 10, 19):
            pictures.append(picture(reference=reference, kind=kind, level=level))
            scores.append(50.0 + rises * level)
    found = by_name(measures.steps(pictures, np.array(scores), DRAW))
    assert found["SROCC within references, jpeg"].value.value == 1.0
    assert found["SROCC within references, bpg"].value.value == -1.0
    assert found["SROCC within references"].value.value == 0.0
    assert found["SROCC within references"].value.n == 2


def test_margins_of_jpeg_by_hand() -> None:
    table = {0: (80, 60), 95: (80, 60), 79: (82, 62.5), 55: (78, 60), 37: (70, 61), 27: (79, 60)}
    pictures = [
        picture(reference=str(r), kind="jpeg" if q else "clean", level=q)
        for q in table
        for r in (0, 1)
    ]
    scores = np.array([s for row in table.values() for s in row], float)
    found = by_name(measures.jpeg(pictures, scores, DRAW))
    assert found["79 and 55 within 2 points"].value.value == 0.75
    assert found["79 and 55 within 2 points"].value.n == 4
    assert found["27 below clean"].value.value == 0.5
    assert found["79, mean move"].value.value == 2.25


def test_flats_leave_text_apart() -> None:
    kinds = ("black", "dark grey", "grey", "white", "noise", "grey noise", "black copy", "text")
    pictures = [picture(kind=kind) for kind in (*kinds, "text")]
    scores = np.array([1.0, 2, 3, 4, 5, 6, 7, 50, 60])
    found = by_name(measures.flats(pictures, scores, DRAW))
    assert found["largest score"].value.value == 7
    assert found["largest score"].value.n == 7
    assert found["text, mean score"].value.value == 55
    assert found["largest score, white"].value.value == 4
    assert found["largest score, black copy"].value.value == 7


def test_forms_move() -> None:
    pictures = [
        picture(reference=str(r), kind=kind)
        for kind in ("clean", "png", "half size")
        for r in range(3)
    ]
    scores = np.array([10.0, 20, 30, 10, 20, 30, 12, 19, 26])
    found = by_name(measures.forms(pictures, scores, DRAW))
    assert found["median move, png"].value.value == 0
    assert found["median move, half size"].value.value == 2
    assert found["mean move, half size"].value.value == -1


def data(n: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (n, width)).astype(np.float32)
    mos = 50 + 5 * (x[:, 0] - 3) - 4 * (x[:, 1] - 3) + rng.normal(0, 3, n)
    return x, mos.astype(np.float32)


@pytest.mark.parametrize("n", [200, 25])
def test_ridge_is_scikit_learns_tall_and_wide(n: int) -> None:
    from sklearn.linear_model import Ridge

    x, mos = data(n, 40, 0)
    new, _ = data(50, 40, 1)
    found = ridge.fit(x, mos, alphas=(30.0,))
    mean, spread = x.mean(0), x.std(0) + 1e-3
    theirs = Ridge(alpha=30.0).fit((x - mean) / spread, mos)
    np.testing.assert_allclose(found(new), theirs.predict((new - mean) / spread), atol=2e-2)


def test_ridges_strength_is_that_of_scikit_learns_five_folds() -> None:
    from sklearn.linear_model import Ridge

    x, mos = data(60, 200, 2)
    alphas = (1e-3, 30.0, 3e4)
    fold = np.random.default_rng(0).permutation(60) % 5
    mean, spread = x.mean(0), x.std(0) + 1e-3
    z = (x - mean) / spread

    def held_out(alpha: float) -> float:
        fits = [(Ridge(alpha=alpha).fit(z[fold != k], mos[fold != k]), k) for k in range(5)]
        return sum(spearmanr(f.predict(z[fold == k]), mos[fold == k])[0] for f, k in fits)

    assert ridge.fit(x, mos, alphas).alpha == max(alphas, key=held_out)


def test_of_many_images_one_fifth_chooses() -> None:
    x, mos = data(2500, 5, 3)
    new, truth = data(200, 5, 4)
    assert spearmanr(ridge.fit(x, mos)(new), truth)[0] > 0.85
