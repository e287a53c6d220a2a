"""Every runtime on this machine against one reference: how far tokens and scores differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from build.numerics import MOS_LOSS
from giqa.contract import (
    FUSION,
    GLOBAL_BRANCH,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    LOCAL_BRANCH,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    SCORE,
)
from giqa.precision import BOUNDS, Precision
from giqa.tensors import inputs_of
from giqa.types import Views

Array = npt.NDArray[Any]
Graphs = Callable[[str, Mapping[str, Array]], dict[str, Array]]
"""Runs a graph by name on its inputs, with the batch, and gives its outputs."""

WholeModel = Callable[[Sequence[Views]], Sequence[float]]
"""Scores views; for runtimes that show no tokens."""


@dataclass(frozen=True)
class Runtime:
    """One runtime in one precision.

    Attributes:
        name: such as `openvino-bf16`.
        precision: which gate it has to pass.
        graphs: runs single graphs; None if it only runs all of them.
        whole: scores views; None: the graphs one after another.
    """

    name: str
    precision: Precision
    graphs: Graphs | None = None
    whole: WholeModel | None = None


@dataclass(frozen=True)
class Difference:
    """How far one tensor is from the reference's.

    Attributes:
        largest: largest |difference|.
        mean: mean |difference|.
    """

    largest: float
    mean: float


@dataclass(frozen=True)
class Row:
    """One runtime's line in the table.

    Attributes:
        runtime: its name.
        precision: its precision.
        differences: by tensor: tokens of each branch, `SCORE` of the fusion graph on the
            reference's tokens.
        score: `SCORE` end to end.
        srocc: Spearman's correlation with the reference's scores; None if undefined.
        mos_loss: how much lower its SROCC with the opinion scores is than the reference's; None
            without them.
        passes: keeps its precision's gates; None if it has none.
    """

    runtime: str
    precision: Precision
    differences: dict[str, Difference]
    score: Difference
    srocc: float | None
    mos_loss: float | None
    passes: bool | None


@dataclass(frozen=True)
class Table:
    """The table, and what it was measured on.

    Attributes:
        bundle: name and version.
        images: how many.
        reference: the runtime that all are compared with.
        reference_srocc: its SROCC with the opinion scores; None without them.
        rows: a line a runtime.
        absent: runtimes that are not here, and why.
    """

    bundle: str
    images: int
    reference: str
    reference_srocc: float | None
    rows: list[Row]
    absent: dict[str, str]

    @property
    def passes(self) -> bool:
        """No runtime misses its gate."""
        return all(row.passes is not False for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"schema": "giqa.parity/1", **asdict(self)}

    def to_markdown(self) -> str:
        """As Markdown: |differences| as largest / mean."""
        tensors = list(dict.fromkeys(t for row in self.rows for t in row.differences))
        alone = [f"{t}, fusion alone" if t == SCORE else t for t in tensors]
        head = ["runtime", *alone, "SCORE", "SROCC", "lost against MOS", "gate"]
        reached = "" if self.reference_srocc is None else f" (SROCC {self.reference_srocc:.4f})"
        lines = [
            f"{self.bundle}, {self.images} images, against {self.reference}{reached}",
            "",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
        ]
        for row in self.rows:
            cells = [_cell(row.differences.get(t)) for t in tensors]
            cells.append(_cell(row.score))
            cells.append("" if row.srocc is None else f"{row.srocc:.5f}")
            cells.append("" if row.mos_loss is None else f"{row.mos_loss:+.4f}")
            cells.append("" if row.passes is None else ("passed" if row.passes else "FAILED"))
            lines.append(f"| {' | '.join([row.runtime, *cells])} |")
        lines += ["", *(f"- {name} is not here: {why}" for name, why in self.absent.items())]
        return "\n".join(lines) + "\n"


def _cell(found: Difference | None) -> str:
    return "" if found is None else f"{found.largest:.3g} / {found.mean:.2g}"


def compare(
    bundle: str,
    views: Sequence[Views],
    reference: Runtime,
    runtimes: Iterable[Runtime],
    *,
    mos: Sequence[float] | None = None,
    batch: int = 8,
    absent: Mapping[str, str] | None = None,
    watch: Callable[[str], object] = lambda name: None,
) -> Table:
    """Compare runtimes with a reference.

    Args:
        bundle: name and version, for the record.
        views: images, with any numbers of views.
        reference: what is right.
        runtimes: what is compared; each is let go before the next one is asked for.
        mos: opinion scores, an image each.
        batch: images at once.
        absent: runtimes that are not here, and why.
        watch: told each runtime's name before its turn.

    Returns:
        The table.

    Raises:
        GiqaError: a runtime failed.
    """
    watch(reference.name)
    expected = _tensors(reference, views, batch, None)
    rows = []
    reference_srocc = None if mos is None else srocc(expected[SCORE], mos)
    for runtime in runtimes:
        watch(runtime.name)
        found = _tensors(runtime, views, batch, expected)
        score = found.pop(_END_TO_END)
        agreement = srocc(score, expected[SCORE])
        own = None if mos is None else srocc(score, mos)
        loss = None if own is None or reference_srocc is None else reference_srocc - own
        rows.append(
            Row(
                runtime=runtime.name,
                precision=runtime.precision,
                differences={name: _difference(x, expected[name]) for name, x in found.items()},
                score=_difference(score, expected[SCORE]),
                srocc=agreement,
                mos_loss=loss,
                passes=_passes(runtime.precision, agreement, loss),
            )
        )
    return Table(bundle, len(views), reference.name, reference_srocc, rows, dict(absent or {}))


_END_TO_END = "end to end"


def _tensors(
    runtime: Runtime,
    views: Sequence[Views],
    batch: int,
    expected: Mapping[str, Sequence[Array]] | None,
) -> dict[str, list[Array]]:
    """Tokens and scores, an array an image; with a reference's also the score of its tokens.

    Images with tiles and without have other shapes, and go through the graphs apart.
    """
    found: dict[str, list[Array]] = {}
    for part in _parts(views, batch):
        if runtime.graphs is not None:
            values: dict[str, Array] = {
                GLOBAL_VIEW: np.stack([views[i].global_view for i in part]),
                LOCAL_VIEW: np.stack([views[i].local_view for i in part]),
            }
            made: dict[str, Array] = {}
            for graph in (GLOBAL_BRANCH, LOCAL_BRANCH):
                made |= _run(runtime.graphs, graph, values)
            end = _run(runtime.graphs, FUSION, made)[SCORE]
            if expected is not None:
                tokens = {
                    name: np.stack([expected[name][i] for i in part])
                    for name in (GLOBAL_TOKENS, LOCAL_TOKENS)
                }
                made[SCORE] = _run(runtime.graphs, FUSION, tokens)[SCORE]
                made[_END_TO_END] = end
            else:
                made[SCORE] = end
        else:
            assert runtime.whole is not None
            scores = runtime.whole([views[i] for i in part])
            made = {_END_TO_END: np.asarray(scores, np.float32)[:, None]}
        for name, value in made.items():
            images = found.setdefault(name, [np.empty(0)] * len(views))
            for i, one in zip(part, value, strict=True):
                images[i] = one
    return found


def _parts(views: Sequence[Views], batch: int) -> Iterator[list[int]]:
    """Images that go together: at most `batch`, all with the same numbers of views."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, one in enumerate(views):
        groups.setdefault(one.counts, []).append(i)
    for members in groups.values():
        for start in range(0, len(members), batch):
            yield members[start : start + batch]


def _run(graphs: Graphs, name: str, values: Mapping[str, Array]) -> dict[str, Array]:
    outputs = graphs(name, {tensor: values[tensor] for tensor in inputs_of(name)})
    # Runtimes use their memory again.
    return {tensor: np.array(value, np.float32) for tensor, value in outputs.items()}


def _difference(found: Sequence[Array], expected: Sequence[Array]) -> Difference:
    pairs = zip(found, expected, strict=True)
    gap = np.concatenate([np.abs(a.astype(np.float64) - b).ravel() for a, b in pairs])
    return Difference(float(gap.max()), float(gap.mean()))


def srocc(a: npt.ArrayLike, b: npt.ArrayLike) -> float | None:
    """Spearman's correlation; None if undefined."""
    from scipy.stats import rankdata

    ranks = [rankdata(np.asarray(x, np.float64).ravel()) for x in (a, b)]
    if any(np.ptp(r) == 0 for r in ranks) or len(ranks[0]) < 2:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _passes(precision: Precision, agreement: float | None, loss: float | None) -> bool | None:
    gate = BOUNDS[precision].srocc
    if gate is None:
        return None
    if agreement is None or math.isnan(agreement):
        return False
    return agreement >= gate and (loss is None or loss <= MOS_LOSS)
