"""Ratios, their intervals, and what `compare` makes of two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.__main__ import main
from benchmarks.compare import Change, compare
from benchmarks.noise import Better, paired, paired_ratio, run_ratio
from benchmarks.options import Options
from benchmarks.record import Record, Series, record, save

ROUNDS = 7
POSITIVE = st.lists(st.floats(0.1, 1e4), min_size=1, max_size=9)
DIRECTION = st.sampled_from(["higher", "lower"])


def _noise(rng: np.random.Generator, n: int = ROUNDS) -> np.ndarray:
    """Factors on times as a shared machine has them: 3 % scatter, now and then a slow spell."""
    return np.exp(rng.normal(0, 0.03, n)) * np.where(rng.random(n) < 0.1, 1.3, 1.0)


def _run(seed: int, *, slower: float = 1.0, drift: float = 1.0) -> Record:
    """A contender of 20 ms and its reference of 100 ms in turn; one that runs by itself."""
    rng = np.random.default_rng(seed)
    spells = _noise(rng)  # of the machine, alike for both
    own = 20 * slower * drift * spells * np.exp(rng.normal(0, 0.02, ROUNDS))
    other = 100 * drift * spells * np.exp(rng.normal(0, 0.02, ROUNDS))
    alone = 5 * slower * _noise(rng)
    found = [
        Series(name="giqa/time", unit="ms", better="lower", values=own, against=("other/time",)),
        Series(name="other/time", unit="ms", better="lower", values=other),
        Series(name="alone/throughput", unit="1/s", better="higher", values=1e3 / alone),
        Series(name="size/bytes", unit="MB", better="neither", values=[7.0]),
    ]
    return record("engine", found, Options())


def _verdicts(base: Record, new: Record) -> dict[str, str]:
    return {change.series: change.verdict for change in compare(base, new)}


RUNS = 50


def test_a_slowdown_of_20_percent_is_flagged() -> None:
    found = [_verdicts(_run(2 * i), _run(2 * i + 1, slower=1.2)) for i in range(RUNS)]
    assert all(v["giqa/time"] == "slower" for v in found)
    assert sum(v["alone/throughput"] == "slower" for v in found) >= 0.7 * RUNS


def test_runs_of_the_same_code_pass() -> None:
    found = [_verdicts(_run(2 * i), _run(2 * i + 1)) for i in range(RUNS)]
    assert all(v["giqa/time"] == "same" for v in found)
    assert all(v["alone/throughput"] == "same" for v in found)


def test_a_speedup_is_seen() -> None:
    found = [_verdicts(_run(2 * i), _run(2 * i + 1, slower=1 / 1.2)) for i in range(RUNS)]
    assert all(v["giqa/time"] == "faster" for v in found)


def test_a_slower_machine_is_no_slower_program() -> None:
    changes = list(compare(_run(0), _run(1, drift=1.5)))
    assert [(c.series, c.verdict) for c in changes[:2]] == [
        ("giqa/time", "same"),
        ("other/time", "measure"),
    ]
    assert changes[1].ratio is not None
    assert changes[1].ratio.median == pytest.approx(1 / 1.5, rel=0.1)


def test_a_record_is_the_same_as_itself() -> None:
    one = _run(3)
    assert _verdicts(one, one) == {
        "giqa/time": "same",
        "other/time": "measure",
        "alone/throughput": "same",
        "size/bytes": "fact",
    }


def test_new_and_gone_series_are_told() -> None:
    one = _run(3)
    fewer = record("engine", one.series[2:], Options())
    assert _verdicts(one, fewer)["giqa/time"] == "gone"
    assert _verdicts(fewer, one)["giqa/time"] == "new"


def test_what_has_no_ratio_is_not_judged() -> None:
    growth = [
        record(
            "scale", [Series(name="m/growth", unit="MB", better="lower", values=(v,))], Options()
        )
        for v in (-0.2, 0.3)
    ]
    assert list(compare(*growth)) == [Change("m/growth", "fact")]


def test_suites_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="suite engine beside scale"):
        list(compare(_run(0), record("scale", _run(0).series, Options())))


@pytest.mark.parametrize(("slower", "code"), [(1.2, 1), (1.0, 0)])
def test_the_exit_code_says_slower(tmp_path: Path, slower: float, code: int) -> None:
    folders = tmp_path / "base", tmp_path / "new"
    save(_run(0), folders[0])
    save(_run(1, slower=slower), folders[1])
    found = CliRunner().invoke(main, ["compare", *map(str, folders)])
    assert found.exit_code == code, found.output
    assert "engine\tgiqa/time\t" in found.output


@given(POSITIVE, st.floats(0.2, 5), DIRECTION)
@settings(deadline=None)
def test_a_constant_factor_is_found_exactly(
    values: list[float], factor: float, better: Better
) -> None:
    ratio = paired_ratio([factor * v for v in values], values, better)
    wanted = factor if better == "higher" else 1 / factor
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((wanted,) * 3)


@given(POSITIVE, POSITIVE, DIRECTION, st.integers(0, 9))
@settings(deadline=None)
def test_intervals_hold_the_median_and_turn_round(
    new: list[float], base: list[float], better: Better, seed: int
) -> None:
    there = run_ratio(new, base, better, seed=seed)
    back = run_ratio(base, new, better, seed=seed)
    assert there.low <= there.median * (1 + 1e-9)
    assert there.median <= there.high * (1 + 1e-9)
    assert there.median * back.median == pytest.approx(1)
    assert there == run_ratio(new, base, better, seed=seed)


@given(POSITIVE, st.floats(0.5, 2))
@settings(deadline=None)
def test_times_and_rates_tell_the_same(values: list[float], factor: float) -> None:
    times = [factor * v for v in values]
    rates, base = [1 / t for t in times], [1 / v for v in values]
    assert paired(times, values, "lower") == pytest.approx(paired(rates, base, "higher"))


@pytest.mark.parametrize(
    ("values", "others"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])]
)
def test_pairs_that_have_no_ratio(values: list[float], others: list[float]) -> None:
    with pytest.raises(ValueError, match="rounds beside|above 0"):
        paired(values, others, "lower")
