"""Quality maps as files: the numbers, and a picture to look at."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa import checks, files
from giqa.errors import UnwritableError
from giqa.files import storage
from giqa.report._cards import read_picture
from giqa.report._colours import colourize
from giqa.report._pictures import lay, shrink, smooth
from giqa.results import ImageResult, printable
from giqa.types import Limits

SIDE: Final = 1024
"""Longest side of a map's picture in pixels."""
OPACITY: Final = 0.6
"""How much of the map is seen of map and picture together."""
_LONGEST = 180
_OWN = re.compile(r"\d{6,}-.*\.(npz|png|thumb\.jpg)", re.DOTALL)


class MapFolder:
    """Writes each scored image's quality map; a `giqa.results.Writer`.

    The n-th row (from 1) of `photo.jpg` gives `n-photo.jpg.npz`, n with six digits: `quality_map`
    (V, grid, grid) float32 on the score's scale, `boxes` (V, 4) int32, the views' regions x0, y0,
    x1, y1 in pixels, and `score`. Beside it lies `n-photo.jpg.png`, the map in colours over the
    picture in grey; not if that cannot be read any more. Errors give no file.

    Args:
        folder: where they go; made if it is not there.
        limits: those that the images are scored with.
        thumbnails: write a small copy of each picture, too, as `n-photo.jpg.thumb.jpg`.

    Attributes:
        map: name of the last row's map: its picture, or its numbers if there is none; empty
            without any.
        thumbnail: name of its small copy; empty without any.

    Raises:
        UnwritableError: the folder cannot be made, or not be written to.
    """

    def __init__(
        self, folder: str | Path, *, limits: Limits | None = None, thumbnails: bool = False
    ) -> None:
        folder = checks.path("folder", folder)
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UnwritableError("permission denied", item=str(folder))
        self._folder = folder
        self._limits = limits or Limits()
        self._thumbnails = thumbnails
        self._rows = 0
        self.map = self.thumbnail = ""

    def holds(self, path: Path) -> bool:
        """Whether a file is one of a map, of this run or an earlier one, by its name."""
        own = _OWN.fullmatch(path.name) is not None
        return own and path.parent.resolve() == self._folder.resolve()

    def write(self, result: ImageResult) -> None:
        """Write the maps of a row that has some.

        Raises:
            StorageFullError: no space is left.
            UnwritableError: a file cannot be written.
        """
        self._rows += 1
        self.map = self.thumbnail = ""
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
        self.map = f"{name}.npz"
        picture = read_picture(Path(result.path), self._limits, SIDE)
        values = lay(result)
        if picture is not None and values is not None:
            self.map = self._put(f"{name}.png", _over(picture, values), "PNG")
        if picture is not None and self._thumbnails:
            self.thumbnail = self._put(f"{name}.thumb.jpg", shrink(picture), "JPEG")

    def close(self) -> None:
        """Nothing is left to be written."""

    def _put(self, name: str, picture: Image.Image, kind: str) -> str:
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        files.write(self._folder / name, buffer.getvalue())
        return name


def _over(picture: Image.Image, values: npt.NDArray[np.float32]) -> Image.Image:
    """A map in colours over its picture in grey."""
    colours = Image.fromarray(colourize(smooth(values, picture.size)))
    mask = colours.getchannel("A").point(lambda a: round(OPACITY * a))
    laid = picture.convert("L").convert("RGB")
    laid.paste(colours.convert("RGB"), mask=mask)
    return laid


def _file_name(name: str) -> str:
    """Short enough for a file system once a suffix and a temporary name are put around it."""
    return name.encode()[:_LONGEST].decode(errors="ignore")
