"""Contenders in turn: what is compared is measured side by side, round by round; within a time."""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_AGAIN = 5.0
"""Seconds after which a suite that goes on is told again that its time is over."""
_GRACE = 60.0
"""Seconds that a suite may go on in code that hears no signal, before its process is ended."""


class TimeUp(BaseException):
    """A suite's time is over. Not an `Exception`: what is measured may catch those."""


def limited(source: Iterable[T], seconds: float | None) -> Iterator[T]:
    """Pull from a source for so long; only the main thread may.

    Code that keeps the interpreter for a minute longer is ended with the process: exit code 1, and
    where it stood on stderr.

    Args:
        source: is interrupted by a `TimeUp` wherever it is, and again while it goes on.
        seconds: from the first pull on; None sets no limit.

    Yields:
        What the source gives.

    Raises:
        TimeUp: the time was over before the source's end.
    """
    if seconds is None:
        yield from source
        return
    pulling, end, told = False, time.monotonic() + seconds, f"stopped after {seconds:g} s"

    def over(*_: object) -> None:
        if pulling:
            raise TimeUp(told)

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    faulthandler.dump_traceback_later(seconds + _GRACE, exit=True)
    items = iter(source)
    try:
        while time.monotonic() < end:
            pulling = True
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                pulling = False
            yield item
        raise TimeUp(told)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def interleave(
    contenders: Mapping[str, Callable[[], T]], *, rounds: int, seed: int, warmup: int = 1
) -> dict[str, list[T]]:
    """Run every contender once a round, in another order each round.

    A slow spell of the machine then hits all of them, and the order favours none.

    Args:
        contenders: name to what runs it once and gives what was measured.
        rounds: counted rounds.
        seed: of the orders.
        warmup: rounds before, which are not counted.

    Returns:
        Name to what was measured, one entry per round: entries of the same index are pairs. Rounds
        for which there was no time are left out.

    Raises:
        TimeUp: there was no time for one round.
    """
    rng = np.random.default_rng(seed)
    names = list(contenders)
    found: dict[str, list[T]] = {name: [] for name in names}
    try:
        for n in range(warmup + rounds):
            for i in rng.permutation(len(names)):
                measured = contenders[names[i]]()
                if n >= warmup:
                    found[names[i]].append(measured)
    except TimeUp:
        whole = min(map(len, found.values()))
        if not whole:
            raise
        return {name: values[:whole] for name, values in found.items()}
    return found
