"""Lifetimes to offsets: where each buffer of a plan lies in the arena. Pure.

Greedy by size, as in TFLite and MNN ("Efficient Memory Management for Deep Neural Net Inference", Pisarchyk and Lee, 2020): the
largest buffer first, each at the lowest offset where it meets no buffer that lives at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: every buffer starts on a cache line
ALIGN = 64


@dataclass(frozen=True)
class Interval:
    """A buffer of ``nbytes`` that lives from action ``first`` to action ``last``, both included."""

    nbytes: int
    first: int
    last: int


def align(nbytes: int, to: int = ALIGN) -> int:
    """``nbytes`` rounded up to a multiple of ``to``."""
    return -(-nbytes // to) * to


def place(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Offsets of the buffers, in the order given, and the size of the arena they need."""
    offsets = [0] * len(intervals)
    placed: list[tuple[int, int, Interval]] = []
    total = 0
    for index in sorted(range(len(intervals)), key=lambda i: (-intervals[i].nbytes, intervals[i].first)):
        item = intervals[index]
        size = align(item.nbytes)
        offset = 0
        for start, end, other in placed:  # kept sorted by start
            if other.first > item.last or other.last < item.first:
                continue
            if start >= offset + size:
                break
            offset = max(offset, end)
        offsets[index] = offset
        placed.append((offset, offset + size, item))
        placed.sort(key=lambda p: p[0])
        total = max(total, offset + size)
    return offsets, total
