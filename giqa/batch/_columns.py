"""Columns of tables: what types hold inputs, and what their cells hold."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds paths."""
    import pyarrow as pa

    kind = _plain(kind)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds files: bytes, or structs `{bytes, path}` of them."""
    import pyarrow as pa

    kind = _plain(kind)
    if pa.types.is_struct(kind):
        names = {field.name: field.type for field in kind}
        return "bytes" in names and is_bytes(names["bytes"])
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def is_struct(kind: pa.DataType) -> bool:
    """Whether cells have parts."""
    import pyarrow as pa

    return bool(pa.types.is_struct(_plain(kind)))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of what is stored: as a dictionary, in runs, or as an extension."""
    import pyarrow as pa

    while True:
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def element(kind: pa.DataType) -> pa.DataType:
    """The type of a list's elements, or the type itself."""
    import pyarrow as pa

    kind = _plain(kind)
    tests = (
        *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
        *(pa.types.is_list_view, pa.types.is_large_list_view),
    )
    return _plain(kind.value_type) if any(test(kind) for test in tests) else kind


def is_list(kind: pa.DataType) -> bool:
    """Whether a cell of a column may hold several inputs."""
    return bool(element(kind) != _plain(kind))


def values(cells: pa.Array) -> list[Any]:
    """Cells as Python has them; names that are not UTF-8 as the file system has them."""
    import pyarrow as pa

    try:
        found: list[Any] = cells.to_pylist()
        return found
    except UnicodeDecodeError:
        pass
    if pa.types.is_dictionary(cells.type):
        return values(cells.dictionary_decode())
    if pa.types.is_struct(cells.type):
        parts = {field.name: values(cells.field(field.name)) for field in cells.type}
        valid = cells.is_valid().to_pylist()
        return [
            {name: part[i] for name, part in parts.items()} if there else None
            for i, there in enumerate(valid)
        ]
    if is_list(cells.type):
        return [None if one.values is None else values(one.values) for one in cells]
    raw = cells.cast(pa.large_binary()).to_pylist()
    return [None if one is None else os.fsdecode(one) for one in raw]


def path_in(value: Any) -> str | None:
    """The path in a cell."""
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) else None


def suffix(path: str | None) -> str:
    """A path's suffix, lower case; empty if there is none."""
    return os.path.splitext(path or "")[1].lower()
