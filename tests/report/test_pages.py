"""Pages as documents: what stands in them, and what must not."""

from __future__ import annotations

import base64
import io
import itertools
import os
import re
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from giqa.contract import BANDS
from giqa.errors import CorruptError, MissingExtraError, StorageFullError, UnwritableError
from giqa.report import ImageReport, MapFolder
from giqa.report._images import ERRORS
from giqa.report._page import environment
from giqa.report._pictures import MOST_BYTES
from giqa.report._video import PICTURES
from giqa.results import ImageResult
from giqa.video import VideoResult
from tests.report.pages import ABOUT, EVIL, Page, failed, ok, pictures, silent, video, write_videos

NAMES = [name for _, name in BANDS]
TraceFunction = Callable[[FrameType, str, Any], Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pictures(tmp_path_factory.mktemp("photos"), 8)


def image_page(path: Path, rows: list[ImageResult], **options: object) -> Page:
    report = ImageReport(path, **ABOUT, **options)  # type: ignore[arg-type]
    for row in rows:
        report.write(row)
    report.close()
    page = Page.of(path)
    page.check()
    return page


def values(page: Page) -> list[float]:
    """The scores on the cards, in order."""
    return [float(v) for v in re.findall(r"(\d+\.\d)\w+#", page.text)]


def test_a_small_set_is_shown_whole_worst_first(photos: list[Path], tmp_path: Path) -> None:
    scores = [55.0, 12.0, 91.0, 91.0, 38.0, 70.0, 64.0, 20.0]
    rows = [ok(p, s, (320, 240)) for p, s in zip(photos, scores, strict=True)]
    page = image_page(tmp_path / "r.html", rows, sources=["photos/"])
    assert "Quality of 8 images" in page.text
    assert values(page) == sorted(scores)
    assert [a["id"] for a in page.all("li", "card")] == [f"n{i}" for i in range(1, 9)]
    assert len(page.all("img", "photo")) == len(page.all("img", "map")) == 8
    # Only the common folder is left out, and nothing says where the report was made.
    worst = page.all("img", "photo")[0]
    assert worst["alt"] == "p1.jpg"
    picture = base64.b64decode(worst["src"].removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(picture)) as small, Image.open(photos[1]) as original:
        difference = np.asarray(small.convert("RGB"), float) - np.asarray(original, float)
        assert np.abs(difference).mean() < 6
    assert f"Mean{np.mean(scores):.1f}fair" in page.text.replace("\n", "")
    counts = dict(zip(NAMES, (1, 2, 1, 2, 2), strict=True))
    for name, count in counts.items():
        assert f"{name}{count} " in page.text
    for said in ("giqa-s@0.1.0", "openvino-f32", "fast", "photos/"):
        assert said in page.text


def test_bars_say_their_numbers(tmp_path: Path) -> None:
    page = image_page(tmp_path / "r.html", [ok("no", s) for s in (40.5, 41.9, 61.0)])
    assert "40 to 42: 2 images (fair)" in page.text
    assert "60 to 62: 1 image (good)" in page.text
    bars = page.all("rect", "bar")
    assert [(a["class"], float(a["x"]) // 2 * 2, float(a["height"])) for a in bars] == [
        ("bar fair", 40, 100),
        ("bar good", 60, 50),
    ]


def test_maps_are_switched_by_checkboxes_that_a_keyboard_reaches(
    photos: list[Path], tmp_path: Path
) -> None:
    page = image_page(tmp_path / "r.html", [ok(p, 50.0) for p in photos])
    boxes = page.all("input")
    assert [a["type"] for a in boxes] == ["checkbox"] * 9
    assert {a["id"] for a in boxes} == {a["for"] for a in page.all("label")}
    assert not [a for a in boxes if "tabindex" in a or "hidden" in a]
    without = [
        ImageResult(path=str(p), score=5.0, width=1, height=1, profile="fast", **ABOUT)
        for p in photos
    ]
    page = image_page(tmp_path / "r.html", without)
    assert page.all("input") == page.all("img", "map") == []
    assert len(page.all("img", "photo")) == 8


def test_ten_thousand_images_give_a_page_of_bounded_size(
    photos: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "r.html"
    scores = np.random.default_rng(0).permutation(10_000) / 100
    report = ImageReport(path, **ABOUT)
    for i, score in enumerate(scores.tolist()):
        if i == 500:
            tracemalloc.start()
        report.write(ok(photos[i % 8], score))
        if i == 1500:
            current, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert current < 200_000  # what came later is kept, what it ousted is not traced
    report.close()
    page = Page.of(path)
    page.check()
    expected = [*range(48), *range(9999, 9999 - 24, -1)]
    assert [a["id"] for a in page.all("li", "card")] == [f"n{i + 1}" for i in expected]
    assert values(page) == [round(float(f"{i / 100:.1f}"), 1) for i in expected]
    assert "The worst 48" in page.text
    assert "The best 24" in page.text
    assert "10,000" in page.text
    assert path.stat().st_size < 72 * (MOST_BYTES + 2000) * 4 / 3 + 200_000


def test_names_are_text_and_nothing_else(photos: list[Path], tmp_path: Path) -> None:
    evil = tmp_path / EVIL.replace("/", "")
    evil.write_bytes(photos[0].read_bytes())
    rows = [ok(evil, 10.0), ok(photos[1], 20.0), failed(EVIL)]
    page = image_page(tmp_path / "r.html", rows, sources=[EVIL])
    raw = (tmp_path / "r.html").read_bytes()
    assert b"<script" not in raw
    assert b"\x1b" not in raw
    shown = EVIL.encode("unicode_escape", "surrogatepass").decode()
    shown = shown.replace("\\'", "'")
    assert page.text.count(shown) >= 3  # source, failure, message
    assert any("<script>" in a["alt"] for a in page.all("img", "photo"))
    assert len(page.all("li", "card")) == 2


def test_failures_are_listed_with_code_and_remedy(tmp_path: Path) -> None:
    page = image_page(tmp_path / "r.html", [failed(f"f{i}.jpg") for i in range(ERRORS + 50)])
    assert "No image could be scored." in page.text
    assert f"corrupt {ERRORS + 50}" in page.text
    assert len(page.all("tr")) == 1 + ERRORS
    assert CorruptError.default_remedy in page.text
    assert f"The first {ERRORS} of {ERRORS + 50}" in page.text
    assert page.all("svg") == page.all("img") == []


def test_no_rows_at_all_is_a_page(tmp_path: Path) -> None:
    page = image_page(tmp_path / "r.html", [])
    assert "Quality of 0 images" in page.text
    assert "none failed" in page.text


@pytest.mark.parametrize("rows", [0, 1, 3, 5])
def test_an_interruption_at_any_line_leaves_a_page(rows: int, tmp_path: Path) -> None:
    """Of the lines that take in a row, each in turn is where the signal comes."""

    def interrupted(line: int) -> bool:
        """Say whether there was such a line."""
        report = ImageReport(tmp_path / "r.html", **ABOUT, worst=2, best=2)
        for i in range(rows):
            report.write(ok(f"{i}.jpg", 30.0 + 10 * i))
        left = line

        def trace(frame: FrameType, event: str, _arg: object) -> TraceFunction | None:
            nonlocal left
            if "giqa/report" not in frame.f_code.co_filename:
                return None
            left -= event == "line"
            if left < 0:
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            report.write(ok("last.jpg", 55.0))
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        report.close()
        Page.of(tmp_path / "r.html").check()
        return left < 0

    assert sum(1 for _ in itertools.takewhile(interrupted, itertools.count())) > 10


def test_a_picture_that_is_gone_leaves_its_row(photos: list[Path], tmp_path: Path) -> None:
    page = image_page(tmp_path / "r.html", [ok(tmp_path / "gone.jpg", 30.0), ok(photos[0], 60.0)])
    assert len(page.all("li", "card")) == 2
    assert len(page.all("img", "photo")) == 1
    assert "cannot be read any more" in page.text


def test_a_video_has_timeline_scenes_and_worst_frames(tmp_path: Path) -> None:
    one, worst = video()
    assert worst is not None
    write_videos(path := tmp_path / "v.html", [(one, worst)])
    page = Page.of(path)
    page.check()
    assert [a["class"].split()[1] for a in page.all("rect", "zone")] == NAMES
    assert len(page.all("line", "cut")) == 4
    (window,) = (a for a in page.all("rect", "window") if "x" in a)
    length = one.frames[-1].pts_s if one.frames[-1].pts_s > 40 else 40.0
    assert float(window["x"]) == pytest.approx(100 * 24 / length, abs=0.01)
    assert float(window["width"]) == pytest.approx(100 * 3 / length, abs=0.01)
    frames = worst.frames
    marks = page.all("a", "mark")
    assert [a["href"] for a in marks] == [f"#v1f{i + 1}" for i in range(len(frames))]
    assert [a["id"] for a in page.all("li", "card")] == [a["href"][1:] for a in marks]
    dots = [re.findall(r"[\d.]+", a["style"]) for a in page.all("i", "dot")]
    for (x, y), frame in zip(dots, frames, strict=True):
        assert float(x) == pytest.approx(100 * frame.pts_s / length, abs=0.01)
        assert float(y) == pytest.approx(100 - frame.score, abs=0.01)
    assert len(page.all("path", "range")) == 1  # 1000 frames in 320 columns hide one gap
    for said in (
        "h264",
        "Pixel format",
        "Harmonic mean",
        "0:24\N{EN DASH}0:27",
        "5 scenes",
        "1 failed",
    ):
        assert said in page.text
    assert re.search(r"0:2[4-9]\S*: mean 2\d\.\d \(poor\), lowest \d+\.\d, \d frames", page.text)


def test_several_videos_and_their_failures(tmp_path: Path) -> None:
    short = video("short.mkv", seconds=5, rate=2)
    write_videos(path := tmp_path / "v.html", [short, silent(), (VideoResult("a", **ABOUT), None)])
    page = Page.of(path)
    page.check()
    assert b"<script" not in path.read_bytes()
    assert "no_frames has sound only" in page.text
    assert "No frame could be scored." in page.text
    assert [a["href"] for a in page.all("a")][:3] == ["#v1", "#v2", "#v3"]
    assert len(page.all("path", "lone")) + len(page.all("path", "mean")) >= 2  # the gap shows


def test_pages_of_videos_are_bounded(tmp_path: Path) -> None:
    long = video(seconds=700, rate=1)
    write_videos(path := tmp_path / "v.html", [long] * 12)
    page = Page.of(path)
    assert len(page.all("li", "card")) == PICTURES
    pictures_size = sum(len(a["src"]) for a in page.all("img"))
    assert path.stat().st_size - pictures_size < 12 * 100_000


def test_a_missing_extra_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError) as caught:
        ImageReport(tmp_path / "r.html", **ABOUT)
    assert caught.value.remedy == "pip install 'giqa[report]'"


def test_a_folder_that_is_not_there_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError):
        ImageReport(tmp_path / "no" / "r.html", **ABOUT)


def test_a_full_disk_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError):
        image_page(path, [])
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert path.read_text() == "old"


def test_map_files_hold_the_numbers_and_a_picture(photos: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "a" / "maps"
    maps = MapFolder(folder)
    evil = ok(tmp_path / ("x" * 240 + "é" * 5 + ".jpg"), 30.0)
    rows = [ok(photos[1], 40.0), failed("b.jpg"), ok(photos[1], 60.0), evil, ok(EVIL, 10.0)]
    for row in rows:
        maps.write(row)
    maps.close()
    files = sorted(p.name for p in folder.iterdir())
    assert files[:4] == [f"00000{n}-p1.jpg.{kind}" for n in (1, 3) for kind in ("npz", "png")]
    assert [name[:6] for name in files[4:]] == ["000004", "000005"]  # no picture to lay it over
    with np.load(folder / files[0]) as held:
        assert np.array_equal(held["quality_map"], rows[0].quality_map)  # type: ignore[arg-type]
        assert held["boxes"].tolist() == [[0, 0, 320, 240]]
        assert held["score"] == 40
    with Image.open(folder / files[1]) as picture:
        assert picture.size == (320, 240)
        pixels = np.asarray(picture.convert("RGB"), float)
    # The map rises from top to bottom: red above, blue below, whatever the picture.
    top, bottom = pixels[:40].mean((0, 1)), pixels[-40:].mean((0, 1))
    assert top[0] - top[2] > 40
    assert top[0] - top[2] > bottom[0] - bottom[2] + 40


def test_a_map_folder_that_is_a_file_is_refused(photos: list[Path]) -> None:
    with pytest.raises(UnwritableError):
        MapFolder(photos[0])


def test_cards_keep_file_names_and_lead_to_their_files(photos: list[Path], tmp_path: Path) -> None:
    deep = tmp_path / ("long folder " * 8) / "#1 50%?.jpg"
    deep.parent.mkdir()
    deep.write_bytes(photos[0].read_bytes())
    broken = tmp_path / "broken <b>.jpg"
    broken.write_bytes(b"x")
    path = tmp_path / "pages" / "r.html"
    path.parent.mkdir()
    with ImageReport(path, **ABOUT) as page:
        page.write(ok(deep, 30.0))
        page.write(ok(photos[1], 60.0))
        page.write(ok(Path("<array>"), 70.0))
        page.write(ImageResult(path=str(broken), error=CorruptError("x"), profile="fast", **ABOUT))
    text = path.read_text()
    assert '<span class="file">#1 50%?.jpg</span>' in text
    links = [unquote(part.partition('"')[0]) for part in text.split('<a href="')[1:]]
    files = [path.parent / link for link in links if not link.startswith("#")]
    assert {f.resolve() for f in files} == {deep.resolve(), photos[1].resolve(), broken.resolve()}
