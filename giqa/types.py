"""The values that everything passes on: what is scored, within which limits, as what, how well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giqa.errors import GiqaError

BoxArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


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
class Limits:
    """Limits that hold before anything is decoded.

    Attributes:
        max_bytes: largest file in bytes.
        max_pixels: most pixels that the header may announce.
        max_frames: most frames or pages.
    """

    max_bytes: int = 100 * 2**20
    max_pixels: int = 200_000_000
    max_frames: int = 10_000


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
