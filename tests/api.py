"""The public API as text: what `giqa` and each of its packages offer, with signatures.

`python -m tests.api` writes it to `tests/api.txt`, which a test compares: a change of it is seen,
and meant.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

import giqa

FILE = Path(__file__).with_name("api.txt")


def packages() -> list[str]:
    """`giqa` and its packages."""
    found = [m.name for m in pkgutil.iter_modules(giqa.__path__) if m.ispkg]
    return ["giqa", *(f"giqa.{name}" for name in sorted(found))]


def api() -> str:
    """All of it, a paragraph a package."""
    return "\n".join(_package(name) for name in packages())


def _package(name: str) -> str:
    package = importlib.import_module(name)
    lines = [name]
    for entry in package.__all__:
        found = getattr(package, entry)
        if inspect.isclass(found):
            lines.append(f"  class {entry}{_bases(found)}")
            # What several packages offer is written out in one of them.
            if name != "giqa" or found.__module__.count(".") == 1:
                lines += [f"    {line}" for line in _class(found)]
        elif inspect.isfunction(found):
            lines.append(f"  {entry}{_signature(found)}")
        else:
            lines.append(f"  {entry}")
    return "\n".join(lines) + "\n"


def _bases(cls: type) -> str:
    own = [base.__name__ for base in cls.__bases__ if base is not object]
    return f"({', '.join(own)})" if own else ""


def _private(cls: type) -> bool:
    """A base of ours that no package offers: what it has counts as its children's."""
    ours = cls.__module__.startswith("giqa.")
    return ours and not any(
        getattr(importlib.import_module(name), cls.__name__, None) is cls for name in packages()
    )


def _members(cls: type) -> dict[str, Any]:
    bases = (base for base in reversed(cls.__mro__[1:]) if _private(base))
    return {k: v for one in (*bases, cls) for k, v in vars(one).items()}


def _class(cls: type) -> Iterator[str]:
    """Fields, then construction and methods, as they stand in the class."""
    defaults = _defaults(cls)
    for field, kind in vars(cls).get("__annotations__", {}).items():
        if not field.startswith("_"):
            kind = getattr(kind, "__forward_arg__", kind)
            yield f"{field}: {kind}{defaults.get(field, '')}"
    members = _members(cls)
    made = members.get("__init__")
    if not defaults and not getattr(cls, "_is_protocol", False) and inspect.isfunction(made):
        yield f"__init__{_signature(made)}"
    for name, found in sorted(members.items()):
        if name.startswith("_"):
            continue
        if isinstance(found, staticmethod | classmethod):
            yield f"{name}{_signature(found.__func__)}"
        elif inspect.isfunction(found):
            yield f"{name}{_signature(found)}"
        elif isinstance(found, property | cached_property):
            getter = found.fget if isinstance(found, property) else found.func
            yield f"{name} -> {inspect.get_annotations(getter).get('return')}"


def _defaults(cls: Any) -> dict[str, str]:
    """What follows a field of a dataclass or of a pydantic model, where it may be left out."""
    if dataclasses.is_dataclass(cls):
        absent = dataclasses.MISSING
        return {
            f.name: "" if f.default is f.default_factory is absent else _default(f.default, absent)
            for f in dataclasses.fields(cls)
        }
    fields: dict[str, Any] = getattr(cls, "model_fields", {})
    return {
        name: "" if f.is_required() else _default(f.default, PydanticUndefined)
        for name, f in fields.items()
    }


def _default(value: object, absent: object) -> str:
    return " = ..." if value is absent else f" = {value!r}"


class _Text(str):
    """An annotation as it stands in the source."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(found: Any) -> str:
    """As it stands in the source; what a default is at runtime has no address."""
    made = inspect.signature(found)
    empty = inspect.Parameter.empty
    parameters = [
        p if p.annotation is empty else p.replace(annotation=_Text(p.annotation))
        for p in made.parameters.values()
    ]
    returned = empty if made.return_annotation is empty else _Text(made.return_annotation)
    text = str(made.replace(parameters=parameters, return_annotation=returned))
    return re.sub(r"<function (\S+) at 0x[0-9a-f]+>", r"<\1>", text)


if __name__ == "__main__":
    FILE.write_text(api(), encoding="utf-8")
    print(FILE)
