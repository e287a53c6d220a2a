"""A machine without DALI: with this folder on PYTHONPATH no Python process finds it."""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class _Finder(PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname == "nvidia.dali":
            return None
        return super().find_spec(fullname, path, target)


sys.meta_path[:] = [_Finder if finder is PathFinder else finder for finder in sys.meta_path]
