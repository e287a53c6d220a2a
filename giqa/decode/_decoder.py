"""From items to views: read, probe, choose the way, decode; what fails carries its error."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from giqa import inputs
from giqa.contract import Profile
from giqa.decode._boxes import tile_boxes, view_boxes
from giqa.decode._dali import Preprocessor, has_dali
from giqa.decode._pillow import views_by_pillow
from giqa.decode._probe import Probe, listen, probe
from giqa.errors import GiqaError, OutOfMemoryError
from giqa.forks import Origin
from giqa.manifest import Manifest
from giqa.results import ImageResult
from giqa.types import BoxArray, Item, Limits, UInt8Array, Views, ViewScore

LARGE = 32_000_000
"""Pictures of more pixels are decoded alone, by a pipeline that is dropped afterwards, so that
memory does not stay at the size of the largest batch ever seen."""


@dataclass
class Decoded:
    """One item on its way to the graphs: views, or an error.

    Attributes:
        item: the item.
        probe: what its header says; None if that was not reached.
        boxes: (V, 4) int32, the views' regions x0, y0, x1, y1 in pixels.
        tiles: (T, 4) int32, the tiles' regions.
        views: the views; None on error.
        error: why there are none.
    """

    item: Item
    probe: Probe | None = None
    boxes: BoxArray | None = None
    tiles: BoxArray | None = None
    views: Views | None = None
    error: GiqaError | None = None

    def row(
        self, bundle: str, engine: str, profile: Profile, found: ViewScore | None, *, mapped: bool
    ) -> ImageResult:
        """What became of the item.

        Args:
            bundle: name and version of what scored.
            engine: runtime and precision.
            profile: how the views were taken.
            found: what was scored; None if there were no views.
            mapped: give the quality map, too.
        """
        width, height = self.probe.upright_size if self.probe else (None, None)
        return ImageResult(
            path=self.item.name,
            bundle=bundle,
            engine=engine,
            profile=profile,
            score=found.score if found else None,
            error=self.error,
            width=width,
            height=height,
            notes=self.probe.notes if self.probe else (),
            boxes=self.boxes if found else None,
            quality_map=found.quality_map if found and mapped else None,
        )


class Decoder:
    """Decodes batches of items; safe to call from several threads.

    Args:
        manifest: the bundle's, for sizes and profiles.
        limits: limits on what is decoded.
        batch: most images that DALI decodes at once.
        threads: CPU threads.
    """

    def __init__(
        self, manifest: Manifest, *, limits: Limits | None = None, batch: int = 8, threads: int = 1
    ) -> None:
        self._profiles, self._sizes = manifest.profiles, manifest.tensors
        self.limits = limits or Limits()
        self._threads = threads
        self._preprocess = self._preprocessor(batch)
        self._lock = threading.Lock()
        self._origin = Origin("the decoder", "was opened")

    def _preprocessor(self, batch: int) -> Preprocessor:
        sides = {"global_side": self._sizes.global_side, "local_side": self._sizes.local_side}
        return Preprocessor(**sides, batch=batch, threads=self._threads)

    def __call__(
        self, items: Sequence[Item], profile: Profile, limits: Limits | None = None
    ) -> list[Decoded]:
        """Decode items; a bad one costs only itself.

        Args:
            items: what to decode.
            profile: `fast` or `precise`.
            limits: others than the decoder's.

        Returns:
            One entry an item, in order.

        Raises:
            UsageError: another process opened it.
        """
        self._origin.check()
        decoded = [Decoded(item) for item in items]
        usual: list[tuple[Decoded, UInt8Array]] = []
        for one in decoded:
            try:
                if one.item.error is not None:
                    raise one.item.error
                bounds = inputs.limits_of(one.item, limits or self.limits)
                data = inputs.read(one.item, bounds)
                one.probe = found = listen(probe(data, bounds), data)
                size, side = found.upright_size, self._sizes.local_side
                one.boxes = view_boxes(*size, profile, side)
                one.tiles = tile_boxes(*size, self._profiles[profile], side)
                if found.route == "pillow":
                    one.views = self._by_pillow(one, data, profile)
                elif found.width * found.height > LARGE:
                    self._by_dali(self._preprocessor(1), [(one, data)], profile)
                else:
                    usual.append((one, data))
            except GiqaError as e:
                e.item = e.item or one.item.name
                one.error = e
            except MemoryError:
                one.error = OutOfMemoryError("decoding it takes too much", item=one.item.name)
        with self._lock:
            self._by_dali(self._preprocess, usual, profile)
        return decoded

    def _by_dali(
        self,
        preprocess: Preprocessor,
        entries: list[tuple[Decoded, UInt8Array]],
        profile: Profile,
    ) -> None:
        boxes: list[BoxArray] | None = None
        if profile != "fast":
            boxes = [one.boxes for one, _ in entries if one.boxes is not None]
        tiles = [one.tiles for one, _ in entries if one.tiles is not None]
        results: list[Views | GiqaError | None] = [None] * len(entries)
        if has_dali():
            results[:] = preprocess([data for _, data in entries], boxes, tiles)
        for (one, data), result in zip(entries, results, strict=True):
            if isinstance(result, Views):
                one.views = result
                continue
            assert one.probe is not None
            try:  # Pillow reads some odd files that DALI does not, and all where there is no DALI
                one.views = self._by_pillow(one, data, profile)
                one.probe = replace(one.probe, notes=(*one.probe.notes, "pillow_decoded"))
            except GiqaError as e:
                e.item = one.item.name
                one.error = e
            except MemoryError:
                one.error = OutOfMemoryError("decoding it takes too much", item=one.item.name)

    def _by_pillow(self, one: Decoded, data: UInt8Array, profile: Profile) -> Views:
        assert one.probe is not None
        return views_by_pillow(
            data,
            one.probe,
            None if profile == "fast" else one.boxes,
            one.tiles,
            global_side=self._sizes.global_side,
            local_side=self._sizes.local_side,
        )
