"""Rendered groups: the same by number, labelled in order, resumed after a kill, told when wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from giqa.errors import NotFoundError, UnreadableError, UsageError
from tests.photos import photo
from training.distortions import ranked
from training.fidelity import lost
from training.rendered import chains, damage, framing, groups, labels, pages, sources
from training.rendered import recipe as recipes
from training.rendered.groups import Plan
from training.rendered.recipe import KINDS, Recipe

SMALL = {"kadid": 0, "codec": 0, "chain": 0, "native": 1, "resample": 1, "nothing": 1}
"""Kinds that take milliseconds."""


def recipe_of(folder: Path, **changes: object) -> Recipe:
    values = {"groups": 4, "sources": [{"photographs": folder, "mos": 70}], "kinds": SMALL}
    return Recipe.model_validate({**values, **changes})


def plan_of(folder: Path, **changes: object) -> Plan:
    recipe = recipe_of(folder, **changes)
    return Plan(recipe, sources.find(recipe))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_four_pictures_and_repeats(kind: str, photos: Path) -> None:
    plan = plan_of(photos, kinds={**dict.fromkeys(KINDS, 0), "native": 1e-9, kind: 1})
    for number in (0, 1):
        found, again = groups.group(plan, number), groups.group(plan, number)
        assert found.pictures[0].kind == "clean"
        assert len(found.pictures) == 5
        assert found.mos == 70
        assert found.pictures[0].loss == 0
        for item, other in zip(found.pictures, again.pictures, strict=True):
            assert item.pixels.dtype == np.uint8
            assert item.pixels.shape[2] == 3
            assert 0 <= item.loss <= 1
            assert item.loss == other.loss
            np.testing.assert_array_equal(item.pixels, other.pixels)
    assert groups.group(plan, 2).pictures[1].pixels.tobytes() != again.pictures[1].pixels.tobytes()


def test_another_seed_gives_other_pictures(photos: Path) -> None:
    one, two = (groups.group(plan_of(photos, seed=seed), 0) for seed in (0, 1))
    assert [p.kind for p in one.pictures] != [p.kind for p in two.pictures] or any(
        a.pixels.tobytes() != b.pixels.tobytes()
        for a, b in zip(one.pictures, two.pictures, strict=True)
    )


def test_processes_hand_on_the_same_groups_in_order(photos: Path) -> None:
    plan = plan_of(photos, groups=5)
    alone = list(groups.groups(plan))
    shared = list(groups.groups(plan, workers=2))
    assert [g.number for g in shared] == list(range(5))
    for one, other in zip(alone, shared, strict=True):
        for a, b in zip(one.pictures, other.pictures, strict=True):
            assert a.loss == b.loss
            np.testing.assert_array_equal(a.pixels, b.pixels)


def test_photographs_take_turns(photos: Path) -> None:
    plan = plan_of(photos)
    first = [groups.group(plan, number).reference for number in range(3)]
    assert len(set(first)) == 3


def test_ladders_never_say_that_more_damage_is_better() -> None:
    base = photo(200, 160, 1)
    for seed in range(6):
        for make in (damage.resample, damage.native_scale, damage.codec):
            found = make(base, np.random.default_rng(seed))
            if any(f.kind == "reduced" for f in found) or len({f.pixels.shape for f in found}) > 1:
                continue
            losses = [item.loss for item in found]
            assert losses == sorted(losses), (make, seed)


@pytest.mark.parametrize("codec", damage.CODEC_RANGES)
def test_codecs_take_the_whole_of_their_ranges(codec: str) -> None:
    base = photo(96, 96, 2)
    mild, bad = (
        labels.of_codec(codec, value, base, damage.codecs.coded(base, codec, value))
        for value in (damage.codec_value(codec, at) for at in (0, 1))
    )
    assert mild < bad


def test_hevc_stays_where_x265_does() -> None:
    assert max(damage.CODEC_RANGES["hevc"]) == 51
    assert damage.codec_value("hevc", 1) == 51


def test_jpeg_that_nobody_sees_loses_nothing() -> None:
    base = photo(128, 96, 3)
    for quality in (55, 70, 95):
        assert labels.of_codec("jpeg", quality, base, 255 - base) == 0
    losses = [
        labels.of_codec("jpeg", q, base, damage.codecs.coded(base, "jpeg", q))
        for q in (54, 40, 25, 15, 8, 4)
    ]
    assert losses == sorted(losses)
    assert losses[0] < 0.15
    assert losses[-1] > 0.6


def test_losses_of_types_are_near_their_observers_and_follow_the_picture() -> None:
    base = np.ascontiguousarray(data.astronaut()[:384])
    smooth = damage.native.gaussian_blur(base, 4)
    kind, levels = "gaussian_blur", (2, 4)
    for level in levels:
        mean = labels.opinions.losses()[kind][level - 1]
        worse = damage.distort(base, kind, level, 0)
        assert labels.of_type(kind, level, base, worse) == pytest.approx(mean, abs=0.2)
        again = damage.distort(smooth, kind, level, 0)
        assert labels.of_type(kind, level, smooth, again) < mean  # there is less to blur


def test_darkness_loses_to_the_end() -> None:
    base = photo(128, 96, 4)
    gains = [1, 0.7, 0.4, 0.2, 0.1, 0.03, 0]
    losses = [labels.of_gain(gain) for gain in gains]
    assert losses == sorted(losses)
    assert losses[0] == 0
    assert losses[-1] == labels.NOTHING
    dark = chains.exposed(base, 0.0002)
    assert dark.max() < 12
    assert np.array_equal(chains.exposed(base, 1), base)


def test_size_does_not_tell_quality() -> None:
    """Among groups of several sizes the larger picture is at times better, at times worse."""
    base = photo(160, 120, 5)
    signs = set()
    for seed in range(40):
        if len(signs) == 2:
            break
        rng = np.random.default_rng(seed)
        make = (damage.native_scale, damage.resample)[seed % 2]
        items = [damage.Damaged(base, 0.0, "clean"), *make(base, rng)]
        for a in items:
            for b in items:
                larger = a.pixels.size > 1.3 * b.pixels.size
                if larger and abs(a.loss - b.loss) > 0.1:
                    signs.add(a.loss < b.loss)
    assert signs == {True, False}


def test_framing_cuts_large_photographs_and_enlarges_none() -> None:
    large = Image.fromarray(photo(1500, 1000, 6))
    small = Image.fromarray(photo(300, 200, 6))
    sizes = [framing.frame(large, np.random.default_rng(s)).shape for s in range(12)]
    areas = [height * width for height, width, _ in sizes]
    assert min(areas) < 600_000
    assert max(areas) > 1_000_000
    for seed in range(6):
        height, width, _ = framing.frame(small, np.random.default_rng(seed)).shape
        assert 150 <= width <= 300
        assert 96 <= height <= 200


def test_pages_are_drawn_and_lose_by_damage() -> None:
    found = [pages.draw(np.random.default_rng(seed)) for seed in range(8)]
    assert len({p.shape for p in found}) > 3
    assert any(p.mean() < 100 for p in found)  # dark themes
    assert any(p.mean() > 200 for p in found)
    page = min(found, key=lambda p: p.size)
    np.testing.assert_array_equal(found[0], pages.draw(np.random.default_rng(0)))
    assert lost(page, damage.native.gaussian_blur(page, 3)) > 0.3


def test_pages_stand_among_groups_with_the_opinion_assumed(photos: Path) -> None:
    plan = plan_of(
        photos, pages={"share": 1e9, "mos": 80}, kinds={**dict.fromkeys(KINDS, 0), "nothing": 1}
    )
    found = groups.group(plan, 3)
    assert found.reference == "pages/3"
    assert found.mos == 80


def test_held_out_photographs_are_never_used(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0.png\n\n")
    (tmp_path / "paths.csv").write_text(f"path\n{photos / '2.png'}\n")
    lists = [tmp_path / "names.txt", tmp_path / "paths.csv"]
    found = sources.find(recipe_of(photos, held_out=lists))
    assert [p.path.name for p in found.pools[0].photos] == ["1.png"]
    assert (found.held_out, found.named) == (2, 2)
    (tmp_path / "names.txt").write_text("0.png\n1.png\n2.png\n")
    with pytest.raises(UsageError, match="no photograph is left"):
        sources.find(recipe_of(photos, held_out=lists))


def test_tables_bring_opinions(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{photos / f'{n}.png'},{mos}" for n, mos in enumerate((1, 4, 5))]
    table.write_text("\n".join(["path,mos", *rows]))
    source = {"photographs": table, "low": 1, "high": 5, "least": 70}
    found = sources.find(recipe_of(photos, sources=[source]))
    assert [p.mos for p in found.pools[0].photos] == [75, 100]
    sides = ["split", "train", "test", "train"]
    table.write_text("\n".join(f"{a},{b}" for a, b in zip(["path,mos", *rows], sides, strict=True)))
    found = sources.find(recipe_of(photos, sources=[source]))
    assert [p.mos for p in found.pools[0].photos] == [100]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sources": []}, "at least 1 item"),
        ({"group": 3}, "Extra inputs"),
        ({"kinds": dict.fromkeys(KINDS, 0)}, "a kind besides kadid"),
        ({"sources": [{"photographs": "x.csv", "mos": 3}]}, "drop mos"),
        ({"sources": [{"photographs": "x", "least": 3}]}, "least is for tables"),
    ],
)
def test_wrong_recipes(changes: dict, told: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=told):
        recipe_of(photos, **changes)


def test_a_recipe_that_is_no_toml_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("groups = ")
    with pytest.raises(UsageError, match="example.toml"):
        recipes.read(tmp_path / "r.toml")


def test_the_example_is_a_recipe(checkout: Path) -> None:
    found = recipes.read(checkout / "training" / "rendered" / "example.toml")
    assert found.sources[0].least == 70


def test_wrong_sources_are_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        sources.find(recipe_of(tmp_path / "nowhere"))
    with pytest.raises(NotFoundError, match=r"gone\.csv"):
        sources.find(recipe_of(photos, sources=[{"photographs": tmp_path / "gone.csv"}]))
    with pytest.raises(NotFoundError, match="no such list"):
        sources.find(recipe_of(photos, held_out=[tmp_path / "gone.txt"]))
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableError, match=r"no\.png"):
        sources.find(recipe_of(tmp_path))
    Image.fromarray(photo(50, 200, 0)).save(tmp_path / "no.png")
    with pytest.raises(UsageError, match="too small"):
        sources.find(recipe_of(tmp_path))


def test_only_ranked_types_are_rendered() -> None:
    base = photo(64, 48, 1)
    kinds = {damage.kadid(base, np.random.default_rng(s))[0].kind for s in range(3)}
    assert kinds <= {f"kadid:{name}" for name in ranked.names()}
