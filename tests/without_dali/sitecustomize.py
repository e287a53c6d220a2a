"""A machine without DALI: with this folder on PYTHONPATH no Python process finds it."""

from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

_find = PathFinder.find_spec


def _find_others(_: type, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    return None if fullname == "nvidia.dali" else _find(fullname, path, target)


# In place: whoever puts a finder of its own before this one asks this one in the end.
PathFinder.find_spec = classmethod(_find_others)  # type: ignore[assignment]
