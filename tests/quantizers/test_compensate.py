"""Errors that cancel in the outputs for given inputs: the outputs change less, what must stay stays."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.quantizers import QUANTIZERS, compensate


def correlated(n: int, k: int, seed: int = 0) -> np.ndarray:
    """Inputs as they leave a Relu: correlated, of one sign, channels of different strength."""
    generator = np.random.default_rng(seed)
    mixed = generator.standard_normal((n, k // 4 + 1)) @ generator.standard_normal((k // 4 + 1, k))
    return np.maximum(mixed * generator.uniform(0.1, 2, k), 0).astype(np.float32)


def matrix(rows: int, k: int, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((rows, k)) * generator.uniform(0.2, 3, (rows, 1))).astype(np.float32)


def change(weights: np.ndarray, decoded: np.ndarray, inputs: np.ndarray) -> float:
    return float(np.square(inputs @ (weights - decoded).T, dtype=np.float64).mean())


@pytest.mark.parametrize("name", ["kmeans", "uniform", "sign"])
@pytest.mark.parametrize("bits", [3, 5])
def test_outputs_change_less(name: str, bits: int) -> None:
    weights, inputs, unseen = matrix(40, 150), *np.split(correlated(1200, 150), 2)
    quantizer = QUANTIZERS[name](bits=bits)
    nearest, balanced, found = quantizer.quantize(weights), quantizer.fit(weights), quantizer.fit(weights, 1, [inputs])
    for seen in (inputs, unseen):
        assert change(weights, found.decode(), seen) < 0.45 * change(weights, nearest.decode(), seen)
        assert change(weights, found.decode(), seen) < 0.75 * change(weights, balanced.decode(), seen)
    np.testing.assert_array_equal(found.table, nearest.table)
    np.testing.assert_array_equal(found.row_scale, nearest.row_scale)
    if nearest.base_table is not None:
        np.testing.assert_array_equal(found.symbols & 1, nearest.symbols & 1)


def test_runs_of_columns_answer_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, inputs = matrix(20, 96), correlated(400, 96)
    quantized = QUANTIZERS["kmeans"](bits=3).quantize(weights)
    whole = change(weights, compensate.compensate(weights, quantized, [inputs]).decode(), inputs)
    monkeypatch.setattr(compensate, "RUN", 32)
    runs = change(weights, compensate.compensate(weights, quantized, [inputs]).decode(), inputs)
    apart = np.concatenate(
        [
            compensate.compensate(np.ascontiguousarray(weights[:, i : i + 32]), part, [inputs[:, i : i + 32]]).decode()
            for i in range(0, 96, 32)
            for part in [type(quantized)(quantized.symbols[:, i : i + 32], quantized.table, None, quantized.row_scale)]
        ],
        axis=1,
    )
    assert whole <= 1.05 * runs and runs < 0.8 * change(weights, apart, inputs)


def test_groups_have_inputs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, first, second = matrix(24, 60), correlated(300, 60, 2), correlated(300, 60, 3)
    quantizer = QUANTIZERS["kmeans"](bits=4)
    quantized = quantizer.quantize(weights)
    monkeypatch.setattr(compensate, "ROWS", 5)
    both = compensate.compensate(weights, quantized, [first, second])
    for rows, seen in ((slice(0, 12), first), (slice(12, 24), second)):
        part = type(quantized)(quantized.symbols[rows], quantized.table, None, quantized.row_scale[rows])
        np.testing.assert_array_equal(compensate.compensate(weights[rows], part, [seen]).symbols, both.symbols[rows])


def test_zeros_of_a_pruned_tensor_stay() -> None:
    weights = matrix(20, 100)
    weights[np.abs(weights) < 1] = 0
    found = QUANTIZERS["kmeans"](bits=4).fit(weights, 1, [correlated(300, 100)])
    np.testing.assert_array_equal(found.decode()[weights == 0], 0)


def test_exact_weights_and_silent_inputs_change_nothing() -> None:
    few = np.random.default_rng(0).choice([-1.5, 0.25, 2.0], (30, 70)).astype(np.float32)
    np.testing.assert_array_equal(QUANTIZERS["kmeans"](bits=2).fit(few, 1, [correlated(200, 70)]).decode(), few)
    weights = matrix(7, 33)
    quantizer = QUANTIZERS["uniform"](bits=4)
    for silent in (np.zeros((5, 33), np.float32), np.full((5, 33), np.inf, np.float32)):
        np.testing.assert_array_equal(quantizer.fit(weights, 1, [silent]).symbols, quantizer.quantize(weights).symbols)
    np.testing.assert_array_equal(QUANTIZERS["none"]().fit(weights, 1, [correlated(9, 33)]).decode(), weights)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (3, 130)])
@pytest.mark.parametrize("samples", [1, 200])
def test_odd_sizes(shape: tuple[int, int], samples: int) -> None:
    weights = matrix(*shape)
    found = QUANTIZERS["uniform"](bits=2).fit(weights, 1, [correlated(samples, shape[1])])
    assert found.symbols.shape == shape and found.symbols.max() < 4


def test_a_stated_bound_is_kept() -> None:
    weights = matrix(8, 500)
    after = QUANTIZERS["sign"](error_bound=0.2).fit(weights, 1, [correlated(100, 500)])
    assert np.abs(weights - after.decode()).max() <= 0.2 * weights.std(dtype=np.float64)


@pytest.mark.parametrize("name", ["kmeans", "sign"])
def test_row_scales_of_a_codebook_only_where_they_help(name: str) -> None:
    generator = np.random.default_rng(4)
    grid = (generator.normal(0, 20, (64, 300)).round().clip(-100, 100) * 0.01).astype(np.float32)
    found = QUANTIZERS[name](bits=7).quantize(grid)
    assert found.row_scale is None and np.abs(found.decode() - grid).max() < 0.016
