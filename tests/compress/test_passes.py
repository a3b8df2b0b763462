"""Each pass on small graphs: the nodes that are left, and the values of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from .graphs import check, imported, model, node, ops, weight  # noqa: E402

X = ("x", [2, 4, 6, 6])
CONV = {"w": weight(8, 4, 3, 3), "b": weight(8)}
BN = {k: np.abs(weight(8, seed=i + 5)) + 0.1 for i, k in enumerate(("s", "h", "m", "v"))}


def f32(number: float) -> np.ndarray:
    return np.array(number, np.float32)


def layout_free(kinds: dict[str, int]) -> dict[str, int]:
    """Without what stands at inputs and outputs because ONNX is channels-first."""
    return {op: n for op, n in kinds.items() if op not in ("Transpose", "Reshape")}


# ---- constants, dead code


def test_constants_are_folded_through_any_operator() -> None:
    nodes = [node("Exp", "k", "e"), node("Unsqueeze", "e axes", "u"), node("Transpose", "u", "t"), node("Mul", "x t", "y")]
    graph, weights = check(model(nodes, [("x", [3, 2])], ["y"], {"k": weight(2), "axes": np.array([1])}))
    assert ops(graph) == {"Mul": 1} and set(weights) == set(graph.nodes[0].inputs) - {"x"}


def test_constants_keep_their_rank() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Exp", "k", "e"),
        node("Cast", "n", "f", to=1),
        node("Add", "e f", "y"),
    ]
    check(model([*nodes, node("Neg", "x", "z")], [("x", [2, 3])], ["y", "z"], {"zero": np.array(0), "k": f32(1)}))


def test_large_constants_from_nothing_stay_nodes() -> None:
    nodes = [node("ConstantOfShape", "s", "k"), node("Add", "x k", "y")]
    graph, _ = check(model(nodes, [("x", [512, 512])], ["y"], {"s": np.array([512, 512])}))
    assert ops(graph) == {"ConstantOfShape": 1, "Add": 1}


def test_equal_nodes_are_merged_and_unused_ones_removed() -> None:
    nodes = [node("Exp", "x", "a"), node("Exp", "x", "b"), node("Log", "x", "dead"), node("Add", "a b", "y")]
    graph, _ = check(model(nodes, [("x", [2, 3])], ["y"]))
    assert ops(graph) == {"Exp": 1, "Add": 1}


def test_identity_and_outputs_that_share_a_tensor() -> None:
    nodes = [node("Identity", "x", "a"), node("Exp", "a", "b"), node("Identity", "b", "c"), node("Exp", "x", "d")]
    graph, _ = check(model(nodes, [("x", [2, 3])], ["b", "c", "d", "a"]))
    assert ops(graph)["Exp"] == 1


def test_an_output_that_is_constant() -> None:
    check(model([node("Add", "k k", "y"), node("Neg", "x", "z")], [("x", [2])], ["y", "z"], {"k": weight(3)}))


# ---- batch norm and other affine nodes


def test_batch_norm_scale_and_shift_fold_into_a_convolution() -> None:
    weights = {**CONV, **BN, "g": weight(8, 1, 1, seed=9), "o": weight(8, 1, 1, seed=10)}
    nodes = [
        node("Conv", "x w b", "c"),
        node("BatchNormalization", "c s h m v", "n"),
        node("Mul", "n g", "p"),
        node("Add", "p o", "q"),
        node("Relu", "q", "y"),
    ]
    graph, found = check(model(nodes, [X], ["y"], weights))
    assert layout_free(ops(graph)) == {"Conv": 1}
    assert len(found) == 2


def test_batch_norm_without_a_convolution_takes_the_scale_that_follows() -> None:
    weights = {**BN, "g": weight(8, 1, 1, seed=9), "o": weight(8, 1, 1, seed=10)}
    nodes = [node("BatchNormalization", "x s h m v", "n"), node("Mul", "g n", "p"), node("Add", "p o", "q"), node("Relu", "q", "y")]
    graph, _ = check(model(nodes, [("x", [2, 8, 3, 3])], ["y"], weights))
    assert layout_free(ops(graph)) == {"BatchNormalization": 1}
    assert next(n for n in graph.nodes if n.op == "BatchNormalization").attrs == {"activation": "Relu"}


def test_a_convolution_that_is_read_twice_keeps_its_weights() -> None:
    nodes = [node("Conv", "x w b", "c"), node("BatchNormalization", "c s h m v", "n"), node("Exp", "c", "e"), node("Add", "n e", "y")]
    graph, _ = check(model(nodes, [X], ["y"], {**CONV, **BN}))
    assert layout_free(ops(graph)) == {"Conv": 1, "BatchNormalization": 1, "Exp": 1, "Add": 1}


def test_a_scale_behind_an_activation_is_not_folded() -> None:
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c", "r"), node("Mul", "r g", "y")]
    graph, _ = check(model(nodes, [X], ["y"], {**CONV, "g": weight(8, 1, 1)}))
    assert layout_free(ops(graph)) == {"Conv": 1, "Mul": 1}


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("constant_first", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (8, 1, 1), (1, 8, 1, 1), (6, 1), (1, 1, 6, 6)])
def test_constants_behind_a_convolution(op: str, constant_first: bool, shape: tuple[int, ...]) -> None:
    weights = {**{k: np.abs(v) for k, v in CONV.items()}, "c": np.abs(weight(*shape)) + 0.5}
    nodes = [node("Conv", "x w b", "k", pads=[1] * 4), node(op, "c k" if constant_first else "k c", "y")]
    graph, _ = check(model(nodes, [X], ["y"], weights), {"x": np.abs(weight(2, 4, 6, 6, seed=8))})
    folds = shape not in ((6, 1), (1, 1, 6, 6)) and not (op == "Div" and constant_first)
    assert layout_free(ops(graph)) == ({"Conv": 1} if folds else {"Conv": 1, op: 1})


def test_shared_convolution_weights_are_folded_apart() -> None:
    nodes = [node("Conv", "x w b", "c"), node("BatchNormalization", "c s h m v", "n"), node("Conv", "x w b", "d", group=1, strides=[2, 2])]
    check(model(nodes, [X], ["n", "d"], {**CONV, **BN}))


# ---- products


@pytest.mark.parametrize("shape", [[3, 4], [2, 3, 4], [2, 2, 3, 4]])
def test_product_with_a_constant_and_bias_becomes_gemm(shape: list[int]) -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", "b m", "a"), node("Relu", "a", "y")]
    graph, weights = check(model(nodes, [("x", shape)], ["y"], {"w": weight(4, 5), "b": weight(5)}))
    (gemm,) = graph.nodes
    assert gemm.op == "Gemm" and weights[gemm.inputs[1]].shape == (5, 4) and gemm.attrs == {"activation": "Relu"}


def test_products_that_share_a_matrix_share_it_still() -> None:
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "z w", "b")]
    _, weights = check(model(nodes, [("x", [3, 4]), ("z", [3, 4])], ["a", "b"], {"w": weight(4, 5)}))
    assert len(weights) == 1


def test_product_of_activations_takes_its_factors() -> None:
    nodes = [node("Mul", "a h", "s"), node("MatMul", "s b", "m"), node("Div", "m d", "y")]
    graph, _ = check(model(nodes, [("a", [2, 3, 4]), ("b", [2, 4, 5])], ["y"], {"h": f32(0.5), "d": f32(4)}))
    assert ops(graph) == {"MatMul": 1} and graph.nodes[0].attrs["alpha"] == pytest.approx(0.125)


def test_product_with_a_constant_on_the_left_stays() -> None:
    graph, _ = check(model([node("MatMul", "w x", "y")], [("x", [4, 3])], ["y"], {"w": weight(5, 4)}))
    assert ops(graph) == {"MatMul": 1}


# ---- activations

ACTIVATIONS = {
    "Relu": {},
    "LeakyRelu": {"alpha": 0.2},
    "Sigmoid": {},
    "Tanh": {},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "HardSwish": {},
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("carrier", ["Conv", "MatMul", "BatchNormalization", "Add", "Sub", "Mul", "Div"])
def test_activations_join_the_node_before(activation: str, carrier: str) -> None:
    attrs = ACTIVATIONS[activation]
    weights, inputs = {}, [("x", [2, 8, 6, 6])]
    if carrier == "Conv":
        one, weights = node("Conv", "x w", "c"), {"w": weight(8, 8, 3, 3)}
    elif carrier == "MatMul":
        one, weights = node("MatMul", "x w", "c"), {"w": weight(6, 5)}
    elif carrier == "BatchNormalization":
        one, weights = node("BatchNormalization", "x s h m v", "c"), BN
    else:
        one, inputs = node(carrier, "x z", "c"), [*inputs, ("z", [6])]
    graph, _ = check(model([one, node(activation, "c", "y", **attrs)], inputs, ["y"], weights))
    (fused,) = (n for n in graph.nodes if n.op not in ("Transpose", "Reshape"))
    assert fused.attrs["activation"] == activation and all(fused.attrs[k] == pytest.approx(v) for k, v in attrs.items())


@pytest.mark.parametrize("limits", [("low", "high"), ("low", "_"), ("_", "high")])
def test_clip_with_one_or_two_limits(limits: tuple[str, str]) -> None:
    weights = {"w": weight(4, 5), "low": f32(-0.5), "high": f32(0.5)}
    nodes = [node("MatMul", "x w", "m"), node("Clip", f"m {limits[0]} {limits[1]}", "y")]
    graph, _ = check(model(nodes, [("x", [3, 4])], ["y"], {k: v for k, v in weights.items() if k == "w" or k in limits}))
    assert ops(graph) == {"Gemm": 1}
    expected = {k: v for k, v, name in (("min", -0.5, "low"), ("max", 0.5, "high")) if name in limits}
    assert {k: v for k, v in graph.nodes[0].attrs.items() if k in ("min", "max")} == expected


def test_clip_with_computed_limits_stays_a_node() -> None:
    nodes = [node("MatMul", "x w", "m"), node("Clip", "m low", "y")]
    graph, _ = check(model(nodes, [("x", [3, 4]), ("low", [])], ["y"], {"w": weight(4, 5)}))
    assert ops(graph) == {"Gemm": 1, "Clip": 1}


def test_an_activation_joins_past_a_reshape() -> None:
    nodes = [
        node("Conv", "x w b", "c"),
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t s", "r"),
        node("Sigmoid", "r", "y"),
    ]
    graph, _ = check(model(nodes, [X], ["y"], {**CONV, "s": np.array([2, -1, 4])}))
    assert ops(graph) == {"Transpose": 1, "Conv": 1, "Reshape": 1}


def test_only_one_activation_joins() -> None:
    nodes = [node("MatMul", "x w", "m"), node("Tanh", "m", "t"), node("Relu", "t", "y")]
    graph, _ = check(model(nodes, [("x", [3, 4])], ["y"], {"w": weight(4, 5)}))
    assert ops(graph) == {"Gemm": 1, "Relu": 1}


def test_a_tensor_that_is_an_output_keeps_its_value() -> None:
    nodes = [node("MatMul", "x w", "m"), node("Relu", "m", "y")]
    graph, _ = check(model(nodes, [("x", [3, 4])], ["m", "y"], {"w": weight(4, 5)}))
    assert ops(graph) == {"Gemm": 1, "Relu": 1}


def test_integers_are_not_given_activations() -> None:
    nodes = [node("Add", "x x", "a"), node("Clip", "a low", "y")]
    graph, _ = check(model(nodes, [("x", [3], np.int64)], ["y"], {"low": np.array(3, np.int64)}), {"x": np.array([1, 2, 3], np.int64)})
    assert ops(graph) == {"Add": 1, "Clip": 1}


@pytest.mark.parametrize("form", range(6))
def test_erf_gelu_in_any_order(form: int) -> None:
    half, root = {"half": f32(0.5), "one": f32(1), "root": f32(2**0.5), "inverse": f32(0.5**0.5)}, "root"
    start = [node("Div", f"x {root}", "d"), node("Erf", "d", "e"), node("Add", "e one" if form % 2 else "one e", "g")]
    ends = [
        [node("Mul", "x g", "m"), node("Mul", "m half", "y")],
        [node("Mul", "g x", "m"), node("Mul", "half m", "y")],
        [node("Mul", "x half", "m"), node("Mul", "m g", "y")],
        [node("Mul", "g half", "m"), node("Mul", "x m", "y")],
        [node("Mul", "half x", "m"), node("Mul", "g m", "y")],
        [node("Mul", "x g", "m"), node("Div", "m two", "y")],
    ]
    if form == 3:
        start[0] = node("Mul", "inverse x", "d")
    weights = {**half, "two": f32(2)}
    nodes = start + ends[form]
    used = {i for n in nodes for i in n.input}
    graph, _ = check(model(nodes, [("x", [3, 40])], ["y"], {k: v for k, v in weights.items() if k in used}))
    assert ops(graph) == {"Gelu": 1}


def test_what_only_looks_like_gelu() -> None:
    weights = {"half": f32(0.5), "one": f32(1), "root": f32(1.5)}
    nodes = [
        node("Div", "x root", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "g"),
        node("Mul", "x g", "m"),
        node("Mul", "m half", "y"),
    ]
    graph, _ = check(model(nodes, [("x", [3, 40])], ["y"], weights))
    assert ops(graph)["Erf"] == 1
    weights["root"] = f32(2**0.5)
    nodes[3] = node("Mul", "z g", "m")
    graph, _ = check(model(nodes, [("x", [3, 40]), ("z", [3, 40])], ["y"], weights))
    assert ops(graph)["Erf"] == 1


@pytest.mark.parametrize("cube", ["Pow", "Mul"])
def test_tanh_gelu(cube: str) -> None:
    weights = {"half": f32(0.5), "one": f32(1), "k": f32((2 / np.pi) ** 0.5), "c": f32(0.044715), "three": f32(3)}
    nodes = [node("Pow", "x three", "p")] if cube == "Pow" else [node("Mul", "x x", "xx"), node("Mul", "xx x", "p")]
    nodes += [node("Mul", "p c", "q"), node("Add", "x q", "s"), node("Mul", "s k", "t"), node("Tanh", "t", "h"), node("Add", "h one", "g")]
    nodes += [node("Mul", "x g", "m"), node("Mul", "m half", "y")]
    used = {i for n in nodes for i in n.input}
    graph, _ = check(model(nodes, [("x", [3, 40])], ["y"], {k: v for k, v in weights.items() if k in used}))
    assert ops(graph) == {"Gelu": 1} and graph.nodes[0].attrs == {"approximate": "tanh"}


@pytest.mark.parametrize("form", ["silu", "hard sigmoid", "clip / 6", "clip * 1/6 first"])
def test_swishes(form: str) -> None:
    weights = {"three": f32(3), "zero": f32(0), "six": f32(6), "sixth": f32(1 / 6)}
    nodes = {
        "silu": [node("Sigmoid", "x", "g"), node("Mul", "g x", "y")],
        "hard sigmoid": [node("HardSigmoid", "x", "g", alpha=1 / 6, beta=0.5), node("Mul", "x g", "y")],
        "clip / 6": [node("Add", "x three", "a"), node("Clip", "a zero six", "c"), node("Mul", "x c", "m"), node("Div", "m six", "y")],
        "clip * 1/6 first": [
            node("Add", "x three", "a"),
            node("Clip", "a zero six", "c"),
            node("Mul", "c sixth", "m"),
            node("Mul", "x m", "y"),
        ],
    }[form]
    used = {i for n in nodes for i in n.input}
    graph, _ = check(model(nodes, [("x", [3, 40])], ["y"], {k: v for k, v in weights.items() if k in used}))
    assert ops(graph) == {"Silu" if form == "silu" else "HardSwish": 1}


def test_silu_joins_a_convolution() -> None:
    nodes = [node("Conv", "x w b", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "y")]
    graph, _ = check(model(nodes, [X], ["y"], CONV))
    assert layout_free(ops(graph)) == {"Conv": 1}


# ---- residual


def residual_net(order: str, other: str = "id") -> list:
    convs = [node("Conv", "x w b", "main", pads=[1] * 4), node("Conv", "x p", "side")]
    if order == "side first":
        convs.reverse()
    return [*convs, node("Add", "main side", "sum"), node("Relu", "sum", "y")]


@pytest.mark.parametrize("order", ["main first", "side first"])
def test_the_later_of_two_convolutions_takes_the_sum(order: str) -> None:
    graph, _ = check(model(residual_net(order), [X], ["y"], {**CONV, "p": weight(8, 4, 1, 1)}))
    convs = [n for n in graph.nodes if n.op == "Conv"]
    assert layout_free(ops(graph)) == {"Conv": 2}
    assert len(convs[0].inputs) <= 3 and len(convs[1].inputs) == 4 and convs[1].inputs[3] == convs[0].outputs[0]
    assert convs[1].attrs["activation"] == "Relu"


def test_a_convolution_waits_for_the_other_term() -> None:
    nodes = [node("Conv", "x w b", "c", pads=[1] * 4), node("Exp", "z", "e"), node("Add", "c e", "y")]
    graph, _ = check(model(nodes, [X, ("z", [2, 8, 6, 6])], ["y"], CONV))
    (conv,) = (n for n in graph.nodes if n.op == "Conv")
    seen: set[str] = {"x", "z"}
    for n in graph.nodes:
        assert all(i in seen or not i or i.startswith(("w", "b")) or "bias" in i for i in n.inputs), n
        seen.update(n.outputs)
    assert len(conv.inputs) == 4 and "Add" not in ops(graph)


@pytest.mark.parametrize("case", ["broadcast", "read twice", "activation first", "same twice"])
def test_sums_that_stay(case: str) -> None:
    nodes = {
        "broadcast": [node("Conv", "x w b", "c"), node("Add", "c z", "y")],
        "read twice": [node("Conv", "x w b", "c"), node("Exp", "c", "e"), node("Add", "c z2", "a"), node("Mul", "a e", "y")],
        "activation first": [node("Conv", "x w b", "c"), node("Relu", "c", "r"), node("Add", "r z2", "y")],
        "same twice": [node("Conv", "x w b", "c"), node("Add", "c c", "y")],
    }[case]
    inputs = [X, ("z", [1, 4, 4]), ("z2", [2, 8, 4, 4])]
    used = {i for n in nodes for i in n.input}
    graph, _ = check(model(nodes, [i for i in inputs if i[0] in used], ["y"], CONV))
    assert ops(graph)["Add"] == 1


def test_gemm_takes_a_residual() -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "a"), node("Add", "a x", "y")]
    graph, _ = check(model(nodes, [("x", [2, 3, 4])], ["y"], {"w": weight(4, 4), "b": weight(4)}))
    assert ops(graph) == {"Gemm": 1} and graph.nodes[0].inputs[3] == "x"


# ---- layer norm


@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("opset", [13, 18])
def test_layer_norm_written_out(square: str, opset: int) -> None:
    weights = {"two": f32(2), "eps": f32(1e-5), "g": weight(8), "o": weight(8, seed=2), "axes": np.array([-1])}

    def mean(x: str, y: str):
        return node("ReduceMean", x, y, axes=[-1]) if opset < 18 else node("ReduceMean", f"{x} axes", y)

    nodes = [
        mean("x", "m"),
        node("Sub", "x m", "d"),
        node("Pow", "d two", "q") if square == "Pow" else node("Mul", "d d", "q"),
        mean("q", "v"),
        node("Add", "v eps", "e"),
        node("Sqrt", "e", "r"),
        node("Div", "d r", "n"),
        node("Mul", "n g", "s"),
        node("Add", "s o", "y"),
    ]
    used = {i for n in nodes for i in n.input}
    graph, _ = check(model(nodes, [("x", [2, 3, 8])], ["y"], {k: v for k, v in weights.items() if k in used}, opset=opset))
    assert ops(graph) == {"LayerNormalization": 1} and graph.nodes[0].attrs["epsilon"] == pytest.approx(1e-5)


# ---- shapes


def test_computed_targets_of_reshape_become_attributes() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 minus heads", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    weights = {"zero": np.array(0), "axis": np.array([0]), "minus": np.array([-1]), "heads": np.array([3])}
    graph, _ = check(model(nodes, [("x", ["N", "S", 6])], ["y"], weights), sizes={"N": 2, "S": 5})
    assert ops(graph) == {"Reshape": 1} and graph.nodes[0].attrs["shape"] == [0, -1, 3]


def test_the_number_of_elements_is_known_like_the_shape() -> None:
    nodes = [node("Size", "x", "s"), node("Unsqueeze", "s axis", "t"), node("Reshape", "x t", "y")]
    graph, _ = check(model(nodes, [("x", ["N", 6])], ["y"], {"axis": np.array([0])}), sizes={"N": 2})
    assert ops(graph) == {"Reshape": 1} and graph.nodes[0].attrs["shape"] == [-1]


def test_reshapes_to_the_same_shape_vanish() -> None:
    nodes = [node("Reshape", "x s", "r"), node("Flatten", "r", "f"), node("Exp", "f", "y")]
    graph, _ = check(model(nodes, [("x", [2, 3])], ["y"], {"s": np.array([2, 3])}))
    assert ops(graph) == {"Exp": 1}


def test_shapes_that_cannot_be_settled_stay_computed() -> None:
    nodes = [node("Shape", "x", "s"), node("Gather", "s order", "t"), node("Reshape", "x t", "y")]
    proto = model(nodes, [("x", ["A", "B", 6])], ["y"], {"order": np.array([1, 0, 2])})
    graph, _ = check(proto, {"x": weight(2, 3, 6)})
    assert ops(graph) == {"Shape": 1, "Gather": 1, "Reshape": 1} and graph.outputs[0].shape == ("B", "A", 6)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_chains_keep_their_values(data: st.DataObject) -> None:
    """Whatever the passes do to a chain of common nodes, the values stay."""
    steps = data.draw(
        st.lists(
            st.sampled_from(["conv", "bn", "relu", "clip", "scale", "shift", "skip", "pool", "sigmoid", "shuffle", "both"]), max_size=9
        )
    )
    weights: dict[str, np.ndarray] = {}
    nodes, last, previous = [], "x", "x"
    for i, step in enumerate(steps):
        y = f"t{i}"
        if step == "conv":
            weights[f"w{i}"] = weight(4, 4, 3, 3, seed=i)
            nodes.append(node("Conv", f"{last} w{i}", y, pads=[1] * 4))
        elif step == "bn":
            weights.update({f"{k}{i}": np.abs(weight(4, seed=i)) + 0.5 for k in "shmv"})
            nodes.append(node("BatchNormalization", f"{last} s{i} h{i} m{i} v{i}", y))
        elif step in ("relu", "sigmoid"):
            nodes.append(node(step.title(), last, y))
        elif step == "clip":
            weights[f"l{i}"] = f32(-0.3)
            nodes.append(node("Clip", f"{last} l{i}", y))
        elif step in ("scale", "shift"):
            weights[f"k{i}"] = weight(4, 1, 1, seed=i)
            nodes.append(node("Mul" if step == "scale" else "Add", f"{last} k{i}", y))
        elif step == "skip":
            nodes.append(node("Add", f"{last} {previous}", y))
        elif step == "both":
            nodes += [node("Concat", f"{last} {previous}", f"c{i}", axis=1), node("Split", f"c{i}", f"{y} d{i}", axis=1)]
        elif step == "pool":
            nodes.append(node("AveragePool", last, y, kernel_shape=[3, 3], pads=[1] * 4))
        else:
            weights.update({f"a{i}": np.array([1, 2, 2, 5, 5]), f"z{i}": np.array([1, 4, 5, 5])})
            nodes += [
                node("Reshape", f"{last} a{i}", f"r{i}"),
                node("Transpose", f"r{i}", f"q{i}", perm=[0, 2, 1, 3, 4]),
                node("Reshape", f"q{i} z{i}", y),
            ]
        previous, last = last, y
    nodes.append(node("Neg", last, "y"))
    check(model(nodes, [("x", [1, 4, 5, 5])], ["y"], weights), tolerance=1e-4)


def test_notes_are_for_the_user() -> None:
    graph, _ = imported(model([node("Exp", "x", "y")], [("x", [3, 2])], ["y"]))
    assert graph.batch is None and len(graph.notes) == 1 and "batch stays" in graph.notes[0]
