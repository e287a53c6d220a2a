"""One frame of a video."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from giqa.errors import GiqaError
from giqa.manifest import Manifest
from giqa.types import UInt8Array, Views
from giqa.video._colour import Converter
from giqa.video._info import StreamInfo


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: decoded, and converted when it is asked for.

    Attributes:
        index: its number in the video, from 0, in order of presentation.
        pts_s: when its showing begins, in seconds since the video's first frame.
        info: what the video's header says.
        error: why it cannot be shown; None if it can.
        damaged: whether the decoder says that parts are missing or made up, of it or of one
            before it since the last keyframe, of which its damage is.
    """

    index: int
    pts_s: float
    info: StreamInfo
    error: GiqaError | None = None
    damaged: bool = False
    _picture: Any = field(default=None, repr=False)
    _converter: Converter | None = field(default=None, repr=False)

    @property
    def image(self) -> UInt8Array:
        """(H, W, 3) uint8, sRGB, upright, progressive; converted anew each time.

        Raises:
            GiqaError: `error`, or the pixels cannot be converted.
        """
        if self.error is not None:
            raise self.error
        assert self._converter is not None
        return self._converter.image(self._picture)

    def views(self, manifest: Manifest) -> Views:
        """The views of profile `fast`.

        Args:
            manifest: the bundle's.

        Returns:
            Views with V = 1, and tiles where the frame is large.

        Raises:
            GiqaError: `error`, or the pixels cannot be converted.
        """
        if self.error is not None:
            raise self.error
        assert self._converter is not None
        return self._converter.views(self._picture, manifest)

    def without_picture(self) -> Frame:
        """The same without its picture, which is what needs memory."""
        return replace(self, _picture=None)
