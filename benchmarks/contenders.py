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

EAGER = "PyTorch eager f32"
OTHERS: dict[str, Precision] = {
    EAGER: "f32",
    "torch.compile f32": "f32",
    "ONNX Runtime f32": "f32",
    "PyTorch eager bf16": "bf16",
    "torch.compile bf16": "bf16",
    "ONNX Runtime int8": "int8",
}
"""The same model elsewhere. The first of a precision is what others of that precision are held
against: an engine shows by that, a precision by `EAGER`."""


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


def others(bundle: Bundle) -> list[str]:
    """Those of `OTHERS` in precisions that this bundle and CPU have."""
    known = precisions(bundle)
    return [name for name, precision in OTHERS.items() if precision in known]


def yardsticks(name: str) -> tuple[str, ...]:
    """What a contender is held against: the same precision elsewhere, then `EAGER`."""
    precision = OTHERS[name] if name in OTHERS else name.rpartition(" ")[2]
    first = next(other for other, kind in OTHERS.items() if kind == precision)
    return tuple(other for other in dict.fromkeys((first, EAGER)) if other != name)


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
        runtime = _RUNTIMES[name.rpartition(" ")[0]]
        run = runtime(bundle, setup, OTHERS[name])
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


def _torch(model: Any, precision: Precision) -> Run:
    import torch

    @torch.inference_mode()
    def run(views: Mapping[str, Any]) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = model(*(torch.from_numpy(views[name]) for name in (GLOBAL_VIEW, LOCAL_VIEW)))
        return found[0].float()

    return run


def _eager(bundle: Bundle, setup: Setup, precision: Precision) -> Run:
    return _torch(_model(bundle, setup), precision)


def _compiled(bundle: Bundle, setup: Setup, precision: Precision) -> Run:
    import torch

    return _torch(torch.compile(_model(bundle, setup), dynamic=False), precision)


def _onnx_runtime(bundle: Bundle, setup: Setup, precision: Precision) -> Run:
    from build.runtimes import onnx_runtime

    graphs = onnx_runtime(bundle, precision, threads=setup.threads).graphs
    assert graphs is not None

    def run(views: Mapping[str, Any]) -> Any:
        tokens = graphs(GLOBAL_BRANCH, {GLOBAL_VIEW: views[GLOBAL_VIEW]})
        tokens |= graphs(LOCAL_BRANCH, {LOCAL_VIEW: views[LOCAL_VIEW]})
        return graphs(FUSION, tokens)[SCORE]

    return run


_RUNTIMES = {"PyTorch eager": _eager, "torch.compile": _compiled, "ONNX Runtime": _onnx_runtime}
