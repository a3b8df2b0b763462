"""Margins, exact bounds, the random source."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.runtime.stop import Draw, binomial_upper, margins, most_wrong, softmax


def test_margin_is_the_gap_between_the_two_largest() -> None:
    scores = np.array([[0.1, 0.6, 0.3], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], np.float32)
    np.testing.assert_allclose(margins(scores), [0.3, 0.0, 1.0], atol=1e-7)
    np.testing.assert_array_equal(margins(np.ones((2, 1), np.float32)), [1, 1])


def test_softmax_of_large_logits() -> None:
    p = softmax(np.array([[1000.0, 1000.0, -1000.0]], np.float32))
    np.testing.assert_allclose(p, [[0.5, 0.5, 0.0]])


@given(st.integers(1, 300), st.floats(0.5, 0.999), st.integers(0, 300))
def test_the_bound_is_where_so_few_errors_become_unlikely(count: int, confidence: float, wrong: int) -> None:
    wrong = min(wrong, count)
    upper = binomial_upper(wrong, count, confidence)
    if wrong == count:
        assert upper == 1.0
        return
    chance = sum(math.comb(count, i) * upper**i * (1 - upper) ** (count - i) for i in range(wrong + 1))
    assert chance == pytest.approx(1 - confidence, abs=1e-6)


def test_known_bounds() -> None:
    assert binomial_upper(0, 0) == 1.0
    assert binomial_upper(0, 299) == pytest.approx(1 - 0.05 ** (1 / 299))  # the rule of three
    assert most_wrong(299, 0.01) == 0 and most_wrong(298, 0.01) == -1
    k = most_wrong(2000, 0.01)
    assert binomial_upper(k, 2000) <= 0.01 < binomial_upper(k + 1, 2000)


def test_the_bound_covers() -> None:
    generator = np.random.default_rng(0)
    missed = sum(binomial_upper(int(generator.binomial(400, 0.02)), 400, 0.9) < 0.02 for _ in range(2000))
    assert missed <= 0.1 * 2000 + 3 * math.sqrt(2000 * 0.1 * 0.9)


def test_draws_are_even_and_repeat_with_a_seed() -> None:
    draw = Draw(3)
    first = [draw() for _ in range(20000)]
    assert [first[0], first[1]] == [v for d in [Draw(3)] for v in (d(), d())]
    counts = np.histogram(first, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi square, 19 degrees of freedom, 0.1 %
    assert Draw()() != Draw()()
