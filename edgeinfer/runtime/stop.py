"""When a row needs no more work: confidence of scores, bounds on how often stopping early was wrong, a small random source.

Everything adaptive stands on this floor: ensembles (``ensemble.py``) and layer caches (``cache.py``) at run time, and their fitting
(``edgeinfer.tune``). Pure; light on purpose, a device imports it.
"""

from __future__ import annotations

import math
import os

import numpy as np

#: what scores may be: ``logits`` (softmax makes probabilities of them) or ``probabilities``
SCORES = ("logits", "probabilities")


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float32 ``[rows, classes]`` of logits of the same shape; ``temperature`` > 1 flattens."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    if temperature != 1.0:
        shifted = shifted / np.float32(temperature)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=1, keepdims=True)


def probabilities(scores: np.ndarray, kind: str) -> np.ndarray:
    """``scores`` as probabilities; ``kind`` is one of :data:`SCORES`."""
    return scores if kind == "probabilities" else softmax(scores)


def margins(scores: np.ndarray) -> np.ndarray:
    """Largest minus second largest score of each row, ``[rows]``: the score margin of Tann et al. 2018, in 0..1 for probabilities."""
    if scores.shape[1] < 2:
        return np.ones(len(scores), scores.dtype)
    top = np.partition(scores, scores.shape[1] - 2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def _log_cdf(k: int, n: int, p: float) -> float:
    """log P(X <= k) for X ~ Binomial(n, p), 0 < p < 1."""
    i = np.arange(k + 1, dtype=np.float64)
    # ratios of neighbouring terms, summed in logarithms
    steps = np.log(n - i[:-1]) - np.log(i[1:]) + (math.log(p) - math.log1p(-p))
    terms = np.concatenate([[0.0], np.cumsum(steps)]) + n * math.log1p(-p)
    most = terms.max()
    return float(most + math.log(np.exp(terms - most).sum()))


def binomial_upper(wrong: int, count: int, confidence: float = 0.95) -> float:
    """Upper bound on a rate of which ``wrong`` of ``count`` independent trials were hits (Clopper and Pearson, 1934; exact, one-sided).

    The true rate is above the result in at most ``1 - confidence`` of all samples. 1.0 where there are no trials.
    """
    if count <= 0 or wrong >= count:
        return 1.0
    target = math.log(1.0 - confidence)
    low, high = wrong / count, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _log_cdf(wrong, count, min(max(middle, 1e-300), 1 - 1e-16)) > target:
            low = middle
        else:
            high = middle
    return high


def most_wrong(count: int, rate: float, confidence: float = 0.95) -> int:
    """The largest number of wrong answers of ``count`` whose upper bound is at most ``rate``; -1 where even 0 are too many to know."""
    low, high = -1, count
    while low < high - 1:
        middle = (low + high) // 2
        if binomial_upper(middle, count, confidence) <= rate:
            low = middle
        else:
            high = middle
    return low


class Draw:
    """Uniform numbers in [0, 1): the generator splitmix64, seeded from the system unless told otherwise.

    ``numpy.random`` would cost 6.7 MiB of resident memory.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.state = int.from_bytes(os.urandom(8), "little") if seed is None else seed & 0xFFFFFFFFFFFFFFFF

    def __call__(self) -> float:
        self.state = (self.state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)
