"""Files that lie: truncation at every byte, every byte flipped, headers and parts whose checksums are right and whose contents are not."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from coders import cases

from edgeinfer.coders import CODERS, encode_tensor
from edgeinfer.container import END_MAGIC, GROUP, PREAMBLE, TRAILER, Entry, Reader, Writer, coded_tensor
from edgeinfer.errors import ContainerError
from edgeinfer.graph import Graph
from edgeinfer.kernels.codec import available_kernels, crc32c
from edgeinfer.quantizers import KMeans, Sign

GRAPH = Graph("g", (), (), ())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Bytes of a small valid container with every coder."""
    path = tmp_path_factory.mktemp("hostile") / "m.edge"
    with Writer(path, GRAPH) as writer:
        writer.add_plain("p", np.arange(5))
        for name in CODERS:
            weights = cases.weights(9, 11, pruned=name == "gaps")
            writer.add_coded(name, (9, 11), "float32", encode_tensor(name, weights, 9, 1, KMeans(3), CODERS[name]()))
        writer.add_coded("signs", (9, 11), "float32", encode_tensor("signs", cases.weights(9, 11), 9, 1, Sign(4)))
    with Reader(path) as reader:
        reader.verify()
    return path.read_bytes()


def expect_error(path, content):
    path.write_bytes(content)
    with pytest.raises(ContainerError) as caught:
        with Reader(path) as reader:
            reader.verify()
    assert str(path) in str(caught.value) or "tensor" in str(caught.value)
    return str(caught.value)


def test_truncation_at_every_byte(original, tmp_path):
    for length in range(len(original)):
        expect_error(tmp_path / "m.edge", original[:length])


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_every_flipped_byte(original, tmp_path, flip):
    for position in range(len(original)):
        content = bytearray(original)
        content[position] ^= flip
        expect_error(tmp_path / "m.edge", content)


def test_bytes_behind_the_end(original, tmp_path):
    expect_error(tmp_path / "m.edge", original + b"\0")
    expect_error(tmp_path / "m.edge", original + original)


def parse(content):
    offset, length = TRAILER.unpack(content[-TRAILER.size :])[:2]
    return content[:offset], json.loads(content[offset : offset + length])


def build(body, header):
    """A file around any header, with checksums and digest that are right."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    digest = hashlib.sha256(body + header).digest()
    total = len(body) + len(header) + TRAILER.size
    tail = TRAILER.pack(len(body), len(header), crc32c(header), digest, total, 0, b"")[: -4 - len(END_MAGIC)]
    return body + header + tail + crc32c(tail).to_bytes(4, "little") + END_MAGIC


def change(path, value):
    """A function that sets header["entries"][...]... = value."""

    def apply(header):
        at = header["entries"]
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return apply


HUGE = 2**62
LIES = {
    "two of a name": lambda h: h["entries"][1].update(name="p"),
    "an entry twice": lambda h: h["entries"].append(h["entries"][0]),
    "an entry less": lambda h: h["entries"].pop(2),
    "overlapping extents": lambda h: h["entries"][2].update(extent=[h["entries"][2]["extent"][0] - 64, h["entries"][2]["extent"][1]]),
    "an extent beyond the file": change([3, "extent"], [64, HUGE]),
    "a negative extent": change([3, "extent"], [64, -64]),
    "an odd extent": change([0, "extent"], [64, 63]),
    "an extent of text": change([0, "extent"], ["64", "64"]),
    "too few checksums": change([1, "crcs"], []),
    "a checksum of 33 bits": change([1, "crcs"], [1 << 32]),
    "rows x k that is not the shape": change([1, "rows"], 10),
    "rows that overflow with k": lambda h: h["entries"][1].update(rows=2**32, k=2**32, shape=[2**32, 2**32]),
    "a shape that overflows": change([1, "shape"], [2**40, 2**40]),
    "a negative shape": change([1, "shape"], [-9, -11]),
    "a shape of bools": change([1, "shape"], [True, 99]),
    "a plain shape that overflows": change([0, "shape"], [2**31, 2**31]),
    "a plain shape beyond its bytes": change([0, "shape"], [9]),
    "a dtype of objects": change([0, "dtype"], "object"),
    "coded integers": change([1, "dtype"], "int64"),
    "no groups": change([1, "groups"], 0),
    "groups that do not divide": change([1, "groups"], 2),
    "no chunk": change([1, "k_chunk"], 0),
    "a huge chunk": change([1, "k_chunk"], 1 << 20),
    "a part beyond the extent": lambda h: h["entries"][1]["parts"].update(plane0=[0, HUGE]),
    "a part that ends beyond": lambda h: h["entries"][1]["parts"].update(plane0=[h["entries"][1]["extent"][1] - 64, 128]),
    "a part at an odd place": lambda h: h["entries"][1]["parts"].update(plane0=[1, h["entries"][1]["parts"]["plane0"][1]]),
    "a missing part": lambda h: h["entries"][1]["parts"].pop("plane0"),
    "a missing table": lambda h: h["entries"][1]["parts"].pop("table"),
    "an empty table": lambda h: h["entries"][1]["parts"].update(table=[0, 0]),
    "a table of half a float": lambda h: h["entries"][1]["parts"].update(table=[0, 6]),
    "short row scales": lambda h: h["entries"][1]["parts"].update(row_scale=[0, 4]),
    "three planes": lambda h: h["entries"][1].update(planes=h["entries"][1]["planes"] * 3),
    "two planes that are not signs": lambda h: h["entries"][1].update(planes=h["entries"][1]["planes"] * 2),
    "an unknown coder": change([1, "planes", 0, "coder"], "zip"),
    "a coder that is no text": change([1, "planes", 0, "coder"], []),
    "33 lanes": lambda h: [e["planes"][0].update(lanes=33) for e in h["entries"][1:]],
    "wide symbols": lambda h: [e["planes"][0].update(bits=9) for e in h["entries"][1:]],
    "no bits": lambda h: [e["planes"][0].update(bits=0) for e in h["entries"][1:]],
    "an extra of zero": lambda h: [e["planes"][0].update(extra=0) for e in h["entries"] if e["name"] == "huffman"],
    "an extra of a thousand": lambda h: [e["planes"][0].update(extra=1000) for e in h["entries"] if e["name"] == "gaps"],
    "a total of 2^31": lambda h: [e["planes"][0].update(extra=31) for e in h["entries"] if e["name"] == "rans"],
    "a symbol left out that does not exist": lambda h: [e["planes"][0].update(lanes=200) for e in h["entries"] if e["name"] == "gaps"],
    "an error that is no number": change([1, "max_error"], float("nan")),
    "a negative error": change([1, "max_error"], -1),
    "a field more": change([1, "surprise"], 1),
    "a field less": lambda h: h["entries"][1].pop("quantizer"),
    "an entry that is a list": lambda h: h["entries"].__setitem__(0, []),
    "entries that are an object": lambda h: h.update(entries={}),
    "no graph": lambda h: h.pop("graph"),
    "a graph of numbers": lambda h: h.update(graph=5),
    "metadata that is a list": lambda h: h.update(metadata=[]),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(original, tmp_path, lie):
    body, header = parse(original)
    changed = copy.deepcopy(header)
    LIES[lie](changed)
    assert changed != header
    message = expect_error(tmp_path / "m.edge", build(body, changed))
    assert "header" in message and len(message) < 2000


@pytest.mark.parametrize("header", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"graph":' * 5000, b"1" * 5000])
def test_headers_that_are_no_headers(original, tmp_path, header):
    body, _ = parse(original)
    expect_error(tmp_path / "m.edge", build(body, header))


def test_a_hole_between_extents(original, tmp_path):
    body, header = parse(original)
    expect_error(tmp_path / "m.edge", build(body + bytes(64), header))
    last = header["entries"][-1]
    last["extent"][0] += 64
    expect_error(tmp_path / "m.edge", build(body[: -last["extent"][1]] + bytes(64) + body[-last["extent"][1] :], header))


def test_a_trailer_that_lies(original, tmp_path):
    body, header = parse(original)
    text = json.dumps(header).encode()
    right = len(body) + len(text) + TRAILER.size
    lies = ((len(body), HUGE, right), (HUGE, len(text), right), (0, len(text) + len(body), right), (len(body), len(text), HUGE))
    for offset, length, total in lies:
        tail = TRAILER.pack(offset, length, crc32c(text), bytes(32), total, 0, b"")[: -4 - len(END_MAGIC)]
        expect_error(tmp_path / "m.edge", body + text + tail + crc32c(tail).to_bytes(4, "little") + END_MAGIC)
    assert PREAMBLE.size == 64 and TRAILER.size == 80


def replace_part(original, name, part, change_bytes):
    """The file with other bytes in a part, all checksums right."""
    body, header = parse(original)
    body = bytearray(body)
    entry = next(e for e in header["entries"] if e["name"] == name)
    offset, length = entry["extent"]
    begin, size = entry["parts"][part]
    content = bytearray(body[offset + begin : offset + begin + size])
    change_bytes(content)
    assert len(content) == size
    body[offset + begin : offset + begin + size] = content
    entry["crcs"] = [crc32c(body[offset + i : offset + min(i + GROUP, length)]) for i in range(0, length, GROUP)]
    return build(bytes(body), header)


def fill(value):
    def apply(content):
        content[:] = bytes([value]) * len(content)

    return apply


def set_u32(index, value):
    def apply(content):
        content[4 * index : 4 * index + 4] = value.to_bytes(4, "little")

    return apply


@pytest.mark.parametrize(
    "name, part, changed, message",
    [
        ("huffman", "model0", fill(0), "complete code"),
        ("huffman", "model0", fill(0x11), "complete code"),
        ("huffman", "model0", fill(0xFF), "complete code"),
        ("rans", "model0", fill(0), "sum"),
        ("rans", "model0", fill(0xFF), "sum"),
        ("rans", "at0", set_u32(0, 1), "offset 0"),
        ("rans", "at0", set_u32(1, 2**32 - 1), "must rise"),
        ("gaps", "at0", set_u32(1, 0), "must rise"),
        ("huffman", "at0", fill(0xFF), "must rise"),
        ("packed", "table", set_u32(2, 0x7FC00000), "nan"),
        ("packed", "table", set_u32(2, 0xFF800000), "inf"),
        ("packed", "row_scale", fill(0x7F), "nan"),
        ("signs", "base_table", fill(0xFF), "nan"),
        ("gaps", "plane0", set_u32(0, 2**32 - 1), "not a valid stream"),
        ("rans", "plane0", fill(0), "not a valid stream"),
        ("huffman", "plane0", fill(0xFF), "not a valid stream"),
    ],
)
def test_parts_that_lie(original, tmp_path, name, part, changed, message):
    assert message in expect_error(tmp_path / "m.edge", replace_part(original, name, part, changed))


@pytest.mark.parametrize("name", list(CODERS))
def test_random_tiles_are_refused_or_decoded_to_values_of_the_table(name):
    """No kernel variant may crash or give anything but values of the table, whatever the bytes."""
    random = np.random.default_rng(7)
    weights = cases.weights(70, 200, pruned=name == "gaps")
    for bits in (1, 3, 5, 8):
        encoded = encode_tensor("t", weights, 70, 1, KMeans(bits, row_scale=False), CODERS[name](), 64)
        allowed = np.append(encoded.parts["table"], 0)  # a symbol beyond the alphabet reads as 0
        refused = 0
        for _ in range(12):
            content = random.integers(0, 256, len(encoded.parts["plane0"])).astype(np.uint8)
            for at in encoded.parts.get("at0", [])[:-1:2]:  # with half of the tiles' heads as they were, more than the head is tried
                content[at : at + 6] = encoded.parts["plane0"][at : at + 6]
            tensor = coded_tensor("t", weights.shape, replace(encoded, parts={**encoded.parts, "plane0": content}))
            results = []
            for kernels in available_kernels():
                try:
                    results.append(tensor.decode(kernels))
                except ContainerError as error:
                    assert "not a valid stream" in str(error)
                    results.append(None)
                    refused += 1
                else:
                    assert np.isin(results[-1], allowed).all()
            assert all((r is None) == (results[0] is None) and (r is None or np.array_equal(r, results[0])) for r in results)
        if name in ("huffman", "rans") and bits > 1:  # two codes of one bit each: any bytes are a tile
            assert refused


def test_entries_of_wrong_types_are_container_errors():
    from edgeinfer.kernels.codec import CodedTensor

    for rows in ("9", None, 2**70, 1.5):
        with pytest.raises(ContainerError):
            CodedTensor(Entry("t", (9,), "float32", rows=rows, k=1, groups=1, k_chunk=32, planes=({"coder": "raw_f32"},)))
