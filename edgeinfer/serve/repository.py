"""The models: a folder of ``.edge`` files, loaded, replaced and given up while requests are served.

Only this module knows how a model runs (:class:`Model` is the seam to ``runtime``). A replaced file is copied into the state folder, its
checksums verified while it loads, and run once, before the version that serves goes; where that fails, the old one stays.
Models are run from the service's own copies, so that nothing another process does to the folder of models reaches a running one.

Threads: ``find`` and ``index`` from any; ``refresh``, ``load``, ``unload`` from the loader's; what touches a session runs on the
worker's, through ``on_worker``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ContainerError, EdgeInferError, PlanError
from ..runtime.ceiling import footprint
from ..runtime.plan import choose_threads, make_plan
from ..runtime.session import InferenceSession
from ..runtime.weights import WeightStore, open_store
from .config import MODEL_NAME, Config, ModelSettings
from .memory import Account
from .protocol import Refusal, Signature, largest_request

log = logging.getLogger("edgeinfer.serve")

SUFFIX = ".edge"
#: code and objects of the service that are first touched by requests, after models were planned (measured 0.4 MiB)
SERVICE_BYTES = 1 << 20
#: bytes copied at a time from the folder of models to the state folder
COPY_BLOCK = 1 << 18


@dataclass
class Statistics:
    """What a model did since it was first loaded; times in nanoseconds, as the statistics extension wants them."""

    success: int = 0
    success_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    rows: int = 0
    executions: int = 0
    batches: dict[int, list[int]] = field(default_factory=dict)  # rows -> [executions, input, infer, output ns]
    last_ms: int = 0

    def executed(self, rows: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        self.executions += 1
        self.rows += rows
        self.input_ns, self.infer_ns, self.output_ns = self.input_ns + input_ns, self.infer_ns + infer_ns, self.output_ns + output_ns
        batch = self.batches.setdefault(rows, [0, 0, 0, 0])
        for index, amount in enumerate((1, input_ns, infer_ns, output_ns)):
            batch[index] += amount
        self.last_ms = int(time.time() * 1000)


class Model:
    """A loaded model.

    ``rows``: the most that run at once under the ceiling; ``decode_seconds``: to decode every weight once on one thread.
    """

    def __init__(self, name: str, path: str, settings: ModelSettings, session: InferenceSession, rows: int) -> None:
        graph = session.store.graph
        self.name, self.path, self.settings, self.rows = name, path, settings, rows
        self.signature = Signature(tuple(graph.inputs), tuple(graph.outputs), graph.batch)
        specs = (*graph.inputs, *graph.outputs)
        self.batches = graph.batch is not None and all(spec.shape and spec.shape[0] == graph.batch for spec in specs)
        #: most bytes of a (binary, JSON) request; None where a free dimension has no stated size
        self.request_bytes = largest_request(self.signature, rows, settings.symbols)
        self.decode_seconds = 0.0
        self.session = session

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name. Raises what ``InferenceSession.run`` raises."""
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, self.session.run(names, feed), strict=True))

    def warm(self) -> None:
        """Run one row of zeros, where all sizes are known: pages, code and tables are then where they will be needed."""
        feed = {}
        for spec in self.signature.inputs:
            shape = [1 if d == self.signature.batch else self.settings.symbols.get(d) if isinstance(d, str) else d for d in spec.shape]
            if None in shape:
                return
            feed[spec.name] = np.zeros([int(d or 1) for d in shape], dtype=spec.dtype)
        self.run(feed)
        self.decode_seconds = self.session.time_decode(1)

    def output_shapes(self, rows: int, symbols: dict[str, int]) -> dict[str, tuple[tuple[int, ...], np.dtype]] | None:
        """Shape and dtype of each output for ``rows`` rows; None where one depends on more than the inputs' shapes."""
        found = {}
        for spec in self.signature.outputs:
            shape = [rows if d == self.signature.batch else symbols.get(d) if isinstance(d, str) else d for d in spec.shape]
            if None in shape:
                return None
            found[spec.name] = tuple(int(d or 0) for d in shape), np.dtype(spec.dtype)
        return found

    def memory(self) -> dict[str, int]:
        """Bytes this model takes and is predicted to take."""
        report = self.session.memory_report()
        keys = ("predicted_peak_rss", "arena_bytes", "compressed_resident_bytes", "table_bytes")
        return {key: int(report[key] or 0) for key in keys}

    def trim(self) -> None:
        self.session.trim()

    def close(self) -> None:
        self.session.close()


@dataclass
class Entry:
    """A model's place in the index: what the folder holds (``stamp``), what runs, and why nothing does."""

    name: str
    model: Model | None = None
    stamp: tuple[int, ...] | None = None
    seen: tuple[int, ...] | None = None
    state: str = "UNAVAILABLE"
    reason: str = ""
    wanted: bool = True
    statistics: Statistics = field(default_factory=Statistics)


class Repository:
    """Models by name.

    Args:
        config: folder, state folder, ceiling, settings.
        account: memory of requests, which the ceiling has to hold as well.
        on_worker: runs a function on the inference thread, between two batches, and returns its result.
    """

    def __init__(self, config: Config, account: Account, on_worker: Callable[[Callable[[], Any]], Any]) -> None:
        self.config = config
        self.account = account
        self.threads = choose_threads(config.threads)
        self.entries: dict[str, Entry] = {}
        self._on_worker = on_worker
        self._active: Model | None = None
        self._lock = threading.Lock()  # entries
        self._loading = threading.Lock()  # one change at a time
        self.scanned = False

    # ---- asking

    def find(self, name: str) -> Model:
        """The model that serves under a name. Raises Refusal: 404 unknown, 503 known but not loaded."""
        entry = self.entries.get(name)
        if entry is None:
            raise Refusal(404, f"model {name[:80]!r}: there is no such model")
        if entry.model is None:
            raise Refusal(503, f"model {name!r} is not loaded" + (f": {entry.reason}" if entry.reason else ""), 5)
        return entry.model

    def entry(self, name: str) -> Entry:
        entry = self.entries.get(name)
        if entry is None:
            raise Refusal(404, f"model {name[:80]!r}: there is no such model")
        return entry

    def index(self, ready_only: bool = False) -> list[dict[str, str]]:
        """``POST /v2/repository/index``."""
        with self._lock:
            entries = sorted(self.entries.values(), key=lambda entry: entry.name)
        return [
            {"name": entry.name, "version": "1", "state": entry.state, "reason": entry.reason}
            for entry in entries
            if entry.model is not None or not ready_only
        ]

    def models(self) -> list[Model]:
        with self._lock:
            return [entry.model for entry in self.entries.values() if entry.model is not None]

    @property
    def ready(self) -> bool:
        """True once the folder was read and every model that is wanted serves."""
        with self._lock:
            return self.scanned and all(entry.model is not None or not entry.wanted for entry in self.entries.values())

    # ---- changing

    def refresh(self, patient: bool = True) -> None:
        """Follow the folder: load what is new or replaced, give up what is gone.

        ``patient``: a changed file must first rest for a round, somebody may still be writing it.
        """
        with self._loading:
            found = self._files()
            for name in sorted(set(found) | set(self.entries)):
                entry = self.entries.get(name)
                if entry is None:
                    entry = Entry(name, wanted=self.config.settings(name).load)
                    with self._lock:
                        self.entries[name] = entry
                stamp = found.get(name)
                settled = stamp == entry.seen or not patient
                entry.seen = stamp
                if stamp is None and entry.stamp is None and self._copies(name) and not self.scanned and entry.wanted:
                    stamp = ()  # only our copy is there: the folder is being rewritten, or was lost with the power
                if stamp is None:
                    if settled:
                        self._forget(entry)
                elif entry.wanted and stamp != entry.stamp and settled:
                    self._load(entry, stamp)
            self.scanned = True

    def load(self, name: str) -> None:
        """Load or load again by name. Raises Refusal 404, or what is wrong with the model."""
        with self._loading:
            found = self._files()
            if name not in found:
                raise Refusal(404, f"model {name[:80]!r}: there is no such model in the folder")
            with self._lock:
                entry = self.entries.setdefault(name, Entry(name))
            entry.wanted, entry.seen = True, found[name]
            problem = self._load(entry, found[name])
            if problem is not None:
                raise problem

    def unload(self, name: str) -> None:
        """Give a model up until ``load``, a restart or its settings bring it back. Raises Refusal 404."""
        with self._loading:
            entry = self.entry(name)
            entry.wanted = False
            entry.stamp = None
            self._swap(entry, None)
            entry.state, entry.reason = "UNAVAILABLE", "unloaded"

    def configure(self, config: Config) -> None:
        """Take a new configuration: settings that changed load their model again, under the new ceiling."""
        with self._loading:
            old, self.config = self.config, config
            self.threads = choose_threads(config.threads)
            whole = (old.memory_limit, old.request_bytes, old.threads) != (config.memory_limit, config.request_bytes, config.threads)
            for entry in list(self.entries.values()):
                if whole or old.settings(entry.name) != config.settings(entry.name):
                    entry.stamp = None
                    entry.wanted = config.settings(entry.name).load or entry.model is not None
        self.refresh(patient=False)

    def close(self) -> None:
        for entry in list(self.entries.values()):
            if entry.model is not None:
                entry.model.close()

    # ---- the folder

    def _files(self) -> dict[str, tuple[int, ...]]:
        """Stamp (size, time of change, inode) of each model file; an unreadable folder is empty."""
        found: dict[str, tuple[int, ...]] = {}
        try:
            with os.scandir(self.config.models) as places:
                for place in places:
                    stem, suffix = os.path.splitext(place.name)
                    if suffix == SUFFIX and MODEL_NAME.fullmatch(stem) and place.is_file():
                        status = place.stat()
                        found[stem] = (status.st_size, status.st_mtime_ns, status.st_ino)
        except OSError as error:
            log.warning("%s: %s", self.config.models, error.strerror)
        return found

    def _copies(self, name: str) -> list[str]:
        """Our copies of a model, newest first."""
        if self.config.state is None:
            return []
        try:
            names = [each for each in os.listdir(self.config.state) if each.startswith(f"{name}@") and each.endswith(SUFFIX)]
        except OSError:
            return []
        paths = [os.path.join(self.config.state, each) for each in names]
        return sorted(paths, key=lambda path: os.stat(path).st_mtime_ns, reverse=True)

    def _keep_copy(self, name: str, stamp: tuple[int, ...]) -> str:
        """Path of our copy of the file with this stamp; made, flushed to storage and renamed where there is none yet."""
        source = os.path.join(self.config.models, name + SUFFIX)
        if self.config.state is None:
            return source
        path = os.path.join(self.config.state, f"{name}@{stamp[0]}-{stamp[1]}{SUFFIX}")
        if os.path.exists(path):
            return path
        beside = os.path.join(self.config.state, f".{name}.part")
        with open(source, "rb", buffering=0) as reading, open(beside, "wb", buffering=0) as writing:
            while os.sendfile(writing.fileno(), reading.fileno(), None, COPY_BLOCK):  # type: ignore[arg-type]  # None: from where it is
                pass
            os.fsync(writing.fileno())
            if os.fstat(reading.fileno()).st_size != os.fstat(writing.fileno()).st_size:
                raise ContainerError(f"{source}: changed while it was read")
        os.replace(beside, path)
        _flush_folder(self.config.state)
        return path

    def _drop_copies(self, name: str, but: str | None) -> None:
        for path in self._copies(name):
            if path != but:
                try:
                    os.unlink(path)
                except OSError as error:
                    log.warning("%s: %s", path, error.strerror)

    # ---- loading

    def _load(self, entry: Entry, stamp: tuple[int, ...]) -> EdgeInferError | None:
        """Bring a model to what the folder holds, or say why not; then what served before serves on."""
        started = time.monotonic()
        entry.stamp = stamp
        if entry.model is None:
            entry.state = "LOADING"
        problem: EdgeInferError | None = None
        paths = self._copies(entry.name) if entry.model is None else []
        try:
            if stamp:
                try:
                    first = self._keep_copy(entry.name, stamp)
                except OSError as error:
                    raise ContainerError(f"{entry.name}{SUFFIX}: cannot be kept: {error.strerror}") from None
                paths = [first, *(path for path in paths if path != first)]
        except EdgeInferError as error:
            problem = error
        for path in paths:
            try:
                self._swap(entry, path)
            except EdgeInferError as error:
                problem = problem or error
                if isinstance(error, ContainerError) and self.config.state is not None:
                    os.unlink(path)  # our copy of what is damaged
                log.error("model %s: %s", entry.name, error)
                continue
            assert entry.model is not None
            entry.state = "READY"
            entry.reason = f"the file in the folder is not used: {problem}" if problem else ""
            self._drop_copies(entry.name, path)
            log.info("model %s: loaded in %.2f s, up to %d rows at once", entry.name, time.monotonic() - started, entry.model.rows)
            return problem
        problem = problem or ContainerError(f"{entry.name}{SUFFIX}: nothing to load")
        if entry.model is not None:
            entry.reason = f"the new file is not used: {problem}"
        else:
            entry.state, entry.reason = "UNAVAILABLE", str(problem)
        log.error("model %s: %s", entry.name, entry.reason)
        return problem

    def _swap(self, entry: Entry, path: str | None) -> None:
        """Put the model at ``path`` in the place of what serves, or nothing. Raises what is wrong with it; then nothing changed."""
        settings = self.config.settings(entry.name)
        fresh: Model | None = None
        if path is not None:
            try:
                fresh = self._open(entry.name, path, settings)  # here, so that requests go on while storage is read
            except PlanError:
                if entry.model is None or self.config.state is None:
                    raise
                # there is no room for both: the old one goes first, and comes back from its copy if need be

        def exchange() -> None:
            old, made = entry.model, fresh
            for model in self.models():
                model.trim()
            if path is not None:
                try:
                    if made is None:
                        self._discard(entry)
                        made = self._open(entry.name, path, settings)
                    made.warm()
                except BaseException:
                    if made is not None:
                        made.close()
                    if entry.model is None and old is not None:
                        entry.model = self._open(entry.name, old.path, old.settings)
                    raise
            entry.model = made
            if old is not None:
                if self._active is old:
                    self._active = None
                old.close()

        self._on_worker(exchange)

    def _discard(self, entry: Entry) -> None:
        assert entry.model is not None
        if self._active is entry.model:
            self._active = None
        entry.model.close()
        entry.model = None

    def _forget(self, entry: Entry) -> None:
        self._swap(entry, None)
        self._drop_copies(entry.name, None)
        with self._lock:
            self.entries.pop(entry.name, None)
        log.info("model %s: gone from the folder", entry.name)

    def _open(self, name: str, path: str, settings: ModelSettings) -> Model:
        """A model that has not run yet: planned, its resident weights read and verified. Raises what is wrong with it."""
        store = open_store(path, settings.base_only)  # held until the session shares it
        rows = self._rows(store, settings)
        session = InferenceSession(
            path,
            memory_limit=self.config.memory_limit,
            reserve=self.config.request_bytes + SERVICE_BYTES,
            threads=self.threads,
            batch=rows,
            symbols=dict(settings.symbols),
            base_only=settings.base_only,
        )
        try:
            return Model(name, path, settings, session, rows)
        except BaseException:
            session.close()
            raise

    def _rows(self, store: WeightStore, settings: ModelSettings) -> int:
        """Rows that may run at once beside the requests' memory. Raises PlanError where not even one may."""
        graph = store.graph
        free = {d for spec in graph.inputs for d in spec.shape if isinstance(d, str)} - {graph.batch}
        if graph.batch is None:
            most = 1
        else:
            most = settings.max_batch
        if not free <= set(settings.symbols) or self.config.memory_limit is None:
            return most
        held = store.nbytes + store.owned_bytes if store.loaded else 0
        plan, _ = make_plan(
            store,
            batch=most,
            symbols={name: settings.symbols[name] for name in free},
            memory_limit=self.config.memory_limit - self.config.request_bytes - SERVICE_BYTES,
            threads=self.threads,
            held=held + self.account.used,  # what waits is part of request_bytes
        )
        return plan.batch

    # ---- running, on the worker's thread

    def activate(self, model: Model) -> None:
        """Make room for a run: where two arenas do not fit at once, the one of the model that ran before is given back."""
        before, self._active = self._active, model
        limit = self.config.memory_limit
        if before is None or before is model or limit is None:
            return
        if footprint() + model.memory()["arena_bytes"] > limit - self.config.request_bytes:
            before.trim()

    def trim(self) -> None:
        """Give back what idle models can give back."""
        for model in self.models():
            model.trim()


def _flush_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
