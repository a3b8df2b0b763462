"""Thresholds of a row of early answers, each improved exactly while the others stand. Used for ensembles and for layer caches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: thresholds that no confidence and that every confidence passes
NEVER, ALWAYS = 1.0, 0.0
_ROUNDS = 10


def stops(confidence: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Where each row stops, ``[rows]``: the first of ``confidence`` ``[places, rows]`` above its threshold, else ``places``."""
    at = np.full(confidence.shape[1], len(confidence))
    for k in range(len(confidence) - 1, -1, -1):
        at[confidence[k] > thresholds[k]] = k
    return at


def improve(confidence: np.ndarray, value: np.ndarray, start: Sequence[float]) -> tuple[float, ...]:
    """Thresholds that make the mean of ``value`` small.

    Args:
        confidence: ``[places, rows]`` in 0..1. value: float64 ``[places + 1, rows]``, what stopping at each place costs; the last: going on
            to the end.
        start: thresholds to begin with.

    One threshold after the other takes its best value given the others (rows sorted by confidence, every cut tried) until none moves.
    """
    places, rows = confidence.shape
    thresholds = list(start)
    for _ in range(_ROUNDS):
        before = list(thresholds)
        for k in range(places):
            reached = np.ones(rows, bool)
            for j in range(k):
                reached &= confidence[j] <= thresholds[j]
            at = np.flatnonzero(reached)
            if not len(at):
                continue
            later = np.full(len(at), places)
            for j in range(places - 1, k, -1):
                later[confidence[j, at] > thresholds[j]] = j
            gain = value[k, at] - value[later, at]  # of stopping here, row by row
            order = np.argsort(-confidence[k, at], kind="stable")
            ranked = confidence[k, at][order].astype(np.float64)
            total = np.concatenate([[0.0], np.cumsum(gain[order])])
            cut = np.flatnonzero(np.concatenate([[True], ranked[:-1] > ranked[1:], [True]]))  # equal rows stop together
            best = int(cut[np.argmin(total[cut])])
            if best == 0:
                thresholds[k] = NEVER
            elif best == len(at):
                thresholds[k] = ALWAYS
            else:
                thresholds[k] = float((ranked[best - 1] + ranked[best]) / 2)
        if thresholds == before:
            break
    return tuple(thresholds)
