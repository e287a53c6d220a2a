"""What pages are made of: counts, charts, pictures, maps."""

from __future__ import annotations

import io
import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from giqa.contract import BANDS, GRID, band
from giqa.decode import view_boxes
from giqa.report import WorstFrames
from giqa.report._charts import COLUMNS, ceiling, histogram, levels, ticks, timeline
from giqa.report._colours import COLOURS, colourize
from giqa.report._page import clock, points
from giqa.report._pictures import MOST_BYTES, encode, lay, overlay, shrink, smooth
from giqa.report._spread import Spread
from giqa.results import ImageResult
from tests.photos import photo
from tests.report.pages import Frame

SCORES = st.floats(0, 100, width=32)


def spread(scores: list[float]) -> Spread:
    made = Spread()
    for score in scores:
        made.add(score)
    return made


@given(st.lists(SCORES, min_size=1), st.floats(0, 1))
def test_a_spread_says_what_numpy_says(scores: list[float], share: float) -> None:
    made = spread(scores)
    assert made.quantile(share) == pytest.approx(np.quantile(scores, share), abs=0.0501)
    assert made.mean == pytest.approx(np.mean(np.float64(scores)))
    assert (made.lowest, made.highest) == (min(scores), max(scores))
    assert made.bands == {name: sum(band(s) == name for s in scores) for _, name in BANDS}
    expected, _ = np.histogram(np.floor(np.float64(scores) * 10), 50, (0, 1000))
    assert made.histogram(50).tolist() == expected.tolist()


def test_a_spread_of_nothing_is_unknown() -> None:
    empty = Spread()
    values = (empty.mean, empty.lowest, empty.highest, empty.quantile(0.5))
    assert all(np.isnan(v) for v in values)
    assert {points(v) for v in values} == {"\N{EN DASH}"}


def test_bars_have_their_bands_colours_and_share_a_ceiling() -> None:
    bars = histogram(spread([1, 19.99, 20, 20.5, 21, 99, 100]))
    full = [(bar.low, bar.count, bar.band, bar.height) for bar in bars if bar.count]
    assert full == [
        (0, 1, "bad", 25),
        (18, 1, "bad", 25),
        (20, 3, "poor", 75),
        (98, 2, "excellent", 50),
    ]


@given(st.integers(0, 10**7))
def test_a_ceiling_is_round_and_near(count: int) -> None:
    top = ceiling(count)
    assert top >= count
    assert top % 2 == 0
    assert int(str(top).rstrip("0")) in (1, 2, 4, 6, 8)
    assert top <= max(2, 2 * count)


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0.1, 30))
def test_labels_on_one_line_do_not_overlap(places: list[float], room: float) -> None:
    lines = levels(places, room)
    for line in set(lines):
        on_it = sorted(p for p, n in zip(places, lines, strict=True) if n == line)
        assert all(b >= a + room for a, b in itertools.pairwise(on_it))
    # As few as will do: as many as overlap at some place.
    most = max((sum(a <= p < a + room for a in places) for p in places), default=0)
    assert len(set(lines)) == most


@given(st.floats(0, 1e5), st.floats(0.05, 1e6))
def test_ticks_are_few_round_and_inside(start: float, length: float) -> None:
    found = ticks(start, start + length)
    assert len(found) <= 6
    assert all(start - 1e-3 <= t <= start + length + 1e-3 for t in found)
    if length >= 1:
        assert found or length < 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.996, "1:00"),
        (72.4, "1:12.4"),
        (3723.45, "1:02:03.45"),
        (0.05, "0:00.05"),
        (36000, "10:00:00"),
        (-1.5, "-0:01.5"),
    ],
)
def test_time_codes(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_short_timeline_has_every_frame_and_breaks_at_gaps() -> None:
    shape = timeline([(2.0, 40.0), (0.0, 80.0), (1.0, None), (3.0, 60.0)], end_s=4)
    assert [[(p.x, p.y) for p in run] for run in shape.runs] == [[(0, 20)], [(50, 60), (75, 40)]]
    assert not shape.binned
    assert shape.line(shape.runs[1]) == "M50.0 60.0L75.0 40.0"


def test_a_long_timeline_is_binned_by_time() -> None:
    rng = np.random.default_rng(0)
    times, scores = np.sort(rng.uniform(0, 7200, 50_000)), rng.uniform(0, 100, 50_000)
    shape = timeline(list(zip(times.tolist(), scores.tolist(), strict=True)))
    (run,) = shape.runs
    assert len(run) == COLUMNS
    assert sum(p.frames for p in run) == 50_000
    edges = np.linspace(0, times[-1], COLUMNS + 1)
    at = np.clip(np.searchsorted(edges, times, "right") - 1, 0, COLUMNS - 1)
    for i in (0, 100, COLUMNS - 1):
        inside = scores[at == i]
        assert run[i].score == pytest.approx(inside.mean())
        assert run[i].lowest == inside.min()
        assert run[i].y_high == pytest.approx(100 - inside.max(), abs=0.01)


def test_timelines_without_length() -> None:
    assert timeline([]).runs == []
    ((point,),) = timeline([(5.0, 50.0)], start_s=5.0).runs
    assert (point.x, point.y) == (0, 50)


# Machado et al. 2009, severity 1, on linear sRGB.
_SIGHT = {
    "usual": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("sight", _SIGHT)
def test_bands_are_told_apart_by_any_colour_vision(sight: str) -> None:
    assert list(COLOURS) == [name for _, name in BANDS]
    encoded = np.array(list(COLOURS.values())) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(_SIGHT[sight]), 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    f = np.cbrt(seen @ to_xyz.T / [0.9505, 1.0, 1.089])
    lab = np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(apart) > 14  # CIE76; 2.3 can just be noticed


def test_maps_take_the_bands_colours() -> None:
    values = np.array([[10, 30, 50], [70, 90, np.nan]], np.float32)
    coloured = colourize(values)
    assert [tuple(c) for c in coloured.reshape(-1, 4)[:5, :3]] == list(COLOURS.values())
    assert coloured[..., 3].tolist() == [[255, 255, 255], [255, 255, 0]]
    assert colourize(np.float32(20)).tolist() == [209, 104, 44, 255]


def row(width: int, height: int, boxes: npt.NDArray[np.int32], seed: int = 0) -> ImageResult:
    maps = np.random.default_rng(seed).uniform(0, 100, (len(boxes), GRID, GRID))
    common = {"bundle": "b", "engine": "e", "width": width, "height": height, "score": 50.0}
    maps = maps.astype(np.float32)
    return ImageResult(path="x.jpg", profile="precise", boxes=boxes, quality_map=maps, **common)


@pytest.mark.parametrize("size", [(1200, 800), (500, 2000), (448, 448), (460, 450), (60, 50)])
def test_views_are_laid_where_they_looked(size: tuple[int, int]) -> None:
    width, height = size
    result = row(width, height, view_boxes(width, height, "precise", 448))
    laid = lay(result)
    assert laid is not None
    assert result.quality_map is not None
    assert result.boxes is not None
    if size == (448, 448):
        assert np.array_equal(laid, result.quality_map[0])
        return
    for i, j in list(np.ndindex(laid.shape))[::7]:
        x, y = (j + 0.5) * width / laid.shape[1], (i + 0.5) * height / laid.shape[0]
        found = [
            cells[int((y - y0) / (y1 - y0) * GRID), int((x - x0) / (x1 - x0) * GRID)]
            for cells, (x0, y0, x1, y1) in zip(result.quality_map, result.boxes, strict=True)
            if x0 <= x < x1 and y0 <= y < y1
        ]
        expected = np.mean(found) if found else np.nan
        assert laid[i, j] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_a_view_of_the_whole_is_its_own_map_and_slivers_have_none() -> None:
    result = row(640, 480, view_boxes(640, 480, "fast", 448))
    assert result.quality_map is not None
    assert np.array_equal(lay(result), result.quality_map[0])  # type: ignore[arg-type]
    assert lay(row(1, 5000, view_boxes(1, 5000, "precise", 448))) is None


def test_scores_are_interpolated_and_not_colours() -> None:
    values = np.array([[10, 90]], np.float32)
    grown = smooth(values, (64, 4))
    assert grown.shape == (4, 64)
    assert np.all(np.diff(grown[0]) >= 0)
    assert (grown.min(), grown.max()) == (10, 90)
    assert grown[0, 31:33].mean() == pytest.approx(50, abs=1)  # fair, not a grey of red and blue
    with_hole = smooth(np.array([[50, np.nan], [50, 50]], np.float32), (40, 40))
    assert np.isnan(with_hole[2, 37])
    assert np.nanmax(np.abs(with_hole - 50)) < 1e-3


def test_an_overlay_is_a_small_picture_of_the_map() -> None:
    values = np.full((14, 14), 30, np.float32)
    values[:7] = 90
    data = overlay(values)
    assert len(data) < 2000
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (56, 56)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(pixels[:20] - COLOURS["excellent"]).max() < 12
    assert np.abs(pixels[-20:] - COLOURS["poor"]).max() < 12


def test_thumbnails_are_bounded_in_pixels_and_bytes() -> None:
    small = shrink(Image.fromarray(photo(1500, 1000)))
    assert small.size == (448, 299)
    pure_noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    for thumbnail, scale in ((small, 1), (Image.fromarray(pure_noise), 2)):
        data = encode(thumbnail)
        assert len(data) <= MOST_BYTES
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "WEBP"
            assert picture.size == tuple(length // scale for length in thumbnail.size)


IMAGE = np.zeros((20, 30, 3), np.uint8)


@given(st.lists(st.tuples(st.floats(0, 30), SCORES), min_size=1, max_size=60))
def test_worst_frames_are_those_of_the_worst_slots(frames: list[tuple[float, float]]) -> None:
    kept = WorstFrames(most=4, slot_s=2.0)
    slots: dict[int, float] = {}
    for i, (pts_s, score) in enumerate(frames):
        kept(Frame(i, pts_s, IMAGE), score)
        slots[int(pts_s // 2)] = min(score, slots.get(int(pts_s // 2), 100.0))
    found = kept.frames
    assert [f.score for f in found] == sorted(slots.values())[:4]
    assert len({f.pts_s // 2 for f in found}) == len(found)
    assert all(frames[f.frame] == (f.pts_s, f.score) for f in found)


def test_worst_frames_keep_thumbnails_and_maps_only() -> None:
    kept = WorstFrames(most=3, slot_s=0.5)
    image = photo(1280, 720)
    for i in range(20):
        quality_map = np.full((1, GRID, GRID), i, np.float32)
        kept(Frame(i, float(i), image), 50.0 - i, quality_map)
    assert [f.frame for f in kept.frames] == [19, 18, 17]
    first = kept.frames[0]
    assert (first.width, first.height, first.thumbnail.size) == (1280, 720, (448, 252))
    assert first.quality_map is not None
    assert first.quality_map.shape == (GRID, GRID)
    assert not np.shares_memory(first.quality_map, quality_map)


def test_pictures_of_frames_that_are_not_kept_are_not_made() -> None:
    made = []

    class Lazy(Frame):
        def __getattribute__(self, name: str) -> object:
            if name == "image":
                made.append(self.index)
            return super().__getattribute__(name)

    kept = WorstFrames(most=2, slot_s=1.0)
    for i, score in enumerate([10.0, 20.0, 30.0, 40.0, 15.0]):
        kept(Lazy(i, float(i), IMAGE), score)
    assert made == [0, 1, 4]
