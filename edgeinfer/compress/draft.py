"""A network while it is being rewritten: mutable nodes and weights, and what is known about the shapes of its tensors.

Every pass takes a :class:`Draft` and changes it in place. Shapes come from the operators themselves: every symbol is replaced by a few
concrete sizes (*probes*) and ``infer`` is run for each; a dimension that is the same in all of them is fixed, one that follows a
symbol's sizes is that symbol.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ..errors import ModelFormatError
from ..graph import Node, TensorSpec
from ..ops import OPERATORS

Weights = dict[str, np.ndarray]
#: one dimension: its size in every probe
Size = tuple[int, ...]

# Sizes that symbols take, one row per symbol; primes keep products of different symbols apart, and none is beyond what a table of positions
# has. An axis that a convolution may shrink needs room: images and signals get sizes that many strides of two divide evenly.
_SMALL = ((2, 3, 59), (5, 7, 61), (11, 13, 67), (17, 19, 71), (23, 29, 73), (31, 37, 79), (41, 43, 83), (47, 53, 89))
_LARGE = tuple((16384 + 2048 * (3 * i), 16384 + 2048 * (3 * i + 1), 16384 + 2048 * (3 * i + 2)) for i in range(8))

#: first axis with large sizes, by scheme
SCHEMES = (2, 1, 99)

# Values of computed tensors are followed up to this many elements: shape arithmetic is never larger.
_MAX_VALUE = 65536


class Shapes:
    """Concrete specs (and known values) of every tensor, for each probe.

    Args:
        inputs: graph inputs, with symbols.
        weights: the constants; their values are known.
        scheme: how symbols get their sizes, see :func:`probe_sizes`.
    """

    def __init__(self, inputs: Sequence[TensorSpec], weights: Weights, scheme: int = 0) -> None:
        self.sizes = probe_sizes(inputs, scheme)
        self.probes = len(next(iter(self.sizes.values()), (0,)))
        self._weights = weights
        self._specs: list[dict[str, TensorSpec]] = [{} for _ in range(self.probes)]
        self._values: list[dict[str, np.ndarray]] = [{} for _ in range(self.probes)]
        for probe, specs in enumerate(self._specs):
            for t in inputs:
                shape = tuple(self.sizes[d][probe] if isinstance(d, str) else d for d in t.shape)
                specs[t.name] = TensorSpec(t.name, t.dtype, shape)

    def add(self, node: Node) -> None:
        """Infer the outputs of ``node`` in every probe. Raises what ``infer`` raises."""
        op = OPERATORS[node.op]()
        for probe in range(self.probes):
            specs = [self.spec(name, probe) if name else None for name in node.inputs]
            values = [self.value(name, probe) if name else None for name in node.inputs]
            results = op.infer(node, specs, values)
            for name, spec in zip(node.outputs, results, strict=False):
                if name:
                    self._specs[probe][name] = TensorSpec(name, spec.dtype, tuple(spec.shape))
            about_shape = node.op in ("Shape", "Size")
            if about_shape:  # known without the tensor: an array of that shape that takes no memory will do
                assert specs[0] is not None
                values = [np.broadcast_to(np.float32(0), tuple(int(d) for d in specs[0].shape))]
            known = all(v is not None for name, v in zip(node.inputs, values, strict=True) if name)
            if known and all(prod(int(d) for d in s.shape) <= _MAX_VALUE for s in results):
                if about_shape or all(v is None or v.size <= _MAX_VALUE for v in values):
                    for name, value in zip(node.outputs, op.run(node, values), strict=False):
                        self._values[probe][name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._weights or name in self._specs[0]

    def spec(self, name: str, probe: int = 0) -> TensorSpec:
        """Concrete spec of a tensor in one probe."""
        if name in self._weights:
            array = self._weights[name]
            return TensorSpec(name, array.dtype.name, array.shape)
        try:
            return self._specs[probe][name]
        except KeyError:
            raise ModelFormatError(f"tensor {name!r} is used before anything computes it") from None

    def value(self, name: str, probe: int = 0) -> np.ndarray | None:
        """Value of a tensor where it follows from shapes and constants alone."""
        if name in self._weights:
            return self._weights[name]
        return self._values[probe].get(name)

    def fixed_value(self, name: str) -> np.ndarray | None:
        """The value of a tensor that is the same whatever the symbols are, else ``None``."""
        first = self.value(name)
        if first is None or name in self._weights:
            return first
        same = all(_same(first, self.value(name, probe)) for probe in range(1, self.probes))
        return first if same else None

    def dtype(self, name: str) -> str:
        """NumPy dtype name of a tensor."""
        return self.spec(name).dtype

    def rank(self, name: str) -> int:
        """Number of axes of a tensor."""
        return len(self.spec(name).shape)

    def dims(self, name: str) -> tuple[Size, ...]:
        """The dimensions of a tensor, each as its sizes over the probes. The rank must not depend on a symbol."""
        shapes = [self.spec(name, probe).shape for probe in range(self.probes)]
        if len({len(s) for s in shapes}) != 1:
            raise ModelFormatError(f"tensor {name!r}: the number of axes depends on a symbol")
        return tuple(tuple(int(d) for d in column) for column in zip(*shapes, strict=True))

    def fixed(self, name: str) -> tuple[int | None, ...]:
        """The dimensions of a tensor; ``None`` for one that depends on a symbol."""
        return tuple(fixed_size(d) for d in self.dims(name))

    def symbolic(self, name: str) -> tuple[int | str, ...]:
        """The dimensions of a tensor: an int, a symbol of the inputs, or a new name where it is neither."""
        symbols = {size: symbol for symbol, size in reversed(self.sizes.items())}
        found: list[int | str] = []
        for axis, size in enumerate(self.dims(name)):
            number = fixed_size(size)
            found.append(symbols.get(size, f"{name}_dim{axis}") if number is None else number)
        return tuple(found)


def _same(a: np.ndarray, b: np.ndarray | None) -> bool:
    return b is not None and a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))


def fixed_size(size: Size) -> int | None:
    """The number a dimension always has, or ``None``."""
    return size[0] if all(s == size[0] for s in size) else None


def probe_sizes(inputs: Iterable[TensorSpec], scheme: int) -> dict[str, Size]:
    """Sizes for every symbol in ``inputs``, by the axis it is first found on.

    Nobody says which sizes a network can take, so there are schemes to try in turn: large sizes from axis 2 on (images), from axis 1 on
    (signals), or nowhere (tables of positions).
    """
    sizes: dict[str, Size] = {}
    for t in inputs:
        for axis, d in enumerate(t.shape):
            if isinstance(d, str) and d not in sizes:
                table = _LARGE if axis >= SCHEMES[scheme] else _SMALL
                again, column = divmod(len(sizes), len(table))
                sizes[d] = tuple(s + 1000 * again for s in table[column])
    return sizes


def reshape_target(before: Sequence[Size], after: Sequence[Size]) -> list[int] | None:
    """The ``shape`` attribute of a Reshape from dimensions ``before`` to ``after``: ints, 0 (as before at this place), one -1.

    ``None`` where that cannot say it (two dimensions depend on symbols in ways of their own), or where a dimension is empty.
    """
    target: list[int] = []
    for axis, size in enumerate(after):
        number = fixed_size(size)
        if number is not None:
            target.append(number)
        elif axis < len(before) and before[axis] == size:
            target.append(0)
        elif -1 not in target:
            target.append(-1)
        else:
            return None
    if any(fixed_size(size) == 0 for size in after):
        return None
    return target


@dataclass
class Draft:
    """A network that passes rewrite in place.

    ``outputs`` maps the public name of every output to the tensor that holds it now; a pass that replaces a tensor updates it
    through :meth:`replace_tensor`. ``nodes`` are always in an order in which they can run.
    """

    name: str
    inputs: list[TensorSpec]
    outputs: dict[str, str]
    weights: Weights
    nodes: list[Node] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batch: str | None = None
    scheme: int = 0
    output_shapes: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def shapes(self) -> Shapes:
        """Shapes of all tensors as the network is now."""
        shapes = Shapes(self.inputs, self.weights, self.scheme)
        for node in self.nodes:
            shapes.add(node)
        return shapes

    def fresh(self, stem: str) -> str:
        """A tensor or node name that nothing has yet, made from ``stem``."""
        if not self._taken:
            self._taken.update(self.weights, (t.name for t in self.inputs), self.outputs)
        for node in self.nodes:
            self._taken.update((node.name, *node.outputs))
        name, i = stem, 1
        while name in self._taken or name in self.weights:
            name, i = f"{stem}.{i}", i + 1
        self._taken.add(name)
        return name

    def add_weight(self, stem: str, array: np.ndarray) -> str:
        """Keep a constant; returns its name."""
        name = self.fresh(stem)
        self.weights[name] = np.asarray(array, order="C")
        return name

    def producers(self) -> dict[str, int]:
        """Tensor -> index of the node that computes it."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.outputs if name}

    def uses(self) -> dict[str, list[int]]:
        """Tensor -> indices of the nodes that read it (once per reading); -1 stands for a graph output."""
        found: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in node.inputs:
                if name:
                    found.setdefault(name, []).append(i)
        for name in self.outputs.values():
            found.setdefault(name, []).append(-1)
        return found

    def constant(self, name: str) -> np.ndarray | None:
        """Value of a tensor that is a constant, else ``None``."""
        return self.weights.get(name)

    def scalar(self, name: str) -> float | None:
        """Value of a constant of one element, else ``None``."""
        array = self.weights.get(name)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def replace_tensor(self, old: str, new: str) -> None:
        """Let everything that reads ``old`` read ``new``."""
        for i, node in enumerate(self.nodes):
            if old in node.inputs:
                inputs = tuple(new if name == old else name for name in node.inputs)
                self.nodes[i] = Node(node.op, node.name, inputs, node.outputs, node.attrs)
        for public, name in self.outputs.items():
            if name == old:
                self.outputs[public] = new

    def drop(self, dead: Iterable[int]) -> None:
        """Remove nodes by index."""
        gone = set(dead)
        self.nodes = [node for i, node in enumerate(self.nodes) if i not in gone]
