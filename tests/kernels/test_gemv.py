"""Products of one to four rows, which multiply straight from the code, have the bits of products of many rows, which go through panels."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.coders import CODERS, encode_tensor
from edgeinfer.container import coded_tensor
from edgeinfer.errors import KernelError
from edgeinfer.kernels.program import available_kernels
from edgeinfer.quantizers import KMeans, NoQuantizer, Sign, Uniform

from .harness import run_step

VARIANTS = available_kernels()
#: rows, k, k_chunk: whole and short blocks, whole, short and single segments
SHAPES = [(64, 512, 512), (70, 700, 288), (32, 67, 512), (33, 1030, 512)]


def product(tensor, x, kernels, threads=1):
    n, k = x.shape
    ints = dict(images=n, in_h=1, in_w=1, in_c=k, x_ld=k, out_h=1, out_w=1, out_c=tensor.rows, y_ld=tensor.rows, kh=1, kw=1)
    ints |= dict(stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, groups=1)
    bias = np.linspace(-1, 1, tensor.rows, dtype=np.float32)
    return run_step("conv", {"x": x, "bias": bias}, {"y": n * tensor.rows}, ints, {}, tensor, kernels, threads)["y"].reshape(n, -1)


def tensor_of(quantizer, coder, rows, k, k_chunk, seed=0, pruned=False):
    random = np.random.default_rng(seed)
    weights = random.standard_normal((rows, k)).astype(np.float32)
    if pruned:
        weights[random.random((rows, k)) < 0.9] = 0
    return coded_tensor("t", weights.shape, encode_tensor("t", weights, rows, 1, quantizer, coder and CODERS[coder](), k_chunk))


CASES = [(KMeans(bits), "packed") for bits in range(1, 9)] + [(Sign(bits), "packed") for bits in range(2, 8)]
CASES += [(Uniform(bits), coder) for coder in ("packed", "huffman", "rans", "gaps", "raw") for bits in (3, 5, 8)]
CASES += [(KMeans(bits), coder) for coder in ("huffman", "rans", "gaps") for bits in (2, 4, 5, 6)]
CASES += [(Sign(bits), coder) for coder in ("huffman", "rans", "gaps", "raw") for bits in (3, 4, 5, 6)] + [(NoQuantizer("float16"), None)]


def label(value):
    return f"{value.name}{getattr(value, 'bits', '')}" if hasattr(value, "name") else value


@pytest.mark.parametrize("quantizer, coder", CASES, ids=label)
def test_few_rows_have_the_bits_of_many(quantizer, coder):
    for rows, k, k_chunk in SHAPES:
        for pruned in (False, True):
            tensor = tensor_of(quantizer, coder, rows, k, k_chunk, pruned=pruned)
            x = np.random.default_rng(1).standard_normal((9, k)).astype(np.float32)
            x[:, ::7] = 0
            for base_only in (False, True) if quantizer.name == "sign" else (False,):
                tensor.base_only = base_only
                for kernels in VARIANTS:
                    many = product(tensor, x, kernels)
                    for n in (1, 2, 3, 4):
                        few = product(tensor, x[:n], kernels, threads=1 + n % 2)
                        what = f"{n} rows, {rows} x {k}, pruned {pruned}, base only {base_only}, {kernels}"
                        assert few.tobytes() == many[:n].tobytes(), what


@pytest.mark.parametrize("density", [0.005, 0.04, 0.06, 0.2])
def test_gaps_are_multiplied_sparsely_with_the_same_bits(density):
    """Tiles of few entries, of many, and of none; long gaps; inputs of zero, and inputs that are not finite."""
    random = np.random.default_rng(3)
    weights = random.standard_normal((96, 1100)).astype(np.float32)
    weights[random.random(weights.shape) > density] = 0
    weights[32:64, :600] = 0
    tensor = coded_tensor("t", weights.shape, encode_tensor("t", weights, 96, 1, KMeans(4), CODERS["gaps"](), 512))
    for special in (0.0, np.inf, np.nan):
        x = random.standard_normal((6, 1100)).astype(np.float32)
        x[:, ::3] = 0
        x[:, 700] = special
        for kernels in VARIANTS:
            many = product(tensor, x, kernels)
            for row in range(6):
                np.testing.assert_array_equal(product(tensor, x[row : row + 1], kernels)[0].view(np.uint32), many[row].view(np.uint32))


def test_few_rows_against_the_decoded_matrix():
    tensor = tensor_of(KMeans(5), "packed", 96, 900, 448)
    x = np.random.default_rng(1).standard_normal((3, 900)).astype(np.float32)
    expected = x.astype(np.float64) @ tensor.decode().astype(np.float64).T + np.linspace(-1, 1, 96)
    for kernels in VARIANTS:
        np.testing.assert_allclose(product(tensor, x, kernels), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kernels", VARIANTS)
def test_a_damaged_tile_is_an_error(kernels):
    weights = np.random.default_rng(0).standard_normal((32, 512)).astype(np.float32)
    encoded = encode_tensor("t", weights, 32, 1, KMeans(4), CODERS["rans"](), 512)
    encoded.parts["plane0"][-40:] ^= 0x55
    with pytest.raises(KernelError, match="damaged"):
        product(coded_tensor("t", weights.shape, encoded), np.ones((1, 512), np.float32), kernels)
