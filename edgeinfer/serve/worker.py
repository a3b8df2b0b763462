"""The inference thread: a bounded queue, requests gathered into batches, deadlines, and the pings that prove it alive.

One thread runs every model: the kernels use all cores anyway, one arena serves one run, and a hung kernel stops the pings, which is what
systemd's watchdog waits for. Batching changes no result: the runtime gives the same bits for any batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import EdgeInferError, InputError
from .metrics import Metrics
from .protocol import Refusal, Request
from .repository import Model, Repository

log = logging.getLogger("edgeinfer.serve")

#: seconds without a request after which arenas and free heap are given back
IDLE_SECONDS = 2.0
#: most seconds that the thread sleeps without a sign of life
PULSE_SECONDS = 1.0


class Job:
    """A request on its way: answered once, by a result, an error or its deadline. ``done`` is called from the thread that answers."""

    __slots__ = ("model", "request", "deadline", "arrived", "done", "results", "error", "reading", "_lock", "_answered")

    def __init__(self, model: str, request: Request, deadline: float | None, done: Callable[[], None]) -> None:
        self.model, self.request, self.deadline, self.done = model, request, deadline, done
        self.arrived = time.monotonic_ns()
        self.results: dict[str, np.ndarray] = {}
        self.error: Exception | None = None
        self.reading = False  # its body is being read and may not be closed
        self._lock = threading.Lock()
        self._answered = False

    def answer(self, results: dict[str, np.ndarray] | None = None, error: Exception | None = None) -> bool:
        """False where it was answered before."""
        with self._lock:
            if self._answered:
                return False
            self._answered = True
        self.results, self.error = results or {}, error
        self.done()
        return True


class _Call:
    """A function to run on the inference thread, and its outcome."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.finished = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:
            self.error = error
        self.finished.set()


class Worker:
    """The thread, its queue and its counters.

    Args:
        queue_size: requests that may wait.
        pulse: called from the thread between batches and at least every ``pulse_seconds``: feeds the watchdog.
    """

    def __init__(self, metrics: Metrics, queue_size: int, pulse: Callable[[], None], pulse_seconds: float = PULSE_SECONDS) -> None:
        self.repository: Repository | None = None
        self.queue_size = queue_size
        self._pulse = pulse
        self._pulse_seconds = min(pulse_seconds, PULSE_SECONDS)
        self._queue: deque[Job] = deque()
        self._calls: deque[_Call] = deque()
        self._running: list[Job] = []
        self._wake = threading.Condition()
        self._stop = False
        self._trimmed = True
        self._thread = threading.Thread(target=self._loop, name="edgeinfer-worker", daemon=True)
        self.batches = metrics.counter("edgeinfer_batches_total", "Batches run.", ("model",))
        self.rows = metrics.counter("edgeinfer_batch_rows_total", "Rows run; by batches: the mean batch.", ("model",))
        self.compute = metrics.counter("edgeinfer_compute_seconds_total", "Time inside runs, decoding included.", ("model",))
        self.decode = metrics.counter(
            "edgeinfer_decode_seconds_total",
            "Time that decoding weights took of it: runs times the time to decode every weight once, measured at load, over the threads.",
            ("model",),
        )
        self.queue_wait = metrics.histogram("edgeinfer_queue_seconds", "Time from a whole request to the start of its run.", ("model",))
        self.ceiling_stops = metrics.counter("edgeinfer_ceiling_exceeded_total", "Runs that the memory ceiling ended.", ("model",))
        self.expired = metrics.counter("edgeinfer_deadlines_missed_total", "Requests whose deadline passed.", ("model",))
        metrics.gauge("edgeinfer_queue_requests", "Requests that wait.", read=lambda: [((), float(len(self._queue)))])
        metrics.gauge("edgeinfer_running_requests", "Requests in the batch that runs.", read=lambda: [((), float(len(self._running)))])

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stop

    @property
    def waiting(self) -> int:
        """Requests that wait or run."""
        return len(self._queue) + len(self._running)

    def check_room(self) -> None:
        """Raises Refusal 429 where the queue is full."""
        if len(self._queue) >= self.queue_size:
            raise Refusal(429, f"{self.queue_size} requests are waiting already", 1)

    def submit(self, job: Job) -> None:
        """Queue a request. Raises Refusal 429, or 503 where the thread has ended."""
        with self._wake:
            if self._stop:
                raise Refusal(503, "the service is stopping", 5)
            self.check_room()
            self._queue.append(job)
            self._wake.notify()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the thread, between two batches; returns or raises what it does."""
        if threading.current_thread() is self._thread:
            return function()
        call = _Call(function)
        with self._wake:
            if self._stop or not self._thread.is_alive():
                raise Refusal(503, "the service is stopping", 5)
            self._calls.append(call)
            self._wake.notify()
        call.finished.wait()
        if call.error is not None:
            raise call.error
        return call.value

    def expire(self, now: float) -> float | None:
        """Answer requests whose deadline has passed (monotonic seconds), also one that runs. Returns the next deadline."""
        with self._wake:
            late = [job for job in self._queue if job.deadline is not None and job.deadline <= now]
            if late:
                self._queue = deque(job for job in self._queue if job not in late)
            late += [job for job in self._running if not job.reading and job.deadline is not None and job.deadline <= now]
            left = [job.deadline for job in (*self._queue, *self._running) if job.deadline is not None and job.deadline > now]
        for job in late:
            self._expire(job)
        return min(left, default=None)

    def _expire(self, job: Job) -> None:
        if job.answer(error=Refusal(504, f"model {job.model!r}: the deadline passed before there was a result")):
            self.expired.add(1, job.model)

    def stop(self) -> None:
        """End the thread after the batch that runs; what still waits is answered with 503."""
        with self._wake:
            self._stop = True
            left, self._queue = list(self._queue), deque()
            calls, self._calls = list(self._calls), deque()
            self._wake.notify()
        for job in left:
            job.answer(error=Refusal(503, "the service is stopping", 5))
        for call in calls:
            call.error = Refusal(503, "the service is stopping", 5)
            call.finished.set()
        if self._thread.is_alive():
            self._thread.join()

    # ---- the thread

    def _loop(self) -> None:
        last = time.monotonic()
        while True:
            self._pulse()
            batch: list[Job] = []
            call: _Call | None = None
            with self._wake:
                if not (self._queue or self._calls or self._stop):
                    self._wake.wait(self._pulse_seconds)
                if self._stop:
                    return
                if self._calls:
                    call = self._calls.popleft()
                elif self._queue:
                    batch = self._gather()
            if call is not None:
                call.run()
                self._trimmed, last = False, time.monotonic()
            elif batch:
                try:
                    self._serve(batch)
                except Exception as error:  # a bug must not end the thread that serves everybody
                    log.exception("while serving model %s", batch[0].model)
                    for job in batch:
                        job.answer(error=error)
                with self._wake:
                    self._running = []
                del batch
                self._trimmed, last = False, time.monotonic()
            elif not self._trimmed and time.monotonic() - last > IDLE_SECONDS and self.repository is not None:
                self.repository.trim()
                self._trimmed = True

    def _gather(self) -> list[Job]:
        """The oldest request and those that may run with it. Holds the lock; gives it up while waiting for company."""
        first = self._queue.popleft()
        model = self._find(first)
        self._running = [first]
        if model is None or not model.batches:
            return self._running
        batch, rows = [first], first.request.rows
        shape = _shape(first)
        until = first.arrived / 1e9 + model.settings.batch_delay
        while True:
            for job in list(self._queue):
                if rows >= model.rows:
                    break
                if job.model == first.model and rows + job.request.rows <= model.rows and _shape(job) == shape:
                    self._queue.remove(job)
                    batch.append(job)
                    rows += job.request.rows
            self._running = batch
            rest = until - time.monotonic()
            if rows >= model.rows or rest <= 0 or self._stop:
                return batch
            self._wake.wait(min(rest, self._pulse_seconds))

    def _find(self, job: Job) -> Model | None:
        assert self.repository is not None
        try:
            return self.repository.find(job.model)
        except Refusal:
            return None

    def _serve(self, batch: list[Job]) -> None:
        now = time.monotonic()
        for job in batch:
            if job.deadline is not None and job.deadline <= now:
                self._expire(job)
        batch = [job for job in batch if not job._answered]
        if not batch:
            return
        assert self.repository is not None
        try:
            model = self.repository.find(batch[0].model)
        except Refusal as error:
            for job in batch:
                job.answer(error=error)
            return
        if len({tuple(job.request.inputs) for job in batch}) == 1 and model.batches and len(batch) > 1:
            try:
                self._run(model, batch)
                return
            except (InputError, Refusal):  # what is wrong with one request must not fail the others
                pass
        for job in batch:
            try:
                self._run(model, [job])
            except EdgeInferError as error:
                job.answer(error=error)

    def _run(self, model: Model, batch: list[Job]) -> None:
        """Run requests as one batch and answer them. Raises InputError or Refusal where one of them is at fault."""
        assert self.repository is not None
        entry = self.repository.entry(model.name)
        began = time.monotonic_ns()
        for job in batch:
            self.queue_wait.observe((began - job.arrived) / 1e9, model.name)
            entry.statistics.queue_ns += began - job.arrived
        self.repository.activate(model)
        try:
            feed = _feed(batch)
            ready = time.monotonic_ns()
            results = model.run(feed)
            del feed
        except (InputError, Refusal):
            raise
        except (EdgeInferError, MemoryError) as error:
            if getattr(error, "http_status", 503) == 503:
                self.ceiling_stops.add(1, model.name)
            for job in batch:
                job.answer(error=error)
            return
        ran = time.monotonic_ns()
        rows = sum(job.request.rows for job in batch)
        parts = _split(results, batch, rows)
        end = time.monotonic_ns()
        # counted before anybody is answered: who asks for statistics after an answer finds it there
        entry.statistics.executed(rows, ready - began, ran - ready, end - ran)
        self.batches.add(1, model.name)
        self.rows.add(rows, model.name)
        self.compute.add((ran - ready) / 1e9, model.name)
        self.decode.add(model.decode_seconds / self.repository.threads * -(-rows // max(model.rows, 1)), model.name)
        for job, part in zip(batch, parts, strict=True):
            job.answer(part)


def _split(results: dict[str, np.ndarray], batch: list[Job], rows: int) -> list[dict[str, np.ndarray]]:
    """Each request's rows of the outputs; views."""
    if len(batch) == 1:
        return [results]
    parts, done = [], 0
    for job in batch:
        first, done = done, done + job.request.rows
        each = {name: array.shape[0] // rows for name, array in results.items()}
        parts.append({name: array[first * each[name] : done * each[name]] for name, array in results.items()})
    return parts


def _shape(job: Job) -> tuple:
    """What requests of one batch have in common: names and shapes of inputs, but for the first axis."""
    return tuple((name, tensor.shape[1:]) for name, tensor in sorted(job.request.inputs.items()))


def _feed(batch: list[Job]) -> dict[str, np.ndarray]:
    """The inputs of a batch, rows of its requests one after the other. A lone request in memory is not copied."""
    for job in batch:
        job.reading = True
    try:
        if any(job._answered for job in batch):  # between two looks at the clock; its body may be gone
            raise Refusal(504, "the deadline passed")
        if len(batch) == 1:
            return {name: tensor.values() for name, tensor in batch[0].request.inputs.items()}
        rows = sum(job.request.rows for job in batch)
        feed = {}
        for name, model_of in batch[0].request.inputs.items():
            whole = np.empty((rows, *model_of.shape[1:]), dtype=model_of.dtype)
            at = 0
            for job in batch:
                count = job.request.rows
                job.request.inputs[name].copy_into(whole[at : at + count])
                at += count
            feed[name] = whole
        return feed
    finally:
        for job in batch:
            job.reading = False
