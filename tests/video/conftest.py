"""A scorer that costs nothing, for what is not about scores."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from giqa.bundle import load_bundle
from giqa.errors import GiqaError
from giqa.types import Views, ViewScore


class Brightness:
    """Scores views by how bright they are; fails where it is told to.

    Args:
        fail: is given the number of the request, from 0; returns what to raise.
    """

    engine = "brightness"

    def __init__(self, fail: Callable[[int], GiqaError | None] = lambda n: None) -> None:
        self.manifest = load_bundle().manifest
        self._fail = fail
        self.asked = 0

    def score(self, items: Any, **options: Any) -> Any:
        raise NotImplementedError

    def score_views(self, views: Iterable[Views]) -> Iterator[ViewScore]:
        """One by one, but read three ahead, as scorers do."""
        source, held = iter(views), list[Views]()
        while True:
            while len(held) < 3 and (one := next(source, None)) is not None:
                held.append(one)
            if not held:
                return
            number, self.asked = self.asked, self.asked + 1
            if (error := self._fail(number)) is not None:
                raise error
            one = held.pop(0)
            yield ViewScore(float(one.local_view.mean()) / 2.55, None)

    def close(self) -> None: ...

    def __enter__(self) -> "Brightness":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def brightness() -> Brightness:
    return Brightness()
