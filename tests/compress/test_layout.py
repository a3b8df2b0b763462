"""Channels-last with as few Transposes as there can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgeinfer.compress.passes.layout import groups, inverse, keeps_order  # noqa: E402

from .graphs import check, model, node, ops, weight  # noqa: E402

X = ("x", [1, 4, 6, 6])
W = {"w": weight(8, 4, 3, 3), "v": weight(4, 8, 1, 1)}


def between(*nodes, weights=None, first="a", last="b", outputs=("y",), inputs=(X,)):
    """Conv, the given nodes from tensor ``a`` to ``b``, Conv; returns how many Transposes are left besides those of input and output."""
    chain = [node("Conv", "x w", first, pads=[1] * 4), *nodes, node("Conv", f"{last} v", "y")]
    used = {i for n in chain for i in n.input}
    graph, _ = check(model(chain, list(inputs), list(outputs), {k: a for k, a in {**W, **(weights or {})}.items() if k in used}))
    return ops(graph).get("Transpose", 0) - 2


def test_a_chain_of_spatial_nodes_has_none_in_between() -> None:
    assert between(node("MaxPool", "a", "m", kernel_shape=[2, 2]), node("LRN", "m", "b", size=3)) == 0


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Softmax", "a", "b", axis=1)],
        [node("LogSoftmax", "a", "b", axis=-1)],
        [node("Exp", "a", "e"), node("Sqrt", "e", "b")],
        [node("Pad", "a pads", "b")],
        [node("Slice", "a starts ends axes steps", "b")],
        [node("Split", "a", "p q", axis=1), node("Concat", "q p", "b", axis=1)],
        [node("ReduceMax", "a", "r", axes=[2, 3], keepdims=1), node("Mul", "a r", "b")],
        [node("Mul", "a plane", "b")],
        [node("Mul", "line a", "b")],
        [node("Where", "mask a number", "b")],
        [node("PRelu", "a slope", "b")],
        [node("Transpose", "a", "t", perm=[0, 2, 3, 1]), node("Transpose", "t", "b", perm=[0, 3, 1, 2])],
        [node("Transpose", "a", "b", perm=[0, 1, 3, 2])],
        [node("GlobalAveragePool", "a", "g"), node("Sigmoid", "g", "s"), node("Mul", "a s", "b")],
        [node("Cast", "a", "d", to=11), node("Cast", "d", "b", to=1)],
        [node("Unsqueeze", "a one", "u"), node("Squeeze", "u one", "b")],
    ],
    ids=lambda nodes: "-".join(n.op_type for n in nodes),
)
def test_nodes_that_follow_the_layout(nodes) -> None:
    weights = {
        "pads": np.array([0, 0, 1, 2, 0, 0, 1, 0]),
        "starts": np.array([5, 0]),
        "ends": np.array([-100, 100]),
        "axes": np.array([-1, 2]),
        "steps": np.array([-1, 2]),
        "plane": weight(6, 6),
        "line": weight(6),
        "mask": weight(8, 1, 6) > 0,
        "number": np.float32(0.5),
        "slope": weight(8, 1, 1),
        "one": np.array([1]),
    }
    extra = 1 if nodes[0].op_type == "Transpose" and len(nodes) == 1 else 0  # that one was asked for
    assert between(*nodes, weights=weights) == extra


def test_channel_shuffle_stays_channels_last() -> None:
    weights = {"a1": np.array([1, 2, 4, 6, 6]), "a2": np.array([1, 8, 6, 6])}
    nodes = [node("Reshape", "a a1", "s"), node("Transpose", "s", "t", perm=[0, 2, 1, 3, 4]), node("Reshape", "t a2", "b")]
    assert between(*nodes, weights=weights) == 1
    chain = [node("Conv", "x w", "a", pads=[1] * 4), *nodes, node("Conv", "b v", "y")]
    graph, _ = check(model(chain, [X], ["y"], {**W, **weights}))
    assert [n.attrs["perm"] for n in graph.nodes if n.op == "Transpose"][1] == [0, 1, 2, 4, 3]


@pytest.mark.parametrize("flatten", ["Flatten", "Reshape"])
@pytest.mark.parametrize("through", [[], ["Relu"], ["Exp", "Tanh"]])
def test_rows_for_a_gemm_need_no_transpose(flatten: str, through: list[str]) -> None:
    nodes = [node("Conv", "x w", "a")]
    nodes.append(node("Flatten", "a", "f0", axis=1) if flatten == "Flatten" else node("Reshape", "a to", "f0"))
    nodes += [node(op, f"f{i}", f"f{i + 1}") for i, op in enumerate(through)]
    nodes.append(node("Gemm", f"f{len(through)} m c", "y", transB=1))
    weights = {"w": W["w"], "m": weight(5, 128), "c": weight(5), "to": np.array([1, -1])}
    used = {i for n in nodes for i in n.input}
    graph, found = check(model(nodes, [X], ["y"], {k: v for k, v in weights.items() if k in used}))
    assert ops(graph)["Transpose"] == 1
    (gemm,) = (n for n in graph.nodes if n.op == "Gemm")
    np.testing.assert_array_equal(found[gemm.inputs[1]], weights["m"].reshape(5, 8, 4, 4).transpose(0, 2, 3, 1).reshape(5, 128))


def test_rows_for_a_gemm_and_something_else_are_put_in_order() -> None:
    nodes = [node("Conv", "x w", "a"), node("Flatten", "a", "f"), node("Gemm", "f m c", "g", transB=1), node("Exp", "f", "e")]
    graph, _ = check(model(nodes, [X], ["g", "e"], {"w": W["w"], "m": weight(5, 128), "c": weight(5)}))
    assert ops(graph)["Transpose"] == 2


@pytest.mark.parametrize("tail", ["Flatten", "Reshape", "Squeeze"])
def test_pooled_images_only_change_their_shape(tail: str) -> None:
    weights = {"w": W["w"], "to": np.array([1, 8]), "axes": np.array([2, 3])}
    last = {"Flatten": node("Flatten", "g", "y"), "Reshape": node("Reshape", "g to", "y"), "Squeeze": node("Squeeze", "g axes", "y")}[tail]
    nodes = [node("Conv", "x w", "a"), node("GlobalAveragePool", "a", "g"), last]
    used = {i for n in nodes for i in n.input}
    graph, _ = check(model(nodes, [X], ["y"], {k: v for k, v in weights.items() if k in used}))
    assert ops(graph)["Transpose"] == 1


def test_outputs_wanted_channels_last_need_no_transpose() -> None:
    nodes = [node("Conv", "x w", "a"), node("Transpose", "a", "t", perm=[0, 2, 3, 1]), node("Reshape", "t to", "y")]
    graph, _ = check(model(nodes, [X], ["y"], {"w": W["w"], "to": np.array([1, -1, 8])}))
    assert ops(graph) == {"Transpose": 1, "Conv": 1, "Reshape": 1}


def test_one_channel_in_is_no_transpose_at_all() -> None:
    graph, _ = check(
        model([node("Conv", "x w", "a"), node("Flatten", "a", "y")], [("x", ["N", 1, 6, 6])], ["y"], {"w": weight(1, 1, 3, 3)})
    )
    assert "Transpose" not in ops(graph)


def test_the_shape_of_a_view_is_that_of_the_tensor() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Shape", "a", "s"),
        node("Cast", "s", "f", to=1),
        node("ReduceSum", "f", "r"),
        node("Mul", "a r", "m"),
        node("Shape", "m", "y", start=1, end=3),
    ]
    check(model(nodes, [("x", ["N", 4, "H", 6])], ["y"], {"w": W["w"]}), sizes={"H": 8})


def test_mixed_layouts_meet_once() -> None:
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), node("Add", "a z", "s"), node("Conv", "s v", "y")]
    graph, _ = check(model(nodes, [X, ("z", [1, 8, 6, 6])], ["y"], W))
    assert ops(graph)["Transpose"] == 3  # two inputs, one output


def test_a_lower_rank_operand_joins_channels_last() -> None:
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), node("Mul", "a z", "s"), node("Conv", "s v", "y")]
    check(model(nodes, [X, ("z", [8, 6, 1])], ["y"], W))


def test_reductions_that_drop_their_axes() -> None:
    for axes in ([2, 3], [1], [0, 2], [-1, 1]):
        nodes = [node("Conv", "x w", "a"), node("ReduceMean", "a", "y", axes=axes, keepdims=0)]
        check(model(nodes, [("x", [2, 4, 6, 5])], ["y"], {"w": W["w"]}))


def test_signals_are_channels_last_too() -> None:
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "r"), node("MaxPool", "r", "m", kernel_shape=[2]), node("Conv", "m v", "y")]
    graph, _ = check(model(nodes, [("x", ["N", 4, "T"])], ["y"], {"w": weight(8, 4, 3), "v": weight(4, 8, 3)}), sizes={"T": 30})
    assert ops(graph)["Transpose"] == 2


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_reshape_of_a_permuted_tensor(data: st.DataObject) -> None:
    """Split and merge axes at will behind a Transpose: the values stay."""
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=2, max_size=5))
    perm = data.draw(st.permutations(range(len(shape))))
    turned = [shape[p] for p in perm]
    target, i = [], 0
    while i < len(turned):
        kind = data.draw(st.sampled_from(["keep", "merge", "split", "one"]))
        if kind == "merge" and i + 1 < len(turned):
            target.append(turned[i] * turned[i + 1])
            i += 2
            continue
        if kind == "split" and turned[i] == 4:
            target += [2, 2]
        elif kind == "one":
            target += [turned[i], 1]
        else:
            target.append(turned[i])
        i += 1
    back = data.draw(st.permutations(range(len(target))))
    nodes = [
        node("Exp", "x", "e"),
        node("Transpose", "e", "t", perm=perm),
        node("Reshape", "t to", "r"),
        node("Transpose", "r", "b", perm=back),
        node("Neg", "b", "y"),
    ]
    if len(target) <= 8:
        check(model(nodes, [("x", shape)], ["y"], {"to": np.array(target)}))


def test_groups_of_axes() -> None:
    def sizes(*dims: int) -> list[tuple[int]]:
        return [(d,) for d in dims]

    assert groups(sizes(2, 8, 3), sizes(2, 2, 4, 3)) == [([0], [0]), ([1], [1, 2]), ([2], [3])]
    assert groups(sizes(2, 2, 4, 3), sizes(2, 8, 3)) == [([0], [0]), ([1, 2], [1]), ([3], [2])]
    assert groups(sizes(4, 6), sizes(3, 8)) is None  # axes that mix
    assert groups(sizes(4, 6), sizes(24)) == [([0, 1], [0])]
    assert groups(sizes(2, 3), sizes(2, 3, 1)) == [([0], [0]), ([1], [1, 2])]


def test_permutations() -> None:
    assert inverse((2, 0, 1)) == (1, 2, 0)
    assert keeps_order([(2,), (1,), (1,), (5,)], (0, 3, 1, 2))
    assert not keeps_order([(2,), (3,), (1,), (5,)], (0, 3, 1, 2))
    assert not keeps_order([(2, 3), (1, 7), (1, 1), (5, 5)], (0, 3, 1, 2))  # a symbol that happens to be 1 once
