"""The reader that runs ahead: order, places that are used again, damage, the end of the file, with and without its thread."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.kernels.codec import crc32c
from edgeinfer.kernels.loader import ReadAhead
from edgeinfer.runtime.residency import padded, ring_places


def fetches(content: bytes, sizes: list[int], ring: int) -> list[tuple[int, int, int, int, int]]:
    offsets = np.cumsum([0, *sizes]).tolist()
    places = ring_places([[n] for n in sizes], ring)
    return [(at, n, to[0], crc32c(content[at : at + n]), after) for at, n, (to, after) in zip(offsets, sizes, places, strict=False)]


@pytest.mark.parametrize("threaded", [True, False])
def test_a_small_ring_serves_a_large_file(tmp_path: Path, threaded: bool) -> None:
    content = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
    (tmp_path / "file").write_bytes(content)
    sizes = [30_000, 1, 70_000, 5_000, 64, 99_935, 95_000]
    ring = np.zeros(2 * padded(99_935), np.uint8)
    file = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        reader = ReadAhead(file, fetches(content, sizes, ring.nbytes))
        for _ in range(3):
            reader.start(ring.ctypes.data, threaded)
            assert reader.threaded == threaded
            at = 0
            for number, (offset, size, to, _, _) in enumerate(fetches(content, sizes, ring.nbytes)):
                assert offset == at and reader.acquire(number) == ""
                assert ring[to : to + size].tobytes() == content[at : at + size]
                reader.release(number + 1)
                at += size
            assert reader.statistics[0] == len(content)
        reader.start(ring.ctypes.data, threaded)  # and is left in the middle
        assert reader.acquire(1) == ""
        reader.stop()
    finally:
        os.close(file)


@pytest.mark.parametrize("threaded", [True, False])
def test_damage_and_the_end_are_said(tmp_path: Path, threaded: bool) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "file").write_bytes(content)
    ranges = fetches(content, [4000, 4000, 2240], 1 << 16)
    room = np.zeros(1 << 16, np.uint8)
    with open(tmp_path / "file", "r+b") as file:
        reader = ReadAhead(file.fileno(), ranges)
        file.seek(5000)
        file.write(b"x")
        file.flush()
        reader.start(room.ctypes.data, threaded)
        assert reader.acquire(0) == ""
        assert "4000 to 8000" in reader.acquire(1) and "4000 to 8000" in reader.acquire(2)
        file.truncate(3000)
        reader.start(room.ctypes.data, threaded)
        assert "ends before byte 4000" in reader.acquire(0)
        reader.stop()
    reader.start(room.ctypes.data, threaded)
    with pytest.raises(OSError, match="descriptor"):
        reader.acquire(0)
    reader.stop()


def test_a_piece_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ring_places([[100]], 64)
    with pytest.raises(ValueError, match="after"):
        ReadAhead(0, [(0, 1, 0, 0, 1)])
