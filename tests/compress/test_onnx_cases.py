"""ONNX's own cases for single operators, through the importer: right where it takes them, properly refused where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reference_executor import execute

onnx = pytest.importorskip("onnx")

from edgeinfer.compress.importer import import_model  # noqa: E402
from edgeinfer.errors import UnsupportedModelError  # noqa: E402

#: less than onnx 1.14 has and edgeinfer can do; a change that makes the importer refuse everything must not pass
AT_LEAST = 500


@pytest.mark.filterwarnings("ignore")
def test_cases_of_single_operators(tmp_path: Path) -> None:
    from onnx.backend.test.case.node import collect_testcases

    taken, wrong = 0, []
    path = tmp_path / "model.onnx"
    for case in collect_testcases(None):
        path.write_bytes(case.model.SerializeToString())
        try:
            graph, weights = import_model(path)
        except UnsupportedModelError:
            continue
        except Exception as error:  # noqa: BLE001  every other way to fail is one finding
            wrong.append(f"{case.name}: {type(error).__name__} {error}")
            continue
        names = [value.name for value in case.model.graph.input]
        for inputs, outputs in case.data_sets:
            if any(isinstance(array, onnx.TensorProto) for array in (*inputs, *outputs)):
                continue
            taken += 1
            got = execute(graph, weights, dict(zip(names, map(np.asarray, inputs), strict=True)))
            for value, found, expected in zip(graph.outputs, got, map(np.asarray, outputs), strict=True):
                form = (found.dtype, found.shape) == (expected.dtype, expected.shape) and value.dtype == found.dtype.name
                if not form or not np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-3, atol=1e-5, equal_nan=True):
                    wrong.append(f"{case.name}: output {value.name} differs")
    assert not wrong, "\n".join(wrong)
    assert taken >= AT_LEAST
