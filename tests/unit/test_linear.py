"""The linear term: where it goes, what it is solved for, and that a bundle has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from giqa import LocalScorer
from tests import small
from tests.photos import photo
from training import fit, linear
from training.card import Card
from training.evaluation.torch_scorer import TorchScorer
from training.export import export_bundle
from training.features import build
from training.model import create
from training.norms import calibrate_norms
from training.ranking import Ranker, read_rendered
from training.recipe import Linear, Rendered
from training.sources import CachedSource
from training.trainee import Trainee

pytestmark = pytest.mark.usefixtures("small_presets")

CARD = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])
SHARE = 0.25


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small.make_root(tmp_path_factory.mktemp("data"), 24)
    small.make_rendered(folder, 3)
    return folder


@torch.inference_mode()
@pytest.mark.parametrize("tiles", [0, 4])
def test_the_term_moves_every_cell_alike(tiles: int) -> None:
    torch.manual_seed(1)
    preset = small.LINEAR
    fusion = create(preset).fusion
    tokens = preset.grid**2 + preset.more_tokens
    coarse = torch.randn(2, 1, 2, tokens, preset.dim)
    fine = torch.randn(2, 1 + tiles, tokens, preset.dim)
    coarse[..., -1, :], fine[..., -1, :] = 0, 0
    fusion.head.quality.weight.normal_()
    before = fusion(coarse, fine)[1]
    coarse[..., -1, 0] = torch.tensor([0.1, -0.3])  # a stage each
    fine[:, 0, -1, 0] = 0.5  # the whole view
    fine[:, :, -1, 1] = 0.4  # what a view says as detail: heard where there are no tiles
    if tiles:
        fine[:, 1:, -1, 0] = 9  # tiles as whole views: not heard
        fine[:, 1:, -1, 1] = torch.tensor([0.0, 0.2, -0.4, 1.0])
        fine[:, 0, -1, 1] = 9  # not heard
    after = fusion(coarse, fine)[1]
    said = 0.1 - 0.3 + 0.5 + (0.2 if tiles else 0.4)
    moved = (after / 100).logit() - (before / 100).logit()
    torch.testing.assert_close(moved, torch.full_like(moved, said), atol=2e-3, rtol=0)


@torch.inference_mode()
def test_nothing_else_sees_the_token_of_the_term() -> None:
    torch.manual_seed(1)
    preset = small.LINEAR
    fusion = create(preset).fusion
    tokens = preset.grid**2 + preset.more_tokens
    coarse, fine = torch.randn(1, 1, 2, tokens, preset.dim), torch.randn(1, 5, tokens, preset.dim)
    before = fusion(coarse, fine)
    coarse[..., -1, 1:], fine[..., -1, 2:] = 7, 7
    for a, b in zip(before, fusion(coarse, fine), strict=True):
        torch.testing.assert_close(a, b)


@torch.inference_mode()
def test_the_term_has_bounds() -> None:
    head = create(small.LINEAR).fusion.head
    fused, detail = torch.zeros(3, 198, 16), torch.zeros(3, 196, 32)
    plain = head.cells(fused, detail)[0]
    moved = head.cells(fused, detail, torch.tensor([1e6, -1e6, 0.5]))[0] - plain
    assert moved[:, 0].tolist() == pytest.approx([2.0, -2.0, 0.5])


@pytest.fixture(scope="module")
def solved(root: Path) -> tuple[Trainee, CachedSource, Ranker, Linear]:
    torch.manual_seed(0)
    what = small.recipe(root, root)
    model = create("linear")
    model.load_backbones(what.weights.global_branch, what.weights.local_branch)
    trainee = Trainee(model, 1)
    lists = fit.splits(what)[0], read_rendered(root / "rendered" / "table.csv")
    train, rendered = (
        CachedSource(
            samples,
            build(root / f"c{i}", model, samples, depth=1, variants=1, seed=0, amp=False),
        )
        for i, samples in enumerate(lists)
    )
    calibrate_norms(trainee, train, torch.device("cpu"))
    options = Rendered(table=root / "rendered" / "table.csv", groups=2, anchors=1)
    ranker = Ranker(rendered, options, seed=0)
    settings = Linear(share=SHARE, strength=2.0, rendered=0.7, equal=3.0, anchors=4.0)
    model.fusion.head.quality.weight.data.fill_(1.0)
    linear.solve(trainee, train, ranker, settings)
    return trainee, train, ranker, settings


def _rows(trainee: Trainee, source: CachedSource) -> np.ndarray:
    with torch.no_grad():
        return linear.pooled(trainee, source.whole(0, len(source.samples))).double().numpy()


def test_it_is_the_least_squares_solution(
    solved: tuple[Trainee, CachedSource, Ranker, Linear],
) -> None:
    trainee, train, ranker, settings = solved
    x, y = _rows(trainee, train), train.all_mos.astype(float)
    z, target = _rows(trainee, ranker.source), ranker.targets.double().numpy()
    rows, wanted = [x], [y - y.mean()]
    names = [s.reference for s in ranker.source.samples]
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            gap = target[i] - target[j]
            if first and first == names[j]:
                half = 0.5 if abs(gap) >= 0.7 else np.sqrt(settings.equal)
                weight = np.sqrt(settings.rendered) * half
                rows.append(weight * (z[i] - z[j])[None])
                wanted.append(np.array([weight * gap if abs(gap) >= 0.7 else 0.0]))
        if not first:
            weight = np.sqrt(settings.anchors)
            rows.append(weight * z[i][None])
            wanted.append(np.array([weight * (target[i] - y.mean())]))
    width = x.shape[1]
    rows.append(np.sqrt(settings.strength * len(y)) * np.eye(width))
    wanted.append(np.zeros(width))
    known = np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0]

    model = trainee.model
    parts = [c.linear for c in (*model.global_branch.context, model.local_branch.context)]
    found = np.concatenate([p.weight.detach().numpy().ravel() for p in parts])
    np.testing.assert_allclose(found, SHARE * 0.05 * known, atol=2e-5, rtol=1e-3)
    offset = sum(p.bias.detach().numpy().sum() for p in parts)
    assert offset == pytest.approx(SHARE * 0.05 * (y.mean() - 50), abs=1e-6)
    assert model.fusion.head.quality.weight.unique().tolist() == pytest.approx([1 - SHARE])


def test_a_step_on_cached_features_has_the_term(
    solved: tuple[Trainee, CachedSource, Ranker, Linear],
) -> None:
    trainee, train, _, _ = solved
    trainee.eval()
    with torch.no_grad():
        term = trainee.cells(*train.whole(0, 4))[2]
        x = linear.pooled(trainee, train.whole(0, 4))
    model = trainee.model
    parts = [c.linear for c in (*model.global_branch.context, model.local_branch.context)]
    weight = torch.cat([p.weight.detach().flatten() for p in parts])
    offset = sum(p.bias.detach().sum() for p in parts)
    torch.testing.assert_close(term, x @ weight + offset, atol=1e-4, rtol=1e-3)


def test_a_bundle_has_it(root: Path, tmp_path: Path) -> None:
    what = small.recipe(
        root, tmp_path / "run", preset="linear", optimisation__epochs=2,
        linear__share=SHARE, rendered__table=root / "rendered" / "table.csv",
        rendered__groups=2, rendered__anchors=1, features__folder=tmp_path / "cache",
    )  # fmt: skip
    model = fit.fit(what)
    assert any(v.any() for n, v in model.named_parameters() if n.endswith("linear.weight"))
    bundle = export_bundle(
        model, tmp_path / "bundle", version="0.0.1", accuracy=[], card=CARD, training={}
    )
    assert bundle.manifest.tensors.context_tokens == small.LINEAR.context_tokens + 1
    paths = []
    for i, (width, height) in enumerate([(224, 224), (500, 300)]):  # without tiles, and with
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(photo(width, height, i, noise=20)).save(paths[-1])
    with LocalScorer(bundle, precision="f32") as local, TorchScorer(model) as ours:
        for ours_row, row in zip(ours.score(paths), local.score(paths), strict=True):
            assert ours_row.score == pytest.approx(row.score, abs=0.02)


def test_a_recipe_that_has_no_place_for_it_is_refused(root: Path, tmp_path: Path) -> None:
    what = small.recipe(root, tmp_path, preset="small", linear__share=0.3)
    with pytest.raises(ValueError, match="small has no linear term"):
        fit.check(what)
    with pytest.raises(ValueError, match="needs \\[features\\]"):
        small.recipe(root, tmp_path, preset="linear", linear__share=0.3, features=None)


def test_without_a_recipe_the_term_says_nothing() -> None:
    model = create("linear")
    assert not any(v.any() for n, v in model.named_parameters() if ".linear." in n)
    assert not any(v.requires_grad for n, v in model.named_parameters() if ".linear." in n)
