"""What rendered groups teach: their table, their draws, their loss, and that a fit learns it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from giqa.errors import NotFoundError, TableInvalidError
from tests import small
from training import fit, losses, ranking
from training.data.samples import Sample
from training.distortions import ranked
from training.evaluation.torch_scorer import TorchScorer
from training.recipe import Rendered

pytestmark = pytest.mark.usefixtures("small_presets")

OPTIONS = Rendered(table=Path("t.csv"), groups=4, anchors=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make_root(tmp_path_factory.mktemp("root"), 24)


class Source:
    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples


def ranker(sizes: tuple[int, ...], anchors: int = 4, **options: object) -> ranking.Ranker:
    made = [
        Sample(Path("x"), float("nan"), reference=f"g{group}", lost=level / 10)
        for group, size in enumerate(sizes)
        for level in range(size)
    ]
    made += [Sample(Path("y"), 3.0)] * anchors
    settings = OPTIONS.model_copy(update=options)
    return ranking.Ranker(Source(made), settings, seed=1)  # type: ignore[arg-type]


def test_what_is_lost_is_lost_of_the_pictures_own_score() -> None:
    samples = [
        Sample(Path("a"), 85.0, lost=0.0),
        Sample(Path("b"), 85.0, lost=0.5),
        Sample(Path("c"), float("nan"), lost=1.0),
        Sample(Path("d"), 3.0),
    ]
    assert ranking.targets(samples, OPTIONS).tolist() == [85.0, 45.0, 5.0, 3.0]


def test_order_costs_pairs_that_are_wrong() -> None:
    target = torch.tensor([80.0, 80.0, 50.0, 20.0])  # nobody tells the first two apart
    right = torch.tensor([60.0, 58.0, 50.0, 47.0])
    pairs = torch.ones(4, 4, dtype=torch.bool)
    known = [(10, 30), (13, 60), (8, 30), (11, 60), (3, 30)]  # gaps of scores, of targets
    wanted = sum(np.log1p(np.exp(-a / 5)) * b for a, b in known) / sum(b for _, b in known)
    found = losses.ordered(right, target, pairs).item()
    assert found == pytest.approx(0.05 * wanted, rel=1e-5)
    tied = losses.ordered(torch.full((4,), 50.0), target, pairs).item()
    assert tied == pytest.approx(0.05 * np.log(2), rel=1e-5)
    assert losses.ordered(right.flip(0), target, pairs).item() > tied > found
    assert losses.ordered(right, target, torch.zeros_like(pairs)).item() == 0


def test_groups_are_compared_within_and_equals_are_kept_together() -> None:
    group = torch.tensor([0, 0, 1, 1, -1])
    target = torch.tensor([80.0, 40.0, 80.0, 80.0, 3.0])
    score = torch.tensor([70.0, 30.0, 20.0, 20.0, 90.0])
    good = ranking.within(score, target, group)
    assert torch.equal(ranking.within(score + 5, target, group), good)
    shifted = torch.tensor([70.0, 30.0, 90.0, 90.0, 0.0])  # another group, an anchor
    torch.testing.assert_close(ranking.within(shifted, target, group), good)
    apart = torch.tensor([70.0, 30.0, 20.0, 35.0, 90.0])
    assert ranking.within(apart, target, group) > good + 1e-3


def test_opinions_fall_from_a_picture_as_it_is() -> None:
    for name, row in ranked.opinions().items():
        assert len(row) == 6
        assert row[0] >= max(row), name


def test_draws_are_whole_groups_and_repeat() -> None:
    drawing = ranker((5, 5, 3, 5, 5, 1))
    rows = drawing.draw(5)
    assert len(rows) == 4 * 5 + 2
    np.testing.assert_array_equal(rows, drawing.draw(5))
    assert not np.array_equal(rows, drawing.draw(6))
    for half in np.split(rows, 2):  # what two processes get
        names = [drawing.source.samples[r].reference for r in half]
        assert names.count("") == 1
        assert {names.count(n) for n in set(names) - {""}} == {5}
        assert "g5" not in names, "one picture is no group"


@pytest.mark.parametrize(
    ("sizes", "anchors", "match"),
    [((5, 5, 5), 4, "3 groups are fewer"), ((5,) * 6, 1, "1 anchors are fewer")],
)
def test_too_few_are_refused(sizes: tuple[int, ...], anchors: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ranker(sizes, anchors)


def test_what_does_not_divide_is_refused() -> None:
    samples = [Sample(Path("x"), 80.0, reference=str(i // 2), lost=0.1) for i in range(20)]
    options = OPTIONS.model_copy(update={"anchors": 0})
    with pytest.raises(ValueError, match="4 groups do not divide into 3"):
        ranking.Ranker(Source(samples), options, seed=0, shares=3)  # type: ignore[arg-type]


def test_a_table_is_read(tmp_path: Path) -> None:
    samples = ranking.read_rendered(small.make_rendered(tmp_path, 2))
    assert [s.reference for s in samples] == ["0", "0", "0", "", "1", "1", "1", ""]
    assert [s.lost for s in samples[:4]] == [0.0, 0.4, 0.8, 0.0]
    assert np.isnan(samples[0].mos)
    assert (samples[4].mos, samples[7].mos, samples[4].subset) == (80.0, 3.0, "blur")


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("0-0.png,0,1.5,,blur", "line 2: loss or mos out of range"),
        ("0-0.png,0,x,,blur", "line 2: ValueError"),
        ("0-0.png,,0.1,,flat", "line 2: neither group nor mos"),
        ("0-0.png,0", "line 2"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, row: str, match: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"path,group,loss,mos,kind\n{row}\n")
    with pytest.raises(TableInvalidError, match=match):
        ranking.read_rendered(table)


def test_pictures_that_are_gone_are_named(tmp_path: Path) -> None:
    table = small.make_rendered(tmp_path, 2)
    (table.parent / "1-1.png").unlink()
    with pytest.raises(NotFoundError, match=r"1 of 8 pictures are missing, first 1-1\.png"):
        ranking.read_rendered(table)
    with pytest.raises(NotFoundError, match="no such table"):
        ranking.read_rendered(tmp_path / "none.csv")


def test_a_fit_learns_the_order_of_damage_and_what_is_worth_nothing(
    root: Path, tmp_path: Path
) -> None:
    table = small.make_rendered(tmp_path, 8)
    what = small.recipe(
        root, tmp_path / "run", features__folder=tmp_path / "cache", calibrate=False,
        optimisation__plcc_weight=0.0, optimisation__epochs=8,
        rendered={"table": table, "groups": 4, "anchors": 4, "weight": 20.0, "anchor_weight": 2.0},
    )  # fmt: skip
    model = fit.fit(what)
    samples = ranking.read_rendered(table)
    with TorchScorer(model) as scorer:
        found = np.array([row.score for row in scorer.score([s.path for s in samples])])
    score = found.reshape(8, 4)
    assert (score[:, 0] > score[:, 2]).mean() > 0.8
    assert score[:, 3].mean() < score[:, 0].mean() - 20
