"""Merging strided loops keeps what they visit; copy steps hold any reshuffling of six axes or fewer."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.ops.base import Step
from edgeinfer.ops.strides import broadcast_strides, copy_step, dense_strides, is_whole, merge

shapes = st.lists(st.integers(1, 4), max_size=6)


def visits(dims: list[int], strides: list[int]) -> list[int]:
    """Offsets in the order of a strided loop."""
    return [sum(i * s for i, s in zip(at, strides, strict=True)) for at in product(*map(range, dims))]


def copied(step: Step, x: np.ndarray, y: np.ndarray) -> None:
    """A copy step on flat arrays, element by element."""
    loops = {p: [step.ints[f"{p}{i}"] for i in range(6)] for p in ("d", "sx", "sy")}
    for a, b in zip(visits(loops["d"], loops["sx"]), visits(loops["d"], loops["sy"]), strict=True):
        y[step.ints["to"] + b] = x[step.ints["from"] + a]


@given(shapes, st.data())
def test_merge_visits_the_same(dims: list[int], data: st.DataObject) -> None:
    walks = [data.draw(st.permutations(dense_strides(dims))) for _ in range(2)]
    left, merged = merge(dims, *walks)
    assert 1 not in left
    for before, after in zip(walks, merged, strict=True):
        assert visits(dims, list(before)) == visits(left, after)


@given(shapes)
def test_dense_merges_to_one_loop(dims: list[int]) -> None:
    assert len(merge(dims, dense_strides(dims))[0]) <= 1
    assert is_whole(dims, dense_strides(dims))


@given(shapes, st.data())
def test_copy_step_permutes(shape: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    x = np.arange(np.prod(shape, dtype=int), dtype=np.int32)
    wanted = x.reshape(shape).transpose(order).reshape(-1)
    dims, strides = [shape[a] for a in order], [dense_strides(shape)[a] for a in order]
    assert is_whole(dims, strides) == np.array_equal(x, wanted)
    step = copy_step("x", "y", "int32", dims, strides, dense_strides(dims))
    assert step is not None and step.ints["size"] == 4
    found = np.full_like(x, -1)
    copied(step, x, found)
    np.testing.assert_array_equal(found, wanted)


@given(shapes, st.data())
def test_broadcast_strides_walk_a_broadcast(target: list[int], data: st.DataObject) -> None:
    shape = [n if data.draw(st.booleans()) else 1 for n in target][data.draw(st.integers(0, len(target))) :]
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    assert [x.reshape(-1)[k] for k in visits(target, broadcast_strides(shape, target))] == np.broadcast_to(x, target).reshape(-1).tolist()


def test_seven_loops_are_too_many() -> None:
    dims = [2] * 7
    assert copy_step("x", "y", "float32", dims, dense_strides(dims)[::-1], dense_strides(dims)) is None
    assert copy_step("x", "y", "complex128", [2], [1], [1]) is None
