"""`giqa.score`: the shortest way from a picture to its score."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any, overload

from giqa import checks
from giqa.contract import Profile
from giqa.results import ImageResult
from giqa.scorer import Scorer
from giqa.sources import is_one
from giqa.types import Source

_lock = threading.Lock()
_default: Scorer | None = None


@overload
def score(  # type: ignore[overload-overlap] # a str is an iterable of str, too, but one path
    items: Source,
    scorer: Scorer | None = None,
    *,
    profile: Profile = "fast",
    quality_map: bool = False,
) -> ImageResult: ...
@overload
def score(
    items: Iterable[Source],
    scorer: Scorer | None = None,
    *,
    profile: Profile = "fast",
    quality_map: bool = False,
) -> Iterator[ImageResult]: ...
def score(
    items: Any,
    scorer: Scorer | None = None,
    *,
    profile: Profile = "fast",
    quality_map: bool = False,
) -> ImageResult | Iterator[ImageResult]:
    """Score one image, or many lazily and in order; what cannot be scored becomes an error result.

    An image is a path, a URL (read with fsspec), an encoded file as bytes or as a file that is open
    in binary, a PIL image, an `Item`, or pixels: an array or tensor (H, W) or (H, W, C) with C = 1,
    3 (RGB) or 4 (RGBA), tensors of PyTorch also (C, H, W), as uint8, uint16 (65535 is white) or
    floats in 0..1. Other shapes, types and values are refused.

    Args:
        items: an image, or an iterable of them; pulled as the work proceeds.
        scorer: what scores, in process or on a server. Unless given, a `LocalScorer` that is opened
            at the first call and kept; it may be used from several threads.
        profile: `fast` or `precise`.
        quality_map: fill in `ImageResult.quality_map` where the model has a map.

    Returns:
        One result for one image, an iterator of results for several.

    Raises:
        MissingExtraError: what the scorer needs is not installed.
        UsageError: there is no such profile, or the scorer is none.

    Example:
        >>> from giqa import score
        >>> score("a.jpg").score  # doctest: +SKIP
        76.8
        >>> for result in score(["a.jpg", "b.png"]):  # doctest: +SKIP
        ...     print(result.path, result.score, result.error)
    """
    checks.wanted(profile, quality_map)
    if scorer is not None:
        checks.scorer(scorer)
    used = _opened() if scorer is None else scorer
    results = used.score(items, profile=profile, quality_map=quality_map)
    return next(iter(results)) if is_one(items) else results


def _opened() -> Scorer:
    global _default
    with _lock:
        if _default is None:
            from giqa.local import LocalScorer

            _default = LocalScorer()
        return _default


def _forked() -> None:
    """A forked child may have inherited the lock while another thread held it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
