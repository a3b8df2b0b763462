"""Errors that cancel: row sums all but vanish, the squared error hardly grows, exact weights and signs stay."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.quantizers import QUANTIZERS
from edgeinfer.quantizers.balance import balance


def matrix(rows: int, k: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((rows, k)) * generator.uniform(0.2, 3, (rows, 1))).astype(np.float32)


@pytest.mark.parametrize("name", ["kmeans", "uniform", "sign"])
@pytest.mark.parametrize("bits", [2, 4, 5])
def test_row_sums_vanish_at_little_cost(name: str, bits: int) -> None:
    weights = matrix(37, 900)
    quantizer = QUANTIZERS[name](bits=bits)
    before, after = quantizer.quantize(weights), quantizer.fit(weights)
    errors, balanced = weights - before.decode(), weights - after.decode()
    step = float(np.diff(np.unique(before.table)).max()) * after.row_scale.astype(np.float64)
    assert (np.abs(balanced.sum(axis=1)) <= step).all()
    assert np.abs(balanced.sum(axis=1)).mean() < 0.2 * np.abs(errors.sum(axis=1)).mean()
    assert (balanced**2).sum() <= 1.05 * (errors**2).sum()
    np.testing.assert_array_equal(before.table, after.table)
    if before.base_table is not None:
        np.testing.assert_array_equal(before.symbols & 1, after.symbols & 1)


def test_errors_cancel_per_channel_first() -> None:
    weights, taps = matrix(16, 9 * 50), 9
    quantizer = QUANTIZERS["kmeans"](bits=4)
    rows = weights - quantizer.fit(weights, 1).decode()
    both = weights - quantizer.fit(weights, taps).decode()
    per_channel = lambda e: np.abs(e.reshape(16, taps, -1).sum(axis=1)).mean()  # noqa: E731
    assert per_channel(both) < 0.5 * per_channel(rows)
    assert np.abs(both.sum(axis=1)).mean() < 2 * np.abs(rows.sum(axis=1)).mean() + 0.1


def test_exact_weights_stay() -> None:
    pruned = matrix(20, 400, 3)
    pruned[np.abs(pruned) < 1] = 0
    after = QUANTIZERS["kmeans"](bits=4).fit(pruned)
    np.testing.assert_array_equal(after.decode()[pruned == 0], 0)
    few = np.random.default_rng(0).choice([-1.5, 0.25, 2.0], (30, 70)).astype(np.float32)
    np.testing.assert_array_equal(QUANTIZERS["kmeans"](bits=4).fit(few).decode(), few)


def test_a_stated_bound_is_kept() -> None:
    weights = matrix(8, 500)
    after = QUANTIZERS["sign"](error_bound=0.2).fit(weights)
    assert np.abs(weights - after.decode()).max() <= 0.2 * weights.std(dtype=np.float64)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (3, 9)])
def test_tiny_matrices(shape: tuple[int, int]) -> None:
    weights = matrix(*shape, seed=5)
    quantized = QUANTIZERS["uniform"](bits=2).quantize(weights)
    assert balance(weights, quantized, 9 if shape[1] == 9 else 1).symbols.max() < 4


def test_floats_pass_through() -> None:
    weights = matrix(4, 9)
    np.testing.assert_array_equal(QUANTIZERS["none"]().fit(weights).decode(), weights)
