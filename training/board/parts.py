"""What a score consists of: an image-level term alone, and the cells alone.

Two heads are known. The first mixes the cells' logits with a term's (bundles up to 0.3.0): either
is brought to the score's scale by itself. The second lets cells know of the picture as a whole: its
cells alone are told nothing of it, as at times in training. From 0.5.0 on it adds a linear term to
the cells' logits; either alone keeps the share that it has in the sum, so points move less than the
whole score's. All is found by how the fusion graph computes, not by names, which belong to the
exporter.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.func import functional_call

from giqa.bundle import Bundle, write_bundle
from giqa.contract import FUSION, GLOBAL_TOKENS, QUALITY_MAP, SCORE, SCORE_MAX
from giqa.errors import BundleInvalidError
from training.model import Giqa, Preset
from training.model.fusion import MapHead

WHOLE, TERM, CELLS = "whole score", "image-level term alone", "cells alone"
_OURS = "board."  # begins the names of what is added to a graph


@dataclass(frozen=True)
class Added:
    """Parts of a score, as tensors that a graph is given.

    Attributes:
        names: which parts, in order.
        tensors: of their scores on 0..100, (B, 1).
        nodes: what computes them.
        how: in words, how they were found.
    """

    names: Sequence[str]
    tensors: Sequence[str]
    nodes: Sequence[NodeProto]
    how: str


def absent(preset: Mapping[str, Any]) -> dict[str, str]:
    """Which parts a model has not, and why.

    Args:
        preset: the preset as data, as it stands in a manifest.
    """
    if preset.get("head") != "map":
        return dict.fromkeys((TERM, CELLS), "the head has no cells and no term")
    if preset.get("context") or preset.get("linear_term"):
        return {}
    none = {TERM: "the model has no term beside its cells"}
    if preset.get("context_tokens"):
        return none
    return {**none, CELLS: "cells know nothing of the whole picture: they are the whole score"}


class Graph:
    """A fusion graph, to be searched.

    Args:
        graph: of fusion.onnx.
        where: the file, for errors.
    """

    def __init__(self, graph: onnx.GraphProto, where: str) -> None:
        self.nodes: Sequence[NodeProto] = graph.node
        self._where = where
        self._makers = {name: node for node in graph.node for name in node.output}
        self._constants = {t.name: t for t in graph.initializer}

    def parts(self) -> Added:
        """The parts, and what computes them.

        Raises:
            BundleInvalidError: the graph is built otherwise.
        """
        mixed = [n for n in self.nodes if n.op_type == "Sub" and self._weighted(n.input[1])]
        told = [n for n in self.nodes if n.op_type == "Add" and self._told(n) is not None]
        if len(mixed) == 1 and not told:
            return self._mixture(mixed[0])
        if len(told) == 1 and not mixed:
            return self._untold(told[0])
        raise self._unlike(
            f"{len(mixed)} subtractions of a weighted mean, {len(told)} additions of what cells "
            "are told, not one of either"
        )

    def _maker(self, name: str, kind: str) -> NodeProto | None:
        node = self._makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def _users(self, name: str) -> list[NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def _weighted(self, name: str) -> bool:
        """A sum that is weighted by a softmax."""
        total = self._maker(name, "ReduceSum")
        product = total and self._maker(total.input[0], "Mul")
        return product is not None and any(self._maker(i, "Softmax") for i in product.input)

    def _told(self, node: NodeProto) -> str | None:
        """Of an addition before the cells' GELU of what all of them are told: the other operand."""
        given = [i for i in node.input if self._maker(i, "Unsqueeze")]
        users = self._users(node.output[0])
        if len(given) != 1 or len(users) != 1 or users[0].op_type != "Gelu":
            return None
        return next(i for i in node.input if i != given[0])

    def _mixture(self, node: NodeProto) -> Added:
        """The term's logit less the cells' mean one is what moves every cell."""
        moved = self._after(self._after(node.output[0], "Mul").output[0], "Add")
        gain = self._after(moved.output[0], "Mul")
        offset = self._after(gain.output[0], "Add")
        self._after(offset.output[0], "Sigmoid")
        nodes, tensors = [], []
        for i, logit in enumerate(node.input):
            names = [f"{_OURS}{what}.{i}" for what in ("gained", "moved", "share", "views", "part")]
            nodes += [
                helper.make_node("Mul", [logit, self._constant(gain)], [names[0]]),
                helper.make_node("Add", [names[0], self._constant(offset)], [names[1]]),
                helper.make_node("Sigmoid", [names[1]], [names[2]]),
                helper.make_node("Reshape", [names[2], f"{_OURS}lead"], [names[3]]),
                helper.make_node("ReduceMean", [names[3], f"{_OURS}one"], [f"{_OURS}mean.{i}"]),
                helper.make_node("Mul", [f"{_OURS}mean.{i}", f"{_OURS}most"], [names[4]]),
            ]
            tensors.append(names[4])
        term, cells = node.input
        how = (
            f"logits {term!r} (term) and {cells!r} (cells) of the fusion graph, the operands of "
            f"its {node.name!r}, through the score's calibration"
        )
        return Added((TERM, CELLS), tensors, nodes, how)

    def _untold(self, node: NodeProto) -> Added:
        """All that follows, once more, from what is not told, and from the linear term alone."""
        alone = self._told(node)
        assert alone is not None
        termed = [n for n in self.nodes if n.op_type == "Add" and self._term(n) is not None]
        if len(termed) > 1:
            raise self._unlike(f"{len(termed)} additions of a bounded term")
        names = {node.output[0]: alone}
        how = f"the fusion graph without what its {node.name!r} tells all cells of the picture"
        if not termed:
            nodes = self._again(names, "cells")
            return Added((CELLS,), (self._score(names),), nodes, how)
        (sum_,) = termed
        term = self._term(sum_)
        assert term is not None
        # The cells' logits are that operand of the sum that is not the term.
        own = next(i for i in sum_.input if i != term)
        nothing = helper.make_node("Mul", [own, f"{_OURS}none"], [f"{_OURS}nothing"])
        only = helper.make_node("Add", [f"{_OURS}nothing", term], [f"{_OURS}only"])
        by_term = {sum_.output[0]: f"{_OURS}only"}
        nodes = [nothing, only, *self._again(by_term, "term")]
        cells = self._again(names, "cells", {sum_.output[0]: own})
        how = (
            f"of the fusion graph's {sum_.name!r} either operand alone, with the share of the "
            f"logit that it has; the cells', too, without what {node.name!r} tells all of them"
        )
        return Added((TERM, CELLS), (self._score(by_term), self._score(names)), nodes + cells, how)

    def _term(self, node: NodeProto) -> str | None:
        """Of an addition of a bounded number to all cells' logits: that operand."""
        for name in node.input:
            given = self._maker(name, "Unsqueeze")
            if given is not None and self._maker(given.input[0], "Clip"):
                return name
        return None

    def _score(self, names: dict[str, str]) -> str:
        if SCORE not in names:
            raise self._unlike("the score does not follow from the cells")
        return names[SCORE]

    def _again(
        self, names: dict[str, str], what: str, other: Mapping[str, str] | None = None
    ) -> list[NodeProto]:
        """Copies of all nodes that follow from tensors that are replaced.

        Args:
            names: tensors and what replaces them; that of the copies' outputs is added.
            what: part of the copies' names.
            other: outputs of nodes that are left out, and what stands for them.
        """
        nodes = []
        for later in self.nodes:
            if later.output[0] in names or not any(i in names for i in later.input):
                continue
            if other and later.output[0] in other:
                own = other[later.output[0]]
                names[later.output[0]] = names.get(own, own)
                continue
            copy = NodeProto()
            copy.CopyFrom(later)
            copy.name = f"{_OURS}{what}.{later.name}"
            copy.input[:] = [names.get(i, i) for i in later.input]
            names |= {name: f"{_OURS}{what}.{name}" for name in later.output}
            copy.output[:] = [names[name] for name in later.output]
            nodes.append(copy)
        return nodes

    def _after(self, name: str, kind: str) -> NodeProto:
        users = self._users(name)
        if len(users) != 1 or users[0].op_type != kind:
            raise self._unlike(f"{name} is not followed by {kind} alone")
        return users[0]

    def _constant(self, node: NodeProto) -> str:
        names = [i for i in node.input if i in self._constants]
        if len(names) != 1:
            raise self._unlike(f"{node.name} has no constant")
        return names[0]

    def _unlike(self, what: str) -> BundleInvalidError:
        return BundleInvalidError(
            f"term and cells are not found in the fusion graph: {what}",
            item=self._where,
            remedy="measure the run's weights instead (--run), or the whole score (--whole)",
        )


@contextmanager
def bundle_with_parts(bundle: Bundle) -> Iterator[tuple[Bundle, Added]]:
    """A copy of a bundle whose map holds, instead of cells, the score's parts.

    So giqa's own scorer gives them beside the score, in any precision.

    Args:
        bundle: with a map, and not all parts absent.

    Yields:
        The copy, which is deleted afterwards; its QUALITY_MAP is (B, 1, 1, parts), on 0..100.

    Raises:
        BundleInvalidError: the fusion graph is built otherwise.
    """
    path = bundle.graph(FUSION)
    model = onnx.load(path)
    added = Graph(model.graph, str(path)).parts()
    _replace_map(model.graph, added)
    folder = Path(tempfile.mkdtemp(prefix="giqa-board-"))
    try:
        graph = folder / path.name
        onnx.save(model, graph)
        files = {name: bundle.folder / name for name in bundle.manifest.files}
        fields = bundle.manifest.model_dump(mode="json", by_alias=True, exclude={"files"})
        yield write_bundle(folder / "bundle", fields, files | {path.name: graph}), added
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace_map(graph: onnx.GraphProto, added: Added) -> None:
    for node in graph.node:
        node.output[:] = [f"{_OURS}map" if o == QUALITY_MAP else o for o in node.output]
    constants: dict[str, np.ndarray] = {
        "one": np.array([1], np.int64),
        "ends": np.array([2, 3], np.int64),
        "most": np.array(SCORE_MAX, np.float32),
        "none": np.array(0, np.float32),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, f"{_OURS}{name}") for name, value in constants.items()
    )
    spread = [f"{_OURS}spread.{i}" for i in range(len(added.tensors))]
    nodes = [
        helper.make_node("Shape", [GLOBAL_TOKENS], [f"{_OURS}lead"], start=0, end=2),
        *added.nodes,
        *(
            helper.make_node("Unsqueeze", [tensor, f"{_OURS}ends"], [name])
            for tensor, name in zip(added.tensors, spread, strict=True)
        ),
        helper.make_node("Concat", spread, [QUALITY_MAP], axis=3),
    ]
    graph.node.extend(nodes)
    kept = [output for output in graph.output if output.name != QUALITY_MAP]
    shape: list[str | int | None] = ["batch", 1, 1, len(added.names)]
    del graph.output[:]
    graph.output.extend(kept)
    graph.output.append(helper.make_tensor_value_info(QUALITY_MAP, TensorProto.FLOAT, shape))


class WithCells(nn.Module):
    """A model whose map holds, instead of cells, the scores of its parts.

    Args:
        model: with a map and context tokens.
    """

    preset: Preset

    def __init__(self, model: Giqa) -> None:
        super().__init__()
        self.model, self.preset = model, model.preset

    def forward(self, global_view: Tensor, local_view: Tensor) -> tuple[Tensor, ...]:
        """Views as `Giqa.forward` takes them to SCORE (B, 1) and the parts' (B, 1, 1, parts)."""
        head = self.model.fusion.head
        assert isinstance(head, MapHead)
        assert head.whole is not None
        given: list[tuple[Any, ...]] = []
        # What the head is given is the fusion's business, and is not computed twice.
        hook = head.register_forward_pre_hook(lambda _, args: given.append(args))
        try:
            score = self.model(global_view, local_view)[0]
        finally:
            hook.remove()
        fused, detail, term = given[0]
        untold = {"whole.weight": torch.zeros_like(head.whole.weight)}
        found = [functional_call(head, untold, (fused, detail))[0]]
        if self.preset.linear_term:
            silent = {
                f"quality.{name}": torch.zeros_like(value)
                for name, value in head.quality.named_parameters()
            }
            found.insert(0, functional_call(head, silent, (fused, detail, term))[0])
        each = [one.reshape(len(score), -1).mean(1) for one in found]
        return score, torch.stack(each, 1)[:, None, None]


HOW_CELLS = (
    "the PyTorch head with zeros for what it tells all cells of the picture (`whole`), without a "
    "linear term; a term alone with zeros for the cells' logits"
)
