"""The plan: batch size of every layer, residency of every weight, place of every buffer, and what the whole process takes at its peak.

A plan is made before the first weight is read (of tensors that may be streamed or decoded it reads the small tables). It is frozen and
printable; the session executes it. Under a memory limit it is the fastest found: one segment with everything compressed in memory where
that fits; else, for several ways to share the room between activations and weights, the segments that the dynamic program of
:mod:`edgeinfer.runtime.batching` names and the residency that fits beside them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import KernelError, PlanError, UsageError
from ..kernels.codec import available_kernels
from ..kernels.loader import trim_allocator
from ..kernels.program import MOST_THREADS
from ..sizes import parse_size
from . import profile
from .arena import pages
from .batching import Segment, best, candidates
from .blocks import alike, blocks, cuts, numpy_seconds
from .ceiling import footprint
from .execution import Execution, Lowerings, Region
from .lowering import Action, Lowered, nbytes
from .profile import Choice
from .residency import COMPRESSED, Residency, Unit, decode, least_ring, padded, stream
from .weights import WeightStore, resident

#: resident bytes that a pool thread takes beside its scratch: stack pages it touches and the kernel's share (measured 12 to 20 KiB)
THREAD_BYTES = 24 << 10
#: Python objects that running makes and a plan cannot see: the monitor's thread, frames, small arrays, pages of code touched
#: for the first time by the kernels (measured over the light networks, docs/benchmarks.md)
RUN_BYTES = 448 << 10
#: what streaming adds to that: ranges, rows, the reader
STREAM_BYTES = 192 << 10
#: a ceiling named as the smallest must work in another process, whose baseline differs by address space layout
BASELINE_SPREAD = 512 << 10
#: bytes per second that storage delivers where nothing better is known: an SD card of a Raspberry Pi 4
STORAGE_RATE = 45e6
#: factor on the time of plans that stream: what waits and shorter steps cost; it also decides ties for plans that read nothing
STREAMING_COST = 1.05
#: tensors smaller than this are never streamed: a read of less costs a card as much
LEAST_STREAMED = 128 << 10
#: threads whose work adds up in the time model; more wait for each other or for memory
USEFUL_THREADS = 4
#: resident bytes that the search under a limit leaves behind, in any case and per action and batch size (measured: 0.3 to 2.1 MiB in all)
SEARCH_BYTES = 2304 << 10
SEARCH_ACTION_BYTES = 4 << 10
#: how much more of that one process may keep than another
SEARCH_SPREAD = 384 << 10
#: samples per run, at most: sizes in bytes stay far from the range of the kernels' integers
MOST_BATCH = 1 << 20


def choose_kernels(name: str | None = None) -> str:
    """The kernel variant to use: ``name``, else ``EDGEINFER_KERNELS``, else the best this CPU has. Raises KernelError."""
    available = available_kernels()
    name = name or os.environ.get("EDGEINFER_KERNELS") or available[0]
    if name not in available:
        raise KernelError(f"kernel variant {name!r} is not available on this CPU with this build; available: {', '.join(available)}")
    return name


def choose_threads(threads: int | None = None) -> int:
    """``threads``, else ``EDGEINFER_THREADS``, else the cores that this process may use. Raises UsageError."""
    if threads is None:
        text = os.environ.get("EDGEINFER_THREADS", "")
        if text:
            try:
                threads = int(text)
            except ValueError:
                raise UsageError(f"EDGEINFER_THREADS: expected a positive number, found {text!r}") from None
        else:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads: expected 1 to {MOST_THREADS}, found {threads}")
    return threads


def choose_limit(limit: str | int | None = None) -> int | None:
    """``limit`` in bytes, else ``EDGEINFER_MEMORY_LIMIT``, else none. Raises UsageError."""
    text = os.environ.get("EDGEINFER_MEMORY_LIMIT")
    if limit is not None or not text:
        return None if limit is None else parse_size(limit)
    try:
        return parse_size(text)
    except UsageError as error:
        raise UsageError(f"EDGEINFER_MEMORY_LIMIT: {error}") from None


@dataclass(frozen=True)
class Plan:
    """What a session will do, and the memory it will take. All sizes in bytes.

    ``batch``: images per round; ``requested``: images per run it was planned for; ``segments``: consecutive actions with their batch, the
    last batch being that of the round. ``predicted_peak_rss`` covers the whole process. ``streamed_bytes``: read from storage per round.
    """

    model: str
    kernels: str
    threads: int
    requested: int
    batch: int
    segments: tuple[Segment, ...]
    memory_limit: int | None
    latency_limit: float | None
    smallest_ceiling: int
    baseline_rss: int
    compressed_resident_bytes: int
    decoded_bytes: int
    streamed_bytes: int
    table_bytes: int
    arena_bytes: int
    io_bytes: int
    other_bytes: int
    predicted_peak_rss: int
    predicted_ms_per_image: float
    regions: tuple[Region, ...] = field(repr=False)
    nodes: tuple[str, ...] = field(repr=False)
    node_ms: tuple[float, ...] = field(repr=False, default=())
    choices: tuple[tuple[str, Choice], ...] = field(repr=False, default=())
    residency: Residency = field(repr=False, default=COMPRESSED)
    scratch_limit: int | None = field(repr=False, default=None)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values with the keys of ``edgeinfer plan --json``."""
        return {
            "memory_limit": self.memory_limit,
            "latency_limit": self.latency_limit,
            "smallest_ceiling": self.smallest_ceiling,
            "predicted_peak_rss": self.predicted_peak_rss,
            "baseline_rss": self.baseline_rss,
            "arena_bytes": self.arena_bytes,
            "compressed_resident_bytes": self.compressed_resident_bytes,
            "table_bytes": self.table_bytes,
            "io_bytes": self.io_bytes,
            "other_bytes": self.other_bytes,
            "batch": self.requested,
            "round": self.batch,
            "segments": [{"nodes": list(self.nodes[s.first : s.end]), "batch": s.batch} for s in self.segments],
            "predicted_ms_per_image": self.predicted_ms_per_image,
            "residency": {"decoded": self.decoded_bytes, "compressed": self.compressed_resident_bytes, "streamed": self.streamed_bytes},
            "kernels": self.kernels,
            "threads": self.threads,
            "algorithms": [
                {"node": n, "algorithm": c.algorithm, "expected_ms": {a: s * 1e3 for a, s in c.seconds.items()}} for n, c in self.choices
            ],
            "regions": [{"name": r.name, "offset": r.offset, "bytes": r.nbytes, "first": r.first, "last": r.last} for r in self.regions],
        }

    def table(self) -> str:
        """The plan for people."""
        mib = 1 << 20
        limit = f"{self.memory_limit / mib:.1f} MiB" if self.memory_limit else "none"
        latency = f"{self.latency_limit * 1e3:.1f} ms per round" if self.latency_limit else "none"
        lines = [
            f"model                {self.model}",
            f"kernels, threads     {self.kernels}, {self.threads}",
            f"batch                {self.requested}" + (f" in rounds of {self.batch}" if self.batch != self.requested else ""),
            f"memory limit         {limit}",
            f"latency limit        {latency}",
            "",
            f"{'baseline (Python, libraries)':<34}{self.baseline_rss / mib:10.2f} MiB",
            f"{'compressed weights in memory':<34}{self.compressed_resident_bytes / mib:10.2f} MiB",
        ]
        if self.decoded_bytes:
            lines.append(f"{'decoded weights in memory':<34}{self.decoded_bytes / mib:10.2f} MiB")
        lines += [
            f"{'decode tables, row scales':<34}{self.table_bytes / mib:10.2f} MiB",
            f"{'arena (activations, scratch)':<34}{self.arena_bytes / mib:10.2f} MiB",
            f"{'inputs and outputs':<34}{self.io_bytes / mib:10.2f} MiB",
            f"{'threads, temporaries':<34}{self.other_bytes / mib:10.2f} MiB",
            f"{'predicted peak of the process':<34}{self.predicted_peak_rss / mib:10.2f} MiB",
            f"{'smallest ceiling that would do':<34}{self.smallest_ceiling / mib:10.2f} MiB",
            "",
            f"segments             {len(self.segments)}",
        ]
        lines += [
            f"  batch {s.batch:<6}          nodes {s.first}..{s.end - 1}: {self.nodes[s.first]} .. {self.nodes[s.end - 1]}"
            for s in self.segments
            if s.end > s.first
        ]
        streamed = f", {self.streamed_bytes / mib:.2f} MiB read from storage in every round" if self.streamed_bytes else ""
        lines += [
            f"residency            {self.compressed_resident_bytes / mib:.2f} MiB compressed, decoded tile by tile; "
            f"{self.decoded_bytes / mib:.2f} MiB decoded{streamed}",
            f"expected time        {self.predicted_ms_per_image:.2f} ms per image",
            "",
            "largest regions of the arena",
        ]
        for region in sorted(self.regions, key=lambda r: -r.nbytes)[:12]:
            lines.append(f"  {region.offset:>12} {region.nbytes:>12} bytes  actions {region.first:>4}..{region.last:<4} {region.name}")
        if self.choices:
            lines += ["", "algorithms of convolutions that have several (expected per image and thread)"]
            lines += [f"  {choice.algorithm:<14}{node}  ({choice.why})" for node, choice in self.choices]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Sum:
    """The bytes of a plan by where they come from."""

    floor: int
    weights: int
    tables: int
    arena: int
    io: int
    other: int

    @property
    def peak(self) -> int:
        return self.floor + self.weights + self.tables + self.arena + self.io + self.other


@dataclass(frozen=True)
class _Candidate:
    execution: Execution
    scratch_limit: int | None
    sum: _Sum
    seconds: float  # per image
    read_bytes: int
    ring_bytes: int


class _Search:
    """The search for one plan."""

    def __init__(
        self,
        store: WeightStore,
        batch: int,
        symbols: Mapping[str, int],
        limit: int | None,
        latency: float | None,
        kernels: str,
        threads: int,
        baseline: int | None,
        held: int,
        residency: str | None,
        rate: float,
        slowness: float,
        shared: bool,
        pausable: bool,
    ) -> None:
        self.store = store
        self.shared = shared or pausable
        self.pausable = pausable
        self.graph = store.graph
        self.requested = batch
        self.most = batch if store.graph.batch is not None else 1
        self.symbols = dict(symbols)
        self.limit = limit
        self.latency = latency
        self.kernels = kernels
        self.threads = threads
        self.baseline = baseline
        self.held = held
        self.residency = residency
        self.rate = rate
        self.slowness = slowness
        self.speed = min(threads, USEFUL_THREADS) / slowness
        self.lowerings = Lowerings(store, symbols)
        #: resident bytes now that stay; what the search itself takes for a time is given back before it is measured again
        self.now = self.before = footprint() - held
        self.rates = profile.profile_of(kernels)
        self._units: dict[str, tuple[int, list[list[int]]]] = {}

    # ---- what an execution takes

    def build(
        self,
        segments: list[Segment] | None,
        batch: int,
        residency: Residency = COMPRESSED,
        ring: int = 0,
        scratch_limit: int | None = None,
    ) -> Execution:
        bound = dict(self.symbols)
        if self.graph.batch is not None:
            bound[self.graph.batch] = batch
        store = resident(self.store, residency)
        return Execution(store, bound, self.kernels, self.threads, segments, ring, self.lowerings, scratch_limit)

    def sum(self, execution: Execution, streams: bool = False) -> _Sum:
        # Everything that exists now stays: the prediction starts from what is measured, not from what is assumed.
        now = self.now
        floor = self.baseline if self.baseline is not None else now
        other = (self.threads - 1 + streams) * THREAD_BYTES + RUN_BYTES + execution.transient + execution.literal_bytes
        other += STREAM_BYTES * streams
        other += max(now - floor, 0)
        arena = pages(execution.arena_bytes)
        other += max(pages(execution.store.loading_bytes) - arena, 0) if execution.store.loading_bytes else 0
        io = 0
        for spec in (*self.graph.inputs, *self.graph.outputs):
            size = nbytes(execution.lowered.specs[spec.name])
            io += size * self.requested // execution.batch if self.graph.batch is not None else size
        return _Sum(floor, pages(execution.store.nbytes), execution.store.owned_bytes, arena, io, other)

    # ---- streaming and decoding

    def _streamable(self, execution: Execution) -> list[tuple[str, int, float]]:
        """(tensor, runs per round, seconds of computing in a round before it) of what may be streamed, in order of use."""
        uses: dict[str, int] = {}
        found: list[tuple[str, int, float]] = []
        barred: set[str] = set()
        elapsed = 0.0
        seconds = execution.seconds_expected
        for part in execution.parts:
            runs = execution.batch // part.segment.batch
            for number in range(part.segment.first, part.segment.end):
                action = part.lowered.actions[number]
                for step in action.steps or ():
                    name = step.weights
                    if name is None:
                        continue
                    uses[name] = uses.get(name, 0) + 1
                    if step.kind == "conv" and self.store.entries[name].nbytes >= LEAST_STREAMED:
                        found.append((name, runs, elapsed))
                if action.steps is None:
                    barred.update(action.node.inputs)
                elapsed += seconds[number] / self.speed
        return [f for f in found if uses[f[0]] == 1 and f[0] not in barred]

    def _units_of(self, execution: Execution) -> list[Unit]:
        units: list[Unit] = []
        if self.shared:  # it would free nothing
            return units
        for name, runs, at in self._streamable(execution):
            if name not in self._units:
                self._units[name] = self.store.measure(name)
            for group, sizes in enumerate(self._units[name][1]):
                units += [Unit(name, group, block, size, at, runs) for block, size in enumerate(sizes)]
        return units

    def least_weights(self, execution: Execution) -> int:
        """Bytes of weights in memory where everything that may be streamed is."""
        units = self._units_of(execution)
        streamed = {u.tensor for u in units}
        rest = sum(padded(e.nbytes) for n, e in self.store.entries.items() if n not in streamed)
        return min(pages(rest) + least_ring(units) + THREAD_BYTES + (self._tables_of(streamed)), pages(self.store.nbytes))

    def _tables_of(self, tensors: set[str]) -> int:
        """Bytes that tensors in pieces keep besides their rows."""
        total = 0
        for name in tensors:
            parts = self.store.entries[name].parts
            total += sum(padded(size) for part, (_, size) in parts.items() if not part.startswith("plane")) + 64
        return total

    def _decodable(self, execution: Execution) -> list[tuple[str, int, float]]:
        """(tensor, bytes more than compressed, seconds saved per round) of what may be kept decoded."""
        barred = {n for action in execution.lowered.actions if action.steps is None for n in action.node.inputs}
        found: dict[str, tuple[int, float]] = {}
        for part in execution.parts:
            runs = execution.batch // part.segment.batch
            for action in part.lowered.actions[part.segment.first : part.segment.end]:
                for step in action.steps or ():
                    name = step.weights
                    if name is None or name in barred or step.kind == "gather_rows" or not self.store.coded[name].decoded_bytes:
                        continue
                    entry = self.store.entries[name]
                    choice = part.choices.get(action.node.name)
                    work = profile.amounts(step, entry, choice.algorithm if choice else "direct")
                    weights = work.get(f"decode_{entry.coder}", 0.0) * runs
                    coder = min(self.rates.rates.get(f"decode_{entry.coder}", 1e9), self.rates.rates["decode_raw"] * 1e3)
                    saved = weights / coder - weights / self.rates.rates["decode_raw"]
                    more = self.store.coded[name].decoded_bytes - entry.nbytes
                    before = found.get(name, (more, 0.0))
                    found[name] = (more, before[1] + saved / self.speed)
        forced = self.residency == "decoded"
        return [(name, more, max(saved, 1e-12) if forced else saved) for name, (more, saved) in found.items() if forced or saved > 0]

    def fit(self, segments: list[Segment] | None, batch: int, scratch_limit: int | None = None) -> _Candidate | None:
        """The best residency for some segments, or ``None`` where the memory limit leaves no room for any."""
        execution = self.build(segments, batch, scratch_limit=scratch_limit)
        total = self.sum(execution)
        compute = sum(execution.seconds_expected) / self.speed
        if self.limit is None or total.peak <= self.limit:
            room = (1 << 62) if self.limit is None else self.limit - total.peak
            decodes = self.residency == "decoded" or (self.residency is None and self.limit is not None)
            chosen = self._decodable(execution) if decodes and not self.shared else []
            names = decode(chosen, room - (1 << 20)) if chosen else frozenset()
            if names:
                decoded = self.build(segments, batch, Residency(decoded=names), 0, scratch_limit)
                more = self.sum(decoded)
                if self.limit is None or more.peak <= self.limit:
                    saved = sum(seconds for name, _, seconds in chosen if name in names)
                    return _Candidate(decoded, scratch_limit, more, max(compute - saved, 0.0) / batch, 0, 0)
            return _Candidate(execution, scratch_limit, total, compute / batch, 0, 0)
        units = self._units_of(execution)
        if not units:
            return None
        streamed = {u.tensor for u in units}
        rest = sum(padded(e.nbytes) for n, e in self.store.entries.items() if n not in streamed)
        fixed = total.peak - total.weights + pages(rest) + THREAD_BYTES + self._tables_of(streamed)
        room = self.limit - fixed
        for attempt in range(5):
            choice = stream(units, room if attempt < 4 else least_ring(units), self.rate)
            if choice is None:
                room = least_ring(units)
                continue
            made = self.build(segments, batch, choice.residency, choice.ring_bytes, scratch_limit)
            more = self.sum(made, streams=True)
            if more.peak <= self.limit:
                seconds = STREAMING_COST * max(compute, choice.read_bytes / self.rate)
                return _Candidate(made, scratch_limit, more, seconds / batch, choice.read_bytes, choice.ring_bytes)
            room -= more.peak - self.limit + 4096
        return None

    # ---- segments

    def _seconds(self, action: Action, lowered: Lowered, choices: Mapping[str, Choice]) -> float:
        if action.steps is None:
            return numpy_seconds(action, lowered)
        total = 0.0
        for step in action.steps:
            entry = self.store.entries[step.weights] if step.weights else None
            algorithm = choices[action.node.name].algorithm if step.kind == "conv" and action.node.name in choices else "direct"
            total += self.rates.seconds(profile.amounts(step, entry, algorithm))
        return total / self.speed

    def segmented(self, scratch_limit: int | None) -> _Candidate | None:
        """The fastest of the plans that the dynamic program finds for several shares of the room between activations and weights."""
        one = self.build(None, 1, scratch_limit=scratch_limit)
        places: dict[int, int] = {}
        batches = candidates(self.most)
        if len(batches) > 1 and not self.pausable:
            places = cuts(self.graph, self.lowerings[1], self.lowerings[2])
        batches = [b for b in batches if alike(self.lowerings[1], self.lowerings[b])]
        priced = blocks(places, {b: self.lowerings[b] for b in batches}, lambda a, low: self._seconds(a, low, one.choices))
        scratch = one.scratch_bytes * self.threads
        if self.limit is None:
            rooms = [1 << 60]
        else:
            total = self.sum(one)
            weights = self.least_weights(one)
            most = self.limit - (total.peak - total.arena - total.weights) - weights
            whole = self.limit - (total.peak - total.arena)
            least = total.arena
            rooms = [whole] if whole >= least else []
            if most >= least and whole < most:
                rooms += [int(least * (most / least) ** (i / 5)) for i in range(6)]
        found: _Candidate | None = None
        tried: set[tuple[Segment, ...]] = set()

        def consider(segments: list[Segment]) -> None:
            nonlocal found
            if tuple(segments) in tried:
                return
            tried.add(tuple(segments))
            candidate = self.fit(segments, segments[-1].batch, scratch_limit)
            if candidate is not None and (found is None or candidate.seconds < found.seconds):
                found = candidate

        for room in sorted(set(rooms)):
            inner = room - scratch
            for _ in range(8):
                segments = best(priced, batches, inner, self.latency)
                if segments is None:
                    break
                over = pages(self.build(segments, segments[-1].batch, scratch_limit=scratch_limit).arena_bytes) - room
                if over <= 0:
                    consider(segments)
                    break
                inner -= max(over, inner // 64, 4096)  # scratch grows with the batch, and offsets do not pack perfectly
        for batch in reversed(batches):  # one batch for all, which needs no boundary buffers
            segments = [Segment(0, priced[-1].end, batch)]
            if self.latency is not None and sum(block.seconds[batch] for block in priced) > self.latency:
                continue
            if pages(self.build(segments, batch, scratch_limit=scratch_limit).arena_bytes) <= max(rooms, default=0):
                consider(segments)
                break
        return found

    def _scratch_limits(self) -> list[int | None]:
        """Limits on the scratch of algorithms to try: none, then less and less of what the fastest ones take."""
        one = self.build(None, 1)
        if not one.choices or all(choice.algorithm == "direct" for choice in one.choices.values()):
            return [None]
        most = one.scratch_bytes
        return [None, most // 2, most // 4, 0]

    def find(self) -> _Candidate | None:
        whole = None
        if self.latency is None:
            whole = self.fit(None, self.most)
            if whole is not None and not whole.read_bytes:
                return whole
        found: _Candidate | None = None
        for limit in self._scratch_limits():
            if self.most > 1 or self.latency is not None:
                lean = self.segmented(limit)
            else:
                lean = whole if limit is None else self.fit(None, self.most, limit)
            if lean is not None and (found is None or lean.seconds < found.seconds):
                found = lean
        if whole is not None and (found is None or whole.seconds <= found.seconds):
            found = whole
        if found is None and self.latency is None:
            found = self.fit(None, 1, 0)
        return found

    def smallest(self) -> int:
        """The least memory limit in bytes under which some plan fits."""
        execution = self.build(None, 1, scratch_limit=0)
        peak = self.sum(execution).peak
        units = self._units_of(execution)
        choice = stream(units, least_ring(units), self.rate) if units else None
        if choice is not None:
            streaming = self.build(None, 1, choice.residency, choice.ring_bytes, 0)
            peak = min(peak, self.sum(streaming, streams=True).peak)
        return peak + BASELINE_SPREAD

    def settle(self) -> None:
        """Let go of what only the search needed, and measure what is left of it."""
        self.lowerings = Lowerings(self.store, self.symbols)
        self._units.clear()
        self.store.forget_tables()
        gc.collect()
        trim_allocator()
        self.now = footprint() - self.held

    @property
    def left(self) -> int:
        """Resident bytes that the search has left behind so far."""
        return max(self.now - self.before, 0)

    def slowest_limit(self) -> float:
        """Expected seconds of a round of one image."""
        return sum(self.build(None, 1).seconds_expected) / self.speed


def make_plan(
    store: WeightStore,
    *,
    batch: int = 1,
    symbols: Mapping[str, int] | None = None,
    memory_limit: int | None = None,
    latency_limit: float | None = None,
    kernels: str | None = None,
    threads: int | None = None,
    baseline: int | None = None,
    held: int = 0,
    residency: str | None = None,
    storage_rate: float = STORAGE_RATE,
    slowness: float = 1.0,
    shared: bool | None = None,
    pausable: bool = False,
) -> tuple[Plan, Execution]:
    """The fastest plan found that fits the limits, and its execution (not bound yet).

    Args:
        store: the container with everything compressed (:func:`~edgeinfer.runtime.weights.open_store`).
        symbols: values of symbolic dimensions other than the batch.
        memory_limit: most resident bytes of the process; latency_limit: most seconds of one round.
        baseline: resident bytes before the model was opened; measured now if not given.
        held: resident bytes that this session holds already (weights, arena) and which the prediction counts anyway.
        residency: ``"compressed"`` (nothing decoded), ``"decoded"`` (all that fits), ``None`` (what is worth it, under a memory limit).
        storage_rate: bytes per second that storage delivers.
        slowness: how many times longer a round took than was expected, where that was measured.
        shared: others use the compressed weights, so they are in memory whatever this plan does; default: whether they are loaded.
        pausable: one segment and nothing streamed, so that a run can stop at any action and go on with fewer rows.

    Raises PlanError naming the smallest ceiling that would do.
    """
    if not 1 <= batch <= MOST_BATCH:
        raise PlanError(f"batch: expected 1 to {MOST_BATCH}, found {batch}")
    variant, count = choose_kernels(kernels), choose_threads(threads)
    with store.lock:  # sessions of one container share its tables while they plan
        search = _Search(
            store,
            batch,
            symbols or {},
            memory_limit,
            latency_limit,
            variant,
            count,
            baseline,
            held,
            residency,
            storage_rate,
            slowness,
            store.loaded if shared is None else shared,
            pausable,
        )
        found = search.find()
        search.settle()
        smallest, before = search.smallest(), search.now
        search.settle()
        for slack in (128 << 10, 512 << 10):  # what the search left behind counts as well: once more, with room for that
            if memory_limit is None or (found is not None and search.sum(found.execution, found.ring_bytes > 0).peak <= memory_limit):
                break
            search.limit = memory_limit - slack
            found = search.find() if found is not None else search.fit(None, 1, 0)
            search.settle()
        if found is None and memory_limit is not None and latency_limit is None:  # the leanest plan may fit to the byte
            search.limit = memory_limit
            found = search.fit(None, 1, 0)
            search.settle()
        if found is not None:
            found = replace(found, sum=search.sum(found.execution, found.ring_bytes > 0))
        # the process that is given it may search harder than this one did
        actions = len(search.lowerings[1].actions) * len(candidates(search.most))
        smallest += search.now - before + max(SEARCH_BYTES + SEARCH_ACTION_BYTES * actions - search.left, SEARCH_SPREAD)
        smallest = -(-smallest // 65536) * 65536
        if memory_limit is not None and found is not None and found.sum.peak > memory_limit:
            smallest = max(smallest, -(-(found.sum.peak + BASELINE_SPREAD) // 65536) * 65536)
            found = None
        if found is None and memory_limit is not None and (latency_limit is None or smallest > memory_limit):
            raise PlanError(
                f"{store.path}: no plan fits a memory limit of {memory_limit} bytes; "
                f"the smallest ceiling that would do is {smallest} bytes ({smallest / (1 << 20):.1f} MiB)",
                smallest,
            )
        if found is None:
            raise PlanError(
                f"{store.path}: no plan keeps a latency limit of {latency_limit or 0:.4g} s"
                f"{f' under {memory_limit} bytes' if memory_limit else ''}; one image is expected to take {search.slowest_limit():.4g} s"
            )
    execution, total = found.execution, found.sum
    decoded = sum(execution.store.coded[name].decoded_bytes for name in execution.store.residency.decoded)
    nodes = execution.lowered.actions
    return Plan(
        model=store.path,
        kernels=variant,
        threads=count,
        requested=batch,
        batch=execution.batch,
        segments=tuple(execution.segments),
        memory_limit=memory_limit,
        latency_limit=latency_limit,
        smallest_ceiling=min(smallest, memory_limit or smallest),
        baseline_rss=total.floor,
        compressed_resident_bytes=total.weights - decoded,
        decoded_bytes=decoded,
        streamed_bytes=found.read_bytes,
        table_bytes=total.tables,
        arena_bytes=total.arena,
        io_bytes=total.io,
        other_bytes=total.other,
        predicted_peak_rss=total.peak,
        predicted_ms_per_image=found.seconds * 1e3,
        regions=tuple(execution.regions),
        nodes=tuple(action.node.name for action in nodes),
        node_ms=tuple(s * 1e3 / search.speed / execution.batch for s in execution.seconds_expected),
        choices=tuple(execution.choices.items()),
        residency=execution.store.residency,
        scratch_limit=found.scratch_limit,
    ), execution
