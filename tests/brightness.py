"""A scorer that costs nothing, for what is not about scores."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from giqa import inputs
from giqa.bundle import load_bundle
from giqa.errors import CorruptError, GiqaError
from giqa.results import ImageResult
from giqa.types import Item, Limits, Views, ViewScore


class Brightness:
    """Scores pictures by how bright they are; fails where it is told to.

    Args:
        fail: is given the number of the request for views, from 0; returns what to raise.
    """

    engine = "brightness"

    def __init__(self, fail: Callable[[int], GiqaError | None] = lambda n: None) -> None:
        self.manifest = load_bundle().manifest
        self._fail = fail
        self.asked = 0
        self.seen: list[str] = []

    def score(self, items: Iterable[Item], **options: Any) -> Iterator[ImageResult]:
        for item in items:
            self.seen.append(item.name)
            about = (item.name, self.manifest.id, self.engine, "fast")
            try:
                if item.error is not None:
                    raise item.error
                data = inputs.read(item, Limits())
                with Image.open(io.BytesIO(data.tobytes())) as picture:
                    score = float(np.asarray(picture.convert("L")).mean()) / 2.55
                yield ImageResult(*about, score=score)
            except GiqaError as e:
                yield ImageResult(*about, error=e)
            except OSError:  # Pillow's words name an address, which is another one each time
                yield ImageResult(*about, error=CorruptError("no picture"))

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
            yield ViewScore(float(np.float32(one.local_view.mean() / 2.55)), None)

    def close(self) -> None: ...

    def __enter__(self) -> Brightness:
        return self

    def __exit__(self, *_: object) -> None: ...
