"""Ridge and MLP on the frozen features: what the board measures beside the model."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from giqa import files
from giqa.contract import GLOBAL_BRANCH, LOCAL_BRANCH
from giqa.manifest import Manifest
from training import baseline, pooled
from training.board import ridge, tiles
from training.board.pictures import PictureSet
from training.board.recipe import BoardRecipe
from training.model import Giqa, GlobalSpec, LocalSpec, Preset, create
from training.model.backbones import weights_digest
from training.processes import alone
from training.rounding import round_weights

RIDGE, MLP, SMALL = "ridge", "MLP", "ridge on 1,000"
NAMES = (RIDGE, MLP, SMALL)
FEW = 1000

_VERSION = 1
_GLOBAL, _LOCAL = GLOBAL_BRANCH, LOCAL_BRANCH
_WIDTH = 8  # of what comes behind the backbones, which is not computed

Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Scores of one probe.

    Attributes:
        how: what it was fitted on, and its strength.
        scores: (n,) by set.
    """

    how: str
    scores: dict[str, FloatArray]


def preset_from(data: Mapping[str, Any]) -> Preset:
    """The backbones of a model as a preset; what comes behind them is left out.

    Args:
        data: the model's preset as it stands in a manifest, also of an older version.

    Raises:
        ValueError: its backbones are not described as this version does.
    """
    try:
        coarse, fine = (_of(k, data[n]) for k, n in ((GlobalSpec, _GLOBAL), (LocalSpec, _LOCAL)))
        return Preset(
            name=str(data["name"]),
            global_branch=replace(coarse, project=True),
            local_branch=replace(fine, embed_width=_WIDTH),
            dim=_WIDTH,
        )
    except (KeyError, TypeError) as e:
        raise ValueError(f"its backbones are not described as here: {e}") from e


def _of(kind: Any, data: Mapping[str, Any]) -> Any:
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def why_not(preset: Mapping[str, Any]) -> str:
    """Why there can be no probes beside a model of a preset; empty if there can."""
    try:
        made = preset_from(preset)
    except ValueError as e:
        return str(e)
    if made.local_branch.embed != "moments":
        return "the CNN's features are pooled where it embeds moments; this model has none"
    return ""


class Features:
    """Pooled features of sets, computed once: the frozen backbones over whole frames.

    Where the model sees tiles of large pictures, the CNN's moments over them join.

    Args:
        recipe: backbones, threads, cache.
        preset: which blocks and stages are pooled.
        manifest: the model's, for its tiles.
    """

    def __init__(self, recipe: BoardRecipe, preset: Preset, manifest: Manifest) -> None:
        self._recipe, self._preset, self._manifest = recipe, preset, manifest
        self._model: Giqa | None = None
        self._weights = ""

    def of(self, one: PictureSet) -> Array:
        """Features (n, F) of a set's pictures.

        Raises:
            GiqaError: a picture cannot be decoded (it is named), or the disk is full. What was
                computed is kept.
            FileNotFoundError: a backbone is missing.
        """
        model, amp = self._loaded(), self._recipe.amp
        folder = self._recipe.cache / "features"
        with files.storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        whole = folder / f"{one.name}-{self._whole_key(one)[:16]}"
        native = folder / f"{one.name}-tiles-{self.key(one)[:16]}"
        with alone(folder, wait=True):  # boards of several models share them
            found = baseline.features_of(whole, model, one.samples, amp=amp)
            if self._manifest.tiles:
                frames = pooled.pooled(whole, model, one.samples, amp=amp)[-1]
                frames = np.asarray(frames).reshape(len(one.samples), -1)
                of_tiles = tiles.features(
                    native, model, one.samples, self._manifest, frames, amp=amp
                )
                found = np.concatenate([found, of_tiles], 1)
        return found

    def key(self, one: PictureSet) -> str:
        """What decides the features of a set."""
        fast = self._manifest.profiles["fast"]
        seen = f"{fast.tiles} tiles from {fast.tile_pixels} pixels" if fast.tiles else ""
        return hashlib.sha256(f"{self._whole_key(one)} {seen}".encode()).hexdigest()

    def _whole_key(self, one: PictureSet) -> str:
        self._loaded()
        coarse, fine = self._preset.global_branch, self._preset.local_branch
        taps = [coarse.view, coarse.blocks, fine.view, fine.stages]
        about = [one.digest, self._weights, self._preset.name, taps, self._recipe.amp]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def _loaded(self) -> Giqa:
        if self._model is None:
            torch.set_num_threads(self._recipe.threads)
            model = create(self._preset)
            weights = self._recipe.weights
            model.load_backbones(weights.global_branch, weights.local_branch)
            round_weights(model)
            backbones = (model.global_branch.backbone, model.local_branch.backbone)
            digests = [weights_digest(b.state_dict().items()) for b in backbones]
            self._model, self._weights = model, "-".join(digests)
        return self._model


class Probes:
    """Ridge, MLP and ridge on 1,000, fitted on training images and kept with their scores.

    Args:
        recipe: cache.
        features: of sets.
        train: the training images.
    """

    def __init__(self, recipe: BoardRecipe, features: Features, train: PictureSet) -> None:
        self._folder = recipe.cache / "probes"
        self._features, self._train = features, train

    def fit(self, name: str, sets: Sequence[PictureSet], without: str = "") -> Fitted:
        """Fit a probe and score sets with it, or read what was scored before.

        Args:
            name: `ridge`, `MLP` or `ridge on 1,000`.
            sets: what is scored.
            without: a subset that is left out of training.

        Returns:
            Scores of all sets.
        """
        kept = np.array([not without or p.subset != without for p in self._train.pictures])
        rows = np.flatnonzero(kept)
        if name == SMALL and len(rows) > FEW:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:FEW])
        paths = {one.name: self._file(name, without, rows, one) for one in sets}
        found = {key: scored for key, path in paths.items() if (scored := _read(path)) is not None}
        left = [one for one in sets if one.name not in found]
        if left:
            print(f"fitting {name}{without and f' without {without}'}", file=sys.stderr, flush=True)
            mos = np.array([p.mos for p in self._train.pictures], np.float32)[rows]
            predict, how = _fit(name, self._features.of(self._train)[rows], mos)
            for one in left:
                found[one.name] = how, predict(self._features.of(one))
                _write(paths[one.name], *found[one.name])
        told = next((how for how, _ in found.values()), "")
        return Fitted(told, {key: scores for key, (_, scores) in found.items()})

    def _file(self, name: str, without: str, rows: npt.NDArray[np.int64], one: PictureSet) -> Path:
        about = [_VERSION, name, without, self._features.key(self._train), rows.tolist(),
                 self._features.key(one)]  # fmt: skip
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        return self._folder / f"{one.name}-{digest[:32]}.npz"


def _fit(name: str, x: Array, mos: Array) -> tuple[Callable[[Array], FloatArray], str]:
    if name != MLP:
        found = ridge.fit(x, mos)
        return found, f"{len(x)} images, alpha {found.alpha:g}"
    mean, spread = ridge.standard(x)
    z = (x - mean) / spread
    net = baseline.fit_mlp(z, mos)
    return lambda new: pooled.predict(net, [(new - mean) / spread]), f"{len(x)} images"


def _read(path: Path) -> tuple[str, FloatArray] | None:
    try:
        with np.load(path, allow_pickle=False) as found:
            return str(found["how"]), found["scores"]
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _write(path: Path, how: str, scores: FloatArray) -> None:
    with files.storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    np.savez(out, how=np.array(how), scores=scores)
    files.write(path, out.getvalue())
