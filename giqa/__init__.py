"""giqa: perceptual quality of images and video frames, without a reference.

>>> from giqa import score
>>> score("a.jpg").score  # doctest: +SKIP
>>> for result in score(["a.jpg", "b.png"]):  # doctest: +SKIP
...     print(result.path, result.score, result.error)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from giqa.errors import (
    ArtefactError,
    BatchError,
    BundleInvalidError,
    CorruptError,
    DeadlineExceededError,
    EmptyError,
    EngineMismatchError,
    FolderInUseError,
    GiqaError,
    InputError,
    MissingExtraError,
    NoFramesError,
    NotFoundError,
    OutOfMemoryError,
    OverloadedError,
    PermissionDeniedError,
    PlanInvalidError,
    ServerError,
    ServerFailedError,
    ServerRefusedError,
    ServerUnavailableError,
    ShapeMismatchError,
    StorageFullError,
    TableInvalidError,
    TooManyBytesError,
    TooManyFramesError,
    TooManyPixelsError,
    TruncatedError,
    UnreadableError,
    UnsupportedCodecError,
    UnsupportedFormatError,
    UnwritableError,
    UsageError,
    WorkerFailedError,
)

if TYPE_CHECKING:
    from giqa.bundle import Bundle, load_bundle
    from giqa.client import AsyncTritonScorer, Connection, Retry, TritonScorer
    from giqa.front import score
    from giqa.local import LocalScorer
    from giqa.results import ImageResult
    from giqa.scorer import Scorer
    from giqa.tables import to_arrow, to_pandas
    from giqa.types import Item, Limits, Views, ViewScore
    from giqa.video import (
        FrameRow,
        Sampling,
        VideoLimits,
        VideoResult,
        VideoRun,
        read_frames,
        score_video,
    )

__version__ = "0.2.0.dev0"

__all__ = [
    "ArtefactError",
    "AsyncTritonScorer",
    "BatchError",
    "Bundle",
    "BundleInvalidError",
    "Connection",
    "CorruptError",
    "DeadlineExceededError",
    "EmptyError",
    "EngineMismatchError",
    "FolderInUseError",
    "FrameRow",
    "GiqaError",
    "ImageResult",
    "InputError",
    "Item",
    "Limits",
    "LocalScorer",
    "MissingExtraError",
    "NoFramesError",
    "NotFoundError",
    "OutOfMemoryError",
    "OverloadedError",
    "PermissionDeniedError",
    "PlanInvalidError",
    "Retry",
    "Sampling",
    "Scorer",
    "ServerError",
    "ServerFailedError",
    "ServerRefusedError",
    "ServerUnavailableError",
    "ShapeMismatchError",
    "StorageFullError",
    "TableInvalidError",
    "TooManyBytesError",
    "TooManyFramesError",
    "TooManyPixelsError",
    "TritonScorer",
    "TruncatedError",
    "UnreadableError",
    "UnsupportedCodecError",
    "UnsupportedFormatError",
    "UnwritableError",
    "UsageError",
    "VideoLimits",
    "VideoResult",
    "VideoRun",
    "ViewScore",
    "Views",
    "WorkerFailedError",
    "__version__",
    "load_bundle",
    "read_frames",
    "score",
    "score_video",
    "to_arrow",
    "to_pandas",
]

_HOMES = {
    "AsyncTritonScorer": "giqa.client",
    "Bundle": "giqa.bundle",
    "Connection": "giqa.client",
    "FrameRow": "giqa.video",
    "ImageResult": "giqa.results",
    "Item": "giqa.types",
    "Limits": "giqa.types",
    "LocalScorer": "giqa.local",
    "Retry": "giqa.client",
    "Sampling": "giqa.video",
    "Scorer": "giqa.scorer",
    "TritonScorer": "giqa.client",
    "VideoLimits": "giqa.video",
    "VideoResult": "giqa.video",
    "VideoRun": "giqa.video",
    "ViewScore": "giqa.types",
    "Views": "giqa.types",
    "load_bundle": "giqa.bundle",
    "read_frames": "giqa.video",
    "score": "giqa.front",
    "score_video": "giqa.video",
    "to_arrow": "giqa.tables",
    "to_pandas": "giqa.tables",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import giqa` alone stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'giqa' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
