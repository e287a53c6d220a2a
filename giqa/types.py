"""The values that everything passes on: what is scored, within which limits, as what, how well."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from giqa import checks
from giqa.errors import GiqaError, NotFoundError, UsageError
from giqa.uris import local_path

if TYPE_CHECKING:
    from PIL import Image

BoxArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


class ArrayLike(Protocol):
    """What NumPy can read: arrays and tensors of other libraries."""

    def __array__(self, *args: Any, **options: Any) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Item:
    """One thing to score.

    Attributes:
        name: what it is called in its row (usually the path as given).
        path: the file to read when its turn comes; None if `data` or `url` is given.
        data: the encoded image.
        error: a failure found earlier (an unreadable directory entry, say): becomes the row.
        url: where to read it, with fsspec, when its turn comes.
        pixels: `data` holds pixels that were handed over as such: limits on files' bytes are not
            for them.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None
    error: GiqaError | None = None
    url: str | None = None
    pixels: bool = False

    @classmethod
    def of(cls, source: str | os.PathLike[str] | bytes | Item, name: str = "") -> Item:
        """Make an item of a path or URL, of an encoded image's bytes, or of an item.

        Raises:
            UsageError: it is something else; `giqa.score` takes more.
        """
        if isinstance(source, Item):
            return source
        if isinstance(source, bytes):
            return cls(name or "<bytes>", data=source)
        if not isinstance(source, str | os.PathLike):
            raise UsageError(
                "is no path, URL, bytes or item", item=type(source).__name__, remedy=""
            )
        place = os.fsdecode(source)
        if not place:
            return cls(name, error=NotFoundError("the name is empty", item=name))
        local = local_path(place, "")
        if local is None:
            return cls(name or place, url=place)
        return cls(name or place, path=Path(local))


Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | ArrayLike"
    " | Item"
)
"""What can be scored: see `giqa.score`."""


MOST: Final = 2**62
"""What stands for no limit: more is no number for the system's calls."""


@dataclass(frozen=True)
class Limits:
    """Limits that hold before anything is decoded.

    Attributes:
        max_bytes: largest file in bytes.
        max_pixels: most pixels that the header may announce.
        max_frames: most frames or pages.

    Raises:
        UsageError: one is no positive whole number.
    """

    max_bytes: int = 100 * 2**20
    max_pixels: int = 200_000_000
    max_frames: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for one in fields(self):
            checks.whole(one.name, getattr(self, one.name), 1, MOST)


@dataclass(frozen=True)
class Views:
    """One image, ready for the branches.

    Attributes:
        global_view: (V, g, g, 3) uint8, sRGB, NHWC.
        local_view: (V + T, l, l, 3) uint8: the same fields of view, finer, then T tiles of native
            pixels (`giqa.decode.tile_boxes`; none unless the picture is large).
    """

    global_view: UInt8Array
    local_view: UInt8Array

    @property
    def counts(self) -> tuple[int, int]:
        """V and V + T: images with the same go through the graphs together."""
        return len(self.global_view), len(self.local_view)


@dataclass(frozen=True)
class ViewScore:
    """The score of ready-made views.

    Attributes:
        score: 0 (bad) .. 100 (excellent), mean over the views.
        quality_map: (V, grid, grid) float32 on the same scale; None if the model has no map.
    """

    score: float
    quality_map: FloatArray | None
