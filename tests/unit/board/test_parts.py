"""Term and cells apart: of bundles, of older ones and of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from giqa.bundle import load_bundle
from giqa.contract import FUSION
from giqa.errors import BundleInvalidError
from giqa.manifest import Tensors
from tests import small
from tests.onnx_graphs import graph
from tests.unit.board.made import as_in_a_manifest
from training.board import parts, probes
from training.board.parts import CELLS, TERM
from training.model import create
from training.model.fusion import MapHead


def test_backbones_are_read_of_any_manifest() -> None:
    data = as_in_a_manifest(small.SMALL)
    made = probes.preset_from(data | {"of another version": 1})
    assert made.global_branch == small.SMALL.global_branch
    assert made.local_branch.stages == small.SMALL.local_branch.stages
    assert probes.why_not(data) == ""
    assert "moments" in probes.why_not(as_in_a_manifest(small.TINY))
    del data["local_branch"]
    assert "local_branch" in probes.why_not(data)


def tokens(sizes: Tensors) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = sizes.stages, sizes.tokens, sizes.dim
    return {
        "GLOBAL_TOKENS": rng.normal(size=(3, 2, *shape)).astype(np.float32),
        "LOCAL_TOKENS": rng.normal(size=(3, 2, *shape[1:])).astype(np.float32),
    }


def infer(model: onnx.ModelProto | Path, names: list[str], given: dict[str, np.ndarray]) -> Any:
    what = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(what).run(names, given)


def test_parts_of_the_default_bundle() -> None:
    """Cells alone: a graph that is told nothing, tokens without a term. The term: its logit."""
    bundle = load_bundle(None)
    given = tokens(bundle.manifest.tensors)
    (score,) = infer(bundle.graph(FUSION), ["SCORE"], given)
    untold = onnx.load(bundle.graph(FUSION))
    (weight,) = (t for t in untold.graph.initializer if t.name.startswith("head.whole.weight"))
    weight.raw_data = bytes(len(weight.raw_data))
    coarse, fine = given["GLOBAL_TOKENS"][..., -1, :], given["LOCAL_TOKENS"][..., -1, :]
    logit = (coarse[..., 0].sum(2) + fine[..., :2].sum(-1)).clip(-2, 2)  # `fusion._LINEAR`
    calibration = bundle.manifest.score.calibration.parameters
    good = 1 / (1 + np.exp(-(calibration["gain"] * logit + calibration["offset"])))
    without = {name: value.copy() for name, value in given.items()}
    for value in without.values():
        value[..., -1, :2] = 0
    (alone,) = infer(untold, ["SCORE"], without)
    assert np.abs(score - alone).max() > 0.1
    with parts.bundle_with_parts(bundle) as (copy, found):
        ours = infer(copy.graph(FUSION), ["SCORE", "QUALITY_MAP"], given)
        assert copy.manifest.id == bundle.manifest.id
        folder = copy.folder
    assert not folder.exists()
    np.testing.assert_allclose(ours[0], score, atol=1e-4)
    assert found.names == (TERM, CELLS)
    assert ours[1].shape == (3, 1, 1, 2)
    np.testing.assert_allclose(ours[1][:, 0, 0, 0], 100 * good.mean(1), atol=1e-3)
    np.testing.assert_allclose(ours[1][:, 0, 0, 1], alone.ravel(), atol=1e-4)
    assert parts.absent(bundle.manifest.preset) == {}


def mixture() -> onnx.ModelProto:
    """A head that mixes cells with a term, as bundles had it up to 0.3.0; D is 2."""
    nodes = [
        ("Shape", ["LOCAL_TOKENS"], ["lead"], {"start": 0, "end": 2}),
        ("Reshape", ["LOCAL_TOKENS", "flat"], ["x"]),
        ("Gather", ["x", "first"], ["logit"], {"axis": 2}),
        ("Gather", ["x", "second"], ["said"], {"axis": 2}),
        ("Softmax", ["said"], ["weight"], {"axis": -1}),
        ("Mul", ["weight", "logit"], ["weighed"]),
        ("ReduceSum", ["weighed", "one"], ["own"]),
        ("ReduceMean", ["said", "one"], ["term"]),
        ("Sub", ["term", "own"], ["less"]),
        ("Mul", ["less", "share"], ["shared"]),
        ("Add", ["logit", "shared"], ["mixed"]),
        ("Mul", ["mixed", "gain"], ["gained"]),
        ("Add", ["gained", "offset"], ["calibrated"]),
        ("Sigmoid", ["calibrated"], ["good"]),
        ("Mul", ["good", "most"], ["quality"]),
        ("Mul", ["weight", "quality"], ["parts"]),
        ("ReduceSum", ["parts", "one"], ["all"]),
        ("Reshape", ["all", "lead"], ["views"]),
        ("ReduceMean", ["views", "one"], ["SCORE"]),
        ("Concat", ["lead", "square"], ["shape"], {"axis": 0}),
        ("Reshape", ["quality", "shape"], ["QUALITY_MAP"]),
    ]
    weights = {
        "flat": np.array([-1, 4, 2]), "one": np.array([1]), "square": np.array([2, 2]),
        "first": np.array(0), "second": np.array(1), "share": np.float32(0.8),
        "gain": np.float32(1.5), "offset": np.float32(0.2), "most": np.float32(100),
    }  # fmt: skip
    tokens_of = {
        "GLOBAL_TOKENS": (onnx.TensorProto.FLOAT, ["batch", "views", 1, 4, 2]),
        "LOCAL_TOKENS": (onnx.TensorProto.FLOAT, ["batch", "views", 4, 2]),
    }
    return graph(nodes, tokens_of, ["SCORE", "QUALITY_MAP"], weights)


def test_term_and_cells_of_an_older_bundle_are_its_logits() -> None:
    model = mixture()
    added = parts.Graph(model.graph, "fusion.onnx").parts()
    assert added.names == (TERM, CELLS)
    assert "'term' (term) and 'own' (cells)" in added.how
    parts._replace_map(model.graph, added)
    onnx.checker.check_model(model)
    rng = np.random.default_rng(1)
    local = rng.normal(size=(3, 2, 4, 2)).astype(np.float32)
    given = {"GLOBAL_TOKENS": np.zeros((3, 2, 1, 4, 2), np.float32), "LOCAL_TOKENS": local}
    score, found = infer(model, ["SCORE", "QUALITY_MAP"], given)
    logit, said = local[..., 0], local[..., 1]
    weight = np.exp(said) / np.exp(said).sum(-1, keepdims=True)

    def scored(x: np.ndarray) -> np.ndarray:
        return 100 / (1 + np.exp(-(1.5 * x + 0.2)))

    own = (weight * logit).sum(-1)
    cells = logit + 0.8 * (said.mean(-1) - own)[..., None]
    np.testing.assert_allclose(score[:, 0], (weight * scored(cells)).sum(-1).mean(1), rtol=1e-5)
    assert found.shape == (3, 1, 1, 2)
    np.testing.assert_allclose(found[:, 0, 0, 0], scored(said.mean(-1)).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found[:, 0, 0, 1], scored(own).mean(1), rtol=1e-5)


def test_another_graph_is_refused_with_what_to_do() -> None:
    for model in (mixture(), onnx.load(load_bundle(None).graph(FUSION))):
        for node in model.graph.node:
            if node.op_type in ("Sub", "Gelu"):
                node.op_type = "Erf"
        with pytest.raises(BundleInvalidError, match="0 subtractions") as refused:
            parts.Graph(model.graph, "fusion.onnx").parts()
        assert "--whole" in refused.value.remedy


@torch.inference_mode()
def test_the_parts_of_a_run_with_a_linear_term_make_its_logit() -> None:
    torch.manual_seed(0)
    model = create("linear")
    head = model.fusion.head
    assert isinstance(head, MapHead)
    assert head.whole is not None
    for one in (*model.global_branch.context, model.local_branch.context):
        one.linear.weight.normal_(0, 0.01)
    head.whole.weight.zero_()
    views = [torch.randint(0, 256, (2, 1, 224, 224, 3), dtype=torch.uint8) for _ in range(2)]
    score, found = parts.WithCells(model)(*views)
    torch.testing.assert_close(score, model(*views)[0])
    term = (found[:, 0, 0, 0] / 100).logit()
    assert term.abs().min() > 1e-3
    head.quality.weight.zero_()  # then cells are alike, and logits of one cell add up
    _, found = parts.WithCells(model)(*views)
    whole = (model(*views)[0][:, 0] / 100).logit()
    torch.testing.assert_close(whole, (found / 100).logit().sum(3)[:, 0, 0], atol=1e-3, rtol=0)


@torch.inference_mode()
def test_cells_alone_of_a_run_are_told_nothing() -> None:
    torch.manual_seed(0)
    model = create("small")
    head = model.fusion.head
    assert isinstance(head, MapHead)
    assert head.whole is not None
    views = [torch.randint(0, 256, (2, 3, 224, 224, 3), dtype=torch.uint8) for _ in range(2)]
    before = model(*views)[0]
    score, cells = parts.WithCells(model)(*views)
    torch.testing.assert_close(score, before)
    torch.testing.assert_close(model(*views)[0], before)
    head.whole.weight.zero_()
    alone = model(*views)[0]
    assert (alone - before).abs().max() > 1e-3
    torch.testing.assert_close(cells[:, 0, 0], alone)


def test_models_without_parts_say_why() -> None:
    assert set(parts.absent({"head": "pooled"})) == {TERM, CELLS}
    assert parts.absent({"head": "map", "context": 128, "context_tokens": 4}) == {}
    assert set(parts.absent({"head": "map", "context_tokens": 2})) == {TERM}
    why = parts.absent({"head": "map", "context_tokens": 0})
    assert "whole score" in why[CELLS]
