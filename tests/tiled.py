"""A bundle with tiles, made by code: small random graphs whose score depends on every pixel."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from giqa import LocalScorer
from giqa.bundle import DEFAULT, Bundle, write_bundle
from giqa.contract import GRAPHS, GRID, MAX_VIEWS, TILES
from giqa.manifest import ViewProfile
from tests.makers import jpeg
from tests.onnx_graphs import graph

GLOBAL, LOCAL, STAGES, DIM = 28, 56, 2, 6
"""Sides of the views, S and D."""

CELLS = GRID * GRID
PIXELS = 20_000
"""From so many on a picture has tiles, unless said otherwise."""


@cache
def small_bundle() -> Path:
    """The bundle, made once a process: loaded in a tenth of the default one's time."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tile_bundle(Path(folder) / DEFAULT).folder


def without_tiles(bundle: Bundle) -> Bundle:
    """The same bundle, but for tiles: as those before there were any."""
    profiles = {**bundle.manifest.profiles, "fast": ViewProfile(max_views=1)}
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"profiles": profiles}))


def _cells(side: int) -> tuple[list[tuple], dict[str, Any], int]:
    """Nodes that cut uint8 views `x` into cells: `cells` (B, V, cells, pixels of a cell)."""
    n = side // GRID
    nodes = [
        ("Cast", ["x"], ["float"], {"to": TensorProto.FLOAT}),
        ("Mul", ["float", "scale"], ["scaled"]),
        ("Reshape", ["scaled", "apart"], ["parted"]),
        ("Transpose", ["parted"], ["turned"], {"perm": [0, 1, 2, 4, 3, 5]}),
        ("Reshape", ["turned", "together"], ["cells"]),
    ]
    weights = {
        "scale": np.float32(1 / 255),
        "apart": np.array([0, 0, GRID, n, GRID, 3 * n]),
        "together": np.array([0, 0, CELLS, 3 * n * n]),
    }
    return nodes, weights, 3 * n * n


def _branch(rng: np.random.Generator, name: str) -> onnx.ModelProto:
    coarse = name == "global_branch"
    side, width = (GLOBAL, STAGES * DIM) if coarse else (LOCAL, DIM)
    nodes, weights, pixels = _cells(side)
    view, tokens = ("GLOBAL_VIEW", "GLOBAL_TOKENS") if coarse else ("LOCAL_VIEW", "LOCAL_TOKENS")
    nodes[0] = ("Cast", [view], *nodes[0][2:])
    weights["w"] = rng.normal(0, 1, (pixels, width)).astype(np.float32)
    if coarse:
        nodes += [
            ("MatMul", ["cells", "w"], ["flat"]),
            ("Reshape", ["flat", "staged"], ["stages"]),
            ("Transpose", ["stages"], [tokens], {"perm": [0, 1, 3, 2, 4]}),
        ]
        weights["staged"] = np.array([0, 0, CELLS, STAGES, DIM])
    else:
        nodes.append(("MatMul", ["cells", "w"], [tokens]))
    shape = ["batch", "views", side, side, 3]
    return graph(nodes, {view: (TensorProto.UINT8, shape)}, [tokens], weights)


def _fusion(rng: np.random.Generator) -> onnx.ModelProto:
    """Cells of the views' own tokens, each moved by the tiles' tokens in the same cell.

    That is a sum over all local views with weights 1, 2, 3, 4 for tiles and 0 for views: no tensor
    is ever empty, and no tile can be missing or in another's place.
    """
    axes = {"zero": [0], "one": [1], "two": [2], "last": [-1], "both": [1, 2]}
    nodes = [
        ("Shape", ["GLOBAL_TOKENS"], ["v"], {"start": 1, "end": 2}),
        ("Shape", ["LOCAL_TOKENS"], ["l"], {"start": 1, "end": 2}),
        ("Slice", ["LOCAL_TOKENS", "zero", "v", "one"], ["own"]),
        ("ReduceMean", ["GLOBAL_TOKENS", "two"], ["coarse"], {"keepdims": 0}),
        ("Mul", ["coarse", "own"], ["merged"]),
        ("Mul", ["merged", "w"], ["weighed"]),
        ("ReduceMean", ["weighed", "last"], ["quality"], {"keepdims": 0}),
        ("Squeeze", ["l", "zero"], ["local"]),
        ("Range", ["first", "local", "step"], ["numbers"]),
        ("Sub", ["numbers", "v"], ["places"]),
        ("Cast", ["places"], ["real"], {"to": TensorProto.FLOAT}),
        ("Add", ["real", "unit"], ["ranks"]),
        ("Relu", ["ranks"], ["tiled"]),
        ("Unsqueeze", ["tiled", "last"], ["factors"]),
        ("Mul", ["LOCAL_TOKENS", "u"], ["seen"]),
        ("ReduceMean", ["seen", "last"], ["told"], {"keepdims": 0}),
        ("Mul", ["told", "factors"], ["telling"]),
        ("ReduceSum", ["telling", "one"], ["moved"]),
        ("Add", ["quality", "moved"], ["logits"]),
        ("Sigmoid", ["logits"], ["shares"]),
        ("Mul", ["shares", "top"], ["row"]),
        ("Reshape", ["row", "grid"], ["QUALITY_MAP"]),
        ("ReduceMean", ["shares", "both"], ["score"], {"keepdims": 0}),
        ("Mul", ["score", "top"], ["flat"]),
        ("Unsqueeze", ["flat", "last"], ["SCORE"]),
    ]
    weights: dict[str, Any] = {name: np.array(axis) for name, axis in axes.items()}
    weights |= {"first": np.array(0), "step": np.array(1), "unit": 1.0, "top": 100.0}
    weights["grid"] = np.array([0, 0, GRID, GRID])
    for name in ("w", "u"):
        weights[name] = rng.normal(0, 0.15, (CELLS, DIM)).astype(np.float32)
    inputs = {
        "GLOBAL_TOKENS": (TensorProto.FLOAT, ["batch", "views", STAGES, CELLS, DIM]),
        "LOCAL_TOKENS": (TensorProto.FLOAT, ["batch", "local", CELLS, DIM]),
    }
    return graph(nodes, inputs, ["SCORE", "QUALITY_MAP"], weights)


def tile_bundle(folder: Path, *, tiles: int = TILES, tile_pixels: int = PIXELS) -> Bundle:
    """Write the bundle; its self-test image has tiles, where any picture has.

    Args:
        folder: its place; must not exist.
        tiles: of profile `fast`.
        tile_pixels: from so many on.
    """
    rng = np.random.default_rng(0)
    made = {name: _branch(rng, name) for name in GRAPHS[:2]} | {GRAPHS[2]: _fusion(rng)}
    fields: dict[str, Any] = {
        "name": "tiled",
        "version": "0.0.1",
        "preset": {},
        "tensors": {
            "global_side": GLOBAL,
            "local_side": LOCAL,
            "stages": STAGES,
            "dim": DIM,
            "token_dtype": "FP32",
            "quality_map": True,
        },
        "normalization": {},
        "profiles": {
            "fast": {"max_views": 1, "tiles": tiles, "tile_pixels": tile_pixels if tiles else 0},
            "precise": {"max_views": MAX_VIEWS},
        },
        "score": {"calibration": {"method": "none", "parameters": {}, "fitted_on": "none"}},
        "graphs": {name: f"{name}.onnx" for name in GRAPHS},
        "self_test": {"image": "self_test.jpg", "score": 50.0, "tolerance": {"f32": 0.01}},
        "accuracy": [],
        "training": {},
        "licences": {"code": "", "weights": "", "data": {}},
    }
    with tempfile.TemporaryDirectory() as name:
        staging = Path(name)
        files = {"self_test.jpg": staging / "self_test.jpg"}
        files["self_test.jpg"].write_bytes(jpeg(200, 150))
        for graph_name, model in made.items():
            files[f"{graph_name}.onnx"] = staging / f"{graph_name}.onnx"
            onnx.save(model, files[f"{graph_name}.onnx"])
        unknown = write_bundle(staging / "bundle", fields, files)
        with LocalScorer(unknown, precision="f32", self_test=False) as scorer:
            (known,) = scorer.score([files["self_test.jpg"]])
        assert known.score is not None
        tolerance = {"f32": 0.01, "bf16": 10.0}
        fields["self_test"] |= {"score": round(known.score, 4), "tolerance": tolerance}
        return write_bundle(folder, fields, files)
