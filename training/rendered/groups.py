"""Groups by number: the same recipe, sources and number give the same bytes."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from giqa.errors import InputError, NotFoundError, PermissionDeniedError, UsageError
from training import processes
from training.distortions.convert import Pixels
from training.memory import keep_freed_memory
from training.rendered import chains, damage, framing, pages
from training.rendered.damage import Damaged
from training.rendered.recipe import KINDS, PAGES, Kind, Recipe
from training.rendered.sources import Found

_LARGE = 1_500_000  # pixels: levels of KADID-10k say little there
_AHEAD = 2  # groups a worker that wait to be taken

T = TypeVar("T")

_DO: dict[Kind, Callable[[Pixels, np.random.Generator], list[Damaged]]] = {
    "kadid": damage.kadid,
    "resample": damage.resample,
    "codec": damage.codec,
    "native": damage.native_scale,
    "chain": chains.chain,
    "nothing": damage.nothing,
}


@dataclass(frozen=True)
class Group:
    """A clean picture and damaged versions of it.

    Attributes:
        number: of the group.
        reference: the photograph's path, or `pages/<number>`.
        mos: opinion of the photograph, 0..100; None where nobody gave one.
        pictures: the clean one first, its loss 0 and its kind `clean`; none if `error` is said.
        error: why the photograph could not be read.
    """

    number: int
    reference: str
    mos: float | None
    pictures: tuple[Damaged, ...]
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """A recipe with its photographs: all that a group depends on.

    Attributes:
        recipe: what is rendered.
        sources: see `sources.find`.
    """

    recipe: Recipe
    sources: Found


def group(plan: Plan, number: int) -> Group:
    """Render a group.

    Args:
        plan: what from.
        number: 0 or more; beyond the recipe's `groups`, too.

    Returns:
        Five pictures, or why the photograph cannot be read.

    Raises:
        NotFoundError: a photograph has vanished.
        PermissionDeniedError: it may no longer be read.
    """
    cv2.setNumThreads(1)  # workers share the cores
    recipe = plan.recipe
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(1, number)))
    shares = [*(pool.share for pool in plan.sources.pools), recipe.pages.share]
    drawn = _draw(shares, rng)
    if drawn == len(plan.sources.pools):
        reference, mos = f"{PAGES}/{number}", recipe.pages.mos
        base, photograph = pages.draw(rng), False
    else:
        photos = plan.sources.pools[drawn].photos
        # In turn, in an order of its own each round, so that all are taken about as often.
        turn, place = divmod(number, len(photos))
        key = (2, drawn, turn)
        order = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=key))
        photo = photos[order.permutation(len(photos))[place]]
        reference, mos, photograph = str(photo.path), photo.mos, True
        try:
            base = framing.frame(framing.load(photo), rng)
        except (NotFoundError, PermissionDeniedError):
            raise
        except InputError as e:
            return Group(number, reference, mos, (), str(e))
    kind = _kind(recipe, photograph and base.shape[0] * base.shape[1] <= _LARGE, rng)
    pictures = _DO[kind](base, rng)
    return Group(number, reference, mos, (Damaged(base, 0.0, "clean"), *pictures))


def groups(plan: Plan, numbers: Sequence[int] | None = None, workers: int = 1) -> Iterator[Group]:
    """Render groups in memory, such as to compute features of them.

    Args:
        plan: what from.
        numbers: which; all of the recipe's unless given.
        workers: processes.

    Yields:
        Groups in the order of their numbers; those that could not be read, too.

    Raises:
        NotFoundError: a photograph has vanished.
        PermissionDeniedError: it may no longer be read.
        UsageError: a worker died.
    """
    return each(group, plan, range(plan.recipe.groups) if numbers is None else numbers, workers)


def each(
    function: Callable[[Plan, int], T], plan: Plan, numbers: Sequence[int], workers: int
) -> Iterator[T]:
    """Call a function with numbers in worker processes; its results in order.

    Raises:
        UsageError: a worker died.
    """
    if workers == 1:
        yield from (function(plan, number) for number in numbers)
        return
    context = multiprocessing.get_context("spawn")  # torch and threads do not survive a fork
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(os.getpid(), function, plan)
    ) as pool:
        waiting: deque = deque()
        left = iter(numbers)
        try:
            while True:
                while len(waiting) < workers * (1 + _AHEAD):
                    if (number := next(left, None)) is None:
                        break
                    waiting.append(pool.submit(_call, number))
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenProcessPool as e:
            raise UsageError(
                "a worker died, maybe for want of memory",
                item="--workers",
                remedy="give fewer and run again; finished groups are kept",
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


_work: tuple[Callable[[Plan, int], object], Plan] | None = None  # of a worker process


def _begin(parent: int, function: Callable[[Plan, int], object], plan: Plan) -> None:
    global _work
    processes.begin(parent)
    keep_freed_memory()  # pictures of megapixels come and go
    _work = function, plan  # once a process, not once a group


def _call(number: int) -> object:
    assert _work is not None
    function, plan = _work
    return function(plan, number)


def _kind(recipe: Recipe, may_be_kadid: bool, rng: np.random.Generator) -> Kind:
    shares = recipe.kinds.shares()
    if not may_be_kadid:
        shares["kadid"] = 0.0
    return KINDS[_draw([shares[kind] for kind in KINDS], rng)]


def _draw(shares: Sequence[float], rng: np.random.Generator) -> int:
    edges = np.cumsum(shares)
    return int(np.searchsorted(edges, rng.uniform(0, edges[-1]), side="right"))
