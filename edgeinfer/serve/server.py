"""HTTP/1.1 on waitress, with what a small device needs: bodies admitted by their head, slow clients bounded, no thread per request.

waitress reads and writes sockets on one thread and hands whole requests to others. Here (its limits and defaults as of 2.1 and 3.0):

* :class:`Head` admits or refuses a request when its head is there (waitress: after the body, up to 1 GiB of it);
* bodies are :class:`~.memory.Body` (waitress: 512 KiB in memory each, then temporary files);
* replies are views, sent without being copied to a buffer or file;
* a refused request's body is read and dropped for a moment, so that the client reads the reply and not a reset;
* times are monotonic, whole requests have a deadline (a byte now and then keeps no connection), ``poll`` replaces ``select``;
* a request that runs holds no thread: :class:`Dispatcher` begins it and comes back when its result is there.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import threading
import time
from _queue import SimpleQueue
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver
from waitress.server import BaseWSGIServer
from waitress.task import Task

from ..errors import UsageError
from .application import REASONS, Application, Pending, json_length
from .config import Address, Config
from .memory import Account, Body
from .protocol import Refusal, Reply, error_reply

log = logging.getLogger("edgeinfer.serve")

#: bytes read from a socket at once; as many as a unix socket holds by default
RECEIVE_BYTES = 256 << 10
#: bytes of head (request line and headers) at most
HEAD_BYTES = 16 << 10
#: seconds for which what is left of a refused body is read and dropped
LINGER_SECONDS = 2.0
#: bytes of objects that a connection takes (measured over 900: 2.6 KiB each)
CONNECTION_BYTES = 4 << 10
#: seconds that a silent connection is safe from making room for another: its request may be on the way
GRACE_SECONDS = 1.0
#: bytes of a reply that are joined and sent at once; larger ones go as views
JOIN_BYTES = 64 << 10
#: bytes of JSON in front of binary tensors that are parsed on the thread that received them: 0.2 ms, a change of threads takes half of that
LIGHT_JSON_BYTES = 1 << 10
#: threads that parse requests and write replies; runs hold none
REQUEST_THREADS = 2
#: stack of a thread in bytes: enough for JSON of the admitted depth; virtual, but RLIMIT_DATA counts it
STACK_BYTES = 512 << 10


class Head(HTTPRequestParser):
    """A request as it arrives, admitted when its head is complete."""

    completed: bool = False
    error: Any = None
    content_length: int = 0
    command = "GET"
    path = ""
    begun: Pending | None = None
    reply: Reply | None = None
    body: Body | None = None
    most = 0
    dropped = False  # refused with a body still on its way

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.first_byte = time.monotonic()

    def received(self, data: bytes) -> int:
        try:
            count = super().received(data)
        except Refusal as error:
            self._refuse(error)
            return len(data)
        if self.chunked and not self.completed and self.body is not None and len(self.body) > self.most:
            self._refuse(Refusal(413, f"body: expected at most {self.most} bytes, found more"))
        if self.error is not None and not isinstance(self.error, Answer):
            # what waitress found; an HTTP version or method that cannot be read has no body either
            self.error = Answer(error_reply(self.error.code, str(self.error.body)))
            self.dropped = True
        if self.error is not None:
            self.expect_continue = False  # or waitress asks for the body all the same
            return len(data)  # what follows is the refused body, not another request
        return count

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.version not in ("1.0", "1.1"):
            self._refuse(Refusal(400, f"HTTP version: expected 1.0 or 1.1, found {self.version}"))
            return
        length = None if self.chunked else self.content_length
        try:
            if self.chunked and "CONTENT_LENGTH" in self.headers:
                raise Refusal(400, "both Content-Length and Transfer-Encoding: chunked")
            self.most = self.adj.service.admit(self.command, self.path, self.headers, length)
            if self.chunked or length:
                self.body = self.adj.service.body(length, self.headers)
                self.body_rcv = ChunkedReceiver(self.body) if self.chunked else FixedStreamReceiver(length, self.body)
        except Refusal as error:
            self._refuse(error)

    def _refuse(self, error: Refusal) -> None:
        self.dropped = self.chunked or self.content_length > 0
        self.error = Answer(self.adj.service.refused(error))
        self.content_length = 0
        self.body_rcv = None
        self.expect_continue = False
        self.completed = True
        self.close()

    def close(self) -> None:
        if self.body is not None:
            self.body.close()


class Answer:
    """An error of waitress's kind that carries a reply."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.code = reply.status
        self.body = ""


class View(ReadOnlyFileBasedBuffer):
    """A part of a reply as waitress wants its output: bytes that exist already."""

    def __init__(self, part: memoryview) -> None:
        self._part = part
        self.remain = len(part)

    def __len__(self) -> int:
        return self.remain

    def get(self, numbytes: int = -1, skip: bool = False) -> memoryview:
        count = self.remain if numbytes < 0 else min(numbytes, self.remain)
        part = self._part[:count]
        if skip:
            self.skip(count)
        return part

    def skip(self, numbytes: int, allow_prune: bool = False) -> None:
        self._part = self._part[numbytes:]
        self.remain -= numbytes

    def close(self) -> None:
        self._part = memoryview(b"")
        self.remain = 0


class Send(Task):
    """Writes a reply that is there."""

    complete = True

    def execute(self) -> None:
        error = self.request.error
        if error is None:
            reply = self.request.reply
        else:  # waitress makes errors of its own where sending failed
            reply = error.reply if isinstance(error, Answer) else error_reply(error.code, str(error.body))
        self.status = f"{reply.status} {REASONS[reply.status]}"
        self.response_headers = list(reply.headers)
        self.content_length = reply.nbytes
        if self.request.error is not None or self.request.connection_close:
            self.set_close_on_finish()
        head = self.build_response_header()
        self.wrote_header = True
        self.channel.releases.append(reply.release)
        parts: list[Any] = [] if self.request.command == "HEAD" else list(reply.parts)
        if sum(map(len, parts)) <= JOIN_BYTES:
            self.channel.write_soon(b"".join([head, *parts]))
        else:
            self.channel.write_soon(head)
            for part in parts:
                if len(part):
                    self.channel.write_soon(View(memoryview(part)))


class Channel(HTTPChannel):
    """A connection."""

    close_when_flushed: bool = False
    request: Any = None
    parser_class = Head
    task_class = Send
    error_task_class = Send

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.held = 0
        self.seen = time.monotonic()
        self.sending_since: float | None = None
        self.releases: list[Callable[[], None]] = []
        self.lingers_until: float | None = None
        self.dropping = False
        super().__init__(*args, **kw)
        if self.server.service.memory.take(CONNECTION_BYTES):
            self.held = CONNECTION_BYTES

    # ---- reading

    def readable(self) -> bool:
        return self.lingers_until is not None or super().readable()

    def handle_read(self) -> None:
        self.seen = time.monotonic()
        if self.lingers_until is None:
            if not self._in_body():
                super().handle_read()
            if self._in_body():
                self._receive_body(self.request)
            return
        try:
            if not self.socket.recv(RECEIVE_BYTES):
                self.handle_close()
        except BlockingIOError:
            pass
        except OSError:
            self.handle_close()

    def _in_body(self) -> bool:
        """Whether a body of known length is on its way into memory."""
        head = self.request
        return head is not None and not head.chunked and head.body is not None and head.body.in_memory

    def _receive_body(self, head: Head) -> None:
        """Take what has arrived of a body in memory, straight to where it belongs."""
        body = head.body
        while body is not None and (room := body.rest(head.content_length)) is not None:
            try:
                count = self.socket.recv_into(room)
            except BlockingIOError:
                return
            except OSError:
                count = 0
            if not count:
                self.handle_close()
                return
            body.received += count
            head.body_rcv.remain -= count
            if len(room) == count:
                head.completed = head.body_rcv.completed = True
                with self.requests_lock:
                    self.request, self.sent_continue = None, False
                    self.requests.append(head)
                    self.server.add_task(self)
                return

    # ---- writing

    def write_soon(self, data: Any) -> int:
        if self.sending_since is None:
            self.sending_since = time.monotonic()
        return super().write_soon(data)

    def _flush_some(self, do_close: bool = True) -> bool:
        sent = super()._flush_some(do_close=do_close)
        if sent:
            self.seen = time.monotonic()
        if not self.total_outbufs_len:
            self.sending_since = None
            self._release()
        return sent

    def _release(self) -> None:
        releases, self.releases = self.releases, []
        for release in releases:
            release()

    def service(self) -> None:
        request = self.requests[0] if self.requests else None
        if request is not None and request.dropped:
            self.dropping = True
        super().service()
        if not self.connected:  # the reply will never leave
            if request is not None and request.reply is not None:
                request.reply.release()
            self._release()

    def handle_write(self) -> None:
        if self.lingers_until is not None and not self.will_close:
            return
        if self.dropping and self.close_when_flushed:
            self._flush_exception(self._flush_some)
            if self.total_outbufs_len or self.will_close:
                if self.will_close:
                    self.handle_close()
                return
            self.close_when_flushed = False
            self.lingers_until = time.monotonic() + LINGER_SECONDS
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.handle_close()
            return
        super().handle_write()

    def handle_close(self) -> None:
        super().handle_close()
        held, self.held = self.held, 0
        self.server.service.memory.give(held)
        self._release()
        with self.requests_lock:
            if self.request is not None:
                self.request.close()
                self.request = None

    # ---- time

    def sweep(self, now: float, config: Config) -> None:
        """Close what is idle, too slow, or has lingered long enough. On the thread that reads and writes."""
        if self.lingers_until is not None:
            if now > self.lingers_until:
                self.will_close = True
            return
        if self.sending_since is not None and now - self.sending_since > config.send_timeout:
            self.will_close = True
            return
        if self.requests:
            return
        head = self.request
        if head is not None and now - head.first_byte > config.receive_timeout:
            with self.requests_lock:
                self.request = None
                head._refuse(Refusal(408, f"the request was not complete after {config.receive_timeout:g} seconds"))
                head.dropped = True
                self.requests.append(head)
                self.server.add_task(self)
        elif head is None and now - self.seen > config.idle_timeout:
            self.will_close = True


class Dispatcher:
    """Threads that begin requests and send their answers; a request whose run goes on holds none of them."""

    def __init__(self, application: Application, threads: int = REQUEST_THREADS) -> None:
        self._application = application
        self._queue: SimpleQueue[Channel | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._loop, name=f"edgeinfer-http-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def add_task(self, channel: Channel) -> None:
        """Take a channel whose first request is whole. Called with the channel's lock held, hence nothing is answered here."""
        request = channel.requests[0]
        if request.error is None and request.body is not None and request.body.in_memory:
            if 0 < json_length(request.headers) <= LIGHT_JSON_BYTES and self._begin(channel, request):
                return
        self._queue.put(channel)

    def set_thread_count(self, count: int) -> None:
        """Of waitress's interface; the number is fixed here."""

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout)
        return True

    def _loop(self) -> None:
        while True:
            channel = self._queue.get()
            if channel is None:
                return
            try:
                self._advance(channel)
            except Exception:
                log.exception("while answering")
                channel.will_close = True
                channel.server.pull_trigger()
            del channel

    def _advance(self, channel: Channel) -> None:
        request = channel.requests[0] if channel.requests else None
        if request is None:
            return
        if request.error is None and request.reply is None:
            if request.begun is None:
                if self._begin(channel, request):
                    return
            else:
                request.reply = request.begun.reply()
        channel.service()

    def _begin(self, channel: Channel, request: Head) -> bool:
        """True where the answer comes later."""

        def answered(here: bool) -> None:
            if not here or not request.begun or not request.begun.light:
                self._queue.put(channel)
                return
            try:
                self._advance(channel)
            except Exception:
                log.exception("while answering")
                channel.will_close = True

        both = _Both(answered)
        begun = self._application.begin(request.command, request.path, request.headers, request.body, both.done)
        if isinstance(begun, Pending):
            request.begun = begun
            if begun.deadline:
                channel.server.service.begun()
            both.put_away()
            return True
        request.reply = begun
        return False


class _Both:
    """Calls a function when a request was both answered and put away: a result may be there before its request is.

    The function is told whether it may answer ``here``: on the thread that has the result, not on the one that put the request away.
    """

    def __init__(self, function: Callable[[bool], None]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._left = 2

    def _last(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0

    def done(self) -> None:
        if self._last():
            self._function(True)

    def put_away(self) -> None:
        if self._last():
            self._function(False)


class Listener(BaseWSGIServer):
    """A listening socket."""

    channel_class = Channel

    def __init__(self, sock: socket.socket, service: Server, channels: dict[int, Any]) -> None:
        self.service = service
        sockinfo = (sock.family, sock.type, sock.proto, None)
        super().__init__(
            service.application,
            channels,
            _sock=sock,
            dispatcher=service.dispatcher,
            adj=service.adjustments,
            sockinfo=sockinfo,
            bind_socket=False,
        )

    def getsockname(self) -> tuple[str, Any]:
        name = self.socket.getsockname()
        return ("unix", name) if self.family == socket.AF_UNIX else (name[0], name[1])

    def set_reuse_addr(self) -> None:
        """Done where the socket was bound."""

    def set_socket_options(self, conn: socket.socket) -> None:
        if self.family != socket.AF_UNIX:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fix_addr(self, addr: Any) -> Any:
        return ("localhost", None) if self.family == socket.AF_UNIX else addr

    def maintenance(self, now: float) -> None:
        """Times are looked at by :meth:`Server.sweep`, on a clock that does not jump."""

    def readable(self) -> bool:
        if self.accepting:
            full = len(self._map) >= self.adj.connection_limit
            short = self.service.memory.used + CONNECTION_BYTES > self.service.memory.limit
            if full or short:
                self.service.make_room()
            if short:  # others wait in the kernel's queue until requests are answered
                return False
        return bool(super().readable())


class Server:
    """The loop over all sockets.

    Args:
        memory, disk: accounts of bytes of bodies.
    """

    def __init__(
        self, application: Application, config: Config, sockets: list[socket.socket], memory: Account, disk: Account, spill: str
    ) -> None:
        self.application, self.config = application, config
        self.memory, self._disk, self._spill = memory, disk, spill
        self.channels: dict[int, Any] = {}
        self.adjustments = Adjustments(
            threads=REQUEST_THREADS,
            connection_limit=config.connections + len(sockets) * 2,  # the listeners and their triggers are counted too
            recv_bytes=RECEIVE_BYTES,
            max_request_header_size=HEAD_BYTES,
            max_request_body_size=1 << 62,  # Head knows better
            outbuf_high_watermark=1 << 62,  # replies are counted in the account
            outbuf_overflow=1 << 62,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
            ident="edgeinfer",
            backlog=min(1024, config.connections),
        )
        self.adjustments.service = self
        self.dispatcher = Dispatcher(application)
        self.listeners = [Listener(sock, self, self.channels) for sock in sockets]
        self._swept = 0.0
        self._deadlines = threading.Event()

    # ---- what Head asks

    def admit(self, method: str, path: str, headers: dict[str, str], length: int | None) -> int:
        return self.application.admit(method, path, headers, length)

    def refused(self, error: Refusal) -> Reply:
        return self.application.refused(error)

    def body(self, length: int | None, headers: dict[str, str]) -> Body:
        return Body(self.memory, self._disk, self._spill, length, json_length(headers))

    def begun(self) -> None:
        """A request with a deadline has come: the loop must not sleep past it."""
        if not self._deadlines.is_set():
            self._deadlines.set()
            self.pull_trigger()

    # ---- the loop

    def turn(self, timeout: float) -> None:
        """Wait for sockets at most ``timeout`` seconds and serve them once."""
        wasyncore.loop(timeout=timeout, use_poll=True, map=self.channels, count=1)
        now = time.monotonic()
        if now - self._swept >= 0.5:
            self._swept = now
            for channel in self.connections():
                channel.sweep(now, self.config)

    def deadlines_changed(self) -> bool:
        """True once after ``begun``."""
        changed = self._deadlines.is_set()
        self._deadlines.clear()
        return changed

    def pull_trigger(self) -> None:
        if self.listeners:
            try:
                self.listeners[0].pull_trigger()
            except (OSError, IndexError):  # closed meanwhile
                pass

    def connections(self) -> list[Channel]:
        return [each for each in list(self.channels.values()) if isinstance(each, Channel)]

    @property
    def busy(self) -> int:
        """Connections with a request that is not answered yet, or a reply that has not left."""
        return sum(1 for each in self.connections() if each.requests or each.total_outbufs_len)

    def make_room(self) -> None:
        """Close the connection that is idle for longest: it must not keep others out."""
        before = time.monotonic() - GRACE_SECONDS
        idle = [
            each
            for each in self.connections()
            if each.seen < before and not each.requests and each.request is None and not each.total_outbufs_len
        ]
        if idle:
            min(idle, key=lambda each: each.seen).handle_close()

    def stop_listening(self) -> None:
        """Take no more connections; those that wait for nothing are closed, the others after their reply."""
        for listener in self.listeners:
            listener.accepting = False
            wasyncore.dispatcher.close(listener)
        for channel in self.connections():
            if not channel.requests and channel.request is None and not channel.total_outbufs_len:
                channel.handle_close()

    def close(self) -> None:
        self.dispatcher.shutdown()
        for each in list(self.channels.values()):
            each.close()


def listening_sockets(config: Config) -> list[socket.socket]:
    """Bound sockets for ``listen``. Raises UsageError where an address is taken or may not be used."""
    made: list[socket.socket] = []
    try:
        for address in config.listen:
            made.append(_unix(address, config.socket_mode) if address.path is not None else _tcp(address))
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made


def _unix(address: Address, mode: int) -> socket.socket:
    assert address.path is not None
    try:
        if stat.S_ISSOCK(os.lstat(address.path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(address.path)
                except OSError:
                    os.unlink(address.path)  # left behind by a service that was killed
                else:
                    raise UsageError(f"listen: {address}: another process listens there")
        else:
            raise UsageError(f"listen: {address}: is there, and is not a socket")
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(address.path)
    except OSError as error:
        sock.close()
        raise UsageError(f"listen: {address}: {error.strerror}") from None
    finally:
        os.umask(before)
    return sock


def _tcp(address: Address) -> socket.socket:
    host = "127.0.0.1" if address.host == "localhost" else address.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((host, address.port))
    except OSError as error:
        sock.close()
        raise UsageError(f"listen: {address}: {error.strerror}") from None
    return sock
