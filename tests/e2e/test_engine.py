"""LocalScorer: the promises on determinism, order, isolation and laziness."""

import io
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from giqa import LocalScorer, score
from giqa.bundle import Bundle, load_bundle
from giqa.contract import PROFILES
from giqa.decode import Decoder
from giqa.errors import (
    BundleInvalidError,
    EngineMismatchError,
    MissingExtraError,
    ShapeMismatchError,
)
from giqa.openvino import _model, choose_precision, cpu_capabilities, int8_is_fast
from giqa.scorer import Scorer
from giqa.types import Item, Limits, Views
from tests.photos import photo

PRECISIONS = [
    "f32",
    pytest.param(
        "bf16",
        marks=pytest.mark.skipif("BF16" not in cpu_capabilities(), reason="no bf16 on this CPU"),
    ),
    "int8",
]


def picture(seed: int, width: int = 320, height: int = 240) -> bytes:
    out = io.BytesIO()
    Image.fromarray(photo(width, height, seed, seed % 7 * 4)).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [picture(i, 200 + 37 * i, 500 - 11 * i) for i in range(11)]


@pytest.fixture(scope="module")
def scorer() -> Iterator[LocalScorer]:
    with LocalScorer(precision="f32") as made:
        yield made


def scores(scorer: Scorer, images: list[bytes], **options: object) -> list[float | None]:
    return [r.score for r in scorer.score(images, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("profile", ["fast", "precise"])
def test_a_score_depends_on_nothing_but_its_image(
    pictures: list[bytes], precision: str, profile: str
) -> None:
    """Principle 2: bit-equal over order, batch size and neighbours, bad ones included."""
    if profile == "precise":
        pictures = pictures[::2]
    with LocalScorer(precision=precision, batch=1) as single:
        expected = scores(single, pictures, profile=profile)
    assert len(set(expected)) == len(pictures)
    for batch in (3, 8):
        with LocalScorer(precision=precision, batch=batch, self_test=False) as scorer:
            order = np.random.default_rng(batch).permutation(len(pictures)).tolist()
            # First good ones, a whole batch where there are enough, then a bad one before each.
            good = min(batch, len(order) - 3)
            mixed = [pictures[i] for i in order[:good]]
            mixed += [x for i in order[good:] for x in (b"not an image", pictures[i])]
            found = scores(scorer, mixed, profile=profile)
            assert found[:good] + found[good + 1 :: 2] == [expected[i] for i in order]
            assert found[good::2] == [None] * (len(order) - good)


def test_threads_do_not_change_scores(pictures: list[bytes], scorer: LocalScorer) -> None:
    with LocalScorer(precision="f32", threads=1) as one:
        assert scores(one, pictures) == pytest.approx(scores(scorer, pictures), abs=1e-3)


def test_rows_are_complete(scorer: LocalScorer, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(picture(1))
    good, missing = scorer.score([path, tmp_path / "gone.jpg"])
    assert good.status == "ok"
    assert good.path == str(path)
    assert (good.width, good.height) == (320, 240)
    assert good.boxes is not None
    assert good.boxes.tolist() == [[0, 0, 320, 240]]
    assert good.engine == "openvino-f32"
    assert good.bundle == scorer.manifest.id
    assert missing.error is not None
    assert missing.error.code == "not_found"


def test_map_averages_near_the_score(scorer: LocalScorer, pictures: list[bytes]) -> None:
    for result in scorer.score(pictures, quality_map=True, profile="precise"):
        assert result.quality_map is not None
        assert result.score is not None
        assert result.boxes is not None
        assert result.quality_map.shape == (len(result.boxes), 14, 14)
        assert result.quality_map.min() - 1e-3 <= result.score <= result.quality_map.max() + 1e-3
    (plain,) = scorer.score(pictures[:1])
    assert plain.quality_map is None


def test_items_are_pulled_as_needed(scorer: LocalScorer) -> None:
    pulled = 0

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        data = picture(3)
        while True:
            pulled += 1
            yield data

    stream = scorer.score(endless())
    assert len(list(islice(stream, 20))) == 20
    assert pulled <= 20 + 3 * 8
    stream.close()  # type: ignore[attr-defined]


def test_two_streams_at_once(scorer: LocalScorer, pictures: list[bytes]) -> None:
    expected = scores(scorer, pictures)
    pairs = list(zip(scorer.score(pictures), scorer.score(pictures[::-1]), strict=True))
    assert [a.score for a, _ in pairs] == expected
    assert [b.score for _, b in pairs] == expected[::-1]


def test_views_score_like_their_image(scorer: LocalScorer, pictures: list[bytes]) -> None:
    decoded = Decoder(scorer.manifest)([Item.of(data) for data in pictures], "fast")
    found = [v.score for v in scorer.score_views(one.views for one in decoded if one.views)]
    assert found == scores(scorer, pictures)


def test_views_of_another_shape_are_refused(scorer: LocalScorer) -> None:
    good = Views(np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 448, 448, 3), np.uint8))
    small = Views(good.global_view, np.zeros((1, 224, 224, 3), np.uint8))
    floats = Views(good.global_view.astype(np.float32), good.local_view)  # type: ignore[arg-type]
    for bad in (small, floats):
        with pytest.raises(ShapeMismatchError):
            list(scorer.score_views([bad]))


def test_one_image_is_scored_without_a_scorer_of_ones_own(
    scorer: LocalScorer, pictures: list[bytes]
) -> None:
    assert [r.score for r in score(pictures[0], scorer)] == scores(scorer, pictures[:1])
    assert [r.score for r in score(pictures[:3], scorer)] == scores(scorer, pictures[:3])
    (found,) = score(pictures[0])
    assert found.score == pytest.approx(scores(scorer, pictures[:1])[0], abs=5)


def test_an_item_with_an_error_keeps_its_place(scorer: LocalScorer) -> None:
    known = EngineMismatchError("found earlier")
    results = list(scorer.score([picture(1), Item("x", error=known), picture(2)]))
    assert [r.status for r in results] == ["ok", "error", "ok"]
    assert results[1].error is known


def test_a_wrong_answer_to_the_self_test_is_refused() -> None:
    bundle = load_bundle()
    manifest = bundle.manifest
    wrong = manifest.self_test.model_copy(update={"score": manifest.self_test.score - 20})
    changed = type(bundle)(bundle.folder, manifest.model_copy(update={"self_test": wrong}))
    with pytest.raises(BundleInvalidError, match="self-test"):
        LocalScorer(changed)


def test_what_does_not_open_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding and compiling go on beside each other: whichever fails, both have ended."""

    def decoding() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("giqa-decode")]

    before = decoding()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingExtraError, match="OpenVINO does not import"):
            LocalScorer()
    with monkeypatch.context() as patch:
        patch.setattr(_model, "quantize", lambda model, products: model.reshape([1]))
        with pytest.raises(EngineMismatchError, match="OpenVINO cannot compile it"):
            LocalScorer(precision="int8")
    assert decoding() == before


def test_without_dali_pillow_decodes_everything(
    scorer: LocalScorer, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = scores(scorer, pictures)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    for profile in PROFILES:
        results = list(scorer.score([*pictures, b"x"], profile=profile))
        assert [r.status for r in results] == ["ok"] * len(pictures) + ["error"]
        assert {"pillow_decoded" in r.notes for r in results[:-1]} == {True}
    found = scores(scorer, pictures)
    assert found == pytest.approx(usual, abs=1)
    with LocalScorer(precision="f32") as opened:  # its self-test knows of other pixels
        assert scores(opened, pictures) == found


def test_int8_needs_a_bundle_with_it() -> None:
    bundle = load_bundle()
    without = Bundle(bundle.folder, bundle.manifest.model_copy(update={"int8": None}))
    with pytest.raises(EngineMismatchError, match="has no int8"):
        LocalScorer(without, precision="int8")
    assert choose_precision(without, "auto") != "int8"


def test_auto_is_int8_where_it_is_fast() -> None:
    bundle = load_bundle()
    assert (choose_precision(bundle, "auto") == "int8") == int8_is_fast()


def test_limits_are_for_the_callers_images(tmp_path: Path) -> None:
    with LocalScorer(limits=Limits(max_bytes=100), threads=1) as scorer:
        (result,) = scorer.score([bytes(200)])
    assert result.error is not None
    assert result.error.code == "too_many_bytes"
