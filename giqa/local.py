"""Scoring in process on the CPU, decoding while it infers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from giqa import checks, forks
from giqa.bundle import Bundle, load_bundle
from giqa.closing import Closing
from giqa.contract import Profile
from giqa.decode import Decoded, Decoder, has_dali
from giqa.errors import BundleInvalidError, UsageError
from giqa.forks import Origin
from giqa.manifest import Manifest
from giqa.openvino import CompiledGraphs, choose_precision, cpu_count, import_openvino
from giqa.precision import CPU_ASKED, OTHER_PIXELS, Asked
from giqa.results import ImageResult
from giqa.sources import items as items_of
from giqa.tensors import check_views
from giqa.types import Item, Limits, Source, Views, ViewScore

_T = TypeVar("_T")


class LocalScorer(Closing):
    """Scores images in process: DALI decodes and resizes, OpenVINO infers, both at once.

    Safe to use from several threads. Memory is bounded by three batches, whatever the input's
    length. Where it is unpickled, it opens anew when first used. In a forked child it says that it
    cannot be used: OpenVINO and DALI do not survive a fork.

    Args:
        bundle: a folder, the name of a packaged bundle, a loaded `Bundle`, or None for the default.
        precision: `auto` (int8 where the bundle has it and the CPU is fast at it, else bf16 where
            the CPU has it, else f32), `f32`, `bf16` or `int8`.
        threads: CPU threads; all that the process may use unless given.
        batch: images decoded and inferred at once.
        limits: limits on what is decoded.
        self_test: score the bundle's known image first and refuse a wrong answer.

    Raises:
        BundleInvalidError: the bundle is not valid or fails its self-test.
        EngineMismatchError: the precision is not to be had here.
        MissingExtraError: DALI or OpenVINO is not installed.
        OutOfMemoryError: the process may not have as much memory as the graphs need.
        UsageError: an argument makes no sense, or this process was forked from one that scored.

    Example:
        >>> from giqa import LocalScorer
        >>> with LocalScorer() as scorer:  # doctest: +SKIP
        ...     for result in scorer.score(["photo.jpg"]):
        ...         print(result.path, result.score, result.error)
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        *,
        precision: Asked = "auto",
        threads: int | None = None,
        batch: int = 8,
        limits: Limits | None = None,
        self_test: bool = True,
    ) -> None:
        checks.one_of("precision", precision, CPU_ASKED)
        if limits is not None:
            checks.instance("limits", limits, Limits)
        checks.whole("batch", batch)
        checks.whole("threads", 1 if threads is None else threads, 1, 1024)
        self._describe(bundle, precision, threads or cpu_count(), batch, limits, self_test)
        self._open()

    def _describe(
        self,
        bundle: str | Path | Bundle | None,
        precision: Asked,
        threads: int,
        batch: int,
        limits: Limits | None,
        self_test: bool,
    ) -> None:
        self._where, self._asked, self._threads, self._batch = bundle, precision, threads, batch
        self._limits, self._tested = limits or Limits(), self_test
        self._closed, self._opened, self._opening = False, False, threading.Lock()

    def _open(self) -> None:
        for runtime in (forks.OPENVINO, forks.DALI):
            forks.use_runtime(runtime)
        self._origin = Origin(type(self).__name__, "was opened")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="giqa-decode")
        try:
            # What opening waits for goes on beside: a short run consists of it.
            self._pool.submit(import_openvino)
            where = self._where
            self._bundle = where if isinstance(where, Bundle) else load_bundle(where)
            self._precision = choose_precision(self._bundle, self._asked)
            self._engine = f"openvino-{self._precision}"
            self._decoder = Decoder(self._bundle.manifest, batch=self._batch, threads=self._threads)
            known = Item.of(self._bundle.self_test_image)
            self._graphs = CompiledGraphs(
                self._bundle,
                self._precision,
                self._threads,
                meanwhile=partial(self._decoder, [known], "fast"),
            )
            if self._tested:
                self._test()
        except BaseException:
            self._pool.shutdown(cancel_futures=True)
            raise
        self._opened = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Where it is unpickled, it opens with the same arguments when it is used.

        Not before: what fails while a worker unpickles its task ends or hangs the pool.
        """
        where = str(self._bundle.folder.resolve()) if self._opened else self._where
        options = (self._asked, self._threads, self._batch, self._limits, self._tested)
        return _unopened, (where, *options)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle that scores."""
        return self._known().manifest

    @property
    def engine(self) -> str:
        """Runtime and precision, such as `openvino-bf16`."""
        self._known()
        return self._engine

    def self_test(self) -> float:
        """Score the bundle's known image.

        Returns:
            The difference from the manifest's score.

        Raises:
            BundleInvalidError: it is larger than the manifest's tolerance for this precision.
        """
        self._ready()
        return self._test()

    def _test(self) -> float:
        known = self._bundle.manifest.self_test
        # The caller's limits are for the caller's images.
        item = Item.of(self._bundle.self_test_image)
        (result,) = self._infer(self._decoder([item], "fast", Limits()), "fast", False)
        if result.error is not None:
            raise BundleInvalidError(
                f"self-test: {result.error}", item=str(self._bundle.folder)
            ) from result.error
        assert result.score is not None
        difference = result.score - known.score
        tolerance = known.tolerance.get(self._precision, min(known.tolerance.values()))
        if not has_dali():
            tolerance += OTHER_PIXELS
        if not abs(difference) <= tolerance:  # NaN fails, too
            raise BundleInvalidError(
                f"self-test: {result.score:.3f} instead of {known.score:.3f} "
                f"(tolerance {tolerance} for {self._precision})",
                item=str(self._bundle.folder),
            )
        return difference

    def score(
        self,
        items: Source | Iterable[Source],
        *,
        profile: Profile = "fast",
        quality_map: bool = False,
    ) -> Iterator[ImageResult]:
        """Score images lazily, in order, one result each; bad items become error results.

        Args:
            items: one or many of what `giqa.score` takes; pulled as the work proceeds.
            profile: `fast` or `precise`.
            quality_map: fill in `ImageResult.quality_map` where the model has a map.

        Returns:
            One result an item.

        Raises:
            UsageError: there is no such profile, the scorer is closed, or a forked child has it.
        """
        checks.wanted(profile, quality_map)
        self._ready()
        return self._score(items_of(items, self._limits), profile, quality_map)

    def _score(
        self, items: Iterator[Item], profile: Profile, quality_map: bool
    ) -> Iterator[ImageResult]:
        for prepared in self._ahead(_chunks(items, self._batch), profile):
            yield from self._infer(prepared, profile, quality_map)

    def score_views(self, views: Iterable[Views]) -> Iterator[ViewScore]:
        """Score ready-made views lazily, in order.

        Args:
            views: all with the manifest's sizes.

        Returns:
            One score each.

        Raises:
            ShapeMismatchError: views have another dtype or shape than the manifest's.
            UsageError: the scorer is closed.
        """
        self._ready()
        return self._score_views(views)

    def _score_views(self, views: Iterable[Views]) -> Iterator[ViewScore]:
        origin = self._origin
        for chunk in _chunks(views, self._batch):
            origin.check()
            for one in chunk:
                check_views(one, self.manifest)
            yield from self._run(chunk)

    def close(self) -> None:
        """Stop the decoding thread; the scorer cannot be used afterwards."""
        self._closed = True
        if self._opened and self._origin.is_here:  # a forked child has no such thread to wait for
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _ready(self) -> None:
        if self._closed:
            raise self._is_closed()
        self._known()
        self._origin.check()

    def _known(self) -> Bundle:
        """What scores; opened now if it was unpickled."""
        if not self._opened:
            with self._opening:
                if self._closed:
                    raise self._is_closed()
                if not self._opened:
                    self._open()
        return self._bundle

    def _is_closed(self) -> UsageError:
        return UsageError("is closed", item=type(self).__name__, remedy="open another")

    def _ahead(self, chunks: Iterator[list[Item]], profile: Profile) -> Iterator[list[Decoded]]:
        """Prepare one chunk ahead of the one that is inferred."""
        pending: deque[Future[list[Decoded]]] = deque()
        origin = self._origin
        try:
            while True:
                origin.check()
                while len(pending) < 2 and (chunk := next(chunks, None)) is not None:
                    pending.append(self._submit(chunk, profile))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            if origin.is_here:  # otherwise a thread that is not here may hold its lock
                for future in pending:
                    future.cancel()

    def _submit(self, chunk: list[Item], profile: Profile) -> Future[list[Decoded]]:
        try:
            return self._pool.submit(self._decoder, chunk, profile, self._limits)
        except RuntimeError as e:  # the pool's way to say that it was shut down
            raise self._is_closed() from e

    def _infer(
        self, prepared: list[Decoded], profile: Profile, quality_map: bool
    ) -> Iterator[ImageResult]:
        scores = iter(self._run([one.views for one in prepared if one.views is not None]))
        for one in prepared:
            found = next(scores) if one.views is not None else None
            yield one.row(
                self._bundle.manifest.id, self._engine, profile, found, mapped=quality_map
            )

    def _run(self, views: list[Views]) -> list[ViewScore]:
        """Infer views of any V, with tiles or without: those with the same numbers go together."""
        results: dict[int, ViewScore] = {}
        groups: dict[tuple[int, int], list[int]] = {}
        for i, one in enumerate(views):
            groups.setdefault(one.counts, []).append(i)
        for (_, count), members in groups.items():
            step = max(1, self._batch // count)
            for start in range(0, len(members), step):
                part = members[start : start + step]
                scores, maps = self._graphs(
                    np.stack([views[i].global_view for i in part]),
                    np.stack([views[i].local_view for i in part]),
                )
                for j, i in enumerate(part):
                    results[i] = ViewScore(float(scores[j]), None if maps is None else maps[j])
        return [results[i] for i in range(len(views))]


def _unopened(*description: Any) -> LocalScorer:
    scorer = LocalScorer.__new__(LocalScorer)
    scorer._describe(*description)
    return scorer


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
