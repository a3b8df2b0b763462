"""Walk of the grid quantizer x coder: what a decoder gives is what the quantizer said, to the bit, for every kernel variant."""

from __future__ import annotations

import numpy as np
import pytest

from coders import cases
from edgeinfer.coders import CODERS, encode_tensor
from edgeinfer.container import coded_tensor
from edgeinfer.errors import UsageError
from edgeinfer.kernels.codec import available_kernels


@pytest.mark.parametrize("coder_name, coder_options", cases.coders())
@pytest.mark.parametrize("name, options", cases.quantizers())
def test_decoders_give_what_the_quantizer_said(name, options, coder_name, coder_options):
    quantizer, coder = cases.quantizer(name, options), cases.coder(coder_name, coder_options)
    if name == "none" and coder_name != "raw":
        with pytest.raises(UsageError, match=f"'t'.*{coder_name}.*raw"):
            encode_tensor("t", cases.weights(4, 4), 4, 1, quantizer, coder)
        return
    for rows, k, groups, k_chunk in cases.SHAPES:
        for pruned in (False, True):
            weights = cases.weights(rows, k, pruned)
            expected = quantizer.fit(weights).decode()
            encoded = encode_tensor("t", weights, rows, groups, quantizer, coder, k_chunk)
            tensor = coded_tensor("t", weights.shape, encoded)
            for kernels in available_kernels():
                np.testing.assert_array_equal(tensor.decode(kernels), expected, err_msg=f"{rows}x{k}/{groups} pruned={pruned} {kernels}")
            error = np.abs(expected.astype(np.float64) - weights).max()
            assert encoded.max_error == error


@pytest.mark.parametrize("coder_name", list(CODERS))
def test_the_sign_plane_alone(coder_name):
    weights = cases.weights(70, 90)
    quantizer = cases.quantizer("sign", {"bits": 5})
    quantized = quantizer.fit(weights)
    tensor = coded_tensor("t", weights.shape, encode_tensor("t", weights, 70, 2, quantizer, cases.coder(coder_name)))
    tensor.base_only = True
    expected = quantized.base_table[(weights >= 0).astype(int)] * quantized.row_scale.astype(np.float32)[:, None]
    for kernels in available_kernels():
        np.testing.assert_array_equal(tensor.decode(kernels), expected)
    tensor.base_only = False
    np.testing.assert_array_equal(tensor.decode(), quantized.decode())


@pytest.mark.parametrize("name, options", cases.quantizers())
def test_rows_that_do_not_exist_are_zero_in_panels(name, options):
    """The products of a panel's idle columns must not be NaN or count anywhere."""
    weights = cases.weights(37, 20) + 3
    tensor = coded_tensor("t", weights.shape, encode_tensor("t", weights, 37, 1, cases.quantizer(name, options)))
    for kernels in available_kernels():
        panel = tensor.decode_tile(1, 0, kernels)
        assert panel.shape == (20, 16)
        assert not panel[:, 5:].any()


def test_tiles_are_decoded_without_each_other():
    weights = cases.weights(70, 1300)
    for coder_name in CODERS:
        quantizer = cases.quantizer("kmeans", {"bits": 5})
        tensor = coded_tensor("t", weights.shape, encode_tensor("t", weights, 70, 1, quantizer, cases.coder(coder_name)))
        whole = tensor.decode()
        scale = quantizer.fit(weights).row_scale.astype(np.float32)
        blocks, chunks = tensor.tiles
        assert (blocks, chunks) == (3, 3)
        for block, chunk in ((2, 1), (0, 2), (1, 0)):
            first, last = block * 32, min(70, block * 32 + 32)
            start = chunk * tensor.k_chunk
            panel = tensor.decode_tile(block, chunk)[:, : last - first]
            np.testing.assert_array_equal(panel.T * scale[first:last, None], whole[first:last, start : start + len(panel)])
