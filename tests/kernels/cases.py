"""Cases of every kind of step: what goes in, and what the NumPy twin says comes out."""

from dataclasses import dataclass, field

import numpy as np
from reference import steps as twin

from edgeinfer.kernels.program import ACTIVATIONS, ALGORITHMS, OPERATIONS

from .harness import UNTOUCHED, RawWeights


@dataclass
class Case:
    """One run of one step. ``expected``: role -> array of the whole output, UNTOUCHED where nothing may be written."""

    kind: str
    label: str
    inputs: dict
    outputs: dict
    ints: dict
    expected: dict
    floats: dict = field(default_factory=dict)
    weights: RawWeights | None = None
    tolerance: float = 1e-5

    def check(self, got):
        """Compare with what a run gave; ``tolerance`` 1e-5 is relative to the range of the output, any other is absolute."""
        for role, expected in self.expected.items():
            expected = np.asarray(expected, np.float64).ravel()
            mine = got[role].astype(np.float64)
            reach = max(1.0, np.abs(expected[np.abs(expected) < 12000]).max(initial=0.0)) if self.tolerance == 1e-5 else 1.0
            assert mine.shape == expected.shape, self.label
            bad = np.flatnonzero(~(np.abs(mine - expected) <= self.tolerance * reach + 1e-7 * np.abs(expected)))
            place = f"{self.kind}, {self.label}: {role}"
            assert not bad.size, f"{place}[{bad[0]}] is {mine[bad[0]]}, expected {expected[bad[0]]} ({bad.size} differ)"


CASES = {}


def case(kind):
    """Register a function that yields cases of a kind."""

    def register(function):
        CASES[kind] = function
        return function

    return register


def wide(values, ld):
    """Rows of ``values`` (..., cols) spread ``ld`` apart, UNTOUCHED between them."""
    values = np.asarray(values)
    rows = values.reshape(-1, values.shape[-1])
    out = np.full((len(rows), ld), UNTOUCHED, np.float64)
    out[:, : rows.shape[1]] = rows
    return out


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def out_extent(size, kernel, stride, dilation, pads):
    return (size + pads - (kernel - 1) * dilation - 1) // stride + 1


def make_conv(
    label,
    n,
    h,
    w,
    c,
    o,
    kernel=(1, 1),
    stride=(1, 1),
    dilation=(1, 1),
    pads=(0, 0, 0, 0),
    groups=1,
    k_chunk=256,
    bias=True,
    residual=False,
    scale=True,
    activation="none",
    a=0.0,
    b=0.0,
    extra_x=0,
    extra_y=0,
    kind="conv",
    weight_groups=None,
    seed=1,
    algorithm="direct",
):
    oh = out_extent(h, kernel[0], stride[0], dilation[0], pads[0] + pads[2])
    ow = out_extent(w, kernel[1], stride[1], dilation[1], pads[1] + pads[3])
    k = kernel[0] * kernel[1] * c // groups
    x = normal(seed, n, h, w, c)
    weights = RawWeights(
        normal(seed + 1, o, k) / np.float32(np.sqrt(k)),
        groups if weight_groups is None else weight_groups,
        k_chunk,
        np.abs(normal(seed + 2, o)) + 0.5 if scale else None,
    )
    inputs = {"x": wide(x, c + extra_x).astype(np.float32)}
    y = twin.conv(x, weights.values, kernel, (oh, ow), stride, dilation, pads[:2], groups)
    if bias:
        inputs["bias"] = normal(seed + 3, o)
        y = y + inputs["bias"]
    if residual:
        rest = normal(seed + 4, n, oh, ow, o)
        inputs["residual"] = wide(rest, o + 3).astype(np.float32)
        y = y + rest
    y = twin.activate(activation, y, a, b)
    ints = dict(
        images=n,
        in_h=h,
        in_w=w,
        in_c=c,
        x_ld=c + extra_x,
        out_h=oh,
        out_w=ow,
        out_c=o,
        y_ld=o + extra_y,
        residual_ld=o + 3,
        kh=kernel[0],
        kw=kernel[1],
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        pad_top=pads[0],
        pad_left=pads[1],
        groups=groups,
        activation=ACTIVATIONS[activation],
        algorithm=ALGORITHMS[algorithm],
    )
    return Case(
        kind, label, inputs, {"y": n * oh * ow * (o + extra_y)}, ints, {"y": wide(y, o + extra_y)}, {"act_a": a, "act_b": b}, weights
    )


@case("conv")
def conv():
    for n in (1, 2, 3, 4, 5, 7, 13, 64):
        yield make_conv(f"product of {n} rows", n, 1, 1, 300, 37, k_chunk=128)
    for o in (1, 3, 8, 16, 17, 32, 33, 100):
        yield make_conv(f"{o} rows", 1, 5, 5, 19, o, extra_y=o % 3)
    for k in (1, 2, 9, 31, 32, 33, 65, 200):
        yield make_conv(f"{k} inputs at one pixel", 1, 1, 1, k, 20, k_chunk=64)
        yield make_conv(f"{k} inputs at nine pixels", 1, 3, 3, k, 20, k_chunk=64)
    yield make_conv("3x3", 1, 14, 14, 32, 48, (3, 3), pads=(1, 1, 1, 1), activation="relu", residual=True)
    yield make_conv("3x3, chunk across taps", 1, 9, 11, 40, 33, (3, 3), pads=(1, 1, 1, 1), k_chunk=72)
    yield make_conv(
        "3x3 stride 2, one-sided pad, batch", 3, 13, 15, 17, 33, (3, 3), (2, 2), pads=(0, 0, 1, 1), activation="clip", a=-0.2, b=0.7
    )
    yield make_conv("first layer", 2, 23, 21, 3, 16, (7, 7), (2, 2), pads=(3, 3, 3, 3), k_chunk=64)
    yield make_conv("one channel", 1, 20, 20, 1, 5, (5, 5), pads=(2, 2, 2, 2), bias=False, scale=False)
    yield make_conv("one channel 1x3", 1, 7, 9, 1, 5, (1, 3), pads=(0, 1, 0, 1))
    yield make_conv("dilated", 1, 15, 15, 20, 12, (3, 3), dilation=(2, 3), pads=(2, 3, 2, 3), activation="hard_swish")
    yield make_conv("few channels, dilated", 1, 15, 15, 5, 12, (3, 3), dilation=(2, 2), pads=(2, 2, 2, 2))
    yield make_conv("slice of a wider tensor", 1, 8, 8, 24, 40, (3, 3), pads=(1, 1, 1, 1), extra_x=7, extra_y=5, residual=True)
    yield make_conv("few channels of a wider tensor", 1, 8, 8, 6, 10, (3, 3), pads=(1, 1, 1, 1), extra_x=2)
    yield make_conv("groups", 2, 9, 9, 96, 80, (3, 3), pads=(1, 1, 1, 1), groups=2, activation="silu")
    yield make_conv("many small groups", 1, 6, 6, 32, 64, (3, 3), pads=(1, 1, 1, 1), groups=8)
    yield make_conv("1x1 stride 2", 1, 9, 9, 33, 40, stride=(2, 2))
    yield make_conv("1x1 padded", 1, 4, 4, 16, 8, pads=(1, 1, 1, 1), activation="leaky_relu", a=0.1)
    yield make_conv("whole image", 2, 6, 6, 40, 30, (6, 6), activation="sigmoid")
    yield make_conv("wide pad", 1, 3, 3, 18, 8, (5, 5), pads=(4, 4, 4, 4))
    yield make_conv("many pixels", 1, 50, 45, 16, 8, (3, 3), pads=(1, 1, 1, 1))
    yield make_conv("many pixels, several chunks", 1, 40, 31, 48, 24, (3, 3), pads=(1, 1, 1, 1), k_chunk=128)
    for algorithm in ALGORITHMS:
        if algorithm != "direct":
            yield from winograd(algorithm)


def winograd(algorithm):
    """Cases of one algorithm of minimal filtering: sizes that do and do not fill its tiles, borders, slices, chunks, groups, batches."""
    taps = int(algorithm[-1])

    def make(label, n, h, w, c, o, pad=None, **more):
        pads = (taps // 2,) * 4 if pad is None else pad
        return make_conv(f"{algorithm}, {label}", n, h, w, c, o, (taps, taps), pads=pads, algorithm=algorithm, **more)

    for size in (5, 6, 7, 8, 9, 14):
        yield make(f"{size} pixels", 1, size, size + size % 3, 16, 24, residual=size % 2 == 0)
    for c in (1, 3, 8, 17, 64, 65, 100, 200):
        yield make(f"{c} channels", 1, 9, 7, c, 9, activation="relu", k_chunk=max(64, c) if c % 3 else 72, extra_x=c % 4)
    for o in (1, 8, 16, 17, 33, 48, 70):
        yield make(f"{o} rows", 2, 6, 7, 20, o, extra_y=o % 5, activation="clip", a=-0.5, b=0.8)
    yield make("no pad", 1, 10, 11, 24, 20, (0, 0, 0, 0), bias=False, scale=False)
    yield make("one-sided pad", 3, 10, 11, 24, 20, (0, 1, 2, 0), activation="silu", residual=True)
    yield make("wide pad", 1, 3, 2, 18, 8, (4, 4, 4, 4))
    yield make("groups", 2, 9, 9, 96, 80, groups=2, activation="leaky_relu", a=0.1)
    yield make("groups of a wider tensor", 1, 6, 6, 32, 64, groups=8, extra_x=5, extra_y=3, residual=True)
    yield make("several blocks of tiles", 1, 40, 31, 48, 72)
    yield make("several images in a block", 5, 5, 5, 40, 40)


@case("depthwise")
def depthwise():
    def make(label, c, **more):
        more = {"kernel": (3, 3), "pads": (1, 1, 1, 1), **more}
        n, h, w = more.pop("n", 1), more.pop("h", 9), more.pop("w", 11)
        return make_conv(label, n, h, w, c, c, groups=c, kind="depthwise", **{"weight_groups": 1, **more})

    for c in (1, 3, 8, 16, 17, 24, 33, 64, 100):
        yield make(f"{c} channels", c, extra_x=c % 4, extra_y=c % 3)
    yield make("stride 2", 40, stride=(2, 2), n=2)
    yield make("stride 2, one-sided pad", 40, stride=(2, 2), pads=(0, 0, 1, 1), activation="clip", a=0.0, b=0.6)
    yield make("5x5 dilated", 20, kernel=(5, 5), dilation=(2, 2), pads=(4, 4, 4, 4), residual=True)
    yield make("1x7", 20, kernel=(1, 7), pads=(0, 3, 0, 3), activation="silu")
    yield make("wider than the image", 20, kernel=(7, 7), pads=(3, 3, 3, 3), h=3, w=2)
    yield make("a group for every row", 10, weight_groups=10)
    yield make("several chunks", 20, kernel=(5, 5), pads=(2, 2, 2, 2), k_chunk=8)
    yield make("many rows", 40, h=64, w=70)


@case("pool")
def pool():
    kinds = ("max", "average", "average_padded")
    for kind in kinds:
        for n, h, w, c, kernel, stride, dilation, pads, extra in (
            (2, 9, 11, 33, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 2),
            (1, 8, 8, 3, (2, 2), (2, 2), (1, 1), (0, 0, 0, 0), 0),
            (1, 8, 9, 70, (3, 3), (2, 2), (1, 1), (0, 0, 1, 1), 1),
            (1, 12, 12, 17, (3, 2), (1, 1), (2, 3), (2, 1, 2, 2), 0),
            (1, 112, 56, 64, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 0),
        ):
            for ceil in (0, 1):
                oh = out_extent(h, kernel[0], stride[0], dilation[0], pads[0] + pads[2] + ceil * (stride[0] - 1))
                ow = out_extent(w, kernel[1], stride[1], dilation[1], pads[1] + pads[3] + ceil * (stride[1] - 1))
                x = normal(5, n, h, w, c)
                y = twin.pool(x, kind, kernel, (oh, ow), stride, dilation, pads)
                ints = dict(
                    kind=kinds.index(kind),
                    images=n,
                    in_h=h,
                    in_w=w,
                    channels=c,
                    x_ld=c + extra,
                    out_h=oh,
                    out_w=ow,
                    y_ld=c + 2 * extra,
                    kh=kernel[0],
                    kw=kernel[1],
                    stride_h=stride[0],
                    stride_w=stride[1],
                    dilation_h=dilation[0],
                    dilation_w=dilation[1],
                    pad_top=pads[0],
                    pad_left=pads[1],
                    pad_bottom=pads[2],
                    pad_right=pads[3],
                )
                yield Case(
                    "pool",
                    f"{kind} {h}x{w}x{c} {kernel} ceil {ceil}",
                    {"x": wide(x, c + extra).astype(np.float32)},
                    {"y": n * oh * ow * (c + 2 * extra)},
                    ints,
                    {"y": wide(y, c + 2 * extra)},
                )


@case("global_pool")
def global_pool():
    for kind, form in enumerate((np.max, np.mean)):
        for n, pixels, c, extra in ((2, 49, 512, 0), (3, 1, 5, 1), (1, 700, 33, 2), (1, 50, 1000, 0)):
            x = normal(6, n, pixels, c) + 1
            ints = dict(kind=kind, images=n, pixels=pixels, channels=c, x_ld=c + extra, y_ld=c + extra)
            y = form(x.astype(np.float64), axis=1)
            yield Case(
                "global_pool",
                f"{form.__name__} {pixels}x{c}",
                {"x": wide(x, c + extra).astype(np.float32)},
                {"y": n * (c + extra)},
                ints,
                {"y": wide(y, c + extra)},
            )


SETTINGS = {"leaky_relu": (0.1, 0.0), "clip": (-0.5, 1.5), "hard_sigmoid": (0.2, 0.5), "elu": (0.7, 0.0)}
POSITIVE = {"log", "sqrt", "reciprocal"}


@case("unary")
def unary():
    for name in ACTIVATIONS:
        a, b = SETTINGS.get(name, (0.0, 0.0))
        x = normal(7, 7, 37) * 4
        x[0, :8] = (0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 1e-4, -1e-4)
        if name in POSITIVE:
            x = np.abs(x) + np.float32(0.01)
        ints = dict(activation=ACTIVATIONS[name], rows=7, cols=37, x_ld=37, y_ld=37)
        floats = {"act_a": a, "act_b": b}
        y = twin.activate(name, x, a, b)
        limit = 2e-6 * (1 + np.abs(y).max())
        yield Case("unary", name, {"x": x}, {"y": y.size}, ints, {"y": y}, floats, tolerance=limit)
        ints = dict(ints, x_ld=40, y_ld=39)
        yield Case(
            "unary",
            name + " of rows",
            {"x": wide(x, 40).astype(np.float32)},
            {"y": 7 * 39},
            ints,
            {"y": wide(y, 39)},
            floats,
            tolerance=limit,
        )
    x = normal(8, 100_000)
    ints = dict(activation=ACTIVATIONS["tanh"], rows=100, cols=1000, x_ld=1000, y_ld=1000)
    yield Case("unary", "many", {"x": x}, {"y": x.size}, ints, {"y": np.tanh(x.astype(np.float64))})


@case("binary")
def binary():
    shapes = (
        ((3, 5, 7), (3, 5, 7)),
        ((3, 5, 7), (7,)),
        ((3, 5, 7), (5, 1)),
        ((3, 5, 7), (1,)),
        ((1,), (4, 33)),
        ((2, 1, 19), (2, 6, 1)),
        ((2, 3, 4, 5, 6, 7), (3, 1, 5, 1, 7)),
        ((50_001,), (50_001,)),
        ((300, 200), (200,)),
        ((300, 200), (300, 1)),
        ((1,), (1,)),
    )
    for first, second in shapes:
        for name in OPERATIONS if len(first) == 3 else ("add", "mul"):
            a, b = normal(9, *first), normal(10, *second)
            if name in ("div", "pow"):
                a, b = np.abs(a) + 1, np.abs(b) + np.float32(0.5)
            yield make_binary(f"{name} {first} {second}", name, a, b)
    yield make_binary("relu of a sum", "add", normal(1, 4, 9), normal(2, 9), "relu")
    yield make_binary("tanh of a product", "mul", normal(1, 4, 9), normal(2, 9), "tanh")
    yield make_binary("square", "pow", normal(1, 4, 9), np.full(1, 2, np.float32))
    turned = normal(3, 6, 8)
    yield make_binary("turned operand", "sub", turned, normal(4, 8, 6).T)


def make_binary(label, name, a, b, activation="none"):
    shape = np.broadcast_shapes(a.shape, b.shape)
    full = (1,) * (6 - len(shape)) + shape
    y = twin.activate(activation, twin.operate(name, a, b))
    ints = dict(operation=OPERATIONS[name], activation=ACTIVATIONS[activation])
    inputs = {}
    for role, x in (("a", a), ("b", b)):
        store = x.T if x.flags.f_contiguous and not x.flags.c_contiguous else x
        view = np.broadcast_to(np.ascontiguousarray(store).T if store is not x else np.ascontiguousarray(x), full)
        inputs[role] = store
        ints.update({f"s{role}{j}": view.strides[j] // 4 for j in range(6)})
    ints.update({f"d{j}": full[j] for j in range(6)})
    return Case("binary", label, inputs, {"y": y.size}, ints, {"y": y}, tolerance=1e-5)


@case("affine")
def affine():
    for rows, cols, extra in ((5, 33, 0), (300, 100, 3), (4, 1, 1), (2, 40_000, 0)):
        x, scale, shift = normal(1, rows, cols), normal(2, cols), normal(3, cols)
        for activation in ("none", "relu", "tanh"):
            y = twin.activate(activation, x.astype(np.float64) * scale + shift)
            ints = dict(rows=rows, cols=cols, x_ld=cols + extra, y_ld=cols + extra, activation=ACTIVATIONS[activation])
            yield Case(
                "affine",
                f"{rows}x{cols} {activation}",
                {"x": wide(x, cols + extra).astype(np.float32), "scale": scale, "shift": shift},
                {"y": rows * (cols + extra)},
                ints,
                {"y": wide(y, cols + extra)},
            )


@case("lrn")
def lrn():
    for cols, size, beta, extra in ((96, 5, 0.75, 0), (33, 4, 0.75, 2), (3, 5, 0.5, 0), (17, 1, 1.0, 1), (256, 5, 0.75, 0)):
        x = normal(1, 60, cols) * 3
        ints = dict(rows=60, cols=cols, x_ld=cols + extra, y_ld=cols + extra, size=size)
        y = twin.lrn(x, size, 0.1, beta, 1.0)
        yield Case(
            "lrn",
            f"{cols} channels, {size} wide, beta {beta}",
            {"x": wide(x, cols + extra).astype(np.float32)},
            {"y": 60 * (cols + extra)},
            ints,
            {"y": wide(y, cols + extra)},
            {"alpha": 0.1, "beta": beta, "bias": 1.0},
        )


@case("softmax")
def softmax():
    for outer, length, inner in ((3, 1000, 1), (5, 1, 1), (300, 33, 1), (2, 7, 19), (1, 300, 70), (4, 5, 1)):
        x = normal(1, outer, length, inner) * 10
        yield Case(
            "softmax",
            f"{outer}x{length}x{inner}",
            {"x": x},
            {"y": x.size},
            dict(outer=outer, length=length, inner=inner),
            {"y": twin.softmax(x, 1)},
            tolerance=2e-6,
        )


@case("layer_norm")
def layer_norm():
    for rows, cols, parts in ((5, 768, 3), (300, 33, 3), (2, 1, 3), (3, 20_000, 3), (4, 10, 0), (4, 10, 1)):
        x, scale, shift = normal(1, rows, cols) * 3 + 5, normal(2, cols), normal(3, cols)
        inputs = {"x": x, **({"scale": scale} if parts & 1 else {}), **({"shift": shift} if parts & 2 else {})}
        y = twin.layer_norm(x, inputs.get("scale"), inputs.get("shift"), 1e-5)
        yield Case(
            "layer_norm", f"{rows}x{cols} parts {parts}", inputs, {"y": x.size}, dict(rows=rows, cols=cols), {"y": y}, {"epsilon": 1e-5}
        )


@case("copy")
def copy():
    def make(label, x, view, dtype=np.float32, gap=0):
        """view: a function of x that gives the wanted strided view of it"""
        x = np.ascontiguousarray(x.astype(dtype))
        wanted = view(x)
        d = (1,) * (6 - wanted.ndim) + wanted.shape
        sx = (0,) * (6 - wanted.ndim) + tuple(s // x.itemsize for s in wanted.strides)
        start = (wanted.__array_interface__["data"][0] - x.__array_interface__["data"][0]) // x.itemsize
        shape = d[:-1] + (d[-1] + gap,)
        strides = np.empty(shape, np.uint8).strides
        ints = {"size": x.itemsize, "from": start, "to": gap // 2}
        ints.update({f"d{j}": d[j] for j in range(6)}, **{f"sx{j}": sx[j] for j in range(6)}, **{f"sy{j}": strides[j] for j in range(6)})
        before = np.full(shape, 99, dtype)
        y = before.copy()
        y[..., gap // 2 : gap // 2 + d[-1]] = wanted
        return Case("copy", f"{label} {x.dtype}", {"x": x}, {"y": before}, ints, {"y": y}, tolerance=0.0)

    small = np.arange(3 * 5 * 7 * 11).reshape(3, 5, 7, 11) % 100
    for dtype in (np.uint8, np.int16, np.float32, np.int64):
        yield make("as it is", small, lambda x: x, dtype)
        yield make("channels last", small, lambda x: x.transpose(0, 2, 3, 1), dtype)
        yield make("turned", small, lambda x: x.transpose(3, 2, 1, 0), dtype)
        yield make("backwards", small, lambda x: x[:, ::-1, :, ::-1], dtype)
        yield make("slice", small, lambda x: x[1:, 1:4, ::2, 3:9], dtype, gap=4)
        yield make("one row many times", small[0, 0], lambda x: np.broadcast_to(x[:1], (9, 11)), dtype)
    large = np.arange(64 * 300 * 10).reshape(64, 300, 10)
    yield make("large turned", large, lambda x: x.transpose(1, 0, 2))
    yield make("large channels last", large.reshape(64, 3000), lambda x: x.T)
    for n in (2, 3, 4, 5, 7, 16, 19):  # blocks of four, and of three
        for across in (3, 4, 37):
            matrices = np.arange(2 * n * across).reshape(2, n, across)
            yield make(f"{n} x {across} turned", matrices, lambda x: x.transpose(0, 2, 1), gap=n % 3 * 2)
    yield make("six dimensions", np.arange(720).reshape(1, 2, 3, 4, 5, 6), lambda x: x.transpose(0, 4, 2, 5, 1, 3))
    yield make("single", np.arange(1), lambda x: x)


@case("copy_rows")
def copy_rows():
    for rows, cols, x_ld, y_ld, to in ((5, 33, 33, 100, 40), (3000, 16, 20, 48, 32), (1, 1, 1, 1, 0)):
        x = normal(1, rows, x_ld)
        y = np.full((rows, y_ld), UNTOUCHED)
        y[:, to : to + cols] = x[:, :cols]
        ints = dict(rows=rows, cols=cols, x_ld=x_ld, y_ld=y_ld, to=to)
        yield Case("copy_rows", f"{rows}x{cols}", {"x": x}, {"y": rows * y_ld}, ints, {"y": y}, tolerance=0.0)


@case("fill")
def fill():
    for count in (1, 17, 50_000):
        yield Case("fill", str(count), {}, {"y": count}, {"count": count}, {"y": np.full(count, 1.5)}, {"value": 1.5}, tolerance=0.0)


@case("gather")
def gather():
    index = np.array([0, 6, -1, 3, 3, -7], np.int64)
    for dtype in (np.float32, np.int64, np.uint8):
        for outer, inner in ((1, 1), (3, 5), (4, 3000)):
            x = (np.arange(outer * 7 * inner).reshape(outer, 7, inner) % 120).astype(dtype)
            ints = dict(size=x.itemsize, outer=outer, length=7, inner=inner, count=len(index))
            y = x[:, index]
            yield Case(
                "gather", f"{outer}x7x{inner} {x.dtype}", {"x": x, "index": index}, {"y": np.zeros_like(y)}, ints, {"y": y}, tolerance=0.0
            )


@case("gather_rows")
def gather_rows():
    index = np.array([0, 69, 1, -1, 33, 32, 31, 5, 5, 64, 40, -70, 2, 3, 4, 5, 6, 7, 8], np.int64)
    for k, k_chunk, scale, groups in ((20, 256, True, 1), (300, 128, True, 1), (10, 256, False, 2)):
        weights = RawWeights(normal(1, 70, k), groups, k_chunk, np.abs(normal(2, 70)) + 1 if scale else None)
        y = weights.values[index]
        yield Case(
            "gather_rows",
            f"{k} wide, {groups} groups",
            {"index": index},
            {"y": y.size},
            {"count": len(index)},
            {"y": y},
            weights=weights,
            tolerance=1e-6,
        )


@case("reduce")
def reduce():
    for code, (name, form) in enumerate(twin.REDUCTIONS.items()):
        for outer, length, inner in ((3, 33, 1), (2, 500, 19), (1, 20_000, 1), (70, 5, 40), (4, 1, 3)):
            x = normal(1, outer, length, inner)
            if name == "prod":
                x = 1 + x / np.float32(length)
            y = form(x.astype(np.float64), axis=1)
            tolerance = 1e-6 * max(1.0, np.abs(x).sum(axis=1).max()) if name in ("sum", "l1", "squares") else 1e-5
            if name == "prod":
                tolerance = 1.0001e-5 + 6e-8 * length  # every product rounds
            yield Case(
                "reduce",
                f"{name} {outer}x{length}x{inner}",
                {"x": x},
                {"y": y.size},
                dict(operation=code, outer=outer, length=length, inner=inner),
                {"y": y},
                tolerance=tolerance,
            )


@case("resize")
def resize():
    for label, n, h, w, c, oh, ow in (("up", 2, 5, 4, 19, 11, 9), ("down", 1, 20, 30, 3, 7, 8), ("large", 1, 20, 20, 40, 40, 40)):
        for mixed in (0, 1):
            x = normal(1, n, h, w, c)
            sides = {}
            for axis, size, out in (("row", h, oh), ("col", w, ow)):
                at = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
                low = np.floor(at).astype(np.int32)
                sides |= {
                    f"{axis}0": low,
                    f"{axis}1": np.minimum(low + 1, size - 1).astype(np.int32),
                    f"{axis}_mix": ((at - low) * mixed).astype(np.float32),
                }
            y = twin.resize(x, **sides)
            ints = dict(images=n, in_h=h, in_w=w, channels=c, out_h=oh, out_w=ow)
            yield Case("resize", f"{label} {'bilinear' if mixed else 'nearest'}", {"x": x, **sides}, {"y": y.size}, ints, {"y": y})


@case("matmul")
def matmul():
    for b0, b1, m, n, k in ((1, 1, 5, 7, 9), (2, 3, 17, 33, 64), (1, 2, 1, 40, 300), (1, 1, 300, 16, 20), (2, 1, 64, 64, 700)):
        for turned in (False, True):
            a, b = normal(1, b0, b1, m, k), normal(2, b0, b1, k, n)
            y = np.float64(0.125) * (a.astype(np.float64) @ b.astype(np.float64))
            store = np.ascontiguousarray(b.swapaxes(2, 3)) if turned else b
            ints = dict(
                b0=b0,
                b1=b1,
                m=m,
                n=n,
                k=k,
                a_b0=b1 * m * k,
                a_b1=m * k,
                a_m=k,
                b_b0=b1 * n * k,
                b_b1=n * k,
                b_k=1 if turned else n,
                b_n=k if turned else 1,
                y_b0=b1 * m * (n + 2),
                y_b1=m * (n + 2),
                y_m=n + 2,
            )
            yield Case(
                "matmul",
                f"{b0}x{b1} of {m}x{k}x{n}{' turned' if turned else ''}",
                {"a": a, "b": store},
                {"y": b0 * b1 * m * (n + 2)},
                ints,
                {"y": wide(y, n + 2)},
                {"alpha": 0.125},
                tolerance=1e-5,
            )


def recurrent(kind, gates, hidden, batch, steps, given, **flags):
    x = normal(1, steps, batch, gates * hidden)
    weights = RawWeights(normal(2, gates * hidden, hidden) / np.float32(np.sqrt(hidden)), 1, 64, np.abs(normal(3, gates * hidden)) + 0.5)
    states = {"h0": normal(4, batch, hidden)} | ({"c0": normal(5, batch, hidden)} if kind == "lstm" else {})
    bias = {"bias": normal(6, gates * hidden)} if kind == "gru" else {}
    inputs = states | bias if given else {}
    results = getattr(twin, kind)(
        x, weights.values, **{name: inputs.get(name) for name in (*states, *bias)}, **{k: bool(v) for k, v in flags.items()}
    )
    blocks = -(-gates * hidden // 32)
    outputs = {"y": steps * batch * (hidden + 3), "y_h": batch * hidden} | ({"y_c": batch * hidden} if kind == "lstm" else {})
    expected = dict(zip(outputs, (wide(results[0], hidden + 3), *results[1:]), strict=True))
    workspaces = {"panels": blocks * 32 * hidden, "state": batch * (4 if kind == "gru" else 6) * hidden}
    ints = dict(steps=steps, batch=batch, hidden=hidden, x_ld=gates * hidden + 1, y_ld=hidden + 3, **flags)
    label = f"hidden {hidden} batch {batch} {'all' if given else 'no'} options {flags}"
    return Case(
        kind, label, {"x": wide(x, gates * hidden + 1).astype(np.float32), **inputs}, outputs | workspaces, ints, expected, weights=weights
    )


@case("gru")
def gru():
    for hidden, batch, steps in ((1, 1, 1), (17, 1, 6), (33, 3, 4), (100, 8, 3)):
        for reverse, linear in ((0, 0), (1, 0), (0, 1), (1, 1)):
            yield recurrent("gru", 3, hidden, batch, steps, given=reverse or linear, reverse=reverse, linear_before_reset=linear)


@case("lstm")
def lstm():
    for hidden, batch, steps in ((1, 1, 1), (17, 1, 6), (33, 3, 4), (100, 8, 3)):
        for reverse in (0, 1):
            yield recurrent("lstm", 4, hidden, batch, steps, given=reverse, reverse=reverse)
