"""One arm with one seed: two stages of training, and what the term says then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training import losses
from training.context import ContextOnly, Pooled, Targets, learn, read
from training.recipe import Optimisation
from training.sources import Rows
from training.transfer.study.config import Arm, Study

_CPU = torch.device("cpu")
_ROWS = 256
_STREAM = 13  # of the random numbers, apart from those of other draws


class Labelled:
    """Rows with scores, as `training.context.Targets`.

    Args:
        mos: of each image (n,) on 0..100.
        variants: rows an image.
    """

    def __init__(self, mos: Sequence[float] | npt.NDArray[np.float32], variants: int = 1) -> None:
        self._mos, self._variants = torch.tensor(np.asarray(mos, np.float32)), variants

    def __len__(self) -> int:
        return len(self._mos)

    def plan(self, rng: np.random.Generator) -> Rows:
        """Every image once, in one of its variants."""
        order = rng.permutation(len(self))
        return order * self._variants + rng.integers(self._variants, size=len(order))

    def mos(self, rows: Rows) -> Tensor:
        """Opinion scores (B,) on 0..100."""
        return self._mos[rows // self._variants]


@dataclass(frozen=True)
class Part:
    """Features with their scores."""

    features: Pooled
    targets: Labelled


def train(
    part: ContextOnly,
    arm: Arm,
    study: Study,
    options: Optimisation,
    biq: Part,
    transferred: Part | None,
) -> Iterator[None]:
    """Train the term as an arm does.

    Stage 1 is on transferred labels or, without them, on BIQ2021; stage 2 on BIQ2021 in all arms.
    Joint arms see BIQ2021 in both, and in every step some pictures with transferred labels, whose
    order alone counts: their scale is another.

    Args:
        part: the term with fresh weights, changed.
        arm: which.
        study: steps, and the joint loss.
        options: of learning, with the seed.
        biq: BIQ2021's training images.
        transferred: pictures with transferred labels, or a placebo's; None in arm `none`.

    Yields:
        After each stage.
    """
    joint = arm.endswith("-joint")
    first = biq if transferred is None or joint else transferred
    extra = None
    if joint:
        assert transferred is not None
        extra = partial(_joined, part, study, transferred, options.seed)
    for data, steps in ((first, study.first_steps), (biq, study.second_steps)):
        targets: Targets = data.targets
        learn(part, data.features, targets, options, steps, _CPU, extra)
        yield


def _joined(part: ContextOnly, study: Study, data: Part, seed: int, step: int) -> Tensor:
    rng = np.random.default_rng([seed, step, _STREAM])
    rows = rng.choice(len(data.targets), study.joint_images, replace=False)
    score = part(*read(data.features, rows, _CPU))
    return study.joint_weight * losses.correlation(score, data.targets.mos(rows))


@torch.inference_mode()
def predict(part: ContextOnly, features: Pooled) -> npt.NDArray[np.float64]:
    """Scores (n,) on 0..100 of all rows."""
    part.eval()
    count = len(features[0])
    rows = (np.arange(i, min(i + _ROWS, count)) for i in range(0, count, _ROWS))
    found = [part(*read(features, some, _CPU)).double().numpy() for some in rows]
    return np.concatenate(found)
