"""The error tree is what its drawing says, and survives process borders."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from giqa import errors
from giqa.errors import GiqaError, MissingExtraError, all_errors

CONCRETE = list(all_errors().values())


def _classes(cls: type[GiqaError]) -> list[type[GiqaError]]:
    return [cls, *(c for child in cls.__subclasses__() for c in _classes(child))]


def _drawn() -> list[tuple[int, str, str]]:
    """(depth, class, code) of each line of the module docstring's tree."""
    lines = re.findall(r"^    ([│├└─ ]*)(\w+Error)(?:[ ]+(\w+))?$", errors.__doc__ or "", re.M)
    return [(len(indent) // 4, name, code) for indent, name, code in lines]


def _actual(cls: type[GiqaError] = GiqaError, depth: int = 0) -> list[tuple[int, str, str]]:
    code = cls.code if "code" in vars(cls) and cls is not GiqaError else ""
    line = (depth, cls.__name__, "code" if cls is GiqaError else code)
    return [line, *(row for child in cls.__subclasses__() for row in _actual(child, depth + 1))]


def test_drawing_is_the_tree() -> None:
    assert _drawn() == _actual()


def test_all_errors_lists_every_class_with_a_code() -> None:
    with_code = [c for c in _classes(GiqaError) if c is not GiqaError and "code" in vars(c)]
    assert with_code == CONCRETE
    assert [c.code for c in CONCRETE] == list(all_errors())


def test_codes_are_unique_and_plain() -> None:
    codes = [c.code for c in _classes(GiqaError) if "code" in vars(c)]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_groups_are_not_raised_under_a_code_of_their_own() -> None:
    groups = [c for c in _classes(GiqaError) if c.__subclasses__()]
    assert {c.code for c in groups} == {GiqaError.code}


def test_every_class_is_public_in_its_module() -> None:
    assert {c.__module__ for c in _classes(GiqaError)} == {"giqa.errors"}


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda c: c.code)
class TestEach:
    def test_has_docstring_and_remedy(self, cls: type[GiqaError]) -> None:
        assert inspect.cleandoc(cls.__doc__ or "").endswith(".")
        assert cls("what").remedy

    def test_str_has_code_item_message_and_remedy(self, cls: type[GiqaError]) -> None:
        assert str(cls("is bad", item="a.jpg", remedy="fix it")) == (
            f"[{cls.code}] a.jpg: is bad (fix it)"
        )
        assert str(cls("is bad", remedy="")) == f"[{cls.code}] is bad"
        assert str(cls("is bad")) == f"[{cls.code}] is bad ({cls('x').remedy})"

    @pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
    def test_copies_keep_everything(self, cls: type[GiqaError], duplicate) -> None:
        error = cls("is bad", item="a.jpg", remedy="fix it")
        twin = duplicate(error)
        assert type(twin) is cls
        assert (twin.message, twin.item, twin.remedy) == ("is bad", "a.jpg", "fix it")
        assert str(twin) == str(error)
        assert twin.args == error.args

    def test_copies_keep_the_own_remedy(self, cls: type[GiqaError]) -> None:
        error = cls("is bad")
        assert pickle.loads(pickle.dumps(error)).remedy == error.remedy

    def test_is_caught_as_giqa_error(self, cls: type[GiqaError]) -> None:
        with pytest.raises(GiqaError, match="is bad"):
            raise cls("is bad")


def test_missing_extra_names_the_pip_line() -> None:
    error = MissingExtraError("DALI does not import", extra="cpu")
    assert error.remedy == "pip install 'giqa[cpu]'"
    assert pickle.loads(pickle.dumps(error)).remedy == error.remedy
