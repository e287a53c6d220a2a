"""From what a user names to items, and from items to bytes."""

from __future__ import annotations

import codecs
import glob
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from giqa.errors import (
    EmptyError,
    NotFoundError,
    TooManyBytesError,
    UnreadableError,
    UsageError,
)
from giqa.files import coded
from giqa.types import MOST, Item, Limits
from giqa.uris import is_uri, open_file, read_uri

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff"),
        *("jp2", "j2k", "jpx", "jpc", "pnm", "pbm", "pgm", "ppm", "gif", "avif", "heic", "heif"),
        *("jxl", "dng", "nef", "nrw", "arw", "pef", "srw"),  # RAW with a preview of full size
    )
)
"""Suffixes (lower case) that make a file in a directory an image."""
VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "m2ts", "flv"),
        *("wmv", "asf", "3gp", "3g2", "mxf", "ogv", "ogm", "y4m", "vob", "m2v", "h264", "264"),
        *("hevc", "h265", "265", "ivf", "f4v", "mjpeg", "mjpg", "dv", "nut"),
    )
)
"""Suffixes (lower case) that make a file a video."""

_CHUNK = 1 << 16


def find(
    arguments: Sequence[str],
    *,
    recursive: bool = False,
    stdin: IO[bytes] | None = None,
    null_separated: bool = False,
    suffixes: Collection[str] = SUFFIXES,
    passed: Counter[str] | None = None,
    without: Path | None = None,
) -> Iterator[Item]:
    """Turn paths, directories, patterns and `-` into items, lazily, in a fixed order.

    Duplicates are kept: every input gives a row. What cannot be listed, or holds nothing, becomes
    an item with an error.

    Args:
        arguments: a file or URL; a directory (the images in it, sorted by name); a glob pattern, if
            no such path exists (matches sorted; `**` descends); or `-`, a list of files on `stdin`.
        recursive: descend into directories (a directory reached twice through links once).
        stdin: where `-` reads.
        null_separated: the list is separated by NUL instead of newlines.
        suffixes: what makes a file in a directory an input, lower case.
        passed: counts what directories hold beside inputs, by suffix.
        without: a directory that is not descended into, if it exists.

    Yields:
        One item a file.
    """
    for argument in arguments:
        if argument == "-" and stdin is not None:
            name = None
            for name in _names(stdin, b"\0" if null_separated else b"\n"):
                yield Item.of(name)
            if name is None:
                remedy = "write the names to it, one a line"
                yield Item("-", error=NotFoundError("the list is empty", item="-", remedy=remedy))
        elif is_uri(argument):
            yield Item.of(argument)
        elif os.path.isdir(argument):
            yield from _directory(argument, recursive, suffixes, passed, without)
        elif not os.path.lexists(argument) and glob.has_magic(argument):
            matches = sorted(glob.glob(argument, recursive=True))
            files = [m for m in matches if not os.path.isdir(m)]
            if not files:
                yield Item(argument, error=NotFoundError("no file matches", item=argument))
            yield from (Item(m, Path(m)) for m in files)
        else:
            yield Item.of(argument) if not argument else Item(argument, Path(argument))


def _names(stream: IO[bytes], separator: bytes) -> Iterator[str]:
    rest = None
    # read1 gives what is there: the first rows of a pipe do not wait for a full buffer.
    read = getattr(stream, "read1", stream.read)
    while chunk := read(_CHUNK):
        rest = _begin(chunk) if rest is None else rest + chunk
        *names, rest = rest.split(separator)
        yield from (os.fsdecode(n) for n in map(_line, names) if n)
    if rest and (rest := _line(rest)):
        yield os.fsdecode(rest)


def _begin(first: bytes) -> bytes:
    """The first bytes of a list, without the mark that some editors put there."""
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError("the list is UTF-16", item="-", remedy="write it as UTF-8")
    return first.removeprefix(codecs.BOM_UTF8)


def _line(name: bytes) -> bytes:
    return name.removesuffix(b"\r")


def _directory(
    root: str,
    recursive: bool,
    suffixes: Collection[str],
    passed: Counter[str] | None,
    without: Path | None,
) -> Iterator[Item]:
    found, own, seen = False, Counter[str](), set[tuple[int, int]]()
    if without is not None:
        with suppress(OSError):
            status = without.stat()
            seen.add((status.st_dev, status.st_ino))
    for item in _walk(root, recursive, suffixes, own, seen):
        found = True
        yield item
    if not found:
        but = f" (passed over: {listed(own)})" if own else ""
        yield Item(root, error=NotFoundError(f"the directory holds no image{but}", item=root))
    if passed is not None:
        passed.update(own)


def listed(passed: Counter[str]) -> str:
    """What was passed over in words: `3 .json, 1 .psd`."""
    ordered = sorted(passed.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)


def _walk(
    folder: str,
    recursive: bool,
    suffixes: Collection[str],
    passed: Counter[str],
    seen: set[tuple[int, int]],
) -> Iterator[Item]:
    try:
        status = os.stat(folder)
        if (key := (status.st_dev, status.st_ino)) in seen:
            return
        seen.add(key)
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda e: e.name)
    except OSError as e:
        yield Item(folder, error=coded(e, folder))
        return
    for entry in ordered:
        suffix = os.path.splitext(entry.name)[1].lower()
        if _is_dir(entry):
            if recursive:
                yield from _walk(entry.path, recursive, suffixes, passed, seen)
            elif suffix in suffixes:
                error = UnreadableError("is a directory", item=entry.path)
                yield Item(entry.path, error=error)
            else:
                passed["folders"] += 1
        elif suffix in suffixes:
            yield Item(entry.path, Path(entry.path))
        else:
            passed[suffix or "without a suffix"] += 1


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links: reading it will say so
        return False


def read(item: Item, limits: Limits | None = None) -> npt.NDArray[np.uint8]:
    """Read an item's bytes; never blocks on what is not a regular file.

    Args:
        item: with `data`, `path` or `url`.
        limits: `max_bytes` is checked before reading.

    Returns:
        (n,) uint8.

    Raises:
        NotFoundError: no such file.
        PermissionDeniedError: not readable for this user.
        UnreadableError: not a regular file, or reading failed.
        EmptyError: no bytes.
        TooManyBytesError: over the limit.
        MissingExtraError: a URL, and no fsspec.
    """
    limits = limits or Limits()
    if (data := item.data) is None and item.url is not None:
        data = read_uri(item.url, "", size=limits.max_bytes + 1)
    if data is not None:
        _check_size(len(data), limits, item.name)
        return np.frombuffer(data, np.uint8)
    if item.path is None:
        raise UnreadableError("has neither path, data nor url", item=item.name)
    with open_file(item.path, item.name) as file:
        size = os.fstat(file.fileno()).st_size
        _check_size(size, limits, item.name)
        try:
            data = file.read(min(size, limits.max_bytes) + 1)  # memory for so many is taken
        except OSError as e:
            raise coded(e, item.name) from e
    _check_size(len(data), limits, item.name)
    return np.frombuffer(data, np.uint8)


def limits_of(item: Item, limits: Limits) -> Limits:
    """Limits for an item: pixels that were handed over are no file of so many bytes."""
    return replace(limits, max_bytes=MOST) if item.pixels else limits


def _check_size(size: int, limits: Limits, name: str) -> None:
    if size == 0:
        raise EmptyError("no bytes", item=name)
    if size > limits.max_bytes:
        raise TooManyBytesError(f"{size} bytes, the limit is {limits.max_bytes}", item=name)
