"""Files of every version of the format, as they were written then, are read back to the bit by every kernel variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeinfer.container import VERSION, Reader
from edgeinfer.kernels.codec import available_kernels

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("version*.edge"))


def test_the_current_version_has_golden_files():
    assert HERE / f"version{VERSION}.edge" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_files_are_read_exactly(path):
    expected = np.load(path.with_suffix(".npz"))
    with Reader(path) as reader:
        reader.verify()
        assert reader.graph.name == "golden" and reader.graph.nodes[0].attrs == {"activation": "LeakyRelu", "alpha": 0.1}
        assert reader.metadata == {"source": "tests/golden/make.py"}
        assert set(reader.entries) == set(expected.files)
        for name in reader.entries:
            for kernels in available_kernels():
                found = reader.decode(name, kernels)
                assert found.dtype == expected[name].dtype and found.shape == expected[name].shape
                assert found.tobytes() == expected[name].tobytes(), f"{name} by {kernels}"
