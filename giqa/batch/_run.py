"""Running and resuming."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from giqa.batch import _video
from giqa.batch._folder import Folder, Shard
from giqa.batch._plan import Identity, Plan, Runtime, Scoring, Sources, check_names
from giqa.batch._rows import counts, encode
from giqa.batch._score import score_shards
from giqa.batch._sources import expand, listing_digest
from giqa.batch._units import Unit
from giqa.bundle import load_bundle
from giqa.errors import GiqaError, PlanInvalidError, UsageError
from giqa.scorer import Scorer

SHARD_SIZE = 1000
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Summary:
    """What a finished run holds.

    Attributes:
        folder: the run's folder.
        inputs: how many inputs there are.
        rows: how many rows they have.
        failed: how many of the rows are errors.
        shards: how many files the rows stand in.
        written: how many of these were written now, not before.
    """

    folder: str
    inputs: int
    rows: int
    failed: int
    shards: int
    written: int


def run(
    inputs: Sequence[str] | Sources,
    out: str | Path,
    *,
    scoring: Scoring | None = None,
    runtime: Runtime | None = None,
    shard_size: int = SHARD_SIZE,
    stdin: IO[bytes] | None = None,
    scorer: Scorer | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Plan a run in a folder and do it.

    Memory does not grow with the number of inputs: they are listed to a file, and at most two
    shards of rows are held at once.

    Args:
        inputs: files, directories, patterns, lists, tables, tar shards; see `Sources`.
        out: the run's folder; made if it does not exist.
        scoring: what decides the rows.
        runtime: where it is scored.
        shard_size: units in a shard: what a kill can cost.
        stdin: where `-` reads.
        scorer: score with this one, with the limits it has, instead of opening one.
        progress: is called with units done and all units, shard by shard.

    Returns:
        What the folder holds.

    Raises:
        UsageError: the folder holds a run, or options exclude each other.
        FolderInUseError: another run works in it.
        InputError: a list or table cannot be read.
        ServerError: the server is gone; `resume` goes on.
        StorageFullError: no space is left; `resume` goes on.
    """
    sources = inputs if isinstance(inputs, Sources) else Sources(inputs=tuple(inputs))
    check_names(sources.inputs)
    scoring, runtime = scoring or Scoring(), (runtime or Runtime()).rooted()
    if len(runtime.urls) > 1 and runtime.engine != "ray":
        raise UsageError("several servers need workers", item="--url", remedy="--engine ray")
    folder = Folder(out)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock():
        if folder.plan_file.exists():
            raise UsageError(
                "holds a run already",
                item=str(out),
                remedy="`giqa batch resume` goes on with it; a new one needs another folder",
            )
        with _opened(runtime, scoring, scorer) as used:
            identity = Identity.of(used, runtime)
            plan = _make_plan(folder, sources, scoring, runtime, identity, shard_size, stdin)
            return _work(folder, plan, used, progress)


def resume(
    out: str | Path,
    *,
    token: str | None = None,
    scorer: Scorer | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Go on with a run: score the shards that are not there.

    Args:
        out: the run's folder.
        token: the server's token, where it wants one.
        scorer: score with this one instead of opening one.
        progress: is called with units done and all units, shard by shard.

    Returns:
        What the folder holds.

    Raises:
        PlanInvalidError: there is no plan, it is damaged, or the inputs changed since.
        FolderInUseError: another run works in it.
        BundleInvalidError: the bundle is not the one that the run began with.
        EngineMismatchError: runtime or precision are not those that it began with.
        ServerError: the server is gone.
        StorageFullError: no space is left.
    """
    folder = Folder(out)
    with folder.lock():
        plan = folder.plan()
        if "-" not in plan.sources.inputs:  # what came through a pipe cannot be listed again
            _check_listing(plan, folder)
        runtime = plan.runtime.model_copy(update={"token": token})
        plan = plan.model_copy(update={"runtime": runtime})
        with _opened(runtime, plan.scoring, scorer) as used:
            Identity.of(used, runtime).check(plan)
            return _work(folder, plan, used, progress)


def _opened(
    runtime: Runtime, scoring: Scoring, scorer: Scorer | None
) -> Scorer | nullcontext[Scorer]:
    if scorer is not None:
        return nullcontext(scorer)
    return runtime.open(load_bundle(runtime.bundle), scoring.limits)


def _make_plan(
    folder: Folder,
    sources: Sources,
    scoring: Scoring,
    runtime: Runtime,
    identity: Identity,
    shard_size: int,
    stdin: IO[bytes] | None,
) -> Plan:
    digest, last = hashlib.sha256(), -1

    def units() -> Iterator[Unit]:
        nonlocal last
        for unit in expand(sources, stdin):
            digest.update(unit.identity)
            last = unit.input
            if unit.kind == "video":
                yield from _video.cut(unit, sources.folder, scoring)
            else:
                yield unit

    count, inputs_sha256 = folder.write_inputs(units(), shard_size)
    if not runtime.urls:
        precision = identity.scored_by.removeprefix("openvino-")
        runtime = runtime.model_copy(update={"precision": precision})
    plan = Plan(
        sources=sources,
        scoring=scoring,
        runtime=runtime,
        bundle=identity.bundle.manifest.id,
        bundle_sha256=identity.bundle.digest,
        scored_by=identity.scored_by,
        shard_size=shard_size,
        inputs=last + 1,
        units=count,
        listing_sha256=digest.hexdigest(),
        inputs_sha256=inputs_sha256,
    )
    folder.write_plan(plan)
    return plan


def _check_listing(plan: Plan, folder: Folder) -> None:
    try:
        same = listing_digest(expand(plan.sources)) == plan.listing_sha256
    except GiqaError as e:
        raise PlanInvalidError(f"the inputs cannot be listed again: {e}") from e
    if not same:
        raise PlanInvalidError(
            "its inputs are not those that it began with",
            item=str(folder.path),
            remedy="put them back, or begin again in another folder",
        )


def _work(folder: Folder, plan: Plan, scorer: Scorer, progress: Progress | None) -> Summary:
    folder.clean()
    written = folder.written()
    done = written_now = 0

    def missing() -> Iterator[Shard]:
        nonlocal done
        for shard in folder.read_shards(plan):
            if shard.name in written:
                done += len(shard.units)
            else:
                yield shard

    if plan.runtime.engine == "ray":
        from giqa.batch import _ray

        finished = _ray.score_shards(folder, plan, (shard.number for shard in missing()))
    else:
        finished = _score_here(folder, plan, missing(), scorer)
    for units in finished:
        done += units
        written_now += 1
        if progress is not None:
            progress(done, plan.units)
    rows, failed = _count(folder, plan)
    return Summary(str(folder.path), plan.inputs, rows, failed, plan.shards, written_now)


def _score_here(
    folder: Folder, plan: Plan, shards: Iterator[Shard], scorer: Scorer
) -> Iterator[int]:
    for shard, rows in score_shards(shards, scorer, plan):
        folder.write_shard(shard, encode(rows, shard.address))
        yield len(shard.units)


def _count(folder: Folder, plan: Plan) -> tuple[int, int]:
    """Rows and errors in all shards, from their footers."""
    import pyarrow.parquet as pq

    rows = failed = 0
    for name in sorted(folder.written()):
        about = pq.read_metadata(folder.shards / name)
        more, bad = counts(about.metadata, about.num_rows)
        rows += more
        failed += bad
    return rows, failed
