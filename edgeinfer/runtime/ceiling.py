"""Footprint (measured resident memory) and ceiling (allowed resident memory) of this process.

Only this module reads resident size and cgroups. Peaks come from ``VmHWM`` in ``/proc/self/status``, not from
``ru_maxrss``, which a child inherits from its parent. Paths are parameters so that tests can fake the system.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import UsageError

#: seconds between two samples of the monitor; at 20 ms one psutil sample (about 15 us) costs less than 0.1 % of a core
SAMPLE_SECONDS = 0.02

_process: psutil.Process | None = None


def footprint() -> int:
    """Resident bytes of this process now."""
    global _process
    if _process is None or _process.pid != os.getpid():
        _process = psutil.Process()
    return int(_process.memory_info().rss)


def _status_bytes(key: str, status: str = "/proc/self/status") -> int:
    with open(status) as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    raise OSError(f"{status} has no line {key}")


def peak_footprint(status: str = "/proc/self/status") -> int:
    """Largest resident size in bytes that this process ever had (``VmHWM``)."""
    return _status_bytes("VmHWM", status)


def split_footprint(status: str = "/proc/self/status") -> tuple[int, int]:
    """Resident bytes now that are (anonymous, file backed or shared)."""
    return _status_bytes("RssAnon", status), _status_bytes("RssFile", status) + _status_bytes("RssShmem", status)


@dataclass(frozen=True)
class CgroupLimit:
    """Memory limit that the control groups put on this process.

    ``limit``: bytes, ``None`` where there is none. ``version``: 1, 2, or 0 where the memory controller is absent (stock Raspberry Pi OS
    disables it), and then no limit set from outside is enforced.
    """

    limit: int | None
    version: int
    path: str = ""

    @property
    def enforced(self) -> bool:
        return self.version != 0


def cgroup_limit(proc: str = "/proc", root: str = "/sys/fs/cgroup") -> CgroupLimit:
    """The least memory limit on the way from this process's control group to the root."""
    groups: dict[str, str] = {}
    try:
        for line in Path(proc, "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                groups[controller] = path
    except OSError:
        return CgroupLimit(None, 0)
    for version, base, key, name in (
        (2, Path(root), "", "memory.max"),
        (1, Path(root, "memory"), "memory", "memory.limit_in_bytes"),
    ):
        if key not in groups or not base.is_dir():
            continue
        if version == 2:
            try:
                if "memory" not in (base / "cgroup.controllers").read_text().split():
                    continue
            except OSError:
                continue
        limits: list[int] = []
        folder = base / groups[key].lstrip("/")
        for place in (folder, *folder.parents):
            try:
                text = (place / name).read_text().strip()
                # version 1 writes "no limit" as the largest page multiple below 2**63
                if text != "max" and int(text) < 1 << 60:
                    limits.append(int(text))
            except (OSError, ValueError):
                pass
            if place == base:
                break
        return CgroupLimit(min(limits, default=None), version, str(folder))
    return CgroupLimit(None, 0)


class Monitor:
    """A thread that samples the footprint while a program runs and raises a flag when it passes the ceiling.

    Args:
        limit: the ceiling in bytes.
        raise_flag: called from the thread, without any lock held, with the footprint that was over the ceiling.
        measure: where the footprint comes from.

    The thread starts with the first ``watch``, also after a fork, and sleeps between runs. It ends with ``close``, or when nobody holds
    the monitor any more.
    """

    def __init__(self, limit: int, raise_flag: Callable[[int], None], measure: Callable[[], int] = footprint) -> None:
        self._running = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if limit <= 0:
            raise UsageError(f"memory limit: expected a positive number of bytes, found {limit}")
        self.limit = limit
        self.samples = 0
        self._raise_flag = raise_flag
        self._measure = measure

    def watch(self) -> None:
        """Begin to sample."""
        if self._thread is None or not self._thread.is_alive():  # in a forked child the thread is gone, its locks may be held for ever
            self._running, self._closed = threading.Event(), threading.Event()
            arguments = (weakref.ref(self), self._running, self._closed)
            self._thread = threading.Thread(target=_sample, args=arguments, name="edgeinfer-ceiling", daemon=True)
            self._thread.start()
        self._running.set()

    def rest(self) -> None:
        """Stop sampling until the next ``watch``."""
        self._running.clear()

    def close(self) -> None:
        """End the thread."""
        self._end()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def check(self) -> None:
        """Take one sample."""
        self.samples += 1
        now = self._measure()
        if now > self.limit:
            self._raise_flag(now)

    def _end(self) -> None:
        self._closed.set()
        self._running.set()

    def __del__(self) -> None:
        self._end()


def _sample(reference: weakref.ref[Monitor], running: threading.Event, closed: threading.Event) -> None:
    while True:
        running.wait()
        if closed.wait(SAMPLE_SECONDS):
            return
        monitor = reference()
        if monitor is not None and running.is_set():
            monitor.check()
        del monitor


def fence(growth: int, margin: int = 8 << 20) -> int:
    """Set ``RLIMIT_DATA`` so that the whole process can take ``growth`` + ``margin`` bytes more of private memory, no further.

    Returns the limit in bytes. It binds everything in the process, not only edgeinfer, hence it is optional.
    """
    import resource

    limit = _status_bytes("VmData") + growth + margin
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit
