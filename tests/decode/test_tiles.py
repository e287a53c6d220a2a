"""Tiles: where they are, that they are native pixels, and what of a manifest says so."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from build.profiles import bundle_profiles
from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, LOCAL_BRANCH, MAX_VIEWS, TILES
from giqa.decode import (
    LARGE,
    Decoder,
    Preprocessor,
    decode_picture,
    probe,
    tile_boxes,
    views_by_pillow,
)
from giqa.decode._pipeline import build_pipeline
from giqa.errors import BundleInvalidError, ShapeMismatchError
from giqa.manifest import ViewProfile
from giqa.tensors import check_views
from giqa.types import Item, Views
from tests.makers import image, jpeg, oriented, png, rgba, save, with_profile
from tests.tiled import GLOBAL, LOCAL, PIXELS, tile_bundle, without_tiles

ALWAYS = ViewProfile(max_views=1, tiles=TILES)
SIDES = {"global_side": 224, "local_side": 448}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tile_bundle(tmp_path_factory.mktemp("tiled") / "bundle")


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from([56, 224, 448]))
def test_tiles_lie_at_one_and_three_quarters(width: int, height: int, side: int) -> None:
    boxes = tile_boxes(width, height, ALWAYS, side)
    s = min(width, height, side)
    assert boxes.dtype == np.int32
    assert (boxes[:, 2:] - boxes[:, :2] == s).all()
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= (width, height)).all()
    xs, ys = ((length - s) // 4 for length in (width, height))
    far_x, far_y = (3 * (length - s) // 4 for length in (width, height))
    corners = [(xs, ys), (far_x, ys), (xs, far_y), (far_x, far_y)]  # as one reads
    assert [tuple(box[:2]) for box in boxes.tolist()] == corners


@pytest.mark.parametrize("pixels", [1, 5_999, 6_000, 6_001, 10**9])
def test_a_picture_has_tiles_from_its_threshold_on(pixels: int) -> None:
    profile = ViewProfile(max_views=1, tiles=TILES, tile_pixels=pixels)
    assert len(tile_boxes(100, 60, profile, 56)) == (TILES if pixels <= 6_000 else 0)
    assert tile_boxes(100, 60, ViewProfile(max_views=1), 56).shape == (0, 4)


def decoded(bundle: Bundle, data: bytes, profile: str = "fast") -> Views:
    (found,) = Decoder(bundle.manifest)([Item.of(data)], profile)
    assert found.views is not None, found.error
    return found.views


@pytest.mark.parametrize(("size", "count"), [((199, 100), 0), ((200, 100), 4), ((201, 100), 4)])
def test_the_decoder_keeps_the_threshold(bundle: Bundle, size: tuple, count: int) -> None:
    for data in (png(*size), save(image(*size, mode="RGBA"), "PNG")):
        views = decoded(bundle, data)
        assert views.counts == (1, 1 + count)
        assert views.local_view.shape == (1 + count, LOCAL, LOCAL, 3)
        assert views.global_view.shape == (1, GLOBAL, GLOBAL, 3)
    precise = decoded(bundle, png(*size), "precise")
    assert len(precise.global_view) == len(precise.local_view) > 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [(200, 100), (307, 211), (56, 400), (57, 351)])
def test_tiles_are_native_pixels(bundle: Bundle, size: tuple[int, int], kind: str) -> None:
    """By DALI and by Pillow (BMP), against Pillow's crop."""
    picture = image(*size)
    views = decoded(bundle, save(picture, kind))
    small = decoded(without_tiles(bundle), save(picture, kind))
    assert np.array_equal(views.local_view[:1], small.local_view)
    assert np.array_equal(views.global_view, small.global_view)
    for box, tile in zip(
        tile_boxes(*size, ALWAYS, LOCAL).tolist(), views.local_view[1:], strict=True
    ):
        assert np.array_equal(tile, np.asarray(picture.crop(box)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiles_are_of_the_upright_picture(bundle: Bundle, orientation: int, kind: str) -> None:
    data = oriented(orientation, kind)
    upright = image(448, 336)
    for views in (
        decoded(bundle, data),
        views_by_pillow(
            data,
            probe(data),
            None,
            tile_boxes(448, 336, ALWAYS, LOCAL),
            global_side=GLOBAL,
            local_side=LOCAL,
        ),
    ):
        for box, tile in zip(
            tile_boxes(448, 336, ALWAYS, LOCAL), views.local_view[1:], strict=True
        ):
            expected = np.asarray(upright.crop(tuple(box.tolist())), int)
            assert np.abs(tile - expected).mean() < (1.5 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize("size", [(1000, 40), (33, 900)])
def test_panoramas_are_enlarged_like_precise_views(bundle: Bundle, size: tuple[int, int]) -> None:
    boxes = tile_boxes(*size, ALWAYS, LOCAL)
    data = np.frombuffer(png(*size), np.uint8)
    sides = {"global_side": GLOBAL, "local_side": LOCAL}
    (as_views,) = Preprocessor(**sides)([data], [boxes])
    assert isinstance(as_views, Views)
    by_dali = decoded(bundle, png(*size)).local_view[1:]
    by_pillow = decoded(bundle, save(image(*size), "BMP")).local_view[1:]
    assert np.array_equal(by_dali, as_views.local_view)
    assert np.abs(by_pillow.astype(int) - by_dali).max() <= 2


@pytest.mark.parametrize("data", [with_profile("adobe"), rgba()], ids=["profile", "alpha"])
def test_tiles_have_the_colours_that_views_have(bundle: Bundle, data: bytes) -> None:
    """What changes colours takes the second way, its tiles too."""
    assert probe(data).route == "pillow"
    whole = decode_picture(data, probe(data))
    boxes = tile_boxes(320, 240, ALWAYS, LOCAL).tolist()
    for box, tile in zip(boxes, decoded(bundle, data).local_view[1:], strict=True):
        assert np.array_equal(tile, np.asarray(whole.crop(box)))


def test_a_batch_of_all_kinds_is_the_images_alone(bundle: Bundle) -> None:
    """With tiles, without, enlarged, undecodable, by Pillow, over 32 megapixels."""
    flat = io.BytesIO()
    Image.new("RGB", (8000, LARGE // 8000 + 1), (9, 99, 200)).save(flat, "JPEG")
    files = [png(300, 200), png(90, 70, 1), png(1000, 40, 2), b"no image", rgba(), flat.getvalue()]
    files += [jpeg(400, 300, 3), png(120, 130, 4)]
    together = Decoder(bundle.manifest)([Item.of(data) for data in files], "fast")
    for data, found in zip(files, together, strict=True):
        (alone,) = Decoder(bundle.manifest)([Item.of(data)], "fast")
        assert (found.views is None) == (alone.views is None) == (data == b"no image")
        if found.views is not None and alone.views is not None:
            assert np.array_equal(found.views.local_view, alone.views.local_view)
            assert np.array_equal(found.views.global_view, alone.views.global_view)
            assert found.tiles is not None
            assert found.views.counts == (1, 1 + len(found.tiles))


def test_the_gpu_graph_makes_the_same_tiles() -> None:
    """On a GPU tiles are found in the graph: here on the CPU, against `tile_boxes`."""
    profile = ViewProfile(max_views=1, tiles=TILES, tile_pixels=300_000)
    sizes = [(1000, 700), (600, 500), (599, 500), (2000, 151), (150, 2001), (448, 669), (9, 9)]
    files = [jpeg(*size, seed=i) for i, size in enumerate(sizes)]
    files += [oriented(n, "JPEG") for n in (1, 6)]
    files.append(save(image(900, 500).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned(6)))
    images = [np.frombuffer(data, np.uint8) for data in files]
    sizes = [probe(data).upright_size for data in files]
    pipeline = build_pipeline(
        regions="frame", tiles=TILES, tile_pixels=300_000, batch=len(images), threads=2, **SIDES
    )
    pipeline.feed_input("IMAGE", images)
    coarse, fine = pipeline.run()
    boxes = [tile_boxes(*size, profile, 448) for size in sizes]
    assert {len(b) for b in boxes} == {0, 4}
    expected = Preprocessor(**SIDES)(images, tiles=boxes)
    for i, views in enumerate(expected):
        assert isinstance(views, Views)
        assert np.array_equal(np.array(fine.at(i)), views.local_view), sizes[i]
        assert np.array_equal(np.array(coarse.at(i)), views.global_view), sizes[i]


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_other_pipelines_are_refused() -> None:
    for wrong in ({"tiles": 3}, {"regions": "grid", "tiles": TILES, "tile_pixels": 1}):
        with pytest.raises(ValueError, match="tiles"):
            build_pipeline(**{"regions": "frame", "batch": 1, "threads": 1, **SIDES, **wrong})


def zeros(views: int, local: int) -> Views:
    shapes = (views, GLOBAL, GLOBAL, 3), (local, LOCAL, LOCAL, 3)
    return Views(*(np.zeros(shape, np.uint8) for shape in shapes))


@pytest.mark.parametrize("counts", [(1, 1), (1, 5), (9, 9), (2, 6)])
def test_numbers_of_views_that_fit(bundle: Bundle, counts: tuple[int, int]) -> None:
    check_views(zeros(*counts), bundle.manifest)


@pytest.mark.parametrize("counts", [(1, 2), (1, 4), (1, 6), (5, 1), (0, 4), (0, 0), (10, 10)])
def test_numbers_of_views_that_do_not(bundle: Bundle, counts: tuple[int, int]) -> None:
    with pytest.raises(ShapeMismatchError, match="GLOBAL_VIEW"):
        check_views(zeros(*counts), bundle.manifest)


def test_without_tiles_there_are_as_many_local_views(bundle: Bundle) -> None:
    plain = without_tiles(bundle).manifest
    check_views(zeros(1, 1), plain)
    with pytest.raises(ShapeMismatchError, match="5 beside 1"):
        check_views(zeros(1, 5), plain)


def test_manifests_without_tiles_stay_the_same_bytes(bundle: Bundle) -> None:
    for found in (load_bundle(), bundle):
        assert found.manifest.to_json().encode() == (found.folder / "manifest.json").read_bytes()
    plain = without_tiles(load_bundle()).manifest
    fields = json.loads(plain.to_json())["profiles"]
    assert fields == {"fast": {"max_views": 1}, "precise": {"max_views": MAX_VIEWS}}
    assert (plain.tiles, load_bundle().manifest.tiles, bundle.manifest.tiles) == (0, TILES, TILES)
    fast = json.loads(bundle.manifest.to_json())["profiles"]["fast"]
    assert fast == {"max_views": 1, "tiles": TILES, "tile_pixels": PIXELS}


@pytest.mark.parametrize(
    ("profile", "changes"),
    [
        ("fast", {"tiles": 3}),
        ("fast", {"tiles": -4}),
        ("fast", {"tiles": 4, "tile_pixels": -1}),
        ("fast", {"tiles": 4, "tile_pixels": "many"}),
        ("fast", {"tile_pixels": 500_000}),
        ("fast", {"tile": 4}),
        ("precise", {"tiles": 4, "tile_pixels": 500_000}),
    ],
)
def test_wrong_fields_make_a_bundle_invalid(
    bundle: Bundle, tmp_path: Path, profile: str, changes: dict[str, object]
) -> None:
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    fields = json.loads((copy / "manifest.json").read_text())
    fields["profiles"][profile] = {"max_views": 1} | changes
    (copy / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(BundleInvalidError, match="manifest: profiles"):
        load_bundle(copy)


def test_engines_take_views_and_tiles(bundle: Bundle) -> None:
    def counts(name: str, which: Bundle) -> list[dict[str, list[int]]]:
        found = bundle_profiles(which, name, "f32", max_batch=8, opt_batch=2)
        return [{i.name: [i.minimum[1], i.optimum[1], i.maximum[1]] for i in one} for one in found]

    assert counts(GLOBAL_BRANCH, bundle) == [
        {"GLOBAL_VIEW": [1, 1, 1]},
        {"GLOBAL_VIEW": [2, 9, 9]},
    ]
    assert counts(LOCAL_BRANCH, bundle) == [{"LOCAL_VIEW": [1, 5, 5]}, {"LOCAL_VIEW": [6, 9, 13]}]
    assert counts(FUSION, bundle) == [
        {"GLOBAL_TOKENS": [1, 1, 1], "LOCAL_TOKENS": [1, 5, 5]},
        {"GLOBAL_TOKENS": [2, 9, 9], "LOCAL_TOKENS": [2, 9, 13]},
    ]
    assert counts(FUSION, without_tiles(load_bundle())) == [
        {"GLOBAL_TOKENS": [1, 1, 1], "LOCAL_TOKENS": [1, 1, 1]},
        {"GLOBAL_TOKENS": [2, 9, 9], "LOCAL_TOKENS": [2, 9, 9]},
    ]
