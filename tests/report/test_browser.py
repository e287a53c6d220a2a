"""Pages in a real browser: nothing sticks out, pictures are seen, maps can be switched."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from giqa import batch
from giqa.cli import group
from giqa.report import ImageReport, write_comparison
from giqa.report._colours import COLOURS
from giqa.video import compare
from tests.brightness import Brightness
from tests.clips import pan, write
from tests.report.pages import ABOUT, failed, ok, pictures, rendition, silent, video, write_videos

CHROMIUM = shutil.which("chromium")
WIDTHS = (390, 1280)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]

# Looks into frames of each page and width; the pages themselves may run no script.
LOOK = """
<!doctype html>
%s
<pre id="found"></pre>
<script>
onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, view = frame.contentWindow;
    const opacity = () => [...page.querySelectorAll(".map")].map(
      map => Number(view.getComputedStyle(map).opacity) > 0);
    const shown = [opacity()];
    page.querySelector(".switch")?.click();
    shown.push(opacity());
    page.querySelector("label.shot")?.click();
    shown.push(opacity());
    const box = page.querySelector(".own");
    box?.focus();
    const seen = kind => [...page.querySelectorAll(kind)]
      .map(label => [label.parentElement, label.getBoundingClientRect()])
      .filter(([_, is]) => is.width && is.height);
    const apart = (a, b, gap = 0) => a.right + gap <= b.left || b.right + gap <= a.left
      || a.bottom <= b.top || b.bottom <= a.top;
    const labels = seen(".ys span:not(.widest), .xs span, .zones span, .strip > span, .shares b");
    const overlaps = labels.filter(([row, is], i) => labels.slice(i + 1)
      .some(([other, it]) => row === other && !apart(is, it, row.matches(".xs") ? 3 : 0))).length;
    const shots = seen(".shot"), pills = seen(".pill, .rank, .name, .more, .value");
    const covered = pills.filter(([_, is]) => shots.some(([_, it]) => !apart(is, it))).length;
    const photos = [...page.querySelectorAll(".photo")];
    found[frame.id] = {
      width: view.innerWidth,
      content: page.documentElement.scrollWidth,
      loaded: photos.every(photo => photo.complete && photo.naturalWidth > 0),
      distorted: photos.filter(photo => {
        const is = photo.getBoundingClientRect();
        const shape = is.width / is.height * photo.naturalHeight / photo.naturalWidth;
        return Math.abs(shape - 1) > 0.02;
      }).length,
      broken: [...page.querySelectorAll(
        ".ys span, .xs span, .zones span, .shares b, .band, .pill, .verdict, td > code, thead th"
      )].filter(label => label.getClientRects().length > 1
        || label.getBoundingClientRect().height - 2 * (label.tagName === "TH") * 9 > 24).length,
      overlaps, covered,
      focused: !box || page.activeElement === box,
      fetched: view.performance.getEntriesByType("resource").map(entry => entry.name)
        .filter(name => !name.startsWith("data:")),
      shown,
    };
  }
  document.querySelector("#found").textContent = JSON.stringify(found);
};
</script>
"""


def chromium(folder: Path, page: Path, *options: str) -> bytes:
    assert CHROMIUM is not None
    flags = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
    )
    offline = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    command = [CHROMIUM, *flags, *offline, f"--user-data-dir={folder / 'profile'}", *options]
    return subprocess.run(
        [*command, page.as_uri()], capture_output=True, check=True, timeout=180
    ).stdout


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    kinds = ("images", "video", "videos", "comparison", "run")
    paths = {name: folder / f"{name}.html" for name in kinds}
    report = ImageReport(paths["images"], **ABOUT)
    names = [folder / f"a-name-without-a-space-to-break-it-at-{i}.jpg" for i in range(10)]
    for i, path in enumerate(pictures(folder, 10)):
        path.rename(names[i])
        report.write(ok(names[i], 9.0 + 10 * i, (180, 320) if i % 3 == 0 else (320, 240)))
    deep = folder / ("d" * 60) / ("照片" * 20)
    deep.mkdir(parents=True)
    for name, size in (
        ("DSC_0001.jpg", (320, 240)),
        ("panorama.jpg", (1600, 90)),
        ("dot.png", (9, 9)),
    ):
        Image.new("RGB", size, (250, 250, 250)).save(deep / name)
        report.write(ok(deep / name, 51.3, size))
    for name in ("b" * 200, "folder/" * 30 + "b.jpg"):
        report.write(failed(name))
    report.close()
    write_videos(paths["video"], [video("a" * 120 + ".mp4")])
    write_videos(paths["videos"], [video(seconds=99_000, rate=1), silent("c" * 200)])
    base = 60 + 2 * np.sin(np.arange(2000) / 9)
    clips = [write(folder / f"{'r' * 50}{i}.mp4", pan(9, 320, 192)) for i in range(3)]
    seen = [rendition(str(clip), base - 9 * i, 2.0, (300.0,)) for i, clip in enumerate(clips)]
    write_comparison(paths["comparison"], compare(seen))
    with chdir(deep):
        for i in range(2):
            Image.new("RGB", (320, 240), (90 * i,) * 3).save("panorama.jpg")
            batch.run(["."], f"run{i}", scorer=Brightness())
        arguments = ["batch", "report", "run1", "--against", "run0", "--out", str(paths["run"])]
        assert CliRunner().invoke(group, arguments).exit_code == 0
    return paths


def test_pages_fit_and_maps_can_be_switched(reports: dict[str, Path], tmp_path: Path) -> None:
    frames = "".join(
        f'<iframe id="{name}-{width}" src="{path.as_uri()}" width="{width}" height="900"></iframe>'
        for name, path in reports.items()
        for width in WIDTHS
    )
    (look := tmp_path / "look.html").write_text(LOOK % frames)
    flags = ("--dump-dom", "--allow-file-access-from-files", "--force-prefers-reduced-motion")
    dom = chromium(tmp_path, look, *flags).decode()
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)
    assert text is not None
    found = json.loads(html.unescape(text[1]))
    assert len(found) == len(reports) * len(WIDTHS)
    for name, page in found.items():
        assert page["width"] == int(name.rsplit("-")[-1])
        assert page["content"] <= page["width"], f"{name} scrolls sideways"
        assert page["loaded"], name
        assert page["distorted"] == 0, name
        assert page["broken"] == 0, f"{name} breaks labels"
        assert page["overlaps"] == 0, f"labels of {name} overlap"
        assert page["covered"] == 0, f"{name} writes on pictures"
        assert page["focused"], name
        assert page["fetched"] == [], name
        off, all_on, one_off = page["shown"]
        assert not any(off)
        assert all(all_on)
        if name.startswith(("comparison", "run")):  # without maps
            assert one_off == []
        else:
            assert one_off == [False, *all_on[1:]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_seen(reports: dict[str, Path], tmp_path: Path, scheme: str) -> None:
    dark = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    shot = tmp_path / "shot.png"
    chromium(tmp_path, reports["images"], dark, "--window-size=1280,1000", f"--screenshot={shot}")
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (1000, 1280, 3)
    edge = pixels[:, :20].mean()
    assert edge > 200 if scheme == "light" else edge < 60
    for name, colour in COLOURS.items():  # two bars of each band and its stroke below
        assert np.sum(np.abs(pixels - colour).max(2) <= 2) > 300, name
