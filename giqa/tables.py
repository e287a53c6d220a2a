"""Results as tables of other libraries, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from giqa import checks
from giqa.extras import importing
from giqa.results import ImageResult, arrow_schema, utf8

if TYPE_CHECKING:
    import pyarrow as pa


def to_arrow(results: Iterable[ImageResult]) -> pa.Table:
    """Gather results in an Arrow table, a row each, with the columns of Parquet files.

    Args:
        results: one, or an iterable of them, such as `giqa.score` gives.

    Raises:
        UsageError: they are no results.

    Example:
        >>> from giqa import score, to_arrow
        >>> to_arrow(score(["a.jpg", "b.png"]))["score"]  # doctest: +SKIP
    """
    import pyarrow as pa

    checks.instance("results", results, Iterable)
    rows = []
    for result in results:
        checks.instance("results", result, ImageResult)
        row = result.to_flat()
        rows.append(row | {"path": utf8(row["path"]).decode()})
    return pa.Table.from_pylist(rows, arrow_schema())


def to_pandas(results: Iterable[ImageResult]) -> Any:
    """Gather results in a pandas `DataFrame`, see `to_arrow`.

    Raises:
        MissingExtraError: pandas is not installed.
        UsageError: they are no results.
    """
    with importing("pandas"):
        import pandas  # noqa: F401
    return to_arrow(results).to_pandas()
