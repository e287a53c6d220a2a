"""Tar shards (WebDataset): where the images in them lie; nothing is unpacked."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import closing

from giqa.batch._units import Unit
from giqa.errors import CorruptError, GiqaError, TruncatedError, UnsupportedFormatError
from giqa.inputs import SUFFIXES
from giqa.uris import open_uri

_BLOCK = 512
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


def members(name: str, folder: str, first: int) -> Iterator[Unit]:
    """List the images in a tar file, by its headers alone.

    Members that are no images by their suffix (labels, metadata) are passed over. What is wrong
    with the tar file becomes one unit more, after those that were found before.

    Args:
        name: its path or URI.
        folder: where relative paths begin.
        first: the first unit's `input`.

    Yields:
        Units named `TAR::MEMBER`.
    """
    number = first
    try:
        with closing(open_uri(name, folder)) as file:
            if file.read(8).startswith(_PACKED):
                raise UnsupportedFormatError(
                    "is compressed; its images cannot be read one by one", item=name
                )
            file.seek(0)
            try:
                with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
                    while (member := tar.next()) is not None:
                        tar.members = []  # type: ignore[attr-defined]  # it would keep them
                        suffix = os.path.splitext(member.name)[1].lower()
                        if member.isreg() and not member.issparse() and suffix in SUFFIXES:
                            own = f"{name}::{member.name}"
                            yield Unit(number, "image", own, name, member.offset_data, member.size)
                            number += 1
                    end = tar.offset
            except (tarfile.TarError, OSError, ValueError, EOFError) as e:
                what = TruncatedError if "unexpected end" in str(e) else CorruptError
                raise what(f"not a whole tar file: {e}", item=name) from e
            # tarfile takes damage in the middle for the end: a real end is two blocks of zeros.
            file.seek(end)
            mark = file.read(_BLOCK)
            if any(mark):
                raise CorruptError(f"no valid header at byte {end}", item=name)
            if len(mark) < _BLOCK:
                raise TruncatedError(f"ends at byte {end} without its end mark", item=name)
    except GiqaError as e:
        yield Unit.failed(number, name, e)
