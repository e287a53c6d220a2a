"""Tables of labels in Excel workbooks (.xlsx), or exported from them as CSV.

A workbook is a zip archive of XML files. Only what a table of plain values needs is read: cells'
text and cached results, no formulas, formats or dates.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from giqa.errors import TableInvalidError
from training.data.checks import check_columns
from training.data.table import read_csv


def read_labels(table: Path, needed: Sequence[str], sheet: str = "") -> list[dict[str, object]]:
    """Read the columns of a workbook's sheet, or of its export.

    Args:
        table: an `.xlsx` file; or a `.csv` one (UTF-8, commas) with the header in its first line.
        needed: columns, whatever their case. Above a sheet's header, and left of it, there may be
            other things.
        sheet: taken if it has the columns; otherwise the first sheet that has them is.

    Returns:
        One record a row, with the needed columns as text; an empty cell is None. Rows in which
        all of them are empty are left out.

    Raises:
        FileNotFoundError: no such file.
        TableInvalidError: it is neither, or no sheet has the columns.
    """
    if table.suffix.lower() == ".csv":
        return _of_csv(table, needed)
    try:
        with table.open("rb") as file, zipfile.ZipFile(file) as archive:
            sheets = _sheets(archive)
            shared = _shared(archive)
            for name in sorted(sheets, key=lambda name: name.lower() != sheet.lower()):
                rows = list(_rows(archive, sheets[name], shared))
                if (found := _below_header(rows, needed)) is not None:
                    return found
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),  # the last: encrypted
        *(ElementTree.ParseError, LookupError, ValueError),
    ) as e:
        raise TableInvalidError(f"not an Excel workbook: {e}", item=str(table)) from e
    raise TableInvalidError(
        f"no sheet with the columns {list(needed)}; sheets are {list(sheets)}", item=str(table)
    )


def _of_csv(table: Path, needed: Sequence[str]) -> list[dict[str, object]]:
    records = [
        {column.strip().lower(): value for column, value in record.items()}
        for record in read_csv(table, ())
    ]
    if records:
        check_columns(table, list(records[0]), [name.lower() for name in needed])
    found: list[dict[str, object]] = [
        {name: record[name.lower()] or None for name in needed} for record in records
    ]
    return [record for record in found if any(record.values())]


def _below_header(
    rows: Sequence[dict[int, str]], needed: Sequence[str]
) -> list[dict[str, object]] | None:
    for i, row in enumerate(rows):
        columns = {text.strip().lower(): column for column, text in sorted(row.items())[::-1]}
        if all(name.lower() in columns for name in needed):
            places = {name: columns[name.lower()] for name in needed}
            records: list[dict[str, object]] = [
                {name: below.get(column) or None for name, column in places.items()}
                for below in rows[i + 1 :]
            ]
            return [record for record in records if any(record.values())]
    return None


def _sheets(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names of the sheets, in order, and of their files in the archive."""
    links = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    files = {link.attrib["Id"]: link.attrib["Target"] for link in links.findall("{*}Relationship")}
    found = {}
    for sheet in ElementTree.fromstring(archive.read("xl/workbook.xml")).findall(".//{*}sheet"):
        link = next((v for k, v in sheet.attrib.items() if k.endswith("}id")), "")
        target = files[link]
        found[sheet.attrib["name"]] = target[1:] if target.startswith("/") else f"xl/{target}"
    return found


def _shared(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    root = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
    return [_text(item) for item in root.findall("{*}si")]


def _text(item: ElementTree.Element) -> str:
    """A string's text: whole, or in runs of one format each; not its phonetic guide."""
    parts = [*item.findall("{*}t"), *item.findall("{*}r/{*}t")]
    return "".join(part.text or "" for part in parts)


def _rows(archive: zipfile.ZipFile, file: str, shared: Sequence[str]) -> Iterator[dict[int, str]]:
    """Filled cells of each row, by column."""
    if file not in archive.namelist():
        return  # a sheet of charts
    for row in ElementTree.fromstring(archive.read(file)).findall(".//{*}row"):
        cells: dict[int, str] = {}
        column = -1
        for cell in row.findall("{*}c"):
            reference = re.match("[A-Z]+", cell.get("r", ""))
            column = _number(reference[0]) if reference else column + 1
            if text := _value(cell, shared):
                cells[column] = text
        if cells:
            yield cells


def _value(cell: ElementTree.Element, shared: Sequence[str]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inline = cell.find("{*}is")
        return "" if inline is None else _text(inline)
    value = cell.findtext("{*}v") or ""
    if kind == "b":
        return "TRUE" if value == "1" else "FALSE"  # not a number
    return shared[int(value)] if kind == "s" and value else value


def _number(letters: str) -> int:
    """0 for A, 26 for AA."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
