"""The model that a board measures: a bundle in process, or a run's weights in PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from giqa.bundle import load_bundle
from giqa.errors import GiqaError, UsageError
from giqa.local import LocalScorer
from giqa.precision import Asked
from giqa.scorer import Scorer
from training.board import parts as parts_of
from training.board.parts import CELLS, TERM, WHOLE, WithCells
from training.evaluation.torch_scorer import TorchScorer, load_model
from training.fit import final_weights, preset_of


@dataclass(frozen=True)
class Model:
    """What is measured.

    Attributes:
        scorer: giqa's own; its map holds the score's parts where there are any.
        id: name and version.
        digest: SHA-256 of the bundle's manifest or the weights' file.
        preset: as data.
        how: how the parts were found; empty where there are none.
        absent: parts that there are not, and why.
    """

    scorer: Scorer
    id: str
    digest: str
    preset: dict[str, Any]
    how: str
    absent: dict[str, str]

    @property
    def rows(self) -> list[str]:
        """What every picture gets."""
        return [name for name in (WHOLE, TERM, CELLS) if name not in self.absent]

    def score(self, paths: Iterable[Path]) -> Iterator[list[float]]:
        """Score pictures lazily, in order.

        Yields:
            A number a row, on 0..100.

        Raises:
            GiqaError: a picture cannot be scored; it is named.
        """
        parts = len(self.rows) - 1
        for result in self.scorer.score(paths, quality_map=parts > 0):
            if result.error is not None:
                raise _of_picture(result.error, result.path)
            assert result.score is not None
            values = [result.score]
            if parts and result.quality_map is not None:
                values += result.quality_map.ravel().tolist()
            yield values


def _of_picture(error: GiqaError, path: str) -> GiqaError:
    return type(error)(error.message, item=path, remedy=error.remedy)


@contextmanager
def of_bundle(
    spec: str | None, precision: Asked, *, threads: int, batch: int, whole: bool = False
) -> Iterator[Model]:
    """Open a bundle.

    Args:
        spec: folder or name; None is the default.
        precision: of `LocalScorer`.
        threads: CPU threads.
        batch: pictures at once.
        whole: leave term and cells out.

    Raises:
        BundleInvalidError: not valid, or term and cells are not found in it.
    """
    bundle = load_bundle(spec)
    gone = _asked(whole) or parts_of.absent(bundle.manifest.preset)
    with ExitStack() as stack:
        scored, how = bundle, ""
        if CELLS not in gone:
            scored, found = stack.enter_context(parts_of.bundle_with_parts(bundle))
            how, gone = found.how, _others(found.names, gone)
        scorer = LocalScorer(scored, precision=precision, threads=threads, batch=batch)
        stack.enter_context(scorer)
        preset = dict(bundle.manifest.preset)
        yield Model(scorer, bundle.manifest.id, bundle.digest, preset, how, gone)


@contextmanager
def of_run(run: Path, *, threads: int, batch: int, whole: bool = False) -> Iterator[Model]:
    """Open a finished run's weights.

    Args:
        run: the run's folder, or its final weights.
        threads: CPU threads.
        batch: pictures at once.
        whole: leave term and cells out.

    Raises:
        UsageError: the run is not finished, or its file does not say of what preset it is.
        BundleInvalidError: the weights do not fit the preset.
    """
    try:
        path = run if run.is_file() else final_weights(run)
    except FileNotFoundError as e:
        raise UsageError(str(e), item=f"--run {run}", remedy="") from e
    name = preset_of(path)
    if not name:
        raise UsageError(
            "the file does not say which preset it is of", item=str(path), remedy="give a run's"
        )
    torch.set_num_threads(threads)
    model = load_model(path, name)
    preset = asdict(model.preset)
    gone = _asked(whole) or parts_of.absent(preset)
    measured, how = model, ""
    if CELLS not in gone:
        measured, how = WithCells(model), parts_of.HOW_CELLS  # type: ignore[assignment]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with TorchScorer(measured, threads=threads, batch=batch) as scorer:
        title = f"{name} of {path.parent.name}"
        yield Model(scorer, title, digest, preset, how, gone)


def _asked(whole: bool) -> dict[str, str]:
    return dict.fromkeys((TERM, CELLS), "not asked for (--whole)") if whole else {}


def _others(found: Sequence[str], gone: dict[str, str]) -> dict[str, str]:
    """Parts that the graph has not."""
    known = {part: gone.get(part, "not in the fusion graph") for part in (TERM, CELLS)}
    return {part: why for part, why in known.items() if part not in found}
