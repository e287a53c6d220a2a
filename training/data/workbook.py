"""Tables of labels in Excel workbooks (.xlsx), or exported from them as CSV."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from giqa.errors import TableInvalidError
from training.data.checks import check_columns
from training.data.table import read_csv

Rows = Iterable[Sequence[object]]


def read_labels(table: Path, needed: Sequence[str], sheet: str = "") -> list[dict[str, object]]:
    """Read the columns of a workbook's sheet, or of its export.

    Args:
        table: an `.xlsx` file; or a `.csv` one (UTF-8, commas) with the header in its first line.
        needed: columns, whatever their case. Above a sheet's header, and left of it, there may be
            other things.
        sheet: taken if it has the columns; otherwise the first sheet that has them is.

    Returns:
        One record a row, with the needed columns; an empty cell is None. Rows in which all of
        them are empty are left out.

    Raises:
        FileNotFoundError: no such file.
        TableInvalidError: it is neither, or no sheet has the columns.
    """
    if table.suffix.lower() == ".csv":
        records = read_csv(table, ())
        header = list(records[0]) if records else []
        rows: Rows = [header, *(list(record.values()) for record in records)]
        found = _below_header(rows, needed)
        if found is None:
            check_columns(table, [name.strip().lower() for name in header], needed)
        return found or []
    try:
        sheets = _sheets(table)
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),  # the last: encrypted
        *(LookupError, ValueError, TypeError, SyntaxError),  # the last: XML that does not parse
    ) as e:
        raise TableInvalidError(f"not an Excel workbook: {e}", item=str(table)) from e
    for name in sorted(sheets, key=lambda name: name.lower() != sheet.lower()):
        if (found := _below_header(sheets[name], needed)) is not None:
            return found
    raise TableInvalidError(
        f"no sheet with the columns {list(needed)}; sheets are {list(sheets)}", item=str(table)
    )


def _sheets(table: Path) -> dict[str, Rows]:
    """Cells of all sheets, as computed, by name and in order."""
    from openpyxl import load_workbook

    # From an open file: a name without .xlsx would be refused, and this closes it in any case.
    with table.open("rb") as file:
        book = load_workbook(file, read_only=True, data_only=True)
        return {one.title: list(one.iter_rows(values_only=True)) for one in book.worksheets}


def _below_header(rows: Rows, needed: Sequence[str]) -> list[dict[str, object]] | None:
    rows = iter(rows)
    for row in rows:
        header = [str(cell or "").strip().lower() for cell in row]
        if all(name.lower() in header for name in needed):
            places = {name: header.index(name.lower()) for name in needed}
            records = [
                {name: below[i] if i < len(below) else None for name, i in places.items()}
                for below in rows
            ]
            filled = [{n: None if v == "" else v for n, v in one.items()} for one in records]
            return [one for one in filled if any(v is not None for v in one.values())]
    return None
