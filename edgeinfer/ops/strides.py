"""Strided loops of at most six dimensions: how reshuffling operators become ``copy`` steps and broadcasting ones ``binary`` steps.

All strides count elements. A loop is a list of extents, outermost first, with one stride per extent and operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .base import Lowering, Step

#: EI_RANK of steps.h
RANK = 6


def dense_strides(shape: Sequence[int]) -> list[int]:
    """Strides of a C-ordered array."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return strides


def broadcast_strides(shape: Sequence[int], target: Sequence[int]) -> list[int]:
    """Strides that walk an array of ``shape`` as if it had the broadcast shape ``target``: 0 along axes that repeat."""
    lead = len(target) - len(shape)
    dense = dense_strides(shape)
    return [0] * lead + [s if d == t else 0 for s, d, t in zip(dense, shape, target[lead:], strict=True)]


def merge(dims: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Drop extents of 1 and join neighbours that every operand walks in one stride; the order of visits stays the same.

    Returns:
        The extents left and, per operand, the strides left.
    """
    loops: list[tuple[int, tuple[int, ...]]] = []
    for i, n in enumerate(dims):
        step = tuple(s[i] for s in strides)
        if n == 1:
            continue
        if loops and all(outer == inner * n for outer, inner in zip(loops[-1][1], step, strict=True)):
            loops[-1] = (loops[-1][0] * n, step)
        else:
            loops.append((n, step))
    return [n for n, _ in loops], [[step[k] for _, step in loops] for k in range(len(strides))]


def is_whole(dims: Sequence[int], strides: Sequence[int]) -> bool:
    """True if the loop visits ``prod(dims)`` elements that lie one after the other."""
    left, (walked,) = merge(dims, strides)
    return not left or (len(left) == 1 and walked == [1])


def fields(prefix: str, values: Sequence[int], fill: int) -> dict[str, int]:
    """``values`` as the step fields ``prefix``0..5, unused leading ones ``fill``."""
    return {f"{prefix}{i}": int(v) for i, v in enumerate([fill] * (RANK - len(values)) + list(values))}


def copy_step(
    x: str, y: str, dtype: str, dims: Sequence[int], sx: Sequence[int], sy: Sequence[int], start_x: int = 0, start_y: int = 0
) -> Step | None:
    """A strided copy from tensor ``x`` to tensor ``y``, or None where it needs more than six loops or an odd element size."""
    size = np.dtype(dtype).itemsize
    left, (walk_x, walk_y) = merge(dims, sx, sy)
    if len(left) > RANK or size not in (1, 2, 4, 8):
        return None
    loops = {**fields("d", left, 1), **fields("sx", walk_x, 0), **fields("sy", walk_y, 0)}
    return Step("copy", {"x": x, "y": y}, {"size": size, "from": start_x, "to": start_y, **loops})


def rows_and_cols(shape: Sequence[int]) -> dict[str, int]:
    """Fields ``rows`` and ``cols`` of a step that walks pixels of ``shape[-1]`` channels."""
    return {"rows": prod(shape[:-1]), "cols": shape[-1]} if shape else {"rows": 1, "cols": 1}


def fill_step(plan: Lowering, y: str, value: float) -> Step:
    """Set every float of a dense tensor."""
    return Step("fill", {"y": y}, {"count": prod(int(d) for d in plan.spec(y).shape)}, {"value": float(value)})
