"""What every kind of step computes, written plainly: channels-last arrays in, float64 arrays out, no attention to speed."""

import math

import numpy as np


def activate(name, x, a=0.0, b=0.0):
    """The activation ``name`` of steps.h on an array."""
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        forms = {
            "none": lambda: x,
            "relu": lambda: np.maximum(x, 0),
            "leaky_relu": lambda: np.where(x < 0, a * x, x),
            "clip": lambda: np.clip(x, a, b),
            "sigmoid": lambda: 1 / (1 + np.exp(-x)),
            "tanh": lambda: np.tanh(x),
            "hard_sigmoid": lambda: np.clip(a * x + b, 0, 1),
            "hard_swish": lambda: x * np.clip(x / 6 + 0.5, 0, 1),
            "gelu": lambda: 0.5 * x * (1 + erf(x / math.sqrt(2))),
            "gelu_tanh": lambda: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
            "erf": lambda: erf(x),
            "exp": lambda: np.exp(x),
            "log": lambda: np.log(x),
            "sqrt": lambda: np.sqrt(x),
            "neg": lambda: -x,
            "abs": lambda: np.abs(x),
            "reciprocal": lambda: 1 / x,
            "floor": lambda: np.floor(x),
            "ceil": lambda: np.ceil(x),
            "round": lambda: np.rint(x),
            "softplus": lambda: np.logaddexp(0, x),
            "elu": lambda: np.where(x < 0, a * np.expm1(x), x),
            "silu": lambda: x / (1 + np.exp(-x)),
            "sin": lambda: np.sin(x),
            "cos": lambda: np.cos(x),
        }
        return forms[name]()


def erf(x):
    """The error function, element by element."""
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def operate(name, a, b):
    """The arithmetic operation ``name`` with broadcasting."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    forms = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "min": np.minimum, "max": np.maximum}
    return forms[name](a, b)


def conv(x, matrix, kernel, out_size, stride=(1, 1), dilation=(1, 1), pad=(0, 0), groups=1):
    """x (N, H, W, C) with a matrix (O, kh * kw * C / groups) whose columns are ordered [kh][kw][c]; returns (N, oh, ow, O)."""
    x, matrix = np.asarray(x, np.float64), np.asarray(matrix, np.float64)
    n, h, w, c = x.shape
    (kh, kw), (oh, ow) = kernel, out_size
    channels, rows = c // groups, len(matrix) // groups
    filters = matrix.reshape(groups, rows, kh, kw, channels)
    y = np.zeros((n, oh, ow, groups, rows))
    for r in range(kh):
        for s in range(kw):
            iy = np.arange(oh) * stride[0] - pad[0] + r * dilation[0]
            ix = np.arange(ow) * stride[1] - pad[1] + s * dilation[1]
            iny, inx = (iy >= 0) & (iy < h), (ix >= 0) & (ix < w)
            part = x[:, np.clip(iy, 0, h - 1)][:, :, np.clip(ix, 0, w - 1)] * (iny[:, None] & inx[None, :])[None, :, :, None]
            y += np.einsum("nyxgc,grc->nyxgr", part.reshape(n, oh, ow, groups, channels), filters[:, :, r, s])
    return y.reshape(n, oh, ow, groups * rows)


def pool(x, kind, kernel, out_size, stride, dilation, pads):
    """Windows of x (N, H, W, C); kind: max, average (taps inside the image), average_padded. pads: top, left, bottom, right."""
    x = np.asarray(x, np.float64)
    n, h, w, c = x.shape
    y = np.zeros((n, *out_size, c))
    for oy in range(out_size[0]):
        for ox in range(out_size[1]):
            rows = [oy * stride[0] - pads[0] + r * dilation[0] for r in range(kernel[0])]
            columns = [ox * stride[1] - pads[1] + s * dilation[1] for s in range(kernel[1])]
            taps = [x[:, r, s] for r in rows for s in columns if 0 <= r < h and 0 <= s < w]
            count = len(taps)
            if kind == "average_padded":
                count = sum(r < h + pads[2] for r in rows) * sum(s < w + pads[3] for s in columns)
            y[:, oy, ox] = np.max(taps, axis=0) if kind == "max" else np.sum(taps, axis=0) / count
    return y


def lrn(x, size, alpha, beta, bias):
    """Local response normalisation over the last axis."""
    x = np.asarray(x, np.float64)
    before = (size - 1) // 2
    total = np.zeros_like(x)
    for c in range(x.shape[-1]):
        total[..., c] = np.sum(x[..., max(0, c - before) : c - before + size] ** 2, axis=-1)
    return x / (bias + alpha / size * total) ** beta


def softmax(x, axis):
    """Softmax over one axis."""
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def layer_norm(x, scale, shift, epsilon):
    """Normalisation of every row."""
    x = np.asarray(x, np.float64)
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return y * (1 if scale is None else scale) + (0 if shift is None else shift)


REDUCTIONS = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "squares": lambda x, axis: np.sum(x * x, axis=axis),
    "l1": lambda x, axis: np.sum(np.abs(x), axis=axis),
    "l2": lambda x, axis: np.sqrt(np.sum(x * x, axis=axis)),
}


def resize(x, row0, row1, row_mix, col0, col1, col_mix):
    """Bilinear mix of rows and columns of x (N, H, W, C)."""
    x = np.asarray(x, np.float64)
    r, c = np.asarray(row_mix, np.float64)[None, :, None, None], np.asarray(col_mix, np.float64)[None, None, :, None]
    rows = x[:, row0] * (1 - r) + x[:, row1] * r
    return rows[:, :, col0] * (1 - c) + rows[:, :, col1] * c


def gru(x, recurrence, bias, h0, reverse, linear_before_reset):
    """x (steps, batch, 3 * hidden): sums of the inputs; recurrence (3 * hidden, hidden).

    Returns y (steps, batch, hidden) and the last state.
    """
    steps, batch, hidden = x.shape[0], x.shape[1], recurrence.shape[1]
    rz, rr, rh = np.split(np.asarray(recurrence, np.float64), 3)
    bz, br, bh = np.split(np.zeros(3 * hidden) if bias is None else np.asarray(bias, np.float64), 3)
    h = np.zeros((batch, hidden)) if h0 is None else np.asarray(h0, np.float64)
    y = np.zeros((steps, batch, hidden))
    for t in reversed(range(steps)) if reverse else range(steps):
        xz, xr, xh = np.split(np.asarray(x[t], np.float64), 3, axis=-1)
        z, r = activate("sigmoid", xz + h @ rz.T + bz), activate("sigmoid", xr + h @ rr.T + br)
        new = np.tanh(xh + r * (h @ rh.T + bh)) if linear_before_reset else np.tanh(xh + (r * h) @ rh.T + bh)
        y[t] = h = (1 - z) * new + z * h
    return y, h


def lstm(x, recurrence, h0, c0, reverse):
    """x (steps, batch, 4 * hidden); gates i, o, f, c. Returns y, the last state and the last cell state."""
    steps, batch, hidden = x.shape[0], x.shape[1], recurrence.shape[1]
    h = np.zeros((batch, hidden)) if h0 is None else np.asarray(h0, np.float64)
    c = np.zeros((batch, hidden)) if c0 is None else np.asarray(c0, np.float64)
    y = np.zeros((steps, batch, hidden))
    for t in reversed(range(steps)) if reverse else range(steps):
        i, o, f, g = np.split(np.asarray(x[t], np.float64) + h @ np.asarray(recurrence, np.float64).T, 4, axis=-1)
        c = activate("sigmoid", f) * c + activate("sigmoid", i) * np.tanh(g)
        y[t] = h = activate("sigmoid", o) * np.tanh(c)
    return y, h, c
