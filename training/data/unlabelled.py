"""Images without opinion scores, for distillation."""

from __future__ import annotations

import os
from pathlib import Path

from giqa import inputs
from giqa.errors import NotFoundError

_SHOWN = 5


def list_images(folder_or_glob: Path | str) -> list[Path]:
    """List image files, by suffix; they are not opened.

    Args:
        folder_or_glob: a folder (with all folders in it), a glob pattern (`**` descends), or one
            file.

    Returns:
        Paths sorted by folder and name, of every file one, under the first of its names.

    Raises:
        NotFoundError: there is no such file or no image, or a link leads nowhere.
        InputError: a folder cannot be read.
    """
    found: dict[str, Path] = {}
    broken = []
    for item in inputs.find([str(folder_or_glob)], recursive=True):
        if item.error is not None:
            raise item.error
        assert item.path is not None
        if item.path.suffix.lower() not in inputs.SUFFIXES:
            continue  # a pattern may match anything
        if not item.path.is_file():
            broken.append(item.name)
        found.setdefault(os.path.realpath(item.path), item.path)
    if broken:
        rest = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise NotFoundError(f"no such image file: {', '.join(broken[:_SHOWN])}{rest}")
    if not found:
        raise NotFoundError("no image", item=str(folder_or_glob))
    return list(found.values())
