"""Cached features of a model's frozen part: what lets two CPU cores train the rest.

Row = sample * variants + variant. Variant 0 is the whole frame; the others are augmented: a random
region of another aspect ratio squashed to the square, mirrored half of the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from giqa.contract import TILES
from giqa.decode import Preprocessor
from giqa.openvino import cpu_options, import_openvino
from training import cache
from training.data.table import Sample
from training.model import Giqa
from training.model.backbones import weights_digest
from training.views import Boxes, jitter_box, make_tiled_views, make_views

BATCH = 8

Runner = Callable[..., list[npt.NDArray[np.float32]]]
"""Views, one tensor (B, 1, side, side, 3) uint8 an input, B at most `BATCH`, to outputs."""


class Frozen(nn.Module):
    """The frozen part of a model: the first ViT blocks and the whole CNN.

    Args:
        model: the model; its modules are shared, not copied.
        depth: how many ViT blocks are frozen.
    """

    def __init__(self, model: Giqa, depth: int) -> None:
        super().__init__()
        self.global_branch, self.local_branch = model.global_branch, model.local_branch
        self.depth = depth
        #: Tensors of the ViT's state among the outputs.
        self.n_state = 1 + sum(tap < depth - 1 for tap in model.preset.global_branch.blocks)

    def forward(self, global_view: Tensor, local_view: Tensor) -> tuple[Tensor, ...]:
        """GLOBAL_VIEW and LOCAL_VIEW, (B, 1, H, W, 3) uint8, to state, stages and their pool.

        The pool (B, 2 * channels) is there where the model has context tokens.
        """
        state = self.global_branch.prefix(global_view, self.depth)
        stages = self.local_branch.stages(local_view)
        if self.local_branch.context is None:
            return (*state, *stages)
        return (*state, *stages, self.local_branch.pool(stages))

    def weights(self) -> list[tuple[str, Tensor]]:
        """The frozen tensors by name; ViT blocks that train are not among them."""
        later = tuple(
            f"blocks.{i}." for i in range(self.depth, len(self.global_branch.backbone.blocks))
        )
        vit = self.global_branch.backbone.state_dict().items()
        return [
            *((name, value) for name, value in vit if not name.startswith(later)),
            *self.local_branch.backbone.state_dict().items(),
        ]


class Detail(nn.Module):
    """The pooled features of tiles.

    Args:
        model: the model; its modules are shared, not copied.
    """

    def __init__(self, model: Giqa) -> None:
        super().__init__()
        self.local_branch = model.local_branch

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, 1, H, W, 3) uint8 to (B, 2 * channels)."""
        return self.local_branch.pool(self.local_branch.stages(tiles))


def runner(module: nn.Module, sides: Sequence[int], *, amp: bool) -> Runner:
    """Compile a module of views for the hardware at hand; it takes seconds.

    On a CPU that is OpenVINO: two to five times as fast as PyTorch here, and what serves.

    Args:
        module: takes views and gives one tensor or several; on a GPU it stays there.
        sides: of its views.
        amp: run in bfloat16.
    """
    if torch.cuda.is_available():
        module.eval().cuda()

        @torch.inference_mode()
        def on_gpu(*views: Tensor) -> list[npt.NDArray[np.float32]]:
            with torch.autocast("cuda", torch.bfloat16, enabled=amp):
                found = module(*(v.cuda() for v in views))
            parts = found if isinstance(found, tuple) else (found,)
            return [t.float().cpu().numpy() for t in parts]

        return on_gpu
    ov = import_openvino()
    example = tuple(torch.zeros(BATCH, 1, side, side, 3, dtype=torch.uint8) for side in sides)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: deprecated, and sizes become constants
        graph = ov.convert_model(module.eval(), example_input=example)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        **cpu_options(torch.get_num_threads(), half=amp),
    }
    compiled = ov.compile_model(graph, "CPU", options)

    def on_cpu(*views: Tensor) -> list[npt.NDArray[np.float32]]:
        count = len(views[0])
        missing = BATCH - count  # the graph was traced with one batch size
        found = compiled([np.pad(v.numpy(), [(0, missing), *[(0, 0)] * 4]) for v in views])
        return [found[i][:count] for i in range(len(compiled.outputs))]

    return on_cpu


def _identity(
    frozen: Frozen,
    model: Giqa,
    samples: Sequence[Sample],
    variants: int,
    seed: int,
    amp: bool,
) -> dict[str, object]:
    """What decides the contents. Models that share their frozen part share the cache."""
    coarse, fine = asdict(model.preset.global_branch), asdict(model.preset.local_branch)
    del coarse["project"], fine["normalize"], fine["embed_width"]
    for spec in (coarse, fine):  # which weights they are, their digest says
        spec["backbone"] = spec["backbone"].partition(".")[0]
    coarse["blocks"] = [tap for tap in coarse["blocks"] if tap < frozen.depth - 1]
    return {
        "global": coarse,
        "local": fine,
        "depth": frozen.depth,
        "n_state": frozen.n_state,
        "weights": weights_digest(frozen.weights()),
        "samples": cache.fingerprint(samples),
        "n": len(samples),
        "variants": variants,
        "seed": seed,
        "amp": amp,
        "tiles": model.preset.tile_pixels,
        "runner": "cuda" if torch.cuda.is_available() else "openvino",
    }


class FeatureCache:
    """Features on disk, memory-mapped.

    Args:
        folder: a folder written by `build`.

    Attributes:
        variants: variants per sample.
        identity: what it was made from.
        n_state: tensors of the ViT's state among the arrays.
        arrays: memory-mapped float16 arrays (n * variants, ...): the ViT's state, see
            `GlobalBranch.prefix`, then one a CNN stage, see `LocalBranch.stages`, then, where the
            model has context tokens, the pooled features of four tiles (4, 2 * channels): of the
            whole view four times where a picture has none.
    """

    def __init__(self, folder: Path) -> None:
        self.arrays, meta = cache.read(folder)
        self.identity = meta
        self.variants: int = meta["variants"]
        self.n_state: int = meta["n_state"]

    def batch(self, rows: npt.NDArray[np.int64]) -> tuple[list[Tensor], list[Tensor]]:
        """Read rows, as float32: state and stages."""
        parts = [torch.from_numpy(a[rows]).float() for a in self.arrays]
        return parts[: self.n_state], parts[self.n_state :]


def build(
    folder: Path,
    model: Giqa,
    samples: Sequence[Sample],
    *,
    depth: int,
    variants: int,
    seed: int,
    amp: bool = True,
) -> FeatureCache:
    """Compute the cache, or go on where an interrupted run stopped.

    Args:
        folder: where it goes; a finished cache made from the same things is reused.
        model: its backbones are run, on the CPU or a GPU where there is one; what is frozen must
            be rounded already.
        samples: images, in the order of the cache's rows.
        depth: how many ViT blocks are frozen; the CNN is, whole.
        variants: variants per sample, at least 1.
        seed: seed of the augmentation; each row draws from its own stream.
        amp: run in bfloat16.

    Returns:
        The cache.

    Raises:
        ValueError: the folder holds a cache of something else.
        GiqaError: an image cannot be decoded (it is named).
        StorageFullError: no room; what was saved stays, and the next call goes on from there.
    """
    model.eval()
    device = model.local_branch.reduce.weight.device
    frozen = Frozen(model, depth)
    sides = model.preset.global_branch.view, model.preset.local_branch.view
    preprocess = Preprocessor(global_side=sides[0], local_side=sides[1], batch=BATCH, threads=2)
    run: list[Runner] = []

    def compute(start: int, end: int) -> list[npt.NDArray[np.float32]]:
        if not run:  # a finished cache needs none
            run.append(runner(frozen, sides, amp=amp))
        chosen = choose_variants(samples, variants, seed, start, end)
        if model.local_branch.context is None:
            return run[0](*make_views(preprocess, *chosen))
        coarse, fine, tiles = make_tiled_views(preprocess, *chosen, model.preset.fast)
        *found, whole = run[0](coarse, fine)
        detail = np.repeat(whole[:, None], TILES, 1)  # where there are no tiles
        if (large := [i for i, t in enumerate(tiles) if len(t)]) and len(run) == 1:
            run.append(runner(Detail(model), sides[1:], amp=amp))
        for i in large:
            (detail[i],) = run[1](tiles[i].unsqueeze(1))
        return [*found, detail]

    identity = _identity(frozen, model, samples, variants, seed, amp)
    cache.fill(folder, identity, len(samples) * variants, BATCH, compute, what="features")
    model.to(device)
    return FeatureCache(folder)


Chosen = tuple[list[Path], list[Callable[[int, int], Boxes]], list[bool]]
"""Arguments of `make_views`: files, regions, and whether they are mirrored."""


def choose_variants(
    samples: Sequence[Sample], variants: int, seed: int, start: int, end: int
) -> Chosen:
    """What rows start .. end - 1 show; see the module's text."""
    paths: list[Path] = []
    boxes: list[Callable[[int, int], Boxes]] = []
    mirror: list[bool] = []
    for row in range(start, end):
        rng, augmented = np.random.default_rng([seed, row]), bool(row % variants)
        paths.append(samples[row // variants].path)
        boxes.append(partial(_jittered, rng) if augmented else _whole)
        # The box takes the stream's first four numbers once the picture's size is known.
        mirror.append(bool(augmented and np.random.default_rng([seed, row]).random(5)[4] < 0.5))
    return paths, boxes, mirror


def _whole(width: int, height: int) -> Boxes:
    return np.array([[0, 0, width, height]], np.float32)


def _jittered(rng: np.random.Generator, width: int, height: int) -> Boxes:
    return jitter_box(width, height, rng)
