"""Graph and concrete input shapes -> actions on named buffers. Pure: nothing is allocated, nothing is read but small constants.

Here shape arithmetic is evaluated, every other node becomes native steps, an alias of its input, or a NumPy call, and channel
concatenations disappear: their inputs are produced straight into a slice of the result (a *part*), one row of the result apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ..errors import ModelFormatError, PlanError
from ..graph import Graph, Node, TensorSpec
from ..kernels.program import STEP_FIELDS
from ..ops import OPERATORS, Alias, Step
from ..ops.checks import extents

#: constants up to this size are looked at when a plan is made (shapes, axes, scalars); bigger ones are weights
KNOWN_BYTES = 1 << 16


@dataclass(frozen=True)
class Constant:
    """A tensor of the container as the lowering sees it; ``coded`` ones live in tiles and can only be named as weights."""

    spec: TensorSpec
    coded: bool


@dataclass
class Action:
    """One node at run time: native steps, or (``steps`` is None) the NumPy form of its operator."""

    node: Node
    steps: list[Step] | None
    workspaces: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which root buffer, how many elements from its start, and how far apart its rows are (None: dense)."""

    root: str
    offset: int
    row_stride: int | None


class Lowered:
    """The result of :func:`lower`.

    Attributes:
        specs: concrete spec of every tensor.
        known: values evaluated now; ``literals``: small arrays that steps refer to.
        actions: in order.
        places: tensor -> Place.
        roots: buffers that need memory in the arena, with their bytes; ``lives``: buffer -> (first, last) action.
        inputs: names of the graph's inputs, which lie where the caller has them.
        transient: the largest amount of memory that a NumPy form takes outside the arena.
    """

    def __init__(self) -> None:
        self.specs: dict[str, TensorSpec] = {}
        self.known: dict[str, np.ndarray] = {}
        self.literals: dict[str, np.ndarray] = {}
        self.actions: list[Action] = []
        self.places: dict[str, Place] = {}
        self.roots: dict[str, int] = {}
        self.lives: dict[str, tuple[int, int]] = {}
        self.inputs: frozenset[str] = frozenset()
        self.transient = 0


def nbytes(spec: TensorSpec) -> int:
    """Bytes of a tensor with a concrete shape."""
    return prod(extents(spec)) * np.dtype(spec.dtype).itemsize


class _NodeLowering:
    """What an operator sees of the plan while its node is lowered (``ops.base.Lowering``)."""

    def __init__(self, lowered: Lowered, constants: Mapping[str, Constant], value: Callable[[str], np.ndarray | None], node: Node) -> None:
        self._lowered = lowered
        self._constants = constants
        self._value = value
        self._node = node
        self.workspaces: list[str] = []

    def spec(self, name: str) -> TensorSpec:
        return self._lowered.specs[name]

    def value(self, name: str) -> np.ndarray | None:
        return self._value(name)

    def is_coded(self, name: str) -> bool:
        return name in self._constants and self._constants[name].coded

    def literal(self, array: np.ndarray) -> str:
        name = f"literal:{len(self._lowered.literals)}"
        self._lowered.literals[name] = np.ascontiguousarray(array)
        return name

    def workspace(self, nbytes: int) -> str:
        name = f"workspace:{self._node.name}:{len(self.workspaces)}"
        self.workspaces.append(name)
        self._lowered.roots[name] = nbytes
        return name


def bind(graph: Graph, symbols: Mapping[str, int]) -> dict[str, TensorSpec]:
    """Specs of the graph's inputs with every symbol replaced. Raises PlanError where a symbol has no value."""
    specs = {}
    for spec in graph.inputs:
        missing = [d for d in spec.shape if isinstance(d, str) and d not in symbols]
        if missing:
            raise PlanError(f"input {spec.name!r} has shape {list(spec.shape)}: no value was given for {', '.join(map(repr, missing))}")
        specs[spec.name] = TensorSpec(spec.name, spec.dtype, tuple(symbols[d] if isinstance(d, str) else d for d in spec.shape))
    return specs


def lower(
    graph: Graph,
    constants: Mapping[str, Constant],
    constant_value: Callable[[str], np.ndarray],
    symbols: Mapping[str, int],
) -> Lowered:
    """Turn ``graph`` into actions for the input shapes that ``symbols`` gives.

    ``constant_value(name)`` reads a plain constant; it is called for small ones only. Raises PlanError or ModelFormatError.
    """
    out = Lowered()
    out.specs.update(bind(graph, symbols))
    out.inputs = frozenset(spec.name for spec in graph.inputs)
    for name, constant in constants.items():
        out.specs[name] = constant.spec
    read: dict[str, np.ndarray] = {}

    def value(name: str) -> np.ndarray | None:
        if name in out.known:
            return out.known[name]
        constant = constants.get(name)
        if constant is None or constant.coded or nbytes(constant.spec) > KNOWN_BYTES:
            return None
        if name not in read:
            read[name] = constant_value(name)
        return read[name]

    parents: dict[str, str] = {}
    concats: list[tuple[Node, Action]] = []
    for node in graph.nodes:
        op = OPERATORS[node.op]()
        values = [value(n) if n else None for n in node.inputs]
        specs = [out.specs.get(n) if n else None for n in node.inputs]
        for name, spec in zip(node.inputs, specs, strict=True):
            if name and spec is None:
                raise ModelFormatError(f"node {node.name!r} ({node.op}) reads {name!r}, which nothing produces")
        if op.reads_shapes_only:
            # an array of the right shape that takes no memory
            values = [np.broadcast_to(np.zeros((), dtype=s.dtype), extents(s)) if s is not None else None for s in specs]
        if node.inputs and all(v is not None for n, v in zip(node.inputs, values, strict=True) if n):
            results = op.run(node, values)
            for name, array in zip(node.outputs, results, strict=False):
                if name:
                    out.known[name] = np.asarray(array)
                    out.specs[name] = TensorSpec(name, str(out.known[name].dtype), out.known[name].shape)
            continue
        for name, spec in zip(node.outputs, op.infer(node, specs, values), strict=False):
            if name:
                out.specs[name] = TensorSpec(name, spec.dtype, spec.shape)
        lowering = _NodeLowering(out, constants, value, node)
        result = op.lower(node, lowering)
        if isinstance(result, Alias):
            parents[result.output] = result.input
            continue
        action = Action(node, result, lowering.workspaces)
        if result is None:
            outputs = sum(nbytes(out.specs[n]) for n in node.outputs if n)
            inputs = sum(nbytes(out.specs[n]) for n in node.inputs if n and n not in out.known)
            out.transient = max(out.transient, inputs + 2 * outputs)
        elif node.op == "Concat":
            concats.append((node, action))
        out.actions.append(action)
    parts = _parts(graph, out, parents, concats)
    out.actions = [a for a in out.actions if a.steps is None or a.steps]
    _places(graph, out, constants, parents, parts)
    _lives(graph, out)
    return out


def boundaries(lowered: Lowered) -> dict[str, int]:
    """Tensors through which everything passes: name -> number of actions after which only that tensor is alive.

    Between those actions and the rest nothing else is remembered, so rows may leave there and fewer rows go on. Only dense float32 tensors
    that own their buffer count. Pure.
    """
    inputs_until = -1
    for index, action in enumerate(lowered.actions):
        names = [n for step in action.steps or () for n in step.tensors.values()]
        if action.steps is None:
            names = [*action.node.inputs, *action.node.outputs]
        if any(n in lowered.places and lowered.places[n].root in lowered.inputs for n in names):
            inputs_until = index
    found: dict[str, int] = {}
    for index in range(max(inputs_until, 0), len(lowered.actions) - 1):
        alive = [root for root, (first, last) in lowered.lives.items() if first <= index < last]
        if len(alive) == 1 and alive[0] in lowered.specs:
            spec = lowered.specs[alive[0]]
            if spec.dtype == "float32" and nbytes(spec) == lowered.roots[alive[0]]:
                found.setdefault(alive[0], index + 1)
    return found


def _parts(graph: Graph, out: Lowered, parents: dict[str, str], concats: list[tuple[Node, Action]]) -> dict[str, tuple[str, int]]:
    """Concatenations along the last axis whose inputs can be produced in place: tensor -> (concatenation, first column)."""
    readers: dict[str, list[Step | None]] = {}
    writers: dict[str, list[Step | None]] = {}
    for action in out.actions:
        if action.steps is None:
            for name in action.node.inputs:
                readers.setdefault(name, []).append(None)
            for name in action.node.outputs:
                writers.setdefault(name, []).append(None)
            continue
        for step in action.steps:
            for role, name in step.tensors.items():
                (writers if role.startswith("y") else readers).setdefault(name, []).append(step)
    fixed = {t.name for t in graph.inputs} | {t.name for t in graph.outputs} | set(parents) | set(parents.values()) | set(out.known)

    def strided(name: str, step: Step | None) -> bool:
        return step is not None and all(f"{role}_ld" in STEP_FIELDS[step.kind][1] for role, n in step.tensors.items() if n == name)

    parts: dict[str, tuple[str, int]] = {}
    whole: set[str] = set()  # concatenations that have parts: nothing is said against making them a part in turn
    for node, action in concats:
        if not action.steps or any(step.kind != "copy_rows" for step in action.steps):
            continue
        kept = []
        for step in action.steps:
            name = step.tensors["x"]
            movable = (
                name not in fixed
                and name not in parts
                and list(node.inputs).count(name) == 1
                and bool(writers.get(name) or name in whole)
                and all(strided(name, s) for s in writers.get(name, []))
                and all(strided(name, s) for s in readers.get(name, []))
                and out.specs[name].dtype == "float32"
            )
            if movable:
                parts[name] = (node.outputs[0], step.ints["to"])
                whole.add(node.outputs[0])
            else:
                kept.append(step)
        action.steps = kept
    return parts


def _places(
    graph: Graph, out: Lowered, constants: Mapping[str, Constant], parents: dict[str, str], parts: dict[str, tuple[str, int]]
) -> None:
    outside = {t.name for t in graph.inputs} | set(constants) | set(out.known) | set(out.literals)

    def resolve(name: str) -> Place:
        if name in out.places:
            return out.places[name]
        if name in parents:
            above = resolve(parents[name])
            place = Place(above.root, above.offset, None)
        elif name in parts:
            whole, column = parts[name]
            above = resolve(whole)
            place = Place(above.root, above.offset + column, above.row_stride or int(out.specs[whole].shape[-1]))
        else:
            place = Place(name, 0, None)
            if name not in outside and name not in out.roots:
                out.roots[name] = nbytes(out.specs[name])
        out.places[name] = place
        return place

    for action in out.actions:
        names = list(action.node.inputs) + list(action.node.outputs) if action.steps is None else []
        for step in action.steps or ():
            names.extend(step.tensors.values())
        for name in names:
            if name and not (name in constants and constants[name].coded):
                resolve(name)
    for spec in graph.outputs:
        resolve(spec.name)


def _lives(graph: Graph, out: Lowered) -> None:
    def touch(name: str, index: int) -> None:
        if name not in out.places:
            return
        root = out.places[name].root
        if root in out.roots:
            first, last = out.lives.get(root, (index, index))
            out.lives[root] = (min(first, index), max(last, index))

    for index, action in enumerate(out.actions):
        if action.steps is None:
            for name in (*action.node.inputs, *action.node.outputs):
                touch(name, index)
        for step in action.steps or ():
            for name in step.tensors.values():
                touch(name, index)
        for name in action.workspaces:
            if name in out.lives or name in out.roots:
                first, last = out.lives.get(name, (index, index))
                out.lives[name] = (min(first, index), max(last, index))
    for spec in graph.outputs:
        touch(spec.name, len(out.actions))
    for root in list(out.roots):
        if root not in out.lives:  # produced by nothing that runs
            del out.roots[root]
