"""The routes: requests are admitted by their head, begun when their body is there, answered when their result is.

A WSGI application too (``__call__`` waits for the result); the server of this package calls :meth:`Application.admit` and
:meth:`Application.begin` instead, so that no thread waits for a run.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from _operator import _compare_digest  # what hmac.compare_digest is; hmac itself would bring OpenSSL's three MiB
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import __version__
from ..errors import EdgeInferError
from ..runtime import board, ceiling
from .jsontext import loads
from .memory import Account, Body, Hold
from .metrics import CONTENT_TYPE, Metrics
from .protocol import (
    EXTENSIONS,
    JSON_BYTES_BESIDE,
    MODEL_VERSION,
    Refusal,
    Reply,
    error_reply,
    infer_reply,
    json_reply,
    metadata,
    parse_request,
    refusal_reply,
    reply_bytes,
)
from .repository import Model, Repository
from .worker import Job, Worker

log = logging.getLogger("edgeinfer.serve")

#: body of a request to a model whose free dimensions have no stated size (``symbols`` in its settings)
UNKNOWN_BODY_BYTES = 8 << 20

#: memory for the text of a reply (about 500 numbers) that is made on the inference thread: 0.1 ms, a change of threads takes as long
LIGHT_REPLY_BYTES = 16 << 10

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_PATHS = [
    (re.compile(pattern), method, route)
    for pattern, method, route in (
        (r"/v2", "GET", "server"),
        (r"/v2/health/live", "GET", "live"),
        (r"/v2/health/ready", "GET", "ready"),
        (r"/v2/models/stats", "GET", "all_statistics"),
        (r"/v2/models/([^/]+)(?:/versions/([^/]+))?", "GET", "model"),
        (r"/v2/models/([^/]+)(?:/versions/([^/]+))?/ready", "GET", "model_ready"),
        (r"/v2/models/([^/]+)(?:/versions/([^/]+))?/stats", "GET", "statistics"),
        (r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer", "POST", "infer"),
        (r"/v2/repository/index", "POST", "index"),
        (r"/v2/repository/models/([^/]+)/load", "POST", "load"),
        (r"/v2/repository/models/([^/]+)/unload", "POST", "unload"),
        (r"/metrics", "GET", "metrics"),
    )
]


def find_route(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """(name of the route, its arguments). Raises Refusal 404 or 405."""
    path = path.rstrip("/") or "/"
    for pattern, expected, route in _PATHS:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if method != expected and not (method == "HEAD" and expected == "GET"):
            allow = "GET, HEAD" if expected == "GET" else expected
            raise Refusal(405, f"{path}: expected {allow}, found {method[:20]}", headers=(("Allow", allow),))
        found = match.groups()
        if len(found) == 2 and found[1] not in (None, MODEL_VERSION):
            raise Refusal(404, f"model {found[0][:80]!r}: there is no version {found[1][:20]!r}, only {MODEL_VERSION}")
        return route, tuple(each for each in found[:1] if each is not None)
    raise Refusal(404, f"{path[:200]}: there is no such path")


class Pending:
    """A request that was begun: ``reply`` after ``done`` was called.

    ``light``: making the reply takes less than changing threads; ``deadline``: whether it has one.
    """

    def __init__(self, reply: Callable[[], Reply], light: bool = False, deadline: bool = False) -> None:
        self.reply = reply
        self.light = light
        self.deadline = deadline


class Application:
    """The service behind HTTP.

    Args:
        account: memory of requests and replies.
        off_loop: runs a function on the loader's thread (repository extension).
        token: returns the bearer token, None where none is wanted.
        stopping: true once no new request is taken.
    """

    def __init__(
        self,
        repository: Repository,
        worker: Worker,
        account: Account,
        metrics: Metrics,
        off_loop: Callable[[Callable[[], None]], None],
        token: Callable[[], bytes | None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.repository, self.worker, self.account, self.metrics = repository, worker, account, metrics
        self._off_loop, self._token, self._stopping = off_loop, token, stopping
        self.requests = metrics.counter("edgeinfer_http_requests_total", "Requests by route and status.", ("route", "code"))
        self.inferences = metrics.counter("edgeinfer_inference_requests_total", "Inference requests by outcome.", ("model", "outcome"))
        self.latency = metrics.histogram("edgeinfer_request_duration_seconds", "From a whole request to its reply.", ("model",))
        _process_metrics(metrics, repository, account)

    # ---- admission: what the head of a request says, before its body is received

    def admit(self, method: str, path: str, headers: Mapping[str, str], length: int | None) -> int:
        """Most bytes that the body may have. ``headers``: names in upper case with underscores; ``length``: None where chunked.

        Raises Refusal: 401, 404, 405, 413, 415, 429, 503.
        """
        self._authorise(headers)
        route, arguments = find_route(method, path)
        encoding = headers.get("CONTENT_ENCODING", "identity")
        if encoding.lower() != "identity":
            raise Refusal(415, f"Content-Encoding: expected identity, found {encoding[:40]!r}")
        most = JSON_BYTES_BESIDE
        if route == "infer":
            model = self.repository.find(arguments[0])
            if self._stopping():
                raise Refusal(503, "the service is stopping", 5, (("Connection", "close"),))
            self.worker.check_room()
            sizes = model.request_bytes
            most = UNKNOWN_BODY_BYTES if sizes is None else sizes[0 if headers.get("INFERENCE_HEADER_CONTENT_LENGTH") else 1]
        if length is not None and length > most:
            raise Refusal(413, f"body: expected at most {most} bytes, found {length}")
        return most

    def _authorise(self, headers: Mapping[str, str]) -> None:
        token = self._token()
        if token is None:
            return
        scheme, _, given = headers.get("AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer" or not _compare_digest(given.strip().encode("latin-1", "replace"), token):
            raise Refusal(401, "a bearer token is needed", headers=(("WWW-Authenticate", 'Bearer realm="edgeinfer"'),))

    # ---- requests

    def begin(self, method: str, path: str, headers: Mapping[str, str], body: Body | None, done: Callable[[], None]) -> Reply | Pending:
        """Answer a request, or begin to: then ``done`` is called, from any thread, when ``reply`` may be asked for the answer."""
        route = "none"
        try:
            route, arguments = find_route(method, path)
            if route == "infer":
                return self._begin_infer(arguments[0], headers, body, done)
            if route in ("load", "unload"):
                return self._begin_change(route, arguments[0], done)
            reply = getattr(self, f"_{route}")(*arguments, **({"body": body} if route == "index" else {}))
        except Exception as error:
            reply = self._failure(error)
        return self._counted(route, reply)

    def _counted(self, route: str, reply: Reply) -> Reply:
        self.requests.add(1, route, str(reply.status))
        return reply

    def refused(self, error: Refusal) -> Reply:
        """The reply to a request that was not admitted."""
        return self._counted("refused", refusal_reply(error))

    def _failure(self, error: Exception) -> Reply:
        if isinstance(error, Refusal):
            return refusal_reply(error)
        if isinstance(error, EdgeInferError):
            return error_reply(error.http_status, str(error), 1 if error.http_status == 503 else None)
        if isinstance(error, MemoryError):
            return error_reply(503, "out of memory", 1)
        log.error("internal error", exc_info=error)
        return error_reply(500, f"internal error: {type(error).__name__}")

    def _begin_infer(self, name: str, headers: Mapping[str, str], body: Body | None, done: Callable[[], None]) -> Reply | Pending:
        began = time.monotonic()
        hold = Hold(self.account)
        try:
            model = self.repository.find(name)
            if body is None:
                raise Refusal(400, "request: expected a body")
            header_length = headers.get("INFERENCE_HEADER_CONTENT_LENGTH")
            request = parse_request(model.signature, body, len(body), header_length, hold.take)
            if request.rows > model.rows:
                most = f"{model.rows} rows (max_batch, or what the ceiling admits)"
                raise Refusal(413, f"batch: expected at most {most}, found {request.rows}")
            shapes = model.output_shapes(request.rows, request.symbols)
            if shapes is not None:
                hold.take(reply_bytes(request, shapes))
            timeout = request.timeout if request.timeout is not None else model.settings.timeout
            job = Job(name, request, None if timeout is None else began + timeout, done)
            self.worker.submit(job)
        except Exception as error:
            hold.give()
            return self._counted("infer", self._inferred(name, began, self._failure(error)))

        def reply() -> Reply:
            try:
                if job.error is not None:
                    raise job.error
                made = infer_reply(name, request, job.results)
            except Exception as error:
                made = self._failure(error)
            return self._counted("infer", self._inferred(name, began, Reply(made.status, made.headers, made.parts, hold.give)))

        light = shapes is not None and reply_bytes(request, shapes) <= LIGHT_REPLY_BYTES
        return Pending(reply, light, deadline=timeout is not None)

    def _inferred(self, name: str, began: float, reply: Reply) -> Reply:
        outcomes = {200: "success", 429: "queue_full", 503: "no_room", 504: "deadline"}
        entry = self.repository.entries.get(name)
        if entry is None:
            return reply
        spent = time.monotonic() - began
        self.inferences.add(1, name, outcomes.get(reply.status, "failed"))
        if reply.status == 200:
            entry.statistics.success += 1
            entry.statistics.success_ns += int(spent * 1e9)
            self.latency.observe(spent, name)
        else:
            entry.statistics.failed += 1
            entry.statistics.failed_ns += int(spent * 1e9)
        return reply

    def _begin_change(self, route: str, name: str, done: Callable[[], None]) -> Pending:
        outcome: list[Exception] = []

        def change() -> None:
            try:
                (self.repository.load if route == "load" else self.repository.unload)(name)
            except Exception as error:
                outcome.append(error)
            done()

        self._off_loop(change)
        return Pending(lambda: self._counted(route, self._failure(outcome[0]) if outcome else json_reply({"name": name, "done": True})))

    # ---- the small routes

    def _server(self) -> Reply:
        return json_reply({"name": "edgeinfer", "version": __version__, "extensions": list(EXTENSIONS)})

    def _live(self) -> Reply:
        live = self.worker.alive
        return json_reply({"live": live}, 200 if live else 503)

    def _ready(self) -> Reply:
        ready = self.worker.alive and self.repository.ready and not self._stopping()
        return json_reply({"ready": ready, "live": self.worker.alive}, 200 if ready else 503)

    def _model(self, name: str) -> Reply:
        return json_reply(metadata(name, self.repository.find(name).signature))

    def _model_ready(self, name: str) -> Reply:
        ready = self.repository.entry(name).model is not None and not self._stopping()
        return json_reply({"name": name, "ready": ready}, 200 if ready else 503)

    def _index(self, body: Body | None) -> Reply:
        document: Any = {}
        if body is not None and len(body):
            room = bytearray(len(body))
            body.read_into(memoryview(room), 0)
            document = loads(room.decode("utf-8", "replace"))
        if not isinstance(document, dict) or not isinstance(document.get("ready", False), bool):
            raise Refusal(400, 'index: expected {"ready": true or false}')
        return json_reply(self.repository.index(document.get("ready", False)))

    def _statistics(self, name: str) -> Reply:
        self.repository.find(name)
        return json_reply({"model_stats": [self._statistics_of(name)]})

    def _all_statistics(self) -> Reply:
        return json_reply({"model_stats": [self._statistics_of(model.name) for model in self.repository.models()]})

    def _statistics_of(self, name: str) -> dict[str, Any]:
        entry = self.repository.entry(name)
        found, model = entry.statistics, entry.model

        def duration(count: int, ns: int) -> dict[str, int]:
            return {"count": count, "ns": ns}

        return {
            "name": name,
            "version": MODEL_VERSION,
            "last_inference": found.last_ms,
            "inference_count": found.rows,
            "execution_count": found.executions,
            "inference_stats": {
                "success": duration(found.success, found.success_ns),
                "fail": duration(found.failed, found.failed_ns),
                "queue": duration(found.success + found.failed, found.queue_ns),
                "compute_input": duration(found.executions, found.input_ns),
                "compute_infer": duration(found.executions, found.infer_ns),
                "compute_output": duration(found.executions, found.output_ns),
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": duration(counts[0], counts[1]),
                    "compute_infer": duration(counts[0], counts[2]),
                    "compute_output": duration(counts[0], counts[3]),
                }
                for rows, counts in sorted(found.batches.items())
            ],
            "memory_usage": [] if model is None else [{"type": "CPU", "id": 0, "byte_size": _model_bytes(model)}],
        }

    def _metrics(self) -> Reply:
        return Reply(200, (("Content-Type", CONTENT_TYPE),), (self.metrics.text().encode(),))

    # ---- WSGI

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {key.removeprefix("HTTP_"): value for key, value in environ.items() if key.startswith(("HTTP_", "CONTENT_"))}
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        body: Body | None = None
        reply: Reply
        try:
            text = environ.get("CONTENT_LENGTH") or "0"
            if not (text.isascii() and text.isdigit()):
                raise Refusal(400, "Content-Length: expected a number")
            length = int(text)
            self.admit(method, path, headers, length)
            if length:
                body = Body(self.account, Account(0), "/", length, json_length(headers))
                body.append(environ["wsgi.input"].read(length))
            event = threading.Event()
            begun = self.begin(method, path, headers, body, event.set)
            if isinstance(begun, Pending):
                event.wait()
                reply = begun.reply()
            else:
                reply = begun
        except Refusal as error:
            reply = self.refused(error)
        head = [*reply.headers, ("Content-Length", str(reply.nbytes))]
        start_response(f"{reply.status} {REASONS[reply.status]}", head)
        parts = [] if method == "HEAD" else [bytes(part) for part in reply.parts]
        reply.release()
        if body is not None:
            body.close()
        return parts


def json_length(headers: Mapping[str, str]) -> int:
    """Bytes of JSON in front of binary tensors, 0 where the header does not say it or says nonsense."""
    text = headers.get("INFERENCE_HEADER_CONTENT_LENGTH", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _model_bytes(model: Model) -> int:
    memory = model.memory()
    return memory["compressed_resident_bytes"] + memory["table_bytes"] + memory["arena_bytes"]


def _process_metrics(metrics: Metrics, repository: Repository, account: Account) -> None:
    """Gauges that are read when the page is written."""

    def of_models(key: str) -> Callable[[], Iterable[tuple[tuple[str, ...], float]]]:
        return lambda: [((model.name,), float(model.memory()[key])) for model in repository.models()]

    def optional(read: Callable[[], float | None]) -> Callable[[], Iterable[tuple[tuple[str, ...], float]]]:
        def values() -> Iterable[tuple[tuple[str, ...], float]]:
            value = read()
            return [] if value is None else [((), float(value))]

        return values

    def throttling() -> Iterable[tuple[tuple[str, ...], float]]:
        found = board.throttling()
        reasons = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
        return [] if found is None else [((reason,), float(reason in found.now)) for reason in reasons]

    def split() -> Iterable[tuple[tuple[str, ...], float]]:
        anonymous, file = ceiling.split_footprint()
        return [(("anonymous",), float(anonymous)), (("file",), float(file))]

    metrics.gauge(
        "edgeinfer_model_ready",
        "1 where the model serves.",
        ("model",),
        lambda: [((entry.name,), float(entry.model is not None)) for entry in list(repository.entries.values())],
    )
    metrics.gauge("process_resident_memory_bytes", "Resident memory of the service.", read=lambda: [((), float(ceiling.footprint()))])
    metrics.gauge("edgeinfer_resident_peak_bytes", "Largest resident memory so far.", read=lambda: [((), float(ceiling.peak_footprint()))])
    metrics.gauge("edgeinfer_resident_kind_bytes", "Resident memory by kind.", ("kind",), split)
    metrics.gauge("edgeinfer_memory_limit_bytes", "The ceiling.", read=optional(lambda: repository.config.memory_limit))
    metrics.gauge("edgeinfer_request_memory_bytes", "Memory taken by requests and replies.", read=lambda: [((), float(account.used))])
    metrics.gauge("edgeinfer_request_memory_limit_bytes", "Most memory for them.", read=lambda: [((), float(account.limit))])
    metrics.gauge("edgeinfer_predicted_peak_bytes", "Predicted peak of the process.", ("model",), of_models("predicted_peak_rss"))
    metrics.gauge("edgeinfer_compressed_weights_bytes", "Compressed weights in memory.", ("model",), of_models("compressed_resident_bytes"))
    metrics.gauge("edgeinfer_arena_bytes", "Arena.", ("model",), of_models("arena_bytes"))
    metrics.gauge("edgeinfer_temperature_celsius", "Hottest zone of the board.", read=optional(board.temperature))
    metrics.gauge("edgeinfer_throttled", "1 while the board slows down for this reason.", ("reason",), throttling)
