"""Videos that are in no file of their own, as files: from a pipe, from a URI, from single pictures.

They are copied to a temporary file, which has no bound but `max_bytes` and the disk's room: most
containers cannot be read without going back.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from giqa.decode import decode_picture, probe
from giqa.errors import (
    GiqaError,
    NotFoundError,
    TooManyBytesError,
    UnsupportedFormatError,
    UsageError,
)
from giqa.files import storage
from giqa.types import Limits
from giqa.uris import copy_file, copy_uri, is_uri, local_path, open_file
from giqa.video._stream import import_av

Source = str | Path | IO[bytes]

_NUMBER = re.compile(r"%0?(\d*)d")
_LOST = b"\0"
"""A packet in the place of a picture that is not there: it becomes a frame with an error."""


@contextmanager
def as_file(source: Source, *, max_bytes: int | None = None, rate: float = 25.0) -> Iterator[Path]:
    """Make a video a file for as long as it is read.

    Args:
        source: a path, a URI, an open binary file (a pipe), or a pattern of numbered pictures
            (`frames/%06d.png`).
        max_bytes: largest copy; None: as the disk has room.
        rate: numbered pictures a second.

    Yields:
        The file's path.

    Raises:
        InputError: it cannot be read, or is larger than the limit.
        StorageFullError: no space is left for a copy.
        UsageError: the rate makes no sense.
    """
    name = source if isinstance(source, str | Path) else "-"
    if isinstance(name, str) and is_uri(name):
        name = local_path(name, "") or name
    numbered = _is_sequence(str(name))
    if not numbered and (isinstance(name, Path) or (name != "-" and not is_uri(name))):
        yield Path(name)
        return
    suffix = ".nut" if numbered else os.path.splitext(str(name))[1][:9]
    with tempfile.NamedTemporaryFile(prefix="giqa-", suffix=suffix) as copy:
        with storage(Path(copy.name)):
            if numbered:
                _join(str(name), copy.name, rate, max_bytes)
            elif isinstance(source, str | Path):
                copy_uri(str(source), "", copy, max_bytes)
            else:
                copy_file(source, copy, "-", max_bytes)
            copy.flush()
        yield Path(copy.name)


def _is_sequence(name: str) -> bool:
    return _NUMBER.search(os.path.basename(name)) is not None and not os.path.lexists(name)


def _join(pattern: str, target: str, rate: float, most: int | None) -> None:
    """Put numbered pictures into one file; missing numbers are damaged frames."""
    if not 0 < rate < 1e6:
        raise UsageError(f"rate {rate} is not positive and finite", item="--rate")
    av = import_av()
    files = _numbered(pattern)
    first, last, done = min(files), max(files), 0
    step = 1 / Fraction(str(rate))
    with av.open(target, "w", format="nut") as out:
        stream = out.add_stream("png", rate=1 / step)
        sizes = (_png(path)[1] for _, path in sorted(files.items()))
        stream.width, stream.height = next((size for size in sizes if size), (16, 16))
        stream.pix_fmt = "rgb24"
        for number in range(first, last + 1):
            data, _ = _png(files.get(number))
            done += len(data)
            if most is not None and done > most:
                raise TooManyBytesError(f"more than {most} bytes", item=pattern)
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, step
            packet.pts = packet.dts = number - first
            packet.duration, packet.is_keyframe = 1, True
            out.mux(packet)


def _png(path: Path | None) -> tuple[bytes, tuple[int, int] | None]:
    """A picture as a viewer shows it, and its size; what cannot be decoded is a damaged frame."""
    if path is None:
        return _LOST, None
    try:
        with open_file(path, str(path)) as file:
            data = file.readall()
        picture = decode_picture(data, probe(np.frombuffer(data, np.uint8), Limits()))
    except GiqaError:
        return _LOST, None
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), picture.size


def _numbered(pattern: str) -> dict[int, Path]:
    folder, name = os.path.split(pattern)
    found = _NUMBER.search(name)
    assert found is not None
    if _NUMBER.search(name, found.end()):
        raise UnsupportedFormatError("has more than one number", item=pattern)
    width = int(found[1] or 0)
    before, after = name[: found.start()], name[found.end() :]
    files: dict[int, Path] = {}
    try:
        entries = os.listdir(folder or ".")
    except OSError as e:
        raise NotFoundError("no picture matches", item=pattern) from e
    for entry in entries:
        number: Any = entry.removeprefix(before).removesuffix(after)
        if entry != f"{before}{number}{after}" or not (number.isascii() and number.isdigit()):
            continue
        if len(number) == width or (len(number) > width and number[0] != "0") or not width:
            files[int(number)] = Path(folder, entry)
    if not files:
        raise NotFoundError("no picture matches", item=pattern)
    return files
