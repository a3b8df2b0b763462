"""A lowered graph bound to memory: the arena's regions, the program, and how one slice of a batch runs through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.program import ALGORITHMS, STEP_FIELDS, Program
from ..ops import OPERATORS, Step
from ..ops.checks import extents
from . import arena, profile
from .layout import Interval, align, place
from .lowering import Action, Lowered, Place, lower, nbytes
from .weights import WeightStore

#: slots of a program: what addresses in steps are relative to
ARENA, WEIGHTS, LITERALS, FIRST_INPUT = 0, 1, 2, 3


class Stopped(Exception):
    """The stop word was raised between two steps."""


@dataclass(frozen=True)
class Region:
    """A piece of the arena: bytes ``offset .. offset + nbytes`` belong to ``name`` from action ``first`` to action ``last``."""

    name: str
    offset: int
    nbytes: int
    first: int
    last: int


class Execution:
    """One graph for one set of input shapes.

    Args:
        store: weights; need not be loaded until :meth:`bind`.
        symbols: value of every symbolic dimension.
        kernels: name of the kernel variant.
        threads: threads that run a step.
        scratch_limit: most bytes of scratch per thread of any algorithm but direct; 0 makes every convolution direct.

    Attributes:
        regions: the arena's layout; ``arena_bytes`` its size; ``literal_bytes``: small arrays that the program refers to;
        ``transient``: the largest
        temporary memory of an operator in NumPy form; ``seconds_expected``: of one run on one thread, by action;
        ``choices``: node -> the algorithm of its convolution, and why.
    """

    def __init__(
        self, store: WeightStore, symbols: Mapping[str, int], kernels: str, threads: int, scratch_limit: int | None = None
    ) -> None:
        self.store = store
        self.graph = store.graph
        self.threads = threads
        self.lowered: Lowered = lower(self.graph, store.constants, store.plain, symbols)
        low = self.lowered
        names = list(low.lives)
        intervals = [Interval(low.roots[n], *low.lives[n]) for n in names]
        offsets, activations = place(intervals)
        self._offset = dict(zip(names, offsets, strict=True))
        self.regions = [Region(n, o, i.nbytes, i.first, i.last) for n, o, i in zip(names, offsets, intervals, strict=True)]
        self._slots = {spec.name: FIRST_INPUT + i for i, spec in enumerate(self.graph.inputs)}
        self._literals, self._literal_offset = self._pack_literals()
        self.program = Program(kernels)
        self.choices: dict[str, profile.Choice] = {}
        self._rates = profile.profile_of(kernels)
        self._scratch_limit = scratch_limit
        self.seconds_expected: list[float] = []
        #: per action: (first step, end step), or None for a NumPy form
        self._ranges: list[tuple[int, int] | None] = []
        for action in low.actions:
            self._ranges.append(self._append(action))
        self.scratch_bytes = align(self.program.scratch_bytes) if len(self.program) else 0
        self._scratch_offset = activations
        if self.scratch_bytes:
            self.regions.append(Region("scratch", activations, self.scratch_bytes * threads, 0, len(low.actions)))
        self.arena_bytes = activations + self.scratch_bytes * threads
        self.literal_bytes = self._literals.nbytes
        self.transient = low.transient
        self.profiling = False
        self.seconds: list[float] = []
        self._arena: arena.Mapping | None = None

    def _pack_literals(self) -> tuple[np.ndarray, dict[str, int]]:
        needed = {n: self.lowered.literals.get(n, self.lowered.known.get(n)) for n in (*self.lowered.literals, *self.lowered.places)}
        offsets: dict[str, int] = {}
        total = 0
        for name, value in needed.items():
            if value is not None:
                offsets[name] = total
                total += align(value.nbytes)
        packed = np.zeros(total + 64, dtype=np.uint8)
        for name, offset in offsets.items():
            value = np.ascontiguousarray(needed[name])
            packed[offset : offset + value.nbytes] = value.reshape(-1).view(np.uint8)
        return packed, offsets

    def _address(self, name: str) -> tuple[int, int]:
        """(slot, byte offset) of a tensor."""
        at: Place = self.lowered.places[name]
        extra = at.offset * 4  # only float32 tensors are parts of others
        if at.root in self._offset:
            return ARENA, self._offset[at.root] + extra
        if at.root in self._slots:
            return self._slots[at.root], extra
        if at.root in self._literal_offset:
            return LITERALS, self._literal_offset[at.root] + extra
        return WEIGHTS, self.store.offsets[at.root] + extra

    def _choose(self, node: str, step: Step) -> Step:
        """The step with the algorithm that the device's rates and the limit on scratch leave as the fastest."""
        assert step.weights is not None
        choice = profile.choose(step, self.store.entries[step.weights], self._rates)
        lean = choice.seconds
        if self._scratch_limit is not None:
            lean = {}
            for name, seconds in choice.seconds.items():
                ints = {**step.ints, "algorithm": ALGORITHMS[name]}
                if name == "direct" or self.program.scratch_of(step.kind, ints, self.store.coded[step.weights]) <= self._scratch_limit:
                    lean[name] = seconds
        choice = profile.Choice(min(lean, key=lambda name: lean[name]), lean)
        if len(lean) > 1:
            self.choices[node] = choice
        return replace(step, ints={**step.ints, "algorithm": ALGORITHMS[choice.algorithm]})

    def _append(self, action: Action) -> tuple[int, int] | None:
        if action.steps is None:
            self.seconds_expected.append(0.0)
            return None
        first = len(self.program)
        expected = 0.0
        for step in action.steps:
            algorithm = "direct"
            if step.kind == "conv":
                step = self._choose(action.node.name, step)
                algorithm = next(name for name, code in ALGORITHMS.items() if code == step.ints["algorithm"])
            entry = self.store.entries[step.weights] if step.weights else None
            expected += self._rates.seconds(profile.amounts(step, entry, algorithm))
            ints = dict(step.ints)
            for role, name in step.tensors.items():
                stride = self.lowered.places[name].row_stride
                field = f"{role}_ld"
                shape = self.lowered.specs[name].shape if name in self.lowered.specs else ()
                if stride is not None:
                    ints[field] = stride
                elif field not in ints and field in STEP_FIELDS[step.kind][1]:
                    ints[field] = int(shape[-1]) if shape else 1
            self.program.append(
                step.kind,
                {role: self._address(name) for role, name in step.tensors.items()},
                ints,
                step.floats,
                self.store.coded[step.weights] if step.weights else None,
            )
        self.seconds_expected.append(expected)
        return first, len(self.program)

    def bind(self, memory: arena.Mapping) -> None:
        """Point the program at an arena of at least ``arena_bytes`` and at the loaded weights."""
        assert self.store.mapping is not None
        self._arena = memory
        self.program.set_slot(ARENA, memory.address, memory.nbytes)
        self.program.set_slot(WEIGHTS, self.store.mapping.address, self.store.mapping.nbytes)
        self.program.set_slot(LITERALS, int(self._literals.__array_interface__["data"][0]), self._literals.nbytes)
        if self.scratch_bytes:
            self.program.set_scratch(memory.address + self._scratch_offset, self.scratch_bytes)

    def tensor(self, name: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The values of a tensor of the lowered graph, as a view of where they lie; valid while its buffer lives."""
        spec = self.lowered.specs[name]
        if name in self.lowered.known:
            return self.lowered.known[name]
        at = self.lowered.places[name]
        if at.root in self._offset:
            assert self._arena is not None
            return self._arena.view(self._offset[at.root] + at.offset * 4, extents(spec), spec.dtype, at.row_stride)
        if at.root in self._slots:
            return inputs[at.root].reshape(extents(spec))
        return self.store.plain(at.root).reshape(extents(spec))

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
        on_layer: Callable[[str, float, int], None] | None = None,
    ) -> None:
        """Run once: contiguous ``inputs`` by name, results copied into the arrays of ``outputs``.

        ``on_layer(name, seconds, bytes)`` is called after every node with the bytes it wrote. Raises Stopped, KernelError.
        """
        self.begin(inputs)
        self.advance(inputs, 0, len(self._ranges), on_layer)
        for name, array in outputs.items():
            array[...] = self.tensor(name, inputs)

    def begin(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Point the program at contiguous ``inputs``; they must stay where they are until the last action that reads them."""
        for name, array in inputs.items():
            self.program.set_slot(self._slots[name], int(array.__array_interface__["data"][0]), array.nbytes)
        self.seconds = []

    def advance(
        self,
        inputs: Mapping[str, np.ndarray],
        first: int,
        last: int,
        on_layer: Callable[[str, float, int], None] | None = None,
    ) -> None:
        """Run the actions ``first .. last - 1`` after :meth:`begin`. Raises Stopped, KernelError."""
        each = on_layer is not None or self.profiling
        index = first
        while index < last:
            began = time.perf_counter() if each else 0.0
            steps = self._ranges[index]
            action = self.lowered.actions[index]
            if steps is None:
                self._run_numpy(action, inputs)
                index += 1
            else:
                start, end = steps
                index += 1
                while not each and index < last:
                    following = self._ranges[index]
                    if following is None:
                        break
                    end = following[1]
                    index += 1
                if self.program.run(start, end, self.threads) != end:
                    raise Stopped
            if each:
                seconds = time.perf_counter() - began
                self.seconds.append(seconds)
                if on_layer is not None:
                    on_layer(action.node.name, seconds, sum(nbytes(self.lowered.specs[n]) for n in action.node.outputs if n))

    def _run_numpy(self, action: Action, inputs: Mapping[str, np.ndarray]) -> None:
        node = action.node
        arrays: list[np.ndarray | None] = []
        for name in node.inputs:
            if not name:
                arrays.append(None)
            elif name in self.store.coded:
                tensor = self.store.coded[name]
                arrays.append(tensor.decode(self.program.kernels).reshape(self.lowered.specs[name].shape))
            else:
                arrays.append(self.tensor(name, inputs))
        for name, result in zip(node.outputs, OPERATORS[node.op]().run(node, arrays), strict=False):
            if name and name in self.lowered.places:
                self.tensor(name, inputs)[...] = result

    def profile(self) -> list[tuple[str, str, float]]:
        """(node, operator, seconds) of the last run made with ``profiling`` on."""
        return [(a.node.name, a.node.op, s) for a, s in zip(self.lowered.actions, self.seconds, strict=False)]
