"""Parity of runtimes, the images it is measured on, and int8."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_rtx
from onnx import helper, numpy_helper
from PIL import Image
from scipy import stats

from build.graphs import engine_graph
from build.images import decode, read_images, read_labelled
from build.int8 import products_of
from build.int8 import quantize as insert
from build.numerics import ONNX_RUNTIME_INT8, OPSET, SMOOTH
from build.parity import Runtime, compare, srocc
from build.parser import Settings, compile_graph
from build.profiles import bundle_profiles
from build.quantize import CARD, INT8, LEAST, calibrate, quantize
from build.runtimes import here, one_by_one
from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, GRID
from giqa.errors import MissingExtraError, NotFoundError, TableInvalidError, UsageError
from giqa.openvino import CompiledGraphs, read_products
from giqa.precision import BOUNDS
from giqa.types import Views
from tests.photos import photo

SIDE, DIM = 8, 4


def _views(count: int) -> list[Views]:
    rng = np.random.default_rng(0)
    shape = (1, SIDE, SIDE, 3)
    draw = [rng.integers(0, 255, shape, np.uint8) for _ in range(2 * count)]
    return [Views(a, b) for a, b in zip(draw[::2], draw[1::2], strict=True)]


def _model(name: str, precision: str = "f32", *, token: float = 0, score: float = 0) -> Runtime:
    """A model that one can reckon by hand: tokens are means of views, the score is their mean."""

    def run(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph == FUSION:
            mean = inputs["GLOBAL_TOKENS"].mean((1, 2, 3, 4)) + score
            return {"SCORE": mean[:, None].astype(np.float32)}
        (view,) = inputs.values()
        mean = view.reshape(*view.shape[:2], -1).mean(-1)
        shape = (*view.shape[:2], *((1,) if graph == "global_branch" else ()), GRID, DIM)
        value = np.broadcast_to(mean.reshape(*mean.shape, *[1] * (len(shape) - 2)), shape)
        key = "GLOBAL_TOKENS" if graph == "global_branch" else "LOCAL_TOKENS"
        return {key: value.astype(np.float32) + (token if graph == "global_branch" else 0)}

    return Runtime(name, precision, graphs=run)


def test_equal_runtimes_do_not_differ() -> None:
    table = compare("b@1.0.0", _views(11), _model("a"), [_model("b")], batch=4)
    (row,) = table.rows
    assert (row.score.largest, row.srocc, row.passes, row.mos_loss) == (0, 1, None, None)
    assert {d.largest for d in row.differences.values()} == {0}
    assert set(row.differences) == {"GLOBAL_TOKENS", "LOCAL_TOKENS", "SCORE"}


def test_a_branchs_difference_is_not_the_fusions() -> None:
    row = compare("b", _views(5), _model("a"), [_model("b", token=2, score=1)]).rows[0]
    assert row.differences["GLOBAL_TOKENS"].mean == pytest.approx(2, abs=1e-4)
    assert row.differences["LOCAL_TOKENS"].largest == 0
    assert row.differences["SCORE"].largest == pytest.approx(1, abs=1e-4)  # on right tokens
    assert row.score.largest == pytest.approx(3, abs=1e-4)  # end to end


def _whole(name: str, precision: str, order: list[int]) -> Runtime:
    """A runtime without tokens that ranks the images in an order of its own."""
    scores = iter(order)
    return Runtime(name, precision, whole=lambda views: [next(scores) for _ in views])


def test_gates() -> None:
    views, right = _views(6), _model("a")
    means = [one.global_view.mean() for one in views]
    order = list(np.argsort(np.argsort(means)))
    swapped = [order[1], order[0], *order[2:]]
    runtimes = [
        _whole("good", "f16", order),
        _whole("bad", "f16", swapped),
        _whole("constant", "int8", [1] * 6),
        _whole("free", "f32", swapped),
    ]
    table = compare("b", views, right, runtimes, mos=means)
    assert [row.passes for row in table.rows] == [True, False, False, None]
    assert table.rows[2].srocc is None
    assert table.reference_srocc == pytest.approx(1)
    assert table.rows[1].mos_loss == pytest.approx(1 - stats.spearmanr(swapped, means)[0])
    text = table.to_markdown()
    assert text.count("FAILED") == 2
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    assert json.loads(json.dumps(table.to_json()))["schema"] == "giqa.parity/1"


def test_srocc_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (2, 50))
    assert srocc(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
    assert srocc([1, 1, 1], [1, 2, 3]) is None


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    with (folder / "mos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "mos"])
        for i in range(LEAST):
            Image.fromarray(photo(240, 200, i, noise=4 * i)).save(folder / f"images/{i}.png")
            rows.writerow([f"{i}.png", 0.9 - i / 10])
    return folder


def test_labelled_images_are_read(photos: Path) -> None:
    paths, mos = read_labelled(photos)
    assert [p.name for p in paths] == [f"{i}.png" for i in range(LEAST)]
    assert mos == [0.9 - i / 10 for i in range(LEAST)]
    assert read_labelled(photos, 4)[0] == paths[::2]
    assert read_images(photos / "images") == paths


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, NotFoundError),
        ("image,score\na.png,1\nb.png,1\n", TableInvalidError),
        ("image,mos\na.png,good\nb.png,1\n", TableInvalidError),
        ("image,mos\na.png\nb.png,1\n", TableInvalidError),
        ("image,mos\na.png,1\n", TableInvalidError),
    ],
)
def test_bad_tables(tmp_path: Path, text: str | None, error: type) -> None:
    if text is not None:
        (tmp_path / "mos.csv").write_text(text)
    with pytest.raises(error) as caught:
        read_labelled(tmp_path)
    assert str(tmp_path / "mos.csv") in str(caught.value)


def test_folders_without_images(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFoundError):
            read_images(folder)


@pytest.fixture(scope="module")
def default() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def decoded(default: Bundle, photos: Path) -> list[Views]:
    return decode(read_images(photos / "images"), default.manifest, 1)


@pytest.fixture(scope="module")
def quantized(
    default: Bundle, decoded: list[Views], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    out = tmp_path_factory.mktemp("int8") / "bundle"
    made = quantize(default, decoded, out, version="9.9.9", graphs=[FUSION], threads=1)
    assert made is not None
    return made


def test_an_int8_bundle_is_a_bundle(default: Bundle, quantized: Bundle) -> None:
    found = load_bundle(quantized.folder).manifest
    assert found.version == "9.9.9"
    assert found.int8 == INT8
    assert found.graphs == default.manifest.graphs
    for name in (*found.graphs.values(), found.self_test.image):
        assert found.files[name] == default.manifest.files[name]
    assert (quantized.folder / CARD).read_text().startswith("# giqa-s 9.9.9\n")
    assert found.files[INT8].bytes < 20_000
    assert read_products(quantized.int8, GLOBAL_BRANCH) == []


def test_only_products_with_constant_weights_are_quantized(quantized: Bundle) -> None:
    nodes = engine_graph(quantized, FUSION, "int8").graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    taken = {
        node.op_type
        for node in nodes
        if "DequantizeLinear" in {made_by.get(name) for name in node.input}
    }
    assert taken == {"Conv"}


@pytest.fixture(scope="module")
def perceptron() -> tuple[onnx.ModelProto, onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Two matrix products, an activation's channel that is 50 times the others, and NNCF's way."""
    rng = np.random.default_rng(0)
    w, v, b = (rng.normal(size=s).astype(np.float32) for s in ((64, 128), (128, 32), (128,)))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["X", "w"], ["1"], name="first"),
            helper.make_node("Add", ["1", "b"], ["2"], name="bias"),
            helper.make_node("Gelu", ["2"], ["3"], name="gelu"),
            helper.make_node("MatMul", ["3", "v"], ["Y"], name="second"),
        ],
        "perceptron",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["batch", 9, 64])],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["batch", 9, 32])],
        [numpy_helper.from_array(x, n) for x, n in ((w, "w"), (v, "v"), (b, "b"))],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    size = np.where(np.arange(64) == 5, 50, 1)
    feeds = [{"X": (rng.normal(size=(1, 9, 64)) * size).astype(np.float32)} for _ in range(16)]
    given = onnx.ModelProto.FromString(model.SerializeToString())
    return model, calibrate(given, feeds, GLOBAL_BRANCH, SMOOTH), feeds


def test_nncfs_graph_is_made_again(
    perceptron: tuple[onnx.ModelProto, onnx.ModelProto, list[dict[str, np.ndarray]]],
) -> None:
    model, theirs, feeds = perceptron
    products = products_of(model, theirs)
    assert [p.node for p in products] == ["first", "second"]
    assert all(p.smooth is not None for p in products)
    ours = onnx.ModelProto.FromString(model.SerializeToString())
    insert(ours, products)
    options = onnxruntime.SessionOptions()
    for key, value in ONNX_RUNTIME_INT8.items():  # its sums saturate, too, without VNNI
        options.add_session_config_entry(key, value)
    exact, found, expected = (
        onnxruntime.InferenceSession(m.SerializeToString(), options).run(None, feeds[0])[0]
        for m in (model, ours, theirs)
    )
    lost = np.abs(expected - exact).max()
    assert 0 < lost < 0.05 * np.abs(exact).max()
    assert np.abs(found - expected).max() < 0.2 * lost


def test_int8_scores_are_near(quantized: Bundle, decoded: list[Views]) -> None:
    inputs = [np.stack([getattr(v, k) for v in decoded]) for k in ("global_view", "local_view")]
    exact, _ = CompiledGraphs(quantized, "f32", 1)(*inputs)
    graphs = CompiledGraphs(quantized, "int8", 1)
    found, _ = graphs(*inputs)
    assert 0 < np.abs(found - exact).max() <= BOUNDS["int8"].tolerance
    alone, _ = graphs(*(x[:1] for x in inputs))
    assert alone[0] == pytest.approx(found[0], abs=0.01)


def test_int8_is_what_tensorrt_takes(quantized: Bundle) -> None:
    model = engine_graph(quantized, FUSION, "int8")
    assert "QuantizeLinear" in {n.op_type for n in model.graph.node}
    inputs = bundle_profiles(quantized, FUSION, "int8", max_batch=8)
    settings = Settings(targets=("8.9",), level=0)
    assert isinstance(compile_graph(tensorrt_rtx, model, inputs, settings), bytes)


def test_calibration_needs_images(default: Bundle, decoded: list[Views], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="7 images, 8 are the least"):
        quantize(default, decoded[:7], tmp_path / "b", version="0.0.2")
    assert list(tmp_path.iterdir()) == []


def test_a_gate_that_is_missed_leaves_nothing(
    default: Bundle, decoded: list[Views], tmp_path: Path
) -> None:
    seen: list[str] = []

    def gate(made: Bundle) -> bool:
        seen.append(load_bundle(made.folder).manifest.version)
        return False

    out = tmp_path / "b"
    made = quantize(default, decoded, out, version="9.9.9", graphs=[FUSION], threads=1, gate=gate)
    assert (made, seen, list(tmp_path.iterdir())) == (None, ["9.9.9"], [])


def test_without_nncf(
    default: Bundle, decoded: list[Views], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError) as caught:
        quantize(default, decoded, tmp_path / "b", version="0.0.2")
    assert caught.value.remedy == "pip install 'giqa[quantize]'"


def test_every_runtime_here_is_named(default: Bundle) -> None:
    makers, absent = here(default, threads=1)
    names = [r.name for r in one_by_one(makers)]
    assert {"openvino-f32", "onnxruntime-f16 (emulated)"} <= set(names)
    assert {"tensorrt", "triton"} <= {n.split("-")[0] for n in (*names, *absent)}
