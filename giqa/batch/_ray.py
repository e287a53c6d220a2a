"""Batch runs on a Ray cluster, with Ray Data: workers hold a scorer or share servers.

`score` adds scores to a Ray Data set of one's own. `score_shards` is what `giqa batch --executor
ray` does: units of a plan are the source, shards the sink, so rows, resume and verify are those of
a run in one process. All nodes need the run's folder and the inputs under the same paths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from giqa.batch import _driver
from giqa.batch._adapters import score_batches, scored_schema
from giqa.batch._folder import Folder, Shard
from giqa.batch._plan import Identity, Plan, Runtime, Scoring
from giqa.batch._progress import Meter
from giqa.batch._score import score_shards as score_in_process
from giqa.bundle import load_bundle
from giqa.errors import (
    GiqaError,
    ServerUnavailableError,
    WorkerFailedError,
    all_errors,
)
from giqa.extras import importing
from giqa.scorer import Scorer

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCKS = 1000
"""Most tasks that a run is handed to Ray in; each has the same number of shards."""
_TRIES = 3
"""How often a shard is begun: one of its files may be what kills workers."""


def score_dataset(
    data: Any,
    *,
    column: str = "path",
    scoring: Scoring | None = None,
    runtime: Runtime | None = None,
) -> Any:
    """Score the images of a Ray Data set, lazily.

    Args:
        data: a `ray.data.Dataset`.
        column: holds paths (read by the worker), encoded images or structs `{bytes, path}`.
        scoring: what decides the scores.
        runtime: with what; `workers` of them, each with `threads` CPUs.

    Returns:
        A `ray.data.Dataset` with the columns of image rows and the data's other ones, see
        `scored_schema`; one row an image, sorted within a block as its input was.

    Raises:
        MissingExtraError: Ray is not installed.

    Example:
        >>> import ray
        >>> from giqa.batch import score_dataset
        >>> data = ray.data.read_images("s3://bucket/", include_paths=True)  # doctest: +SKIP
        >>> names = ray.data.read_parquet("names.parquet")  # doctest: +SKIP
        >>> score_dataset(names).write_parquet("scores")  # doctest: +SKIP
    """
    import_ray()
    scoring, runtime = scoring or Scoring(), (runtime or Runtime()).rooted()
    return data.map_batches(
        _Images,
        fn_constructor_args=(column, scoring, _bounded(runtime), runtime.token),
        batch_format="pyarrow",
        batch_size=8 * runtime.batch,
        **_resources(runtime),
    )


def score_shards(
    folder: Folder, plan: Plan, shards: Iterable[Shard], meter: Meter
) -> Iterator[int]:
    """Score shards of a run on the cluster that `RAY_ADDRESS` names, else on one of this machine.

    A shard whose worker dies is scored by another one. At most one shard a worker is under way.

    Args:
        folder: the run's folder, seen alike by all nodes.
        plan: its plan.
        shards: which shards.
        meter: is told of each unit when its shard is written.

    Yields:
        Number of each shard that was written.

    Raises:
        MissingExtraError: Ray is not installed.
        WorkerFailedError: workers died again and again, or the cluster's head did.
        GiqaError: what stopped a worker; shards that are written stay.
    """
    numbers = [shard.number for shard in shards]
    if not numbers:
        return
    ray = import_ray()
    # Whoever has connected to a cluster means that one, and ends with it.
    run = drive if ray.is_initialized() else _driver.finished
    for number in run(folder.path, numbers, plan.runtime.token):
        for unit in folder.read_shard(plan, number).units:
            meter.unit(unit, 1, 0)
        yield number


def drive(path: Path, numbers: Sequence[int], token: str | None) -> Iterator[int]:
    """Score shards from this process, as Ray's driver; see `score_shards`."""
    ray = import_ray()
    runtime = Folder(path).plan().runtime
    todo = [{"number": number} for number in numbers]
    started = _start(ray)
    try:
        data = ray.data.from_items(todo, override_num_blocks=min(len(todo), _BLOCKS))
        done = data.map_batches(
            _Shards,
            fn_constructor_args=(str(path.absolute()), token),
            batch_format="numpy",
            batch_size=1,
            **_resources(runtime),
        )
        for row in done.iter_rows():
            if row["error_code"]:
                raise all_errors()[row["error_code"]](
                    row["error_message"], item=row["error_item"], remedy=row["error_remedy"]
                )
            yield int(row["number"])
    except ray.exceptions.RayError as e:
        raise WorkerFailedError(str(e).splitlines()[0]) from e
    finally:
        if started:
            ray.shutdown()


def import_ray() -> Any:
    """Import Ray with Ray Data.

    Raises:
        MissingExtraError: it is not installed.
    """
    with importing("Ray", "ray"):
        import ray
        import ray.data
    return ray


def _start(ray: Any) -> bool:
    """Connect to a cluster; True if that is for us to undo.

    Raises:
        WorkerFailedError: there is none and none starts.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    # As Ray will have it from its next release on; silences its warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as e:  # Ray raises a bare one where its processes start too slowly
        remedy = None
        if os.environ.get("RAY_ADDRESS"):
            remedy = "check RAY_ADDRESS; RAY_AUTH_MODE=token, too, where the cluster wants a token"
        raise WorkerFailedError(f"Ray does not start: {e}", remedy=remedy) from e
    return True


def _resources(runtime: Runtime) -> dict[str, Any]:
    """What Ray Data is asked for: a fixed number of workers, each with CPUs of its own."""
    ray = import_ray()
    threads = runtime.threads or 1
    workers = runtime.workers
    if workers is None:
        _start(ray)
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    return {
        # Ray Data begins a task again, for ever, when its worker dies.
        "compute": ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        "num_cpus": threads,
    }


def _bounded(runtime: Runtime) -> Runtime:
    return runtime.model_copy(update={"threads": runtime.threads or 1})


class _Shards:
    """A worker that scores shards of a plan."""

    def __init__(self, folder: str, token: str | None) -> None:
        self._folder = Folder(folder)
        self._plan = self._folder.plan()
        self._kept = self._folder.kept()
        self._runtime = _bounded(self._plan.runtime).model_copy(update={"token": token})
        self._bundle = load_bundle(self._runtime.bundle)
        self._scorers: dict[str, Scorer] = {}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score one shard; what goes wrong is told in the row, not raised: Ray would try again."""
        row = {
            "number": int(batch["number"][0]),
            "error_code": "",
            "error_message": "",
            "error_item": "",
            "error_remedy": "",
        }
        try:
            self._shard(int(batch["number"][0]))
        except GiqaError as e:
            row |= {"error_code": e.code, "error_message": e.message}
            row |= {"error_item": e.item, "error_remedy": e.remedy}
        return {name: [value] for name, value in row.items()}

    def _shard(self, number: int) -> None:
        shard = self._folder.read_shard(self._plan, number)
        # Begun again after a worker died: what that one had written counts.
        if (self._folder.shards / shard.name).exists():
            return
        tries = self._folder.count_try(shard)
        if tries > _TRIES:
            raise WorkerFailedError(f"{_TRIES} workers died scoring it", item=shard.name)
        urls = self._runtime.urls or ("",)
        for attempt in range(len(urls)):
            url = urls[(number + attempt) % len(urls)]
            try:
                scorer = self._scorer(url)
                for one in score_in_process([shard], scorer, self._plan, self._folder):
                    self._folder.write_shard(shard, one.encode(self._kept))
                self._folder.forget_tries(shard)
                break
            except ServerUnavailableError:  # another server, if there is one
                if url in self._scorers:
                    self._scorers.pop(url).close()
                if attempt == len(urls) - 1:
                    raise

    def _scorer(self, url: str) -> Scorer:
        if url not in self._scorers:
            scorer = self._runtime.open(self._bundle, self._plan.scoring.limits, url or None)
            Identity.of(scorer, self._runtime).check(self._plan)
            self._scorers[url] = scorer
        return self._scorers[url]


class _Images:
    """A worker that scores batches of a data set."""

    def __init__(self, column: str, scoring: Scoring, runtime: Runtime, token: str | None) -> None:
        runtime = runtime.model_copy(update={"token": token})
        self._column, self._scoring = column, scoring
        self._scorer = runtime.open(load_bundle(runtime.bundle), scoring.limits)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score one batch."""
        import pyarrow as pa

        found = score_batches(
            batch.combine_chunks().to_batches(),
            column=self._column,
            scoring=self._scoring,
            scorer=self._scorer,
        )
        return pa.Table.from_batches(found, scored_schema(batch.schema, self._column))
