"""What became of a run's inputs since it was planned."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from giqa.batch._folder import Folder, number_shards
from giqa.batch._plan import Plan
from giqa.batch._sources import Listing
from giqa.batch._stamps import UNKNOWN, stamped
from giqa.batch._units import Unit
from giqa.batch._video import cut
from giqa.errors import GiqaError, PlanInvalidError

_GONE, _UNKNOWN = b"", b"?"


@dataclass(frozen=True)
class Changes:
    """How many inputs differ from what the plan says.

    Attributes:
        changed: they have other bytes; they are scored again.
        new: they were not there; `update` appends them.
        gone: they are not there any more; their rows stay.
    """

    changed: int = 0
    new: int = 0
    gone: int = 0


def refresh(folder: Folder, plan: Plan, append: bool) -> tuple[Plan, Changes]:
    """Compare a run's inputs with its plan, and write a plan that fits them.

    Args:
        folder: the run's folder.
        plan: its plan.
        append: take in what is new.

    Returns:
        The plan that holds now, and what changed since the last one.

    Raises:
        PlanInvalidError: the inputs cannot be listed again.
        StorageFullError: no space is left.
    """
    try:
        return _refresh(folder, plan, append)
    except PlanInvalidError:
        raise
    except GiqaError as e:
        if e.code == "storage_full":
            raise
        raise PlanInvalidError(f"the inputs cannot be listed again: {e}") from e


def _refresh(folder: Folder, plan: Plan, append: bool) -> tuple[Plan, Changes]:
    digest, there = hashlib.sha256(), dict[bytes, bytes]()
    for key, unit in _keyed(_fresh(folder, plan)):
        digest.update(unit.identity)
        there[key] = _content(unit)
        if unit.error_code is None and unit.stamp in (None, UNKNOWN):
            there[key] = _GONE if unit.stamp is None else _UNKNOWN
    if digest.hexdigest() == plan.listing_sha256:
        return plan, Changes()
    changed: dict[bytes, Unit | None] = {}
    gone, marks = set[int](), False
    for key, unit in _keyed(_firsts(folder)):
        now = there.pop(key, None)
        if now is None or (now == _GONE and unit.stamp is not None):
            gone.add(unit.input)
            marks = marks or not unit.gone
        elif now not in (_GONE, _UNKNOWN, _content(unit)):
            changed[key] = None
        else:
            marks = marks or unit.gone
    new = set(there)
    found = Changes(len(changed), len(new), len(gone))
    if not changed and not marks and not (append and new):
        return plan, found
    if changed:
        changed.update((k, u) for k, u in _keyed(_fresh(folder, plan)) if k in changed)
    last = plan.inputs - 1

    def old() -> Iterator[tuple[int, Unit]]:
        own, current = _Keys(), -1
        fresh: Unit | None = None
        for shard, unit in folder.units():
            if unit.input != current:
                current = unit.input
                fresh = changed.get(own(unit))
                if fresh is not None:
                    again = replace(fresh, input=unit.input)
                    yield from ((shard, u) for u in units(again, folder, plan))
            if fresh is None:
                yield shard, replace(unit, gone=unit.input in gone)

    def added() -> Iterator[Unit]:
        nonlocal last
        for key, unit in _keyed(_fresh(folder, plan)):
            if key in new:
                last += 1
                yield from units(replace(unit, input=last), folder, plan)

    more = number_shards(added(), plan.shard_size, plan.shards) if append and new else iter(())
    written = folder.write_inputs(chain(old(), more), folder.kept())
    plan = plan.model_copy(
        update={
            "inputs": last + 1,
            "units": written.units,
            "shards": written.shards,
            "weight": written.weight,
            "gone": len(gone),
            "inputs_sha256": written.sha256,
            "listing_sha256": plan.listing_sha256 if new and not append else digest.hexdigest(),
        }
    )
    folder.write_plan(plan)
    return plan, found


def units(unit: Unit, folder: Folder, plan: Plan) -> Iterator[Unit]:
    """The units of one listed input."""
    if unit.kind == "video" and unit.error_code is None:
        yield from cut(unit, plan.sources.folder, plan.scoring)
    else:
        yield unit


def _fresh(folder: Folder, plan: Plan) -> Iterator[Unit]:
    """The inputs as they are now; what came through a pipe cannot be listed again."""
    listing: Iterator[Unit] = iter(Listing(plan.sources, skip=str(folder.path)))
    if "-" in plan.sources.inputs:
        listing = (replace(unit, gone=False) for unit in _firsts(folder))
    return stamped(listing, plan.sources.folder, plan.sources.check)


def _firsts(folder: Folder) -> Iterator[Unit]:
    """The inputs as they were listed."""
    last = -1
    for _, unit in folder.units():
        if unit.input == last:
            continue
        last = unit.input
        if unit.kind == "video":
            unit = replace(unit, start_s=None, end_s=None, frames=None, mark=None)
            unit = replace(unit, error_code=None, error_message=None)
        yield unit


class _Keys:
    """Names inputs in few bytes; the same one named again has another name."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def __call__(self, unit: Unit) -> bytes:
        key = hashlib.blake2b(repr(unit.place).encode(), digest_size=12).digest()
        self._seen[key] += 1
        return key + self._seen[key].to_bytes(4, "big")


def _keyed(units: Iterator[Unit]) -> Iterator[tuple[bytes, Unit]]:
    keys = _Keys()
    for unit in units:
        yield keys(unit), unit


def _content(unit: Unit) -> bytes:
    return hashlib.blake2b(replace(unit, input=0).identity, digest_size=12).digest()
