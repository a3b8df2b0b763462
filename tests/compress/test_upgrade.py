"""Old and new forms of the same operators: one normal form, the values of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from reference_executor import execute

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edgeinfer.errors import ModelFormatError, UnsupportedModelError  # noqa: E402

from .graphs import check, imported, model, node, ops, weight  # noqa: E402

I64 = np.int64
OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 21)
X = ("x", [2, 3, 8, 6])


def ints(*values: int) -> np.ndarray:
    return np.array(values, I64)


@pytest.mark.parametrize("opset", OPSETS)
def test_settings_become_attributes_whatever_the_opset(opset: int) -> None:
    weights: dict[str, np.ndarray] = {}

    def setting(op: str, since: int, attribute: str, array: np.ndarray, x: str, y: str, **attrs: object):
        if opset < since:
            attrs[attribute] = array.tolist()
            return node(op, x, y, **attrs)
        weights[f"{y}_{attribute}"] = array
        return node(op, f"{x} {y}_{attribute}", y, **attrs)

    weights.update(low=np.float32(-0.5), high=np.float32(0.7), one=np.float32(0))
    clip = node("Clip", "x", "c", min=-0.5, max=0.7) if opset < 11 else node("Clip", "x low high", "c")
    if opset < 10:
        cut = node("Slice", "c", "s", starts=[1, 0], ends=[9, -1], axes=[2, 3])
    else:
        weights.update(starts=ints(1, 0), ends=ints(9, -1), axes=ints(2, 3), steps=ints(1, 2))
        cut = node("Slice", "c starts ends axes steps", "s")
    pad = setting("Pad", 11, "pads", ints(0, 0, 1, 0, 0, 0, 0, 2), "s", "p")
    reduced = setting("ReduceMean", 18, "axes", ints(2), "p", "m", keepdims=0)
    total = setting("ReduceSum", 13, "axes", ints(-1), "p", "t", keepdims=1)
    grown = setting("Unsqueeze", 13, "axes", ints(1), "m", "u")
    small = setting("Squeeze", 13, "axes", ints(1), "u", "q")
    parts = [node("Split", "p", "a b", axis=1, split=[1, 2])] if opset < 13 else [node("Split", "p parts", "a b", axis=1)]
    if opset >= 13:
        weights["parts"] = ints(1, 2)
    weights["to"] = ints(2, -1)
    nodes = [clip, cut, pad, reduced, total, grown, small, *parts, node("Reshape", "t to", "r")]
    used = {i for n in nodes for i in n.input}
    graph, _ = check(model(nodes, [X], ["q", "r", "a", "b"], {k: v for k, v in weights.items() if k in used}, opset=opset))
    by_op = {n.op: n for n in graph.nodes}
    assert all(len(n.inputs) == 1 for n in graph.nodes)
    assert by_op["Clip"].attrs == pytest.approx({"min": -0.5, "max": 0.7})
    assert by_op["Pad"].attrs["pads"] == [0, 0, 1, 0, 0, 0, 0, 2]
    assert by_op["Split"].attrs["split"] == [1, 2]
    assert "Squeeze" not in by_op or "axes" in by_op["Squeeze"].attrs


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [7, 11, 13, 18])
def test_softmax_flattened_its_axes_before_opset_13(op: str, axis: int, opset: int) -> None:
    if axis < 0 and opset < 11:
        pytest.skip("no negative axes before opset 11")
    check(model([node(op, "x", "y", axis=axis)], [("x", [2, 3, 4])], ["y"], opset=opset))


@pytest.mark.parametrize("opset", [7, 12, 13])
def test_softmax_default_axis(opset: int) -> None:
    check(model([node("Softmax", "x", "y")], [("x", ["N", 3, 4])], ["y"], opset=opset), sizes={"N": 3})


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_norm_statistics_become_scale_and_shift(opset: int) -> None:
    vectors = {k: np.abs(weight(3, seed=i)) + 0.1 for i, k in enumerate("sbmv")}
    graph, weights = check(model([node("BatchNormalization", "x s b m v", "y", epsilon=1e-3)], [X], ["y"], vectors, opset=opset))
    (bn,) = (n for n in graph.nodes if n.op == "BatchNormalization")
    assert len(bn.inputs) == 3 and all(weights[name].shape == (3,) for name in bn.inputs[1:])


@pytest.mark.parametrize(("opset", "training"), [(7, None), (10, None), (12, False), (13, None), (17, False)])
def test_dropout_vanishes_with_its_unused_mask(opset: int, training: bool | None) -> None:
    if opset < 12:
        nodes = [node("Dropout", "x", "d mask", ratio=0.5), node("Neg", "d", "y")]
        weights = {}
    else:
        inputs = "x ratio" if training is None else "x ratio training"
        nodes = [node("Dropout", inputs, "d mask"), node("Neg", "d", "y")]
        weights = {"ratio": np.float32(0.5), "training": np.bool_(False)}
        weights = {k: v for k, v in weights.items() if k in inputs.split()}
    graph, _ = check(model(nodes, [X], ["y"], weights, opset=opset))
    assert ops(graph) == {"Neg": 1}


def test_a_used_dropout_mask_is_all_true() -> None:
    graph, _ = check(model([node("Dropout", "x", "d mask"), node("Neg", "d", "y")], [X], ["y", "mask"], opset=12))
    assert {t.name: t.dtype for t in graph.outputs} == {"y": "float32", "mask": "bool"}


def test_training_mode_is_refused() -> None:
    proto = model([node("Dropout", "x r t", "y")], [X], ["y"], {"r": np.float32(0.5), "t": np.bool_(True)}, opset=13)
    with pytest.raises(UnsupportedModelError, match="training mode"):
        imported(proto)


@pytest.mark.parametrize(
    "form",
    [
        dict(opset=7, op="Upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]),
        dict(opset=8, op="Upsample", mode="linear", scales=[1.0, 1.0, 2.0, 2.0]),
        dict(opset=9, op="Upsample", mode="nearest", input_scales=[1.0, 1.0, 2.0, 2.0]),
        dict(opset=10, op="Resize", mode="nearest", input_scales=[1.0, 1.0, 2.0, 0.5]),
        dict(opset=11, op="Resize", mode="linear", roi=True, input_scales=[1.0, 1.0, 2.0, 2.0]),
        dict(opset=13, op="Resize", mode="linear", input_sizes=[2, 3, 5, 13], coordinate_transformation_mode="align_corners"),
        dict(opset=13, op="Resize", mode="nearest", input_sizes=[2, 3, 5, 13], nearest_mode="ceil"),
        dict(opset=18, op="Resize", mode="nearest", axes=[2, 3], input_scales=[2.0, 2.0], nearest_mode="floor"),
        dict(opset=19, op="Resize", mode="linear", axes=[3], input_sizes=[9]),
    ],
    ids=lambda f: f"{f['op']}-{f['opset']}-{f['mode']}",
)
def test_resize_and_upsample(form: dict) -> None:
    form = dict(form)
    opset, op, roi = form.pop("opset"), form.pop("op"), form.pop("roi", False)
    weights, inputs = {}, "x"
    scales, sizes = form.pop("input_scales", None), form.pop("input_sizes", None)
    if opset >= 11:
        if roi:
            weights["roi"] = np.zeros(0, np.float32)
        inputs += " roi" if roi else " _"
    if scales is not None:
        weights["scales"] = np.array(scales, np.float32)
        inputs += " scales"
    if sizes is not None:
        weights["sizes"] = np.array(sizes, I64)
        inputs += " _ sizes"
    graph, _ = check(model([node(op, inputs, "y", **form)], [X], ["y"], weights, opset=opset))
    (resize,) = (n for n in graph.nodes if n.op == "Resize")
    assert resize.attrs["axes"] == [1, 2] and len(resize.inputs) == 1


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("bias", ["none", "vector", "row", "number", "matrix"])
def test_gemm_has_one_form(opset: int, trans: tuple[int, int], bias: str) -> None:
    if bias == "none" and opset < 11:
        pytest.skip("the bias was not optional")
    weights = {"w": weight(*((5, 4) if trans[1] else (4, 5)))}
    shapes = {"vector": (5,), "row": (1, 5), "number": (1,), "matrix": (3, 5)}
    if bias != "none":
        weights["c"] = weight(*shapes[bias], seed=3)
    gemm = node("Gemm", "x w" if bias == "none" else "x w c", "y", transA=trans[0], transB=trans[1], alpha=0.5, beta=2.0)
    graph, found = check(model([gemm], [("x", [4, 3] if trans[0] else [3, 4])], ["y"], weights, opset=opset))
    (one,) = (n for n in graph.nodes if n.op == "Gemm")
    assert found[one.inputs[1]].shape == (5, 4) and not one.attrs
    assert ops(graph) == {"Gemm": 1, **({"Transpose": 1} if trans[0] else {}), **({"Add": 1} if bias == "matrix" else {})}


def test_gemm_of_two_activations() -> None:
    gemm = node("Gemm", "a b c", "y", alpha=0.5, beta=3.0, transB=1)
    graph, _ = check(model([gemm], [("a", [3, 4]), ("b", [5, 4]), ("c", [5])], ["y"]))
    assert ops(graph) == {"MatMul": 1, "Add": 1, "Transpose": 1, "Mul": 1}


@pytest.mark.parametrize("op", ["Sum", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_sums_of_many(op: str, count: int) -> None:
    names = [f"x{i}" for i in range(count)]
    check(model([node(op, " ".join(names), "y")], [(n, [2, 3]) for n in names], ["y"]))


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
def test_auto_pad_becomes_pads(auto: str, op: str, strides: list[int]) -> None:
    weights = {"w": weight(4, 3, 3, 2)} if op == "Conv" else {}
    one = node(op, "x w" if weights else "x", "y", kernel_shape=[3, 2], auto_pad=auto, strides=strides)
    graph, _ = check(model([one], [("x", [1, 3, 9, 8])], ["y"], weights))
    (found,) = (n for n in graph.nodes if n.op == op)
    assert len(found.attrs["pads"]) == 4 and "auto_pad" not in found.attrs


@pytest.mark.parametrize(
    "attrs",
    [
        dict(ceil_mode=1, strides=[2, 2]),
        dict(ceil_mode=1, strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        dict(pads=[1, 0, 0, 1], count_include_pad=0),
    ],
)
def test_average_pool_edges(attrs: dict) -> None:
    check(model([node("AveragePool", "x", "y", kernel_shape=[3, 3], **attrs)], [("x", [1, 2, 8, 9])], ["y"], opset=13))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_convolutions_of_any_rank_and_grouping(rank: int, group: int) -> None:
    weights = {"w": weight(8, 4 // group, *[3, 2, 2][:rank]), "b": weight(8)}
    conv = node("Conv", "x w b", "y", group=group, pads=[1] * (2 * rank), dilations=[2, 1, 1][:rank])
    graph, found = check(model([conv], [("x", [1, 4, 9, 8, 5][: 2 + rank])], ["y"], weights))
    (one,) = (n for n in graph.nodes if n.op == "Conv")
    assert found[one.inputs[1]].shape == (8, *[3, 2, 2][:rank], 4 // group)
    assert set(one.attrs) == {"kernel_shape", "strides", "dilations", "pads", "group"}


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("extras", ["plain", "bias", "state"])
@pytest.mark.parametrize("opset", [7, 14])
def test_recurrent_networks(op: str, direction: str, extras: str, opset: int) -> None:
    ways, gates, hidden = (2 if direction == "bidirectional" else 1), (3 if op == "GRU" else 4), 5
    weights = {"w": weight(ways, gates * hidden, 4), "r": weight(ways, gates * hidden, hidden, seed=2)}
    inputs, given = "x w r", [("x", [6, 2, 4])]
    if extras != "plain":
        weights["b"] = weight(ways, 2 * gates * hidden, seed=3)
        inputs += " b"
    if extras == "state":
        inputs += " _ h" + (" c" if op == "LSTM" else "")
        given += [(n, [ways, 2, hidden]) for n in ("h", "c")[: 1 if op == "GRU" else 2]]
    attrs = {"linear_before_reset": 1} if op == "GRU" else {}
    outputs = ["y", "yh"] + (["yc"] if op == "LSTM" else [])
    one = node(op, inputs, " ".join(outputs), hidden_size=hidden, direction=direction, **attrs)
    graph, _ = check(model([one], given, outputs, weights, opset=opset))
    assert ops(graph)[op] == ways


def test_recurrent_batch_first() -> None:
    import onnx.reference

    weights = {"w": weight(1, 15, 4), "r": weight(1, 15, 5, seed=2)}
    proto = model([node("GRU", "x w r", "y yh", hidden_size=5, layout=1)], [("x", [2, 6, 4])], ["y", "yh"], weights, opset=14)
    graph, found = imported(proto)
    x = weight(2, 6, 4, seed=5)
    got = execute(graph, found, {"x": x})
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "what"),
    [
        ("LSTM", "x w r _ lengths", {}, "sequence_lens"),
        ("LSTM", "x w r _ _ _ _ p", {}, "peepholes"),
        ("LSTM", "x w r", {"clip": 1.0}, "clip"),
        ("LSTM", "x w r", {"activations": ["Relu", "Tanh", "Tanh"]}, "activations"),
    ],
)
def test_recurrent_extras_are_refused(op: str, inputs: str, attrs: dict, what: str) -> None:
    weights = {"w": weight(1, 20, 4), "r": weight(1, 20, 5), "p": weight(1, 15), "lengths": np.array([3, 3], np.int32)}
    weights = {k: v for k, v in weights.items() if k in inputs.split()}
    with pytest.raises(UnsupportedModelError, match=what):
        imported(model([node(op, inputs, "y", "rnn", hidden_size=5, **attrs)], [("x", [6, 2, 4])], ["y"], weights))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    check(model([node("DepthToSpace", "x", "y", blocksize=2, mode=mode)], [("x", [1, 8, 3, 5])], ["y"], opset=13))
    check(model([node("SpaceToDepth", "x", "y", blocksize=2)], [("x", [1, 3, 4, 6])], ["y"], opset=13))


def test_space_to_depth_in_the_order_of_opset_28() -> None:
    x = weight(1, 3, 4, 6)
    for mode, order in (("DCR", (0, 3, 5, 1, 2, 4)), ("CRD", (0, 1, 3, 5, 2, 4))):
        graph, weights = imported(model([node("SpaceToDepth", "x", "y", blocksize=2, mode=mode)], [("x", [1, 3, 4, 6])], ["y"], opset=28))
        expected = x.reshape(1, 3, 2, 2, 3, 2).transpose(order).reshape(1, 12, 2, 3)
        np.testing.assert_array_equal(execute(graph, weights, {"x": x})[0], expected)


def test_split_into_equal_parts() -> None:
    check(model([node("Split", "x", "a b", axis=1)], [("x", [2, 6])], ["a", "b"], opset=13))
    check(model([node("Split", "x", "a b c", axis=1, num_outputs=3)], [("x", [2, 7])], ["a", "b", "c"], opset=18))


def test_pad_of_some_axes() -> None:
    weights = {"p": ints(1, 2), "v": np.float32(0.5), "a": ints(-1)}
    graph, _ = check(model([node("Pad", "x p v a", "y")], [("x", [2, 3])], ["y"], weights, opset=18))
    (pad,) = graph.nodes
    assert pad.attrs["pads"] == [0, 1, 0, 2] and pad.attrs["value"] == 0.5


def test_pad_of_nothing_vanishes() -> None:
    graph, _ = check(model([node("Pad", "x p", "z"), node("Neg", "z", "y")], [("x", [2, 3])], ["y"], {"p": ints(0, 0, 0, 0)}))
    assert ops(graph) == {"Neg": 1}


def test_casts_and_constants_carry_dtype_names() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "k", value=np_tensor(np.array([3], I64))),
        node("Cast", "k", "f", to=1),
        node("CastLike", "f x", "g"),
        node("Add", "x g", "y"),
    ]
    graph, _ = check(model(nodes, [("x", ["N", 3])], ["y"]), sizes={"N": 4})
    assert [n.attrs["to"] for n in graph.nodes if n.op == "Cast"] == ["float32", "float32"]
    by_op = {n.op: n for n in graph.nodes}
    assert by_op["ConstantOfShape"].attrs == {"value": 3, "dtype": "int64"} and by_op["Cast"].attrs["to"] == "float32"


def np_tensor(array: np.ndarray):
    from onnx import numpy_helper

    return numpy_helper.from_array(array)


def test_constants_of_every_kind() -> None:
    nodes = [
        node("Constant", "", "a", value=np_tensor(weight(3))),
        node("Constant", "", "b", value_float=2.0),
        node("Constant", "", "c", value_floats=[1.0, 2.0, 3.0]),
        node("Mul", "x a", "t"),
        node("Mul", "t b", "u"),
        node("Add", "u c", "y"),
    ]
    check(model(nodes, [("x", [2, 3])], ["y"], opset=13))


def test_group_normalization_scales_were_per_group_before_opset_21() -> None:
    from onnx.reference import ReferenceEvaluator

    x = weight(2, 6, 4, 4, seed=9)
    for opset, count in ((18, 3), (21, 6)):
        proto = model(
            [node("GroupNormalization", "x s b", "y", num_groups=3)],
            [("x", [2, 6, 4, 4])],
            ["y"],
            {"s": weight(count), "b": weight(count, seed=4)},
            opset=opset,
        )
        graph, weights = imported(proto)
        np.testing.assert_allclose(execute(graph, weights, {"x": x})[0], ReferenceEvaluator(proto).run(None, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize("opset", [6, 99])
def test_opsets_out_of_range(opset: int) -> None:
    with pytest.raises(UnsupportedModelError, match=f"opset from 7 to .*, found {opset}"):
        imported(model([node("Neg", "x", "y")], [X], ["y"], opset=opset))


@pytest.mark.parametrize(
    ("one", "weights", "error", "what"),
    [
        (node("Conv", "x w", "y", "c1"), {}, UnsupportedModelError, "weights that are not constant"),
        (node("MaxPool", "x", "y i", "p1", kernel_shape=[2, 2]), {}, UnsupportedModelError, "indices"),
        (node("Conv", "x w", "y", "c1", kernel_shape=[5, 5]), {"w": weight(4, 3, 3, 3)}, ModelFormatError, "kernel_shape"),
        (node("Conv", "x w", "y", "c1", strides=[1]), {"w": weight(4, 3, 3, 3)}, ModelFormatError, "strides"),
        (node("Conv", "x w", "y", "c1"), {"w": weight(4, 2, 3, 3)}, ModelFormatError, "c1"),
        (node("Reshape", "x s", "y", "r1"), {"s": ints(7, -1)}, ModelFormatError, "r1"),
        (node("Add", "x nowhere", "y", "a1"), {}, ModelFormatError, "nowhere"),
        (node("Cast", "x", "y", "c1", to=8), {}, UnsupportedModelError, "string"),
        (node("Resize", "x _ _ w", "y", "r1", mode="cubic"), {"w": ints(2, 3, 16, 12)}, UnsupportedModelError, "cubic"),
    ],
)
def test_what_is_refused(one, weights, error: type[Exception], what: str) -> None:
    inputs = [X] + ([] if "w" in weights else [("w", [4, 3, 3, 3])])
    with pytest.raises(error, match=what):
        imported(model([one], inputs, ["y"], weights))


@pytest.mark.parametrize("opset", [9, 12, 17])
def test_weights_made_by_nodes_from_constants(opset: int) -> None:
    chain = [
        node("Identity", "stored", "a"),
        node("Cast", "a", "b", to=1),
        node("Transpose", "b", "c", perm=[1, 0, 2, 3]),
        node("Reshape", "c shape", "w"),
        node("ConstantOfShape", "size", "bias"),
        node("Conv", "x w bias", "conv"),
        node("ConstantOfShape", "large", "zeros"),
        node("Add", "zeros matrix", "m"),
        node("Flatten", "conv", "flat"),
        node("MatMul", "flat m", "y"),
    ]
    weights = {
        "stored": weight(3, 4, 3, 3).astype(np.float64), "shape": ints(4, 3, 3, 3), "size": ints(4), "large": ints(96, 800),
        "matrix": weight(96, 1),
    }  # fmt: skip
    graph, kept = check(model(chain, [X], ["y"], weights, opset=opset))
    assert set(ops(graph)) <= {"Transpose", "Conv", "Flatten", "Reshape", "Gemm"}
    assert sum(a.size for a in kept.values()) < 2 * 96 * 800  # nothing stored that is only on the way


def test_asking_for_constants_takes_no_longer_in_deep_networks() -> None:
    doubles = [node("Add", f"x{n} x{n}", f"x{n + 1}") for n in range(200)]  # 2^200 ways back to the input
    imported(model([*doubles, node("MatMul", "x200 x200", "y")], [("x0", [4, 4])], ["y"]))


def test_weights_that_depend_on_inputs_are_refused() -> None:
    nodes = [node("Shape", "x", "s"), node("ConstantOfShape", "s", "w"), node("Conv", "x w", "y", "c1")]
    with pytest.raises(UnsupportedModelError, match="weights that are not constant"):
        imported(model(nodes, [("x", ["A", 3, "H", "W"])], ["y"]))
