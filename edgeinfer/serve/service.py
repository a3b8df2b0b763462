"""The service put together: configuration, sockets, models, signals; from start to drained.

Threads: the caller's reads and writes sockets (and takes signals), ``edgeinfer-worker`` runs models, two parse requests and write
replies, ``edgeinfer-loader`` reads models from storage.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import DependencyError, EdgeInferError, UsageError
from ..kernels.loader import bound_allocator
from ..runtime import ceiling
from ..runtime.plan import choose_limit
from ..sizes import format_size
from .application import Application
from .config import Config, load, read_token
from .memory import Account
from .metrics import Metrics
from .protocol import Refusal
from .repository import Repository
from .systemd import Notifier, activated_sockets
from .worker import Worker

log = logging.getLogger("edgeinfer.serve")

#: private memory beyond the ceiling that RLIMIT_DATA still allows: it counts reserved pages too, most of which are never touched
FENCE_MARGIN = 64 << 20
#: a thread that waits for the interpreter gets it after this long at the latest (by default 5 ms)
SWITCH_SECONDS = 5e-4
#: heaps that all threads share
ALLOCATOR_ARENAS = 2
#: blocks from this size on (bodies, arrays, what is received at once) go back to the system when they are freed
MAPPED_BYTES = 128 << 10
#: seconds that systemd waits for one more model while the service starts
MODEL_SECONDS = 120


class Loader:
    """The thread that reads models from storage, in the order asked for, and looks at the folder now and then."""

    def __init__(self, repository: Repository, loaded: Callable[[], None]) -> None:
        self._repository = repository
        self._loaded = loaded
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="edgeinfer-loader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def do(self, function: Callable[[], None]) -> None:
        self._queue.put(function)

    def stop(self) -> None:
        self._queue.put(None)
        self._thread.join(10)

    def _loop(self) -> None:
        self._guarded(lambda: self._repository.refresh(patient=False))
        self._loaded()
        while True:
            try:
                function = self._queue.get(timeout=max(self._repository.config.poll_interval, 0.05))
            except Empty:
                self._guarded(self._repository.refresh)
                continue
            if function is None:
                return
            self._guarded(function)

    def _guarded(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:
            if not isinstance(error, Refusal):
                log.error("%s", error, exc_info=None if isinstance(error, EdgeInferError) else error)


class Service:
    """Runs until SIGTERM (or SIGINT).

    Args:
        path: the configuration file, read again at SIGHUP.
        config: what it said.
        sockets: listening sockets; by default systemd's, else those of the configuration.
    """

    def __init__(self, path: str | None, config: Config, sockets: list[socket.socket] | None = None) -> None:
        bound_allocator(ALLOCATOR_ARENAS, MAPPED_BYTES)
        try:
            from .server import STACK_BYTES, Server, listening_sockets
        except ModuleNotFoundError as error:
            raise DependencyError(f"the service needs {error.name}: pip install 'edgeinfer[serve]'") from None
        self._path = path
        self.config = config = _completed(config)
        if not os.path.isdir(config.models):
            raise UsageError(f"models: {config.models}: there is no such folder")
        for key in ("state", "spill"):
            folder = getattr(config, key)
            if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
                raise UsageError(f"{key}: {folder}: expected a folder that can be written")
        if config.memory_limit is not None and config.request_bytes >= config.memory_limit:
            raise UsageError(f"request_memory: {config.request_bytes} bytes leave nothing of memory_limit, {config.memory_limit} bytes")
        self._token = read_token(config.token_file) if config.token_file is not None else None
        self.notifier = Notifier()
        self._own_paths: list[str] = []
        if sockets is None:
            sockets = activated_sockets()
            for sock in sockets:
                self._check_activated(sock)
            if not sockets:
                sockets = listening_sockets(config)
                self._own_paths = [address.path for address in config.listen if address.path is not None]
        self.addresses = [sock.getsockname() for sock in sockets]
        threading.stack_size(STACK_BYTES)
        self.metrics = Metrics()
        self.memory, self.disk = Account(config.request_bytes), Account(config.spill_limit)
        every = self.notifier.watchdog
        self.worker = Worker(self.metrics, config.queue_size, self._pulse, every / 4 if every else 1.0)
        self.repository = Repository(config, self.memory, self.worker.call)
        self.worker.repository = self.repository
        self.loader = Loader(self.repository, self._loaded)
        self.stopping = False
        self._turned = self._pinged = time.monotonic()
        self._reload = False
        self._ready = threading.Event()
        self._began = time.monotonic()
        self.application = Application(
            self.repository, self.worker, self.memory, self.metrics, self.loader.do, lambda: self._token, lambda: self.stopping
        )
        self.metrics.gauge("edgeinfer_spilled_bytes", "Bytes of requests in spill files.", read=lambda: [((), float(self.disk.used))])
        self.metrics.gauge("edgeinfer_connections", "Open connections.", read=self._connections)
        self.server = Server(self.application, config, sockets, self.memory, self.disk, config.spill or _temporary_folder())

    def _check_activated(self, sock: socket.socket) -> None:
        """The rule about tokens holds for systemd's sockets as well."""
        if sock.family == socket.AF_UNIX or self._token is not None:
            return
        host = sock.getsockname()[0]
        if not (host.startswith("127.") or host == "::1"):
            raise UsageError(f"the socket {host} can be reached from other machines; that needs a token_file")

    def _connections(self) -> list[tuple[tuple[str, ...], float]]:
        return [((), float(len(self.server.connections())))]

    # ---- signs of life

    def _pulse(self) -> None:
        """On the inference thread. systemd hears of it only while the loop over sockets turns too."""
        every = self.notifier.watchdog
        now = time.monotonic()
        if every and now - self._pinged >= every / 8 and now - self._turned < every / 2:
            self._pinged = now
            self.notifier.ping()

    def _loaded(self) -> None:
        """On the loader's thread, when the folder was read for the first time."""
        gc.collect()
        gc.freeze()  # what was built so far stays; collections need not look at it again
        self._fence()
        self._ready.set()
        self.notifier.ready(self._status())
        log.info("ready after %.2f s: %s", time.monotonic() - self._began, self._status())

    def _fence(self) -> None:
        """RLIMIT_DATA: what runs away fails to allocate, it does not take the board with it."""
        if self.config.memory_limit is None:
            return
        try:
            ceiling.fence(max(self.config.memory_limit - ceiling.footprint(), 0), FENCE_MARGIN)
        except (OSError, ValueError) as error:  # a sandbox that does not allow it; the ceiling holds without
            log.warning("RLIMIT_DATA cannot be set: %s", error)

    def _status(self) -> str:
        index = self.repository.index()
        ready = sum(each["state"] == "READY" for each in index)
        limit = f", ceiling {format_size(self.config.memory_limit)}" if self.config.memory_limit is not None else ""
        return f"{ready} of {len(index)} models ready{limit}"

    def announce(self) -> None:
        """What the log says at the start."""
        log.info("listening on %s", ", ".join(map(_address, self.addresses)))
        group = ceiling.cgroup_limit()
        if not group.enforced:
            log.warning(
                "the memory control group is off (as on stock Raspberry Pi OS): MemoryMax= does nothing; "
                "the service enforces its ceiling itself"
            )
        elif group.limit is not None and self.config.memory_limit is not None and group.limit < self.config.memory_limit:
            log.warning("the control group allows %s, less than memory_limit", format_size(group.limit))
        if self.config.memory_limit is None:
            log.warning("no memory_limit: nothing bounds the resident memory")

    # ---- running

    def run(self) -> None:
        """Serve until told to stop; then finish what is in flight."""
        sys.setswitchinterval(SWITCH_SECONDS)
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            self.announce()
            self.notifier.send(f"EXTEND_TIMEOUT_USEC={MODEL_SECONDS * 1_000_000}", "STATUS=loading models")
            self.worker.start()
            self.loader.start()
            self._serve()
            self._drain()
        finally:
            self.close()
            for number, was in before.items():
                signal.signal(number, was)

    def _signalled(self, number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.stopping = True
        self.server.pull_trigger()

    def _serve(self) -> None:
        next_deadline: float | None = None
        while not self.stopping:
            self._turn(next_deadline)
            next_deadline = self.worker.expire(time.monotonic())
            if self._reload:
                self._reload = False
                self.notifier.reloading()
                self.loader.do(self._reconfigure)

    def _turn(self, next_deadline: float | None) -> None:
        timeout = 1.0
        if next_deadline is not None:
            timeout = min(max(next_deadline - time.monotonic() + 0.001, 0.0), timeout)
        self.server.turn(timeout)
        self.server.deadlines_changed()
        self._turned = time.monotonic()

    def _drain(self) -> None:
        log.info("stopping: %d requests in flight", self.worker.waiting)
        self.notifier.stopping()
        self.server.stop_listening()
        until = time.monotonic() + self.config.drain_timeout
        while (self.server.busy or self.worker.waiting) and time.monotonic() < until:
            self.server.turn(0.05)
            self.worker.expire(time.monotonic())
            self._turned = time.monotonic()
        if self.server.busy:
            log.warning("%d requests did not finish within %.0f s", self.server.busy, self.config.drain_timeout)

    def _reconfigure(self) -> None:
        """On the loader's thread: read the configuration again; where it is wrong, the old one stays."""
        try:
            if self._path is not None:
                self._apply(_completed(load(self._path)))
                log.info("configuration read again: %s", self._status())
        except EdgeInferError as error:
            log.error("the configuration is kept as it was: %s", error)
        finally:
            self.notifier.ready(self._status())

    def _apply(self, config: Config) -> None:
        token = read_token(config.token_file) if config.token_file is not None else None
        fixed = ("listen", "socket_mode", "connections", "spill", "state")
        changed = [key for key in fixed if getattr(config, key) != getattr(self.config, key)]
        if changed:
            log.warning("%s: a change needs a restart", ", ".join(changed))
        if token is None and any(not address.is_loopback for address in self.config.listen):
            raise UsageError("token_file: the service listens where other machines reach it; that needs a token")
        config = replace(config, **{key: getattr(self.config, key) for key in fixed})
        self._token = token
        self.memory.limit, self.disk.limit = config.request_bytes, config.spill_limit
        self.worker.queue_size = config.queue_size
        self.config = self.server.config = config
        self.repository.configure(config)
        self._fence()

    def close(self) -> None:
        self.worker.stop()
        self.loader.stop()
        self.server.close()
        self.repository.close()
        for path in self._own_paths:
            try:
                os.unlink(path)
            except OSError:
                pass


def _completed(config: Config) -> Config:
    """With what the environment says where the file says nothing: EDGEINFER_MEMORY_LIMIT, systemd's STATE_DIRECTORY."""
    state = config.state or os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or None
    return replace(config, memory_limit=choose_limit(config.memory_limit), state=state)


def _temporary_folder() -> str:
    return os.environ.get("TMPDIR") or "/tmp"


def _address(name: Any) -> str:
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return f"unix:{name}"
