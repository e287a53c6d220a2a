"""DALI's pipelines on a GPU: pixels against the CPU's, errors, memory, speed.

Third part of `make gpu`: DALI and PyTorch are all it needs. The pipelines are those of a GPU's
model repository, run from Python instead of by Triton's DALI backend.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import images
from benchmarks.gpus import device_of, name_of, one
from benchmarks.options import Options
from benchmarks.record import Series
from benchmarks.rounds import interleave
from giqa.bundle import Bundle, load_bundle
from giqa.contract import PREPROCESS, PREPROCESS_ISOLATED
from giqa.decode import LARGE, define_pipeline
from giqa.serving import RepositoryOptions, decoder_hints, road_of

_BATCHES = (8, 32, 64)
_SECONDS = 0.5
"""Least time of one measurement."""

Array = np.ndarray[Any, Any]


def run(options: Options) -> Iterator[Series]:
    """Measure on this machine's first GPU.

    Raises:
        EngineMismatchError: there is no usable GPU.
    """
    yield from measure(options, device_of("gpu_decoding"))


def measure(options: Options, device: torch.device) -> Iterator[Series]:
    """Measure on a device; on a CPU, for tests, with itself.

    Yields:
        Of each kind of file, how far pixels are from the CPU's; how far a picture's pixels depend
        on its batch; what an error says and how long the pipeline takes to be built again; memory
        after large pictures; images a second.
    """
    bundle = load_bundle(options.bundle)
    facts: dict[str, Any] = {"device": name_of(device)}
    count = 4 if options.quick else 32
    photographs = images.mixed(options, count)
    kinds = {"JPEG": photographs, **_kinds(photographs[0])}
    on = partial(_Pipeline, bundle, device=device, batch=count)
    here, there = _Pipeline(bundle, device=torch.device("cpu"), batch=count), on()
    for kind, files in kinds.items():
        pairs = zip(here(files), there(files), strict=True)
        apart = [np.abs(a.astype(int) - b) for a, b in pairs]
        largest = max(int(one.max()) for one in apart)
        yield one(f"{kind}/largest difference", largest, "levels", facts)
        mean = float(np.mean([one.mean() for one in apart]))
        yield one(f"{kind}/mean difference", mean, "levels", facts)
    alone = [there([data])[0] for data in photographs]
    together = zip(alone, there(photographs), there(photographs[::-1])[::-1], strict=True)
    moved = sum(int((a != b).sum() + (a != c).sum()) for a, b, c in together)
    yield one("neighbours/pixels moved", moved, "", facts)
    yield from _errors(on, photographs, facts)
    if device.type == "cuda":
        yield from _memory(bundle, device, options, facts)
    timed: dict[str, Callable[[], float]] = {}
    for batch in (count,) if options.quick else _BATCHES:
        files = [photographs[i % count] for i in range(batch)]
        pipeline = _Pipeline(bundle, device=device, batch=batch)
        timed[f"batch {batch}"] = partial(_rate, pipeline, files)
    for name, rates in interleave(timed, rounds=options.rounds, seed=options.seed).items():
        yield Series(
            name=f"{name}/throughput", unit="images/s", better="higher",
            values=tuple(rates), facts=facts,
        )  # fmt: skip


class _Pipeline:
    """The main road's pipeline: files to local views, (V + T, l, l, 3) uint8 each."""

    def __init__(
        self, bundle: Bundle, *, device: torch.device, batch: int, model: str = PREPROCESS
    ) -> None:
        sizes, fast = bundle.manifest.tensors, bundle.manifest.profiles["fast"]
        tiles = {"tiles": fast.tiles, "tile_pixels": fast.tile_pixels} if fast.tiles else {}
        road = road_of(model, RepositoryOptions(device="gpu", max_batch=batch))
        cuda = device.type == "cuda"
        self._make = partial(
            define_pipeline,
            regions="frame",
            **tiles,
            global_side=sizes.global_side,
            local_side=sizes.local_side,
            batch=batch,
            threads=road.threads,
            device="gpu" if cuda else "cpu",
            hints=decoder_hints(road) if cuda else None,
            device_id=0 if cuda else None,
        )
        self.build()

    def build(self) -> None:
        """Make it anew, as the backend does after an error."""
        self._pipeline = self._make()
        self._pipeline.build()

    def __call__(self, files: Sequence[bytes]) -> list[Array]:
        self._pipeline.feed_input("IMAGE", [np.frombuffer(data, np.uint8) for data in files])
        _, local = self._pipeline.run()
        local = local.as_cpu() if hasattr(local, "as_cpu") else local
        return [np.array(local.at(i)) for i in range(len(files))]


def _kinds(photograph: bytes) -> dict[str, list[bytes]]:
    """Files that decoders read otherwise, made of one photograph."""
    picture = Image.open(io.BytesIO(photograph)).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6

    def saved(mode: str = "RGB", kind: str = "JPEG", **how: Any) -> bytes:
        file = io.BytesIO()
        picture.convert(mode).save(file, kind, **how)
        return file.getvalue()

    return {
        "CMYK": [saved("CMYK")],
        "grey": [saved("L")],
        "EXIF turned": [saved(exif=turned)],
        "progressive": [saved(progressive=True)],
        "4:4:4": [saved(subsampling=0)],
        "PNG": [saved(kind="PNG")],
    }


def _errors(
    make: Callable[[], _Pipeline], photographs: Sequence[bytes], facts: dict[str, Any]
) -> Iterator[Series]:
    """A damaged file: what is said, and what building again costs; a truncated one may pass."""
    half = photographs[0][: len(photographs[0]) // 2]
    # The header says a size, and what should follow is something else.
    broken = photographs[0][:700] + bytes(2000)
    for kind, data in (("truncated", half), ("broken", broken)):
        pipeline, said = make(), ""
        try:
            pipeline([data])
        except RuntimeError as e:
            said = str(e).strip()
        started = time.perf_counter()
        pipeline.build()
        seconds = time.perf_counter() - started
        about = {**facts, "says": said[-300:], "refused": bool(said)}
        yield one(f"{kind}/built again", 1e3 * seconds, "ms", about)


def _memory(
    bundle: Bundle, device: torch.device, options: Options, facts: dict[str, Any]
) -> Iterator[Series]:
    """What the GPU's memory has lost to pictures of the largest sizes, next to what is counted."""
    sides = {PREPROCESS: LARGE, PREPROCESS_ISOLATED: LARGE if options.quick else 200_000_000}
    for model, pixels in sides.items():
        file, side = io.BytesIO(), int(pixels**0.5)
        Image.new("RGB", (side, side), "teal").save(file, "JPEG")
        batch = 1 if model == PREPROCESS_ISOLATED else 8
        free, _ = torch.cuda.mem_get_info(device)
        pipeline = _Pipeline(bundle, device=device, batch=batch, model=model)
        pipeline([file.getvalue()] * batch)
        taken = free - torch.cuda.mem_get_info(device)[0]
        road = road_of(model, RepositoryOptions(device="gpu", max_batch=batch))
        about = {**facts, "counted": road.bytes / 2**20, "pixels": pixels, "batch": batch}
        yield one(f"{model}/memory", taken / 2**20, "MiB", about)


def _rate(pipeline: _Pipeline, files: Sequence[bytes]) -> float:
    """Images a second, views taken to the host."""
    pipeline(files)
    calls, start, passed = 0, time.perf_counter(), 0.0
    while passed < _SECONDS:
        pipeline(files)
        calls += 1
        passed = time.perf_counter() - start
    return calls * len(files) / passed
