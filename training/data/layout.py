"""Files and folders of data sets as their authors distribute them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from giqa.errors import TableInvalidError
from giqa.inputs import SUFFIXES
from training.data.checks import Row, some

_CODE = re.compile(r"(i\d+)_(\d+)_(\d+)\.\w+", re.IGNORECASE)


def nested(root: Path, *folders: str) -> Path:
    """The folder that an archive made when it was unpacked, or the root if it made none."""
    found = (_resolved(root, folder) for folder in folders)
    return next((path for path in found if path is not None and path.is_dir()), root)


def find(title: str, root: Path, *places: str) -> Path:
    """Find a file or folder, whatever the case of its name.

    Args:
        title: the data set, for messages.
        root: its folder.
        places: where it may be, relative to the root; the first that exists is taken.

    Raises:
        FileNotFoundError: it is at none of them; the first is named in full.
    """
    for place in places:
        if (path := _resolved(root, place)) is not None:
            return path
    others = f" (nor is there {', '.join(places[1:])})" if places[1:] else ""
    raise FileNotFoundError(f"{title}: {root / places[0]} is missing{others}")


def _resolved(root: Path, place: str) -> Path | None:
    path = root
    for part in PurePosixPath(place).parts:
        if not (path / part).exists():
            entries = sorted(path.iterdir()) if path.is_dir() else []
            same = [p.name for p in entries if p.name.lower() == part.lower()]
            if not same:
                return None
            part = same[0]
        path /= part
    return path


class Pictures:
    """The pictures in a folder, found by name whatever its case.

    Args:
        folder: where they are.
        deep: take those in folders below, too.
        absent: the folder may be missing; it has none, then.

    Attributes:
        paths: all of them, sorted.
    """

    def __init__(self, folder: Path, *, deep: bool = False, absent: bool = False) -> None:
        entries = () if absent and not folder.is_dir() else _entries(folder, deep)
        self.paths = sorted(p for p in entries if p.suffix.lower() in SUFFIXES)
        self._folder = folder
        self._found = {p.name.lower(): p for p in self.paths}
        self._found |= {p.name: p for p in self.paths}  # the exact name wins

    def __getitem__(self, name: str) -> Path:
        """Where a picture is, or where it was expected."""
        return self._found.get(name) or self._found.get(name.lower()) or self._folder / name

    def without(self, names: Iterable[str]) -> list[Path]:
        """All but those named."""
        left_out = {self[name] for name in names}
        return [path for path in self.paths if path not in left_out]


def _entries(folder: Path, deep: bool) -> Iterable[Path]:
    return folder.rglob("*") if deep else folder.iterdir()


def read_words(table: Path, count: int) -> list[list[str]]:
    """Read a text file of words parted by blanks; empty lines are no rows.

    Args:
        table: UTF-8, no header.
        count: words a line.

    Raises:
        TableInvalidError: a line has more or fewer words, or the file is not UTF-8.
    """
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise TableInvalidError(f"not UTF-8 at byte {e.start}", item=str(table)) from e
    rows = [words for line in lines if (words := line.split())]
    wrong = [f"row {i} {' '.join(row)!r}" for i, row in enumerate(rows, 1) if len(row) != count]
    if wrong:
        raise TableInvalidError(some(f"not {count} words:", wrong), item=str(table))
    return rows


def check_lengths(table: Path, expected: int, **lists: Sequence[object]) -> None:
    """Check that lists that belong together by position are of one length.

    Raises:
        TableInvalidError: one is not; all are told.
    """
    if any(len(values) != expected for values in lists.values()):
        told = ", ".join(f"{name} has {len(values)}" for name, values in lists.items())
        raise TableInvalidError(f"not {expected} entries each: {told}", item=str(table))


def coded_rows(
    table: Path, labels: Iterable[tuple[str, object]], pictures: Pictures, types: Sequence[str]
) -> list[Row]:
    """Rows of a data set whose file names tell content, type and level, as `I01_02_03.png`.

    Args:
        table: the file, for messages.
        labels: name and score of each picture.
        pictures: where they are.
        types: names of the distortions, type 1 first.

    Raises:
        TableInvalidError: a name is not of that form, or its type is unknown.
    """
    rows, wrong = [], []
    for number, (name, score) in enumerate(labels, 1):
        match = _CODE.fullmatch(name)
        if match is None or not 1 <= int(match[2]) <= len(types):
            wrong.append(f"row {number} {name!r}")
            continue
        subset, level = types[int(match[2]) - 1], int(match[3])
        rows.append(
            Row(
                *(number, name, pictures[name], name.lower(), score),
                subset=subset, reference=match[1].lower(), level=level,
            )
        )  # fmt: skip
    if wrong:
        raise TableInvalidError(
            some(f"not CONTENT_TYPE_LEVEL with types 1..{len(types)}:", wrong), item=str(table)
        )
    return rows


def check_references(table: Path, folder: Path | None, rows: Iterable[Row]) -> None:
    """Check that every content has its original, where the folder of originals is there at all.

    Nothing here reads the originals; one that is missing shows that table and pictures are of
    different data.

    Raises:
        TableInvalidError: a content has none.
    """
    if folder is None:
        return
    there = {path.stem.lower() for path in Pictures(folder).paths}
    absent = sorted({row.reference for row in rows} - there)
    if absent:
        told = some(f"no original in {folder.name} of content", [repr(name) for name in absent])
        raise TableInvalidError(told, item=str(table))


def optional(root: Path, *places: str) -> Path | None:
    """As `find`, but None where there is none."""
    return next((p for place in places if (p := _resolved(root, place)) is not None), None)
