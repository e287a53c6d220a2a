"""The Scorer protocol: what everything above the runtimes takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, Self

from giqa.contract import Profile
from giqa.manifest import Manifest
from giqa.results import ImageResult
from giqa.types import Source, Views, ViewScore


class Scorer(Protocol):
    """Scores images; in process (`giqa.LocalScorer`) or on a server."""

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
        items: Source | Iterable[Source],
        *,
        profile: Profile = "fast",
        quality_map: bool = False,
    ) -> Iterator[ImageResult]:
        """Score images lazily, in order, one result each; bad items become error results.

        Args:
            items: one or many of what `giqa.score` takes; pulled as the work proceeds, never all at
                once.
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

    def __exit__(self, *_: object) -> None: ...
