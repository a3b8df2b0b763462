"""Cases for every operator: one node of edgeinfer and the ONNX nodes that mean the same.

A case is written in edgeinfer's form (channels-last, folded, settings as inputs). ``nodes`` is the same in ONNX with inputs i0, i1 ... and
outputs o0, o1 ...; where it is left out it is the one node of the same name and attributes. ``onnx_inputs`` makes ONNX's inputs from ours;
where left out, the first input of a channels-last operator is transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper

from edgeinfer.ops import OPERATORS, activations

rng = np.random.default_rng(20)
Array = np.ndarray


def f(*shape: int) -> Array:
    """Normal float32 numbers."""
    return rng.standard_normal(shape).astype(np.float32)


def i(*values: int) -> Array:
    """A vector of int64."""
    return np.array(values, np.int64)


def s(value: float, dtype: Any = np.float32) -> Array:
    """A scalar."""
    return np.array(value, dtype)


def first(x: Array) -> Array:
    """[N, spatial..., C] -> [N, C, spatial...]."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def last(x: Array) -> Array:
    """[N, C, spatial...] -> [N, spatial..., C]."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@dataclass
class Case:
    """One node with inputs and what it means in ONNX. ``native``: its lowering has steps (or is an alias) rather than a NumPy form."""

    op: str
    inputs: Sequence[Array | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    native: bool = True
    outputs: int = 1
    nodes: list[tuple[str, str, str, dict[str, Any]]] | None = None
    onnx_inputs: Callable[..., list[Array | None]] | None = None
    #: positions of inputs that are coded tensors
    coded: tuple[int, ...] = ()
    #: settings given as inputs that may be attributes just as well: position -> attribute
    settings: dict[int, str] = field(default_factory=dict)
    #: positions of inputs that the plan knows, beside shape inputs
    known: tuple[int, ...] = ()
    opset: int = 21
    tolerance: float = 1e-5
    #: who says what is right: "onnxruntime", or "onnx", the reference evaluator
    judge: str = "onnxruntime"

    @property
    def channels_last(self) -> bool:
        return OPERATORS[self.op].channels_last

    def reference_inputs(self) -> list[Array | None]:
        """Inputs as ONNX has them."""
        if self.onnx_inputs is not None:
            return self.onnx_inputs(*self.inputs)
        given = list(self.inputs)
        if self.channels_last and given[0] is not None:
            given[0] = first(given[0])
        return given

    def model(self) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """The ONNX model and its feed."""
        given = {f"i{k}": None if a is None else np.asarray(a) for k, a in enumerate(self.reference_inputs())}
        names = ",".join(k if a is not None else "" for k, a in given.items())
        outputs = [f"o{k}" for k in range(self.outputs)]
        nodes = self.nodes if self.nodes is not None else [(self.op, names, ",".join(outputs), self.attrs)]
        made = []
        for op, ins, outs, attrs in nodes:
            made.append(helper.make_node(op, ins.split(",") if ins else [], outs.split(","), **attrs))
        graph = helper.make_graph(
            made,
            "case",
            [
                helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for k, a in given.items()
                if a is not None
            ],
            [onnx.ValueInfoProto(name=k) for k in outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        return model, {k: a for k, a in given.items() if a is not None}


CASES: list[Case] = []


def case(op: str, *inputs: Array | None, **kwargs: Any) -> None:
    """Enter a case; keywords that are no fields of Case are attributes."""
    names = Case.__dataclass_fields__
    attrs = {k.rstrip("_"): v for k, v in kwargs.items() if k.rstrip("_") == "axis" or k not in names}
    CASES.append(Case(op, inputs, attrs, **{k: v for k, v in kwargs.items() if k in names}))


# --- activations

DOMAINS: dict[str, Callable[[Array], Array]] = {
    "Log": lambda x: np.abs(x) + 0.01,
    "Sqrt": np.abs,
    "Acosh": lambda x: 1 + np.abs(x),
    "Asin": np.tanh,
    "Acos": np.tanh,
    "Atanh": lambda x: 0.9 * np.tanh(x),
    "Reciprocal": lambda x: np.sign(x) * (0.1 + np.abs(x)),
    "Round": lambda x: np.round(2 * x) / 2,
}
NUMPY_ONLY = {
    "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Sign", "Softsign", "Mish", "Selu", "Celu", "ThresholdedRelu"
}  # fmt: skip
SWISH = [("Mul", "i0,a", "b", {}), ("Sigmoid", "b", "c", {}), ("Mul", "i0,c", "o0", {})]


def swish(alpha: float) -> list[tuple[str, str, str, dict[str, Any]]]:
    constant = helper.make_tensor("value", T.FLOAT, [], [alpha])
    return [("Constant", "", "a", {"value": constant}), *SWISH]


for name in activations.FUNCTIONS:
    x = DOMAINS.get(name, lambda x: x)(2 * f(2, 3, 5))
    if name == "Clip":
        continue
    case(name, x.astype(np.float32), native=name not in NUMPY_ONLY, nodes=swish(1.0) if name in ("Silu", "Swish") else None)
    case(
        name,
        x.astype(np.float32)[0, 0, 0].reshape(()),
        native=name not in NUMPY_ONLY,
        nodes=swish(1.0) if name in ("Silu", "Swish") else None,
    )
case("Swish", 3 * f(4, 5), alpha=1.7, native=False, nodes=swish(1.7))
case("LeakyRelu", f(7, 9), alpha=0.3)
case("Elu", f(7, 9), alpha=0.3)
case("HardSigmoid", 3 * f(7, 9), alpha=0.3, beta=0.4)
case("Gelu", 3 * f(7, 9), approximate="tanh")
case("Selu", f(7), alpha=1.5, gamma=0.7, native=False)
case("Celu", f(7), alpha=1.5, native=False)
case("Abs", i(-3, 0, 4), native=False)
case("Neg", i(-3, 0, 4), native=False)
case("Sign", i(-3, 0, 4), native=False)
case("Relu", np.array([-3, 4], np.int32), native=False)
case("Relu", np.array([-np.inf, np.inf, 0, -0.0], np.float32))
case("Sigmoid", np.array([-200, 200, -20, 20, 0, -88.5], np.float32))
case("Tanh", np.array([-200, 200, -9, 9, 1e-4, -1e-6], np.float32))
case("Exp", np.array([-200, 80, -87, 0, -1], np.float32))
case("Clip", 3 * f(3, 4), s(-1), s(2), known=(1, 2), settings={1: "min", 2: "max"})
case("Clip", 3 * f(3, 4), s(-1), s(2), native=False)
case("Clip", 3 * f(3, 4), s(0), known=(1,), settings={1: "min"})
case("Clip", 3 * f(3, 4), None, s(0.5), known=(2,), settings={2: "max"})
case("Clip", 3 * f(3, 4))
case("Clip", i(1, 5, 9), s(2, np.int64), s(6, np.int64), native=False)
case("IsNaN", np.array([1, np.nan, np.inf], np.float32), native=False)
case("IsInf", np.array([1, np.nan, np.inf, -np.inf], np.float32), native=False)
case("IsInf", np.array([1, np.nan, np.inf, -np.inf], np.float32), detect_negative=0, native=False)

# --- arithmetic

for name in ("Add", "Sub", "Mul", "Div"):
    for a, b in (
        ((2, 3, 4), (2, 3, 4)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 3, 4)),
        ((2, 1, 4), (3, 1)),
        ((), (3, 2)),
        ((5, 7), ()),
        ((2, 3, 1, 5), (2, 1, 4, 5)),
    ):
        case(name, f(*a), np.abs(f(*b)) + np.float32(0.5))
    case(name, i(-7, 7, 8, -8), i(2, -2, 3, 3), native=False)
    case(name, f(3, 4), f(3, 4) + 4, activation="Relu", nodes=[(name, "i0,i1", "t", {}), ("Relu", "t", "o0", {})])
case("Add", f(2, 1, 2, 1, 2, 1, 3), f(2, 3, 1, 2, 1, 3, 1), native=False)  # seven loops
case("Add", f(2, 1, 2, 1, 2, 3), f(1, 3, 1, 2, 1, 3))
case("Add", f(3, 4), f(4), activation="Softsign", native=False, nodes=[("Add", "i0,i1", "t", {}), ("Softsign", "t", "o0", {})])
case("Mul", f(3, 4), f(4), activation="LeakyRelu", alpha=0.2, nodes=[("Mul", "i0,i1", "t", {}), ("LeakyRelu", "t", "o0", {"alpha": 0.2})])
case("Pow", np.abs(f(3, 4)) + 0.1, f(4), tolerance=1e-4)
case("Pow", f(3, 4), s(2))
case("Pow", f(3, 4), s(3, np.int64), native=False)
case("Pow", i(2, 3, 4), i(3, 2, 1), native=False)
for name in ("Min", "Max", "Sum", "Mean"):
    case(name, f(3, 4))
    case(name, f(3, 4), f(4))
    case(name, f(4), f(3, 1), f(2, 3, 4))
for name in ("Min", "Max"):
    case(name, i(1, 5), i(3, 3), native=False)
for name in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
    case(name, np.round(f(3, 4)), np.round(f(4)), native=False)
    case(name, i(1, 2, 3), i(2), native=False)
for name in ("And", "Or", "Xor"):
    case(name, f(3, 4) > 0, f(4) > 0, native=False)
case("Not", f(3, 4) > 0, native=False)
case("Mod", i(-7, 7, 8, -8), i(3, -3, 3, 3), native=False)
case("Mod", i(-7, 7, 8, -8), i(3, -3, 3, 3), fmod=1, native=False)
case("Mod", f(5), f(5), fmod=1, native=False)
case("Mod", f(5), f(5), native=False, judge="onnx", opset=28)
case("Where", f(3, 1) > 0, f(3, 4), f(4), native=False)
case("Where", f(4) > 0, i(1), i(2, 3, 4, 5), native=False)
case("PRelu", f(2, 3, 4), f(3, 1))
case("PRelu", f(2, 3, 4), f(1))
case("PRelu", np.array([np.inf, -np.inf, 1, -1], np.float32), np.array([0.5], np.float32))

# --- convolution, products


def conv(
    x: tuple[int, ...],
    out: int,
    kernel: tuple[int, ...],
    bias: bool = True,
    residual: bool = False,
    act: dict[str, Any] | None = None,
    **kw: Any,
) -> None:
    """A Conv case; ``act``: activation and its attributes."""
    rank, group = len(kernel), kw.pop("group", 1)
    coded = kw.pop("coded", (1,))
    attrs = {
        "strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * (2 * rank), "group": group, "kernel_shape": list(kernel), **kw
    }  # fmt: skip
    given: list[Array | None] = [f(*x), f(out, *kernel, x[-1] // group), f(out) if bias else None]
    shape = OPERATORS["Conv"]().infer(_node("Conv", attrs), [_spec(a) for a in given], [])[0].shape
    given.append(f(*shape) if residual else None)  # type: ignore[arg-type]
    nodes = [("Conv", "i0,i1" + (",i2" if bias else ""), "c" if residual or act else "o0", attrs)]
    if residual:
        nodes.append(("Add", "c,i3", "d" if act else "o0", {}))
    fused = dict(act or {})
    if act:
        nodes.append((fused["activation"], "d" if residual else "c", "o0", {k: v for k, v in fused.items() if k != "activation"}))
    CASES.append(
        Case(
            "Conv",
            given,
            {**attrs, **fused},
            nodes=nodes,
            coded=coded,
            native=rank < 3 and bool(coded),
            onnx_inputs=lambda x, w, b, r: [first(x), first(w), b, None if r is None else first(r)],
        )
    )


def _node(op: str, attrs: dict[str, Any], inputs: int = 4, outputs: int = 1) -> Any:
    from edgeinfer.graph import Node

    return Node(op, "case", tuple(f"i{k}" for k in range(inputs)), tuple(f"o{k}" for k in range(outputs)), attrs)


def _spec(a: Array | None) -> Any:
    from edgeinfer.graph import TensorSpec

    return None if a is None else TensorSpec("t", str(a.dtype), a.shape)


conv((1, 8, 8, 3), 16, (3, 3), pads=[1, 1, 1, 1])
conv((2, 9, 7, 3), 5, (3, 2), pads=[0, 1, 2, 0], strides=[2, 1])
conv((1, 12, 12, 4), 6, (3, 3), dilations=[2, 3], bias=False)
conv((2, 6, 6, 8), 8, (1, 1), act={"activation": "Relu"}, residual=True)
conv((1, 5, 5, 8), 40, (1, 1), strides=[2, 2], act={"activation": "LeakyRelu", "alpha": 0.1})
conv((2, 7, 7, 8), 12, (3, 3), group=4, pads=[1, 1, 1, 1], act={"activation": "HardSwish"})
conv((2, 7, 7, 12), 12, (3, 3), group=12, pads=[1, 1, 1, 1], residual=True, act={"activation": "Sigmoid"})
conv((1, 9, 9, 5), 5, (5, 5), group=5, pads=[2, 2, 2, 2], strides=[2, 2], bias=False)
conv((1, 7, 7, 6), 12, (3, 3), group=6, pads=[0, 0, 1, 1])
conv((2, 20, 4), 6, (5,), pads=[2, 2], strides=[2])
conv((2, 20, 4), 4, (3,), group=4, dilations=[2])
conv((1, 4, 5, 6, 2), 3, (3, 2, 2), pads=[1, 0, 0, 1, 1, 1], strides=[1, 2, 1])
conv((1, 6, 6, 3), 4, (3, 3), coded=(), act={"activation": "Tanh"})
conv((1, 1, 1, 3), 4, (3, 3), pads=[1, 1, 1, 1])

GEMM = [("Transpose", "i1", "w", {"perm": [1, 0]}), ("MatMul", "i0,w", "p", {})]
for coded in ((1,), ()):
    case("Gemm", f(3, 20), f(7, 20), f(7), coded=coded, nodes=[("Gemm", "i0,i1,i2", "o0", {"transB": 1})])
    case("Gemm", f(2, 3, 20), f(33, 20), coded=coded, nodes=[GEMM[0], ("MatMul", "i0,w", "o0", {})])
    case("Gemm", f(20), f(7, 20), coded=coded, nodes=[GEMM[0], ("MatMul", "i0,w", "o0", {})])
    case("Gemm", f(3, 20), f(7, 20), activation="Relu", coded=coded, nodes=[*GEMM, ("Relu", "p", "o0", {})])
    case(
        "Gemm",
        f(3, 20),
        f(7, 20),
        f(3, 1),
        activation="Relu",
        coded=coded,
        nodes=[*GEMM, ("Add", "p,i2", "q", {}), ("Relu", "q", "o0", {})],
    )
    case(
        "Gemm", f(2, 3, 20), f(40, 20), f(40), f(2, 3, 40), activation="Elu", alpha=0.5, coded=coded,
        nodes=[*GEMM, ("Add", "p,i2", "q", {}), ("Add", "q,i3", "r", {}), ("Elu", "r", "o0", {"alpha": 0.5})],
    )  # fmt: skip
for a, b in (
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((2, 3, 5, 4), (2, 3, 4, 6)),
    ((2, 3, 5, 4), (3, 4, 6)),
    ((2, 1, 5, 4), (2, 3, 4, 1)),
    ((3, 5, 4), (2, 1, 4, 6)),
    ((3, 4), (2, 4, 6)),
    ((2, 5, 4), (1, 4, 6)),
):
    case("MatMul", f(*a), f(*b))
case("MatMul", f(2, 2, 3, 5, 4), f(1, 2, 3, 4, 6))
case("MatMul", f(2, 1, 3, 5, 4), f(1, 2, 3, 4, 6), native=False)  # three loops over matrices
case("MatMul", f(2, 3, 4), f(2, 4, 5), alpha=0.5, nodes=[("MatMul", "i0,i1", "p", {}), ("Mul", "p,h", "o0", {})])
CASES[-1].nodes.insert(0, ("Constant", "", "h", {"value": helper.make_tensor("v", T.FLOAT, [], [0.5])}))  # type: ignore[union-attr]
case("MatMul", np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4), native=False)

for equation, shapes in (
    ("bhqd,bhkd->bhqk", ((2, 3, 4, 5), (2, 3, 6, 5))),
    ("ij,jk", ((2, 3), (3, 4))),
    ("...ij->...ji", ((2, 3, 4),)),
    ("bn,anm->bam", ((2, 3), (5, 3, 4))),
    ("ii->i", ((3, 3),)),
):
    case("Einsum", *(f(*shape) for shape in shapes), equation=equation, native=False)

# --- pooling

for name, extra in (("MaxPool", {}), ("AveragePool", {}), ("AveragePool", {"count_include_pad": 1})):
    case(name, f(2, 8, 9, 5), kernel_shape=[3, 3], strides=[2, 2], **extra)
    case(name, f(2, 8, 9, 5), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, **extra)
    case(name, f(1, 7, 7, 4), kernel_shape=[2, 2], strides=[2, 2], pads=[0, 1, 1, 0], ceil_mode=1, **extra)
    case(name, f(1, 7, 7, 4), kernel_shape=[3, 3], pads=[1, 1, 1, 1], **extra)
    case(
        name, f(1, 6, 6, 4), kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1, **extra
    )  # last window starts in the end padding
    case(name, f(1, 10, 11, 3), kernel_shape=[2, 3], dilations=[2, 3], pads=[1, 1, 1, 1], **extra)
    case(name, f(2, 11, 3), kernel_shape=[3], strides=[2], pads=[1, 1], **extra)
    case(name, f(1, 4, 5, 6, 2), kernel_shape=[2, 2, 3], native=False, **extra)
case("MaxPool", rng.integers(0, 255, (1, 6, 6, 3)).astype(np.uint8), kernel_shape=[2, 2], native=False)
for name in ("GlobalMaxPool", "GlobalAveragePool"):
    for shape in ((2, 5, 7, 9), (2, 5, 3), (1, 2, 3, 4, 5)):
        case(name, f(*shape))

# --- normalisation

BATCH_NORM = [("Mul", "i0,i1", "m", {}), ("Add", "m,i2", "o0", {})]
for shape in ((2, 5, 6, 7), (3, 7), (2, 4, 7)):
    spatial = [1] * (len(shape) - 2)
    case(
        "BatchNormalization", f(*shape), f(7), f(7), nodes=BATCH_NORM,
        onnx_inputs=lambda x, a, b, k=spatial: [first(x), a.reshape(-1, *k), b.reshape(-1, *k)],
    )  # fmt: skip
case(
    "BatchNormalization", f(2, 3, 3, 20), f(20), f(20), activation="Clip", min=-0.5, max=0.5,
    nodes=[BATCH_NORM[0], ("Add", "m,i2", "s", {}), ("Clip", "s,i3,i4", "o0", {})],
    onnx_inputs=lambda x, a, b: [first(x), a.reshape(-1, 1, 1), b.reshape(-1, 1, 1), s(-0.5), s(0.5)],
)  # fmt: skip
for size in (1, 2, 3, 5, 8):
    # onnxruntime has odd sizes only, and the reference evaluator is right only for as many images as channels
    case("LRN", 3 * f(6, 3, 4, 6), size=size, alpha=0.1, beta=0.6, bias=1.5, judge="onnxruntime" if size % 2 else "onnx")
case("LRN", 3 * f(2, 3, 4, 17), size=5)
case("LayerNormalization", f(2, 5, 24), f(24), f(24))
case("LayerNormalization", f(2, 5, 24), f(24), epsilon=1e-2)
case("LayerNormalization", f(2, 3, 4, 5), f(4, 5), f(4, 5), axis=2)
case("LayerNormalization", f(2, 3, 4, 5), f(4, 5), f(5), axis=-2, native=False)
case("LayerNormalization", f(2, 5, 24), f(24), f(24), outputs=3, native=False)
case("LayerNormalization", 100 + f(3, 33), f(33), f(33), tolerance=1e-4)
case("RMSNormalization", f(2, 5, 24), f(24), native=False, opset=23)
case("RMSNormalization", f(2, 5, 4, 6), f(4, 6), axis=2, epsilon=0.1, native=False, opset=23)
case("InstanceNormalization", f(2, 4, 5, 6), f(4), f(4))
case("InstanceNormalization", f(2, 4, 9), f(4), f(4), epsilon=0.1)
case("GroupNormalization", f(2, 6, 5, 4), f(6), f(6), num_groups=3)
for name in ("Softmax", "LogSoftmax"):
    for axis in (-1, 0, 1, 2):
        case(name, 4 * f(3, 5, 7), axis=axis)
    case(name, 4 * f(33))
    case(name, 100 * f(2, 9))

for p in (1, 2):
    case("LpNormalization", f(3, 4, 5), p=p, axis=1, native=False)
case("Hardmax", np.round(f(3, 4, 5)), axis=1, native=False)
case("Hardmax", f(3, 4), native=False)

# --- shape

for old, new in (((2, 3, 4), (4, 6)), ((2, 3, 4), (0, -1)), ((2, 3, 4), (-1,)), ((1,), ()), ((2, 3, 4), (1, 2, 0, 3))):
    if (old, new) == ((2, 3, 4), (1, 2, 0, 3)):
        continue
    case("Reshape", f(*old), i(*new), settings={1: "shape"})
case("Reshape", i(1, 2, 3, 4), i(2, 2), settings={1: "shape"})
case("Reshape", f(0, 3), i(3, 0), allowzero=1, settings={1: "shape"})
case("Identity", f(2, 3))
for axis in (0, 1, 2, 3, -1):
    case("Flatten", f(2, 3, 4), axis=axis)
case("Flatten", f(2, 3, 4))
case("Squeeze", f(1, 2, 1, 3), i(0), settings={1: "axes"})
case("Squeeze", f(1, 2, 1, 3), i(-2, 0), settings={1: "axes"})
case("Squeeze", f(1, 2, 1, 3))
case("Unsqueeze", f(2, 3), i(0), settings={1: "axes"})
case("Unsqueeze", f(2, 3), i(-1, 0), settings={1: "axes"})
case("Unsqueeze", f(2, 3), i(3, 1), settings={1: "axes"})
for perm in ([1, 0, 2], [2, 1, 0], [0, 2, 1], [0, 1, 2], [2, 0, 1]):
    case("Transpose", f(3, 4, 5), perm=perm)
case("Transpose", f(3, 4, 5))
case("Transpose", f(1, 4, 1, 5), perm=[1, 2, 0, 3])
case("Transpose", f(2, 3, 4, 5, 2, 3), perm=[5, 3, 1, 4, 2, 0])
case("Transpose", f(2, 3, 2, 3, 2, 3, 2), perm=[6, 5, 4, 3, 2, 1, 0], native=False)
case("Transpose", f(2, 3, 2, 3, 2, 3, 2), perm=[4, 5, 6, 0, 1, 2, 3])
for dtype in (np.int64, np.uint8, np.int16, bool, np.float64):
    case("Transpose", (10 * f(3, 4, 5)).astype(dtype), perm=[2, 0, 1])
for axis in (0, 1, 2, -1):
    case("Concat", f(2, 3, 4), f(2, 3, 4), f(2, 3, 4), axis=axis)
case("Concat", f(2, 3, 4), f(2, 3, 9), axis=2)
case("Concat", f(2, 3, 4), f(2, 1, 4), axis=1)
case("Concat", i(1, 2), i(3), axis=0)
case("Concat", f(2, 3) > 0, f(2, 1) > 0, axis=1)
case("Concat", f(2, 3), axis=1)
case("Concat", f(0, 3), f(2, 3), axis=0, native=False)
case("Split", f(6, 4), i(1, 2, 3), axis=0, outputs=3, settings={1: "split"})
case("Split", f(3, 6, 4), i(4, 2), axis=1, outputs=2, settings={1: "split"})
case("Split", f(3, 7), axis=1, outputs=3, num_outputs=3)
case("Split", np.arange(12).reshape(2, 6), i(5, 1), axis=-1, outputs=2, settings={1: "split"})
case("Split", f(3, 7), axis=1, outputs=1, num_outputs=1)
PADS = {1: "pads"}
case("Pad", f(2, 3), i(1, 0, 0, 2), settings=PADS)
case("Pad", f(2, 3), i(1, 0, 0, 2), s(1.5), known=(2,), settings={1: "pads", 2: "value"})
case("Pad", f(2, 3, 4), i(1, 2), None, i(1), known=(2,), settings={1: "pads", 3: "axes"})
case("Pad", f(4, 5), i(-1, 1, 1, -2), settings=PADS)
case("Pad", f(4, 5), i(-1, 0, 0, -2), settings=PADS)
case("Pad", f(4, 5), i(0, 0, 0, 0), settings=PADS)
case("Pad", i(1, 2), i(1, 1), native=False)
for mode in ("reflect", "edge", "wrap"):
    case("Pad", f(4, 5), i(1, 2, 3, 0), mode=mode, settings=PADS)
    case("Pad", f(3, 4, 5), i(0, 2, 2, 0, 1, 3), mode=mode, settings=PADS)
    case("Pad", i(1, 2, 3, 4), i(2, 3), mode=mode)
case("Pad", f(3, 4), i(0, -1, 0, 2), mode="edge", native=False)
SLICE = {1: "starts", 2: "ends", 3: "axes", 4: "steps"}
case("Slice", f(6, 7), i(1, 2), i(4, 6), i(0, 1), i(1, 2), settings=SLICE)
case("Slice", f(6, 7), i(1), i(2**63 - 1), i(1), settings={1: "starts", 2: "ends", 3: "axes"})
case("Slice", f(6, 7), i(-3, -2), i(-1, 100), settings={1: "starts", 2: "ends"})
case("Slice", f(6, 7), i(5), i(-(2**63)), i(0), i(-1), settings=SLICE)
case("Slice", f(6, 7), i(-1, 100), i(-100, 1), i(0, -1), i(-2, -3), settings=SLICE)
case("Slice", f(6, 7), i(0), i(6), i(0), settings={1: "starts", 2: "ends", 3: "axes"})
case("Slice", f(6, 7), i(4), i(2), i(0), settings={1: "starts", 2: "ends", 3: "axes"})
case("Slice", np.arange(20).reshape(4, 5), i(1), i(4), i(1), settings={1: "starts", 2: "ends", 3: "axes"})
case("Slice", f(1, 8, 8, 4), i(0, 0), i(8, 8), i(1, 2), i(2, 2), settings=SLICE)
case("Expand", f(3, 1), i(2, 3, 4), settings={1: "shape"})
case("Expand", f(3, 4), i(1, 1), settings={1: "shape"})
case("Expand", i(7), i(5), settings={1: "shape"})
case("Tile", f(2, 3), i(2, 3), settings={1: "repeats"})
case("Tile", f(2, 3, 2), i(1, 4, 1), settings={1: "repeats"})
case("Tile", f(2, 3), i(1, 1), settings={1: "repeats"})
case("Tile", f(2, 3), i(2, 0), settings={1: "repeats"})
case("Gather", f(5, 4), i(0, 3, -1))
case("Gather", f(5, 4), i(0, 3, -1), known=(1,))
case("Gather", f(5, 4), i(1, 3), known=(1,))
case("Gather", f(5, 4), s(-2, np.int64), known=(1,))
case("Gather", f(5, 4), i(3, 2, 1, 0), axis=1, known=(1,))
case("Gather", f(2, 5, 4), np.array([[0, 1], [4, 4]], np.int64), axis=1)
case("Gather", f(5, 4), np.array([0, 3], np.int32), native=False)
case("Gather", np.arange(20).reshape(5, 4), i(2, 2), axis=-1)
case("Gather", f(37, 24), np.array([[0, 36, 5], [1, -1, 2]], np.int64), coded=(0,))
case("Gather", f(5, 4), i(2, 2), axis=1, coded=(0,), native=False)
case("GatherElements", f(3, 4), rng.integers(-3, 3, (2, 4)), axis=0, native=False)
case("GatherElements", f(3, 4), rng.integers(-4, 4, (3, 6)), axis=1, native=False)
case("GatherND", f(3, 4, 5), np.array([[0, 1], [2, -1]], np.int64), native=False)
case("GatherND", f(3, 4, 5), np.array([[[0], [1]], [[2], [-1]], [[3], [3]]], np.int64), batch_dims=1, native=False)
case("GatherND", f(2, 3, 4, 5), rng.integers(0, 3, (2, 3, 7, 2)), batch_dims=2, native=False)
case("Shape", f(2, 3, 4), native=False)
case("Shape", f(2, 3, 4), start=1, end=-1, native=False)
case("Size", f(2, 3, 4), native=False)
case("ConstantOfShape", i(2, 3), nodes=[("ConstantOfShape", "i0", "o0", {})])
case(
    "ConstantOfShape",
    i(2, 3),
    value=[2.5],
    nodes=[("ConstantOfShape", "i0", "o0", {"value": helper.make_tensor("v", T.FLOAT, [1], [2.5])})],
)
case(
    "ConstantOfShape", i(2), value=7, dtype="int64", native=False,
    nodes=[("ConstantOfShape", "i0", "o0", {"value": helper.make_tensor("v", T.INT64, [1], [7])})],
)  # fmt: skip
case("Range", s(1), s(6), s(2), native=False)
case("Range", s(10, np.int64), s(3, np.int64), s(-2, np.int64), native=False)
case("Range", s(3, np.int64), s(3, np.int64), s(1, np.int64), native=False)
for name, to in (("int64", T.INT64), ("bool", T.BOOL), ("int32", T.INT32), ("float64", T.DOUBLE), ("float16", T.FLOAT16)):
    case("Cast", np.round(3 * f(3, 4), 1), to=name, native=False, nodes=[("Cast", "i0", "o0", {"to": to})])
case("Cast", i(1, 2), to="float32", native=False, nodes=[("Cast", "i0", "o0", {"to": T.FLOAT})])
case("Cast", f(3), to="float32", nodes=[("Cast", "i0", "o0", {"to": T.FLOAT})])
case("DepthToSpace", f(2, 3, 4, 12), blocksize=2)
case("DepthToSpace", f(2, 3, 4, 12), blocksize=2, mode="CRD")
case("DepthToSpace", f(1, 2, 2, 9), blocksize=3)
case("SpaceToDepth", f(2, 4, 6, 3), blocksize=2)
case("Trilu", f(2, 4, 5), native=False)
case("Trilu", f(4, 5), s(-1, np.int64), upper=0, native=False, settings={1: "k"})

case("SpaceToDepth", f(1, 4, 6, 2), blocksize=2, mode="CRD", judge="onnx", opset=28)
case("ScatterElements", f(4, 5), rng.permutation(5)[None, :3], f(1, 3), axis=1, native=False)
case("ScatterElements", f(4, 5), np.array([[0, 0, -1, 2, 3]]), f(1, 5), axis=0, reduction="add", native=False)
case("ScatterND", f(4, 5), np.array([[1], [-1]]), f(2, 5), native=False)
case("ScatterND", f(4, 5), np.array([[1, 2], [1, 2], [3, 0]]), f(3), reduction="max", native=False)
case("OneHot", i(0, -1, 3, 9), s(5, np.int64), np.array([0, 2], np.float32), native=False, settings={1: "depth"})
case("OneHot", np.array([[0, 1], [2, 0]]), s(3, np.int64), i(7, 8), axis=1, native=False)

# --- reductions

for name in (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
):
    native = name not in ("ReduceLogSum", "ReduceLogSumExp")
    x = np.abs(f(3, 4, 5)) + 0.1 if name == "ReduceLogSum" else f(3, 4, 5)
    case(name, x.astype(np.float32), native=native, tolerance=1e-4)
    for axes in ((2,), (0,), (1,), (-1, 1), (0, 1)):
        case(name, x, i(*axes), settings={1: "axes"}, native=native)
    case(name, x, i(1), keepdims=0, settings={1: "axes"}, native=native)
    case(name, x, i(0, 2), settings={1: "axes"}, native=False)
    case(name, x.reshape(3, 4, 1, 5), i(1, 3), settings={1: "axes"}, native=native)
    case(name, x.reshape(3, 1, 4, 5), i(1), keepdims=0, settings={1: "axes"}, native=native)
case("ReduceMean", f(3, 4), i(), noop_with_empty_axes=1)
case("ReduceMax", i(1, 5, 2), native=False)
case("ReduceSum", np.arange(6).reshape(2, 3), i(1), native=False)
for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"):
    case(name, f(2, 0, 3), i(1), native=False, judge="onnx")
for name in ("ArgMax", "ArgMin"):
    for axis in (0, 1, -1):
        case(name, np.round(f(4, 5, 6)), axis=axis, native=False)
    case(name, np.round(f(4, 5)), axis=1, keepdims=0, select_last_index=1, native=False)
case("TopK", np.round(f(3, 9)), i(4), outputs=2, native=False, settings={1: "k"})
case("TopK", np.round(f(9, 3)), i(2), axis=0, largest=0, outputs=2, native=False, settings={1: "k"})
case("CumSum", f(3, 4), s(1, np.int64), native=False, settings={1: "axis"})
case("CumSum", f(3, 4), s(0, np.int64), exclusive=1, native=False, settings={1: "axis"})
case("CumSum", f(3, 4), s(-1, np.int64), exclusive=1, reverse=1, native=False, settings={1: "axis"})

# --- resize


def resize(
    x: tuple[int, ...], scales: Sequence[float] | None = None, sizes: Sequence[int] | None = None, native: bool = True, **attrs: Any
) -> None:
    """Scales and sizes are channels-last here."""
    given = [f(*x), None, None if scales is None else np.array(scales, np.float32), None if sizes is None else i(*sizes)]
    CASES.append(
        Case(
            "Resize",
            given if sizes is not None else given[:3],
            attrs,
            native=native,
            settings={2: "scales"} if sizes is None else {3: "sizes"},
            onnx_inputs=lambda x, *rest: [first(x), *(None if r is None else np.concatenate([r[:1], r[-1:], r[1:-1]]) for r in rest)],
        )
    )


for mode in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"):
    for kind in ("nearest", "linear"):
        resize((2, 4, 5, 3), scales=[1, 2, 1.6, 1], coordinate_transformation_mode=mode, mode=kind)
        resize((1, 9, 8, 3), sizes=[1, 4, 11, 3], coordinate_transformation_mode=mode, mode=kind)
        resize((1, 5, 6, 2), sizes=[1, 1, 3, 2], coordinate_transformation_mode=mode, mode=kind)
for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
    for mode in ("half_pixel", "asymmetric", "align_corners"):
        resize((1, 4, 6, 2), scales=[1, 2, 0.5, 1], coordinate_transformation_mode=mode, nearest_mode=rounding, mode="nearest")
resize((1, 4, 6, 2), sizes=[1, 7, 9, 2], coordinate_transformation_mode="tf_half_pixel_for_nn", mode="nearest")
resize((2, 7, 3), scales=[1, 2, 1], mode="linear")
resize((2, 7, 3), scales=[1, 2, 1], mode="nearest")
resize((2, 7, 5, 3), scales=[1, 1, 1, 1], mode="nearest")
resize((1, 4, 6, 4), sizes=[1, 8, 6, 8], mode="nearest", coordinate_transformation_mode="asymmetric", native=False)
CASES.append(
    Case(
        "Resize",
        [f(1, 6, 6, 2), np.array([0, 0.2, -0.1, 0, 1, 0.8, 1.2, 1], np.float32), None, i(1, 5, 7, 2)],
        {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear", "extrapolation_value": 3.0},
        native=False,
        settings={1: "roi", 3: "sizes"},
        known=(1,),
        onnx_inputs=lambda x, roi, _, sizes: [first(x), roi[[0, 3, 1, 2, 4, 7, 5, 6]], None, sizes[[0, 3, 1, 2]]],
    )
)

# --- recurrent


def recurrent(
    op: str, time: int, batch: int, inputs: int, hidden: int, bias: bool = True, state: bool = False, outputs: int = 0, **attrs: Any
) -> None:
    """A GRU or LSTM of one direction; ONNX's B is made from ours."""
    gates = 3 if op == "GRU" else 4
    rows = gates * hidden
    attrs = {"hidden_size": hidden, **attrs}
    weights = [f(time, batch, inputs), 0.5 * f(rows, inputs), 0.5 * f(rows, hidden)]
    biases = [f(rows) if bias else None for _ in range(2 if op == "GRU" else 1)]
    states = [f(1, batch, hidden) if state else None for _ in range(1 if op == "GRU" else 2)]

    def convert(x: Array, w: Array, r: Array, *rest: Array | None) -> list[Array | None]:
        both = rest[: len(biases)]
        b = None if both[0] is None else np.concatenate([both[0], both[1] if op == "GRU" else np.zeros_like(both[0])])[None]  # type: ignore[list-item]
        return [x, w[None], r[None], b, None, *rest[len(biases) :]]

    CASES.append(Case(op, [*weights, *biases, *states], attrs, outputs=outputs or gates - 1, coded=(1, 2), onnx_inputs=convert))


for direction in ("forward", "reverse"):
    for linear in (0, 1):
        recurrent("GRU", 5, 2, 6, 4, direction=direction, linear_before_reset=linear)
        recurrent("GRU", 3, 1, 7, 20, state=True, direction=direction, linear_before_reset=linear)
    recurrent("LSTM", 5, 2, 6, 4, direction=direction)
    recurrent("LSTM", 3, 1, 7, 20, state=True, direction=direction)
recurrent("GRU", 4, 3, 40, 33, bias=False)
recurrent("LSTM", 4, 3, 40, 33, bias=False)
recurrent("LSTM", 1, 1, 8, 8, outputs=1)
