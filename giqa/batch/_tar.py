"""Tar shards (WebDataset): where the images and videos in them lie; nothing is unpacked."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from giqa.batch._units import Unit
from giqa.errors import (
    CorruptError,
    GiqaError,
    NotFoundError,
    TruncatedError,
    UnsupportedFormatError,
)
from giqa.inputs import SUFFIXES, VIDEO_SUFFIXES, listed
from giqa.uris import open_uri

_BLOCK = 512
_LINKS = 256
"""So many links are followed to one member: a loop has no end."""
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


def members(name: str, folder: str, first: int, passed: Counter[str]) -> Iterator[Unit]:
    """List the images and videos in a tar file, by its headers alone.

    Members that are neither by their suffix (labels, metadata) are counted. Links come last: each
    stands for the member that it names. What is wrong with the tar file becomes one unit more,
    after those that were found before, and so does a tar file without any.

    Args:
        name: its path or URI.
        folder: where relative paths begin.
        first: the first unit's `input`.
        passed: counts members that are no inputs, by suffix.

    Yields:
        Units named `TAR::MEMBER`.
    """
    number, own = first, Counter[str]()
    links: dict[str, str] = {}
    linked: list[str] = []
    try:
        with closing(open_uri(name, folder)) as file:
            if file.read(8).startswith(_PACKED):
                raise UnsupportedFormatError(
                    "is compressed; its images cannot be read one by one", item=name
                )
            for member in _headers(file, name):
                suffix = posixpath.splitext(member.name)[1].lower()
                if member.isdir():
                    continue
                wanted = suffix in SUFFIXES | VIDEO_SUFFIXES
                if member.islnk() or member.issym():
                    links[posixpath.normpath(member.name)] = _target(member)
                    if wanted:
                        linked.append(member.name)
                if not wanted:
                    own[suffix or "without a suffix"] += 1
                elif not (member.islnk() or member.issym()):
                    yield _unit(number, name, member)
                    number += 1
            for unit in _linked(linked, links, file, name):
                yield replace(unit, input=number)
                number += 1
        if number == first:
            but = f" (passed over: {listed(own)})" if own else ""
            raise NotFoundError(f"the tar file holds no image and no video{but}", item=name)
    except GiqaError as e:
        yield Unit.failed(number, name, e)
    passed.update(own)


def _headers(file: object, name: str) -> Iterator[tarfile.TarInfo]:
    """All members, in bounded memory; then the end mark is looked at."""
    file.seek(0)  # type: ignore[attr-defined]
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # it would keep them
                yield member
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError, EOFError) as e:
        what = TruncatedError if "unexpected end" in str(e) else CorruptError
        raise what(f"not a whole tar file: {e}", item=name) from e
    # tarfile takes damage in the middle for the end: a real end is two blocks of zeros.
    file.seek(end)  # type: ignore[attr-defined]
    mark = file.read(_BLOCK)  # type: ignore[attr-defined]
    if any(mark):
        raise CorruptError(f"no valid header at byte {end}", item=name)
    if len(mark) < _BLOCK:
        raise TruncatedError(f"ends at byte {end} without its end mark", item=name)


def _unit(number: int, name: str, member: tarfile.TarInfo) -> Unit:
    own = f"{name}::{member.name}"
    suffix = os.path.splitext(member.name)[1].lower()
    if not member.isreg() or member.issparse():
        kind = "a sparse file" if member.issparse() else "no regular file"
        return Unit.failed(number, own, UnsupportedFormatError(f"is {kind} in its tar file"))
    return Unit(
        number,
        "video" if suffix in VIDEO_SUFFIXES else "image",
        own,
        holder=name,
        offset=member.offset_data,
        size=member.size,
    )


def _target(member: tarfile.TarInfo) -> str:
    """The member that a link names: hard links from the top, others from where they are."""
    start = "" if member.islnk() else posixpath.dirname(member.name)
    return posixpath.normpath(posixpath.join(start, member.linkname))


def _linked(linked: list[str], links: dict[str, str], file: object, name: str) -> Iterator[Unit]:
    """Units of links, in their order; the members they name are looked for once more."""
    targets = {link: _followed(posixpath.normpath(link), links) for link in linked}
    wanted = set(targets.values())
    found: dict[str | None, tarfile.TarInfo] = {}
    if linked:
        for member in _headers(file, name):
            if (place := posixpath.normpath(member.name)) in wanted and member.isreg():
                found[place] = member
    for link in linked:
        own, target = f"{name}::{link}", targets[link]
        if target in found:
            yield replace(_unit(0, name, found[target]), name=own)
        else:
            what = (
                "is a loop of links" if target is None else f"links to {target}, which is no file"
            )
            yield Unit.failed(0, own, NotFoundError(f"{what} in its tar file"))


def _followed(place: str, links: dict[str, str]) -> str | None:
    """Where links lead, those of folders on the way, too; None: nowhere, as they are a loop."""
    for _ in range(_LINKS):
        parts = place.split("/")
        ends = (i for i in range(1, len(parts) + 1) if "/".join(parts[:i]) in links)
        if (end := next(ends, None)) is None:
            return place
        place = posixpath.normpath(posixpath.join(links["/".join(parts[:end])], *parts[end:]))
    return None
