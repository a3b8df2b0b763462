"""A walk over the routes with generated requests: no answer is a 500, every error says what is wrong, the service lives."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Running, json_request
from small import feed

WALK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

names = st.sampled_from(["small", "none", "..", "%2e%2e", "a b", "\u00e9", "*", ".", "small.edge"]) | st.text(max_size=10)
segments = st.sampled_from(["v2", "models", "health", "live", "ready", "infer", "stats", "versions", "1", "repository", "index", "metrics"])
paths = st.one_of(
    st.lists(segments | names, max_size=6).map(lambda parts: "/" + "/".join(parts)),
    names.map(lambda name: f"/v2/models/{name}/infer"),
    st.tuples(names, st.sampled_from(["load", "unload"])).map(lambda pair: f"/v2/repository/models/{pair[0]}x/{pair[1]}"),
)
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "data", "shape", "inputs", "outputs", "id"]), inner)
    ),
    max_leaves=12,
)


def quoted(path: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c not in " \\#?" else "".join(f"%{b:02x}" for b in c.encode()) for c in path)


def check(service: Running, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> int:
    status, answered, content = service.call(method, path, body, headers)
    assert status in (200, 400, 401, 404, 405, 413, 415, 429, 503, 504), (method, path, body, status, content)
    if status != 200 and method != "HEAD":
        assert json.loads(content)["error"]
    if answered["content-type"] == "application/json" and method != "HEAD":
        json.loads(content)
    return status


@given(method=methods, path=paths, body=st.none() | st.binary(max_size=200), header=st.none() | st.text("0123456789- x", max_size=6))
@WALK
def test_any_path_any_body(service: Running, method: str, path: str, body: bytes | None, header: str | None) -> None:
    check(service, method, quoted(path), body, {} if header is None else {"Inference-Header-Content-Length": header})


@given(data=st.data())
@WALK
def test_requests_with_one_thing_wrong(service: Running, data: st.DataObject) -> None:
    """A right request in which one value, anywhere, is replaced by a generated one."""
    document: Any = json_request(feed(1), id="x", parameters={"timeout": 5_000_000}, outputs=[{"name": "scores", "parameters": {}}])
    place, key = {"": document}, ""
    while True:
        here: Any = place[key]
        if not here or not isinstance(here, (dict, list)) or not data.draw(st.integers(0, 3)):
            break
        place, key = here, data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(min(len(here), 4))))
    place[key] = data.draw(values)
    root = document if place is not document or key != "" else place[""]
    check(service, "POST", "/v2/models/small/infer", json.dumps(root).encode(), {})


@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), cut=st.integers(0, 10_000))
@WALK
def test_bytes_that_flip(service: Running, changes: list[tuple[int, int]], cut: int) -> None:
    body = bytearray(json.dumps(json_request({name: array.round(1) for name, array in feed(1).items()})).encode())
    for at, value in changes:
        body[at % 400 if at % 3 else at % len(body)] = value
    check(service, "POST", "/v2/models/small/infer", bytes(body[: len(body) - cut if cut % 2 else None]), {})
