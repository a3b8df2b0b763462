"""Where a network in normal form grows: nodes are emitted one by one, and their shapes are followed.

The rules of :mod:`.upgrade` ask a :class:`Builder` for ranks, dimensions and constants, and emit through it. A node that cannot be
converted is noted as a :class:`Problem` and everything behind it is skipped over, so that one run finds all problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelFormatError, UnsupportedModelError
from ..graph import Node
from ..ops import OPERATORS
from .draft import Draft, Shapes, Size, reshape_target


@dataclass
class RawNode:
    """A node as the ONNX file has it. ``attrs`` are Python values; tensors are arrays; a subgraph is ``Unreadable``."""

    op: str
    domain: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unreadable:
    """An attribute that edgeinfer has no value for: a subgraph, a sequence, a type."""

    what: str


@dataclass(frozen=True)
class Problem:
    """Why a node cannot be taken over: its operator is missing, or a feature of it is."""

    op: str
    node: str
    reason: str = ""


class Refused(Exception):
    """Raised by a rule: the node uses a feature that is not supported; the text says which."""


class Builder:
    """Takes converted nodes one by one and follows their shapes.

    Args:
        draft: receives nodes and weights; its inputs, weights and outputs are those of the file.
        opset: version of the default operator set.
    """

    def __init__(self, draft: Draft, opset: int) -> None:
        self.draft = draft
        self.opset = opset
        self.shapes = Shapes(draft.inputs, draft.weights, draft.scheme)
        self.problems: list[Problem] = []
        self._alias: dict[str, str] = {}
        self._poisoned: set[str] = set()
        self._names: set[str] = set()
        self._tensors: set[str] = {*draft.weights, *(t.name for t in draft.inputs)}
        self._node: RawNode | None = None
        self._derived: dict[str, Node] = {}  # tensor that follows from constants alone -> what computes it

    def poison(self, names: Iterable[str]) -> None:
        """Tensors that cannot be had (noted as problems elsewhere): nodes behind them are skipped over."""
        self._poisoned.update(names)

    # ---- what rules may ask

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a constant tensor, else ``None``. Nodes between stored constants and the tensor are computed now and go."""
        node = self._derived.get(name)
        if name in self.draft.weights or node is None:
            return self.draft.weights.get(name)
        results = OPERATORS[node.op]().run(node, [self.constant(i) if i else None for i in node.inputs])
        self.draft.weights.update((o, np.asarray(r, order="C")) for o, r in zip(node.outputs, results, strict=False) if o)
        self.draft.nodes = [n for n in self.draft.nodes if n is not node]
        return self.draft.weights[name]

    def need_constant(self, name: str, what: str) -> np.ndarray:
        """The value of a tensor that must be constant; ``what`` it is, in the plural."""
        value = self.constant(name)
        if value is None:
            raise Refused(f"{what} that are not constant")
        return value

    def rank(self, name: str) -> int:
        """Number of axes."""
        return self.shapes.rank(name)

    def fixed(self, name: str) -> tuple[int | None, ...]:
        """Dimensions, ``None`` where they depend on a symbol."""
        return self.shapes.fixed(name)

    def unique(self, stem: str) -> str:
        """A tensor name nobody has."""
        name, i = stem, 1
        while name in self._tensors:
            name, i = f"{stem}.{i}", i + 1
        self._tensors.add(name)
        return name

    def weight(self, stem: str, array: np.ndarray) -> str:
        """Keep a constant; returns its name."""
        name = self.unique(stem)
        self.draft.weights[name] = array
        return name

    # ---- what rules do

    def emit(self, op: str, inputs: Sequence[str], attrs: dict[str, Any] | None = None, outputs: Sequence[str] | None = None) -> str:
        """Add a node in normal form; returns its first output. Without ``outputs`` it gets one of its own."""
        assert self._node is not None
        stem = self._node.name or (self._node.outputs[0] if self._node.outputs else op)
        aside = op != self._node.op and op in ("Transpose", "Reshape", "Flatten")  # the node's own name is for what it is about
        name, i = f"{stem}/{op.lower()}" if aside else stem, 1
        while name in self._names:
            name, i = f"{stem}/{op.lower()}" + ("" if i == 1 else f".{i}"), i + 1
        self._names.add(name)
        trimmed = list(inputs)
        while trimmed and not trimmed[-1]:
            trimmed.pop()
        outs = tuple(outputs) if outputs is not None else (self.unique(f"{stem}:{op.lower()}"),)
        node = Node(op, name, tuple(trimmed), outs, attrs or {})
        self.shapes.add(node)
        self._tensors.update(o for o in outs if o)
        if all(i in self.draft.weights or i in self._derived for i in node.inputs if i):
            self._derived.update((o, node) for o in outs if o)
        self.draft.nodes.append(node)
        return outs[0]

    def alias(self, output: str, tensor: str) -> None:
        """``output`` is just another name for ``tensor``."""
        self._alias[output] = tensor

    def reshape(self, x: str, dims: Sequence[Size], output: str | None = None) -> str:
        """Reshape ``x`` to dimensions given per probe; with a computed shape where an attribute cannot say it."""
        target = reshape_target(self.shapes.dims(x), dims)
        if target is None:
            raise Refused("a shape with more than one dimension that depends on symbols")
        return self.emit("Reshape", [x], {"shape": target}, None if output is None else [output])

    def channels_last(self, x: str) -> str:
        """``x`` [N, C, spatial...] as [N, spatial..., C]."""
        rank = self.rank(x)
        return x if rank < 3 else self.emit("Transpose", [x], {"perm": [0, *range(2, rank), 1]})

    def channels_first(self, y: str, output: str) -> None:
        """``y`` [N, spatial..., C] as ``output`` [N, C, spatial...]."""
        rank = self.rank(y)
        self.emit("Transpose", [y], {"perm": [0, rank - 1, *range(1, rank - 1)]}, [output])

    # ---- the loop

    def convert(self, raw: RawNode, refuse: Callable[[RawNode], None], rule: Rule) -> None:
        """Convert one node of the file by ``rule``, or note why not; ``refuse`` raises Refused for what no shapes are needed to see."""
        node = RawNode(raw.op, raw.domain, raw.name, [self._alias.get(i, i) for i in raw.inputs], list(raw.outputs), dict(raw.attrs))
        self._node = node
        try:
            refuse(node)
            if self._poisoned.isdisjoint(node.inputs):
                for name in node.inputs:
                    if name and name not in self.shapes:
                        raise ModelFormatError(f"{node.op} node {label(node)} reads tensor {name!r}, which nothing before it computes")
                rule(node, self)
                return
        except (Refused, UnsupportedModelError) as error:
            self.problems.append(Problem(qualified(node), label(node), str(error)))
        self._poisoned.update(o for o in node.outputs if o)

    def resolve(self, name: str) -> str:
        """The tensor behind a name, past Identity and Dropout."""
        return self._alias.get(name, name)


def qualified(node: RawNode) -> str:
    """Operator with its domain, where that is not ONNX's own."""
    return node.op if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op}"


def label(node: RawNode) -> str:
    """The node's name, or what it computes where it has none."""
    return node.name or f"computing {node.outputs[0]!r}" if node.outputs else node.name


def complain(problems: Sequence[Problem]) -> UnsupportedModelError:
    """One error for all problems: missing operators with counts and node names, then features."""
    missing: dict[str, list[str]] = {}
    features: list[str] = []
    for p in problems:
        if p.reason:
            features.append(f"  {p.op} ({p.node}): {p.reason}")
        else:
            missing.setdefault(p.op, []).append(p.node)
    lines = []
    if missing:
        lines.append("operators that edgeinfer does not have:")
        lines += [f"  {op} x {len(names)}: {', '.join(names)}" for op, names in sorted(missing.items())]
    if features:
        lines.append("features that edgeinfer does not support:")
        lines += features
    return UnsupportedModelError("this model cannot be converted;\n" + "\n".join(lines))


#: converts one node, or raises Refused
Rule = Callable[[RawNode, Builder], None]
