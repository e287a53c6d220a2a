"""Would TensorRT take a bundle's graphs? Compiled by TensorRT-RTX, which needs no GPU to build.

TensorRT itself wants a GPU. This is another builder, so it shows that graphs parse and compile, no
more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from build.graphs import engine_graph
from build.parser import Refusal, Settings, compile_graph, targets_of
from build.profiles import bundle_profiles
from giqa.bundle import Bundle
from giqa.contract import GRAPHS
from giqa.errors import MissingExtraError, UsageError
from giqa.precision import Precision
from giqa.serving import BATCH

NOT_PROVEN: Final = (
    "This proves that the graphs parse and compile for the profile. It does not prove that "
    "TensorRT 10 or 11, another builder, takes them (nor for compute capabilities that "
    "TensorRT-RTX does not build for, such as 9.0 and 10.0), that an engine's scores are right, "
    "or how fast it is: that takes the GPU."
)


@dataclass(frozen=True)
class Compiled:
    """One graph's outcome.

    Attributes:
        bundle: name and version.
        graph: `global_branch`, `local_branch` or `fusion`.
        precision: what it computes in.
        seconds: how long it took.
        bytes: size of the plan; 0 if there is none.
        refusal: why there is none.
    """

    bundle: str
    graph: str
    precision: Precision
    seconds: float
    bytes: int
    refusal: Refusal | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def check(
    bundle: Bundle,
    precisions: Sequence[Precision],
    targets: Sequence[str],
    *,
    max_batch: int = BATCH["gpu"],
    level: int | None = None,
) -> Iterator[Compiled]:
    """Compile a bundle's graphs ahead of time.

    Args:
        bundle: a verified bundle.
        precisions: what they compute in; each makes three graphs.
        targets: compute capabilities, such as `8.9`.
        max_batch: largest batch of the profiles.
        level: the builder's optimisation level; its default unless given.

    Yields:
        An outcome a graph, as soon as it is there.

    Raises:
        MissingExtraError: TensorRT-RTX is not installed.
        UsageError: it does not build for a target.
        EngineMismatchError: int8, and the bundle has no int8.
    """
    runtime = _tensorrt_rtx()
    known = targets_of(runtime)
    if unknown := sorted(set(targets) - set(known)):
        raise UsageError(
            f"TensorRT-RTX {runtime.__version__} does not build for it",
            item=f"--target {unknown[0]}",
            remedy=f"there are {', '.join(known)}",
        )
    settings = Settings(targets=tuple(targets), level=level)
    for precision in precisions:
        for name in GRAPHS:
            model = engine_graph(bundle, name, precision)
            inputs = bundle_profiles(bundle, name, precision, max_batch=max_batch)
            started = time.perf_counter()
            found = compile_graph(runtime, model, inputs, settings)
            refused = isinstance(found, Refusal)
            yield Compiled(
                bundle=bundle.manifest.id,
                graph=name,
                precision=precision,
                seconds=round(time.perf_counter() - started, 2),
                bytes=0 if refused else len(found),  # type: ignore[arg-type]
                refusal=found if refused else None,  # type: ignore[arg-type]
            )


def _tensorrt_rtx() -> Any:
    try:
        import tensorrt_rtx
    except Exception as e:  # a wheel without its libraries: ImportError, OSError
        raise MissingExtraError(f"TensorRT-RTX does not import: {e}", extra="check") from e
    return tensorrt_rtx
