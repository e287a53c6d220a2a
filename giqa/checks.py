"""What arguments are held against where they enter: whatever makes no sense is a `UsageError`."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from giqa.contract import PROFILES
from giqa.errors import UsageError


def one_of(name: str, value: object, known: Collection[Any]) -> None:
    """Refuse a value that is none of those known."""
    if not any(type(value) is type(one) and value == one for one in known):
        names = ", ".join(map(str, known))
        raise UsageError(f"{value!r} is none of {names}", item=name, remedy="")


def whole(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """Refuse what is no whole number of a range.

    Returns:
        The number as an `int`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if isinstance(value, bool) or number is None or not least <= number <= (most or number):
        limit = f"from {least} on" if most is None else f"of {least} .. {most}"
        raise UsageError(f"{value!r} is no whole number {limit}", item=name, remedy="")
    return number


def number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: bool = False,
) -> float:
    """Refuse what is no finite number of a range.

    Args:
        name: what it is called.
        value: what was given.
        least: the smallest, itself refused with `above`.
        most: the largest.
        above: only more than `least` will do.

    Returns:
        The number as a `float`.
    """
    try:
        found = float(value) if not isinstance(value, bool | str | bytes) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not (math.isfinite(found) and least <= found <= most and not (above and found == least)):
        low = "" if least == -math.inf else f" {'over' if above else 'from'} {least:g}"
        high = "" if most == math.inf else f" to {most:g}"
        raise UsageError(f"{value!r} is no finite number{low}{high}", item=name, remedy="")
    return found


def wanted(profile: object, quality_map: object) -> None:
    """Refuse a way of scoring that there is not."""
    one_of("profile", profile, PROFILES)
    instance("quality_map", quality_map, bool)


def path(name: str, value: object) -> Path:
    """Refuse what names no file or folder.

    Returns:
        The path.
    """
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str):
        raise UsageError(f"{type(value).__name__} instead of a path", item=name, remedy="")
    if not found or "\0" in found:
        raise UsageError(f"{found!r} names no file", item=name, remedy="")
    return Path(found)


def scorer(value: object) -> None:
    """Refuse what scores nothing."""
    if isinstance(value, type) or not (hasattr(value, "score") and hasattr(value, "manifest")):
        raise UsageError("is no scorer", item=repr(value), remedy="open one: LocalScorer()")


def instance(name: str, value: object, *types: type) -> None:
    """Refuse what is of none of these types."""
    if not isinstance(value, types):
        names = " or ".join(t.__name__ for t in types)
        raise UsageError(f"{type(value).__name__} instead of {names}", item=name, remedy="")
