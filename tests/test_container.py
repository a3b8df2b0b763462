"""The container: round trips, what a writer leaves behind, what entries say."""

from __future__ import annotations

import os

import numpy as np
import pytest
from coders import cases

from edgeinfer.coders import CODERS, encode_tensor
from edgeinfer.container import GROUP, Reader, Writer
from edgeinfer.errors import ContainerError
from edgeinfer.graph import Graph, Node, TensorSpec
from edgeinfer.kernels.codec import CodedTensor, crc32c
from edgeinfer.quantizers import KMeans, NoQuantizer, Sign

GRAPH = Graph(
    "small",
    (TensorSpec("x", "float32", ("N", 20)),),
    (TensorSpec("y", "float32", ("N", 40)),),
    (Node("Gemm", "fc", ("x", "w"), ("y",), {"activation": "Relu"}),),
    "N",
    ("a remark",),
)


def write(path, metadata=None, graph=GRAPH):
    weights = cases.weights(40, 20)
    with Writer(path, graph, metadata) as writer:
        writer.add_coded("w", (40, 4, 5), "float32", encode_tensor("w", weights, 40, 1, KMeans(4), CODERS["huffman"]()))
        writer.add_plain("bias", np.arange(40, dtype=np.float32))
        writer.add_coded("v", (40, 20), "float32", encode_tensor("v", weights, 40, 1, Sign(5)))
    return weights


def test_a_round_trip(tmp_path):
    path = tmp_path / "m.edge"
    weights = write(path, {"recipe": {"bits": 4}})
    with Reader(path) as reader:
        assert reader.graph == GRAPH
        assert reader.metadata == {"recipe": {"bits": 4}}
        assert list(reader.entries) == ["w", "bias", "v"]
        reader.verify()
        np.testing.assert_array_equal(reader.plain("bias"), np.arange(40))
        entry = reader.entries["w"]
        assert (entry.rows, entry.k, entry.groups) == (40, 20, 1)
        assert (entry.quantizer, entry.options["bits"], entry.coder) == ("kmeans", 4, "huffman")
        assert not entry.is_plain and reader.entries["bias"].is_plain
        assert 4 < entry.bits_per_weight < 20
        for name in ("w", "v"):
            decoded = reader.decode(name)
            assert decoded.shape == reader.entries[name].shape
            error = np.abs(decoded.reshape(40, 20).astype(np.float64) - weights).max()
            assert error == reader.entries[name].max_error > 0
        assert sum(e.nbytes for e in reader.entries.values()) < reader.file_bytes == path.stat().st_size


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5, np.float32),
        np.zeros((0, 3), np.int64),
        np.asarray([[True, False]]),
        np.arange(12, dtype=np.int8).reshape(3, 4).T,
        np.asarray([1, 2**62], ">i8"),
        np.linspace(0, 1, 200_000),
    ],
    ids=["scalar", "empty", "bool", "strided", "big-endian", "several-groups"],
)
def test_plain_tensors_keep_every_bit(tmp_path, array):
    path = tmp_path / "m.edge"
    with Writer(path, GRAPH) as writer:
        entry = writer.add_plain("t", array)
    assert len(entry.crcs) == -(-entry.extent.length // GROUP)
    with Reader(path) as reader:
        reader.verify()
        found = reader.plain("t")
        assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape
        np.testing.assert_array_equal(found, array)


def test_a_container_without_tensors(tmp_path):
    with Writer(tmp_path / "m.edge", GRAPH):
        pass
    with Reader(tmp_path / "m.edge") as reader:
        reader.verify()
        assert reader.entries == {}


def test_the_same_input_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a.edge")
    write(tmp_path / "b.edge")
    assert (tmp_path / "a.edge").read_bytes() == (tmp_path / "b.edge").read_bytes()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interrupted, MemoryError])
def test_an_interrupted_writer_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "m.edge"
    write(path)
    before = path.read_bytes()
    with pytest.raises(error):
        with Writer(path, GRAPH) as writer:
            writer.add_plain("a", np.zeros(1000))
            raise error("enough")
    assert os.listdir(tmp_path) == ["m.edge"]
    assert path.read_bytes() == before


def test_every_write_may_fail(tmp_path):
    """The n-th write fails, for every n: a ContainerError, and nothing is left."""
    for limit in range(1000):
        writer = Writer(tmp_path / "m.edge", GRAPH)
        left = limit

        def failing(content, write=writer._write):
            nonlocal left
            if left == 0:
                raise OSError(28, "No space left on device")
            left -= 1
            write(content)

        writer._write = failing
        try:
            with writer:
                writer.add_plain("a", np.zeros(3))
                writer.add_plain("b", np.zeros(3))
        except OSError:
            assert os.listdir(tmp_path) == []
        else:
            break
    assert limit > 5
    assert os.listdir(tmp_path) == ["m.edge"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_container_error(tmp_path, monkeypatch):
    writer = Writer(tmp_path / "m.edge", GRAPH)
    with pytest.raises(ContainerError, match="No space left"):
        with writer:
            writer._file.close()
            writer._file = open("/dev/full", "wb", buffering=0)
            writer.add_plain("a", np.zeros(3))
    assert os.listdir(tmp_path) == []


def test_a_failing_rename_leaves_nothing(tmp_path, monkeypatch):
    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ContainerError, match="Input/output error"):
        write(tmp_path / "m.edge")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ContainerError, match=r"nowhere.*cannot be written"):
        write(tmp_path / "nowhere" / "m.edge")


def test_metadata_that_is_not_json_leaves_nothing(tmp_path):
    for metadata in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            write(tmp_path / "m.edge", metadata)
        assert os.listdir(tmp_path) == []


def test_misuse_of_a_writer(tmp_path):
    encoded = encode_tensor("w", cases.weights(4, 5), 4, 1, NoQuantizer())
    for misuse, message in (
        (lambda w: [w.add_plain("a", np.zeros(1)), w.add_plain("a", np.zeros(1))], "twice"),
        (lambda w: w.add_plain("a", np.zeros(1, np.complex64)), "complex64"),
        (lambda w: w.add_coded("a", (4, 4), "float32", encoded), "4 x 5"),
    ):
        with pytest.raises(ValueError, match=message):
            with Writer(tmp_path / "m.edge", GRAPH) as writer:
                misuse(writer)
        assert os.listdir(tmp_path) == []


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ContainerError, match=r"gone\.edge: no such file"):
        Reader(tmp_path / "gone.edge")
    with pytest.raises(ContainerError, match="cannot be read"):
        Reader(tmp_path)


def test_files_of_something_else(tmp_path):
    path = tmp_path / "m.edge"
    path.write_bytes(b"\x08\x07\x12\x07pytorch" * 100)
    with pytest.raises(ContainerError, match="not an edgeinfer container"):
        Reader(path)
    path.write_bytes(b"")
    with pytest.raises(ContainerError, match="not an edgeinfer container"):
        Reader(path)


def test_a_later_version_is_named(tmp_path):
    path = tmp_path / "m.edge"
    write(path)
    content = bytearray(path.read_bytes())
    content[8:12] = (9).to_bytes(4, "little")
    content[60:64] = crc32c(content[:60]).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ContainerError, match="expected format version 1, found 9"):
        Reader(path)


def test_a_coded_tensor_without_bytes(tmp_path):
    """Plans are made from shapes; what attach will take is known before."""
    path = tmp_path / "m.edge"
    write(path)
    with Reader(path) as reader:
        tensor = CodedTensor(reader.entries["w"])
        assert (tensor.rows, tensor.k, tensor.groups, tensor.attached) == (40, 20, 1, False)
        assert tensor.owned_bytes >= 1024 + 160
        with pytest.raises(ValueError, match="no bytes attached"):
            tensor.decode()
        content = reader.read(reader.entries["w"])
        with pytest.raises(ValueError, match="64"):
            tensor.attach(content[:-1])
        tensor.attach(content)
        assert tensor.attached and tensor.address
        tensor.detach()
        with pytest.raises(ValueError, match="no bytes attached"):
            tensor.decode()
        with pytest.raises(ValueError, match="no sign plane"):
            tensor.base_only = True


def test_checksums():
    content = np.random.default_rng(0).integers(0, 256, 1000).astype(np.uint8)
    assert crc32c(b"123456789") == crc32c(b"123456789", portable=True) == 0xE3069283  # RFC 3720, appendix B.4 gives the polynomial's values
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes([255] * 32)) == 0x62A8AB43
    assert crc32c(b"") == 0
    for begin in range(9):
        for end in range(len(content) - 9, len(content)):
            part = content[begin:end]
            assert crc32c(part) == crc32c(part, portable=True) == crc32c(part[100:], crc32c(part[:100]))
