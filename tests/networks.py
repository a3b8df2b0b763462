"""Networks for tests: the nine "light" ones of the ``onnx`` package with weights that let a signal through, and the shared models.

The light files hold constants in place of weights, and with their batch-norm statistics the signal dies. Here every constant becomes
a seeded random weight (He: ``N(0, sqrt(2 / fan_in))``) and every batch-norm statistic is measured, layer by layer, on smooth random
images, so that two such images give clearly different outputs. The same name gives the same network everywhere.

Shared models are looked for in ``$EDGEINFER_SHARED``, else in ``../shared`` beside the repository. Networks that took long to make
are kept as files in ``$EDGEINFER_TEST_CACHE`` (default: a folder under the system's temporary directory).
"""

from __future__ import annotations

import lzma
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
SHARED = (
    "cifar_resnet20",
    "cifar_resnet32",
    "cifar_resnet56",
    "cifar_vgg16",
    "googlenet",
    "squeezenet_dc",
    "mobilenetv2_dq",
    "minilm",
    "nsnet2",
    "yunet_n_320_320",
)
REFUSED = "silero_vad_16k_op15"

_VERSION = 1  # in the names of kept files; raise it when the networks change
_IMAGES = 3  # images for batch-norm statistics


def smooth_images(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """``count`` smooth random images, float32 ``[count, *shape]`` with shape ``(C, H, W)``.

    Coarse noise, enlarged bilinearly; mean about 0, variance 1.
    """
    generator = np.random.default_rng(seed)
    channels, height, width = shape
    coarse = generator.standard_normal((count, channels, 9, 9)).astype(np.float32)

    def enlarge(size: int) -> np.ndarray:
        at = np.linspace(0, 8, size)
        low = np.minimum(at.astype(int), 7)
        matrix = np.zeros((size, 9), np.float32)
        matrix[np.arange(size), low] = 1 - (at - low)
        matrix[np.arange(size), low + 1] += at - low
        return matrix

    images = np.einsum("yi,xj,ncij->ncyx", enlarge(height), enlarge(width), coarse, optimize=True)
    return np.ascontiguousarray(images / images.std(), dtype=np.float32)


def drawn_faces(count: int, seed: int) -> np.ndarray:
    """Three drawn faces, large, middling and tiny, on a smooth background: ``[count, 3, 320, 320]`` in 0..255, channels in BGR order.

    Without a face every score of a face detector is nearly 0, and comparing scores compares rounding errors of Sigmoid.
    """
    generator = np.random.default_rng(seed)
    images = smooth_images(count, (3, 320, 320), seed) * 25 + 110
    row, column = np.mgrid[0:320, 0:320].astype(np.float32)
    parts = (  # colour, centre and radii for a face of about 200 pixels: hair, skin, brows, eyes, nose, mouth
        ((40, 40, 50), (0, -25), (80, 95)),
        ((150, 180, 225), (0, 0), (70, 95)),
        ((70, 90, 120), (-28, -30), (17, 4)),
        ((70, 90, 120), (28, -30), (17, 4)),
        ((30, 30, 40), (-28, -15), (12, 7)),
        ((30, 30, 40), (28, -15), (12, 7)),
        ((110, 140, 190), (0, 15), (10, 14)),
        ((70, 70, 170), (0, 48), (26, 8)),
    )
    for image in images:
        for low, high, x, y in ((0.85, 1.1, 110, 160), (0.3, 0.45, 240, 90), (0.12, 0.16, 260, 240)):
            size, dx, dy = generator.uniform(low, high), generator.uniform(-15, 15), generator.uniform(-15, 15)
            for colour, centre, radii in parts:
                along = (column - x - dx - centre[0] * size) / (radii[0] * size)
                down = (row - y - dy - centre[1] * size) / (radii[1] * size)
                cover = np.clip(3.5 - 3 * np.hypot(along, down), 0, 1)
                image += cover * (np.array(colour, np.float32)[:, None, None] - image)
    return np.clip(images, 0, 255).astype(np.float32)


def light_source(name: str) -> Path:
    """The file of a light network as the ``onnx`` package ships it."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip(f"this onnx package has no {path.name}")
    return path


def light_network(name: str) -> onnx.ModelProto:
    """A light network (a name of ``LIGHT``) with random weights and measured batch-norm statistics; input ``[1, 3, 224, 224]``."""
    if not _has_batch_norm(onnx.load(light_source(name))):
        return _build(name)
    return onnx.load(light_network_file(name))


def light_network_file(name: str) -> Path:
    """:func:`light_network` as a file (VGG has 575 MB); made on first use and kept."""
    folder = Path(os.environ.get("EDGEINFER_TEST_CACHE") or Path(tempfile.gettempdir()) / "edgeinfer-test-networks")
    path = folder / f"light_{name}-{_VERSION}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = _build(name)
        part = folder / f".{path.name}.{os.getpid()}"
        onnx.save(model, part)
        part.replace(path)
    return path


def shared_folder() -> Path | None:
    """The folder with ``models`` and ``data`` for tests, or ``None`` where it is absent."""
    folder = Path(os.environ.get("EDGEINFER_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    return folder if (folder / "models").is_dir() else None


def shared_model(name: str) -> Path:
    """Path of a shared model (``.onnx`` or ``.onnx.xz``); skips the test where the folder is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("the folder of shared models is absent (EDGEINFER_SHARED, or ../shared beside the repository)")
    for ending in (".onnx", ".onnx.xz"):
        path = folder / "models" / (name + ending)
        if path.exists():
            return path
    raise FileNotFoundError(f"{name} in {folder / 'models'}")


def load_model(path: Path) -> onnx.ModelProto:
    """Read ``.onnx`` or ``.onnx.xz``."""
    data = lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()
    return onnx.load_model_from_string(data)


def shared_inputs(name: str, count: int = 1, seed: int = 0, length: int = 24) -> dict[str, np.ndarray]:
    """Random inputs of a shared model: smooth images in the range it was trained on, drawn faces, token ids, or log-spectrum features.

    ``count``: batch; ``length``: tokens or frames where that is free.
    """
    generator = np.random.default_rng(seed)
    if name.startswith("cifar"):
        return {"input": smooth_images(count, (3, 32, 32), seed)}
    if name in ("googlenet", "squeezenet_dc"):
        side = 224 if name == "googlenet" else 227
        return {"data": smooth_images(count, (3, side, side), seed) * 60}
    if name == "mobilenetv2_dq":
        return {"input": np.clip(smooth_images(count, (3, 224, 224), seed) / 2, -1, 1)}
    if name == "yunet_n_320_320":
        return {"input": drawn_faces(count, seed)}
    if name == "minilm":
        mask = np.ones((count, length), np.int64)
        mask[-1, length - length // 4 :] = 0
        return {
            "input_ids": generator.integers(1000, 30000, (count, length)),
            "attention_mask": mask,
            "token_type_ids": np.zeros((count, length), np.int64),
        }
    if name == "nsnet2":
        return {"features": (generator.standard_normal((count, length, 161)) * 2 - 4).astype(np.float32)}
    raise KeyError(name)


def _has_batch_norm(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "BatchNormalization" for node in model.graph.node)


def _build(name: str) -> onnx.ModelProto:
    model = onnx.load(light_source(name))
    graph = model.graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made: dict[str, np.ndarray] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            made[node.output[0]] = np.broadcast_to(np.float32(0), tuple(arrays.pop(node.input[0])))
        else:
            nodes.append(node)
    made.update({key: arrays.pop(key) for key in [k for k, a in arrays.items() if a.dtype == np.float32]})
    for key, role in _roles(nodes).items():
        if key in made:
            made[key] = _fill(key, role, made[key].shape)
    stored = {t.name for t in graph.initializer}
    arrays.update(made)
    data = next(v for v in graph.input if v.name not in stored)
    if any(node.op_type == "BatchNormalization" for node in nodes):
        _measure_statistics(nodes, arrays, data.name, seed=zlib.crc32(name.encode()))
    used = {i for node in nodes for i in node.input}
    weights = [numpy_helper.from_array(np.ascontiguousarray(a), key) for key, a in arrays.items() if key in used]
    built = helper.make_graph(nodes, graph.name or name, [data], list(graph.output), weights)
    return helper.make_model(built, opset_imports=list(model.opset_import), ir_version=4)


def _roles(nodes: list[onnx.NodeProto]) -> dict[str, str]:
    """What each constant is for: weight, bias, gamma, beta, mean, variance. Looks through Reshape and Unsqueeze of constants."""
    source = {n.output[0]: n.input[0] for n in nodes if n.op_type in ("Reshape", "Unsqueeze")}
    roles: dict[str, str] = {}
    for node in nodes:
        names = {
            "Conv": ("", "weight", "bias"),
            "Gemm": ("", "weight", "bias"),
            "BatchNormalization": ("", "gamma", "beta", "mean", "variance"),
            "Mul": ("", "gamma"),
            "Add": ("", "beta"),
        }.get(node.op_type, ())
        for key, role in zip(node.input, names, strict=False):
            if role:
                while key in source:
                    key = source[key]
                roles[key] = role
    return roles


def _fill(key: str, role: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    if role in ("mean", "variance"):
        return np.full(shape, float(role == "variance"), np.float32)
    values = generator.standard_normal(shape, dtype=np.float32)
    if role == "weight":
        fan_in = shape[3] if len(shape) == 4 and shape[:2] == (1, 1) else int(np.prod(shape[1:]))  # caffe keeps matrices as [1, 1, M, K]
        values *= np.float32(np.sqrt(2 / fan_in))
    elif role == "gamma":
        values = 1 + np.float32(0.1) * values
    else:
        values *= np.float32(0.05)
    return values


def _measure_statistics(nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], data: str, seed: int) -> None:
    """Set mean and variance of every BatchNormalization in ``arrays`` to those of its input over a few smooth random images.

    One pass: every node is run alone by onnxruntime as soon as its inputs exist, and its batch norm is set before it runs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    values = {data: [image[None] for image in smooth_images(_IMAGES, (3, 224, 224), seed)]}
    last_use = {name: i for i, node in enumerate(nodes) for name in node.input}
    for i, node in enumerate(nodes):
        if node.op_type == "BatchNormalization":
            pixels = np.concatenate([v.reshape(v.shape[1], -1) for v in values[node.input[0]]], axis=1)
            arrays[node.input[3]] = pixels.mean(axis=1, dtype=np.float64).astype(np.float32)
            arrays[node.input[4]] = pixels.var(axis=1, dtype=np.float64).astype(np.float32)
        constants = {k: np.ascontiguousarray(arrays[k]) for k in node.input if k not in values}
        session = onnxruntime.InferenceSession(_alone(node, constants, values), options, providers=["CPUExecutionProvider"])
        fed = [k for k in dict.fromkeys(node.input) if k in values]
        runs = max((len(values[k]) for k in fed), default=1)
        results = [session.run(node.output[:1], {k: values[k][r % len(values[k])] for k in fed})[0] for r in range(runs)]
        values[node.output[0]] = results
        for k in fed:
            if last_use[k] == i:
                del values[k]


def _alone(node: onnx.NodeProto, constants: dict[str, np.ndarray], values: dict[str, list[np.ndarray]]) -> bytes:
    fed = [k for k in dict.fromkeys(node.input) if k in values]
    kind = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.int64): onnx.TensorProto.INT64}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(k, kind[values[k][0].dtype], values[k][0].shape) for k in fed],
        [helper.make_empty_tensor_value_info(node.output[0])],
        [numpy_helper.from_array(a, k) for k, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4).SerializeToString()
