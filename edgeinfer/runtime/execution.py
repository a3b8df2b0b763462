"""A lowered graph bound to memory: the arena's regions, the programs, and how one round of images runs through its segments.

A segment is a run of consecutive actions with one batch size (:mod:`edgeinfer.runtime.batching`). Each has a program of its own. A buffer
that only one segment touches has that segment's batch; a buffer that is written in one and read in a later one (a *boundary buffer*) has
the batch of the last segment that reads it, and every run of an earlier segment works on its own images within it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ContainerError
from ..kernels.codec import CodedRows
from ..kernels.loader import ReadAhead
from ..kernels.program import ALGORITHMS, STEP_FIELDS, Program
from ..ops import OPERATORS, Step
from ..ops.checks import extents
from . import arena, profile
from .batching import Segment
from .layout import Interval, align, place
from .lowering import Action, Lowered, Place, lower, nbytes
from .residency import Piece, ring_places
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


@dataclass(frozen=True)
class Boundary:
    """A buffer that several segments touch: ``batch`` images of ``image`` bytes each."""

    batch: int
    image: int


class Lowerings:
    """The lowered graph for each batch size, made when it is asked for. ``symbols``: all but the batch."""

    def __init__(self, store: WeightStore, symbols: Mapping[str, int]) -> None:
        self.store = store
        self.symbols = dict(symbols)
        self._made: dict[int, Lowered] = {}

    def __getitem__(self, batch: int) -> Lowered:
        if batch not in self._made:
            symbols = dict(self.symbols)
            if self.store.graph.batch is not None:
                symbols[self.store.graph.batch] = batch
            self._made[batch] = lower(self.store.graph, self.store.constants, self.store.plain, symbols)
        return self._made[batch]


class _Part:
    """One segment: its actions as a program."""

    def __init__(
        self,
        store: WeightStore,
        lowered: Lowered,
        segment: Segment,
        offsets: Mapping[str, int],
        boundaries: Mapping[str, Boundary],
        kernels: str,
        scratch_limit: int | None,
    ) -> None:
        self.store = store
        self.lowered = lowered
        self.segment = segment
        self._offset = offsets
        self._scratch_limit = scratch_limit
        self._rates = profile.profile_of(kernels)
        self.choices: dict[str, profile.Choice] = {}
        self.seconds_expected: list[float] = []
        names = [spec.name for spec in store.graph.inputs]
        self._slots = {name: FIRST_INPUT + i for i, name in enumerate(names)}
        #: bytes per image of each input that has a batch
        self._image = {
            spec.name: nbytes(lowered.specs[spec.name]) // segment.batch
            for spec in store.graph.inputs
            if store.graph.batch is not None and spec.shape and spec.shape[0] == store.graph.batch
        }
        self._boundaries = {root: b for root, b in boundaries.items() if root in lowered.lives}
        self._boundary_slots = {root: FIRST_INPUT + len(names) + i for i, root in enumerate(self._boundaries)}
        self.image = 0  # first image of the round that the part works on now
        actions = lowered.actions[segment.first : segment.end]
        self._literals, self._literal_offset = self._pack_literals(actions)
        self.program = Program(kernels)
        #: steps whose weights are streamed, in order
        self.streamed: list[tuple[int, Piece, CodedRows]] = []
        #: per action: (first step, end step), or None for a NumPy form
        self.ranges: list[tuple[int, int] | None] = [self._append(action) for action in actions]
        self.literal_bytes = self._literals.nbytes
        self._memory: arena.Mapping | None = None

    def _pack_literals(self, actions: Sequence[Action]) -> tuple[np.ndarray, dict[str, int]]:
        named = {n for action in actions for step in action.steps or () for n in step.tensors.values()}
        roots = {self.lowered.places[n].root for n in named if n in self.lowered.places} | named
        needed = {n: self.lowered.literals.get(n, self.lowered.known.get(n)) for n in (*self.lowered.literals, *self.lowered.places)}
        offsets: dict[str, int] = {}
        total = 0
        for name, value in needed.items():
            if value is not None and name in roots:
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
        if at.root in self._boundary_slots:
            return self._boundary_slots[at.root], extra
        if at.root in self._offset:
            return ARENA, self._offset[at.root] + extra
        if at.root in self._slots:
            return self._slots[at.root], extra
        if at.root in self._literal_offset:
            return LITERALS, self._literal_offset[at.root] + extra
        return WEIGHTS, self.store.offsets[at.root] + extra

    def _choose(self, node: str, step: Step) -> Step:
        """The step with the algorithm that the device's rates and the limit on scratch leave as the fastest, whatever the batch."""
        assert step.weights is not None
        choice = profile.choose(step, self.store.entries[step.weights], self._rates)
        if self._scratch_limit is not None:
            lean = {}
            for name, seconds in choice.seconds.items():
                ints = {**step.ints, "images": 1, "algorithm": ALGORITHMS[name]}
                if name == "direct" or self.program.scratch_of(step.kind, ints, self.store.coded[step.weights]) <= self._scratch_limit:
                    lean[name] = seconds
            choice = profile.Choice(min(lean, key=lambda name: lean[name]), lean)
        if len(choice.seconds) > 1:
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
            tensors = {role: self._address(name) for role, name in step.tensors.items()}
            pieces = self.store.residency.pieces_of(step.weights) if step.weights else ()
            for piece in pieces:
                self._append_rows(step, tensors, ints, piece)
            if not pieces:
                self.program.append(
                    step.kind, tensors, ints, step.floats, self.store.weights_of(step.weights) if step.weights else None
                )
        self.seconds_expected.append(expected)
        return first, len(self.program)

    def _append_rows(self, step: Step, tensors: Mapping[str, tuple[int, int]], ints: Mapping[str, int], piece: Piece) -> None:
        """The part of a product that some of its output rows are: a product of its own, beside the others in y."""
        rows = self.store.rows_of(piece)
        channels = ints["in_c"] // ints["groups"]
        moved = {
            role: (slot, offset + 4 * (piece.group * channels if role == "x" else rows.first_row))
            for role, (slot, offset) in tensors.items()
        }
        own = {**ints, "in_c": channels, "out_c": rows.rows, "groups": 1}
        if piece.streamed:
            self.streamed.append((len(self.program), piece, rows))
        self.program.append(step.kind, moved, own, step.floats, rows)

    def bind(self, memory: arena.Mapping, scratch: tuple[int, int]) -> None:
        assert self.store.mapping is not None
        self._memory = memory
        self.program.set_slot(ARENA, memory.address, memory.nbytes)
        self.program.set_slot(WEIGHTS, self.store.mapping.address, self.store.mapping.nbytes)
        self.program.set_slot(LITERALS, int(self._literals.__array_interface__["data"][0]), self._literals.nbytes)
        if scratch[1]:
            self.program.set_scratch(memory.address + scratch[0], scratch[1])

    def point(self, inputs: Mapping[str, np.ndarray], image: int) -> None:
        """Work on the images of a round from ``image`` on."""
        assert self._memory is not None
        self.image = image
        for name, array in inputs.items():
            skip = image * self._image.get(name, 0)
            self.program.set_slot(self._slots[name], int(array.__array_interface__["data"][0]) + skip, array.nbytes - skip)
        for root, slot in self._boundary_slots.items():
            skip = self._skip(root)
            boundary = self._boundaries[root]
            self.program.set_slot(slot, self._memory.address + self._offset[root] + skip, boundary.batch * boundary.image - skip)

    def _skip(self, root: str) -> int:
        boundary = self._boundaries[root]
        return self.image % boundary.batch * boundary.image

    def tensor(self, name: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        spec = self.lowered.specs[name]
        if name in self.lowered.known:
            return self.lowered.known[name]
        at = self.lowered.places[name]
        if at.root in self._offset:
            assert self._memory is not None
            skip = self._skip(at.root) if at.root in self._boundaries else 0
            return self._memory.view(self._offset[at.root] + skip + at.offset * 4, extents(spec), spec.dtype, at.row_stride)
        if at.root in self._slots:
            array = inputs[at.root]
            if at.root in self._image and self.segment.batch != array.shape[0]:
                array = array[self.image : self.image + self.segment.batch]
            return array.reshape(extents(spec))
        return self.store.plain(at.root).reshape(extents(spec))

    def run_numpy(self, action: Action, inputs: Mapping[str, np.ndarray]) -> None:
        if self.program.stopped:
            raise Stopped
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


class Execution:
    """One graph for one set of input shapes.

    Args:
        store: weights; need not be loaded until :meth:`bind`.
        symbols: value of every symbolic dimension; that of the batch is the number of images of a round.
        kernels: name of the kernel variant.
        threads: threads that run a step.
        segments: consecutive segments that cover all actions, the batch of the last being that of the round; default: one.
        ring_bytes: memory for reading ahead what the store streams.
        lowerings: made before, for the same store and symbols.
        scratch_limit: most bytes of scratch per thread of any algorithm but direct; 0 makes every convolution direct.

    Attributes:
        lowered: for the batch of the round; ``parts``: the segments.
        regions: the arena's layout; ``arena_bytes`` its size; ``literal_bytes``: small arrays that the programs refer to;
        ``transient``: the largest temporary memory of an operator in NumPy form; ``seconds_expected``: of one round on one thread, by
        action; ``choices``: node -> the algorithm of its convolution, and why.
    """

    def __init__(
        self,
        store: WeightStore,
        symbols: Mapping[str, int],
        kernels: str,
        threads: int,
        segments: Sequence[Segment] | None = None,
        ring_bytes: int = 0,
        lowerings: Lowerings | None = None,
        scratch_limit: int | None = None,
    ) -> None:
        self.store = store
        self.graph = store.graph
        self.threads = threads
        batch = symbols[self.graph.batch] if self.graph.batch is not None else 1
        if lowerings is None:
            lowerings = Lowerings(store, {k: v for k, v in symbols.items() if k != self.graph.batch})
        self.lowered = lowerings[batch]
        self.batch = batch
        actions = len(self.lowered.actions)
        self.segments = list(segments) if segments else [Segment(0, actions, batch)]
        if self.segments[-1].batch != batch or self.segments[0].first != 0 or self.segments[-1].end != actions:
            raise ValueError(f"segments {self.segments} do not cover {actions} actions with a last batch of {batch}")
        parts = [lowerings[segment.batch] for segment in self.segments]
        boundaries = self._shared_buffers(parts)
        names = list(self.lowered.lives)
        intervals = [self._interval(name, parts, boundaries) for name in names]
        if ring_bytes:
            names.append("read-ahead")
            intervals.append(Interval(ring_bytes, 0, actions))
        offsets, activations = place(intervals)
        offset = dict(zip(names, offsets, strict=True))
        self.regions = [Region(n, o, i.nbytes, i.first, i.last) for n, o, i in zip(names, offsets, intervals, strict=True)]
        self.parts = [
            _Part(store, low, segment, offset, boundaries, kernels, scratch_limit)
            for low, segment in zip(parts, self.segments, strict=True)
        ]
        self.scratch_bytes = max((align(p.program.scratch_bytes) for p in self.parts if len(p.program)), default=0)
        self._scratch_offset = activations
        if self.scratch_bytes:
            self.regions.append(Region("scratch", activations, self.scratch_bytes * threads, 0, actions))
        self.arena_bytes = activations + self.scratch_bytes * threads
        self.choices = {node: choice for part in self.parts for node, choice in part.choices.items()}
        self.seconds_expected = [s * (batch // part.segment.batch) for part in self.parts for s in part.seconds_expected]
        self.literal_bytes = sum(part.literal_bytes for part in self.parts)
        self.transient = self.lowered.transient
        self.profiling = False
        self.seconds: list[float] = []
        self._ring = (offset.get("read-ahead", 0), ring_bytes)
        self._fetches = self._order()
        self._reader: ReadAhead | None = None
        self._fetched: list[tuple[list[int], int]] = []
        self._next = 0
        self._memory: arena.Mapping | None = None

    def _segment_of(self, action: int) -> int:
        for index, segment in enumerate(self.segments):
            if action < segment.end:
                return index
        return len(self.segments) - 1  # outputs are read after the last action

    def _shared_buffers(self, parts: Sequence[Lowered]) -> dict[str, Boundary]:
        found = {}
        for root, (first, last) in self.lowered.lives.items():
            before, behind = self._segment_of(first), self._segment_of(last)
            if before != behind:
                batch = self.segments[behind].batch
                found[root] = Boundary(batch, parts[behind].roots[root] // batch)
        return found

    def _interval(self, root: str, parts: Sequence[Lowered], boundaries: Mapping[str, Boundary]) -> Interval:
        first, last = self.lowered.lives[root]
        if root in boundaries:  # the segments before run again and again while it fills
            return Interval(boundaries[root].batch * boundaries[root].image, 0, last)
        return Interval(parts[self._segment_of(first)].roots[root], first, last)

    def _order(self) -> list[Piece]:
        """Streamed pieces in the order in which a round needs them."""
        order: list[Piece] = []

        def visit(index: int) -> None:
            part = self.parts[index]
            if index:
                for _ in range(part.segment.batch // self.segments[index - 1].batch):
                    visit(index - 1)
            order.extend(piece for _, piece, _ in part.streamed)

        if any(part.streamed for part in self.parts):
            visit(len(self.parts) - 1)
        return order

    @property
    def program(self) -> Program:
        """The program of the last segment."""
        return self.parts[-1].program

    @property
    def stopped(self) -> bool:
        """The stop word: while it is set no step begins. May be set from any thread."""
        return self.parts[0].program.stopped

    @stopped.setter
    def stopped(self, value: bool) -> None:
        for part in self.parts:
            part.program.stopped = value

    @property
    def stream_statistics(self) -> tuple[int, float, float]:
        """Of the last run: (bytes streamed, seconds that took, seconds that were waited for them)."""
        return self._reader.statistics if self._reader is not None else (0, 0.0, 0.0)

    def bind(self, memory: arena.Mapping) -> None:
        """Point the programs at an arena of at least ``arena_bytes`` and at the loaded weights."""
        self._memory = memory
        for part in self.parts:
            part.bind(memory, (self._scratch_offset, self.scratch_bytes))
        if self._fetches and self._reader is None:
            sizes = [[size for _, size, _ in self.store.ranges[piece]] for piece in self._fetches]
            self._fetched = ring_places(sizes, self._ring[1])
            ranges = []
            ends = [0]
            for piece, (offsets, after) in zip(self._fetches, self._fetched, strict=True):
                for (offset, size, crc), to in zip(self.store.ranges[piece], offsets, strict=True):
                    ranges.append((offset, size, to, crc, ends[after]))
                ends.append(len(ranges))
            self._ends = ends
            self._reader = ReadAhead(self.store.fileno(), ranges)

    def tensor(self, name: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The values of a tensor of the last segment, as a view of where they lie; valid while its buffer lives."""
        return self.parts[-1].tensor(name, inputs)

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
        on_layer: Callable[[str, float, int], None] | None = None,
    ) -> None:
        """Run one round: contiguous ``inputs`` by name, results copied into the arrays of ``outputs``.

        ``on_layer(name, seconds, bytes)`` is called after every node with the bytes it wrote. Raises Stopped, KernelError, and
        ContainerError or OSError where streamed weights cannot be read.
        """
        try:  # whatever ends the run, a signal while it begins as well: nothing writes to the arena afterwards
            self.begin(inputs)
            self._run_part(len(self.parts) - 1, 0, inputs, on_layer)
            for name, array in outputs.items():
                array[...] = self.tensor(name, inputs)
        finally:
            self.end()

    def begin(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Point the programs at contiguous ``inputs``; they must stay where they are until the last action that reads them."""
        self.seconds = [0.0] * len(self.lowered.actions)
        self._next = 0
        if self._reader is not None:
            assert self._memory is not None
            self._reader.start(self._memory.address + self._ring[0])
        for part in self.parts:
            part.point(inputs, 0)

    def end(self) -> None:
        """Stop reading ahead."""
        if self._reader is not None:
            self._reader.stop()

    def _run_part(
        self, index: int, image: int, inputs: Mapping[str, np.ndarray], on_layer: Callable[[str, float, int], None] | None
    ) -> None:
        part = self.parts[index]
        if index:
            step = self.segments[index - 1].batch
            for at in range(image, image + part.segment.batch, step):
                self._run_part(index - 1, at, inputs, on_layer)
        if image != part.image:
            part.point(inputs, image)
        self._advance(part, inputs, 0, len(part.ranges), on_layer)

    def advance(
        self,
        inputs: Mapping[str, np.ndarray],
        first: int,
        last: int,
        on_layer: Callable[[str, float, int], None] | None = None,
    ) -> None:
        """Run the actions ``first .. last - 1`` of a plan of one segment, after :meth:`begin`. Raises Stopped, KernelError."""
        if len(self.parts) != 1:
            raise ValueError("only a plan of one segment can pause")
        self._advance(self.parts[0], inputs, first, last, on_layer)

    def _advance(
        self,
        part: _Part,
        inputs: Mapping[str, np.ndarray],
        first: int,
        last: int,
        on_layer: Callable[[str, float, int], None] | None,
    ) -> None:
        each = on_layer is not None or self.profiling
        index = first
        while index < last:
            began = time.perf_counter() if each else 0.0
            steps = part.ranges[index]
            number = part.segment.first + index
            action = part.lowered.actions[number]
            if steps is None:
                part.run_numpy(action, inputs)
                index += 1
            else:
                start, end = steps
                index += 1
                while not each and index < last:
                    following = part.ranges[index]
                    if following is None:
                        break
                    end = following[1]
                    index += 1
                self._run_steps(part, start, end)
            if each:
                seconds = time.perf_counter() - began
                self.seconds[number] += seconds
                if on_layer is not None:
                    on_layer(action.node.name, seconds, sum(nbytes(part.lowered.specs[n]) for n in action.node.outputs if n))

    def _run_steps(self, part: _Part, first: int, end: int) -> None:
        at = first
        if self._reader is not None:
            assert self._memory is not None
            for step, piece, rows in part.streamed:
                if not first <= step < end:
                    continue
                if at < step and part.program.run(at, step, self.threads) != step:
                    raise Stopped
                base = self._memory.address + self._ring[0]
                problem = self._reader.acquire(self._ends[self._next + 1] - 1)
                if problem:
                    raise ContainerError(f"{self.store.path}: tensor {piece.tensor!r}: {problem}")
                rows.place(*(base + offset for offset in self._fetched[self._next][0]))
                if part.program.run(step, step + 1, self.threads) != step + 1:
                    raise Stopped
                self._next += 1
                self._reader.release(self._ends[self._next])
                at = step + 1
        if at < end and part.program.run(at, end, self.threads) != end:
            raise Stopped

    def profile(self) -> list[tuple[str, str, float]]:
        """(node, operator, seconds) of the last round made with ``profiling`` on."""
        return [(a.node.name, a.node.op, s) for a, s in zip(self.lowered.actions, self.seconds, strict=False)]
