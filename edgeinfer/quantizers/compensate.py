"""Errors that cancel in what a layer computes: symbols chosen so that the outputs for given inputs change least.

With a matrix P of inputs the layer has seen, moving the weights of an output row by e moves its outputs by P e, so the error that matters
is |P e|^2 = e^T H e with H = P^T P (OBS; Hassibi and Stork 1993), not |e|^2. First the columns are taken one after the other and what
rounding one does to the outputs is taken back by those that are still free (GPTQ; Frantar et al., ICLR 2023), here in the form that
Babai's nearest plane gives it: one Cholesky factor of H, no inverse. Then coordinate descent: every weight in turn goes to the value
that is best while all others stay. The table and the row scales are given and stay, weights of exactly zero in a pruned tensor stay
zero, and a sign plane keeps its signs.

Where no inputs are known, :mod:`.balance` does what needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .base import PRUNED, Quantized

#: Added to the diagonal of H in shares of its mean, and as one more input of all ones in shares of the inputs' energy. Both stand for
#: inputs that were not seen: errors stay small, and cancel within a row as :mod:`.balance` wants it. On SqueezeNet and MobileNetV2 with
#: made images, 0.01 and 0.5 are both worse than 0.1, and the ones help (divergence of the answers 0.072 -> 0.069 and 0.033 -> 0.032).
DAMPING = 0.1
ONES = 0.1
#: columns that compensate one another: H of that many is factored (42 MB as float64); what one run of columns leaves is handed to the next
RUN = 2304
#: columns between which errors travel at once, the others get them in one product
BLOCK = 64
#: rows at a time, for the memory of their float copies
ROWS = 1024
#: rounds of coordinate descent at most; it ends before where fewer than one weight in a thousand moves
SWEEPS = 3


@dataclass(frozen=True)
class _Values:
    """Which value a weight may take: sorted levels with their symbols, for each sign apart where there is a sign plane."""

    table: np.ndarray
    sides: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, quantized: Quantized) -> _Values:
        table = quantized.table
        assert table is not None
        symbols = np.arange(len(table))
        groups = (symbols,) if quantized.base_table is None else (symbols[symbols % 2 == 0], symbols[symbols % 2 == 1])
        sides = []
        for group in groups:
            order = group[np.argsort(table[group], kind="stable")].astype(np.uint8)
            levels = table[order]
            sides.append(((levels[1:] + levels[:-1]) / 2, order))
        return cls(table, tuple(sides))

    def nearest(self, wanted: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Symbol of the value nearest to each wanted one that a weight with symbol ``now`` may move to."""
        first, *other = [order[np.searchsorted(edges, wanted)] for edges, order in self.sides]
        return np.where(now & 1, other[0], first) if other else first


def compensate(weights: np.ndarray, quantized: Quantized, inputs: Sequence[np.ndarray]) -> Quantized:
    """The same table and scales with symbols that keep the outputs for ``inputs``.

    Args:
        weights: float32 (rows, k).
        quantized: of these weights.
        inputs: float32 (n, k), one array for each equal group of rows: what the rows are multiplied with. Only ratios matter; give
            every sample the weight it should have.

    Returns:
        The quantized matrix; ``quantized`` itself where it is exact, holds floats or has one value only.
    """
    if quantized.symbols is None or quantized.table is None or len(np.unique(quantized.table)) < 2:
        return quantized
    frozen = weights == 0 if np.count_nonzero(weights) <= (1 - PRUNED) * weights.size else None
    symbols = quantized.symbols.copy()
    scale = np.ones(len(weights), np.float32) if quantized.row_scale is None else quantized.row_scale.astype(np.float32)
    values = _Values.of(quantized)
    per_group = len(weights) // len(inputs)
    for group, seen in enumerate(inputs):
        energy = float(np.mean(np.square(seen, dtype=np.float64)))
        if not energy > 0 or not np.isfinite(energy):
            continue  # nothing comes in: any symbol does
        first = group * per_group
        seen = np.concatenate([seen, np.full((1, seen.shape[1]), np.sqrt(ONES * energy * len(seen)), np.float32)])
        for low in range(first, first + per_group, ROWS):
            rows = slice(low, min(low + ROWS, first + per_group))
            _compensate_rows(weights, symbols, scale, frozen, values, seen, energy, rows)
    return replace(quantized, symbols=symbols)


def _compensate_rows(
    weights: np.ndarray,
    symbols: np.ndarray,
    scale: np.ndarray,
    frozen: np.ndarray | None,
    values: _Values,
    seen: np.ndarray,
    energy: float,
    rows: slice,
) -> None:
    """Choose ``symbols[rows]`` anew, run by run of columns. In place."""
    k = weights.shape[1]
    runs = -(-k // RUN)
    edges = [k * i // runs for i in range(runs + 1)]
    divisor = np.where(scale[rows] == 0, np.float32(1), scale[rows])[:, None]
    left: np.ndarray | None = None  # what the runs before changed in the outputs: (n, rows)
    for low, high in zip(edges, edges[1:], strict=False):
        part = np.ascontiguousarray(seen[:, low:high])
        h = part.T @ part
        h /= len(part) * energy
        h[np.diag_indices(high - low)] += np.float32(DAMPING)
        order = np.argsort(np.diag(h), kind="stable")  # the strongest inputs come last and are rounded first
        h = np.ascontiguousarray(h[np.ix_(order, order)])
        columns = low + order
        true = weights[rows][:, columns] / divisor
        target = true
        factor = np.linalg.cholesky(h.astype(np.float64))
        if left is not None:
            pull = left.T @ part[:, order] / np.float32(len(part) * energy)
            target = true + np.linalg.solve(factor.T, np.linalg.solve(factor, pull.T.astype(np.float64))).T.astype(np.float32)
        held = None if frozen is None else frozen[rows][:, columns]
        now = symbols[rows][:, columns]
        _nearest_plane(now, target, factor.astype(np.float32), values, held)
        del factor
        _descend(now, target, h, values, held)
        symbols[rows, low:high] = now[:, np.argsort(order)]
        if high < k:
            change = part[:, order] @ (true - values.table[now]).T
            left = change if left is None else left + change


def _nearest_plane(now: np.ndarray, target: np.ndarray, factor: np.ndarray, values: _Values, held: np.ndarray | None) -> None:
    """Round the columns of ``target`` (rows, n) from the last to the first; what one leaves moves those before it. ``factor``: lower
    Cholesky factor of H. Writes symbols to ``now``."""
    n = target.shape[1]
    error = np.zeros_like(target)
    weight = factor / np.diag(factor)[None]  # [i, j], i > j: by how much an error of column i moves column j
    for high in range(n, 0, -BLOCK):
        low = max(0, high - BLOCK)
        moved = error[:, high:] @ weight[high:, low:high]
        moved += target[:, low:high]
        for j in range(high - 1, low - 1, -1):
            symbol = values.nearest(moved[:, j - low], now[:, j])
            if held is not None:
                symbol = np.where(held[:, j], now[:, j], symbol)
            now[:, j] = symbol
            error[:, j] = target[:, j] - values.table[symbol]
            moved[:, : j - low] += error[:, j, None] * weight[j, low:j]


def _descend(now: np.ndarray, target: np.ndarray, h: np.ndarray, values: _Values, held: np.ndarray | None) -> None:
    """Coordinate descent on e^T H e of every row, e = target - value. Changes symbols in ``now``."""
    n = target.shape[1]
    diagonal = np.diag(h)
    slope = (target - values.table[now]) @ h
    for _ in range(SWEEPS):
        changed = 0
        for low in range(0, n, BLOCK):
            high = min(low + BLOCK, n)
            local = np.ascontiguousarray(slope[:, low:high])
            moves = np.zeros_like(local)
            for j in range(low, high):
                value = values.table[now[:, j]]
                symbol = values.nearest(value + local[:, j - low] / diagonal[j], now[:, j])
                if held is not None:
                    symbol = np.where(held[:, j], now[:, j], symbol)
                move = values.table[symbol] - value
                if not move.any():
                    continue
                changed += int(np.count_nonzero(move))
                now[:, j] = symbol
                moves[:, j - low] = move
                local -= move[:, None] * h[j, low:high]
            slope -= moves @ h[low:high]
        if changed < 1e-3 * now.size:
            return
