"""giqa in process and the same model elsewhere, all from JPEG bytes to scores.

The others take their views from Pillow, as one would write it by hand.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, GLOBAL_VIEW, LOCAL_BRANCH, LOCAL_VIEW, SCORE
from giqa.local import LocalScorer
from giqa.manifest import Tensors
from giqa.openvino import cpu_capabilities
from giqa.precision import CPU_PRECISIONS, Precision

Score = Callable[[Sequence[bytes]], list[float]]
"""Scores JPEG files, batch by batch."""

EAGER, COMPILED, ORT = "PyTorch eager f32", "torch.compile f32", "ONNX Runtime f32"
OTHERS = (EAGER, COMPILED, ORT)


@dataclass(frozen=True)
class Setup:
    """How a contender runs.

    Attributes:
        bundle: folder or name of a packaged bundle; None is the default bundle.
        threads: CPU threads.
        batch: images at once.
    """

    bundle: str | None = None
    threads: int = 2
    batch: int = 8


def own(precision: Precision) -> str:
    """Name of giqa in process in a precision."""
    return f"giqa {precision}"


def precisions(bundle: Bundle) -> list[Precision]:
    """The precisions that this bundle and CPU have, `f32` first."""
    without = set() if "BF16" in cpu_capabilities() else {"bf16"}
    without |= set() if bundle.manifest.int8 else {"int8"}
    return [p for p in CPU_PRECISIONS if p not in without]


@contextmanager
def opened(name: str, setup: Setup) -> Iterator[Score]:
    """Make a contender ready.

    Args:
        name: one of `OTHERS`, or `own(precision)`.
        setup: how it runs.

    Yields:
        What scores.

    Raises:
        GiqaError: the bundle, the precision or the runtime is not to be had.
        RuntimeError: when scoring: an image could not be scored.
    """
    bundle = load_bundle(setup.bundle)
    if name in OTHERS:
        run = {EAGER: _eager, COMPILED: _compiled, ORT: _onnx_runtime}[name](bundle, setup)
        yield with_pillow(bundle.manifest.tensors, run, setup.batch)
        return
    (precision,) = (p for p in CPU_PRECISIONS if own(p) == name)
    with LocalScorer(
        bundle, precision=precision, threads=setup.threads, batch=setup.batch
    ) as scorer:

        def score(images: Sequence[bytes]) -> list[float]:
            scores = []
            for result in scorer.score(images):
                if result.score is None:
                    raise RuntimeError(f"not scored: {result.error}")
                scores.append(result.score)
            return scores

        yield score


Run = Callable[[Mapping[str, Any]], Any]
"""Views by name, (B, 1, side, side, 3) uint8 each, to scores (B,)."""


def with_pillow(sizes: Tensors, run: Run, batch: int) -> Score:
    """Make a model that takes views one that takes JPEG files; views by Pillow.

    Args:
        sizes: of the views.
        run: the model.
        batch: images at once.
    """

    def views(data: bytes) -> tuple[Any, Any]:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        local = picture.resize((sizes.local_side, sizes.local_side), Image.Resampling.BILINEAR)
        coarse = local.reduce(sizes.local_side // sizes.global_side)
        return np.asarray(coarse)[None], np.asarray(local)[None]

    def score(images: Sequence[bytes]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(images), batch):
            pairs = [views(data) for data in images[start : start + batch]]
            coarse, fine = (np.stack(part) for part in zip(*pairs, strict=True))
            scores += run({GLOBAL_VIEW: coarse, LOCAL_VIEW: fine}).reshape(-1).tolist()
        return scores

    return score


def model_of(bundle: Bundle) -> Any:
    """The bundle's model in PyTorch, with random weights: speed does not depend on them."""
    from training.model import Preset, create

    # The preset that it was exported with: that of the same name may have changed since.
    return create(TypeAdapter(Preset).validate_python(bundle.manifest.preset))


def _model(bundle: Bundle, setup: Setup) -> Any:
    import torch

    torch.set_num_threads(setup.threads)
    return model_of(bundle)


def _torch(model: Any) -> Run:
    import torch

    @torch.inference_mode()
    def run(views: Mapping[str, Any]) -> Any:
        return model(*(torch.from_numpy(views[name]) for name in (GLOBAL_VIEW, LOCAL_VIEW)))[0]

    return run


def _eager(bundle: Bundle, setup: Setup) -> Run:
    return _torch(_model(bundle, setup))


def _compiled(bundle: Bundle, setup: Setup) -> Run:
    import torch

    return _torch(torch.compile(_model(bundle, setup), dynamic=False))


def _onnx_runtime(bundle: Bundle, setup: Setup) -> Run:
    from build.runtimes import onnx_runtime

    graphs = onnx_runtime(bundle, threads=setup.threads).graphs
    assert graphs is not None

    def run(views: Mapping[str, Any]) -> Any:
        tokens = graphs(GLOBAL_BRANCH, {GLOBAL_VIEW: views[GLOBAL_VIEW]})
        tokens |= graphs(LOCAL_BRANCH, {LOCAL_VIEW: views[LOCAL_VIEW]})
        return graphs(FUSION, tokens)[SCORE]

    return run
