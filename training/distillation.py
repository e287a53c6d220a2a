"""Distillation: the student learns from a teacher's scores, maps and tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from giqa.contract import GLOBAL_TOKENS, GRID, LOCAL_TOKENS, QUALITY_MAP, SCORE, SCORE_MAX
from training import losses
from training.cache import read_parts
from training.recipe import Distillation, Optimisation
from training.sources import Rows
from training.teacher import Answers
from training.trainee import Outputs


class Distiller(nn.Module):
    """A teacher's targets and what compares them with the student.

    Tokens of different width meet through a linear map from the student's D to the teacher's,
    which learns along and is thrown away; the grid's tokens of the last global stages are compared,
    and the local ones.

    Args:
        options: the recipe's section.
        answers: the teacher's answers to each part of the training source, in its order.
        dim: the student's D.
    """

    def __init__(self, options: Distillation, answers: list[Answers], dim: int) -> None:
        super().__init__()
        self.options, self.label_weight = options, options.label_weight
        self._answers = answers
        self.project = nn.ModuleDict()
        if options.token_weight:
            names = answers[0].names
            for name in (GLOBAL_TOKENS, LOCAL_TOKENS):
                width = answers[0].arrays[names.index(name)].shape[-1]
                self.project[name] = nn.Linear(dim, width)

    def targets(self, rows: Rows, names: Sequence[str]) -> dict[str, Tensor]:
        """The teacher's answers to rows of the training source, by contract name."""

        def read(part: int, own: Rows) -> list[Tensor]:
            found = self._answers[part].batch(own, names)
            return [found[name] for name in names]

        lengths = [len(a.arrays[0]) for a in self._answers]
        return dict(zip(names, read_parts(rows, lengths, read), strict=True))

    def forward(
        self, outputs: Outputs, score: Tensor, local: Rows, whole: Rows, recipe: Optimisation
    ) -> Tensor:
        """The weighted sum of the distillation losses.

        Args:
            outputs: what the student made of this process's rows.
            score: its scores (B,) for the rows of all processes.
            local: this process's rows.
            whole: the rows of all processes.
            recipe: losses on scores.

        Returns:
            A scalar.
        """
        options, device = self.options, score.device
        theirs = self.targets(whole, [SCORE])[SCORE].to(device)
        loss = options.score_weight * losses.on_scores(score, theirs, recipe)
        if not options.map_weight and not options.token_weight:
            return loss
        found = self.targets(local, [n for n in self._answers[0].names if n != SCORE])
        targets = {name: value.to(device) for name, value in found.items()}
        if options.map_weight:
            assert outputs.quality is not None
            gap = F.smooth_l1_loss(
                outputs.quality / SCORE_MAX, targets[QUALITY_MAP] / SCORE_MAX, beta=0.1
            )
            loss = loss + options.map_weight * gap
        if options.token_weight:
            ours = {
                GLOBAL_TOKENS: outputs.global_tokens[:, -1, : GRID * GRID],
                LOCAL_TOKENS: outputs.local_tokens[:, : GRID * GRID],
            }
            for name, project in self.project.items():
                gap = losses.tokens(project(ours[name].float()), targets[name])
                loss = loss + options.token_weight * gap
        return loss
