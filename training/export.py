"""Trained weights to a bundle: three ONNX graphs, self-test, manifest, model card."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from giqa.bundle import Bundle, write_bundle
from giqa.contract import GLOBAL_BRANCH, LOCAL_BRANCH, MAX_VIEWS
from giqa.decode import Preprocessor, tile_boxes
from giqa.manifest import Accuracy
from giqa.precision import BOUNDS
from giqa.types import Views
from training.card import Card, model_card
from training.graphs import export_graphs, sizes_of
from training.model import Giqa
from training.model.fusion import MapHead
from training.provenance import Origins
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
    name: str = "",
    origins: Origins | None = None,
    told: Sequence[str] = (),
    calibrated_on: str = "none: the labels are MOS on 0..100",
    board: str = "",
) -> Bundle:
    """Write a model as a bundle.

    Args:
        model: a trained model; its weights are rounded in place (no change if they were before).
        folder: the bundle's place; must not exist.
        version: `major.minor.patch`.
        accuracy: what was measured, best with this bundle's own engine.
        card: the words of the model card, and the licences.
        training: how it was trained, for the manifest.
        name: of the bundle; the preset's unless given.
        origins: of the backbones, for manifest and card.
        told: what the recipe says of the run, for the card.
        calibrated_on: the images that the head's calibration was fitted on, in words.
        board: what `python -m training board` found of the same weights, as Markdown for the card.

    Returns:
        The bundle.

    Raises:
        FileExistsError: `folder` exists.
    """
    model.eval()
    round_weights(model)
    preset = model.preset
    spec_g, spec_l = preset.global_branch, preset.local_branch
    # A known answer must know tiles where there are some.
    size = (960, 640) if preset.tile_pixels else (640, 480)
    picture = sample_image(*size)
    preprocess = Preprocessor(global_side=spec_g.view, local_side=spec_l.view)
    tiles = [tile_boxes(*size, preset.fast, spec_l.view)]
    (views,) = preprocess([np.frombuffer(picture, np.uint8)], tiles=tiles)
    assert isinstance(views, Views)
    calibration = {"gain": 1.0, "offset": 0.0}
    if isinstance(model.fusion.head, MapHead):
        gain, offset = (round(v, 6) for v in model.fusion.head.calibration.tolist())
        calibration = {"gain": gain, "offset": offset}
    with tempfile.TemporaryDirectory() as temporary:
        staging = Path(temporary)
        graphs = export_graphs(model, staging)
        (staging / SELF_TEST).write_bytes(picture)
        text = model_card(
            preset,
            version,
            list(accuracy),
            card,
            name=name,
            origins=origins,
            told=told,
            board=board,
        )
        (staging / CARD).write_text(text, encoding="utf-8")
        fields = {
            "name": name or preset.name,
            "version": version,
            "preset": asdict(preset),
            "tensors": sizes_of(preset).model_dump(),
            "normalization": {
                GLOBAL_BRANCH: {"mean": spec_g.mean, "std": spec_g.std},
                LOCAL_BRANCH: {"mean": spec_l.mean, "std": spec_l.std},
            },
            "profiles": {"fast": preset.fast.model_dump(), "precise": {"max_views": MAX_VIEWS}},
            "score": {
                "calibration": {
                    "method": "gain * logit + offset in each cell, then 100 * sigmoid",
                    "parameters": calibration,
                    "fitted_on": calibrated_on,
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
                "tolerance": {p: bounds.tolerance for p, bounds in BOUNDS.items()},
            },
            "accuracy": list(accuracy),
            "training": {
                **training,
                "backbones": {n: o.model_dump() for n, o in (origins or {}).items()},
            },
            "licences": {"code": card.code, "weights": card.weights, "data": card.data},
        }
        files = {p.name: p for p in (*graphs.values(), staging / SELF_TEST, staging / CARD)}
        return write_bundle(folder, fields, files)
