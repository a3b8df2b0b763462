"""Every kind of step, in every variant this machine can run, against its NumPy twin; and the same bits for any threads and batch."""

import numpy as np
import pytest

from edgeinfer.errors import KernelError
from edgeinfer.kernels.program import ALGORITHMS, STEP_FIELDS, Program, available_kernels

from .cases import CASES, make_conv
from .harness import RawWeights, run_step

KINDS = sorted(STEP_FIELDS)
VARIANTS = available_kernels()


def run_case(case, kernels, threads=1):
    return run_step(case.kind, case.inputs, case.outputs, case.ints, case.floats, case.weights, kernels, threads)


@pytest.mark.parametrize("kernels", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_step(kind, kernels):
    assert kind in CASES, f"no case for the step {kind}: add one to tests/kernels/cases.py"
    count = 0
    for case in CASES[kind]():
        count += 1
        got = run_case(case, kernels)
        again = run_case(case, kernels, threads=3)
        case.check(got)
        for role in case.expected:
            assert got[role].tobytes() == again[role].tobytes(), (
                f"{kind}, {case.label}: {role} has other bits with three threads than with one"
            )
    assert count


@pytest.mark.parametrize("kernels", VARIANTS)
@pytest.mark.parametrize("shape", ["product", "conv", "first", "winograd_2_3", "winograd_4_3", "winograd_2_5"])
def test_batch_gives_the_bits_of_single_images(kernels, shape):
    taps = int(shape[-1]) if "winograd" in shape else 0
    make = {
        shape: lambda n: make_conv("", n, 9, 8, 70, 33, (taps, taps), pads=(1, 1, 1, 1), k_chunk=144, algorithm=shape),
        "product": lambda n: make_conv("", n, 1, 1, 700, 70, k_chunk=256, activation="gelu"),
        "conv": lambda n: make_conv("", n, 7, 7, 40, 33, (3, 3), pads=(1, 1, 1, 1), k_chunk=144),
        "first": lambda n: make_conv("", n, 17, 17, 3, 12, (5, 5), (2, 2), pads=(2, 2, 2, 2)),
    }[shape]
    for n in (2, 3, 7, 20):
        case = make(n)
        whole = run_case(case, kernels)["y"].reshape(n, -1)
        x = case.inputs["x"].reshape(n, -1)
        for image in range(n):
            inputs = dict(case.inputs, x=x[image])
            one = run_step(case.kind, inputs, {"y": whole.shape[1]}, dict(case.ints, images=1), case.floats, case.weights, kernels)["y"]
            assert one.tobytes() == whole[image].tobytes(), f"image {image} of {n}"


@pytest.mark.parametrize("kernels", VARIANTS)
def test_order_of_additions_is_that_of_the_layout(kernels):
    """Sums of 0, 1, 2 ... tiny numbers beside large ones: the exact float32 sum of the written order, not merely a near one."""
    k, chunk = 383, 280
    row = (np.random.default_rng(0).standard_normal(k) * 10.0 ** np.random.default_rng(1).integers(-6, 6, k)).astype(np.float32)
    total = None
    for start in range(0, k, chunk):
        n = min(chunk, k - start)
        segment = max(64, (-(-n // 4) + 7) // 8 * 8)
        for s in range(0, n, segment):
            part = np.float32(0)
            for value in row[start + s : start + min(s + segment, n)]:
                part = np.float32(part + value)
            total = part if total is None else np.float32(total + part)
    weights = RawWeights(np.tile(row, (40, 1)), k_chunk=chunk)
    for pixels in (1, 2, 5, 6, 11):
        ints = dict(
            images=pixels,
            in_h=1,
            in_w=1,
            in_c=k,
            x_ld=k,
            out_h=1,
            out_w=1,
            out_c=40,
            y_ld=40,
            kh=1,
            kw=1,
            stride_h=1,
            stride_w=1,
            dilation_h=1,
            dilation_w=1,
            groups=1,
        )
        y = run_step("conv", {"x": np.ones((pixels, k), np.float32)}, {"y": pixels * 40}, ints, {}, weights, kernels)["y"]
        assert (y == total).all(), f"{pixels} pixels: {y[0]} instead of {total}"


@pytest.mark.parametrize("kernels", VARIANTS)
@pytest.mark.parametrize(
    "name, low, high, limit", [("exp", -87, 88, 3e-7), ("tanh", -12, 12, 5e-7), ("erf", -6, 6, 5e-7), ("sigmoid", -80, 80, 5e-7)]
)
def test_functions_are_exact_to_a_millionth(kernels, name, low, high, limit):
    from reference.steps import activate

    from edgeinfer.kernels.program import ACTIVATIONS

    x = np.linspace(low, high, 40_001).astype(np.float32)
    x = np.concatenate([x, np.geomspace(1e-30, 1, 999).astype(np.float32), -np.geomspace(1e-30, 1, 1000).astype(np.float32)])
    ints = dict(activation=ACTIVATIONS[name], rows=1, cols=x.size, x_ld=x.size, y_ld=x.size)
    y = run_step("unary", {"x": x}, {"y": x.size}, ints, {}, None, kernels)["y"]
    expected = activate(name, x)
    error = np.abs(y - expected) / np.maximum(np.abs(expected), 1e-37)
    assert error.max() <= limit, f"{name}({x[error.argmax()]}) is off by {error.max():.2e}"


@pytest.mark.parametrize("kernels", VARIANTS)
def test_extremes(kernels):
    from edgeinfer.kernels.program import ACTIVATIONS

    x = np.array([np.nan, np.inf, -np.inf, 1000, -1000, 0], np.float32)
    expected = {
        "relu": [np.nan, np.inf, 0, 1000, 0, 0],
        "exp": [np.nan, np.inf, 0, np.inf, 0, 1],
        "tanh": [np.nan, 1, -1, 1, -1, 0],
        "sigmoid": [np.nan, 1, 0, 1, 0, 0.5],
        "erf": [np.nan, 1, -1, 1, -1, 0],
    }
    for name, values in expected.items():
        ints = dict(activation=ACTIVATIONS[name], rows=1, cols=6, x_ld=6, y_ld=6)
        y = run_step("unary", {"x": x}, {"y": 6}, ints, {}, None, kernels)["y"]
        np.testing.assert_allclose(y, values, atol=1e-37, err_msg=name)


@pytest.mark.parametrize("kernels", VARIANTS)
def test_gather_refuses_an_index_out_of_range(kernels):
    x, index = np.zeros((4, 3), np.float32), np.array([0, 4], np.int64)
    with pytest.raises(KernelError, match=r"step 0 \(gather\): an index is out of range"):
        run_step("gather", {"x": x, "index": index}, {"y": 6}, dict(size=4, outer=1, length=4, inner=3, count=2), {}, None, kernels)
    with pytest.raises(KernelError, match="gather_rows"):
        run_step("gather_rows", {"index": np.array([-5], np.int64)}, {"y": 3}, dict(count=1), {}, RawWeights(x), kernels)


@pytest.mark.parametrize("kernels", VARIANTS)
def test_algorithm_that_does_not_fit_its_window_is_refused(kernels):
    for change in ({"stride_h": 2}, {"dilation_w": 2}, {"algorithm": ALGORITHMS["winograd_2_5"]}, {"algorithm": 77}, {"algorithm": -1}):
        case = make_conv("", 1, 9, 9, 8, 8, (3, 3), pads=(1, 1, 1, 1), algorithm="winograd_4_3")
        with pytest.raises(KernelError, match=r"conv.*contradicts"):
            run_step("conv", case.inputs, case.outputs, case.ints | change, case.floats, case.weights, kernels)


@pytest.mark.parametrize("kernels", VARIANTS)
def test_step_that_contradicts_its_weights_is_refused(kernels):
    case = make_conv("", 1, 4, 4, 8, 8)
    with pytest.raises(KernelError, match=r"conv.*contradicts"):
        run_step("conv", case.inputs, case.outputs, dict(case.ints, in_c=9), case.floats, case.weights, kernels)


def test_unknown_variant():
    with pytest.raises(KernelError, match="'sparc'.*available"):
        Program("sparc")
