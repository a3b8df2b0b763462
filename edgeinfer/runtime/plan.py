"""The plan: which slice of the batch runs at once, where everything lies, and what the whole process will take at its peak.

A plan is made before the first weight is read. It is frozen and printable; the session executes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import KernelError, PlanError, UsageError
from ..kernels.codec import available_kernels
from ..sizes import parse_size
from .arena import pages
from .ceiling import footprint
from .execution import Execution, Region
from .lowering import nbytes
from .profile import Choice
from .weights import WeightStore

#: resident bytes that a pool thread takes beside its scratch: stack pages it touches and the kernel's share (measured 12 to 20 KiB)
THREAD_BYTES = 24 << 10
#: Python objects that running makes and a plan cannot see: the monitor's thread, frames, small arrays, pages of code touched
#: for the first time by the kernels (measured over the light networks, docs/benchmarks.md)
RUN_BYTES = 640 << 10
#: a ceiling named as the smallest must work in another process, whose baseline differs by address space layout
BASELINE_SPREAD = 512 << 10
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
    if not 1 <= threads <= 256:
        raise UsageError(f"threads: expected 1 to 256, found {threads}")
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

    ``batch``: images per slice; ``requested``: images per run it was planned for. ``predicted_peak_rss`` covers the whole process.
    """

    model: str
    kernels: str
    threads: int
    requested: int
    batch: int
    memory_limit: int | None
    smallest_ceiling: int
    baseline_rss: int
    compressed_resident_bytes: int
    table_bytes: int
    arena_bytes: int
    io_bytes: int
    other_bytes: int
    predicted_peak_rss: int
    predicted_ms_per_image: float
    regions: tuple[Region, ...] = field(repr=False)
    nodes: tuple[str, ...] = field(repr=False)
    choices: tuple[tuple[str, Choice], ...] = field(repr=False, default=())

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values with the keys of ``edgeinfer plan --json``."""
        return {
            "memory_limit": self.memory_limit,
            "smallest_ceiling": self.smallest_ceiling,
            "predicted_peak_rss": self.predicted_peak_rss,
            "baseline_rss": self.baseline_rss,
            "arena_bytes": self.arena_bytes,
            "compressed_resident_bytes": self.compressed_resident_bytes,
            "table_bytes": self.table_bytes,
            "io_bytes": self.io_bytes,
            "other_bytes": self.other_bytes,
            "batch": self.requested,
            "segments": [{"nodes": list(self.nodes), "batch": self.batch}],
            "predicted_ms_per_image": self.predicted_ms_per_image,
            "residency": {"decoded": 0, "compressed": self.compressed_resident_bytes, "streamed": 0},
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
        lines = [
            f"model                {self.model}",
            f"kernels, threads     {self.kernels}, {self.threads}",
            f"batch                {self.requested}" + (f" in slices of {self.batch}" if self.batch != self.requested else ""),
            f"memory limit         {limit}",
            "",
            f"{'baseline (Python, libraries)':<34}{self.baseline_rss / mib:10.2f} MiB",
            f"{'compressed weights':<34}{self.compressed_resident_bytes / mib:10.2f} MiB",
            f"{'decode tables, row scales':<34}{self.table_bytes / mib:10.2f} MiB",
            f"{'arena (activations, scratch)':<34}{self.arena_bytes / mib:10.2f} MiB",
            f"{'inputs and outputs':<34}{self.io_bytes / mib:10.2f} MiB",
            f"{'threads, temporaries':<34}{self.other_bytes / mib:10.2f} MiB",
            f"{'predicted peak of the process':<34}{self.predicted_peak_rss / mib:10.2f} MiB",
            f"{'smallest ceiling that would do':<34}{self.smallest_ceiling / mib:10.2f} MiB",
            "",
            f"segments             1: nodes 0..{len(self.nodes) - 1}, batch {self.batch}",
            f"residency            compressed in memory, decoded tile by tile ({self.compressed_resident_bytes / mib:.2f} MiB)",
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


def slices(batch: int) -> list[int]:
    """Slice sizes to try for a batch, largest first."""
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def _io_bytes(store: WeightStore, execution: Execution, symbols: Mapping[str, int], requested: int, batch: int) -> int:
    """Bytes of inputs and outputs for the whole requested batch."""
    total = 0
    for spec in (*store.graph.inputs, *store.graph.outputs):
        size = nbytes(execution.lowered.specs[spec.name])
        total += size * requested // batch if store.graph.batch is not None else size
    return total


def make_plan(
    store: WeightStore,
    *,
    batch: int = 1,
    symbols: Mapping[str, int] | None = None,
    memory_limit: int | None = None,
    kernels: str | None = None,
    threads: int | None = None,
    baseline: int | None = None,
    held: int = 0,
) -> tuple[Plan, Execution]:
    """The plan with the largest slice of ``batch`` that fits ``memory_limit``, and its execution (not bound yet).

    Args:
        symbols: values of symbolic dimensions other than the batch.
        baseline: resident bytes before the model was opened; measured now if not given.
        held: resident bytes that this session holds already (weights, arena) and which the prediction counts anyway.

    Raises PlanError naming the smallest ceiling that would do.
    """
    graph = store.graph
    if not 1 <= batch <= MOST_BATCH:
        raise PlanError(f"batch: expected 1 to {MOST_BATCH}, found {batch}")
    variant, count = choose_kernels(kernels), choose_threads(threads)
    # Everything that exists now stays: the prediction starts from what is measured, not from what is assumed.
    best: tuple[Plan, Execution] | None = None
    smallest: int | None = None
    sizes = slices(batch) if graph.batch is not None else [1]
    for size in sizes:
        if best is not None and size != sizes[-1]:
            continue  # only the smallest slice is still of interest, for the smallest ceiling
        bound = dict(symbols or {})
        if graph.batch is not None:
            bound[graph.batch] = size
        execution = Execution(store, bound, variant, count)
        now = footprint() - held
        floor = baseline if baseline is not None else now
        io = _io_bytes(store, execution, bound, batch, size)
        other = (count - 1) * THREAD_BYTES + RUN_BYTES + execution.transient + execution.literal_bytes + max(now - floor, 0)
        resident = pages(store.nbytes)
        peak = floor + resident + store.owned_bytes + pages(execution.arena_bytes) + io + other
        smallest = -(-(peak + BASELINE_SPREAD) // 65536) * 65536
        milliseconds = sum(execution.seconds_expected) * 1000.0 / size / min(count, 4)
        candidate = Plan(
            model=store.path,
            kernels=variant,
            threads=count,
            requested=batch,
            batch=size,
            memory_limit=memory_limit,
            smallest_ceiling=0,
            baseline_rss=floor,
            compressed_resident_bytes=resident,
            table_bytes=store.owned_bytes,
            arena_bytes=pages(execution.arena_bytes),
            io_bytes=io,
            other_bytes=other,
            predicted_peak_rss=peak,
            predicted_ms_per_image=milliseconds,
            regions=tuple(execution.regions),
            nodes=tuple(action.node.name for action in execution.lowered.actions),
            choices=tuple(execution.choices.items()),
        )
        if best is None and (memory_limit is None or peak <= memory_limit):
            best = candidate, execution
    assert smallest is not None
    if best is None:
        assert memory_limit is not None
        raise PlanError(
            f"{store.path}: no plan fits a memory limit of {memory_limit} bytes; "
            f"the smallest ceiling that would do is {smallest} bytes ({smallest / (1 << 20):.1f} MiB)",
            smallest,
        )
    plan, execution = best
    return Plan(**{**plan.__dict__, "smallest_ceiling": min(smallest, memory_limit or smallest)}), execution
