"""Splits by content: no leak, nothing lost, the same for the same seed, whatever the order."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.rounds import ROUNDS, by_content, round_of
from training.data.samples import Sample

# Few contents of unlike sizes, some samples without one, also with a path like a content's name.
SAMPLES = st.lists(
    st.tuples(st.sampled_from(["", "", *"abcdefgh"]), st.floats(0, 100)), min_size=1, max_size=60
).map(
    lambda rows: [
        Sample(Path(f"{'abcdefgh'[i % 8]}{i or ''}"), mos, "blur", content, i % 5 + 1)
        for i, (content, mos) in enumerate(rows)
    ]
)
SHARES = st.floats(0.01, 0.99)


def contents(samples: list[Sample]) -> set[object]:
    return {s.reference or s.path for s in samples}


def parted(samples: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """The split, or nothing held out where there are too few contents for one."""
    n = len(contents(samples))
    if 0.5 <= share * n < n - 0.5:
        return by_content(samples, share, seed)
    with pytest.raises(ValueError, match="contents"):
        by_content(samples, share, seed)
    return samples, []


@given(SAMPLES, SHARES, st.integers(0, 99))
def test_every_sample_is_in_exactly_one_part_and_no_content_in_two(
    samples: list[Sample], share: float, seed: int
) -> None:
    rest, held = parted(samples, share, seed)
    assert Counter(rest) + Counter(held) == Counter(samples)
    assert not contents(rest) & contents(held)
    for part in (rest, held):
        assert part == sorted(part, key=samples.index)
    if held:
        assert abs(len(contents(held)) - share * len(contents(samples))) <= 0.5 + 1e-9


@given(SAMPLES, SHARES, st.integers(0, 99), st.integers())
def test_the_order_the_folder_and_the_scores_do_not_matter(
    samples: list[Sample], share: float, seed: int, shuffle: int
) -> None:
    rest, held = parted(samples, share, seed)
    assert (rest, held) == parted(samples, share, seed)
    shuffled = list(samples)
    random.Random(shuffle).shuffle(shuffled)
    assert Counter(parted(shuffled, share, seed)[1]) == Counter(held)
    elsewhere = [replace(s, path="other" / s.path, mos=100 - s.mos) for s in samples]
    assert [s.path for s in parted(elsewhere, share, seed)[1]] == ["other" / s.path for s in held]


@given(st.integers(5, 90), st.integers(1, ROUNDS))
def test_a_round_holds_out_a_fifth(count: int, number: int) -> None:
    samples = [Sample(Path(f"{i}.png"), i, reference=f"c{i % count}") for i in range(count * 3)]
    train, test = round_of(samples, number)
    assert abs(len(contents(test)) - count / 5) <= 0.5
    assert len(test) == 3 * len(contents(test))
    assert (train, test) == by_content(samples, 0.2, number)


def test_rounds_differ() -> None:
    samples = [Sample(Path(f"{i}.png"), i) for i in range(50)]
    tests = [{s.path for s in round_of(samples, r)[1]} for r in range(1, ROUNDS + 1)]
    assert len(set(map(frozenset, tests))) == ROUNDS
    assert len(set.union(*tests)) > 40


def test_rounds_are_the_same_everywhere() -> None:
    samples = [Sample(Path(f"i{i:02}.png"), i, reference=f"i{i:02}") for i in range(1, 26)]
    held = [s.reference for s in round_of(samples, 1)[1]]
    assert held == ["i03", "i05", "i09", "i19", "i25"]


@pytest.mark.parametrize("number", [0, -1, ROUNDS + 1])
def test_a_round_that_is_not_there(number: int) -> None:
    with pytest.raises(ValueError, match=r"rounds are 1\.\.10"):
        round_of([Sample(Path(f"{i}.png"), i) for i in range(50)], number)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, math.nan])
def test_a_share_is_a_part(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        by_content([Sample(Path(f"{i}.png"), i) for i in range(50)], share, 0)


def test_too_few_contents() -> None:
    one = [Sample(Path(f"{i}.png"), i, reference="same") for i in range(50)]
    with pytest.raises(ValueError, match=r"a share of 0.2 holds out 0 of 1 contents"):
        round_of(one, 1)
    with pytest.raises(ValueError, match=r"holds out 0 of 0 contents"):
        round_of([], 1)
