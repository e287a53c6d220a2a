"""The image-level term and the ViT's last blocks learn together, before the cells do.

On pooled features alone (`training.context`) the term can only weigh what a frozen ViT tells it.
Here it moves what the ViT tells, too; afterwards both stand still.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from training import checkpoint, files
from training.context import ContextOnly
from training.distributed import World
from training.loop import Loop, identity
from training.model import Giqa
from training.recipe import Recipe
from training.sources import CachedSource
from training.steps import assign
from training.trainee import Outputs, Trainee

FOLDER = "tuning"
"""Inside the run's folder: checkpoints, log and curves of this stage."""


class TermTrainee(Trainee):
    """Runs the ViT's blocks behind the cache and the image-level term alone.

    Args:
        model: the model; its modules are shared, not copied.
        depth: ViT blocks that the cached state has behind it.
        drop: share of the tokens, drawn anew for each batch, that training leaves out, but in its
            last epoch: pooled moments of the rest say nearly the same, and a step costs less.
    """

    def __init__(self, model: Giqa, depth: int, drop: float = 0.0) -> None:
        super().__init__(model, depth)
        self.term = ContextOnly(model)
        self.drop = drop

    def begin_epoch(self, *, last: bool) -> None:
        """Train on whole pictures at last."""
        if last:
            self.drop = 0.0

    def forward(self, state: list[Tensor], stages: list[Tensor]) -> Outputs:
        """As `Trainee`, without a map; instead of tokens, what the term pools."""
        assert self.depth is not None
        branch = self.model.global_branch
        if self.training and self.drop:
            state = _some(state, self.drop, branch.backbone.num_prefix_tokens)
        raw = branch.suffix(state, self.depth)
        with torch.autocast(raw.device.type, enabled=False):
            coarse = branch.pool(raw.float())
            fine = self.model.local_branch.pool([s.float() for s in stages])
            return Outputs(self.term(coarse, fine), None, coarse, fine)


def tune(
    trainee: Trainee, train: CachedSource, validation: CachedSource, recipe: Recipe, team: World
) -> Path | None:
    """Train the image-level term and the ViT's last blocks, go on with it, or read the outcome.

    Args:
        trainee: the model with its pretrained backbones; blocks and term are changed.
        train: cached training images.
        validation: cached validation images; the epoch with the highest SROCC is kept.
        recipe: its section `tuning`; the folder `tuning` in the run's gets checkpoints, a log and
            `tuned.safetensors`.
        team: the processes of the run.

    Returns:
        The file; None if the recipe does without.

    Raises:
        StorageFullError: no room for a checkpoint.
        ValueError: there is a checkpoint of another recipe.
    """
    if recipe.tuning is None:
        return None
    own, model = _recipe(recipe), trainee.model
    assert trainee.depth is not None
    learner = TermTrainee(model, trainee.depth, recipe.tuning.drop_tokens)
    wanted = {n: p.requires_grad for n, p in model.named_parameters()}
    _learn_only(model, learner.term, recipe.tuning.global_blocks)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    path, about = own.output / "tuned.safetensors", {"recipe": identity(own, train)}
    if (known := files.read_tensors(path, about)) is not None:
        assign(parameters, known)
    else:
        with files.storage(own.output):
            own.output.mkdir(parents=True, exist_ok=True)
        found = checkpoint.load(own.output, own.preset)
        Loop(learner, train, validation, own, team, found).run()
        if team.main:
            files.write_tensors(path, parameters, about)
        team.barrier()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(wanted[name])
    return path


def _recipe(recipe: Recipe) -> Recipe:
    """The stage as a run of its own."""
    tuning = recipe.tuning
    assert tuning is not None
    options = {
        "epochs": tuning.epochs,
        "batch": tuning.batch,
        "lr": tuning.lr,
        "backbone_lr": tuning.backbone_lr,
        "weight_decay": tuning.backbone_weight_decay,
        "context_joint_lr": tuning.lr,
        "context_joint_weight_decay": tuning.weight_decay,
        "warmup_steps": tuning.warmup_steps,
        "ema": tuning.ema,
        "context_epochs": 0,
    }
    changes = {
        "output": recipe.output / FOLDER,
        "optimisation": recipe.optimisation.model_copy(update=options),
        "distillation": None,
        "ranking": None,
    }
    return recipe.model_copy(update=changes)


def _learn_only(model: Giqa, term: nn.Module, blocks: int) -> None:
    model.requires_grad_(False)
    model.global_branch.backbone.blocks[blocks:].requires_grad_(True)
    term.requires_grad_(True)


def _some(state: list[Tensor], drop: float, prefix: int) -> list[Tensor]:
    """The prefix tokens and a random part of the others, the same of all pictures."""
    count = state[0].shape[1] - prefix
    kept = torch.randperm(count, device=state[0].device)[: max(1, round(count * (1 - drop)))]
    rows = torch.cat([torch.arange(prefix, device=kept.device), prefix + kept.sort().values])
    return [x[:, rows] for x in state]
