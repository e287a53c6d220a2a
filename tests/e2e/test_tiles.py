"""Scores with tiles: of every pixel, whatever the batch; and without any, as before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest

from build.parity import compare
from build.quantize import _feeds
from build.runtimes import onnx_runtime, openvino
from giqa import LocalScorer
from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GRAPHS, LOCAL_BRANCH
from giqa.decode import Decoder
from giqa.errors import ShapeMismatchError
from giqa.types import Item, Views
from tests.makers import jpeg, oriented, png, rgba
from tests.onnx_graphs import run
from tests.tiled import tile_bundle, without_tiles


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tile_bundle(tmp_path_factory.mktemp("tiled") / "bundle")


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Iterator[LocalScorer]:
    with LocalScorer(bundle, precision="f32", threads=2) as made:
        yield made


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Small, large, long, turned; a profile and transparency among them."""
    sizes = [(300, 200), (90, 70), (400, 300), (1000, 40), (120, 130), (250, 250), (64, 64)]
    return [*(jpeg(*size, seed=i) for i, size in enumerate(sizes)), png(333, 222), rgba()]


def views_of(bundle: Bundle, files: list[bytes]) -> list[Views]:
    decoded = Decoder(bundle.manifest)([Item.of(data) for data in files], "fast")
    return [one.views for one in decoded if one.views is not None]


def reference(bundle: Bundle, views: Views) -> float:
    """The score by ONNX Runtime."""
    values = {"GLOBAL_VIEW": views.global_view[None], "LOCAL_VIEW": views.local_view[None]}
    for name in GRAPHS:
        model = onnx.load(bundle.graph(name))
        feed = {entry.name: values[entry.name] for entry in model.graph.input}
        names = [entry.name for entry in model.graph.output]
        values |= dict(zip(names, run(model, feed), strict=True))
    return float(values["SCORE"][0, 0])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_score_depends_on_nothing_but_its_image(
    bundle: Bundle, scorer: LocalScorer, files: list[bytes], batch: int
) -> None:
    """Principle 2 with and without tiles in one batch, bad images among them."""
    expected = [next(scorer.score([data])).score for data in files]
    assert len(set(expected)) == len(files)
    with LocalScorer(bundle, precision="f32", threads=2, batch=batch) as other:
        order = np.random.default_rng(batch).permutation(len(files)).tolist()
        found = [r.score for r in other.score([files[i] for i in order])]
        assert found == [expected[i] for i in order]
        mixed = [x for data in files for x in (b"not an image", data)]
        found = [r.score for r in other.score(mixed)]
        assert found == [x for score in expected for x in (None, score)]
        views = views_of(bundle, files)
        assert [s.score for s in other.score_views(views)] == expected


def test_scores_are_those_of_another_runtime(
    bundle: Bundle, scorer: LocalScorer, files: list[bytes]
) -> None:
    views = views_of(bundle, files)
    assert {one.counts for one in views} == {(1, 1), (1, 5)}
    expected = [reference(bundle, one) for one in views]
    assert [s.score for s in scorer.score_views(views)] == pytest.approx(expected, abs=1e-3)


def test_every_tile_counts_in_its_place(bundle: Bundle, scorer: LocalScorer) -> None:
    (views,) = views_of(bundle, [jpeg(400, 300)])

    def score(local: np.ndarray) -> float:
        (found,) = scorer.score_views([replace(views, local_view=local)])
        return found.score

    local = views.local_view
    whole = score(local)
    others = [score(local[:1])]  # no tiles
    for i in range(1, 5):
        for j in range(i + 1, 5):  # two that changed places
            order = [*range(5)]
            order[i], order[j] = j, i
            others.append(score(local[order]))
        shifted = local.copy()  # one that is a pixel off
        shifted[i] = np.roll(shifted[i], 1, 0)
        others.append(score(shifted))
    others.append(score(local[[1, 2, 3, 4, 0]]))  # tiles first
    assert min(abs(other - whole) for other in others) > 1e-3


def test_maps_have_the_views_alone(scorer: LocalScorer) -> None:
    files = [jpeg(400, 300), jpeg(80, 60), oriented(6, "JPEG")]
    for result in scorer.score(files, quality_map=True):
        assert result.quality_map is not None
        assert result.quality_map.shape == (1, 14, 14)
        assert result.boxes is not None
        assert result.boxes.tolist() == [[0, 0, result.width, result.height]]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_other_numbers_of_tiles_are_refused(
    bundle: Bundle, scorer: LocalScorer, count: int
) -> None:
    (views,) = views_of(bundle, [jpeg(400, 300)])
    wrong = np.resize(views.local_view, (count, *views.local_view.shape[1:]))
    with pytest.raises(ShapeMismatchError):
        list(scorer.score_views([replace(views, local_view=wrong)]))


def test_runtimes_are_compared_with_and_without_tiles(bundle: Bundle, files: list[bytes]) -> None:
    views = views_of(bundle, files)
    exact = onnx_runtime(bundle, threads=1)
    table = compare("tiled", views, exact, [openvino(bundle, "f32", threads=1)], batch=4)
    (row,) = table.rows
    assert row.score.largest < 1e-3
    assert row.srocc == pytest.approx(1)
    swapped = [replace(one, local_view=one.local_view[::-1].copy()) for one in views]
    assert [one.counts for one in swapped] == [one.counts for one in views]
    again = compare("tiled", swapped, exact, [openvino(bundle, "f32", threads=1)], batch=4)
    assert again.rows[0].score.largest < 1e-3


def test_calibration_feeds_the_tiles(bundle: Bundle, files: list[bytes]) -> None:
    views = views_of(bundle, files[:3])
    feeds = _feeds(bundle, views, GRAPHS, 1)
    for name, tensor in ((LOCAL_BRANCH, "LOCAL_VIEW"), (FUSION, "LOCAL_TOKENS")):
        assert [len(feed[tensor][0]) for feed in feeds[name]] == [5, 1, 5]
    assert [len(feed["GLOBAL_TOKENS"][0]) for feed in feeds[FUSION]] == [1, 1, 1]


def test_a_bundle_without_tiles_looks_at_the_frame_alone() -> None:
    bundle = load_bundle()
    items = [
        Item.of(f) for f in (jpeg(320, 240, 1), jpeg(2000, 1500, 2), png(1000, 700, 3), rgba())
    ]
    plain, tiled = (
        [one.views for one in Decoder(which.manifest)(items, "fast") if one.views is not None]
        for which in (without_tiles(bundle), bundle)
    )
    assert [one.counts for one in plain] == [(1, 1)] * 4
    assert [one.counts for one in tiled] == [(1, 1), (1, 5), (1, 5), (1, 1)]
    with LocalScorer(precision="f32") as scorer:
        scores = [[v.score for v in scorer.score_views(views)] for views in (plain, tiled)]
        cut = [replace(one, local_view=one.local_view[:1]) for one in tiled]
        assert [v.score for v in scorer.score_views(cut)] == scores[0]
    assert [a != b for a, b in zip(*scores, strict=True)] == [False, True, True, False]
