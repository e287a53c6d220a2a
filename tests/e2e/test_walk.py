"""The walk that documents take from a command to a tensor is the one that the code takes."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from giqa import LocalScorer
from giqa.cli import group
from tests.clips import pan, write
from tests.makers import jpeg

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "build/site/pages/guides/code.md"


def walk(title: str) -> list[str]:
    """The files that the page lists below a heading, in order."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return re.findall(r"^\d+\. `(giqa/\S+\.py)`", section, re.M)


def calls(work: Callable[[], object]) -> set[tuple[str, str]]:
    """Which of giqa's files called which while something ran, in whatever thread.

    A generator's frame is only where calls come from: whoever pulls from it may stand anywhere.
    What opens a scorer is left out: graphs compile while the known picture is decoded.
    """
    found: set[tuple[str, str]] = set()

    def name(frame: FrameType | None) -> str:
        file = frame.f_code.co_filename if frame is not None else ""
        return Path(file).relative_to(ROOT).as_posix() if file.startswith(f"{ROOT}/giqa/") else ""

    def opens(frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code is not LocalScorer._open.__code__:
            frame = frame.f_back
        return frame is not None

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            call = name(frame.f_back), name(frame)
            if call[1] and call not in found and not opens(frame):
                found.add(call)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


@pytest.mark.parametrize("title", ["One image", "One frame"])
def test_the_walk_goes_forward(title: str, tmp_path: Path) -> None:
    """Each file is there, calls only files below it, and is called by one above or by a thread."""
    files = walk(title)
    assert 5 < len(files) <= 8
    if title == "One image":
        path = tmp_path / "photo.jpg"
        path.write_bytes(jpeg(320, 240))
        arguments = ["score", str(path)]
    else:
        path = write(tmp_path / "clip.mp4", pan(4))
        arguments = ["video", str(path)]
    made = calls(lambda: group.main(arguments, standalone_mode=False))
    places = {name: i for i, name in enumerate(files)}
    back = [(a, b) for a, b in made if a in places and b in places and places[a] > places[b]]
    assert back == []
    for name in files[1:]:
        assert any(b == name and (a in places or not a) and a != name for a, b in made), name
