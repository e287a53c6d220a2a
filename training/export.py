"""Trained weights to a bundle: three ONNX graphs, self-test, manifest, model card."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from build.compress import compress
from build.numerics import OPSET, SCORE_TOLERANCE
from giqa.bundle import Accuracy, Bundle, write_bundle
from giqa.contract import (
    FUSION,
    GLOBAL_BRANCH,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    LOCAL_BRANCH,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    MAX_VIEWS,
    QUALITY_MAP,
    SCORE,
)
from giqa.preprocess import Preprocessor, Views
from training.card import Card, model_card
from training.model import Giqa
from training.model.fusion import MapHead
from training.rounding import round_weights

SELF_TEST = "self_test.jpg"
CARD = "README.md"


def sample_image(width: int = 640, height: int = 480, seed: int = 7) -> bytes:
    """Draw the self-test picture: smooth, sharp, textured and noisy parts, as JPEG bytes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    sky = np.stack([120 + 90 * y, 150 + 60 * y, 215 - 30 * y], -1)
    wave = 18 * np.sin(40 * x * (1 + y))[..., None]
    noise = rng.normal(0, 9, (height, width, 1)) * (x > 0.9)[..., None]
    image = Image.fromarray(np.clip(sky + wave + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        cx, cy = rng.integers(0, width), rng.integers(height // 3, height)
        r = int(rng.integers(8, 60))
        fill = tuple(int(v) for v in rng.integers(20, 235, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape([int(cx - r), int(cy - r), int(cx + r), int(cy + r)], fill=fill, outline=(10, 10, 10))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def export_graphs(model: Giqa, folder: Path) -> dict[str, Path]:
    """Export the three graphs with the contract's tensor names, batch and V dynamic.

    Args:
        model: in evaluation mode, rounded.
        folder: where the files go.

    Returns:
        Paths of the ONNX files by graph.
    """
    preset = model.preset
    sides = (preset.global_branch.view, preset.local_branch.view)
    # An example batch of 3 and V of 2: the exporter would specialise a dimension of 1.
    views = [torch.zeros(3, 2, side, side, 3, dtype=torch.uint8) for side in sides]
    n, dim, stages = preset.grid**2, preset.dim, len(preset.global_branch.blocks)
    tokens = [torch.randn(3, 2, stages, n, dim), torch.randn(3, 2, n, dim)]
    outputs = [SCORE, QUALITY_MAP] if preset.head == "map" else [SCORE]
    parts: list[tuple[str, nn.Module, Sequence[Tensor], list[str], list[str]]] = [
        (GLOBAL_BRANCH, model.global_branch, views[:1], [GLOBAL_VIEW], [GLOBAL_TOKENS]),
        (LOCAL_BRANCH, model.local_branch, views[1:], [LOCAL_VIEW], [LOCAL_TOKENS]),
        (FUSION, model.fusion, tokens, [GLOBAL_TOKENS, LOCAL_TOKENS], outputs),
    ]
    paths = {}
    for name, module, example, inputs, results in parts:
        graph = _export(module, tuple(example), inputs, results)
        compress(graph)
        paths[name] = folder / f"{name}.onnx"
        onnx.save(graph, paths[name])
    return paths


def _export(
    module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    batch, views = torch.export.Dim("batch"), torch.export.Dim("views")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=tuple({0: batch, 1: views} for _ in example),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # exporter notes with paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    return model


@torch.inference_mode()
def score_views(model: Giqa, views: Views) -> float:
    """Score one image's views with PyTorch in float32."""
    score = model(
        torch.from_numpy(views.global_view[None]), torch.from_numpy(views.local_view[None])
    )[0]
    return float(score[0, 0])


def export_bundle(
    model: Giqa,
    folder: Path,
    *,
    version: str,
    accuracy: Sequence[Accuracy],
    card: Card,
    training: dict[str, Any],
) -> Bundle:
    """Write a model as a bundle.

    Args:
        model: a trained model; its weights are rounded in place (no change if they were before).
        folder: the bundle's place; must not exist.
        version: `major.minor.patch`.
        accuracy: what was measured, best with this bundle's own engine.
        card: the words of the model card, and the licences.
        training: how it was trained, for the manifest.

    Returns:
        The bundle.

    Raises:
        FileExistsError: `folder` exists.
    """
    model.eval()
    round_weights(model)
    preset = model.preset
    spec_g, spec_l = preset.global_branch, preset.local_branch
    picture = sample_image()
    preprocess = Preprocessor(global_side=spec_g.view, local_side=spec_l.view)
    (views,) = preprocess([np.frombuffer(picture, np.uint8)])
    assert isinstance(views, Views)
    calibration = {"gain": 1.0, "offset": 0.0}
    if isinstance(model.fusion.head, MapHead):
        gain, offset = model.fusion.head.calibration.tolist()
        calibration = {"gain": gain, "offset": offset}
    with tempfile.TemporaryDirectory() as name:
        staging = Path(name)
        graphs = export_graphs(model, staging)
        (staging / SELF_TEST).write_bytes(picture)
        (staging / CARD).write_text(
            model_card(preset, version, list(accuracy), card), encoding="utf-8"
        )
        fields = {
            "name": preset.name,
            "version": version,
            "preset": asdict(preset),
            "tensors": {
                "global_side": spec_g.view,
                "local_side": spec_l.view,
                "grid": preset.grid,
                "stages": len(spec_g.blocks),
                "dim": preset.dim,
                "token_dtype": "FP32",
                "quality_map": preset.head == "map",
            },
            "normalization": {
                GLOBAL_BRANCH: {"mean": spec_g.mean, "std": spec_g.std},
                LOCAL_BRANCH: {"mean": spec_l.mean, "std": spec_l.std},
            },
            "profiles": {"fast": {"max_views": 1}, "precise": {"max_views": MAX_VIEWS}},
            "score": {
                "calibration": {
                    "method": "affine on each cell's logit, then 100 * sigmoid",
                    "parameters": calibration,
                    "fitted_on": "none: the labels are MOS on 0..100",
                }
                if preset.head == "map"
                else {
                    "method": "linear from the label range, clipped",
                    "parameters": dict(zip(("low", "high"), preset.score_range, strict=True)),
                    "fitted_on": "none",
                }
            },
            "graphs": {k: p.name for k, p in graphs.items()},
            "compile_mode": "dynamic",
            "self_test": {
                "image": SELF_TEST,
                "score": round(score_views(model, views), 4),
                "tolerance": SCORE_TOLERANCE,
            },
            "accuracy": list(accuracy),
            "training": training,
            "licences": {"code": card.code, "weights": card.weights, "data": card.data},
        }
        files = {p.name: p for p in (*graphs.values(), staging / SELF_TEST, staging / CARD)}
        return write_bundle(folder, fields, files)
