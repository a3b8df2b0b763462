"""Offsets in the arena: no two buffers that live together overlap, and the arena is not larger than it has to be."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.runtime.layout import ALIGN, Interval, align, place

intervals = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8)).map(lambda t: Interval(t[0], t[1], t[1] + t[2])),
    max_size=30,
)


@given(intervals)
@settings(max_examples=200, deadline=None)
def test_buffers_that_live_together_do_not_overlap(items: list[Interval]) -> None:
    offsets, total = place(items)
    for (a, at), (b, bt) in itertools.combinations(zip(items, offsets, strict=True), 2):
        if a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes:
            assert at + a.nbytes <= bt or bt + b.nbytes <= at
    for item, at in zip(items, offsets, strict=True):
        assert at % ALIGN == 0 and at + item.nbytes <= total
    assert total <= sum(align(i.nbytes) for i in items)


@given(intervals)
@settings(max_examples=50, deadline=None)
def test_at_least_what_is_alive_at_once(items: list[Interval]) -> None:
    _, total = place(items)
    alive = [sum(align(i.nbytes) for i in items if i.first <= t <= i.last) for t in range(30)]
    assert total >= max(alive, default=0)


def test_a_chain_needs_two_buffers() -> None:
    sizes = np.full(20, 1 << 10)
    offsets, total = place([Interval(int(s), i, i + 1) for i, s in enumerate(sizes)])
    assert total == 2 << 10
    assert set(offsets) == {0, 1 << 10}


def test_nothing_to_place() -> None:
    assert place([]) == ([], 0)
