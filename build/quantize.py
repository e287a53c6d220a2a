"""int8 by NNCF: ranges found after training, on calibration images, for a new bundle.

Only products with constant weights are quantized. Attention, norms, moments and contexts
take little of the time, and cause most of the error where NNCF is left to choose
(training/LOG.md); with sums and pools quantized, too, OpenVINO 2026.4 computes the local branch
otherwise than ONNX Runtime, and wrongly. Outliers of the ViT's activations are moved into its
weights (SmoothQuant), and no calibration image exceeds the ranges: where they were means of peaks,
one photograph was 8 points off. All else computes in bfloat16 where the CPU has it.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from build.graphs import engine_graph
from build.int8 import products_of
from build.numerics import SMOOTH
from build.parity import Array
from build.runtimes import onnx_runtime
from giqa.bundle import Bundle, write_bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, GLOBAL_VIEW, GRAPHS, LOCAL_BRANCH, LOCAL_VIEW
from giqa.errors import MissingExtraError, UsageError
from giqa.files import storage
from giqa.openvino import import_openvino, no_telemetry, write_products
from giqa.types import Views

INT8: Final = "int8.npz"
"""The file's name in bundles."""

CARD: Final = "README.md"
"""The model card's, whose title names the version."""

LEAST: Final = 8
"""Fewer calibration images tell nothing of the ranges that activations have."""

_PRODUCTS: Final = {GLOBAL_BRANCH: "MatMul", LOCAL_BRANCH: "Conv", FUSION: "Conv"}
"""The operator of each graph that is worth it: not the patch embedding (Conv) and the contexts
(Gemm) of the global branch, nor the products of the local branch behind its moments."""


def quantize(
    bundle: Bundle,
    views: Sequence[Views],
    folder: Path,
    *,
    version: str,
    graphs: Sequence[str] = GRAPHS,
    smooth: float = SMOOTH,
    threads: int | None = None,
    gate: Callable[[Bundle], bool] = lambda bundle: True,
) -> Bundle | None:
    """Write a bundle that computes in int8, too: all of it or nothing.

    Its graphs are the same files; what int8 adds to them is a file of its own, see `giqa.openvino`.
    Activations are quantized symmetrically: TensorRT takes no other, OpenVINO 2026.4 does not
    compile the local branch with asymmetric ones, and so one file serves CPUs and GPUs.

    Args:
        bundle: a verified bundle.
        views: calibration images, V = 1, none of those that accuracy is measured on.
        folder: the new bundle's place; must not exist.
        version: the new bundle's, `major.minor.patch`.
        graphs: what is quantized; the others compute in half precision in int8 mode, too.
        smooth: SmoothQuant's alpha for matrix products, 0..1, see `build.numerics.SMOOTH`.
        threads: that calibrate; all that the process may use unless given.
        gate: shown the finished bundle in a temporary folder, says whether it is to be written.

    Returns:
        The new bundle; None if the gate refused it: then nothing is written.

    Raises:
        MissingExtraError: NNCF is not installed.
        UsageError: too few images.
        FileExistsError: `folder` exists.
        StorageFullError: no space is left.
    """
    _nncf()
    if len(views) < LEAST:
        raise UsageError(
            f"{len(views)} images, {LEAST} are the least",
            item="--calibration",
            remedy="give a folder of photographs like those that will be scored",
        )
    if folder.exists():
        raise FileExistsError(f"{folder} exists")
    feeds = _feeds(bundle, views, graphs, threads)
    products = {}
    for graph in graphs:
        model = engine_graph(bundle, graph, "f32")
        original = onnx.ModelProto.FromString(model.SerializeToString())
        products[graph] = products_of(original, calibrate(model, feeds[graph], graph, smooth))
    manifest = bundle.manifest
    with storage(folder), tempfile.TemporaryDirectory() as name:
        staging = Path(name)
        files = {entry: bundle.folder / entry for entry in manifest.files} | {INT8: staging / INT8}
        write_products(files[INT8], products)
        if CARD in files:
            files[CARD] = staging / CARD
            files[CARD].write_text(_retitled(bundle, version), encoding="utf-8")
        fields = manifest.model_dump(mode="json", by_alias=True, exclude={"files"})
        fields |= {"version": version, "int8": INT8}
        if not gate(write_bundle(staging / manifest.name, fields, files)):
            return None
        return write_bundle(folder, fields, files)


def _retitled(bundle: Bundle, version: str) -> str:
    """The model card of the next version."""
    title = "# {} {}\n".format
    name, card = bundle.manifest.name, (bundle.folder / CARD).read_text(encoding="utf-8")
    return card.replace(title(name, bundle.manifest.version), title(name, version), 1)


def _feeds(
    bundle: Bundle, views: Sequence[Views], graphs: Sequence[str], threads: int | None
) -> dict[str, list[dict[str, Array]]]:
    """Inputs of each graph, an image at a time; the fusion graph's are float32 tokens."""
    found: dict[str, list[dict[str, Array]]] = {
        GLOBAL_BRANCH: [{GLOBAL_VIEW: one.global_view[None]} for one in views],
        LOCAL_BRANCH: [{LOCAL_VIEW: one.local_view[None]} for one in views],
        FUSION: [],
    }
    if FUSION in graphs:
        run = onnx_runtime(bundle, threads=threads).graphs
        assert run is not None
        for parts in zip(found[GLOBAL_BRANCH], found[LOCAL_BRANCH], strict=True):
            tokens = run(GLOBAL_BRANCH, parts[0]) | run(LOCAL_BRANCH, parts[1])
            found[FUSION].append({key: np.array(value) for key, value in tokens.items()})
    return found


def calibrate(
    model: onnx.ModelProto, feeds: list[dict[str, Array]], graph: str, smooth: float
) -> onnx.ModelProto:
    """Quantize a graph as NNCF does it.

    Args:
        model: float32, weights unpacked; it may be changed.
        feeds: its inputs, an image at a time.
        graph: `global_branch`, `local_branch` or `fusion`.
        smooth: SmoothQuant's alpha.

    Returns:
        The graph with QuantizeLinear and DequantizeLinear nodes.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    nncf = _nncf()
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    constants = {t.name for t in model.graph.initializer}
    float_nodes = [
        node.name
        for node in model.graph.node
        if node.op_type != _PRODUCTS[graph] or node.input[1] not in constants
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNCF's own
        found: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=float_nodes, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # The mean of images' peaks, NNCF's own, clips what single photographs need.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=smooth, convolution=-1),
                # Half of the levels, for CPUs that add int8 products in 16 bits: slow ones.
                overflow_fix=nncf.OverflowFix.DISABLE,
            ),
            # Without it NNCF does not smooth.
            model_type=nncf.ModelType.TRANSFORMER if _PRODUCTS[graph] == "MatMul" else None,
        )
    return found


def _nncf() -> Any:
    try:
        import_openvino()
        with no_telemetry():
            import nncf
    except ImportError as e:
        raise MissingExtraError(f"NNCF does not import: {e}", extra="quantize") from e
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
