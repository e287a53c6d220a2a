"""Whether an input's bytes changed: size and time, ETag, or SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from giqa.ahead import mapped
from giqa.batch._plan import Check
from giqa.batch._units import Unit
from giqa.errors import NotFoundError
from giqa.remote import file_system
from giqa.uris import local_path, open_uri

_AHEAD = 16
_PIECE = 1 << 20
_TAGS = ("ETag", "etag", "Content-MD5", "md5Hash", "mtime", "LastModified", "Last-Modified")
"""What file systems call it, the surest first."""
UNKNOWN = "?"
"""The stamp of what cannot be asked: a server that is away tells nothing of its files."""


def stamped(units: Iterator[Unit], folder: str, check: Check) -> Iterator[Unit]:
    """Give units their stamps, in order; what is not there has none.

    Members of a tar file and rows of a table have the stamp of their file.

    Args:
        units: the units.
        folder: where relative paths begin.
        check: what a stamp is made of.

    Yields:
        The units.
    """
    if check == "none":
        yield from units
        return
    last: tuple[str, str | None] = ("", None)

    def one(unit: Unit) -> Unit:
        nonlocal last
        if unit.error_code is not None:
            return unit
        place = unit.holder or unit.name
        if unit.holder is not None and last[0] == place:
            return replace(unit, stamp=last[1])
        found = stamp(place, folder, check)
        if unit.holder is not None:
            last = place, found
        return replace(unit, stamp=found)

    yield from mapped(
        one,
        units,
        workers=_AHEAD,
        # Asking the system is quicker than asking a thread to.
        here=lambda u: check == "stat" and local_path(u.holder or u.name, folder) is not None,
    )


def stamp(place: str, folder: str, check: Check) -> str | None:
    """The stamp of a file; None if it is not there, `UNKNOWN` if that cannot be asked.

    Args:
        place: its path or URI.
        folder: where relative paths begin.
        check: what the stamp is made of.
    """
    path = local_path(place, folder)
    try:
        if check == "hash":
            digest = hashlib.sha256()
            with closing(open_uri(place, folder)) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            return f"sha256:{digest.hexdigest()}"
        if path is not None:
            status = os.stat(path)
            return f"{status.st_size}:{status.st_mtime_ns}"
        system, inner = file_system(place)
        about = system.info(inner)
        tag = next((about[name] for name in _TAGS if about.get(name)), "")
        return f"{about.get('size')}:{tag}"
    except (NotFoundError, FileNotFoundError, NotADirectoryError) as e:
        # fsspec says so whatever went wrong with HTTP.
        said: object = getattr(e.__cause__, "status", None)
        return None if said in (None, 404, 410) else UNKNOWN
    except Exception:  # each file system has errors of its own; reading it will tell them
        return UNKNOWN
