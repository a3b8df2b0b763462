"""Quantizers one by one: error, scales, exactness, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from coders import cases

from edgeinfer.errors import UsageError
from edgeinfer.quantizers import QUANTIZERS, KMeans, NoQuantizer, Sign, Uniform
from edgeinfer.quantizers.base import round_bfloat


def decibel(weights, quantized):
    difference = quantized.decode().astype(np.float64) - weights
    return 10 * np.log10((weights.astype(np.float64) ** 2).mean() / (difference**2).mean())


@pytest.mark.parametrize("name, options", cases.quantizers())
def test_constructor_keywords_are_the_stored_form(name, options):
    quantizer = cases.quantizer(name, options)
    again = QUANTIZERS[name](**quantizer.options())
    weights = cases.weights(40, 60)
    np.testing.assert_array_equal(again.quantize(weights).decode(), quantizer.quantize(weights).decode())


@pytest.mark.parametrize("name, options", cases.quantizers())
def test_symbols_stay_within_the_table(name, options):
    for weights in (cases.weights(40, 60), cases.weights(40, 60, pruned=True), np.zeros((5, 6), np.float32), np.ones((1, 1), np.float32)):
        quantized = cases.quantizer(name, options).quantize(weights)
        if quantized.symbols is not None:
            assert quantized.symbols.shape == weights.shape and quantized.symbols.dtype == np.uint8
            assert quantized.symbols.max() < len(quantized.table) <= 256
            assert np.isfinite(quantized.table).all() and quantized.table.dtype == np.float32
        assert np.isfinite(quantized.decode()).all()


@pytest.mark.parametrize("name", ["uniform", "kmeans", "sign"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(name, bad):
    weights = cases.weights(8, 200)
    weights[3, 4] = bad
    with pytest.raises(UsageError, match="none"):
        QUANTIZERS[name]().quantize(weights)


# Best quantizers of a Gaussian (Max 1960, table I; 6.02 b - 4.35 dB from 6 bits on; uniform: table II), less 0.05 dB for the sample
@pytest.mark.parametrize("bits, least", [(1, 4.35), (2, 9.25), (3, 14.55), (4, 20.15), (5, 25.9), (6, 31.7), (8, 43.2)])
def test_kmeans_is_near_the_best_quantizer_of_a_gaussian(bits, least):
    weights = np.random.default_rng(1).standard_normal((64, 4096)).astype(np.float32)
    assert decibel(weights, KMeans(bits).quantize(weights)) > least


@pytest.mark.parametrize("bits, least", [(3, 13.8), (4, 19.1), (5, 24.4), (8, 40.2)])
@pytest.mark.parametrize("quantizer", [Uniform, Sign])
def test_grids_are_near_the_best_uniform_quantizer_of_a_gaussian(quantizer, bits, least):
    weights = np.random.default_rng(1).standard_normal((64, 4096)).astype(np.float32)
    assert decibel(weights, quantizer(bits).quantize(weights)) > least


@pytest.mark.parametrize("name", ["uniform", "kmeans", "sign"])
def test_row_scales_help_rows_of_different_spread(name):
    weights = cases.weights(64, 512)
    with_scales = QUANTIZERS[name](bits=4, row_scale=True).quantize(weights)
    without = QUANTIZERS[name](bits=4, row_scale=False).quantize(weights)
    assert with_scales.row_scale.dtype == np.float16 and without.row_scale is None
    small = np.argmin(weights.std(axis=1))
    error = [np.abs(q.decode()[small] - weights[small]).mean() for q in (with_scales, without)]
    assert error[0] < error[1] / 2


def test_rows_of_zeros_and_of_tiny_weights():
    weights = cases.weights(6, 300)
    weights[2] = 0
    weights[4] *= 1e-12
    for quantizer in (KMeans(4), Uniform(4), Sign(4)):
        decoded = quantizer.quantize(weights).decode()
        assert not decoded[2].any()
        assert np.abs(decoded[4]).max() < 1e-3


def test_few_distinct_values_are_kept_exactly():
    random = np.random.default_rng(0)
    values = np.asarray([-1.3, -0.123456789, 0.0, 1e-30, 0.7, 3e8], np.float32)
    weights = random.choice(values, (50, 70))
    quantized = KMeans(3).quantize(weights)
    assert quantized.row_scale is None
    np.testing.assert_array_equal(quantized.decode(), weights)
    # a value that shows up late, one more than fits
    values = np.append(values, [5.0, 6.0, 7.0]).astype(np.float32)
    weights = np.concatenate([weights, values[None].repeat(8, 0).reshape(-1)[:70][None]])
    assert np.abs(KMeans(3).quantize(weights).decode() - weights).max() > 0
    np.testing.assert_array_equal(KMeans(4).quantize(weights).decode(), weights)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_pruned_weights_stay_zero(bits):
    weights = cases.weights(40, 500, pruned=True)
    decoded = KMeans(bits).quantize(weights).decode()
    assert not decoded[weights == 0].any()


@pytest.mark.parametrize("bound", [0.07, 0.1, 0.5])
@pytest.mark.parametrize("pruned", [False, True])
def test_the_error_bound_of_sign_holds_for_every_weight(bound, pruned):
    weights = cases.weights(64, 512, pruned)
    quantized = Sign(error_bound=bound).quantize(weights)
    assert quantized.row_scale is None
    error = np.abs(quantized.decode().astype(np.float64) - weights).max()
    assert error <= bound * weights.std(dtype=np.float64)
    # and the buckets are as wide as they may be: half as many would not do
    assert error > bound * weights.std(dtype=np.float64) / 4


def test_an_error_bound_that_needs_too_many_buckets():
    with pytest.raises(UsageError, match=r"0\.0001.*at most 128.*or more"):
        Sign(error_bound=0.0001).quantize(cases.weights(8, 100))


def test_sign_centroids_are_means_of_the_halves():
    weights = cases.weights(1, 4000) + np.float32(0.1)
    quantized = Sign(5).quantize(weights)
    np.testing.assert_allclose(quantized.base_table, [weights[weights < 0].mean(), weights[weights >= 0].mean()], rtol=1e-5)
    assert ((quantized.symbols & 1) == (weights >= 0)).all()


def test_buckets_of_both_signs_are_mirrored():
    weights = np.asarray([[-2.0, -1.0, -0.1, 0.1, 1.0, 2.0]], np.float32)
    buckets = Sign(4).quantize(weights).symbols[0] >> 1
    assert list(buckets) == list(buckets[::-1])


def test_a_uniform_grid_holds_zero_and_equal_steps():
    quantized = Uniform(8).quantize(cases.weights(16, 500))
    assert 0 in quantized.table
    zero = int(np.argmin(np.abs(quantized.table)))
    step = quantized.table[zero + 1]
    np.testing.assert_array_equal(quantized.table, (np.arange(256, dtype=np.float32) - zero) * step)


def test_a_dead_zone_makes_more_zeros():
    weights = cases.weights(16, 500)
    zeros = [np.count_nonzero(Uniform(5, dead_zone=zone, step=0.4).quantize(weights).decode() == 0) for zone in (0, 0.5, 1.0)]
    assert zeros[0] < zeros[1] < zeros[2]


def test_weights_of_one_sign():
    weights = np.abs(cases.weights(16, 500)) + np.float32(0.01)
    for quantizer in (KMeans(5), Uniform(5), Sign(5)):
        assert decibel(weights, quantizer.quantize(weights)) > 24


def test_outliers_do_not_spoil_the_rest():
    weights = np.random.default_rng(3).standard_normal((32, 4096)).astype(np.float32)
    weights[3, 7], weights[20, 8] = 80, -60
    for quantizer in (KMeans(5), Sign(5), Uniform(5)):
        quiet = quantizer.quantize(weights).decode()[5] - weights[5]
        assert np.sqrt((quiet**2).mean()) < 0.12


def test_floats():
    weights = cases.weights(9, 33)
    np.testing.assert_array_equal(NoQuantizer().quantize(weights).decode(), weights)
    np.testing.assert_array_equal(NoQuantizer("float16").quantize(weights).decode(), weights.astype(np.float16).astype(np.float32))
    bfloat = NoQuantizer("bfloat16").quantize(weights).decode()
    assert np.abs(bfloat / weights - 1).max() <= 2.0**-8
    with pytest.raises(UsageError, match="65504"):
        NoQuantizer("float16").quantize(weights + np.float32(1e6))


def test_rounding_to_bfloat_is_to_nearest_even():
    ulp = np.float32(2.0**-7)
    values = np.asarray([1, 1 + 0.49 * ulp, 1 + 0.5 * ulp, 1 + 1.5 * ulp, 1 + 0.51 * ulp, -1 - 0.75 * ulp], np.float32)
    np.testing.assert_array_equal(round_bfloat(values), np.asarray([1, 1, 1, 1 + 2 * ulp, 1 + ulp, -1 - ulp], np.float32))


@pytest.mark.parametrize(
    "name, options",
    [
        ("kmeans", {"bits": 0}),
        ("kmeans", {"bits": 9}),
        ("kmeans", {"bits": 4.0}),
        ("kmeans", {"start": "forgy"}),
        ("uniform", {"bits": 1}),
        ("uniform", {"dead_zone": -1}),
        ("uniform", {"step": 0}),
        ("sign", {"bits": 1}),
        ("sign", {"error_bound": 0}),
        ("sign", {"error_bound": 0.1, "row_scale": True}),
        ("none", {"dtype": "int8"}),
    ],
)
def test_options_that_make_no_sense(name, options):
    with pytest.raises(UsageError):
        QUANTIZERS[name](**options)
