"""Calibration: raw output to 0..100, so that scores stand where observers' means stand.

The raw output is a logit a cell; `gain * logit + offset` goes through the sigmoid (see
`model.fusion.MapHead`). Both numbers are fitted on validation images by least squares between score
and MOS, so that the ACR bands (bad, poor, fair, good, excellent: fifths of the scale) hold for
scores as they do for MOS. A regression loss alone leaves averaged weights a little off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from giqa.contract import SCORE_MAX
from training.model.fusion import MapHead
from training.sources import Source
from training.steps import batches, on
from training.trainee import Trainee


@dataclass(frozen=True)
class Calibration:
    """What was fitted.

    Attributes:
        gain: factor on each cell's logit.
        offset: added to it.
        n: validation images.
        rmse_before: of 100, with gain 1 and offset 0.
        rmse_after: of 100, with the fitted ones.
    """

    gain: float
    offset: float
    n: int
    rmse_before: float
    rmse_after: float


def fit_calibration(
    logits: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], mos: npt.NDArray[np.float64]
) -> Calibration:
    """Fit gain and offset by least squares.

    Args:
        logits: raw outputs (n, N).
        weights: weights of the cells (n, N); rows sum to 1.
        mos: opinion scores (n,) on 0..100.

    Returns:
        The calibration; the gain is positive.
    """
    from scipy.optimize import least_squares
    from scipy.special import expit

    def residuals(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        score = SCORE_MAX * (weights * expit(np.exp(x[0]) * logits + x[1])).sum(1)
        return np.asarray(score - mos)

    start = np.zeros(2)
    found = least_squares(residuals, start)

    def rmse(x: npt.NDArray[np.float64]) -> float:
        return float(np.sqrt(np.mean(residuals(x) ** 2)))

    gain, offset = float(np.exp(found.x[0])), float(found.x[1])
    return Calibration(gain, offset, len(mos), rmse(start), rmse(found.x))


@torch.inference_mode()
def calibrate(trainee: Trainee, source: Source, device: torch.device) -> Calibration | None:
    """Fit a model's calibration on a source and put it in place.

    Args:
        trainee: the model with its final weights; run in float32.
        source: validation images.
        device: where it runs.

    Returns:
        What was fitted; None if the model's head has no logits to calibrate.
    """
    head = trainee.model.fusion.head
    if not isinstance(head, MapHead):
        return None
    trainee.eval()
    logits: list[npt.NDArray[np.float64]] = []
    weights: list[npt.NDArray[np.float64]] = []
    for start, end in batches(source):
        cells = head.cells(*trainee.cells(*on(device, source.whole(start, end))))
        # The score is the mean over views: their cells side by side, with weights shared out.
        logit, weight = (x.unflatten(0, (end - start, -1)) for x in cells)
        weight = weight / weight.shape[1]
        logits += list(logit.flatten(1).double().cpu().numpy())
        weights += list(weight.flatten(1).double().cpu().numpy())
    widest = max(x.size for x in logits)  # pictures with fewer views get cells of no weight
    filled = [np.stack([np.pad(x, (0, widest - x.size)) for x in xs]) for xs in (logits, weights)]
    found = fit_calibration(filled[0], filled[1], source.all_mos.astype(np.float64))
    head.calibration.copy_(torch.tensor([found.gain, found.offset]))
    return found
