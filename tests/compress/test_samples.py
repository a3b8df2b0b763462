"""Calibration files: what is taken, and what is refused and how."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from edgeinfer.compress import compress  # noqa: E402
from edgeinfer.compress.samples import FEWEST, load_samples  # noqa: E402
from edgeinfer.container import Reader  # noqa: E402
from edgeinfer.errors import InputError, UsageError  # noqa: E402
from edgeinfer.graph import Graph, TensorSpec  # noqa: E402
from edgeinfer.runtime.session import InferenceSession  # noqa: E402

from .graphs import model, node, weight  # noqa: E402

GRAPH = Graph("g", (TensorSpec("x", "float32", ("N", 4, "T")), TensorSpec("mask", "int64", ("N", "T"))), (), ())


def good(count: int = FEWEST) -> dict[str, np.ndarray]:
    return {"x": np.ones((count, 4, 7)), "mask": np.ones((count, 7), np.int32), "labels": np.zeros(count)}


def test_a_good_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **good())
    found = load_samples(tmp_path / "d.npz", GRAPH)
    assert {name: (a.dtype.name, a.shape) for name, a in found.items()} == {"x": ("float32", (8, 4, 7)), "mask": ("int64", (8, 7))}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"x": None}, "expected the inputs 'x', 'mask', found 'mask'"),
        ({"y": np.ones(8)}, "found 'mask', 'x', 'y'"),
        ({"x": np.ones((8, 5, 7))}, r"input 'x': expected shape \['N', 4, 'T'\], found \[8, 5, 7\]"),
        ({"x": np.ones((8, 4))}, "input 'x': expected shape"),
        ({"mask": np.ones((8, 6), np.int64)}, "input 'mask': expected shape"),
        ({"mask": np.ones((9, 7), np.int64)}, "as many samples of every input, found 8 of 'x', 9 of 'mask'"),
        ({"mask": np.ones((8, 7))}, "input 'mask': expected int64, found float64"),
        ({"x": np.full((8, 4, 7), np.nan)}, "input 'x': expected finite values"),
        ({"x": np.ones((3, 4, 7)), "mask": np.ones((3, 7), np.int64)}, "expected 8 samples or more, found 3"),
    ],
)
def test_bad_contents(tmp_path: Path, change: dict, what: str) -> None:
    arrays = {name: a for name, a in {**good(), **change}.items() if a is not None}
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError, match=what):
        load_samples(tmp_path / "d.npz", GRAPH)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"d\.npz: expected an \.npz"):
        load_samples(tmp_path / "d.npz", GRAPH)
    with pytest.raises(UsageError, match="cannot be read"):
        load_samples(tmp_path / "nowhere.npz", GRAPH)
    np.save(tmp_path / "d.npy", np.ones(8))
    with pytest.raises(UsageError, match="found a single array"):
        load_samples(tmp_path / "d.npy", GRAPH)


@pytest.mark.parametrize("damage", ["method", "bytes"])
def test_a_damaged_archive(tmp_path: Path, damage: str) -> None:
    np.savez_compressed(tmp_path / "d.npz", **good())
    content = bytearray((tmp_path / "d.npz").read_bytes())
    if damage == "method":  # the compression method in the first entry of the directory: one that nobody has
        at = content.index(b"PK\x01\x02") + 10
        content[at] = 99
    else:  # the compressed bytes of the first member
        content[60:90] = b"\xff" * 30
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"d\.npz: expected an \.npz"):
        load_samples(tmp_path / "d.npz", GRAPH)


def test_calibration_keeps_the_outputs_of_its_kind_of_samples(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    nodes = [node("Gemm", "x w", "a", "first", transB=1), node("Relu", "a", "r"), node("Gemm", "r v", "y", "second", transB=1)]
    path = tmp_path / "m.onnx"
    weights = {"w": weight(128, 64), "v": weight(64, 128, seed=1)}
    path.write_bytes(model(nodes, [("x", ["N", 64])], ["y"], weights).SerializeToString())
    mixing = generator.standard_normal((9, 64))
    samples = np.maximum(generator.standard_normal((300, 9)) @ mixing, 0).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=samples[:200])
    answers = []
    for number, options in enumerate(({"quantizer": "none"}, {"bits": 3}, {"bits": 3, "calibration": tmp_path / "d.npz"})):
        compress(path, tmp_path / f"{number}.edge", **options)
        with InferenceSession(tmp_path / f"{number}.edge") as session:
            answers.append(session.run(None, {"x": samples[200:]})[0])
    blind, calibrated = (float(np.square(a - answers[0]).mean()) for a in answers[1:])
    assert calibrated < 0.3 * blind
    with Reader(tmp_path / "2.edge") as reader:
        assert reader.metadata["samples"] == "d.npz"


def test_a_bad_calibration_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(
        model([node("Gemm", "x w", "y", transB=1)], [("x", ["N", 64])], ["y"], {"w": weight(128, 64)}).SerializeToString()
    )
    np.savez(tmp_path / "d.npz", x=np.ones((100, 63), np.float32))
    with pytest.raises(InputError, match="input 'x'"):
        compress(tmp_path / "m.onnx", tmp_path / "m.edge", calibration=tmp_path / "d.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npz", "m.onnx"]
