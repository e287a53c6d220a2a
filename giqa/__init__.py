"""giqa: perceptual quality of images and video frames, without a reference.

>>> from giqa import LocalScorer
>>> with LocalScorer() as scorer:  # doctest: +SKIP
...     for result in scorer.score(["a.jpg", "b.png"]):
...         print(result.path, result.score, result.error)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from giqa.errors import GiqaError, InputError

if TYPE_CHECKING:
    from giqa.bundle import Bundle, load_bundle
    from giqa.engine import LocalScorer
    from giqa.probe import Limits
    from giqa.results import ImageResult
    from giqa.scorer import Item, Scorer, ViewScore
    from giqa.triton import AsyncTritonScorer, TritonScorer
    from giqa.video import Sampling, VideoResult, score_video

__version__ = "0.1.0"

__all__ = [
    "AsyncTritonScorer",
    "Bundle",
    "GiqaError",
    "ImageResult",
    "InputError",
    "Item",
    "Limits",
    "LocalScorer",
    "Sampling",
    "Scorer",
    "TritonScorer",
    "VideoResult",
    "ViewScore",
    "__version__",
    "load_bundle",
    "score_video",
]

_HOMES = {
    "AsyncTritonScorer": "giqa.triton",
    "Bundle": "giqa.bundle",
    "ImageResult": "giqa.results",
    "Item": "giqa.scorer",
    "Limits": "giqa.probe",
    "LocalScorer": "giqa.engine",
    "Sampling": "giqa.video",
    "Scorer": "giqa.scorer",
    "TritonScorer": "giqa.triton",
    "VideoResult": "giqa.video",
    "ViewScore": "giqa.scorer",
    "load_bundle": "giqa.bundle",
    "score_video": "giqa.video",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import giqa` alone stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'giqa' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
