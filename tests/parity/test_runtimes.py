"""Every two runtimes of the same graphs: PyTorch, ONNX Runtime, OpenVINO."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from build.numerics import FLOAT32_OPS, ONNX_RUNTIME_OPTIONS, OPSET
from build.parity import compare
from build.runtimes import onnx_runtime
from giqa.bundle import Bundle, load_bundle
from giqa.contract import GLOBAL_BRANCH, GRAPHS, LOCAL_BRANCH
from giqa.openvino import CompiledGraphs, cpu_capabilities
from giqa.precision import BOUNDS
from giqa.types import Views
from training.card import Card
from training.export import export_bundle
from training.model import Giqa, create
from training.torch_runtime import torch_runtime

SHAPES = [(1, 1), (4, 1), (1, 3), (2, 3)]
CARD = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])


def views(bundle: Bundle, batch: int, count: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth random pictures of strongly varying contrast: scores that differ."""
    rng = np.random.default_rng([seed, batch, count])
    sizes = bundle.manifest.tensors
    coarse = rng.integers(0, 255, (batch, count, 28, 28, 3)).astype(np.float32)
    contrast = rng.uniform(0.05, 1, (batch, count, 1, 1, 1))
    coarse = 128 + (coarse - 128) * contrast
    local = coarse.repeat(sizes.local_side // 28, 2).repeat(sizes.local_side // 28, 3)
    local = np.clip(local + rng.normal(0, 5, local.shape), 0, 255)
    step = sizes.local_side // sizes.global_side
    return [local[:, :, ::step, ::step].astype(np.uint8).copy(), local.astype(np.uint8)]


def ort(bundle: Bundle, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Scores and maps by ONNX Runtime, feeding by the contract's names."""
    values: dict[str, Any] = dict(zip(("GLOBAL_VIEW", "LOCAL_VIEW"), inputs, strict=True))
    options = onnxruntime.SessionOptions()
    for key, value in ONNX_RUNTIME_OPTIONS.items():
        options.add_session_config_entry(key, value)
    for name in GRAPHS:
        session = onnxruntime.InferenceSession(
            bundle.graph(name), options, providers=["CPUExecutionProvider"]
        )
        feed = {i.name: values[i.name] for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs()]
        values |= dict(zip(names, session.run(names, feed), strict=True))
    return (
        [values["SCORE"][:, 0], values["QUALITY_MAP"]]
        if "QUALITY_MAP" in values
        else [values["SCORE"][:, 0]]
    )


@pytest.fixture(scope="module")
def model() -> Giqa:
    """giqa-s with random weights and a head so steep that scores spread over the scale."""
    torch.manual_seed(0)
    made = create("giqa-s")
    with torch.no_grad():
        made.fusion.head.quality.weight.normal_(std=0.5)
    return made


@pytest.fixture(scope="module")
def exported(model: Giqa, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "giqa-s"
    return export_bundle(model, folder, version="0.0.1", accuracy=[], card=CARD, training={})


@pytest.fixture(scope="module")
def default() -> Bundle:
    return load_bundle()


@pytest.mark.parametrize(("batch", "count"), SHAPES)
def test_onnx_runtime_equals_pytorch(model: Giqa, exported: Bundle, batch: int, count: int) -> None:
    inputs = views(exported, batch, count)
    with torch.inference_mode():
        score, quality = model(*(torch.from_numpy(v) for v in inputs))
    found = ort(exported, inputs)
    assert found[0].shape == (batch,)
    assert np.abs(found[0] - score[:, 0].numpy()).max() <= BOUNDS["f32"].tolerance
    assert np.abs(found[1] - quality.numpy()).max() <= 10 * BOUNDS["f32"].tolerance


def test_parity_with_pytorch_by_branch(model: Giqa, exported: Bundle) -> None:
    given = [Views(g[0], c[0]) for g, c in (views(exported, 1, 1, seed) for seed in range(4))]
    # Where the CPU has no bf16, PyTorch's is so slow that one picture must do.
    given = given if "BF16" in cpu_capabilities() else given[:1]
    runtimes = [onnx_runtime(exported), torch_runtime(model, "bf16")]
    table = compare("giqa-s", given, torch_runtime(model, "f32"), runtimes, batch=2)
    exact, half = table.rows
    assert set(exact.differences) == {"GLOBAL_TOKENS", "LOCAL_TOKENS", "SCORE"}
    assert exact.score.largest <= BOUNDS["f32"].tolerance
    assert exact.score.largest < half.score.largest <= BOUNDS["bf16"].tolerance


def test_the_comparison_can_fail(model: Giqa, exported: Bundle) -> None:
    inputs = views(exported, 8, 1)
    scores = ort(exported, inputs)[0]
    assert np.ptp(scores) > 1, "scores do not differ, so equality would say nothing"
    inputs[0] = np.roll(inputs[0], 1, 0)
    assert np.abs(ort(exported, inputs)[0] - scores).max() > BOUNDS["f32"].tolerance


@pytest.mark.parametrize(("batch", "count"), SHAPES)
def test_openvino_f32_equals_onnx_runtime(default: Bundle, batch: int, count: int) -> None:
    inputs = views(default, batch, count)
    score, quality = CompiledGraphs(default, "f32", 2)(*inputs)
    expected = ort(default, inputs)
    assert quality is not None
    assert np.abs(score - expected[0]).max() <= BOUNDS["f32"].tolerance
    assert np.abs(quality - expected[1]).max() <= 10 * BOUNDS["f32"].tolerance


def test_openvino_f32_equals_pytorch(model: Giqa, exported: Bundle) -> None:
    inputs = views(exported, 3, 3)
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(v) for v in inputs))[0][:, 0].numpy()
    score, _ = CompiledGraphs(exported, "f32", 2)(*inputs)
    assert np.abs(score - expected).max() <= BOUNDS["f32"].tolerance


def test_openvino_bf16_is_within_its_bound(default: Bundle) -> None:
    if "BF16" not in cpu_capabilities():
        pytest.skip("this CPU has no bf16")
    inputs = views(default, 8, 1)
    exact, _ = CompiledGraphs(default, "f32", 2)(*inputs)
    score, _ = CompiledGraphs(default, "bf16", 2)(*inputs)
    assert 0 < np.abs(score - exact).max() <= BOUNDS["bf16"].tolerance


@pytest.mark.parametrize("which", ["exported", "default"])
def test_graphs_keep_the_contract(which: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(which)
    seen: set[str] = set()
    for name in GRAPHS:
        graph = onnx.load(bundle.graph(name))
        assert [o.version for o in graph.opset_import if o.domain == ""] == [OPSET]
        seen |= {n.op_type for n in graph.graph.node}
        for value in (*graph.graph.input, *graph.graph.output):
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert dims[0] == "batch"
            if value.name != "SCORE":
                # V of what the map or the global branch has, V + T of what is local.
                assert dims[1] == ("details" if value.name.startswith("LOCAL") else "views")
        if name in (GLOBAL_BRANCH, LOCAL_BRANCH):
            (view,) = graph.graph.input
            assert view.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    # Norms and softmaxes stay nodes of their own, so that half precision can spare them.
    assert {"LayerNormalization", "Softmax", "ReduceL2"} <= seen & set(FLOAT32_OPS)


@pytest.mark.slow
def test_export_is_reproducible(model: Giqa, exported: Bundle, tmp_path: Path) -> None:
    again = export_bundle(
        model, tmp_path / "again", version="0.0.1", accuracy=[], card=CARD, training={}
    )
    assert again.digest == exported.digest
