"""Cached features of a model's frozen part: what lets two CPU cores train the rest.

Row = sample * variants + variant. Variant 0 is the whole frame; the others are augmented: a random
region of another aspect ratio squashed to the square, mirrored half of the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from giqa.graphs import cpu_options, import_openvino
from giqa.preprocess import Preprocessor
from training import cache
from training.data.table import Sample
from training.model import Giqa
from training.views import Boxes, jitter_box, make_views

BATCH = 8

Runner = Callable[[Tensor, Tensor], list[npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Features:
    """What the frozen part of a model makes of a batch of B views.

    Attributes:
        state: hidden state (B, 1 + N, width) after the frozen ViT blocks, then earlier taps
            (B, N, width); see `GlobalBranch.prefix`.
        stages: one tensor a CNN stage; see `LocalBranch.stages`.
    """

    state: list[Tensor]
    stages: list[Tensor]

    def __len__(self) -> int:
        return len(self.state[0])

    def to(self, device: torch.device) -> Features:
        """The same on a device."""
        return Features([t.to(device) for t in self.state], [t.to(device) for t in self.stages])


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
        """GLOBAL_VIEW and LOCAL_VIEW, (B, 1, H, W, 3) uint8, to the tensors of `Features`."""
        state = self.global_branch.prefix(global_view, self.depth)
        return (*state, *self.local_branch.stages(local_view))

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


def runner(frozen: Frozen, model: Giqa, amp: bool) -> Runner:
    """Compile the frozen part for the hardware at hand; it takes seconds.

    Args:
        frozen: the part.
        model: whose part it is.
        amp: run in bfloat16.

    Returns:
        Views (B, 1, side, side, 3) uint8, B at most 8 on a CPU, to the tensors of `Features`.
    """
    if torch.cuda.is_available():
        return _on_gpu(frozen, amp)
    sides = model.preset.global_branch.view, model.preset.local_branch.view
    return _on_cpu(frozen, sides, amp)


def _on_gpu(frozen: Frozen, amp: bool) -> Runner:
    frozen.cuda()

    @torch.inference_mode()
    def run(coarse: Tensor, fine: Tensor) -> list[npt.NDArray[np.float32]]:
        with torch.autocast("cuda", torch.bfloat16, enabled=amp):
            parts = frozen(coarse.cuda(), fine.cuda())
        return [t.float().cpu().numpy() for t in parts]

    return run


def to_openvino(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """Convert a module to an OpenVINO model; the shapes of `example` become part of it."""
    ov = import_openvino()

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: deprecated, and sizes become constants
        return ov.convert_model(module.eval(), example_input=example)


def _on_cpu(frozen: Frozen, sides: tuple[int, int], amp: bool) -> Runner:
    """OpenVINO: two to five times as fast as PyTorch here, and what serves."""
    ov = import_openvino()

    example = tuple(torch.zeros(BATCH, 1, side, side, 3, dtype=torch.uint8) for side in sides)
    graph = to_openvino(frozen, example)
    compiled = ov.compile_model(
        graph,
        "CPU",
        {"PERFORMANCE_HINT": "LATENCY", **cpu_options(torch.get_num_threads(), half=amp)},
    )

    def run(coarse: Tensor, fine: Tensor) -> list[npt.NDArray[np.float32]]:
        missing = BATCH - len(coarse)  # the graph was traced with one batch size
        found = compiled([np.pad(v.numpy(), [(0, missing), *[(0, 0)] * 4]) for v in (coarse, fine)])
        return [found[i][: len(coarse)] for i in range(len(compiled.outputs))]

    return run


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
    coarse["blocks"] = [tap for tap in coarse["blocks"] if tap < frozen.depth - 1]
    return {
        "global": coarse,
        "local": fine,
        "depth": frozen.depth,
        "n_state": frozen.n_state,
        "weights": cache.weights_digest(frozen.weights()),
        "samples": cache.fingerprint(samples),
        "n": len(samples),
        "variants": variants,
        "seed": seed,
        "amp": amp,
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
        arrays: memory-mapped float16 arrays (n * variants, ...) in the order of `Features`.
    """

    def __init__(self, folder: Path) -> None:
        self.arrays, meta = cache.read(folder)
        self.identity = meta
        self.variants: int = meta["variants"]
        self.n_state: int = meta["n_state"]

    def batch(self, rows: npt.NDArray[np.int64]) -> Features:
        """Read rows, as float32."""
        parts = [torch.from_numpy(a[rows]).float() for a in self.arrays]
        return Features(parts[: self.n_state], parts[self.n_state :])


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
            run.append(runner(frozen, model, amp))
        return run[0](*variant_views(preprocess, samples, variants, seed, start, end))

    identity = _identity(frozen, model, samples, variants, seed, amp)
    cache.fill(folder, identity, len(samples) * variants, BATCH, compute, what="features")
    model.to(device)
    return FeatureCache(folder)


def variant_views(
    preprocess: Preprocessor,
    samples: Sequence[Sample],
    variants: int,
    seed: int,
    start: int,
    end: int,
) -> tuple[Tensor, Tensor]:
    """Views of rows start .. end - 1 as (B, 1, side, side, 3) uint8; see the module's text."""
    paths, boxes, mirror = [], [], []
    for row in range(start, end):
        rng, augmented = np.random.default_rng([seed, row]), bool(row % variants)
        paths.append(samples[row // variants].path)
        boxes.append(partial(_jittered, rng) if augmented else _whole)
        # The box takes the stream's first four numbers once the picture's size is known.
        mirror.append(augmented and np.random.default_rng([seed, row]).random(5)[4] < 0.5)
    return make_views(preprocess, paths, boxes, mirror)


def _whole(width: int, height: int) -> Boxes:
    return np.array([[0, 0, width, height]], np.float32)


def _jittered(rng: np.random.Generator, width: int, height: int) -> Boxes:
    return jitter_box(width, height, rng)
