"""InferenceSession: a container, a plan, an arena, a ceiling; the Python face of the run trip."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CeilingExceeded, InputError, PlanError, UsageError
from ..graph import TensorSpec
from ..kernels.loader import trim_allocator
from ..sizes import parse_seconds, parse_size
from .arena import Arena
from .arena import Mapping as Memory
from .batching import capped
from .ceiling import Monitor, fence, footprint, peak_footprint
from .execution import Execution, Stopped
from .plan import STORAGE_RATE, Plan, choose_kernels, choose_limit, choose_threads, make_plan
from .weights import WeightStore, open_store, resident

if TYPE_CHECKING:
    from .cache import Caches

#: resident bytes that looking up caches takes beside what is made before a plan: frames, temporaries of NumPy (measured 300 to 500 KiB)
CACHE_RUN_BYTES = 384 << 10
#: times that a request begins a slice anew because memory ran short, before it fails
MOST_STOPS = 8
#: plans and executions, for other shapes or a last partial slice, that a session keeps
KEPT_EXECUTIONS = 4

_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)", "bool": "tensor(bool)", "float16": "tensor(float16)"}


@dataclass(frozen=True)
class NodeArg:
    """Name, shape and type of an input or output, spelled as in ONNX Runtime (``tensor(float)``); a string in the shape is a free
    dimension."""

    name: str
    shape: list[int | str]
    type: str


def _arg(spec: TensorSpec) -> NodeArg:
    return NodeArg(spec.name, list(spec.shape), _TYPES.get(spec.dtype, f"tensor({spec.dtype})"))


class InferenceSession:
    """Runs a compressed network.

    Args:
        path: an ``.edge`` file.
        memory_limit: ceiling on the resident memory of this process (``"64MiB"`` or bytes); default ``EDGEINFER_MEMORY_LIMIT``, else none.
        threads: default ``EDGEINFER_THREADS``, else the cores this process may use.
        batch: samples per run to plan for; any number runs, in slices where the plan needs it.
        symbols: values of symbolic dimensions other than the batch, to plan for now; without them the first run plans.
        reserve: bytes of the ceiling that plans leave to the rest of the process; they may be taken while the session runs.
        latency_limit: most time of one round of the batch (``"100ms"`` or seconds); measured rounds that take longer make the plan smaller.
        residency: ``"compressed"``: nothing is kept decoded; ``"decoded"``: all that fits is; default: what is worth it, under a memory
            limit that has room. Below the size of the compressed model, weights are streamed from storage in every run.
        storage_rate: bytes per second that storage delivers, for such plans; default 45 MB/s, an SD card.
        caches: file of layer caches fitted to this container (``edgeinfer tune cache``): rows that they are sure of leave early. Such a
            session has all weights in memory and one batch size for all layers.
        cache_audit: share of rows that run to the end all the same, to watch the caches; 0: unwatched.
        cache_state: file that keeps what watching found, written now and then and by ``close``; ``None``: nothing is kept.
        arena: changing memory to share with other sessions of the process, which then take turns; default: one of its own.
        base_only: run ``sign``-quantised tensors from their sign planes alone.
        fence: also set ``RLIMIT_DATA`` (binds the whole process).
        kernels: force a kernel variant; default ``EDGEINFER_KERNELS``, else the best of this CPU.

    Raises ContainerError, PlanError (with ``smallest_ceiling``), KernelError, UsageError. A session is used by one thread at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        memory_limit: str | int | None = None,
        reserve: int = 0,
        threads: int | None = None,
        batch: int = 1,
        symbols: Mapping[str, int] | None = None,
        latency_limit: str | float | None = None,
        residency: str | None = None,
        storage_rate: float = STORAGE_RATE,
        base_only: bool = False,
        fence: bool = False,
        kernels: str | None = None,
        caches: str | os.PathLike[str] | None = None,
        cache_audit: float = 0.05,
        cache_state: str | os.PathLike[str] | None = None,
        arena: Arena | None = None,
    ) -> None:
        if residency not in (None, "compressed", "decoded"):
            raise UsageError(f"residency: expected 'compressed' or 'decoded', found {residency!r}")
        if not storage_rate > 0:
            raise UsageError(f"storage_rate: expected a positive number of bytes per second, found {storage_rate!r}")
        self.kernels = choose_kernels(kernels)
        self.threads = choose_threads(threads)
        self.profiling = False
        self._limit = choose_limit(memory_limit)
        self._reserve = reserve
        self._fence = fence
        self._batch = batch
        self._symbols = dict(symbols or {})
        self._baseline = footprint()
        self._peak_at_open = peak_footprint()
        self._latency = None if latency_limit is None else parse_seconds(latency_limit)
        self._residency = residency
        self._rate = storage_rate
        self._slowness = 1.0  # measured rounds against expected ones
        self._rounds: deque[float] = deque(maxlen=100)
        self._pressed = 0  # bytes that something else held when a plan was made smaller for it
        self._monitor: Monitor | None = None
        self._arena = Arena() if arena is None else arena
        self._own_arena = arena is None
        self._over = 0
        self._busy = threading.Lock()
        self._changed = False
        self._plans: dict[tuple, Plan] = {}
        self._executions: dict[tuple, Execution] = {}
        self._last: Execution | None = None
        self._running: WeightStore | None = None  # the container in the residency of the last plan
        self.plan: Plan | None = None
        self._store: WeightStore | None = open_store(os.fspath(path), base_only)
        self._graph = self._store.graph
        self._caches: Caches | None = None
        self._fewer: dict[tuple, Execution] = {}  # executions that rows which stay go on with
        self.exits: np.ndarray | None = None
        try:
            if self._latency is not None and self._latency <= 0:
                raise UsageError(f"latency_limit: expected a positive time, found {latency_limit!r}")
            free = {d for spec in self._graph.inputs for d in spec.shape if isinstance(d, str)} - {self._graph.batch}
            unknown = set(self._symbols) - free
            if unknown:
                raise UsageError(f"symbols: {sorted(unknown)} are not free dimensions of this model; free: {sorted(free)}")
            if caches is not None:
                from .cache import Caches

                # before the plan, which starts from what is resident
                self._caches = Caches(caches, self._store, self.kernels, cache_audit, cache_state)
            if free <= set(self._symbols):
                self._make_plan(self._symbols, batch)
        except MemoryError as error:
            self.close()
            raise _no_memory(error) from None
        except BaseException:
            self.close()
            raise

    # ---- what the model is

    def get_inputs(self) -> list[NodeArg]:
        """Inputs in order."""
        return [_arg(spec) for spec in self._graph.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Outputs in order."""
        return [_arg(spec) for spec in self._graph.outputs]

    # ---- planning

    def _held(self) -> int:
        """Resident bytes that a prediction counts anyway: of the arena, and of weights that a new plan would take over or drop."""
        held = self._arena.resident_bytes
        for store in {id(s): s for s in (self._running, self._store) if s is not None and s.loaded}.values():
            held += store.nbytes + store.owned_bytes
        return held

    @property
    def _shared(self) -> bool:
        """Whether the compressed weights are in memory for others than this session."""
        base = self.base_store
        return base.loaded and base.users > (self._running is base)

    def _planned(self, symbols: Mapping[str, int], batch: int, limit: int | None) -> tuple[Plan, Execution]:
        def plan(batch: int, latency: float | None) -> tuple[Plan, Execution]:
            return make_plan(
                self.base_store,
                batch=batch,
                symbols=symbols,
                memory_limit=None if limit is None else max(limit - self._reserve, 1),
                latency_limit=latency,
                kernels=self.kernels,
                threads=self.threads,
                baseline=self._baseline,
                held=self._held() - (CACHE_RUN_BYTES if self._caches is not None else 0),
                residency=self._residency,
                storage_rate=self._rate,
                slowness=self._slowness,
                shared=self._shared,
                pausable=self._caches is not None,
            )

        try:
            return plan(batch, self._latency)
        except PlanError as error:
            if error.smallest_ceiling is not None or self._slowness == 1.0:
                raise
            return plan(1, None)  # the limit was possible by the model, and measuring said that it is not: as near as can be

    def _make_plan(self, symbols: Mapping[str, int], batch: int) -> Plan:
        if self._caches is not None:
            self._prepare_caches(symbols, batch)
        plan, execution = self._planned(symbols, batch, self._limit)
        if self._fence:
            fence(plan.predicted_peak_rss - self._baseline)
            self._fence = False
        self._adopt(symbols, plan, execution)
        return plan

    def _adopt(self, symbols: Mapping[str, int], plan: Plan, execution: Execution) -> None:
        self.plan = plan
        _keep(self._plans, self._key(symbols), plan)
        _keep(self._executions, self._key(symbols, plan.batch), execution)
        if self._limit is not None and self._monitor is None:
            self._monitor = Monitor(self._limit, _stopper(weakref.ref(self)))
        self._rounds.clear()
        self._load(execution)

    def _plan_for(self, symbols: Mapping[str, int], batch: int) -> Plan:
        if self._changed:  # the ceiling: what was planned under another one is void, and the arena may be too large now
            self._changed = False
            self._plans.clear()
            self._executions.clear()
            self._fewer.clear()
            if self._own_arena:
                self._arena.close()
        plan = self._plans.get(self._key(symbols))
        if plan is None:
            return self._make_plan(symbols, batch)
        _keep(self._plans, self._key(symbols), plan)
        self.plan = plan
        return plan

    def _key(self, symbols: Mapping[str, int], *batch: int) -> tuple:
        return (*batch, *sorted(symbols.items()))

    def _load(self, execution: Execution) -> None:
        """Have the weights that an execution needs, and nothing of another residency beside them."""
        if self._running is not execution.store:
            self._executions = {key: e for key, e in self._executions.items() if e.store is execution.store}
            self._plans = {key: p for key, p in self._plans.items() if p.residency == execution.store.residency}
            self._last = None
            self._use(execution.store)
            self._arena.release()  # what loading takes for a time, the arena does not
        execution.store.load()
        self._arena.reserve(execution.arena_bytes)

    def _use(self, store: WeightStore | None) -> None:
        if self._running is not None:
            self._running.users -= 1
        if store is not None:
            store.users += 1
        self._running = store

    def _execution(self, symbols: Mapping[str, int], count: int, plan: Plan) -> Execution:
        key = self._key(symbols, count)
        execution = self._executions.pop(key, None)
        if execution is None:
            bound = dict(symbols)
            if self._graph.batch is not None:
                bound[self._graph.batch] = count
            store = resident(self.base_store, plan.residency)
            ring = next((r.nbytes for r in plan.regions if r.name == "read-ahead"), 0)
            segments = capped(plan.segments, count)
            execution = Execution(store, bound, self.kernels, self.threads, segments, ring, scratch_limit=plan.scratch_limit)
        _keep(self._executions, key, execution)
        self._load(execution)
        return execution

    def pausable(self, symbols: Mapping[str, int], rows: int) -> Execution:
        """An execution of ``rows`` rows in one segment on the session's arena, to be run action by action; valid until the next run."""
        bound = dict(symbols)
        if self._graph.batch is not None:
            bound[self._graph.batch] = rows
        key = self._key(symbols, rows)
        execution = self._fewer.get(key)
        if execution is None:
            execution = self._fewer[key] = Execution(self.base_store, bound, self.kernels, self.threads)
        self._load(execution)
        with self._arena.turn(execution.arena_bytes) as memory:
            execution.bind(memory)
        return execution

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Refuse what would pull memory from under a run: from ``on_layer``, or from another thread."""
        if not self._busy.acquire(blocking=False):
            raise UsageError(f"{what}: this session is running; a session does one thing at a time")
        try:
            yield
        finally:
            self._busy.release()

    # ---- running

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        *,
        on_layer: Callable[[str, float, int], None] | None = None,
    ) -> list[np.ndarray]:
        """Run the network; order and meaning as in ONNX Runtime.

        ``on_layer(name, seconds, bytes)`` is called after each node (which then runs apart from its neighbours).
        Raises InputError, PlanError (first run with new shapes), CeilingExceeded, KernelError.
        """
        with self._alone("run"):
            try:
                return self._run(output_names, input_feed, on_layer)
            except MemoryError as error:
                self._relieve()
                raise _no_memory(error) from None

    def _run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        on_layer: Callable[[str, float, int], None] | None,
    ) -> list[np.ndarray]:
        graph = self.store.graph
        names = list(output_names) if output_names is not None else [spec.name for spec in graph.outputs]
        known = {spec.name: spec for spec in graph.outputs}
        for name in names:
            if name not in known:
                raise InputError(f"output {name!r}: the model has no such output; it has {', '.join(map(repr, known))}")
        feeds, symbols = self._check(input_feed)
        known_inputs = {spec.name: spec for spec in graph.inputs}
        rows = symbols.pop(graph.batch) if graph.batch is not None else 1
        results: dict[str, np.ndarray] = {}
        self.exits = np.full(rows, -1, np.int64) if self._caches is not None else None
        start, most, stops = 0, rows, 0
        if self._pressed and footprint() - self._held() - self._baseline < self._pressed // 2:
            self._pressed, self._changed = 0, True  # what had taken the memory is gone
        while start < rows:
            plan = self._plan_for(symbols, max(rows, self._batch))
            count = min(plan.batch, most, rows - start)
            execution = self._execution(symbols, count, plan)
            if count > 1 and execution.arena_bytes > plan.arena_bytes:  # offsets of fewer images that happened to pack worse
                most = count // 2
                continue
            part = {n: a[start : start + count] if _has_batch(known_inputs[n], graph.batch) else a for n, a in feeds.items()}
            targets = {}
            for name in names:
                spec = execution.lowered.specs[name]
                shape: tuple[int, ...] = tuple(int(d) for d in spec.shape)
                if rows == count or not shape or isinstance(known[name].shape[0], int):
                    results[name] = targets[name] = np.empty(shape, dtype=spec.dtype)
                else:
                    each = shape[0] // count
                    if name not in results:
                        results[name] = np.empty((rows * each, *shape[1:]), dtype=spec.dtype)
                    targets[name] = results[name][start * each : (start + count) * each]
            done = self._run_slice(execution, part, targets, on_layer, symbols, start)
            del execution  # another plan may take its weights' place
            if done:
                start, stops = start + count, 0
            elif not self._changed:
                stops += 1
                if stops > 1:
                    most = max(1, count // 2)
                if stops > MOST_STOPS:
                    raise self._exceeded(footprint())
                self._shrink()
        return [results[name] for name in names]

    def _run_slice(
        self,
        execution: Execution,
        feeds: Mapping[str, np.ndarray],
        targets: Mapping[str, np.ndarray],
        on_layer: Callable[[str, float, int], None] | None,
        symbols: Mapping[str, int],
        start: int,
    ) -> bool:
        """Run one slice under the monitor. ``False``: it was stopped, and there is room again or a new ceiling."""
        execution.profiling = self.profiling
        self._last = execution
        monitor = self._monitor
        execution.stopped = False
        if self._changed:  # asked for between planning and here
            return False
        began = time.perf_counter()
        try:
            with self._arena.turn(execution.arena_bytes) as memory:
                execution.bind(memory)
                if monitor is not None:
                    monitor.watch()
                if self._caches is not None and self._caches.output in targets:
                    assert self.exits is not None
                    output = targets[self._caches.output]
                    exits = self._caches.run(execution, feeds, output, lambda rows: self._smaller(symbols, rows, memory), on_layer)
                    self.exits[start : start + len(exits)] = exits
                else:
                    execution.run(feeds, targets, on_layer)
        except Stopped:
            if self._changed:
                return False
            self._relieve()
            now = footprint()
            if monitor is not None and now > monitor.limit:
                raise self._exceeded(now) from None
            return False
        finally:
            if monitor is not None:
                monitor.rest()
        if self._latency is not None and on_layer is None and not self.profiling:
            self._note(time.perf_counter() - began, execution)
        return True

    def _prepare_caches(self, symbols: Mapping[str, int], batch: int) -> None:
        """Make the programs that rows go on with once others have left: a plan counts what is there."""
        from .cache import SIZES

        assert self._caches is not None
        self._caches.prepare(batch)
        for rows in SIZES:
            if rows >= batch:
                break
            self._caches.prepare(rows)
            key = self._key(symbols, rows)
            if key not in self._fewer:
                bound = {**symbols, **({self._graph.batch: rows} if self._graph.batch is not None else {})}
                self._fewer[key] = Execution(self.base_store, bound, self.kernels, self.threads)

    def _smaller(self, symbols: Mapping[str, int], rows: int, memory: Memory) -> Execution | None:
        """The execution that ``rows`` rows of the running slice go on with, on the same arena; ``None`` where the arena is too small."""
        assert self._last is not None
        key = self._key(symbols, rows)
        execution = self._fewer.get(key)
        if execution is None:
            bound = {**symbols, **({self._graph.batch: rows} if self._graph.batch is not None else {})}
            execution = self._fewer[key] = Execution(self.base_store, bound, self.kernels, self.threads)
        if execution.arena_bytes > memory.nbytes:
            return None
        execution.bind(memory)
        execution.profiling = self.profiling
        execution.stopped = self._last.stopped  # a stop that came just now
        self._last = execution
        return execution

    def _shrink(self) -> None:
        """Plan anew around what something else in the process holds now: decoded tensors go first, then images per round, then weights.

        Raises CeilingExceeded where nothing fits beside it.
        """
        plan, limit = self.plan, self._limit
        if plan is None or limit is None:
            return
        symbols = dict(next(reversed(self._plans), ()))
        others = footprint() - self._held() - self._baseline
        try:
            made, execution = self._planned(symbols, plan.requested, limit)
        except PlanError:
            raise self._exceeded(footprint()) from None
        if made.predicted_peak_rss > limit or (made.segments, made.residency) != (plan.segments, plan.residency):
            self._pressed = max(others, 1)
            self._plans.clear()
            self._executions.clear()
            self._last = None
            if self._own_arena:
                self._arena.close()
            self._adopt(symbols, made, execution)

    def _note(self, seconds: float, execution: Execution) -> None:
        """Compare a round with what was expected; where the limit is not kept, plan again with what was measured."""
        plan, limit = self.plan, self._latency
        if plan is None or limit is None or execution.batch != plan.batch:
            return
        self._rounds.append(seconds)
        if len(self._rounds) < 3:  # the first touches everything for the first time
            return
        late = sorted(list(self._rounds)[1:])
        worst = late[-1 - len(late) // 100]
        expected = plan.predicted_ms_per_image * plan.batch / 1e3 / self._slowness
        if worst > limit and worst > 1.02 * expected * self._slowness and plan.batch > 1:
            self._slowness = 1.02 * worst / expected
            self._changed = True

    def _exceeded(self, now: int) -> CeilingExceeded:
        return CeilingExceeded(
            f"resident memory was {self._over} bytes, {now} bytes after giving back what could be given back, "
            f"ceiling {self._limit} bytes; this plan needs {self.plan.predicted_peak_rss if self.plan else 0} bytes: "
            "something else in the process holds the rest"
        )

    def _raise_stop(self, now: int) -> None:
        self._over = now
        last = self._last
        if last is not None:
            last.stopped = True

    def _relieve(self) -> None:
        """Give back what can be given back without losing the request: the arena's pages, dead objects, free heap."""
        gc.collect()
        self._arena.release()
        trim_allocator()

    def _check(self, feed: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Inputs as contiguous arrays, and the values of the symbolic dimensions."""
        graph = self._graph
        expected = {spec.name: spec for spec in graph.inputs}
        if not isinstance(feed, Mapping):
            raise InputError(f"inputs: expected a mapping from name to array, found {type(feed).__name__}")
        wrong = [n for n in feed if n not in expected]
        absent = [n for n in expected if n not in feed]
        if wrong or absent:
            raise InputError(
                f"inputs: expected {', '.join(map(repr, expected))}"
                + (f"; missing {', '.join(map(repr, absent))}" if absent else "")
                + (f"; unknown {', '.join(map(repr, wrong))}" if wrong else "")
            )
        symbols: dict[str, int] = {}
        feeds: dict[str, np.ndarray] = {}
        for name, spec in expected.items():
            array = np.asarray(feed[name])
            if str(array.dtype) != spec.dtype:
                raise InputError(f"input {name!r}: expected dtype {spec.dtype}, found {array.dtype}")
            if array.ndim != len(spec.shape):
                raise InputError(f"input {name!r}: expected shape {_shape(spec.shape)}, found {_shape(array.shape)}")
            for axis, (want, got) in enumerate(zip(spec.shape, array.shape, strict=True)):
                if got == 0:
                    raise InputError(f"input {name!r}: axis {axis} is empty, found shape {_shape(array.shape)}")
                if isinstance(want, str):
                    if symbols.setdefault(want, got) != got:
                        raise InputError(f"input {name!r}: axis {axis} ({want}) is {got}, but {symbols[want]} in another input")
                elif want != got:
                    raise InputError(f"input {name!r}: expected shape {_shape(spec.shape)}, found {_shape(array.shape)}")
            feeds[name] = np.require(array, requirements=("C", "A"))  # kernels load whole floats
        return feeds, symbols

    # ---- what it takes

    def memory_report(self) -> dict[str, Any]:
        """Every byte the session knows of: prediction, measured peak, baseline, arena by region, compressed weights. Sizes in bytes."""
        plan = self.plan
        return {
            "predicted_peak_rss": max(plan.predicted_peak_rss, self._peak_at_open) if plan else None,
            "peak_rss": peak_footprint(),
            "rss": footprint(),
            "baseline_rss": self._baseline,
            "memory_limit": self._limit,
            "arena_bytes": self._arena.nbytes,
            "compressed_resident_bytes": plan.compressed_resident_bytes if plan and self.store.loaded else 0,
            "decoded_bytes": plan.decoded_bytes if plan and self.store.loaded else 0,
            "streamed_bytes": plan.streamed_bytes if plan else 0,
            "table_bytes": self.store.owned_bytes,
            "io_bytes": plan.io_bytes if plan else 0,
            "other_bytes": plan.other_bytes if plan else 0,
            "regions": [{"name": r.name, "offset": r.offset, "bytes": r.nbytes} for r in plan.regions] if plan else [],
        }

    def cache_report(self) -> dict[str, Any] | None:
        """Where rows were answered and what watching the caches has found; ``None`` without caches. Where each row of the last run
        was answered is in ``exits``: the number of the cache, -1 for the network."""
        return self._caches.report() if self._caches is not None else None

    def set_memory_limit(self, limit: str | int | None) -> None:
        """Change the ceiling. Raises PlanError (and keeps the old one) where the model cannot run under it.

        May be called from ``on_layer`` or from another thread: the run stops before its next layer and goes on under the new ceiling.
        """
        value = parse_size(limit) if limit is not None else None
        last, symbols = self.plan, dict(next(reversed(self._plans), ()))
        if last is not None and value is not None:
            self._planned(symbols, last.requested, value)
        self._limit = value
        if value is None:
            if self._monitor is not None:
                self._monitor.close()
            self._monitor = None
            return
        if self._monitor is not None:
            self._monitor.limit = value
        self._changed = True
        running = self._last
        if running is not None:
            running.stopped = True
        if last is not None and self._busy.acquire(blocking=False):
            try:
                self._plan_for(symbols, last.requested)
            finally:
                self._busy.release()

    def trim(self) -> None:
        """Give memory back to the system between runs: the arena's pages, spare executions, free heap. The next run takes them again."""
        with self._alone("trim"):
            self._executions = {key: e for key, e in self._executions.items() if e is self._last}
            self._fewer.clear()
            self._relieve()

    def profile(self) -> list[tuple[str, str, float]]:
        """(node, operator, seconds) of the last run; set ``session.profiling = True`` before it."""
        return self._last.profile() if self._last is not None else []

    def time_decode(self, repeats: int = 3) -> float:
        """Least seconds, over ``repeats``, to decode every coded tensor once on one thread without multiplying anything."""
        store = self.store
        return min(sum(store.whole(name).decode_seconds(self.kernels) for name in store.coded) for _ in range(repeats))

    @property
    def base_store(self) -> WeightStore:
        """The container with everything compressed, loaded or not. Raises UsageError where the session is closed."""
        if self._store is None:
            raise UsageError("this session is closed")
        return self._store

    @property
    def store(self) -> WeightStore:
        """The weights this session runs from. Raises UsageError where the session is closed."""
        return self._running or self.base_store

    # ---- the end

    def close(self) -> None:
        """Give everything back. A closed session cannot run."""
        with self._alone("close"):
            if self._monitor is not None:
                self._monitor.close()
                self._monitor = None
            if self._caches is not None:
                self._caches.close()
                self._caches = None
            self._plans.clear()
            self._executions.clear()
            self._fewer.clear()
            self._last = None
            self._use(None)
            if self._own_arena:
                self._arena.close()
            self._store = None

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shape(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _has_batch(spec: TensorSpec, batch: str | None) -> bool:
    return batch is not None and bool(spec.shape) and spec.shape[0] == batch


def _keep(kept: dict[tuple, Any], key: tuple, value: Any) -> None:
    """Put ``value`` last; the first, which was used longest ago, goes where there are too many."""
    kept.pop(key, None)
    while len(kept) >= KEPT_EXECUTIONS:
        kept.pop(next(iter(kept)))
    kept[key] = value


def _no_memory(error: MemoryError) -> CeilingExceeded:
    return CeilingExceeded(f"the system gave no more memory ({error or 'allocation failed'}); the request failed, the session can go on")


def _stopper(session: weakref.ref[InferenceSession]) -> Callable[[int], None]:
    """The monitor's thread must not keep a session alive that everybody else has forgotten."""

    def stop(now: int) -> None:
        alive = session()
        if alive is not None:
            alive._raise_stop(now)

    return stop
