"""The commands on a small network: keys of the JSON, texts, exit codes, and nothing left behind when they fail."""

from __future__ import annotations

import json
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeinfer import errors
from edgeinfer.cli import COMMANDS, main
from edgeinfer.container import Reader, Writer
from edgeinfer.graph import Graph

onnx = pytest.importorskip("onnx")

LATENCY = {"min", "p50", "p90", "p99", "first"}
MEASURED = {
    "model", "threads", "batch", "runs", "kernels", "latency_ms", "throughput_per_s", "load_ms", "decode_ms", "compute_ms", "rss_bytes",
    "model_bytes", "faults",
}  # fmt: skip

BENCH = {"against", "batches", "board", "clock_mhz", "cold_start_ms", "energy", "temperature_celsius", "throttling"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEBUG", "KERNELS", "THREADS", "MEMORY_LIMIT"):
        monkeypatch.delenv(f"EDGEINFER_{name}", raising=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one convolution and one product: ``image`` [N, 3, 8, 8] -> ``scores`` [N, 10]."""
    rng = np.random.default_rng(2)
    tensors = {
        "w": rng.normal(size=(64, 3, 5, 5)).astype(np.float32),
        "b": rng.normal(size=64).astype(np.float32),
        "fc": rng.normal(size=(10, 4096)).astype(np.float32),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["image", "w", "b"], ["c"], name="conv", pads=[2, 2, 2, 2]),
        onnx.helper.make_node("Relu", ["c"], ["r"], name="relu"),
        onnx.helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        onnx.helper.make_node("Gemm", ["f", "fc"], ["scores"], name="product", transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["N", 10])],
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    path = tmp_path_factory.mktemp("cli") / "small.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def model(source: Path) -> Path:
    path = source.with_suffix(".edge")
    assert main(["compress", str(source), "-o", str(path), "--quantizer", "kmeans", "--bits", "4"]) == 0
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, np.linspace(-1, 1, 3 * 192, dtype=np.float32).reshape(3, 3, 8, 8))
    return path


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """The JSON that a command prints; stdout must hold nothing else, stderr nothing at all."""
    assert main([*map(str, arguments), "--json"]) == 0
    spoken = capsys.readouterr()
    assert spoken.err == ""
    return json.loads(spoken.out)


def refusal(capsys: pytest.CaptureFixture[str], error: type[errors.EdgeInferError], *arguments: object) -> str:
    """The one line that a failing command says; its exit code must be that of ``error``."""
    code = main([*map(str, arguments)])
    spoken = capsys.readouterr()
    assert code == error.exit_code, spoken.err
    assert spoken.out == ""
    assert spoken.err.startswith("edgeinfer: error: ") and spoken.err.count("\n") == 1
    return spoken.err


# ---- what they answer


def test_compress(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "compress", source, "-o", tmp_path / "a.edge", "--quantizer", "uniform", "--coder", "huffman", "--bits", "5")
    assert found["totals"]["weights"] >= 64 * 75 + 10 * 4096
    assert found["totals"]["ratio"] == pytest.approx(found["totals"]["fp32_bytes"] / found["totals"]["bytes"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.edge"]
    assert main(["compress", str(source), "-o", str(tmp_path / "b.edge")]) == 0
    assert "times smaller" in capsys.readouterr().out


def test_inspect(source: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "inspect", model, "--verify", "--compare", source)
    coded = [layer for layer in found["layers"] if layer["quantizer"] == "kmeans"]
    assert {layer["op"] for layer in coded} == {"Conv", "Gemm"}
    for layer in found["layers"]:
        assert {"name", "op", "shape", "quantizer", "coder", "bits_per_weight", "bytes", "max_error"} <= set(layer)
    for layer in coded:
        assert 0 < layer["measured_max_error"] <= layer["max_error"] * (1 + 1e-5)
        assert 0 < layer["relative_rms_error"] < 0.2
    assert all("snr_db" not in layer for layer in found["layers"] if layer not in coded)
    assert set(found["totals"]) == {"fp32_bytes", "bytes", "ratio", "weights"}
    assert found["totals"]["fp32_bytes"] == 4 * found["totals"]["weights"]
    assert main(["inspect", str(model), "--verify", "--compare", str(source)]) == 0
    text = capsys.readouterr().out
    assert "verified" in text and "kmeans" in text and "total: " in text and f"against {source}: " in text


def test_compare_measures_what_the_session_would_multiply(source: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(source).graph.initializer}
    original = {  # images lie with channels last here: what the importer makes of the filters, and of the columns behind Flatten
        "w.channels_last": original["w"].transpose(0, 2, 3, 1),
        "fc.columns": original["fc"].reshape(10, 64, 8, 8).transpose(0, 2, 3, 1).reshape(10, 4096),
    }
    found = answer(capsys, "inspect", model, "--compare", source)
    squares = power = weights = largest = 0.0
    with Reader(model) as reader:
        for layer in found["layers"]:
            if layer["quantizer"] is None:
                continue
            truth = original[layer["name"]]
            error = reader.decode(layer["name"]) - truth
            assert layer["measured_max_error"] == pytest.approx(np.abs(error).max())
            assert layer["rms_error"] == pytest.approx(np.sqrt((error**2).mean()))
            assert layer["snr_db"] == pytest.approx(10 * np.log10((truth**2).sum() / (error**2).sum()))
            squares, power, weights = squares + (error**2).sum(), power + (truth**2).sum(), weights + truth.size
            largest = max(largest, np.abs(error).max())
    total = found["compared"]
    assert (total["tensors"], total["weights"], total["model"]) == (2, weights, str(source))
    assert total["rms_error"] == pytest.approx(np.sqrt(squares / weights)) and total["measured_max_error"] == pytest.approx(largest)
    assert total["snr_db"] == pytest.approx(10 * np.log10(power / squares))
    assert total["relative_rms_error"] == pytest.approx(np.sqrt(squares / power))


def test_compare_with_weights_kept_as_they_are(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact = tmp_path / "exact.edge"
    assert main(["compress", str(source), "-o", str(exact), "--quantizer", "none"]) == 0
    capsys.readouterr()
    total = answer(capsys, "inspect", exact, "--compare", source)["compared"]
    assert total["measured_max_error"] == total["rms_error"] == 0 and total["snr_db"] is None
    assert main(["inspect", str(exact), "--compare", str(source)]) == 0
    assert "SNR in dB exact" in capsys.readouterr().out


def test_compare_with_another_network(source: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = onnx.load(source)
    proto.graph.node[0].input[1] = "filters"
    proto.graph.initializer[0].name = "filters"
    narrow = np.ones((7, 4096), np.float32)
    proto.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(narrow, "fc"))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    other = tmp_path / "other.onnx"
    onnx.save(proto, other)
    message = refusal(capsys, errors.ModelFormatError, "inspect", model, "--compare", other)
    assert "not in " in message and "'w.channels_last'" in message and "'filters.channels_last'" in message
    assert "'fc.columns' (expected [10, 4096], found [7, 4096])" in message
    proto = onnx.load(source)
    bad = onnx.numpy_helper.to_array(proto.graph.initializer[2]).copy()
    bad[3, 5] = np.nan
    proto.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(bad, "fc"))
    onnx.save(proto, other)
    assert "'fc.columns'" in refusal(capsys, errors.ModelFormatError, "inspect", model, "--compare", other, "--json")


def test_inspect_alone_needs_nothing_of_the_compress_trip(model: Path) -> None:
    program = (
        "import sys; from edgeinfer.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or [m for m in sys.modules if m.startswith(('onnx', 'edgeinfer.compress'))] or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", program, "inspect", str(model), "--verify"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_compress_like(source: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = tmp_path / "again.edge"
    assert main(["compress", str(source), "-o", str(again), "--like", str(model)]) == 0
    assert again.read_bytes() == model.read_bytes()
    capsys.readouterr()
    for option in (["--bits", "4"], ["--quantizer", "kmeans"], ["--coder", "rans"], ["--recipe", "r.yaml"]):
        assert "--like" in refusal(capsys, errors.UsageError, "compress", source, "-o", tmp_path / "x.edge", "--like", model, *option)
    refusal(capsys, errors.ContainerError, "compress", source, "-o", tmp_path / "x.edge", "--like", source)
    refusal(capsys, errors.ContainerError, "compress", source, "-o", tmp_path / "x.edge", "--like", tmp_path / "absent.edge")
    bare = tmp_path / "bare.edge"
    with Reader(model) as reader, Writer(bare, Graph("bare", (), (), ())):
        assert reader.entries
    assert "without a recipe" in refusal(capsys, errors.UsageError, "compress", source, "-o", tmp_path / "x.edge", "--like", bare)
    assert {p.name for p in tmp_path.iterdir()} == {"again.edge", "bare.edge"}


def test_plan(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "plan", model, "--memory-limit", "512MiB", "--batch", "4")
    assert {
        "memory_limit", "smallest_ceiling", "predicted_peak_rss", "arena_bytes", "compressed_resident_bytes", "batch", "segments",
        "predicted_ms_per_image", "residency",
    } <= set(found)  # fmt: skip
    assert found["memory_limit"] == 512 << 20 and found["batch"] == 4
    assert all({"nodes", "batch"} <= set(segment) for segment in found["segments"])
    assert main(["plan", str(model)]) == 0
    assert "predicted peak" in capsys.readouterr().out


def test_plan_page(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import xml.etree.ElementTree

    out = tmp_path / "plan.html"
    found = answer(capsys, "plan", model, "--batch", "8", "--latency-limit", "10s", "--report", out)
    page = out.read_text()
    assert found["latency_limit"] == 10.0 and page.count("<svg") == 3
    for drawing in page.split("<svg")[1:]:
        xml.etree.ElementTree.fromstring("<svg" + drawing[: drawing.index("</svg>")] + "</svg>")
    assert all(name in page for name in ("product", "scratch", str(found["predicted_peak_rss"])))
    assert "http://" not in page and "https://" not in page and "<script" not in page
    refusal(capsys, errors.PlanError, "plan", model, "--latency-limit", "1us")
    refusal(capsys, errors.UsageError, "plan", model, "--report", tmp_path / "absent" / "plan.html")


def test_plan_that_does_not_fit(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(model), "--memory-limit", "1MiB", "--json"]) == errors.PlanError.exit_code
    spoken = capsys.readouterr()
    found = json.loads(spoken.out)
    assert set(found) == {"memory_limit", "smallest_ceiling", "error"}
    assert found["memory_limit"] == 1 << 20 < found["smallest_ceiling"]
    assert spoken.err.count("\n") == 1 and str(found["smallest_ceiling"]) in spoken.err
    message = refusal(capsys, errors.PlanError, "plan", model, "--memory-limit", "1MiB")
    assert str(found["smallest_ceiling"] >> 20) in message


def test_plan_takes_the_limit_of_the_environment(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEINFER_MEMORY_LIMIT", "2MiB")
    refusal(capsys, errors.PlanError, "plan", model)


def test_run(model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.npz"
    found = answer(capsys, "run", model, images, "-o", out, "--top", "3", "--profile", "--memory-limit", "1GiB", "--threads", "1")
    assert set(found) >= MEASURED and set(found["latency_ms"]) == LATENCY
    assert set(found["rss_bytes"]) == {"baseline", "peak", "predicted_peak", "ceiling", "anonymous", "file"}
    assert found["rss_bytes"]["ceiling"] == 1 << 30 and found["threads"] == 1 and found["batch"] == 3
    assert {layer["op"] for layer in found["layers"]} >= {"Conv", "Gemm"}
    with np.load(out) as outputs:
        scores = outputs["scores"]
    assert scores.shape == (3, 10) and found["outputs"] == {"scores": {"shape": [3, 10], "dtype": "float32"}}
    for row, best in zip(scores, found["top"], strict=True):
        assert [b["class"] for b in best] == list(np.argsort(-row)[:3])
        assert [b["value"] for b in best] == pytest.approx(np.sort(row)[::-1][:3].tolist())


def test_run_says_the_same_for_npy_npz_and_slices(model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "in.npz", image=np.load(images), other=np.zeros(3))
    results = []
    for arguments in ([images], [tmp_path / "in.npz"], [images, "--batch", "2"], [images, "--threads", "2"]):
        assert main(["run", str(model), *map(str, arguments), "-o", str(tmp_path / "o.npz")]) == 0
        with np.load(tmp_path / "o.npz") as outputs:
            results.append(outputs["scores"])
    assert "outputs   written" in capsys.readouterr().out
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_run_on_an_image(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "photo.png")
    tensor = ((pixels.astype(np.float32) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).transpose(2, 0, 1)[None].astype(np.float32)
    np.save(tmp_path / "photo.npy", tensor)
    options = ["--mean", "0.5,0.4,0.3", "--std", "0.2,0.3,0.4", "--top", "10"]
    seen = answer(capsys, "run", model, tmp_path / "photo.png", *options)
    told = answer(capsys, "run", model, tmp_path / "photo.npy", "--top", "10")
    assert [b["class"] for b in seen["top"][0]] == [b["class"] for b in told["top"][0]]
    assert [b["value"] for b in seen["top"][0]] == pytest.approx([b["value"] for b in told["top"][0]], rel=1e-4, abs=1e-4)


def test_bench(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "bench", model, "--duration", "100ms", "--warmup", "10ms", "--batch", "2", "--memory-limit", "1GiB")
    assert set(found) == MEASURED | BENCH and found["against"] == {}
    assert found["runs"] >= 1 and found["latency_ms"]["min"] <= found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert found["throughput_per_s"] > 0 and found["model_bytes"]["fp32"] > found["model_bytes"]["compressed"]
    assert set(found["faults"]) == {"major", "minor"}


def test_bench_against_onnxruntime(model: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    found = answer(capsys, "bench", model, "--duration", "100ms", "--warmup", "10ms", "--against", f"onnxruntime:{source}")
    peer = found["against"]["onnxruntime"]
    assert set(peer["latency_ms"]) == LATENCY
    assert peer["latency_ratio_p50"] == pytest.approx(found["latency_ms"]["p50"] / peer["latency_ms"]["p50"])
    assert peer["rss_ratio"] == pytest.approx(found["rss_bytes"]["peak"] / peer["rss_bytes"]["peak"])
    assert peer["rss_bytes"]["peak"] > 10 << 20
    packed = source.with_suffix(".onnx.xz")
    packed.write_bytes(lzma.compress(source.read_bytes()))
    answer(capsys, "bench", model, "--duration", "10ms", "--warmup", "0", "--against", f"onnxruntime:{packed}")
    packed.write_bytes(b"not xz")
    assert "cannot be unpacked" in refusal(capsys, errors.UsageError, "bench", model, "--warmup", "0", "--against", f"onnxruntime:{packed}")


def test_ops(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "ops")
    assert found["operators"]["Conv"] == "native" and "numpy" in found["operators"].values()
    assert set(found["quantizers"]) == {"none", "uniform", "kmeans", "sign"}
    assert set(found["coders"]) == {"raw", "packed", "huffman", "rans", "gaps"}
    assert found["kernels"]["available"][-1] == "plain" and found["kernels"]["used"] in found["kernels"]["available"]
    assert main(["ops"]) == 0
    assert "Conv" in capsys.readouterr().out


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.edge").write_bytes(bytes(3 << 20))
    found = answer(capsys, "doctor", "--folder", tmp_path)
    assert found["memory_bytes"]["total"] > 0 and found["cpu"]["cores"] >= 1
    assert found["storage"]["bytes"] == 3 << 20 and found["storage"]["bytes_per_s"] > 0
    assert set(found["cgroup"]) == {"limit", "version", "enforced", "path"}
    assert main(["doctor", "--folder", str(tmp_path)]) == 0
    assert "kernels" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["weights.edge"], "the doctor writes nothing"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"edgeinfer {command}" in text.partition("example:")[2] and "--json" in text


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in COMMANDS)
    modules = {p.stem for p in (Path(main.__code__.co_filename).parent).glob("*.py")}
    assert set(COMMANDS) <= modules


def test_json_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops", "--json", str(tmp_path / "ops.json")]) == 0
    assert capsys.readouterr().out == ""
    assert "operators" in json.loads((tmp_path / "ops.json").read_text())
    assert [p.name for p in tmp_path.iterdir()] == ["ops.json"]


# ---- how they fail


def test_unknown_commands_and_options(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "compress" in refusal(capsys, errors.UsageError, "compres")
    refusal(capsys, errors.UsageError, "inspect")
    refusal(capsys, errors.UsageError, "inspect", model, "--verfy")
    refusal(capsys, errors.UsageError, "inspect", model, "--ver")  # no abbreviations: they break when options are added
    assert "64MiB" in refusal(capsys, errors.UsageError, "plan", model, "--memory-limit", "many")
    refusal(capsys, errors.UsageError, "run", model, "x.npy", "--threads", "0")
    assert "onnxruntime" in refusal(capsys, errors.UsageError, "bench", model, "--against", "tvm:small.onnx")
    assert ".param" in refusal(capsys, errors.UsageError, "bench", model, "--against", "ncnn:small.bin")
    refusal(capsys, errors.UsageError, "bench", model, "--batches", "1,x")
    refusal(capsys, errors.UsageError, "bench", model, "--against", "onnxruntime:")
    refusal(capsys, errors.UsageError, "run", model, "x.wav")
    refusal(capsys, errors.UsageError, "doctor", "--folder", "/nonexistent")


def test_compress_refuses_options_that_contradict(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["compress", source, "-o", tmp_path / "x.edge"]
    refusal(capsys, errors.UsageError, *out, "--bits", "9")
    refusal(capsys, errors.UsageError, *out, "--quantizer", "none", "--bits", "4")
    refusal(capsys, errors.UsageError, *out, "--recipe", "r.yaml", "--bits", "4")
    refusal(capsys, errors.UsageError, "compress", source, "-o", tmp_path / "no" / "x.edge")
    refusal(capsys, errors.UsageError, "compress", source, "-o", tmp_path)
    refusal(capsys, errors.UsageError, "compress", source)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_what_they_should_be(model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model at all" * 50)
    out = tmp_path / "out.edge"
    refusal(capsys, errors.ModelFormatError, "compress", broken, "-o", out)
    assert not out.exists() and {p.name for p in tmp_path.iterdir()} == {"broken.onnx", "images.npy"}
    code = main(["compress", str(tmp_path / "missing.onnx"), "-o", str(out)])
    assert code != 0 and "missing.onnx" in capsys.readouterr().err
    whole = model.read_bytes()
    for name, content in {
        "short": whole[: len(whole) // 2],
        "text": b"hello",
        "empty": b"",
        "flipped": whole[:20] + b"\xff" + whole[21:],
    }.items():
        bad = tmp_path / f"{name}.edge"
        bad.write_bytes(content)
        for command in (["inspect", bad], ["plan", bad], ["run", bad, images], ["bench", bad]):
            assert bad.name in refusal(capsys, errors.ContainerError, *command)
    flipped = bytearray(whole)
    flipped[-5 - len(whole) // 4] ^= 1
    (tmp_path / "tile.edge").write_bytes(flipped)
    refusal(capsys, errors.ContainerError, "inspect", tmp_path / "tile.edge", "--verify")


def test_inputs_that_do_not_fit(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {
        "shape": np.zeros((1, 3, 9, 8), np.float32),
        "rank": np.zeros((3, 8, 8), np.float32),
        "dtype": np.zeros((1, 3, 8, 8), np.float64),
        "empty": np.zeros((0, 3, 8, 8), np.float32),
    }
    out = tmp_path / "out.npz"
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert "image" in refusal(capsys, errors.InputError, "run", model, tmp_path / f"{name}.npy", "-o", out)
    np.savez(tmp_path / "names.npz", picture=np.zeros((1, 3, 8, 8), np.float32))
    message = refusal(capsys, errors.InputError, "run", model, tmp_path / "names.npz", "-o", out)
    assert "image" in message and "picture" in message
    for name in ("text.npy", "text.npz", "text.png"):
        (tmp_path / name).write_text("hello")
        refusal(capsys, errors.InputError, "run", model, tmp_path / name, "-o", out)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    refusal(capsys, errors.InputError, "run", model, tmp_path / "objects.npy", "-o", out)
    assert "absent.npy" in refusal(capsys, errors.InputError, "run", model, tmp_path / "absent.npy", "-o", out)
    assert not out.exists()


def test_ceiling_too_low(model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, errors.PlanError, "run", model, images, "--memory-limit", "4MiB", "-o", tmp_path / "out.npz")
    assert "smallest ceiling" in message and not (tmp_path / "out.npz").exists()


def test_kernels_that_are_not_there(model: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEINFER_KERNELS", "abacus")
    assert "plain" in refusal(capsys, errors.KernelError, "run", model, images)
    assert answer(capsys, "doctor")["kernels"]["used"] is None, "the doctor reports it instead of failing"


def test_internal_errors_show_no_traceback_unless_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeinfer.cli import ops

    def fail() -> dict:
        raise ZeroDivisionError("on purpose\nin two lines")

    monkeypatch.setattr(ops, "survey", fail)
    assert "internal error: ZeroDivisionError: on purpose in two lines" in refusal(capsys, errors.EdgeInferError, "ops")
    monkeypatch.setenv("EDGEINFER_DEBUG", "1")
    assert main(["ops"]) == 1
    assert "Traceback" in capsys.readouterr().err


def start(*arguments: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "edgeinfer.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


def test_interrupt(model: Path) -> None:
    process = start("bench", model, "--duration", "60s", "--warmup", "0s", "--json")
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "" and err == ""


def test_closed_pipe(model: Path) -> None:
    process = start("ops", "--json")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert process.returncode == 141 and err == ""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes a while to compress: 24 products of a million weights."""
    weights = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    names = [f"w{n}" for n in range(24)]
    nodes = [onnx.helper.make_node("MatMul", ["x" if n == 0 else f"x{n}", w], [f"x{n + 1}"]) for n, w in enumerate(names)]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 1024]) for n in ("x", "x24")]
    graph = onnx.helper.make_graph(nodes, "large", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weights, n) for n in names])
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_compress_leaves_nothing(large: Path, tmp_path: Path, number: int) -> None:
    process = start("compress", large, "-o", tmp_path / "out.edge", "--quantizer", "kmeans", "--bits", "6")
    while process.poll() is None and not list(tmp_path.iterdir()):
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(source: Path, model: Path, images: Path, tmp_path: Path) -> None:
    import resource

    folder = tmp_path / "full"
    folder.mkdir()
    for arguments in (
        ("compress", source, "-o", folder / "out.edge"),
        ("run", model, images, "-o", folder / "out.npz"),
        ("inspect", model, f"--json={folder / 'out.json'}"),
    ):
        # a file may not grow beyond 64 bytes: the error differs from that of a full disk by its number only
        process = start(*arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)))
        out, err = process.communicate(timeout=60)
        assert process.returncode in (1, 5) and out == "" and err.count("\n") == 1 and "File too large" in err, err
        assert list(folder.iterdir()) == []


def test_devices_and_pipes_stay_what_they_are(source: Path, model: Path, images: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start("plan", model, f"--json={pipe}")
    assert json.loads(pipe.read_text())["batch"] == 1
    assert process.wait(timeout=30) == 0 and process.stdout.read() == "" and pipe.is_fifo()
    process = start("ops", "--json=/dev/stdout")
    assert "kernels" in json.loads(process.communicate(timeout=30)[0])
    before = os.stat("/dev/null")
    assert main(["run", str(model), str(images), "-o", "/dev/null", "--json=/dev/null"]) == 0
    assert main(["compress", str(source), "-o", str(pipe)]) == errors.UsageError.exit_code
    assert (before.st_mode, before.st_rdev) == (os.stat("/dev/null").st_mode, os.stat("/dev/null").st_rdev)
    assert pipe.is_fifo() and len(list(tmp_path.iterdir())) == 2


def test_inputs_that_cannot_be_read(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("none.npy", "none.npz", "none.png", "folder.npy", "folder.npz", "folder.png"):
        if name.startswith("folder"):
            (tmp_path / name).mkdir()
        for command in (["run", model, tmp_path / name], ["bench", model, "--input", tmp_path / name]):
            assert name in refusal(capsys, errors.InputError, *command)
    message = refusal(
        capsys, errors.ModelFormatError, "bench", model, "--duration", "0", "--warmup", "0", "--against", "onnxruntime:none.onnx"
    )
    assert "none.onnx" in message


def test_a_measurement_of_no_time_is_one_run(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "bench", model, "--duration", "0", "--warmup", "0")["runs"] >= 1


def test_batches_beyond_reason(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1048576" in refusal(capsys, errors.PlanError, "plan", model, "--batch", "100000000000000")


def test_arrays_that_the_model_does_not_want_are_not_read(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((1, 3, 8, 8), np.float32), labels=np.array(["a"], dtype=object))  # pickled: unreadable
    answer(capsys, "run", model, tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", image=np.zeros((2, 3, 8, 8), np.float32), other=np.zeros(3 << 20, np.uint8))
    assert answer(capsys, "run", model, tmp_path / "b.npz")["batch"] == 2


def test_a_wrong_limit_in_the_environment_is_named(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEINFER_MEMORY_LIMIT", "huge")
    for command in (["plan", model], ["bench", model]):
        assert "EDGEINFER_MEMORY_LIMIT: 'huge'" in refusal(capsys, errors.UsageError, *command)
