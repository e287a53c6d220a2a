"""int8 graphs by NNCF: quantized after training, on calibration images, into a new bundle."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from build.graphs import engine_graph
from build.parity import Array
from build.runtimes import onnx_runtime
from giqa.bundle import Bundle, write_bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, GLOBAL_VIEW, GRAPHS, LOCAL_BRANCH, LOCAL_VIEW
from giqa.errors import MissingExtraError, UsageError
from giqa.files import storage
from giqa.preprocess import Views

LEAST = 8
"""Fewer calibration images tell nothing of the ranges that activations have."""


def quantize(
    bundle: Bundle,
    views: Sequence[Views],
    folder: Path,
    *,
    version: str,
    graphs: Sequence[str] = GRAPHS,
    threads: int | None = None,
) -> Bundle:
    """Write a bundle with int8 graphs beside those that it has: all of it or nothing.

    Activations are quantized symmetrically, as TensorRT wants them: the same graphs serve CPUs
    and GPUs.

    Args:
        bundle: a verified bundle.
        views: calibration images, V = 1, none of those that accuracy is measured on.
        folder: the new bundle's place; must not exist.
        version: the new bundle's, `major.minor.patch`.
        graphs: what is quantized; the others compute in float32 in int8 mode, too.
        threads: that calibrate; all that the process may use unless given.

    Returns:
        The new bundle.

    Raises:
        MissingExtraError: NNCF is not installed.
        UsageError: too few images.
        FileExistsError: `folder` exists.
        StorageFullError: no space is left.
    """
    nncf = _nncf()
    if len(views) < LEAST:
        raise UsageError(
            f"{len(views)} images, {LEAST} are the least",
            item="--calibration",
            remedy="give a folder of photographs like those that will be scored",
        )
    if folder.exists():
        raise FileExistsError(f"{folder} exists")
    feeds = _feeds(bundle, views, graphs, threads)
    manifest = bundle.manifest
    names: dict[str, str] = dict(manifest.graphs)  # type: ignore[arg-type]
    with storage(folder), tempfile.TemporaryDirectory() as name:
        staging = Path(name)
        for entry in manifest.files:
            shutil.copyfile(bundle.folder / entry, staging / entry)
        for graph in graphs:
            names[graph] = f"{graph}.int8.onnx"
            quantized = _quantize(nncf, engine_graph(bundle, graph, "fp32"), feeds[graph], graph)
            onnx.save(quantized, staging / names[graph])
        fields = manifest.model_dump(mode="json", by_alias=True, exclude={"files"})
        fields |= {"version": version, "int8_graphs": names}
        return write_bundle(folder, fields, {p.name: p for p in staging.iterdir()})


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


def _quantize(
    nncf: Any, model: onnx.ModelProto, feeds: list[dict[str, Array]], graph: str
) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNCF's own
        found: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            # Attention keeps float where it must, and outliers move into weights.
            model_type=None if graph == LOCAL_BRANCH else nncf.ModelType.TRANSFORMER,
            subset_size=len(feeds),
        )
    for node in found.graph.node:
        node.doc_string = ""
    del found.metadata_props[:]
    return found


def _nncf() -> Any:
    try:
        import nncf
    except ImportError as e:
        raise MissingExtraError(f"NNCF does not import: {e}", extra="quantize") from e
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
