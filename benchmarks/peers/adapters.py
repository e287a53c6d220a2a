"""How each competitor is asked for a score, by its own public API: encoded image to number.

Runs in the competitors' environment: nothing of this repository is imported there but by `giqa`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from typing import Any
from unittest import mock

Score = Callable[[Sequence[bytes], bool], list[float]]
"""Scores images; True: one at a time, waiting for each. One at a time is all that most can do."""

_ARCHITECTURES = {
    "topiq_nr": "topiq",
    "musiq": "musiq",
    "hyperiqa": "hypernet",
    "maniqa": "maniqa",
    "cnniqa": "cnniqa",
    "dbcnn": "dbcnn",
}
"""pyiqa's metrics, by the module that defines each."""


def create(name: str, threads: int, bundle: str | None = None) -> Score:
    """Make a competitor ready to score.

    Args:
        name: `giqa`, `brisque`, `pypiqe`, or one of pyiqa's metrics that are known here.
        threads: CPU threads it may use.
        bundle: of `giqa`; None: the default.

    Raises:
        KeyError: no such competitor.
    """
    if name == "giqa":
        return _giqa(threads, bundle)
    if name in _ARCHITECTURES:
        return _pyiqa(name, threads)
    return {"brisque": _brisque, "pypiqe": _pypiqe}[name](threads)


def _giqa(threads: int, bundle: str | None) -> Score:
    from giqa.local import LocalScorer
    from giqa.results import ImageResult

    scorer = LocalScorer(bundle, threads=threads)

    def number(result: ImageResult) -> float:
        if result.score is None:
            raise RuntimeError(f"not scored: {result.error}")
        return result.score

    def score(images: Sequence[bytes], single: bool) -> list[float]:
        if single:
            return [number(next(scorer.score([data]))) for data in images]
        return [number(result) for result in scorer.score(images)]

    return score


def _pyiqa(name: str, threads: int) -> Score:
    """The architecture with random weights: its speed is the same, and nothing is downloaded."""
    import torch

    _operators()  # before anything imports torchvision
    import pyiqa
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with _without_weights(_ARCHITECTURES[name]):
        metric = pyiqa.create_metric(name, device=torch.device("cpu"), pretrained=None)

    @torch.inference_mode()
    def one(data: bytes) -> float:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        return float(metric(to_tensor(picture)[None]))

    return partial(_each, one)


def _brisque(threads: int) -> Score:
    import cv2
    import numpy as np
    from brisque import BRISQUE
    from PIL import Image

    cv2.setNumThreads(threads)
    model = BRISQUE(url=False)

    def one(data: bytes) -> float:
        return float(model.score(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))))

    return partial(_each, one)


def _pypiqe(threads: int) -> Score:
    import cv2
    import numpy as np
    from pypiqe import piqe

    cv2.setNumThreads(threads)

    def one(data: bytes) -> float:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return float(piqe(picture)[0])

    return partial(_each, one)


def _each(one: Callable[[bytes], float], images: Sequence[bytes], single: bool) -> list[float]:
    return [one(data) for data in images]


@contextmanager
def _without_weights(architecture: str) -> Iterator[None]:
    """Keep pyiqa from loading weights; for some parts its options know no way to say so."""
    import timm
    from torchvision.models import vgg16

    module = import_module(f"pyiqa.archs.{architecture}_arch")

    def untrained(name: str, **options: Any) -> Any:
        return timm_create(name, **(options | {"pretrained": False}))

    timm_create = timm.create_model
    with (
        mock.patch.object(timm, "create_model", untrained),
        mock.patch("torchvision.models.vgg16", return_value=vgg16(weights=None)),
        mock.patch.object(module, "load_pretrained_network"),
    ):
        yield


@cache  # the declarations live as long as what is returned
def _operators() -> Any:
    """Let torchvision's build for CUDA be imported beside a CPU-only torch."""
    import torch

    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
