"""What systemd and a service tell each other, without libsystemd: sd_notify(3), the watchdog, sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

#: first file descriptor that systemd passes (SD_LISTEN_FDS_START)
FIRST_SOCKET = 3


#: what the control group counts beyond the resident memory that the service bounds: page cache of files being read, socket buffers, page
#: tables. Above the first margin the kernel takes page cache back, above the second it kills.
HIGH_MARGIN, MAX_MARGIN = 16 << 20, 32 << 20


def unit_limits(memory_limit: int) -> str:
    """A drop-in for edgeinfer.service with the memory limits that belong to a ceiling in bytes."""
    return (
        "# From memory_limit in serve.yaml: edgeinfer serve --config serve.yaml --unit-limits\n"
        f"[Service]\nMemoryHigh={memory_limit + HIGH_MARGIN}\nMemoryMax={memory_limit + MAX_MARGIN}\n"
    )


class Notifier:
    """Sends state to the socket in ``NOTIFY_SOCKET``; without one, nothing happens.

    ``watchdog``: seconds within which systemd wants a ping (``WATCHDOG_USEC``), None where it wants none.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._address = "\0" + address[1:] if address[0] == "@" else address
        self.watchdog: float | None = None
        pid = environ.get("WATCHDOG_PID", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        if microseconds.isdigit() and int(microseconds) > 0 and pid in ("", str(os.getpid())):
            self.watchdog = int(microseconds) / 1e6

    def send(self, *lines: str) -> bool:
        """Send assignments like ``READY=1``. True where somebody was there to hear it; a deaf systemd is no reason to stop."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
            return True
        except OSError:
            return False

    def ready(self, status: str) -> None:
        self.send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        self.send(f"STATUS={text}")

    def reloading(self) -> None:
        """``RELOADING=1``; ``ready`` ends it. systemd wants the monotonic time with it (Type=notify-reload)."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=finishing requests in flight")

    def ping(self) -> None:
        """Feed the watchdog."""
        self.send("WATCHDOG=1")


def activated_sockets(environ: MutableMapping[str, str] = os.environ, first: int = FIRST_SOCKET) -> list[socket.socket]:
    """Listening stream sockets that systemd opened for this process; the variables are taken away so that children do not see them."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for number in range(first, first + min(int(count), 64)):
        os.set_inheritable(number, False)
        each = socket.socket(fileno=number)
        if each.type == socket.SOCK_STREAM and each.family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
            sockets.append(each)
    return sockets
