"""What adds scores to record batches: for Spark, Ray Data, Daft or anything with Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from giqa.batch._columns import is_bytes, is_text, values
from giqa.batch._plan import Runtime, Scoring
from giqa.batch._rows import text
from giqa.bundle import load_bundle
from giqa.errors import EmptyError, UsageError
from giqa.results import arrow_schema
from giqa.scorer import Scorer
from giqa.types import Item

if TYPE_CHECKING:
    import pyarrow as pa


def scored_schema(schema: pa.Schema, column: str = "path") -> pa.Schema:
    """The schema of what `score_batches` gives.

    Args:
        schema: that of its batches.
        column: holds paths, encoded images or structs `{bytes, path}` of them.

    Returns:
        The columns of image rows, then the batches' other ones; `kept_` stands before names that
        are taken. Images themselves are left out.

    Raises:
        UsageError: there is no such column, or it holds something else.
    """
    found = arrow_schema()
    for name in _kept(schema, column):
        own = f"kept_{name}" if name in found.names else name
        found = found.append(schema.field(name).with_name(own).remove_metadata())
    return found


def score_batches(
    batches: Iterable[pa.RecordBatch],
    *,
    column: str = "path",
    scoring: Scoring | None = None,
    runtime: Runtime | None = None,
    scorer: Scorer | None = None,
) -> Iterator[pa.RecordBatch]:
    """Score the images of record batches; every row comes back, with its other columns.

    A scorer is opened once a process, and kept.

    Args:
        batches: with the column; pulled as the work proceeds.
        column: holds paths, encoded images or structs `{bytes, path}` of them.
        scoring: what decides the scores.
        runtime: with what; `threads` is 1 unless given, as workers share a machine.
        scorer: score with this one instead of opening one.

    Yields:
        A batch each, with `scored_schema`.

    Raises:
        UsageError: there is no such column, or it holds something else.

    Example:
        >>> from functools import partial
        >>> from giqa.batch import score_batches
        >>> add = partial(score_batches, column="path")
        >>> scored = frame.mapInArrow(add, schema)  # doctest: +SKIP
    """
    import pyarrow as pa

    scoring, runtime = scoring or Scoring(), (runtime or Runtime()).rooted()
    for batch in batches:
        schema = scored_schema(batch.schema, column)
        if scorer is None:
            own = runtime.model_copy(update={"threads": runtime.threads or 1})
            used = _scorer(own.model_dump_json(), own.token, scoring.model_dump_json())
        else:
            used = scorer
        items = [_item(value, column) for value in values(batch.column(column))]
        rows = [result.to_flat() for result in used.score(items, profile=scoring.profile)]
        for row in rows:
            row["path"], row["error_message"] = text(row["path"]), text(row["error_message"])
        names = arrow_schema().names
        columns: list[Any] = [
            pa.array([row[name] for row in rows], schema.field(name).type) for name in names
        ]
        columns += [batch.column(name) for name in _kept(batch.schema, column)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _kept(schema: pa.Schema, column: str) -> list[str]:
    if (count := schema.names.count(column)) != 1:
        there = ", ".join(schema.names)
        what = f"there are {count} columns {column}" if count else f"there is no column {column}"
        raise UsageError(what, item="column", remedy=f"one of: {there}")
    kind = schema.field(column).type
    if not is_text(kind) and not is_bytes(kind):
        raise UsageError(f"column {column} is {kind}: neither paths nor bytes", item="column")
    own = column == "path" or is_bytes(kind)
    return [name for name in schema.names if name != column or not own]


def _item(value: Any, column: str) -> Item:
    name = ""
    if isinstance(value, dict):
        name = value.get("path") or ""
        value = value.get("bytes") or value.get("path")
    if not value:
        return Item(f"<{column}>", error=EmptyError(f"column {column} is null there"))
    return Item.of(value if isinstance(value, str) else bytes(value), name)


@lru_cache(maxsize=1)
def _scorer(runtime: str, token: str | None, scoring: str) -> Scorer:
    found = Runtime.model_validate_json(runtime).model_copy(update={"token": token})
    limits = Scoring.model_validate_json(scoring).limits
    return found.open(load_bundle(found.bundle), limits)
