"""The feature cache: equal to direct computation, resumable, and never someone else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from giqa.decode import Preprocessor
from tests.small import TINY
from training import features
from training.data.table import Sample
from training.model import Giqa, create
from training.views import crop_box, jitter_box

pytestmark = pytest.mark.dali

VARIANTS, SEED, DEPTH = 2, 5, 1


@pytest.fixture(scope="module")
def model() -> Giqa:
    torch.manual_seed(0)
    return create(TINY)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    result = []
    # Ten images in two variants: three batches of at most eight rows.
    for i, (width, height) in enumerate(
        [(64, 48), (300, 200), (224, 224), (31, 97), (500, 60)] * 2
    ):
        path = folder / f"{i}.png"
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
        result.append(Sample(path, 50.0))
    return result


def build(folder: Path, model: Giqa, samples: list[Sample], **other: Any) -> features.FeatureCache:
    options = {"depth": DEPTH, "variants": VARIANTS, "seed": SEED, "amp": False, **other}
    return features.build(folder, model, samples, **options)


@pytest.fixture(scope="module")
def folder(model: Giqa, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cache")
    build(place, model, samples)
    return place


def arrays(folder: Path) -> list[np.ndarray[Any, Any]]:
    return [np.array(a) for a in features.FeatureCache(folder).arrays]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_cache_equals_direct_computation(
    depth: int, model: Giqa, samples: list[Sample], tmp_path: Path
) -> None:
    found = build(tmp_path, model, samples, depth=depth)
    rows = len(samples) * VARIANTS
    assert found.variants == VARIANTS
    taps = [(rows, 197, 192)] if depth == 2 else []  # block 0's, behind which one more block ran
    assert found.n_state == 1 + len(taps)
    assert [a.dtype for a in found.arrays] == [np.float16] * (3 + len(taps))
    assert [a.shape for a in found.arrays] == [
        (rows, 197, 192), *taps, (rows, 64, 56, 56), (rows, 256, 14, 14)
    ]  # fmt: skip
    preprocess = Preprocessor(global_side=224, local_side=224)
    for i in (0, 3, 9):
        (views,) = preprocess([np.fromfile(samples[i].path, np.uint8)])
        assert not isinstance(views, Exception)
        with torch.inference_mode():
            tokens = model.global_branch.tokens(torch.from_numpy(views.global_view)[None])
            maps = model.local_branch.stages(torch.from_numpy(views.local_view)[None])
            state, stages = found.batch(np.array([i * VARIANTS]))
            ours = model.global_branch.suffix(state, depth)
        assert state[0].dtype == torch.float32
        for cached, direct in zip([ours, *stages], [tokens, *maps], strict=True):
            # float16 keeps 11 bits.
            torch.testing.assert_close(cached, direct, rtol=4e-3, atol=4e-3)


def test_blocks_that_learn_do_not_spoil_a_cache(
    folder: Path, model: Giqa, samples: list[Sample], interrupted: list[int]
) -> None:
    other = create(TINY, model.state_dict())
    with torch.no_grad():
        other.global_branch.backbone.blocks[DEPTH].mlp.fc1.weight.add_(1.0)
    build(folder, other, samples)
    assert interrupted == [], "it was reused"


def test_variants_differ_and_rows_are_drawn_apart(folder: Path) -> None:
    tokens = arrays(folder)[0].astype(np.float32)
    plain, augmented = tokens[::2], tokens[1::2]
    assert (np.abs(plain - augmented).max((1, 2)) > 0.05).all()
    # The second five images have the sizes of the first, yet boxes of their own.
    first, second = (
        [jitter_box(640, 480, np.random.default_rng([SEED, row])) for row in rows]
        for rows in ([1, 3, 5], [11, 13, 15])
    )
    assert all((a != b).any() for a, b in zip(first, second, strict=True))


def test_a_batch_reads_the_rows_in_the_asked_order(folder: Path) -> None:
    state, stages = features.FeatureCache(folder).batch(np.array([7, 2, 7]))
    stored = arrays(folder)
    np.testing.assert_array_equal(state[0].numpy(), stored[0][[7, 2, 7]].astype(np.float32))
    np.testing.assert_array_equal(stages[1].numpy(), stored[2][[7, 2, 7]].astype(np.float32))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes `build` die when it starts its third batch, once."""
    starts: list[int] = []
    original = features.choose_variants

    def dying(*args: Any) -> Any:
        starts.append(args[3])
        if len(starts) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(features, "choose_variants", dying)
    return starts


@pytest.mark.parametrize("saved", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 16))])
def test_an_interrupted_run_is_resumed_to_the_same_arrays(
    folder: Path,
    model: Giqa,
    samples: list[Sample],
    tmp_path: Path,
    interrupted: list[int],
    saved: int,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, model, samples)
    if saved:  # progress is saved every 64 batches: pretend that it was
        meta = json.loads((folder / "cache.json").read_text())
        (tmp_path / "cache.json").write_text(json.dumps({**meta, "done": saved}))
    interrupted[:] = [0, 0, 0]
    build(tmp_path, model, samples)
    assert interrupted[3] == saved, "it went on where it had stopped"
    for resumed, straight in zip(arrays(tmp_path), arrays(folder), strict=True):
        np.testing.assert_array_equal(resumed, straight)


def test_a_finished_cache_is_reused(
    folder: Path, model: Giqa, samples: list[Sample], interrupted: list[int]
) -> None:
    build(folder, model, samples)
    assert interrupted == []


def test_the_seed_decides_the_augmentation_only(
    folder: Path, model: Giqa, samples: list[Sample], tmp_path: Path
) -> None:
    build(tmp_path, model, samples[:4], seed=6)
    ours, other = arrays(folder)[0][:8], arrays(tmp_path)[0]
    np.testing.assert_array_equal(ours[::2], other[::2])
    assert (ours[1::2] != other[1::2]).any((1, 2)).all()


@pytest.mark.parametrize("what", ["samples", "order", "variants", "seed", "depth", "weights"])
def test_a_cache_of_something_else_is_refused(
    folder: Path, model: Giqa, samples: list[Sample], what: str
) -> None:
    other: dict[str, Any] = {}
    if what == "samples":
        samples = samples[:-1]
    elif what == "order":
        samples = samples[::-1]
    elif what == "weights":
        torch.manual_seed(1)
        model = create(TINY)
    else:
        other = {what: 9}
    before = (folder / "cache.json").read_bytes()
    with pytest.raises(ValueError, match="features of other images or weights.*name another"):
        build(folder, model, samples, **other)
    assert (folder / "cache.json").read_bytes() == before


def test_an_undecodable_image_is_named(model: Giqa, samples: list[Sample], tmp_path: Path) -> None:
    from giqa.errors import GiqaError

    bad = tmp_path / "bad.png"
    bad.write_bytes(samples[0].path.read_bytes()[:60])
    with pytest.raises(GiqaError) as caught:
        build(tmp_path / "cache", model, [*samples[:2], Sample(bad, 1.0)])
    assert caught.value.item == str(bad)


@settings(deadline=None, max_examples=300)
@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    seed=st.integers(0, 2**32),
    area=st.floats(0.1, 1.0),
    ratio=st.floats(1.0, 3.0),
)
def test_jitter_boxes_stay_within_bounds(
    width: int, height: int, seed: int, area: float, ratio: float
) -> None:
    box = jitter_box(width, height, np.random.default_rng(seed), area, ratio)
    assert box.shape == (1, 4)
    assert box.dtype == np.float32
    x0, y0, x1, y1 = (float(v) for v in box[0])
    assert 0 <= x0 <= x1 <= width
    assert 0 <= y0 <= y1 <= height
    assert box.tolist() == np.rint(box).tolist()
    # Sides are rounded to whole pixels: up to one pixel off.
    w, h = (x1 - x0) / width, (y1 - y0) / height
    slack_w, slack_h = 1.001 / width, 1.001 / height
    # A side that would leave the picture is cut, which may cost more than `area`.
    least = min(area, (area / ratio) ** 0.5)
    assert (w + slack_w) * (h + slack_h) >= least
    if h > slack_h and w > slack_w:
        assert (w - slack_w) / (h + slack_h) <= ratio
        assert (h - slack_h) / (w + slack_w) <= ratio


@settings(deadline=None)
@given(width=st.integers(1, 50), height=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_jitter_boxes_are_never_empty(width: int, height: int, seed: int) -> None:
    x0, y0, x1, y1 = jitter_box(width, height, np.random.default_rng(seed))[0]
    assert x1 > x0
    assert y1 > y0


@settings(deadline=None, max_examples=300)
@given(
    width=st.integers(1, 4000), height=st.integers(1, 4000), seed=st.integers(0, 2**32),
    side=st.integers(1, 500),
)  # fmt: skip
def test_crops_are_squares_of_native_pixels(width: int, height: int, seed: int, side: int) -> None:
    ((x0, y0, x1, y1),) = crop_box(width, height, np.random.default_rng(seed), side)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert x1 - x0 == y1 - y0 == min(width, height, side)


def test_a_full_disk_is_told_before_anything_is_computed(
    model: Giqa, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    from giqa.errors import StorageFullError

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StorageFullError, match="no room for") as caught:
            build(tmp_path, model, samples)
    assert caught.value.item == str(tmp_path / "0.npy")
    assert not (tmp_path / "cache.json").exists()
    build(tmp_path, model, samples)
