"""Transposes are held back as long as possible; most meet their inverse and vanish.

The upgrade wraps every spatial operator in two Transposes. This pass walks over the network and computes no Transpose at all: it
remembers a tensor as a *view*, another tensor (its base) and a permutation. Operators that do not care about the order of axes work on the
base, with their axes renamed; only where an operator does care (a product, an output) is a Transpose written, once per tensor.

Reshapes follow where they merely split or merge axes (a channel shuffle stays channels-last); a Reshape to rows in front of a Gemm takes
the base's order and the Gemm's columns are permuted instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...graph import Node
from ..draft import Draft, Shapes, Size, fixed_size, reshape_target
from .elementwise import BROADCAST, UNARY

Perm = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """A tensor as Transpose(base, perm): its axis i is the base's axis perm[i]."""

    base: str
    perm: Perm

    @property
    def is_plain(self) -> bool:
        """True if the tensor is its base."""
        return self.perm == tuple(range(len(self.perm)))


@dataclass(frozen=True)
class Columns:
    """A matrix [N, K] whose column j is column order[j] of ``base``, rows of ``dims`` read in the order ``perm``."""

    base: str
    dims: tuple[int, ...]  # of the base's rows
    perm: Perm  # of these

    def order(self) -> np.ndarray:
        """Column of the base for each column of the matrix."""
        return np.arange(prod(self.dims)).reshape(self.dims).transpose(self.perm).reshape(-1)


def run(draft: Draft) -> None:
    """Push Transposes towards the outputs and cancel them."""
    _Walk(draft).run()


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes ``perm``."""
    return tuple(perm.index(i) for i in range(len(perm)))


_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


class _Walk:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.shapes = Shapes(draft.inputs, draft.weights, draft.scheme)  # of the new network, as it grows
        self.logical = draft.shapes()  # of the old one
        self.out: list[Node] = []
        self.views: dict[str, View | Columns] = {}
        self.written: dict[tuple[str, Perm], str] = {}
        self.readers: dict[str, list[Node]] = {}
        self.names = {node.name for node in draft.nodes}
        for node in draft.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.rules: dict[str, Callable[[Node], bool]] = {
            "Transpose": self._transpose,
            "Concat": self._concat,
            "Split": self._split,
            "Pad": self._pad,
            "Slice": self._slice,
            "Softmax": self._along_axis,
            "LogSoftmax": self._along_axis,
            "ArgMax": self._along_axis,
            "ArgMin": self._along_axis,
            "Shape": self._shape,
            "Gemm": self._gemm,
            **dict.fromkeys(UNARY, self._unary),
            **dict.fromkeys(BROADCAST, self._broadcast),
            **dict.fromkeys(_RESHAPES, self._reshape),
        }

    def run(self) -> None:
        nodes = self.draft.nodes
        for node in nodes:
            rule = self.rules.get(node.op)
            if rule is None and node.op.startswith("Reduce"):
                rule = self._reduce
            if rule is None or not rule(node):
                self.emit(Node(node.op, node.name, tuple(self.plain(name) for name in node.inputs), node.outputs, node.attrs))
        for public, tensor in self.draft.outputs.items():
            self.draft.outputs[public] = self.plain(tensor)
        self.draft.nodes = self.out

    # ---- writing

    def emit(self, node: Node) -> None:
        self.shapes.add(node)
        self.out.append(node)

    def write(self, op: str, stem: str, x: str, attrs: dict[str, Any], output: str | None = None) -> str:
        """A node of one input that the old network does not have."""
        name = output or self.fresh(f"{stem}:{op.lower()}")
        self.emit(Node(op, self.fresh(f"{stem}/{op.lower()}"), (x,), (name,), attrs))
        return name

    def fresh(self, stem: str) -> str:
        name, i = stem, 1
        while name in self.names or name in self.shapes or name in self.logical:
            name, i = f"{stem}.{i}", i + 1
        self.names.add(name)
        return name

    def weight(self, stem: str, array: np.ndarray) -> str:
        name = self.fresh(stem)
        self.draft.weights[name] = np.asarray(array, order="C")
        return name

    def view(self, name: str) -> View:
        """The tensor as a view; matrices of permuted columns are put in order."""
        found = self.views.get(name)
        if isinstance(found, Columns):
            found = self._in_order(name, found)
        return found or View(name, tuple(range(self.shapes.rank(name))))

    def ordered(self, view: View, perm: Perm) -> str:
        """A tensor whose axes are those of the view's tensor in the order ``inverse(perm)``: the base that ``perm`` would need."""
        back = inverse(perm)
        turn = tuple(view.perm[back[j]] for j in range(len(back)))
        return self.transposed(view.base, turn)

    def plain(self, name: str) -> str:
        """The tensor itself, written out where it is a view."""
        if not name or name not in self.views:
            return name
        view = self.view(name)
        return self.transposed(view.base, view.perm)

    def transposed(self, base: str, perm: Perm) -> str:
        """Transpose(base, perm), written once; a Reshape where only axes of size 1 move."""
        if perm == tuple(range(len(perm))):
            return base
        key = (base, perm)
        if key not in self.written:
            if base in self.draft.weights:
                self.written[key] = self.weight(f"{base}.turned", self.draft.weights[base].transpose(perm))
                return self.written[key]
            dims = self.shapes.dims(base)
            target = None
            if keeps_order(dims, perm):
                target = reshape_target(dims, [dims[p] for p in perm])
            if target is not None:
                self.written[key] = self.write("Reshape", base, base, {"shape": target})
            else:
                self.written[key] = self.write("Transpose", base, base, {"perm": list(perm)})
        return self.written[key]

    def result(self, node: Node, view_of: View, inputs: Sequence[str], attrs: dict[str, Any], perm: Perm | None = None) -> bool:
        """Emit ``node`` on bases; its outputs are views with ``perm`` (default: that of ``view_of``)."""
        perm = view_of.perm if perm is None else perm
        if perm == tuple(range(len(perm))):
            self.emit(Node(node.op, node.name, tuple(inputs), node.outputs, attrs))
            return True
        outputs = tuple(self.fresh(f"{name}:base") if name else "" for name in node.outputs)
        self.emit(Node(node.op, node.name, tuple(inputs), outputs, attrs))
        for old, new in zip(node.outputs, outputs, strict=True):
            if old:
                self.views[old] = View(new, perm)
        return True

    # ---- operators that do not care

    def _transpose(self, node: Node) -> bool:
        view = self.view(node.inputs[0])
        perm = node.attrs.get("perm", list(range(len(view.perm)))[::-1])
        self.views[node.outputs[0]] = View(view.base, tuple(view.perm[p] for p in perm))
        return True

    def _unary(self, node: Node) -> bool:
        found = self.views.get(node.inputs[0])
        if isinstance(found, Columns):
            if any(node.inputs[1:]):
                return False
            output = self.fresh(f"{node.outputs[0]}:base")
            self.emit(Node(node.op, node.name, (found.base,), (output,), node.attrs))
            self.views[node.outputs[0]] = Columns(output, found.dims, found.perm)
            return True
        if found is None or any(name and not self._is_small(name) for name in node.inputs[1:]):
            return False
        return self.result(node, found, [found.base, *node.inputs[1:]], node.attrs)

    def _is_small(self, name: str) -> bool:
        return name not in self.views and self.shapes.rank(name) == 0

    def _broadcast(self, node: Node) -> bool:
        rank = self.logical.rank(node.outputs[0])
        views = [self.view(name) if name not in self.draft.weights else None for name in node.inputs]
        votes: dict[Perm, int] = {}
        for view in views:
            if view is not None and len(view.perm) == rank:
                votes[view.perm] = votes.get(view.perm, 0) + 1
        plain = tuple(range(rank))
        perms = [p for p in votes if p != plain]
        if not perms:
            return False
        perm = max(perms, key=lambda p: votes[p])
        if votes.get(plain, 0) > votes[perm]:
            return False
        inputs = []
        for name, view in zip(node.inputs, views, strict=True):
            if view is None:
                inputs.append(self._constant_in_order(name, perm))
            elif len(view.perm) == rank:
                inputs.append(self.ordered(view, perm))
            elif all(d == 1 for d in self.logical.fixed(name)):
                inputs.append(self.plain(name))
            else:
                dims = self.logical.dims(name)
                one = tuple(1 for _ in range(self.logical.probes))
                full = [one] * (rank - len(dims)) + list(dims)
                target = reshape_target(dims, full)
                if target is None:
                    return False
                inputs.append(self.transposed(self.write("Reshape", name, self.plain(name), {"shape": target}), inverse(perm)))
        reference = next(view for view in views if view is not None and view.perm == perm)
        return self.result(node, reference, inputs, node.attrs)

    def _constant_in_order(self, name: str, perm: Perm) -> str:
        array = self.draft.weights[name]
        if array.size == 1:
            return name if array.ndim <= 1 else self.weight(f"{name}.number", array.reshape(1))
        array = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
        turned = array.transpose(inverse(perm))
        while turned.ndim > 1 and turned.shape[0] == 1:
            turned = turned[0]
        key = (name, perm)
        if key not in self.written:
            self.written[key] = self.weight(f"{name}.turned", turned)
        return self.written[key]

    def _concat(self, node: Node) -> bool:
        views = [self.view(name) for name in node.inputs]
        rank = len(views[0].perm)
        computed = [v for v in views if v.base not in self.draft.weights]
        votes: dict[Perm, int] = {}
        for view in computed:
            votes[view.perm] = votes.get(view.perm, 0) + 1
        plain = tuple(range(rank))
        perms = [p for p in votes if p != plain]
        if not perms or votes.get(plain, 0) > max(votes[p] for p in perms):
            return False
        perm = max(perms, key=lambda p: votes[p])
        axis = node.attrs["axis"] % rank
        inputs = [self.ordered(view, perm) for view in views]
        return self.result(node, views[0], inputs, {**node.attrs, "axis": perm[axis]}, perm)

    def _split(self, node: Node) -> bool:
        view = self.view(node.inputs[0])
        if view.is_plain or any(node.inputs[1:]):
            return False
        return self.result(node, view, [view.base], {**node.attrs, "axis": view.perm[node.attrs.get("axis", 0) % len(view.perm)]})

    def _pad(self, node: Node) -> bool:
        view = self.view(node.inputs[0])
        rank = len(view.perm)
        if view.is_plain or any(node.inputs[1:]) or "pads" not in node.attrs:
            return False
        pads = [0] * (2 * rank)
        for axis, at in enumerate(view.perm):
            pads[at], pads[at + rank] = node.attrs["pads"][axis], node.attrs["pads"][axis + rank]
        return self.result(node, view, [view.base], {**node.attrs, "pads": pads})

    def _slice(self, node: Node) -> bool:
        view = self.view(node.inputs[0])
        if view.is_plain or "axes" not in node.attrs:
            return False
        axes = [view.perm[axis % len(view.perm)] for axis in node.attrs["axes"]]
        return self.result(node, view, [view.base, *(self.plain(name) for name in node.inputs[1:])], {**node.attrs, "axes": axes})

    def _along_axis(self, node: Node) -> bool:
        view = self.view(node.inputs[0])
        if view.is_plain or not node.attrs.get("keepdims", 1):
            return False
        default = 0 if node.op.startswith("Arg") else -1
        return self.result(node, view, [view.base], {**node.attrs, "axis": view.perm[node.attrs.get("axis", default) % len(view.perm)]})

    def _reduce(self, node: Node) -> bool:
        view = self.view(node.inputs[0])
        rank = len(view.perm)
        if view.is_plain or any(node.inputs[1:]):
            return False
        axes = node.attrs.get("axes")
        if axes is None:
            if node.attrs.get("noop_with_empty_axes", 0):
                return False
            axes = list(range(rank))
        gone = sorted(view.perm[axis % rank] for axis in axes)
        attrs = {**node.attrs, "axes": gone}
        if node.attrs.get("keepdims", 1):
            return self.result(node, view, [view.base], attrs)
        left = [p for p in view.perm if p not in gone]
        return self.result(node, view, [view.base], attrs, tuple(sorted(left).index(p) for p in left))

    def _shape(self, node: Node) -> bool:
        view = self.view(node.inputs[0])
        if view.is_plain:
            return False
        perm = np.array(view.perm, np.int64)[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        shape = self.write("Shape", node.outputs[0], view.base, {})
        index = self.weight(f"{node.outputs[0]}.axes", perm)
        self.emit(Node("Gather", node.name, (shape, index), node.outputs, {"axis": 0}))
        return True

    # ---- Reshape and Gemm

    def _reshape(self, node: Node) -> bool:
        x = node.inputs[0]
        view = self.view(x)
        if view.is_plain:
            return False
        before, after = self.logical.dims(x), self.logical.dims(node.outputs[0])
        dims = self.shapes.dims(view.base)
        if keeps_order(dims, view.perm):
            target = reshape_target(dims, after)
            if target is None:
                return False
            self.write("Reshape", node.name, view.base, {"shape": target}, node.outputs[0])
            return True
        parts = groups(before, after)
        if parts is None:
            return False
        if self._to_columns(node, view, parts):
            return True
        return self._split_or_merge(node, view, parts, after)

    def _split_or_merge(self, node: Node, view: View, parts: list[tuple[list[int], list[int]]], after: Sequence[Size]) -> bool:
        # axes that are merged are brought together where the last of them is in the base: channels stay last
        runs = sorted((([view.perm[i] for i in ins], outs) for ins, outs in parts), key=lambda run: max(run[0]))
        turn = [axis for ins, _ in runs for axis in ins]
        axes = [axis for _, outs in runs for axis in outs]
        dims = self.shapes.dims(view.base)
        target = reshape_target([dims[a] for a in turn], [after[a] for a in axes])
        if target is None:
            return False
        base = self.transposed(view.base, tuple(turn))
        perm = tuple(axes.index(a) for a in range(len(after)))
        if perm == tuple(range(len(perm))):
            self.write("Reshape", node.name, base, {"shape": target}, node.outputs[0])
        else:
            self.views[node.outputs[0]] = View(self.write("Reshape", node.name, base, {"shape": target}), perm)
        return True

    def _to_columns(self, node: Node, view: View, parts: list[tuple[list[int], list[int]]]) -> bool:
        rank = len(view.perm)
        if len(parts) != 2 or parts[0] != ([0], [0]) or parts[1] != (list(range(1, rank)), [1]) or view.perm[0] != 0:
            return False
        dims = self.shapes.fixed(view.base)[1:]
        if any(d is None for d in dims) or not self._only_gemms(node.outputs[0]):
            return False
        rows = [int(d) for d in dims if d is not None]
        base = self.write("Reshape", node.name, view.base, {"shape": [0, prod(rows)]})
        self.views[node.outputs[0]] = Columns(base, tuple(rows), tuple(p - 1 for p in view.perm[1:]))
        return True

    def _only_gemms(self, name: str) -> bool:
        if name in self.draft.outputs.values():
            return False
        for node in self.readers.get(name, []):
            if node.op == "Gemm":
                w = self.draft.constant(node.inputs[1])
                if node.inputs[0] != name or name in node.inputs[1:] or w is None:
                    return False
            elif node.op not in UNARY or any(node.inputs[1:]) or not self._only_gemms(node.outputs[0]):
                return False
        return bool(self.readers.get(name))

    def _gemm(self, node: Node) -> bool:
        found = self.views.get(node.inputs[0])
        w = self.draft.constant(node.inputs[1])
        if not isinstance(found, Columns) or w is None:
            return False
        key = (node.inputs[1], (-1, *found.dims, *found.perm))
        if key not in self.written:
            turned = np.empty_like(w)
            turned[:, found.order()] = w
            self.written[key] = self.weight(f"{node.inputs[1]}.columns", turned)
        inputs = (found.base, self.written[key], *(self.plain(name) for name in node.inputs[2:]))
        self.emit(Node("Gemm", node.name, inputs, node.outputs, node.attrs))
        return True

    def _in_order(self, name: str, columns: Columns) -> View:
        back = self.write("Reshape", name, columns.base, {"shape": [0, *columns.dims]})
        turned = self.transposed(back, (0, *(p + 1 for p in columns.perm)))
        base = self.write("Reshape", name, turned, {"shape": [0, prod(columns.dims)]})
        view = View(base, (0, 1))
        self.views[name] = view
        return view


def keeps_order(dims: Sequence[Size], perm: Perm) -> bool:
    """True if permuting ``dims`` moves axes of size 1 only, so that no byte changes place."""
    wide = [p for p in perm if fixed_size(dims[p]) != 1]
    return wide == sorted(wide)


def groups(before: Sequence[Size], after: Sequence[Size]) -> list[tuple[list[int], list[int]]] | None:
    """A Reshape as runs of axes with equal products: ``[(axes before, axes after), ...]``; each run has one axis on one side at least.

    ``None`` where there is no such partition. Axes of size 1 join the run before them (the first run, if they lead).
    """

    def times(a: Size, b: Size) -> Size:
        return tuple(x * y for x, y in zip(a, b, strict=True))

    parts: list[tuple[list[int], list[int]]] = []
    i = j = 0
    one = tuple(1 for _ in (before or after)[0]) if (before or after) else ()
    while i < len(before) or j < len(after):
        ins, outs = [], []
        left = right = one
        if i < len(before):
            left, ins, i = before[i], [i], i + 1
        if j < len(after):
            right, outs, j = after[j], [j], j + 1
        while left != right:
            if i < len(before) and any(a < b for a, b in zip(left, right, strict=True)):
                left, ins, i = times(left, before[i]), [*ins, i], i + 1
            elif j < len(after):
                right, outs, j = times(right, after[j]), [*outs, j], j + 1
            else:
                return None
        if not ins or not outs:  # trailing axes of size 1
            if not parts:
                return None
            parts[-1][0].extend(ins)
            parts[-1][1].extend(outs)
        else:
            parts.append((ins, outs))
    return parts if all(len(ins) == 1 or len(outs) == 1 for ins, outs in parts) else None
