"""The Scorer protocol: what everything above the runtimes takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from giqa.bundle import Manifest
from giqa.contract import Profile
from giqa.errors import GiqaError
from giqa.preprocess import Views
from giqa.results import ImageResult

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Item:
    """One thing to score.

    Attributes:
        name: what it is called in its row (usually the path as given).
        path: the file to read; None if `data` is given.
        data: the encoded image; None to read `path` when its turn comes.
        error: a failure found earlier (an unreadable directory entry, say): becomes the row.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None
    error: GiqaError | None = None

    @classmethod
    def of(cls, source: str | Path | bytes | Item, name: str = "") -> Item:
        """Make an item of a path, of an encoded image's bytes, or of an item."""
        if isinstance(source, Item):
            return source
        if isinstance(source, bytes):
            return cls(name or "<bytes>", data=source)
        return cls(name or str(source), path=Path(source))


@dataclass(frozen=True)
class ViewScore:
    """The score of ready-made views.

    Attributes:
        score: 0 (bad) .. 100 (excellent), mean over the views.
        quality_map: (V, grid, grid) float32 on the same scale; None if the model has no map.
    """

    score: float
    quality_map: FloatArray | None


class Scorer(Protocol):
    """Scores images; in process (`giqa.engine.LocalScorer`) or on a server."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle that scores."""
        ...

    @property
    def engine(self) -> str:
        """Runtime and precision, such as `openvino-bf16`."""
        ...

    def score(
        self,
        items: Iterable[str | Path | bytes | Item],
        *,
        profile: Profile = "fast",
        quality_map: bool = False,
    ) -> Iterator[ImageResult]:
        """Score images lazily, in order, one result each; bad items become error results.

        Args:
            items: paths, encoded images or items; pulled as the work proceeds, never all at once.
            profile: `fast` or `precise`.
            quality_map: fill in `ImageResult.quality_map` where the model has a map.
        """
        ...

    def score_views(self, views: Iterable[Views]) -> Iterator[ViewScore]:
        """Score ready-made views (video frames, say) lazily, in order.

        Raises:
            ShapeMismatchError: views have another dtype or shape than the manifest's.
        """
        ...

    def close(self) -> None:
        """Free what the scorer holds; it cannot be used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
