"""Contenders in turn: what is compared is measured side by side, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

T = TypeVar("T")


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
        Name to what was measured, one entry per round: entries of the same index are pairs.
    """
    rng = np.random.default_rng(seed)
    names = list(contenders)
    found: dict[str, list[T]] = {name: [] for name in names}
    for n in range(warmup + rounds):
        for i in rng.permutation(len(names)):
            measured = contenders[names[i]]()
            if n >= warmup:
                found[names[i]].append(measured)
    return found
