"""The container that most tests of the runtime use."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
from small import small_model  # noqa: E402


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(ONNX, container with quantizer ``none``) of :func:`small_model`."""
    import edgeinfer as ei

    folder = tmp_path_factory.mktemp("small")
    onnx.save(small_model(), folder / "small.onnx")
    ei.compress(str(folder / "small.onnx"), str(folder / "small.edge"), quantizer="none")
    return folder / "small.onnx", folder / "small.edge"
