"""The demo's files and figures: what ships is whole, reaches its accuracy, and shows what the demo says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.cli import demo, main
from edgeinfer.container import Reader
from edgeinfer.demo import trial
from edgeinfer.errors import PlanError

SHIPPED = trial.FOLDER / "digits.edge"
SOURCE = trial.FOLDER / "digits.onnx.xz"


def test_shipped_files_are_small_and_whole() -> None:
    assert sum(path.stat().st_size for path in (SHIPPED, SOURCE, trial.SAMPLES)) < 2_000_000
    with Reader(str(SHIPPED)) as reader:
        reader.verify()
        assert {entry.quantizer for entry in reader.entries.values() if not entry.is_plain and entry.weights >= 4096} == {"sign"}
    with np.load(trial.SAMPLES) as samples:
        assert samples["digits"].shape == (360, 8, 8) and samples["digits"].max() == 16 and samples["labels"].shape == (360,)


def test_shipped_container_is_what_compress_makes_of_the_shipped_network(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from edgeinfer.compress import compress

    compress(SOURCE, tmp_path / "digits.edge", **demo.OPTIONS)
    with Reader(str(SHIPPED)) as shipped, Reader(str(tmp_path / "digits.edge")) as made:
        assert shipped.graph == made.graph
        assert {name: entry.coder for name, entry in shipped.entries.items()} == {name: e.coder for name, e in made.entries.items()}
        for name, entry in made.entries.items():
            if entry.is_plain:
                np.testing.assert_array_equal(shipped.plain(name), made.plain(name), name)
                continue
            # another NumPy may add in another order and round a scale or a mean the other way
            ours, theirs = made.decode(name), shipped.decode(name)
            assert np.abs(ours - theirs).max() <= entry.max_error and (ours != theirs).mean() < 0.01, name


def test_trial_under_the_ceiling() -> None:
    found = trial.trial(str(SHIPPED), trial.CEILING)
    assert found["accuracy"] >= 0.985
    assert found["peak_rss"] <= trial.CEILING
    assert found["peak_rss"] == pytest.approx(found["predicted_peak_rss"], rel=0.05)


def test_trial_under_a_ceiling_too_low() -> None:
    found = trial.trial(str(SHIPPED), 8 << 20)
    assert set(found) == {"error", "smallest_ceiling"} and found["smallest_ceiling"] > 8 << 20
    with pytest.raises(RuntimeError, match="no such file"):
        trial.trial("/nonexistent/digits.edge", None)


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    assert main(["demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    small, full = found["compressed"], found["fp32"]
    assert not found["shipped"] and found["model_bytes"]["fp32"] > 12 * found["model_bytes"]["compressed"]
    assert small["peak_rss"] <= small["memory_limit"] == trial.CEILING
    assert full["accuracy"] >= 0.985 and small["accuracy"] >= full["accuracy"] - 0.01 and small["agreement"] >= 0.98
    # what it is about: with fp32 weights the same network does not stay in memory under this ceiling
    assert full["peak_rss"] > trial.CEILING and (full["refused"] or full["streamed_bytes"] > 0) and not small["streamed_bytes"]
    text = demo._text(found)
    assert "with fp32   the same network takes" in text and f"{found['model_bytes']['bits_per_weight']:.2f} bits per weight" in text


def test_demo_without_the_convert_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    present = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else present(name, *rest))
    assert main(["demo"]) == 0
    text = capsys.readouterr().out
    assert "digits.edge that ships" in text and "edgeinfer[convert]" in text and "fp32 weights:" not in text


def test_demo_under_a_ceiling_too_low(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--memory-limit", "8MiB"]) == PlanError.exit_code
    spoken = capsys.readouterr()
    assert spoken.out == "" and spoken.err.count("\n") == 1
