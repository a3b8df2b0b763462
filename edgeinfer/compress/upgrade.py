"""Any opset from 7 on -> the one normal form of :mod:`edgeinfer.graph`. The only module that knows opset versions.

Nodes are converted one by one, in order, while their shapes are followed (:mod:`.builder`), so a rule may ask for the rank or the fixed
dimensions of its inputs. What is constant becomes an attribute, spatial operators become channels-last between two Transposes (the layout
pass cancels those), and operators that others can express (Sum, Upsample, DepthToSpace ...) are expressed by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ModelFormatError
from ..ops import OPERATORS
from .builder import Builder, Problem, RawNode, Refused, Rule, Unreadable, label, qualified
from .draft import Size

#: opsets that are read; NEWEST is the last one whose changes have been looked at
OLDEST, NEWEST = 7, 28

RULES: dict[str, Rule] = {}


def convert(builder: Builder, node: RawNode) -> None:
    """Convert one node of the file into ``builder``, or note there why not."""
    builder.convert(node, refuse_at_sight, RULES.get(node.op, as_is))


def refuse_at_sight(node: RawNode) -> None:
    """Raise Refused for a node that cannot be converted whatever its inputs are."""
    if node.domain not in ("", "ai.onnx") or (node.op not in RULES and node.op not in OPERATORS):
        raise Refused("")
    for name, value in node.attrs.items():
        if isinstance(value, Unreadable):
            raise Refused(f"attribute {name} is {value.what}")


def seen_at_sight(nodes: Sequence[RawNode]) -> list[Problem]:
    """The problems of nodes that need no look at shapes."""
    problems = []
    for node in nodes:
        try:
            refuse_at_sight(node)
        except Refused as error:
            problems.append(Problem(qualified(node), label(node), str(error)))
    return problems


# ---------------------------------------------------------------- rules


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Enter a conversion rule under operator names."""

    def enter(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return enter


# Inputs that hold settings: position -> attribute of the normal form. Scalars become numbers, the rest lists.
_SETTINGS: dict[str, dict[int, str]] = {
    "Reshape": {1: "shape"},
    "Squeeze": {1: "axes"},
    "Unsqueeze": {1: "axes"},
    "Slice": {1: "starts", 2: "ends", 3: "axes", 4: "steps"},
    "Clip": {1: "min", 2: "max"},
    "Split": {1: "split"},
    "Expand": {1: "shape"},
    "Tile": {1: "repeats"},
    "TopK": {1: "k"},
    "CumSum": {1: "axis"},
    **{
        f"Reduce{kind}": {1: "axes"}
        for kind in ("Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSum", "LogSumExp")
    },
}
_SCALAR_SETTINGS = {"min", "max", "k", "axis"}
_OLD_ATTRIBUTES = ("consumed_inputs",)


def settled(node: RawNode, b: Builder) -> None:
    """Move the constant settings among the inputs of ``node`` into its attributes."""
    for position, attribute in _SETTINGS.get(node.op, {}).items():
        if position < len(node.inputs) and node.inputs[position]:
            value = b.constant(node.inputs[position])
            if value is not None:
                node.attrs[attribute] = value.reshape(-1)[0].item() if attribute in _SCALAR_SETTINGS else value.reshape(-1).tolist()
                node.inputs[position] = ""
    for name in _OLD_ATTRIBUTES:
        node.attrs.pop(name, None)


def as_is(node: RawNode, b: Builder) -> None:
    """Operators that have not changed but for settings that moved from attributes to inputs."""
    settled(node, b)
    for name, value in node.attrs.items():
        if isinstance(value, np.ndarray):
            raise Refused(f"attribute {name} is a tensor")
    b.emit(node.op, node.inputs, node.attrs, node.outputs)


def unused(node: RawNode, position: int, what: str) -> None:
    """Refuse a node that has an optional output which edgeinfer does not compute."""
    if len(node.outputs) > position and node.outputs[position]:
        raise Refused(what)


@rule("Identity")
def _identity(node: RawNode, b: Builder) -> None:
    b.alias(node.outputs[0], node.inputs[0])


@rule("Dropout")
def _dropout(node: RawNode, b: Builder) -> None:
    training = b.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.bool_(False)
    if training is None or bool(np.any(training)):
        raise Refused("training mode")
    b.alias(node.outputs[0], node.inputs[0])
    if len(node.outputs) > 1 and node.outputs[1]:  # the mask; nearly always left over from training and read by nobody
        shape = b.emit("Shape", [node.inputs[0]])
        b.emit("ConstantOfShape", [shape], {"value": True, "dtype": "bool"}, [node.outputs[1]])


@rule("Constant")
def _constant(node: RawNode, b: Builder) -> None:
    for name, value in node.attrs.items():
        if name == "value":
            array = np.asarray(value)
        elif name in ("value_float", "value_floats"):
            array = np.asarray(value, np.float32)
        elif name in ("value_int", "value_ints"):
            array = np.asarray(value, np.int64)
        else:
            raise Refused(f"attribute {name}")
        b.draft.weights[node.outputs[0]] = array
        return
    raise ModelFormatError(f"Constant node {label(node)}: expected an attribute with the value, found none")


@rule("ConstantOfShape")
def _constant_of_shape(node: RawNode, b: Builder) -> None:
    value = np.asarray(node.attrs.get("value", np.zeros(1, np.float32))).reshape(-1)
    b.emit("ConstantOfShape", node.inputs, {"value": value[0].item(), "dtype": value.dtype.name}, node.outputs)


@rule("Cast", "CastLike")
def _cast(node: RawNode, b: Builder) -> None:
    dtype = node.attrs["to"] if node.op == "Cast" else b.shapes.dtype(node.inputs[1])
    if not isinstance(dtype, str):
        raise Refused(f"tensors of type {dtype}")
    b.emit("Cast", node.inputs[:1], {"to": dtype}, node.outputs)


@rule("Sum", "Mean")
def _sum(node: RawNode, b: Builder) -> None:
    total = node.inputs[0]
    if len(node.inputs) == 1:
        b.alias(node.outputs[0], total)
        return
    for i, term in enumerate(node.inputs[1:], 2):
        last = i == len(node.inputs) and node.op == "Sum"
        total = b.emit("Add", [total, term], None, node.outputs if last else None)
    if node.op == "Mean":
        count = b.weight(f"{node.outputs[0]}.count", np.asarray(len(node.inputs), b.shapes.dtype(total)))
        b.emit("Div", [total, count], None, node.outputs)


@rule("Flatten")
def _flatten(node: RawNode, b: Builder) -> None:
    b.emit("Flatten", node.inputs, {"axis": int(node.attrs.get("axis", 1))}, node.outputs)


@rule("Squeeze")
def _squeeze(node: RawNode, b: Builder) -> None:
    settled(node, b)
    if "axes" not in node.attrs:
        if any(node.inputs[1:]):
            raise Refused("axes that are not constant")
        node.attrs["axes"] = [axis for axis, d in enumerate(b.fixed(node.inputs[0])) if d == 1]
    b.emit("Squeeze", node.inputs[:1], {"axes": node.attrs["axes"]}, node.outputs)


@rule("Slice")
def _slice(node: RawNode, b: Builder) -> None:
    settled(node, b)
    if "axes" not in node.attrs and not any(node.inputs[3:4]):
        count = len(node.attrs["starts"]) if "starts" in node.attrs else (b.fixed(node.inputs[1])[0] or 1)
        node.attrs["axes"] = list(range(count))
    b.emit("Slice", node.inputs, node.attrs, node.outputs)


@rule("Split")
def _split(node: RawNode, b: Builder) -> None:
    settled(node, b)
    axis = int(node.attrs.get("axis", 0))
    if "split" not in node.attrs and not any(node.inputs[1:]):
        length = b.fixed(node.inputs[0])[axis]
        if length is None:
            raise Refused("equal parts of a dimension that depends on a symbol")
        count = len(node.outputs)
        part = -(-length // count)  # since opset 18 the last part may be smaller
        if part * count != length and b.opset < 18:
            raise ModelFormatError(f"Split node {label(node)}: {length} does not divide into {count} parts")
        node.attrs["split"] = [part] * (count - 1) + [length - part * (count - 1)]
    node.attrs.pop("num_outputs", None)
    b.emit("Split", node.inputs, {**node.attrs, "axis": axis}, node.outputs)


@rule("Pad")
def _pad(node: RawNode, b: Builder) -> None:
    rank = b.rank(node.inputs[0])
    attrs = {"mode": node.attrs.get("mode", "constant"), "pads": node.attrs.get("pads"), "value": node.attrs.get("value", 0.0)}
    if b.opset >= 11:
        pads = b.constant(node.inputs[1])
        axes = list(range(rank))
        if len(node.inputs) > 3 and node.inputs[3]:
            axes = [int(a) % rank for a in b.need_constant(node.inputs[3], "axes").reshape(-1)]
        if len(node.inputs) > 2 and node.inputs[2]:
            attrs["value"] = b.need_constant(node.inputs[2], "padding values").reshape(-1)[0].item()
        if pads is None:
            if axes != list(range(rank)):
                raise Refused("pads of some axes that are not constant")
            del attrs["pads"]
            b.emit("Pad", node.inputs[:2], attrs, node.outputs)
            return
        full = [0] * (2 * rank)
        flat = [int(p) for p in pads.reshape(-1)]
        if len(flat) != 2 * len(axes):
            raise ModelFormatError(f"Pad node {label(node)}: expected {2 * len(axes)} pads, found {len(flat)}")
        for i, axis in enumerate(axes):
            full[axis], full[axis + rank] = flat[i], flat[i + len(axes)]
        attrs["pads"] = full
    if not any(attrs["pads"]):
        b.alias(node.outputs[0], node.inputs[0])
        return
    b.emit("Pad", node.inputs[:1], attrs, node.outputs)


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: RawNode, b: Builder) -> None:
    if node.op not in OPERATORS:
        raise Refused("")
    x, rank = node.inputs[0], b.rank(node.inputs[0])
    if b.opset >= 13:
        b.emit(node.op, [x], {"axis": int(node.attrs.get("axis", -1))}, node.outputs)
        return
    # before opset 13 the axes from `axis` on were one
    axis = int(node.attrs.get("axis", 1)) % max(rank, 1)
    wide = [a for a in range(axis, rank) if b.fixed(x)[a] != 1]
    if len(wide) <= 1:
        b.emit(node.op, [x], {"axis": wide[0] if wide else rank - 1}, node.outputs)
        return
    flat = b.emit("Flatten", [x], {"axis": axis})
    flat = b.emit(node.op, [flat], {"axis": 1})
    b.reshape(flat, b.shapes.dims(x), node.outputs[0])


@rule("BatchNormalization")
def _batch_normalization(node: RawNode, b: Builder) -> None:
    if node.attrs.get("training_mode", 0) or any(node.outputs[1:]):
        raise Refused("training mode")
    if not node.attrs.get("spatial", 1):
        raise Refused("statistics per pixel (spatial = 0)")
    names = ("scale", "B", "mean", "variance")
    gamma, beta, mean, variance = (
        b.need_constant(name, what).astype(np.float64) for name, what in zip(node.inputs[1:5], names, strict=True)
    )
    scale = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    stem = node.name or node.outputs[0]
    vectors = [b.weight(f"{stem}.scale", scale.astype(np.float32)), b.weight(f"{stem}.shift", (beta - mean * scale).astype(np.float32))]
    if b.rank(node.inputs[0]) < 3:
        b.emit("BatchNormalization", [node.inputs[0], *vectors], None, node.outputs)
    else:
        b.channels_first(b.emit("BatchNormalization", [b.channels_last(node.inputs[0]), *vectors]), node.outputs[0])


def _window(node: RawNode, b: Builder, kernel: Sequence[int]) -> dict[str, Any]:
    """Strides, dilations and pads of a sliding window, explicit."""
    rank = len(kernel)
    strides = [int(s) for s in node.attrs.get("strides", [1] * rank)]
    dilations = [int(d) for d in node.attrs.get("dilations", [1] * rank)]
    pads = [int(p) for p in node.attrs.get("pads", [0] * (2 * rank))]
    if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ModelFormatError(f"{node.op} node {label(node)}: strides {strides}, dilations {dilations}, pads {pads} for {rank} axes")
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for size, k, s, d in zip(b.fixed(node.inputs[0])[2:], kernel, strides, dilations, strict=True):
            if size is None and s > 1:
                raise Refused(f"auto_pad {auto} of a dimension that depends on a symbol")
            reach = (k - 1) * d + 1
            total = reach - 1 if size is None else max(0, (-(-size // s) - 1) * s + reach - size)
            small, large = total // 2, total - total // 2
            begins.append(small if auto == "SAME_UPPER" else large)
            ends.append(large if auto == "SAME_UPPER" else small)
        pads = begins + ends
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    return {"kernel_shape": list(kernel), "strides": strides, "dilations": dilations, "pads": pads}


@rule("Conv")
def _conv(node: RawNode, b: Builder) -> None:
    w = b.need_constant(node.inputs[1], "weights")
    if w.ndim < 3:
        raise ModelFormatError(f"Conv node {label(node)}: expected weights [O, I, kernel...], found shape {list(w.shape)}")
    kernel = [int(k) for k in node.attrs.get("kernel_shape", w.shape[2:])]
    if kernel != list(w.shape[2:]):
        raise ModelFormatError(f"Conv node {label(node)}: kernel_shape {kernel}, but the weights have {list(w.shape[2:])}")
    attrs = {**_window(node, b, kernel), "group": int(node.attrs.get("group", 1))}
    weights = b.weight(f"{node.inputs[1]}.channels_last", np.ascontiguousarray(np.moveaxis(w, 1, -1)))
    inputs = [b.channels_last(node.inputs[0]), weights]
    if len(node.inputs) > 2 and node.inputs[2]:
        inputs.append(node.inputs[2])
    b.channels_first(b.emit("Conv", inputs, attrs), node.outputs[0])


@rule("MaxPool", "AveragePool")
def _pool(node: RawNode, b: Builder) -> None:
    unused(node, 1, "the output of indices")
    attrs = {**_window(node, b, [int(k) for k in node.attrs["kernel_shape"]]), "ceil_mode": int(node.attrs.get("ceil_mode", 0))}
    if node.op == "AveragePool":
        attrs["count_include_pad"] = int(node.attrs.get("count_include_pad", 0))
    b.channels_first(b.emit(node.op, [b.channels_last(node.inputs[0])], attrs), node.outputs[0])


@rule("GlobalAveragePool", "GlobalMaxPool", "LRN")
def _per_image(node: RawNode, b: Builder) -> None:
    if b.rank(node.inputs[0]) < 3:
        raise Refused("an input of less than three axes")
    b.channels_first(b.emit(node.op, [b.channels_last(node.inputs[0])], node.attrs), node.outputs[0])


@rule("GroupNormalization")
def _group_normalization(node: RawNode, b: Builder) -> None:
    inputs = list(node.inputs)
    groups = int(node.attrs["num_groups"])
    channels = b.fixed(inputs[0])[1]
    if b.opset < 21:  # scale and bias were per group
        if channels is None:
            raise Refused("a channel count that depends on a symbol")
        for i, what in ((1, "scale"), (2, "bias")):
            inputs[i] = b.weight(f"{inputs[i]}.per_channel", np.repeat(b.need_constant(inputs[i], what), channels // groups))
    attrs = {k: v for k, v in node.attrs.items() if k != "stash_type"}
    b.emit("GroupNormalization", inputs, attrs, node.outputs)


@rule("LayerNormalization")
def _layer_normalization(node: RawNode, b: Builder) -> None:
    axis = int(node.attrs.get("axis", -1))
    rank = b.rank(node.inputs[0])
    attrs = {"axis": axis - rank if axis >= 0 else axis, "epsilon": float(node.attrs.get("epsilon", 1e-5))}
    b.emit("LayerNormalization", node.inputs, attrs, node.outputs)


@rule("Gemm")
def _gemm(node: RawNode, b: Builder) -> None:
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    a, w = node.inputs[:2]
    c = node.inputs[2] if len(node.inputs) > 2 else ""
    if b.rank(a) != 2 or b.rank(w) != 2:
        raise ModelFormatError(f"Gemm node {label(node)}: expected two matrices, found ranks {b.rank(a)} and {b.rank(w)}")
    if node.attrs.get("transA", 0):
        a = b.emit("Transpose", [a], {"perm": [1, 0]})
    matrix, bias = b.constant(w), b.constant(c) if c else None
    if matrix is None:
        if node.attrs.get("transB", 0):
            w = b.emit("Transpose", [w], {"perm": [1, 0]})
        y = b.emit("MatMul", [a, w], {"alpha": alpha}, None if c and beta else node.outputs)
        if c and beta:
            b.emit("Add", [y, _scaled(b, c, beta)], None, node.outputs)
        return
    if not node.attrs.get("transB", 0):
        matrix = np.ascontiguousarray(matrix.T)
        w = b.weight(f"{w}.rows", matrix)
    if alpha != 1.0:
        w = b.weight(f"{w}.scaled", (matrix * np.float32(alpha)).astype(matrix.dtype))
    inputs, addend = [a, w], ""
    if c and beta:
        if bias is not None and bias.size in (1, matrix.shape[0]) and (bias.ndim == 0 or bias.shape[-1] == bias.size):
            vector = np.broadcast_to(bias.reshape(-1), (matrix.shape[0],))
            same = beta == 1.0 and bias.shape == vector.shape
            inputs.append(c if same else b.weight(f"{c}.bias", (vector * np.float32(beta)).astype(matrix.dtype)))
        else:
            addend = _scaled(b, c, beta)
    y = b.emit("Gemm", inputs, None, None if addend else node.outputs)
    if addend:
        b.emit("Add", [y, addend], None, node.outputs)


@rule("MatMul")
def _matmul(node: RawNode, b: Builder) -> None:
    b.constant(node.inputs[1])  # a matrix made by nodes from constants is stored, however large: it becomes a Gemm's
    as_is(node, b)


def _scaled(b: Builder, x: str, factor: float) -> str:
    if factor == 1.0:
        return x
    return b.emit("Mul", [x, b.weight(f"{x}.factor", np.asarray(factor, np.float32))])


@rule("Upsample", "Resize")
def _resize(node: RawNode, b: Builder) -> None:
    x = node.inputs[0]
    rank = b.rank(x)
    attrs: dict[str, Any] = {"mode": {"bilinear": "linear"}.get(node.attrs.get("mode", "nearest"), node.attrs.get("mode", "nearest"))}
    given: dict[str, list[float]] = {}
    if node.op == "Upsample" or b.opset < 11:  # one way to map coordinates, no choice of sizes
        attrs.update(coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        scales = node.attrs.get("scales")
        if scales is None:
            scales = b.need_constant(node.inputs[1], "scales").reshape(-1).tolist()
        given["scales"] = scales
    else:
        attrs["coordinate_transformation_mode"] = node.attrs.get("coordinate_transformation_mode", "half_pixel")
        attrs["nearest_mode"] = node.attrs.get("nearest_mode", "round_prefer_floor")
        if node.attrs.get("antialias", 0):
            raise Refused("antialias")
        if attrs["mode"] not in ("nearest", "linear"):
            raise Refused(f"mode {attrs['mode']}")
        if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
            raise Refused("coordinate_transformation_mode tf_crop_and_resize")
        if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise Refused(f"keep_aspect_ratio_policy {node.attrs['keep_aspect_ratio_policy']}")
        for i, name in ((2, "scales"), (3, "sizes")):
            if i < len(node.inputs) and node.inputs[i] and b.fixed(node.inputs[i]) != (0,):
                value = b.shapes.fixed_value(node.inputs[i])
                if value is None:
                    raise Refused(f"{name} that are not constant")
                given[name] = value.reshape(-1).tolist()
    axes = [int(a) % rank for a in node.attrs.get("axes", range(rank))]
    name = "scales" if "scales" in given else "sizes"
    values = given.get(name)
    if values is None or len(values) != len(axes):
        raise ModelFormatError(f"{node.op} node {label(node)}: expected {len(axes)} scales or sizes, found {values}")
    by_axis = dict(zip(axes, values, strict=True))
    fixed = b.fixed(x)
    for axis in (0, 1):
        if axis in by_axis and by_axis.pop(axis) != (1 if name == "scales" else fixed[axis]):
            raise Refused("another size along the batch or the channels")
    neutral = {axis: 1.0 if name == "scales" else fixed[axis] for axis in range(2, rank)}
    wanted = [by_axis.get(axis, neutral[axis]) for axis in range(2, rank)]
    spatial = [v for v in wanted if v is not None]
    if len(spatial) != len(wanted):
        raise Refused("sizes of some axes only, where others depend on a symbol")
    attrs["axes"] = list(range(1, rank - 1))
    attrs[name] = [float(v) if name == "scales" else int(v) for v in spatial]
    b.channels_first(b.emit("Resize", [b.channels_last(x)], attrs), node.outputs[0])


@rule("DepthToSpace", "SpaceToDepth")
def _blocks(node: RawNode, b: Builder) -> None:
    n, c, h, w = b.shapes.dims(node.inputs[0])
    s = int(node.attrs["blocksize"])
    side = tuple(s for _ in n)

    def times(size: Size, factor: int, divisor: int = 1) -> Size:
        return tuple(v * factor // divisor for v in size)

    if node.op == "DepthToSpace":
        few, mode = times(c, 1, s * s), node.attrs.get("mode", "DCR")
        split = (n, side, side, few, h, w) if mode == "DCR" else (n, few, side, side, h, w)
        x = b.emit("Transpose", [b.reshape(node.inputs[0], split)], {"perm": [0, 3, 4, 1, 5, 2] if mode == "DCR" else [0, 1, 4, 2, 5, 3]})
        b.reshape(x, (n, few, times(h, s), times(w, s)), node.outputs[0])
    else:
        x = b.reshape(node.inputs[0], (n, c, times(h, 1, s), side, times(w, 1, s), side))
        x = b.emit("Transpose", [x], {"perm": [0, 3, 5, 1, 2, 4] if node.attrs.get("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]})
        b.reshape(x, (n, times(c, s * s), times(h, 1, s), times(w, 1, s)), node.outputs[0])


@rule("GRU", "LSTM")
def _recurrent(node: RawNode, b: Builder) -> None:
    gru = node.op == "GRU"
    inputs = [*node.inputs, *[""] * 8][:8]
    x, w, r, bias, lengths, h0, c0, peepholes = inputs
    if lengths:
        raise Refused("sequence_lens")
    if not gru and peepholes:
        raise Refused("peepholes")
    if node.attrs.get("clip") or node.attrs.get("input_forget", 0):
        raise Refused("clip or input_forget")
    default = ["sigmoid", "tanh"] if gru else ["sigmoid", "tanh", "tanh"]
    direction = node.attrs.get("direction", "forward")
    ways = {"forward": ["forward"], "reverse": ["reverse"], "bidirectional": ["forward", "reverse"]}.get(direction)
    if ways is None:
        raise ModelFormatError(f"{node.op} node {label(node)}: direction {direction!r}")
    if [str(f).lower() for f in node.attrs.get("activations", default * len(ways))] != default * len(ways):
        raise Refused(f"activations {node.attrs['activations']}")
    matrices, recurrences = b.need_constant(w, "W"), b.need_constant(r, "R")
    biases = b.need_constant(bias, "B") if bias else None
    hidden, gates = recurrences.shape[-1], 3 if gru else 4
    if matrices.ndim != 3 or matrices.shape[0] != len(ways) or recurrences.shape != (len(ways), gates * hidden, hidden):
        raise ModelFormatError(f"{node.op} node {label(node)}: W {list(matrices.shape)} and R {list(recurrences.shape)} do not agree")
    batch_first = bool(node.attrs.get("layout", 0))

    def turned(name: str) -> str:
        return b.emit("Transpose", [name], {"perm": [1, 0, 2]}) if batch_first and name else name

    x = turned(x)
    states = [[s] * len(ways) for s in (turned(h0), turned(c0))]
    for i, state in enumerate(states):
        if state[0] and len(ways) == 2:
            halves = [b.unique(f"{state[0]}:{way}") for way in ways]
            b.emit("Split", [state[0]], {"axis": 0, "split": [1, 1]}, halves)
            states[i] = halves

    wanted = [*node.outputs, "", "", ""][: 2 if gru else 3]
    direct = len(ways) == 1 and not batch_first
    results: list[list[str]] = []
    for i, way in enumerate(ways):
        names = [b.weight(f"{w}.{way}", matrices[i]), b.weight(f"{r}.{way}", recurrences[i])]
        if biases is None:
            names += ["", ""] if gru else [""]
        elif gru:
            names += [b.weight(f"{bias}.{way}.{k}", half) for k, half in zip("WR", np.split(biases[i], 2), strict=True)]
        else:
            names.append(b.weight(f"{bias}.{way}", np.sum(np.split(biases[i], 2), axis=0, dtype=biases.dtype)))
        names += [states[0][i]] + ([] if gru else [states[1][i]])
        attrs: dict[str, Any] = {"hidden_size": hidden, "direction": way}
        if gru:
            attrs["linear_before_reset"] = int(node.attrs.get("linear_before_reset", 0))
        outs = [name if direct or not name else b.unique(f"{name}:{way}") for name in wanted]
        b.emit(node.op, [x, *names], attrs, outs)
        results.append(outs)
    if direct:
        return
    for k, name in enumerate(wanted):
        if name:
            y = results[0][k]
            if len(ways) == 2:
                joined = None if batch_first else [name]
                y = b.emit("Concat", [outs[k] for outs in results], {"axis": 1 if k == 0 else 0}, joined)
            if batch_first:
                b.emit("Transpose", [y], {"perm": [2, 0, 1, 3] if k == 0 else [1, 0, 2]}, [name])
