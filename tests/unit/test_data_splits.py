"""Splits: what goes to validation."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.splits import hold_out, hold_out_share, strata
from training.data.table import Sample


def samples(n: int) -> list[Sample]:
    return [Sample(Path("images") / f"{i:03}.png", float(i)) for i in range(n)]


def test_hold_out_parts_the_samples_in_order() -> None:
    everything = samples(100)
    named = {"007.png", "090.png"}
    train, held = hold_out(everything, named, 10, seed=1)
    assert (len(train), len(held)) == (88, 12)
    assert named <= {s.path.name for s in held}
    assert sorted(train + held, key=everything.index) == everything
    for part in (train, held):
        assert part == sorted(part, key=everything.index)


def test_hold_out_is_decided_by_its_seed() -> None:
    everything = samples(100)
    first = hold_out(everything, [], 10, seed=1)
    assert first == hold_out(everything, [], 10, seed=1)
    assert first != hold_out(everything, [], 10, seed=2)


def test_hold_out_of_nothing_and_of_everything() -> None:
    everything = samples(5)
    assert hold_out(everything, [], 0, seed=0) == (everything, [])
    assert hold_out(everything, ["001.png"], 4, seed=0) == ([], everything)
    with pytest.raises(ValueError, match=r"[Ss]ample larger"):
        hold_out(everything, ["001.png"], 5, seed=0)


def test_hold_out_draws_files_not_names() -> None:
    same = [Sample(Path(f"{i}") / "a.png", float(i)) for i in range(9)]
    train, held = hold_out(same, [], 2, seed=0)
    assert (len(train), len(held)) == (7, 2)
    assert hold_out(same, ["a.png"], 0, seed=0) == ([], same)


def test_hold_out_names_what_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"not there: \['gone.png'\]"):
        hold_out(samples(3), ["001.png", "gone.png"], 0, seed=0)


LABELLED = st.lists(
    st.tuples(st.floats(0, 100), st.sampled_from(["", "blur", "noise", "jpeg"])),
    min_size=2,
    max_size=120,
).map(lambda rows: [Sample(Path(f"{i}.png"), mos, subset) for i, (mos, subset) in enumerate(rows)])
SHARES = st.floats(0.01, 0.99)


def parted(everything: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """The split, or nothing held where there are too few samples for one."""
    if 0.5 <= share * len(everything) < len(everything) - 0.5:
        return hold_out_share(everything, share, seed)
    with pytest.raises(ValueError, match="samples for validation"):
        hold_out_share(everything, share, seed)
    return everything, []


@given(LABELLED, SHARES, st.integers(0, 99))
def test_a_share_parts_the_samples_in_order(
    everything: list[Sample], share: float, seed: int
) -> None:
    train, held = parted(everything, share, seed)
    merged = sorted(train + held, key=everything.index)
    assert merged == everything  # complete and, as samples differ, disjoint
    for part in (train, held):
        assert part == sorted(part, key=everything.index)
    assert (train, held) == parted(everything, share, seed)


@given(LABELLED, SHARES, st.integers(0, 99))
def test_each_stratum_gives_its_share(everything: list[Sample], share: float, seed: int) -> None:
    _, held = parted(everything, share, seed)
    if not held:
        return
    assert abs(len(held) - share * len(everything)) <= 0.5 + 1e-9
    for stratum in strata(everything):
        given = sum(everything[i] in held for i in stratum)
        assert abs(given - share * len(stratum)) <= 1
    all_of, held_of = (Counter(s.subset for s in part) for part in (everything, held))
    for subset, n in all_of.items():
        assert abs(held_of[subset] - share * n) <= 1


@given(LABELLED)
def test_strata_part_subsets_by_score(everything: list[Sample]) -> None:
    found = strata(everything)
    assert sorted(i for stratum in found for i in stratum) == list(range(len(everything)))
    for stratum in found:
        assert stratum
        assert len({everything[i].subset for i in stratum}) == 1
    for low, high in pairwise(found):
        if everything[low[0]].subset == everything[high[0]].subset:
            assert everything[low[-1]].mos <= everything[high[0]].mos
            assert abs(len(low) - len(high)) <= 1


@given(LABELLED, SHARES, st.randoms(use_true_random=False))
def test_a_share_does_not_depend_on_the_order(
    everything: list[Sample], share: float, random: object
) -> None:
    shuffled = list(everything)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(parted(everything, share, 1)[1]) == set(parted(shuffled, share, 1)[1])


def test_a_share_is_decided_by_its_seed() -> None:
    assert hold_out_share(samples(50), 0.2, 1) != hold_out_share(samples(50), 0.2, 2)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, math.nan])
def test_a_share_is_a_part(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        hold_out_share(samples(50), share, 0)


def test_a_share_of_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves 0 of 4 samples for validation"):
        hold_out_share(samples(4), 0.1, 0)
    with pytest.raises(ValueError, match="leaves 4 of 4"):
        hold_out_share(samples(4), 0.9, 0)
    with pytest.raises(ValueError, match=r"x.png has MOS nan"):
        hold_out_share([*samples(4), Sample(Path("x.png"), math.nan)], 0.5, 0)
