"""Reports to look at: rows, videos, and a strict reader of their pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.contract import GRID
from giqa.errors import CorruptError, NoFramesError
from giqa.report import VideoReport, WorstFrames
from giqa.results import ImageResult
from giqa.video import FrameRow, Scene, StreamInfo, VideoResult, Window
from tests.photos import photo

ABOUT = {"bundle": "giqa-s@0.1.0", "engine": "openvino-f32"}
EVIL = "<script>alert(1)</script>\"'&\n\x1b\udcff.jpg"
_VOID = frozenset({"meta", "link", "img", "input"})


def ok(path: str | Path, score: float, size: tuple[int, int] = (320, 240)) -> ImageResult:
    width, height = size
    cells = np.linspace(score / 2, (100 + score) / 2, GRID * GRID, dtype=np.float32)
    return ImageResult(
        path=str(path),
        score=score,
        width=width,
        height=height,
        profile="fast",
        boxes=np.array([[0, 0, width, height]], np.int32),
        quality_map=cells.reshape(1, GRID, GRID),
        **ABOUT,
    )


def failed(path: str) -> ImageResult:
    return ImageResult(path=path, error=CorruptError(f"{EVIL} is bad"), profile="fast", **ABOUT)


def pictures(folder: Path, count: int) -> list[Path]:
    """Small photographs, standing and lying."""
    paths = [folder / f"p{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        size = (320, 240) if i % 3 else (180, 320)
        Image.fromarray(photo(*size, i)).save(path)
    return paths


@dataclass(frozen=True)
class Frame:
    """A frame as a video's reader gives it."""

    index: int
    pts_s: float
    image: npt.NDArray[np.uint8]


@cache
def _picture(seed: int) -> npt.NDArray[np.uint8]:
    return photo(320, 180, seed)


Seen = tuple[VideoResult, WorstFrames | None]


def write_videos(path: Path, videos: Sequence[Seen]) -> Path:
    report = VideoReport(path)
    for one in videos:
        report.write(*one)
    report.close()
    return path


def video(path: str = "clip.mp4", seconds: int = 40, rate: int = 25) -> Seen:
    """A video whose fourth scene is bad."""
    rng = np.random.default_rng(1)
    worst, frames = WorstFrames(), []
    for i in range(seconds * rate):
        pts_s = i / rate
        score = (80, 72, 66, 24, 61)[int(pts_s / seconds * 5)] + float(rng.normal(0, 2))
        lost = CorruptError("lost") if i == 7 else None
        frames.append(FrameRow(i, pts_s, None if lost else score, lost))
        if i % rate == 0:
            cells = np.full((1, GRID, GRID), score, np.float32)
            worst(Frame(i, pts_s, _picture(i % 8)), score, cells)
    step = seconds / 5
    info = StreamInfo("mov,mp4", "h264", 1280, 720, rate, seconds, "yuv420p", "bt709", 0)
    result = VideoResult(
        path,
        **ABOUT,
        info=info,
        frames=tuple(frames),
        pooled={"mean": 60.6, "harmonic_mean": 51.2, "min": 18.3, "p5": 22.5},
        scenes=tuple(
            Scene(i * step, (i + 1) * step, 200, {"mean": 80.0 - 10 * i}) for i in range(5)
        ),
        worst_window=Window(3 * step, 3 * step + 3, 23.5),
    )
    return result, worst


def silent(path: str = EVIL) -> Seen:
    return VideoResult(path, **ABOUT, error=NoFramesError("has sound only")), None


def info(fps: float, seconds: float = 10.0) -> StreamInfo:
    return StreamInfo("mov", "h264", 64, 48, fps, seconds, "yuv420p", "bt709", 0)


def rendition(
    path: str, scores: npt.NDArray[Any], fps: float = 25.0, cuts: tuple[float, ...] = ()
) -> VideoResult:
    """A video of these scores, with scenes that begin at the cuts."""
    rows = [FrameRow(i, i / fps, float(s)) for i, s in enumerate(scores)]
    seconds = len(scores) / fps
    return VideoResult.gather(
        path, **ABOUT, frames=rows, leaps=cuts, first_s=0.0, read_to_s=seconds, info=info(fps)
    )


@dataclass
class Page(HTMLParser):
    """A page, read strictly: every element is closed, in order.

    Attributes:
        elements: name and attributes of each.
        text: all text outside of style sheets.
        style: the style sheet.
    """

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    style: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    @classmethod
    def of(cls, path: Path) -> Page:
        page = cls()
        page.feed(path.read_bytes().decode())
        page.close()
        assert page._open == []
        return page

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        """Attributes of all elements of a name, and of a class."""
        found = [a for t, a in self.elements if t == tag]
        return [a for a in found if not kind or kind in a.get("class", "").split()]

    def check(self) -> None:
        """Refuse what no page may have."""
        assert not {"script", "iframe", "object", "embed", "base", "form"} & {
            tag for tag, _ in self.elements
        }
        ids = [a["id"] for _, a in self.elements if "id" in a]
        assert len(set(ids)) == len(ids)
        for tag, a in self.elements:
            assert not [name for name in a if name.startswith("on")]
            for name in ("src", "href", "action", "srcset", "poster", "data", "background"):
                if tag == "a" and name in a and not a[name].startswith("#"):  # a file beside it
                    assert ":" not in a[name], a[name]
                    assert not a[name].startswith("/")
                elif name in a:
                    assert a[name].startswith(("data:", "#")), (tag, name)
                    assert not a[name].startswith("#") or a[name][1:] in ids
            if "for" in a:
                assert a["for"] in ids
            for name in ("aria-labelledby",):
                assert a.get(name, ids[0] if ids else "") in [*ids, ""]
            if tag == "img":
                assert a["alt"]
            if tag == "svg" and "role" in a:
                assert a["aria-label"]
        for forbidden in ("url(", "@import", "http:", "https:", "//"):
            assert forbidden not in self.style
        (policy,) = (a for a in self.all("meta") if "http-equiv" in a)
        assert policy["content"].startswith("default-src 'none'; img-src data:;")
