"""JSON of requests: the same values as ``json.loads``, in bounded memory, and an InputError for everything else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.errors import InputError
from edgeinfer.serve.jsontext import Numbers, floats, loads


def plain(value: object) -> object:
    """Arrays of numbers as lists again."""
    if isinstance(value, Numbers):
        return json.loads(value.text[value.start : value.end])
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5), max_leaves=40
)


@given(documents, st.sampled_from([None, 1]))
def test_reads_what_json_reads(document: object, indent: int | None) -> None:
    text = json.dumps(document, indent=indent)
    assert plain(loads(text)) == json.loads(text)


@given(st.text(alphabet='{}[]",:0123456789.eE+-truefalsn \n\\', max_size=60))
def test_nonsense_is_refused_or_is_json(text: str) -> None:
    try:
        value = loads(text)
    except InputError:
        return
    try:
        expected = json.loads(text)
    except ValueError:
        # arrays of numbers are only looked at when their dtype is known
        assert "[" in text
        return
    assert plain(value) == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50), st.booleans())
def test_floats_are_those_of_json(values: list[float], nested: bool) -> None:
    document = [[value] for value in values] if nested else values
    shape = (len(values), 1) if nested else (len(values),)
    found = loads(json.dumps(document)).array(np.dtype(np.float64), shape)
    assert found.tobytes() == np.array(values).reshape(shape).tobytes()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int64", "uint64"])
def test_integers_keep_every_digit(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = [int(limits.min), 0, 1, int(limits.max)]
    assert loads(json.dumps(values)).array(np.dtype(dtype), (4,)).tolist() == values
    for outside in (limits.min - 1, limits.max + 1):
        with pytest.raises(InputError, match="outside"):
            loads(json.dumps([int(outside)])).array(np.dtype(dtype), (1,))


def test_blocks_join_without_a_seam() -> None:
    values = np.random.default_rng(0).standard_normal((3, 70, 101)).astype(np.float32)
    for document in (values.tolist(), values.ravel().tolist()):
        for indent in (None, 1):
            assert np.array_equal(loads(json.dumps(document, indent=indent)).array(np.dtype(np.float32), (3, 70, 101)), values)


@pytest.mark.parametrize(
    ("text", "dtype", "shape"),
    [
        ("[1, 2, 3]", "float32", (2,)),
        ("[1, 2]", "float32", (3,)),
        ("[[1, 2], [3]]", "float32", (2, 2)),
        ("[[1], [2, 3, 4]]", "float32", (2, 2)),
        ("[1, , 2]", "float32", (3,)),
        ("[1, 2,]", "float32", (3,)),
        ("[01]", "float32", (1,)),
        ("[1 2]", "float32", (1,)),
        ("[1.5]", "int64", (1,)),
        ("[1e2]", "int64", (1,)),
        ("[nan]", "float32", (1,)),
        ("[NaN]", "float32", (1,)),
        ("[true]", "float32", (1,)),
        ("[2]", "bool", (1,)),
        ("[]", "float32", (1,)),
        ("[[[[1]]]]", "float32", (1,)),
        ("[0x10]", "float32", (1,)),
        ("[" + "1" * 100_000 + "]", "int64", (1,)),
    ],
)
def test_wrong_arrays_are_refused(text: str, dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        loads(text).array(np.dtype(dtype), shape)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[",
        '{"a"}',
        '{"a":1,}',
        '{"a":1 "b":2}',
        '"\\x"',
        "nul",
        "1 2",
        '{"a":1,"a":2}',
        "[" * 50 + '"x"' + "]" * 50,
        "\x00",
        '"\n"',
    ]
    + [json.dumps(["x"] * 5000), "1" * 100],
)
def test_wrong_documents_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        loads(text)


def test_many_short_lists_take_linear_time() -> None:
    """A list of lists that ends in text: each was once looked at to the end of all."""
    text = "[" + ",".join(["[1]"] * 4000) + "," + "[" + "1," * 1_000_000 + '1],"x"]'
    assert len(loads(text)) == 4002


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_written_floats_come_back(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    found = json.loads("[" + floats(array) + "]")
    for written, value in zip(found, array, strict=True):
        assert written is None if not np.isfinite(value) else np.float32(written) == value
