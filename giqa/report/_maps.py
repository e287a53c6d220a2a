"""Quality maps as files: the numbers, and a picture to look at."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from giqa import files
from giqa.report._cards import read_picture
from giqa.report._colours import colourize
from giqa.report._pictures import lay, smooth
from giqa.results import ImageResult, printable
from giqa.types import Limits

SIDE: Final = 1024
"""Longest side of a map's picture in pixels."""
OPACITY: Final = 0.6
"""How much of the map is seen of map and picture together."""
_LONGEST = 180


class MapFolder:
    """Writes each scored image's quality map; a `giqa.results.Writer`.

    The n-th row (from 1) of `photo.jpg` gives `n-photo.jpg.npz`, n with six digits: `quality_map`
    (V, grid, grid) float32 on the score's scale, `boxes` (V, 4) int32, the views' regions x0, y0,
    x1, y1 in pixels, and `score`. Beside it lies `n-photo.jpg.png`, the map in colours over the
    picture in grey; not if that cannot be read any more. Errors give no file.

    Args:
        folder: where they go; made if it is not there.
        limits: those that the images are scored with.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, limits: Limits | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limits = limits or Limits()
        self._rows = 0

    def write(self, result: ImageResult) -> None:
        """Write the maps of a row that has some.

        Raises:
            StorageFullError: no space is left.
            OSError: a file cannot be written.
        """
        self._rows += 1
        if result.quality_map is None:
            return
        assert result.boxes is not None
        name = _file_name(f"{self._rows:06}-{printable(Path(result.path).name)}")
        buffer = io.BytesIO()
        np.savez(
            buffer,
            quality_map=result.quality_map,
            boxes=result.boxes,
            score=np.float32(result.score or 0),
        )
        files.write(self._folder / f"{name}.npz", buffer.getvalue())
        picture = self._picture(result)
        if picture is not None:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            files.write(self._folder / f"{name}.png", buffer.getvalue())

    def close(self) -> None:
        """Nothing is left to be written."""

    def _picture(self, result: ImageResult) -> Image.Image | None:
        values = lay(result)
        picture = read_picture(Path(result.path), self._limits, SIDE)
        if picture is None or values is None:
            return None
        colours = Image.fromarray(colourize(smooth(values, picture.size)))
        mask = colours.getchannel("A").point(lambda a: round(OPACITY * a))
        laid = picture.convert("L").convert("RGB")
        laid.paste(colours.convert("RGB"), mask=mask)
        return laid


def _file_name(name: str) -> str:
    """Short enough for a file system once a suffix and a temporary name are put around it."""
    return name.encode()[:_LONGEST].decode(errors="ignore")
