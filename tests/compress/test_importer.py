"""Files: what is read, what is refused, and with which words."""

from __future__ import annotations

import lzma
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgeinfer.compress import protobuf  # noqa: E402
from edgeinfer.compress.importer import import_model  # noqa: E402
from edgeinfer.errors import DependencyError, EdgeInferError, ModelFormatError, UnsupportedModelError  # noqa: E402

from .graphs import imported, model, node, weight  # noqa: E402

LARGE = weight(64, 32)


def gemm_model() -> onnx.ModelProto:
    return model([node("Gemm", "x w c", "y", transB=1)], [("x", ["N", 32])], ["y"], {"w": LARGE, "c": weight(64)})


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


# ---- forms of files


def test_plain_and_xz_files(tmp_path: Path) -> None:
    data = gemm_model().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    (tmp_path / "m.onnx.xz").write_bytes(lzma.compress(data))
    plain, packed = import_model(tmp_path / "m.onnx"), import_model(str(tmp_path / "m.onnx.xz"))
    assert plain[0] == packed[0]
    np.testing.assert_array_equal(plain[1]["w"], LARGE)
    np.testing.assert_array_equal(packed[1]["w"], LARGE)


def test_large_weights_are_views_into_the_file(tmp_path: Path) -> None:
    _, weights = import_model(save(gemm_model(), tmp_path / "m.onnx"))
    assert not weights["w"].flags.owndata and not weights["w"].flags.writeable


def test_weights_in_typed_fields(tmp_path: Path) -> None:
    proto = gemm_model()
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, array.shape, array.reshape(-1).tolist()))
    _, weights = import_model(save(proto, tmp_path / "m.onnx"))
    np.testing.assert_array_equal(weights["w"], LARGE)


def test_initializers_that_are_inputs_too_are_no_inputs(tmp_path: Path) -> None:
    proto = gemm_model()
    proto.ir_version = 3
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 32]))
    graph, _ = import_model(save(proto, tmp_path / "m.onnx"))
    assert [t.name for t in graph.inputs] == ["x"]


@pytest.mark.parametrize("one_file", [True, False])
def test_external_data(tmp_path: Path, one_file: bool) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        gemm_model(),
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        size_threshold=16,
        location="w.bin" if one_file else None,
    )
    graph, weights = import_model(path)
    np.testing.assert_array_equal(weights[graph.nodes[0].inputs[1]], LARGE)


def external(tmp_path: Path, **entries: str) -> Path:
    proto = gemm_model()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    folder = tmp_path / "model"
    folder.mkdir()
    return save(proto, folder / "m.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "", "link.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    path = external(tmp_path, location=location)
    (tmp_path / "secret.bin").write_bytes(LARGE.tobytes())
    os.symlink(tmp_path / "secret.bin", path.parent / "link.bin")
    with pytest.raises(ModelFormatError, match="outside the folder"):
        import_model(path)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"offset": "100"}, "has 8192"),
        ({"length": "100"}, "expected 8192 bytes"),
        ({"offset": "-8"}, "needs bytes"),
        ({"offset": "many"}, "no number"),
        ({"location": "missing.bin"}, "cannot be read"),
    ],
)
def test_external_data_that_lies(tmp_path: Path, entries: dict[str, str], what: str) -> None:
    path = external(tmp_path, **{"location": "w.bin", **entries})
    (path.parent / "w.bin").write_bytes(LARGE.tobytes())
    with pytest.raises(ModelFormatError, match=what):
        import_model(path)


def test_model_local_functions_are_expanded(tmp_path: Path) -> None:
    pytest.importorskip("onnx.inliner")
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 3])],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
    )
    proto = helper.make_model(
        graph, functions=[function], opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)], ir_version=8
    )
    found, _ = import_model(save(proto, tmp_path / "m.onnx"))
    assert [n.op for n in found.nodes] == ["Add"]


# ---- files that are no models


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, world", b"\x00" * 64, b"\x7fELF" + bytes(200), b"\xfd7zXZ\x00" + bytes(40), lzma.compress(b"nothing"), b"\xff" * 50],
    ids=["empty", "text", "zeros", "elf", "broken xz", "xz of text", "ones"],
)
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match="m.onnx") as caught:
        import_model(path)
    assert type(caught.value) is ModelFormatError


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelFormatError, match="cannot be read"):
            import_model(path)


def test_truncated_at_every_place(tmp_path: Path) -> None:
    data = gemm_model().SerializeToString()
    path = tmp_path / "m.onnx"
    for length in [*range(0, 200), *range(200, len(data), 97)]:
        path.write_bytes(data[:length])
        with pytest.raises(ModelFormatError):
            import_model(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(
        model(
            [node("Conv", "x w", "c"), node("Flatten", "c", "y")], [("x", [1, 2, 5, 5])], ["y"], {"w": weight(3, 2, 3, 3)}
        ).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flip") / "m.onnx"
    path.write_bytes(bytes(content))
    try:
        import_model(path)
    except EdgeInferError:
        pass


def test_wire_format_reader_agrees_with_protobuf(tmp_path: Path) -> None:
    proto = gemm_model()
    proto.producer_name = "tester" * 100
    path = save(proto, tmp_path / "m.onnx")
    stripped, large = protobuf.load(path)
    assert set(large) == {"w"} and bytes(large["w"]) == LARGE.tobytes()
    for tensor in stripped.graph.initializer:
        if tensor.name in large:
            tensor.raw_data = bytes(large[tensor.name])
    assert stripped == proto


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(gemm_model(), tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match=r"edgeinfer\[convert\]"):
        import_model(path)


# ---- models that edgeinfer cannot run


def test_all_missing_operators_are_in_one_message() -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, [2])])
    nodes = [
        node("NonZero", "x", "a", "find"),
        helper.make_node("If", ["flag"], ["b"], name="maybe", then_branch=branch, else_branch=branch),
        node("NonZero", "x", "c", "find again"),
        node("StringNormalizer", "s", "d"),
        helper.make_node("Attention", ["x"], ["e"], name="att", domain="com.microsoft"),
        node("MaxPool", "x4", "f g", "pool", kernel_shape=[2, 2]),
        node("Add", "a f", "y"),
    ]
    inputs = [("x", [2]), ("flag", [], np.bool_), ("x4", [1, 1, 4, 4])]
    with pytest.raises(UnsupportedModelError) as caught:
        imported(model(nodes, inputs, ["y"]))
    text = str(caught.value)
    for part in (
        "NonZero x 2: find, find again",
        "If x 1: maybe",
        "StringNormalizer x 1: computing 'd'",
        "com.microsoft::Attention x 1: att",
        "MaxPool (pool): the output of indices",
    ):
        assert part in text, text
    assert "Add" not in text


def test_types_that_do_not_exist_here() -> None:
    proto = gemm_model()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(UnsupportedModelError, match=r"input \(x\): tensors of type string"):
        imported(proto)
    proto = gemm_model()
    proto.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2])))
    with pytest.raises(UnsupportedModelError, match="inputs of kind sequence"):
        imported(proto)
    proto = gemm_model()
    proto.graph.initializer[1].data_type = TensorProto.BFLOAT16
    with pytest.raises(UnsupportedModelError, match="type bfloat16"):
        imported(proto)
    proto = gemm_model()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UnsupportedModelError, match="an input without a shape"):
        imported(proto)


def test_constants_that_an_operator_refuses() -> None:
    nodes = [node("Gather", "w far", "g"), node("Add", "x g", "y")]
    with pytest.raises(ModelFormatError, match="g") as caught:
        imported(model(nodes, [("x", [2])], ["y"], {"w": weight(4, 2), "far": np.array(9)}))
    assert type(caught.value) is ModelFormatError


def test_contradictions() -> None:
    proto = gemm_model()
    proto.graph.node.append(node("Neg", "x", "y"))
    with pytest.raises(ModelFormatError, match="'y' is computed or stored twice"):
        imported(proto)
    proto = gemm_model()
    proto.graph.output[0].name = "z"
    with pytest.raises(ModelFormatError, match="output 'z' is computed by no node"):
        imported(proto)
    proto = gemm_model()
    del proto.graph.output[:]
    with pytest.raises(ModelFormatError, match="found none"):
        imported(proto)
    proto = gemm_model()
    proto.graph.initializer[0].dims[0] = 63
    with pytest.raises(ModelFormatError, match="expected 8064 bytes"):
        imported(proto)
    proto = gemm_model()
    proto.graph.initializer.append(proto.graph.initializer[0])
    with pytest.raises(ModelFormatError, match="stored twice"):
        imported(proto)
    nodes = [node("Exp", "b", "a"), node("Exp", "a", "b"), node("Add", "x b", "y")]
    with pytest.raises(ModelFormatError, match="'b'"):
        imported(model(nodes, [("x", [2])], ["y"]))


def test_dimensions_without_a_name_get_one() -> None:
    proto = model([node("Exp", "x", "y")], [("x", ["N", 3])], ["y"])
    proto.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    graph, _ = imported(proto)
    assert graph.inputs[0].shape == ("x_dim0", 3) and graph.outputs[0].shape == ("x_dim0", 3)


def test_unnamed_nodes_get_names_and_graphs_survive_json() -> None:
    nodes = [node("Exp", "x", "a"), node("Neg", "a", "b"), node("Exp", "b", "y", "Exp")]
    graph, _ = imported(model(nodes, [("x", [2])], ["y"]))
    assert len({n.name for n in graph.nodes}) == 3 and all(n.name for n in graph.nodes)
    import json

    from edgeinfer.graph import Graph

    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
