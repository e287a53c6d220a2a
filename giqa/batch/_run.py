"""Running, resuming, updating."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from giqa import checks
from giqa.batch._changes import Changes, refresh, units
from giqa.batch._folder import Folder, Shard, number_shards
from giqa.batch._plan import Identity, Plan, Runtime, Scoring, Sources, check_names
from giqa.batch._progress import Meter, OnProgress
from giqa.batch._rows import counts
from giqa.batch._score import score_shards
from giqa.batch._sources import Listing
from giqa.batch._stamps import stamped
from giqa.batch._units import Unit
from giqa.batch._videos import write_videos
from giqa.bundle import load_bundle
from giqa.errors import UsageError
from giqa.files import storage
from giqa.scorer import Scorer

SHARD_SIZE = 1000


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
        videos: how many of the inputs are videos, each with a row in `videos.parquet`.
        passed: what was passed over because it is no input by its suffix.
        changes: how the inputs differ from those that the run was planned with.
    """

    folder: str
    inputs: int
    rows: int
    failed: int
    shards: int
    written: int
    videos: int = 0
    passed: dict[str, int] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)


def run(
    inputs: str | Path | Sequence[str | Path] | Sources,
    out: str | Path,
    *,
    scoring: Scoring | None = None,
    runtime: Runtime | None = None,
    shard_size: int = SHARD_SIZE,
    stdin: IO[bytes] | None = None,
    scorer: Scorer | None = None,
    progress: OnProgress | None = None,
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
        progress: is told how far it is, twice a second.

    Returns:
        What the folder holds.

    Raises:
        UsageError: the folder holds a run, or options exclude each other.
        FolderInUseError: another run works in it.
        InputError: a list or table cannot be read.
        ServerError: the server is gone; `resume` goes on.
        StorageFullError: no space is left; `resume` goes on.
    """
    sources = _sources(inputs)
    check_names(sources.inputs)
    scoring, runtime = scoring or Scoring(), (runtime or Runtime()).rooted()
    if len(runtime.urls) > 1 and runtime.executor != "ray":
        raise UsageError("several servers need workers", item="--url", remedy="--executor ray")
    folder = Folder(out)
    with storage(out):
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
            if runtime.executor == "local":
                return _work(folder, plan, used, progress)
        del used  # half of the program's memory: workers have scorers of their own
        return _work(folder, plan, None, progress)


def resume(
    out: str | Path,
    *,
    token: str | None = None,
    scorer: Scorer | None = None,
    progress: OnProgress | None = None,
) -> Summary:
    """Go on with a run: score the shards that are not there, and what changed since.

    What is new or gone is counted in `Summary.changes`; `update` takes it in.

    Args:
        out: the run's folder.
        token: the server's token, where it wants one.
        scorer: score with this one instead of opening one.
        progress: is told how far it is, twice a second.

    Returns:
        What the folder holds.

    Raises:
        PlanInvalidError: there is no plan, it is damaged, or the inputs cannot be listed again.
        FolderInUseError: another run works in it.
        BundleInvalidError: the bundle is not the one that the run began with.
        EngineMismatchError: runtime or precision are not those that it began with.
        ServerError: the server is gone.
        StorageFullError: no space is left.
    """
    return _go_on(out, token, scorer, progress, append=False)


def update(
    out: str | Path,
    *,
    token: str | None = None,
    scorer: Scorer | None = None,
    progress: OnProgress | None = None,
) -> Summary:
    """Bring a run up to its inputs: what is new gets shards of its own, what is gone is marked.

    What changed is scored again, as `resume` does.

    Args:
        out: the run's folder.
        token: the server's token, where it wants one.
        scorer: score with this one instead of opening one.
        progress: is told how far it is, twice a second.

    Returns:
        What the folder holds.

    Raises:
        GiqaError: as `resume`.
    """
    return _go_on(out, token, scorer, progress, append=True)


def _go_on(
    out: str | Path,
    token: str | None,
    scorer: Scorer | None,
    progress: OnProgress | None,
    append: bool,
) -> Summary:
    folder = Folder(out)
    with folder.lock():
        plan = folder.plan()
        runtime = plan.runtime.model_copy(update={"token": token})
        with _opened(runtime, plan.scoring, scorer) as used:
            Identity.of(used, runtime).check(plan)
            plan, changes = refresh(folder, plan, append)
            plan = plan.model_copy(update={"runtime": runtime})
            if runtime.executor == "local":
                return _work(folder, plan, used, progress, changes)
        del used
        return _work(folder, plan, None, progress, changes)


def _sources(inputs: object) -> Sources:
    if isinstance(inputs, Sources):
        return inputs
    if isinstance(inputs, str | os.PathLike):  # one, and not its letters
        inputs = (inputs,)
    checks.instance("inputs", inputs, Iterable)
    names = (os.fspath(x) if isinstance(x, os.PathLike) else x for x in inputs)  # type: ignore[attr-defined]
    return Sources(inputs=tuple(names))


def _opened(
    runtime: Runtime, scoring: Scoring, scorer: Scorer | None
) -> Scorer | nullcontext[Scorer]:
    if scorer is not None:
        checks.scorer(scorer)
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
    listing = Listing(sources, stdin, skip=str(folder.path))
    draft = Plan.model_construct(sources=sources, scoring=scoring)

    def listed() -> Iterator[Unit]:
        nonlocal last
        for unit in stamped(iter(listing), sources.folder, sources.check):
            digest.update(unit.identity)
            last = unit.input
            yield from units(unit, folder, draft)

    written = folder.write_inputs(number_shards(listed(), shard_size), listing.kept())
    if not runtime.urls and identity.scored_by.startswith("openvino-"):
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
        shards=written.shards,
        inputs=last + 1,
        units=written.units,
        weight=written.weight,
        passed=dict(+listing.passed),
        listing_sha256=digest.hexdigest(),
        inputs_sha256=written.sha256,
    )
    folder.write_plan(plan)
    return plan


def _work(
    folder: Folder,
    plan: Plan,
    scorer: Scorer | None,
    progress: OnProgress | None,
    changes: Changes | None = None,
) -> Summary:
    folder.clean()
    written, names = folder.written(), set[str]()
    meter = Meter(folder, plan, progress)
    now = 0

    def missing() -> Iterator[Shard]:
        for shard in folder.read_shards(plan):
            names.add(shard.name)
            if shard.name in written:
                meter.skip(shard.units)
            else:
                yield shard

    with meter.running():
        if scorer is None:
            from giqa.batch import _ray

            finished: Iterator[object] = _ray.score_shards(folder, plan, missing(), meter)
        else:
            finished = _score_here(folder, plan, missing(), scorer, meter)
        now = sum(1 for _ in finished)
        folder.remove_replaced(names)
        videos = write_videos(folder, plan)
    rows, failed = _count(folder, plan)
    return Summary(
        str(folder.path),
        plan.inputs,
        rows,
        failed,
        len(names),
        now,
        videos,
        plan.passed,
        changes or Changes(),
    )


def _score_here(
    folder: Folder, plan: Plan, shards: Iterator[Shard], scorer: Scorer, meter: Meter
) -> Iterator[Shard]:
    kept = folder.kept()
    for found in score_shards(shards, scorer, plan, folder, meter.unit):
        folder.write_shard(found.shard, found.encode(kept))
        yield found.shard


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
