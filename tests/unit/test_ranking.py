"""Pictures damaged at rising levels: how they are made, and that fits learn their order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import small
from training import fit, losses, ranking
from training.data.samples import Sample
from training.distortions import distort, groups, ranked
from training.evaluation.torch_scorer import TorchScorer
from training.recipe import Ranking


@pytest.fixture(scope="module", autouse=True)
def presets() -> Iterator[None]:
    small.register()
    yield
    small.unregister()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make_root(tmp_path_factory.mktemp("root"), 24)


def test_the_best_pictures_are_damaged_at_rising_levels(root: Path, tmp_path: Path) -> None:
    train, _ = fit.splits(small.recipe(root, tmp_path))
    made = groups.groups(train, tmp_path, 3)
    assert len(made) == 3 * len(groups.LEVELS)
    assert [s.level for s in made] == [*groups.LEVELS] * 3
    kept = sorted({s.mos for s in train if s.path in {m.path for m in made}})
    assert kept[0] >= sorted((s.mos for s in train), reverse=True)[2]
    for number, sample in enumerate(made[7::4]):  # level 5 of the second and third group
        assert sample.subset == ranked.names()[number + 1]
        with Image.open(made[4 * (number + 1)].path) as image:
            worse = distort(np.asarray(image), sample.subset, level=5, seed=number + 1)
        with Image.open(sample.path) as image:
            np.testing.assert_array_equal(np.asarray(image), worse)
    # What is missing is made again, the same; the rest is left alone.
    lost, left = made[1].path, made[2].path
    before, written = lost.read_bytes(), left.stat().st_mtime_ns
    lost.unlink()
    assert str(groups.groups(train, tmp_path, 3)) == str(made)
    assert lost.read_bytes() == before
    assert left.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="other images"):
        groups.groups(train[1:], tmp_path, 4)


def test_order_costs_pairs_that_are_wrong() -> None:
    seen = torch.tensor([[4.5, 4.5, 3.0, 1.5]])  # people do not tell the first two apart
    right = torch.tensor([[60.0, 58.0, 50.0, 47.0]])
    tied = torch.full((1, 4), 50.0)
    assert losses.order(tied, seen).item() == pytest.approx(np.log(2), rel=1e-5)
    pairs = [(10, 1.5), (13, 3.0), (8, 1.5), (11, 3.0), (3, 1.5)]  # gap of scores, of opinions
    wanted = sum(np.log1p(np.exp(-a / 5)) * b for a, b in pairs) / sum(b for _, b in pairs)
    assert losses.order(right, seen).item() == pytest.approx(wanted, rel=1e-5)
    assert losses.order(right.flip(1), seen) > losses.order(tied, seen)
    either = torch.tensor([[58.0, 60.0, 50.0, 47.0]])
    assert losses.order(either, seen).item() == pytest.approx(wanted, rel=1e-5)


def test_opinions_fall_from_a_picture_as_it_is() -> None:
    for name, row in ranked.opinions().items():
        assert len(row) == 6
        assert row[0] >= max(row), name


def test_draws_are_whole_groups_and_repeat() -> None:
    class Source:
        samples = (Sample(Path("x"), 0.0, "jpeg", level=1),) * 40

    ranker = ranking.Ranker(Source(), Ranking(images=10, groups=3), seed=1)  # type: ignore[arg-type]
    rows = ranker.draw(5, 3)
    assert len(set(rows)) == 12
    assert (rows.reshape(3, 4) % 4 == np.arange(4)).all()
    np.testing.assert_array_equal(rows, ranker.draw(5, 3))
    assert not np.array_equal(rows, ranker.draw(6, 3))


def test_a_fit_learns_the_order_of_damage(root: Path, tmp_path: Path) -> None:
    what = small.recipe(
        root, tmp_path / "run", features__folder=tmp_path / "cache", calibrate=False,
        optimisation__context_epochs=3, optimisation__plcc_weight=0.0,
        ranking={"images": 8, "groups": 4, "context_groups": 4, "weight": 3.0},
    )  # fmt: skip
    model = fit.fit(what)
    train, _ = fit.splits(what)
    made = groups.groups(train, tmp_path / "cache" / "ranking-pictures", 8)
    with TorchScorer(model) as scorer:
        found = [row.score for row in scorer.score([s.path for s in made])]
    score = np.array(found).reshape(-1, len(groups.LEVELS))
    better, worse = np.triu_indices(score.shape[1], 1)
    assert (score[:, better] > score[:, worse]).mean() > 0.8


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ranking": {"images": 3, "groups": 4}}, "fewer images"),
        ({"ranking": {"images": 8, "groups": 3}, "optimisation__accumulate": 2}, "not divide"),
        ({"ranking": {"images": 8}, "features": None}, "needs"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    root: Path, tmp_path: Path, changes: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        fit.fit(small.recipe(root, tmp_path, **changes))
