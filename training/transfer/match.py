"""The nearest reference of each photograph, and photographs that are a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from giqa.errors import UsageError
from training.transfer.embed import Embedded

PRODUCTS = 10**10
"""Most pairs that are compared. Every pair is, without an index: 50,000 photographs and KADID-10k's
81 references are 4 million, a second's work; this many take minutes on one core."""

COPIES = ((0.995, 4.0), (0.9, 1.0))
"""A picture is another one's copy if, for one of these, the cosine is at least the first number and
32 x 32 thumbnails differ by at most the second, of 255, on average. By CLIP, five photographs' JPEG
copies had cosines above 0.998 at quality 90, above 0.97 at quality 50, and thumbnails within 0.3 of
255; thumbnails of crops differed by 10 or more."""

_BLOCK = 4096
_CELLS = 2**26
_LENGTH = 1e-3


@dataclass(frozen=True)
class Matches:
    """The nearest references of n photographs.

    Attributes:
        reference: (n,) int64, row among the references; the first of equals.
        similarity: (n,) float32 in -1..1, the cosine.
    """

    reference: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Leak:
    """A photograph that is a reference.

    Attributes:
        photo: its row.
        reference: the reference's row.
        similarity: the cosine of their features.
        same_bytes: whether the files are equal.
    """

    photo: int
    reference: int
    similarity: float
    same_bytes: bool


def nearest(photos: npt.NDArray[np.float32], references: npt.NDArray[np.float32]) -> Matches:
    """Find each photograph's nearest reference by cosine, exactly.

    Args:
        photos: (n, F) float32, rows of length 1.
        references: (r, F) float32, rows of length 1, r at least 1.

    Returns:
        One match a photograph.

    Raises:
        UsageError: features are missing (a row is not of length 1), widths differ, there is no
            reference, or n * r is above `PRODUCTS`.
    """
    _check(photos, references)
    best = np.zeros(len(photos), np.int64)
    similarity = np.zeros(len(photos), np.float32)
    for start, block in _blocks(photos, references):
        best[start : start + len(block)] = block.argmax(1)
        similarity[start : start + len(block)] = block.max(1)
    return Matches(best, np.clip(similarity, -1, 1))


def leaks(photos: Embedded, references: Embedded) -> list[Leak]:
    """Find photographs that are a reference: the same bytes, or nearly the same picture.

    Nearly: see `COPIES`. A crop, a mirrored or a much brightened copy is not found.

    Args:
        photos: n photographs, all readable.
        references: r references, all readable.

    Returns:
        At most one leak a photograph, the nearest reference's, in the order of photographs.

    Raises:
        UsageError: as `nearest`.
    """
    _check(photos.features, references.features)
    owners = {digest: row for row, digest in reversed(list(enumerate(references.sha256)))}
    found = []
    for start, block in _blocks(photos.features, references.features):
        for photo in range(start, start + len(block)):
            values = block[photo - start]
            same = owners.get(photos.sha256[photo])
            if same is not None:
                found.append(Leak(photo, same, float(values[same]), True))
                continue
            near = np.flatnonzero(values >= min(cosine for cosine, _ in COPIES))
            for row in near[np.argsort(-values[near], kind="stable")]:
                apart = _distance(photos.thumbnails[photo], references.thumbnails[row])
                if any(values[row] >= c and apart <= limit for c, limit in COPIES):
                    found.append(Leak(photo, int(row), float(values[row]), False))
                    break
    return found


def _distance(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


def _blocks(
    photos: npt.NDArray[np.float32], references: npt.NDArray[np.float32]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Products of rows, some photographs at a time so that memory stays bounded."""
    block = max(1, min(_BLOCK, _CELLS // len(references)))
    for start in range(0, len(photos), block):
        yield start, photos[start : start + block] @ references.T


def _check(photos: npt.NDArray[np.float32], references: npt.NDArray[np.float32]) -> None:
    if not len(references):
        raise UsageError("there is no reference to match with", remedy="give a labelled data set")
    if len(photos) * len(references) > PRODUCTS:
        raise UsageError(
            f"{len(photos)} photographs times {len(references)} references are more than "
            f"{PRODUCTS:.0e} pairs, and every pair is compared",
            remedy="split the photographs into folders",
        )
    if photos.ndim != 2 or references.ndim != 2 or photos.shape[1] != references.shape[1]:
        raise UsageError(
            f"features of shapes {photos.shape} and {references.shape}",
            remedy="use one backbone for both",
        )
    for what, rows in (("photograph", photos), ("reference", references)):
        length = np.linalg.norm(rows, axis=1)
        wrong = np.flatnonzero(~(np.abs(length - 1) <= _LENGTH))
        if len(wrong):
            raise UsageError(
                f"{len(wrong)} have no features of length 1, the first is row {wrong[0]}",
                item=what,
                remedy="compute their features",
            )
