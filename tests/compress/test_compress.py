"""The whole trip: an ONNX file into a container, and what stands in it."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import edgeinfer as ei  # noqa: E402
from edgeinfer.compress import Recipe, compress  # noqa: E402
from edgeinfer.compress.importer import import_model  # noqa: E402
from edgeinfer.compress.roles import matrices  # noqa: E402
from edgeinfer.compress.samples import dead_leaves  # noqa: E402
from edgeinfer.container import Reader, Writer  # noqa: E402
from edgeinfer.errors import ContainerError, EdgeInferError, ModelFormatError, UnsupportedModelError, UsageError  # noqa: E402
from edgeinfer.graph import Graph  # noqa: E402

from .graphs import imported, model, node, weight  # noqa: E402


def small_model() -> onnx.ModelProto:
    nodes = [
        node("Conv", "x w", "a", "conv", pads=[1] * 4),
        node("Conv", "a d", "b", "depthwise", group=64, pads=[1] * 4),
        node("Conv", "b g", "c", "grouped", group=4),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f m k", "y", "fc", transB=1),
    ]
    weights = {
        "w": weight(64, 16, 3, 3),
        "d": weight(64, 1, 9, 9, seed=2),
        "g": weight(64, 16, 3, 3, seed=3),
        "m": weight(100, 64, seed=4),
        "k": weight(100),
    }
    return model(nodes, [("x", [1, 16, 12, 12])], ["y"], weights)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_model().SerializeToString())
    return path


@pytest.mark.parametrize("quantizer", ["none", "uniform", "kmeans", "sign"])
@pytest.mark.parametrize("coder", [None, "packed", "huffman", "rans", "gaps", "raw"])
def test_what_is_stored_is_what_was_imported(source: Path, tmp_path: Path, quantizer: str, coder: str | None) -> None:
    if quantizer == "none" and coder not in (None, "raw"):
        with pytest.raises(UsageError):
            compress(source, tmp_path / "m.edge", quantizer=quantizer, coder=coder)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx"]
        return
    report = compress(source, tmp_path / "m.edge", quantizer=quantizer, coder=coder)
    graph, weights = import_model(source)
    with Reader(tmp_path / "m.edge") as reader:
        reader.verify()
        assert reader.graph == graph and set(reader.entries) == set(weights)
        assert reader.metadata["source"] == "small.onnx"
        asked, kept = Recipe.simple(quantizer, coder), Recipe.from_json(reader.metadata["recipe"])
        assert kept.default == asked.default and kept.rules[: len(asked.rules)] == asked.rules
        assert reader.metadata["samples"] == "none"  # 16 channels are no image
        by_name = {layer.name: layer for layer in report.layers + report.constants}
        for name, entry in reader.entries.items():
            layer = by_name[name]
            assert layer.shape == weights[name].shape == tuple(entry.shape)
            assert layer.quantizer == (None if entry.is_plain else entry.quantizer)
            if entry.is_plain:
                np.testing.assert_array_equal(reader.plain(name), weights[name])
                continue
            error = np.abs(reader.coded(name).decode().reshape(entry.shape) - weights[name]).max()
            assert error <= entry.max_error == layer.max_error
            assert quantizer != "none" or error == 0
            if layer.weights >= 4096:
                assert entry.max_error < 0.2
                assert entry.quantizer == (quantizer if entry.shape[-1] > 1 or quantizer == "none" else "kmeans")
    assert report.weights == sum(a.size for a in weights.values())
    assert report.nbytes < report.fp32_bytes * (1.02 if quantizer == "none" else 0.3)


def test_groups_and_rows(source: Path, tmp_path: Path) -> None:
    compress(source, tmp_path / "m.edge", bits=4)
    graph, _ = import_model(source)
    with Reader(tmp_path / "m.edge") as reader:
        found = {n.name: reader.entries[n.inputs[1]] for n in graph.nodes if n.op in ("Conv", "Gemm")}
        assert [(found[n].rows, found[n].k, found[n].groups) for n in ("conv", "depthwise", "grouped", "fc")] == [
            (64, 144, 1),
            (64, 81, 1),
            (64, 144, 4),
            (100, 64, 1),
        ]
        assert found["depthwise"].quantizer == "kmeans" and found["depthwise"].options["bits"] == 8
        assert found["conv"].options["bits"] == 4


def test_small_tensors_stay_fp16_unless_they_do_not_fit(tmp_path: Path) -> None:
    weights = {"w": weight(8, 4), "v": weight(8, 8) * 1e6}
    proto = model([node("Gemm", "x w", "a", transB=1), node("Gemm", "a v", "y", transB=1)], [("x", [1, 4])], ["y"], weights)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    compress(path, tmp_path / "m.edge")
    with Reader(tmp_path / "m.edge") as reader:
        assert [(e.quantizer, e.options) for e in reader.entries.values()] == [
            ("none", {"dtype": "float16"}),
            ("none", {"dtype": "float32"}),
        ]


def test_images_are_made_for_a_network_that_takes_them(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "a", "conv", pads=[1] * 4), node("Relu", "a", "r"), node("Conv", "r v", "b", "second")]
    nodes += [node("GlobalAveragePool", "b", "p"), node("Flatten", "p", "f"), node("Gemm", "f m", "y", "fc", transB=1)]
    weights = {"w": weight(192, 3, 3, 3), "v": weight(48, 192, 1, 1, seed=1), "m": weight(100, 48, seed=2)}
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, [("x", ["N", 3, 16, 16])], ["y"], weights).SerializeToString())
    images = {"x": dead_leaves(40, 3, (16, 16), seed=7)}
    answers = []
    for number, options in enumerate(({"quantizer": "none"}, {"bits": 3}, {"bits": 3, "compensation": False})):
        target = tmp_path / f"{number}.edge"
        compress(path, target, **options)
        with Reader(target) as reader:
            assert reader.metadata["samples"] == ("made" if options == {"bits": 3} else "none")
        with ei.InferenceSession(target, batch=40) as session:
            answers.append(session.run(None, images)[0])
    change, plain = (float(np.square(a - answers[0]).mean()) for a in answers[1:])
    assert change < 0.7 * plain


def test_recipe_file(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("default: {quantizer: none}\nrules: [{op: Gemm, quantizer: uniform, bits: 6, coder: packed}]\n")
    report = compress(source, tmp_path / "m.edge", recipe=path)
    assert {(layer.op, layer.quantizer, layer.coder) for layer in report.layers} == {("Conv", "none", "raw"), ("Gemm", "uniform", "packed")}


def renamed(path: Path, scale: int = 1) -> Path:
    """The small network under other names, the product ``scale`` times as wide."""
    proto = small_model()
    for n in proto.graph.node:
        n.input[:] = [f"other.{i}" if i in set("wdgmk") else i for i in n.input]
    for initializer in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(initializer)
        if initializer.name in "mk":
            array = np.concatenate([array] * scale)
        initializer.CopyFrom(onnx.numpy_helper.from_array(array, f"other.{initializer.name}"))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("options", [{"bits": 3}, {"quantizer": "sign", "coder": "huffman", "bits": 4}, {"quantizer": "none"}, {"bits": 8}])
def test_like_gives_the_same_network_the_same_bytes(source: Path, tmp_path: Path, options: dict) -> None:
    first, again, third = (tmp_path / f"{n}.edge" for n in "abc")
    compress(source, first, **options)
    compress(source, again, like=first)
    compress(source, third, like=again)
    assert first.read_bytes() == again.read_bytes() == third.read_bytes()


def test_like_allots_anew_for_another_network(source: Path, tmp_path: Path) -> None:
    other = renamed(tmp_path / "other.onnx", scale=20)
    compress(source, tmp_path / "a.edge", bits=3)
    compress(other, tmp_path / "like.edge", like=tmp_path / "a.edge")
    compress(other, tmp_path / "asked.edge", bits=3)
    assert (tmp_path / "like.edge").read_bytes() == (tmp_path / "asked.edge").read_bytes()
    with Reader(tmp_path / "a.edge") as a, Reader(tmp_path / "like.edge") as b:
        assert a.metadata["allotted"] and b.metadata["allotted"]
        bits = [[e.options.get("bits") for e in r.entries.values() if not e.is_plain] for r in (a, b)]
    assert bits[0] != bits[1], "another network, other sizes, another allotment"


def test_like_repeats_the_rules_of_a_recipe(source: Path, tmp_path: Path) -> None:
    rules = "[{name: 'w*', quantizer: sign, bits: 4}, {op: Gemm, quantizer: uniform, bits: 6, coder: packed}]"
    (tmp_path / "r.yaml").write_text("default: {quantizer: kmeans, bits: 2}\nrules: " + rules)
    compress(source, tmp_path / "a.edge", recipe=tmp_path / "r.yaml")
    compress(source, tmp_path / "b.edge", like=tmp_path / "a.edge")
    assert (tmp_path / "a.edge").read_bytes() == (tmp_path / "b.edge").read_bytes()
    compress(renamed(tmp_path / "other.onnx"), tmp_path / "c.edge", like=tmp_path / "a.edge")
    with Reader(tmp_path / "c.edge") as reader:
        assert "allotted" not in reader.metadata
        found = [(n[: len("other.w")], e.quantizer, e.options.get("bits")) for n, e in reader.entries.items() if not e.is_plain]
    assert sorted(found) == [
        ("other.d", "kmeans", 2), ("other.g", "kmeans", 2), ("other.m", "uniform", 6), ("other.w", "kmeans", 2),
    ]  # fmt: skip


def test_like_repeats_compensation(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "a", "conv", pads=[1] * 4), node("GlobalAveragePool", "a", "p"), node("Flatten", "p", "y")]
    source = tmp_path / "m.onnx"
    source.write_bytes(model(nodes, [("x", ["N", 3, 16, 16])], ["y"], {"w": weight(192, 3, 3, 3)}).SerializeToString())
    np.savez(tmp_path / "own.npz", x=dead_leaves(40, 3, (16, 16), seed=7))
    made, bare, own, out = (tmp_path / f"{n}.edge" for n in ("made", "bare", "own", "out"))
    compress(source, made)
    compress(source, bare, compensation=False)
    compress(source, own, calibration=tmp_path / "own.npz")
    assert len({p.read_bytes() for p in (made, bare, own)}) == 3
    for options, expected in (
        ({"like": made}, made),
        ({"like": made, "compensation": False}, bare),
        ({"like": bare}, bare),
        ({"like": bare, "calibration": tmp_path / "own.npz"}, own),
        ({"like": own, "calibration": tmp_path / "own.npz"}, own),
        ({"like": own, "compensation": False}, bare),
    ):
        compress(source, out, **options)
        assert out.read_bytes() == expected.read_bytes(), options
    out.unlink()
    with pytest.raises(UsageError, match=r"own\.edge: made with calibration samples \(own\.npz\)"):
        compress(source, out, like=own)
    assert not out.exists()


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({}, "without a recipe"),
        ({"recipe": 5}, "expected 'default'"),
        ({"recipe": {"default": {"quantizer": "magic"}}}, "unknown quantizer"),
        ({"recipe": {"default": {"quantizer": "kmeans", "bits": 4}}, "allotted": 1}, "up to 0, found 1"),
        ({"recipe": {"default": {"quantizer": "kmeans", "bits": 4}}, "allotted": "x"}, "up to 0, found 'x'"),
        ({"recipe": {"default": {"quantizer": "kmeans"}}, "allotted": 0}, "expected bits"),
        ({"recipe": {"default": {"quantizer": "kmeans", "bits": 99}}, "allotted": 0}, "bits"),
        ({"recipe": {"default": {"quantizer": "kmeans", "bits": 4}}, "samples": 3}, "expected a name"),
    ],
)
def test_like_a_container_whose_recipe_is_none(source: Path, tmp_path: Path, metadata: dict, what: str) -> None:
    with Writer(tmp_path / "odd.edge", Graph("odd", (), (), ()), metadata):
        pass
    with pytest.raises(UsageError, match=what):
        compress(source, tmp_path / "m.edge", like=tmp_path / "odd.edge")
    assert not (tmp_path / "m.edge").exists()


@pytest.mark.parametrize("options", [{"bits": 4}, {"quantizer": "kmeans"}, {"coder": "rans"}, {"recipe": Recipe.simple()}])
def test_like_beside_what_it_says_itself(source: Path, tmp_path: Path, options: dict) -> None:
    with pytest.raises(UsageError, match="leave out these"):
        compress(source, tmp_path / "m.edge", like=tmp_path / "absent.edge", **options)
    with pytest.raises(ContainerError):
        compress(source, tmp_path / "m.edge", like=tmp_path / "absent.edge")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"quantizer": "magic"}, "unknown quantizer 'magic'; known: .*kmeans"),
        ({"coder": "zip"}, "unknown coder 'zip'; known: .*huffman"),
        ({"bits": 9}, "1 to 8 bits"),
        ({"recipe": Recipe.simple(), "bits": 4}, "leave out"),
        ({"recipe": "nowhere.yaml"}, "cannot be read"),
    ],
)
def test_wrong_options(source: Path, tmp_path: Path, options: dict, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        compress(source, tmp_path / "m.edge", **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx"]


def test_an_option_that_a_quantizer_does_not_have(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("default: {quantizer: kmeans, colour: red}\n")
    with pytest.raises(UsageError, match="'kmeans' does not take the options"):
        compress(source, tmp_path / "m.edge", recipe=path)


def test_models_that_cannot_be_compressed_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for content, error in (
        (b"not a model", ModelFormatError),
        (model([node("NonZero", "x", "y", "find")], [("x", [2])], ["y"]).SerializeToString(), UnsupportedModelError),
    ):
        path.write_bytes(content)
        with pytest.raises(error):
            compress(path, tmp_path / "m.edge")
        assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_failure_in_the_middle_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(source, tmp_path / "m.edge", progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_the_model_itself_is_not_overwritten(source: Path) -> None:
    with pytest.raises(UsageError, match="cannot take the place"):
        compress(source, source)
    assert source.stat().st_size > 0


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    bad = weight(100, 64)
    bad[3, 4] = np.nan
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Gemm", "x w", "y", transB=1)], [("x", [1, 64])], ["y"], {"w": bad}).SerializeToString())
    with pytest.raises(EdgeInferError, match="'w'"):
        compress(path, tmp_path / "m.edge")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_progress_counts_bytes(source: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    compress(source, tmp_path / "m.edge", progress=lambda *call: calls.append(call))
    assert calls[0][0] == 0 and calls[-1][0] == calls[-1][1] > 0
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_the_same_bytes_every_time(source: Path, tmp_path: Path) -> None:
    for name in ("a.edge", "b.edge"):
        compress(source, tmp_path / name, quantizer="kmeans", coder="huffman")
    assert (tmp_path / "a.edge").read_bytes() == (tmp_path / "b.edge").read_bytes()


def test_the_function_of_the_package_survives_its_import(source: Path, tmp_path: Path) -> None:
    import edgeinfer.compress.importer  # noqa: F401  makes the package an attribute of edgeinfer

    assert ei.compress(source, tmp_path / "m.edge").weights == ei.compress(source, tmp_path / "m.edge").weights


# ---- roles


def roles_of(proto: onnx.ModelProto):
    graph, weights, found = matrices(*imported(proto))
    used = {i for n in graph.nodes for i in n.inputs}
    assert set(weights) <= used and set(found) <= set(weights)
    return graph, weights, found


def test_a_table_that_is_a_product_too_is_stored_once() -> None:
    table = weight(50, 16)
    nodes = [node("Gather", "w i", "e"), node("Gemm", "e w", "y", transB=1)]
    _, weights, found = roles_of(model(nodes, [("i", ["N"], np.int64)], ["y"], {"w": table}))
    assert list(weights) == ["w"] and found["w"].rows == 50


def test_a_matrix_that_is_added_too_is_stored_twice() -> None:
    nodes = [node("Gemm", "x w", "a", transB=1), node("Add", "a w", "b"), node("Exp", "b", "c"), node("Mul", "c w", "y")]
    graph, weights, found = roles_of(model(nodes, [("x", [16, 16])], ["y"], {"w": weight(16, 16)}))
    assert len(weights) == 2 and list(found) == ["w"]
    plain = next(name for name in weights if name != "w")
    assert [n.inputs.count(plain) for n in graph.nodes if n.op in ("Add", "Mul")] == [1, 1]


def test_filters_of_two_groupings_are_stored_twice() -> None:
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), node("Conv", "x2 w", "b", group=2, pads=[1] * 4)]
    _, weights, found = roles_of(model(nodes, [("x", [1, 4, 5, 5]), ("x2", [1, 8, 5, 5])], ["a", "b"], {"w": weight(8, 4, 3, 3)}))
    assert sorted(m.groups for m in found.values()) == [1, 2] and len(weights) == 2


def test_integer_tables_are_not_coded() -> None:
    proto = model([node("Gather", "w i", "y")], [("i", ["N"], np.int64)], ["y"], {"w": np.arange(8).reshape(4, 2)})
    assert not roles_of(proto)[2]


@pytest.mark.parametrize("name", ["nsnet2", "minilm"])
def test_all_large_weights_of_sequence_models_are_coded(name: str) -> None:
    _, weights, found = matrices(*import_model(networks.shared_model(name)))
    assert {m.op for m in found.values()} == ({"Gemm", "GRU"} if name == "nsnet2" else {"Gemm", "Gather"})
    assert all(array.size <= 1 << 12 for key, array in weights.items() if key not in found)
