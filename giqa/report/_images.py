"""The report of an image set: its distribution, its worst and best, and what failed."""

from __future__ import annotations

import os
from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from PIL import Image

from giqa import checks
from giqa.contract import PROFILES, Profile
from giqa.files import Output
from giqa.report._cards import Shot, read_picture, shot
from giqa.report._charts import histogram
from giqa.report._page import Page, environment, write_page
from giqa.report._pictures import lay, shrink
from giqa.report._spread import Spread
from giqa.results import ImageResult
from giqa.types import Limits

WORST: Final = 48
BEST: Final = 24
"""Pictures in a gallery; a set of no more than both together is shown whole."""
ERRORS: Final = 200
"""Failures that are listed; all are counted."""


class ImageReport(Page):
    """Gathers rows and writes them as one HTML file; a `giqa.results.Writer`.

    Memory is bounded, whatever the number of rows: it keeps those that the page will show. With
    the usual numbers the file is at most about 4 MB: 72 thumbnails of 32 KiB, a third larger as
    text, and their maps. Pictures are read again from their paths when the report is closed.

    Args:
        path: the HTML file.
        bundle: name and version of the weights.
        engine: runtime and precision.
        profile: `fast` or `precise`.
        sources: what was scored, as the user named it; stands under the title.
        worst: pictures shown from the lower end.
        best: pictures shown from the upper end.
        limits: those that the images were scored with.
        pictures: gives the picture of a result, if it is not in a file of its path.
        drift: how far another run is (`giqa.batch.Drift`), to be told, too.

    Raises:
        MissingExtraError: jinja2 is not installed.
        UnwritableError: no file can be written there.

    Example:
        >>> from giqa import LocalScorer
        >>> from giqa.report import ImageReport
        >>> with LocalScorer() as scorer:  # doctest: +SKIP
        ...     report = ImageReport(
        ...         Path("report.html"), bundle=scorer.manifest.id, engine=scorer.engine
        ...     )
        ...     for result in scorer.score(["a.jpg", "b.jpg"], quality_map=True):
        ...         report.write(result)
        ...     report.close()
    """

    def __init__(
        self,
        path: str | Path,
        *,
        bundle: str,
        engine: str,
        profile: Profile = "fast",
        sources: Sequence[str] = (),
        worst: int = WORST,
        best: int = BEST,
        limits: Limits | None = None,
        pictures: Callable[[ImageResult], Image.Image | None] | None = None,
        drift: Any = None,
    ) -> None:
        # What is missing, and where nothing can be written, is said now and not after the work.
        environment()
        self._path = checks.path("path", path)
        Output(self._path)
        checks.one_of("profile", profile, PROFILES)
        self._about = {"bundle": bundle, "engine": engine, "profile": profile}
        self._sources = list(sources)
        self._worst = checks.whole("worst", worst, 0)
        self._best = checks.whole("best", best, 0)
        self._limits = limits or Limits()
        self._pictures, self._drift = pictures, drift
        self._spread = Spread()
        self._kept: list[tuple[float, int, ImageResult]] = []
        self._errors: list[ImageResult] = []
        self._codes: Counter[str] = Counter()
        self._dropped = 0
        self._videos = 0

    def write(self, result: ImageResult) -> None:
        """Take a row in."""
        checks.instance("result", result, ImageResult)
        self._videos += "video" in result.notes
        if result.error is not None:
            self._codes[result.error.code] += 1
            if len(self._errors) < ERRORS:
                self._errors.append(result)
            return
        assert result.score is not None
        # An interruption may come between any two of these: each leaves what makes a page.
        order = self._dropped + len(self._kept)
        insort(self._kept, (result.score, order, result), key=lambda e: e[:2])
        if len(self._kept) > self._worst + self._best:
            del self._kept[self._worst]  # the least remarkable: neither end needs it
            self._dropped += 1
        self._spread.add(result.score)

    def close(self) -> None:
        """Write the file.

        Raises:
            StorageFullError: no space is left; the old file, if any, is untouched.
            UnwritableError: the file cannot be written.
        """
        folder = _common([result.path for _, _, result in self._kept])
        cards = [
            {
                "rank": rank,
                "result": result,
                "name": os.path.relpath(result.path, folder) if folder else result.path,
                "link": self._link(result),
                "shot": self._shot(result),
            }
            for rank, result in self._ranked()
        ]
        whole = not self._dropped
        split = len(cards) if whole else self._worst
        write_page(
            self._path,
            "images.html",
            about=self._about,
            sources=self._sources,
            spread=self._spread,
            bars=histogram(self._spread),
            whole=whole,
            worst=cards[:split],
            best=cards[split:][::-1],
            maps=any(card["shot"].map for card in cards),  # type: ignore[attr-defined]
            errors=[(row, self._link(row)) for row in self._errors],
            codes=self._codes.most_common(),
            drift=self._drift,
            videos=self._videos,
        )

    @property
    def begun(self) -> bool:
        """There is a row."""
        return bool(self._spread.count or self._codes)

    def _link(self, result: ImageResult) -> str:
        """Where the page finds the file; empty if it is none."""
        if not os.path.isfile(result.path):
            return ""
        start = os.path.dirname(os.path.abspath(self._path))
        return quote(os.fsencode(os.path.relpath(result.path, start)))

    def _ranked(self) -> list[tuple[int, ImageResult]]:
        """What is kept, from the worst, with its place in the whole set."""
        return [
            (1 + i + (self._dropped if i >= self._worst else 0), result)
            for i, (_, _, result) in enumerate(self._kept)
        ]

    def _shot(self, result: ImageResult) -> Shot:
        if self._pictures is not None:
            found = self._pictures(result)
            picture = None if found is None else shrink(found)
        else:
            picture = read_picture(Path(result.path), self._limits)
        size = (0, 0) if picture is None else picture.size
        return shot(picture, (result.width or size[0], result.height or size[1]), lay(result))


def _common(paths: Sequence[str]) -> str:
    """The folder that all paths share; empty if there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # none at all, or absolute and relative ones
        return ""
