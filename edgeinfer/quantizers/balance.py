"""Errors of a row that cancel: after every weight went to its nearest value, a few go to the second nearest so that the errors of each
output row, and of each input channel within it, sum to nearly nothing.

Inputs of a layer are mostly of one sign (they left a Relu), so what the errors of a row add up to shifts the whole output channel,
while errors that cancel
only add a little noise. The idea needs no samples: SQuant (Guo et al., ICLR 2022) derives it from a diagonal-plus-constant
Hessian. Here the
weights whose move costs the least squared error move first, which works for any table of values.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .base import Quantized, slabs


def balance(weights: np.ndarray, quantized: Quantized, taps: int = 1) -> Quantized:
    """The same table and scales with symbols moved so that errors cancel.

    Args:
        weights: float32 (rows, k); k ordered [taps][channels].
        quantized: of these weights. Weights that are exact keep their symbols, and with sign planes every weight keeps its sign.
        taps: spatial taps of a convolution; with more than one, errors are first made to cancel per row and channel.
    """
    if quantized.symbols is None or quantized.table is None or len(quantized.table) < 2:
        return quantized
    order = np.argsort(quantized.table, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    levels = quantized.table[order].astype(np.float64)
    # with two planes a move may not change the sign: no step from one side's values to the other's
    side = order % 2 if quantized.base_table is not None else np.zeros(len(order), np.int64)
    gaps = np.where(side[1:] == side[:-1], np.diff(levels), np.inf)
    gaps[gaps == 0] = np.inf
    symbols = np.empty_like(quantized.symbols)
    for rows, part in slabs(weights, quantized.row_scale):
        at = rank[quantized.symbols[rows]]
        error = part - levels[at]
        if taps > 1 and part.shape[1] > taps:
            shape = (len(part), taps, -1)
            swapped = np.ascontiguousarray(at.reshape(shape).swapaxes(1, 2)).reshape(-1, taps)
            errors = np.ascontiguousarray(error.reshape(shape).swapaxes(1, 2)).reshape(-1, taps)
            _cancel(swapped, errors, levels, gaps)
            back = (len(part), -1, taps)
            at = np.ascontiguousarray(swapped.reshape(back).swapaxes(1, 2)).reshape(len(part), -1)
            error = np.ascontiguousarray(errors.reshape(back).swapaxes(1, 2)).reshape(len(part), -1)
        _cancel(at, error, levels, gaps)
        symbols[rows] = order[at]
    return replace(quantized, symbols=symbols)


def _cancel(at: np.ndarray, error: np.ndarray, levels: np.ndarray, gaps: np.ndarray) -> None:
    """Move levels ``at`` (rows, n) by one step, cheapest first, until the sum of ``error`` of each row is within half a step of
    zero. In place."""
    total = error.sum(axis=1, keepdims=True)
    up = total > 0
    # the step that a move in the wanted direction takes; infinite at the ends of the table
    step = np.where(up, np.append(gaps, np.inf)[at], np.insert(gaps, 0, np.inf)[at])
    step[error == 0] = np.inf
    with np.errstate(invalid="ignore"):
        cost = step - 2 * np.where(up, error, -error)  # squared error gained, per unit of the sum that it moves
    cheapest = np.argsort(cost, axis=1, kind="stable")
    steps = np.take_along_axis(step, cheapest, axis=1)
    moved = np.cumsum(steps, axis=1)
    with np.errstate(invalid="ignore"):
        wanted = moved - steps / 2 <= np.abs(total)
    wanted &= np.isfinite(steps)
    mask = np.zeros_like(wanted)
    np.put_along_axis(mask, cheapest, wanted, axis=1)
    change = np.where(up, 1, -1) * mask
    at += change
    error -= np.where(mask, np.where(up, step, -step), 0)
