"""Content features of pictures, by a timm backbone: what photographs are matched by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from giqa import inputs
from giqa.decode import probe, views_by_pillow
from giqa.errors import GiqaError, NotFoundError, UsageError
from giqa.types import Item
from training import cache
from training.data.samples import Sample
from training.features import BATCH, Runner, runner
from training.model import backbones
from training.model.branches import Normalize

BACKBONE = "vit_base_patch16_clip_quickgelu_224.openai"
"""CLIP's ViT-B/16, as in the recipes."""

Pool = Literal["token", "mean"]

THUMBNAIL = 32
_STAMP = 40  # bytes: SHA-256, width, height


@dataclass(frozen=True)
class Embedded:
    """What was found of n pictures.

    Attributes:
        features: (n, F) float32, of length 1; zeros where a picture cannot be read.
        thumbnails: (n, 32, 32) uint8, grey, the whole frame squashed.
        sha256: of each file, hexadecimal; zeros where it cannot be read.
        sizes: (n, 2) int64, upright width and height in pixels.
    """

    features: npt.NDArray[np.float32]
    thumbnails: npt.NDArray[np.uint8]
    sha256: list[str]
    sizes: npt.NDArray[np.int64]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: whether the picture could be read."""
        return self.sizes[:, 0] > 0


class _Pooled(nn.Module):
    """Views to pooled features."""

    def __init__(self, backbone: Any, pool: Pool) -> None:
        super().__init__()
        config = backbone.pretrained_cfg
        self.backbone, self.pool = backbone, pool
        self.normalize = Normalize(tuple(config["mean"]), tuple(config["std"]))

    def forward(self, views: Tensor) -> Tensor:
        """(B, 1, side, side, 3) uint8 to (B, F) float32 of length 1."""
        found = self.backbone.forward_features(self.normalize(views))
        if found.ndim == 4:  # a CNN's last stage
            pooled = found.mean((2, 3))
        elif self.pool == "token":
            pooled = found[:, 0]
        else:
            pooled = found[:, self.backbone.num_prefix_tokens :].mean(1)
        return nn.functional.normalize(pooled.float(), dim=1)


class Embedder:
    """A backbone with weights.

    Views are the whole frame squashed to the backbone's square, as in profile `fast`: a centre crop
    would not see what stands at the sides, and what a picture shows survives squashing.

    Args:
        backbone: timm model name.
        weights: safetensors file with timm's key names.
        pool: of a ViT, the class token or the mean of the other final tokens; a CNN's last stage is
            always averaged.

    Attributes:
        backbone: timm model name.
        pool: as given.
        digest: SHA-256 of the weights that were loaded.

    Raises:
        UsageError: timm has no such model, it has no class token, or the weights do not fit.
        NotFoundError: no such file of weights.
    """

    def __init__(self, backbone: str, weights: Path, pool: Pool = "token") -> None:
        try:
            model = backbones.create(backbone, num_classes=0)
        except (RuntimeError, ValueError) as e:
            raise UsageError(str(e), item=backbone, remedy="give the name of a timm model") from e
        tokens = hasattr(model, "num_prefix_tokens")
        if tokens and pool == "token" and not model.num_prefix_tokens:
            raise UsageError("has no class token", item=backbone, remedy="take the mean of tokens")
        try:
            state, _ = backbones.weights(backbone, weights)
            backbones.load_cut(model, state, what=backbone)
        except FileNotFoundError as e:
            raise NotFoundError("no such file of weights", item=str(weights)) from e
        except Exception as e:  # safetensors has an error of its own, not a ValueError
            raise UsageError(
                str(e)[:200], item=str(weights), remedy=f"give timm's weights of {backbone}"
            ) from e
        self.backbone, self.pool = backbone, pool
        self.digest = backbones.weights_digest(model.state_dict().items())
        self._model = _Pooled(model.eval(), pool).eval()
        self._side = int(model.pretrained_cfg["input_size"][-1])
        self._run: Runner | None = None

    def __call__(self, paths: Sequence[Path], folder: Path, *, what: str) -> Embedded:
        """Compute features, or go on where an interrupted run stopped, or read a finished cache.

        Args:
            paths: image files.
            folder: the cache on disk; float16, so features are good to about 1e-3.
            what: the pictures in words, for the progress bar.

        Returns:
            What was found, in the order of `paths`. A picture that cannot be read costs only
            itself, see `why_unreadable`.

        Raises:
            UsageError: the folder holds features of other pictures or of another backbone.
            StorageFullError: no room; what was saved stays.
        """
        samples = [Sample(path, 0) for path in paths]
        identity = {
            "backbone": self.backbone.partition(".")[0],  # which weights, the digest says
            "pool": self.pool,
            "weights": self.digest,
            "side": self._side,
            "samples": cache.fingerprint(samples),
            "n": len(samples),
            "runner": "cuda" if torch.cuda.is_available() else "openvino",
        }

        def compute(start: int, end: int) -> list[npt.NDArray[Any]]:
            return self._rows(paths[start:end])

        try:
            cache.fill(folder, identity, len(paths), BATCH, compute, what=what)
        except ValueError as e:
            if isinstance(e, GiqaError):
                raise
            raise UsageError(
                "holds features of other pictures or weights",
                item=str(folder),
                remedy="delete it, or give another --cache",
            ) from e
        arrays, _ = cache.read(folder)
        return _unpacked(*(np.asarray(a) for a in arrays))

    def _rows(self, paths: Sequence[Path]) -> list[npt.NDArray[Any]]:
        side = self._side
        views = np.zeros((len(paths), 1, side, side, 3), np.uint8)
        thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL), np.uint8)
        stamps = np.zeros((len(paths), _STAMP), np.uint8)
        for i, path in enumerate(paths):
            try:
                views[i], size, digest = _view(path, side)
            except GiqaError:
                continue
            thumbnails[i] = _thumbnail(views[i, 0])
            stamps[i] = np.frombuffer(digest + np.array(size, ">u4").tobytes(), np.uint8)
        if self._run is None:  # compiling takes seconds and a finished cache needs none
            self._run = runner(self._model, [side], amp=False)
        features = self._run(torch.from_numpy(views))[0] * stamps.any(1)[:, None]
        return [features, thumbnails, stamps]


def why_unreadable(path: Path) -> GiqaError:
    """Why a picture could not be read, by trying once more.

    Returns:
        The error, with the picture's name.
    """
    try:
        _view(path, THUMBNAIL)
    except GiqaError as e:
        e.item = str(path)
        return e
    return UsageError("was unreadable and is not any more", item=str(path), remedy="run again")


def _view(path: Path, side: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int], bytes]:
    data = inputs.read(Item.of(path))
    found = probe(data)
    views = views_by_pillow(data, found, None, global_side=side, local_side=side)
    return views.local_view, found.upright_size, hashlib.sha256(data.tobytes()).digest()


def _thumbnail(view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    small = Image.fromarray(view).convert("L").resize((THUMBNAIL,) * 2, Image.Resampling.BOX)
    return np.asarray(small)


def _unpacked(
    features: npt.NDArray[Any], thumbnails: npt.NDArray[Any], stamps: npt.NDArray[Any]
) -> Embedded:
    exact = features.astype(np.float32)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    # The cache knows float16 only, which holds every byte exactly.
    raw = stamps.astype(np.uint8)
    return Embedded(
        features=exact / np.maximum(length, 1e-6),
        thumbnails=thumbnails.astype(np.uint8),
        sha256=[bytes(row[:32]).hex() for row in raw],
        sizes=np.frombuffer(raw[:, 32:].tobytes(), ">u4").reshape(-1, 2).astype(np.int64),
    )
