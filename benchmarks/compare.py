"""Two runs of a suite: what became faster, what slower, what is the same within the noise.

A series that alternated with another (`Series.against`) is compared by its ratio to that other,
round by round: what made the whole machine slower is in both and cancels. The other one is then
the run's measure and gets no verdict of its own. Series without one are compared as they are.

A change counts if the whole 95 % interval of the ratio lies beyond the tolerance. Runs of the same
code differ by more than their rounds show; and of many series, some intervals miss 1 by chance,
but hardly by that much more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.noise import Ratio, paired, run_ratio
from benchmarks.record import Record, Series

TOLERANCE = 0.05

Verdict = Literal["faster", "slower", "same", "gone", "new", "measure", "fact"]


@dataclass(frozen=True)
class Change:
    """What became of a series.

    Attributes:
        series: its name.
        verdict: `faster`, `slower` or `same` (for memory: smaller, larger); `gone` and `new` are
            in one run only; `measure` is what others are compared by, `fact` is not judged.
        ratio: how many times as good it became; None where it was not compared.
        relative: whether it was compared by its ratio to another series.
    """

    series: str
    verdict: Verdict
    ratio: Ratio | None = None
    relative: bool = False


def compare(base: Record, new: Record, *, tolerance: float = TOLERANCE) -> Iterator[Change]:
    """Compare two runs of one suite.

    Args:
        base: the earlier run.
        new: the later one.
        tolerance: smallest relative change that counts.

    Yields:
        A change per series, in the new run's order, then what is gone.

    Raises:
        ValueError: the records are of different suites.
    """
    if base.suite != new.suite:
        raise ValueError(f"suite {base.suite} beside {new.suite}")
    before = {one.name: one for one in base.series}
    measures = {one.against[0] for one in new.series if one.against}
    for one in new.series:
        old = before.pop(one.name, None)
        if old is None:
            yield Change(one.name, "new")
        elif one.better == "neither" or old.better != one.better or old.unit != one.unit:
            yield Change(one.name, "fact")
        elif not one.against and one.name in measures:
            yield Change(one.name, "measure", _absolute(old, one, new.seed))
        else:
            yield _judge(base, new, old, one, tolerance)
    for name in before:
        yield Change(name, "gone")


def _judge(base: Record, new: Record, old: Series, one: Series, tolerance: float) -> Change:
    relative = bool(one.against) and old.against[:1] == one.against[:1]
    if relative:
        now, then = (
            paired(s.values, r.get(s.against[0]).values, s.better)
            for s, r in ((one, new), (old, base))
        )
        ratio: Ratio | None = run_ratio(now.tolist(), then.tolist(), "higher", seed=new.seed)
    else:
        ratio = _absolute(old, one, new.seed)
    if ratio is None:
        return Change(one.name, "fact")
    verdict: Verdict = "same"
    if ratio.low > 1 + tolerance:
        verdict = "faster"
    elif ratio.high < 1 / (1 + tolerance):
        verdict = "slower"
    return Change(one.name, verdict, ratio, relative)


def _absolute(old: Series, one: Series, seed: int) -> Ratio | None:
    """None where values have no ratios: differences and slopes may be 0 or negative."""
    if min(*old.values, *one.values, 1) <= 0:
        return None
    return run_ratio(one.values, old.values, one.better, seed=seed)
