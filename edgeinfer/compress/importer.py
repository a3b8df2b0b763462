"""ONNX file -> (Graph, Weights): read, bring to the normal form (:mod:`.upgrade`), rewrite (:mod:`.passes`), check.

Weights stay views into the file until a pass changes them. Everything that edgeinfer cannot do with a model is reported in one error.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeInferError, InputError, ModelFormatError, UnsupportedModelError
from ..graph import Graph, Node, TensorSpec
from . import passes, protobuf
from .builder import Builder, Problem, RawNode, Unreadable, complain
from .draft import SCHEMES, Draft, Weights
from .upgrade import NEWEST, OLDEST, convert, seen_at_sight

# TensorProto.DataType -> NumPy
_DTYPES = {
    **dict(enumerate(("float32", "uint8", "int8", "uint16", "int16", "int32", "int64"), 1)),
    **dict(enumerate(("bool", "float16", "float64", "uint32", "uint64"), 9)),
}
_TYPE_NAMES = {0: "undefined", 8: "string", 14: "complex64", 15: "complex128", 16: "bfloat16"}


def import_model(path: str | Path) -> tuple[Graph, Weights]:
    """Read ``.onnx`` (or ``.onnx.xz``) and return the network in the normal form of :mod:`edgeinfer.graph`, with its weights.

    Raises:
        ModelFormatError: the file is not ONNX or contradicts itself.
        UnsupportedModelError: it uses operators or features that edgeinfer does not have; the message lists all of them.
        DependencyError: the ``onnx`` package (extra ``[convert]``) is missing.
    """
    draft = read(Path(path))
    try:
        passes.run(draft)
    except InputError as error:  # a constant that an operator refuses when it is folded
        raise ModelFormatError(f"{path}: {error}") from None
    return finish(draft)


def read(path: Path) -> Draft:
    """The network of a file in normal form, operators channels-last between Transposes, nothing optimised yet."""
    model, large = protobuf.load(path)
    if model.functions:
        model = _inlined(model, path)
    graph = model.graph
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if not OLDEST <= opset <= NEWEST:
        raise UnsupportedModelError(f"{path}: expected an opset from {OLDEST} to {NEWEST}, found {opset}")

    problems: list[Problem] = []
    weights = _weights(graph, large, path, problems)
    inputs = _inputs(graph, weights, problems)
    _names_are_unique(graph, weights, inputs)
    nodes = []
    for proto in graph.node:
        node = RawNode(proto.op_type, proto.domain, proto.name, list(proto.input), list(proto.output))
        node.attrs = {a.name: _attribute(a, node) for a in proto.attribute}
        nodes.append(node)

    contradiction: ModelFormatError | None = None
    for scheme in range(len(SCHEMES)):
        draft = Draft(graph.name or path.name.split(".")[0], inputs, {}, dict(weights), scheme=scheme)
        draft.output_shapes = {value.name: _declared(value) for value in graph.output}
        builder = Builder(draft, opset)
        builder.poison(p.node for p in problems)
        try:
            for node in nodes:
                _convert(builder, node, path)
        except ModelFormatError as error:
            contradiction = contradiction or error
            if not builder.shapes.sizes:
                break
            continue
        if problems + builder.problems:
            raise complain(problems + builder.problems)
        return _with_outputs(draft, builder, graph, path)
    assert contradiction is not None
    problems += seen_at_sight(nodes)
    raise complain(problems) if problems else contradiction


def _convert(builder: Builder, node: RawNode, path: Path) -> None:
    try:
        convert(builder, node)
    except ModelFormatError:
        raise
    except (EdgeInferError, KeyError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ModelFormatError(f"{path}: {node.op} node {node.name or node.outputs} cannot be understood ({what})") from error


def _with_outputs(draft: Draft, builder: Builder, graph: Any, path: Path) -> Draft:
    for value in graph.output:
        tensor = builder.resolve(value.name)
        if tensor not in builder.shapes:
            raise ModelFormatError(f"{path}: output {value.name!r} is computed by no node")
        draft.outputs[value.name] = tensor
    if not draft.outputs:
        raise ModelFormatError(f"{path}: expected a graph with outputs, found none")
    return draft


def finish(draft: Draft) -> tuple[Graph, Weights]:
    """The draft as a Graph, its outputs under their public names, and the weights that it still uses."""
    _bind_outputs(draft)
    shapes = draft.shapes()
    outputs = []
    for public, tensor in draft.outputs.items():
        declared = draft.output_shapes.get(public, ())
        found = shapes.symbolic(tensor)
        shape: list[int | str] = []
        for axis, d in enumerate(found):
            named = declared[axis] if len(declared) == len(found) else d
            shape.append(named if isinstance(d, str) and isinstance(named, str) and named and d not in shapes.sizes else d)
        outputs.append(TensorSpec(public, shapes.dtype(tensor), tuple(shape)))
    used = {name for node in draft.nodes for name in node.inputs}
    weights = {name: array for name, array in draft.weights.items() if name in used}
    graph = Graph(draft.name, tuple(draft.inputs), tuple(outputs), tuple(draft.nodes), draft.batch, tuple(draft.notes))
    return graph, weights


def _bind_outputs(draft: Draft) -> None:
    computed = {name for node in draft.nodes for name in node.outputs}
    for public, tensor in list(draft.outputs.items()):
        if tensor == public and tensor in computed:
            continue
        shared = list(draft.outputs.values()).count(tensor) > 1
        if tensor in computed and tensor not in draft.outputs and not shared and public not in computed:
            for i, node in enumerate(draft.nodes):
                if tensor in node.inputs or tensor in node.outputs:
                    swap = [tuple(public if n == tensor else n for n in names) for names in (node.inputs, node.outputs)]
                    draft.nodes[i] = Node(node.op, node.name, swap[0], swap[1], node.attrs)
            draft.outputs[public] = public
        else:
            if public in draft.weights:  # a constant that is an output: its name is needed for the copy
                tensor = draft.add_weight(f"{public}.value", draft.weights[public])
            draft.nodes.append(Node("Identity", draft.fresh(f"{public}/copy"), (tensor,), (public,)))
            draft.outputs[public] = public


def _inlined(model: Any, path: Path) -> Any:
    try:
        from onnx import inliner

        return inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises RuntimeError and others, by version
        raise UnsupportedModelError(f"{path}: model-local functions cannot be expanded ({error})") from None


def _names_are_unique(graph: Any, weights: Weights, inputs: Sequence[TensorSpec]) -> None:
    seen = {*weights, *(t.name for t in inputs)}
    for node in graph.node:
        for name in node.output:
            if name and name in seen:
                raise ModelFormatError(f"tensor {name!r} is computed or stored twice")
            seen.add(name)


# ---------------------------------------------------------------- tensors


def _weights(graph: Any, large: dict[str, memoryview], path: Path, problems: list[Problem]) -> Weights:
    onnx = protobuf.onnx_package()
    files: dict[Path, memoryview] = {}
    weights: Weights = {}
    for t in graph.initializer:
        if t.name in weights:
            raise ModelFormatError(f"{path}: weight {t.name!r} is stored twice")
        if t.data_type not in _DTYPES:
            problems.append(Problem("weight", t.name, f"tensors of type {_type_name(t.data_type)}"))
            continue
        dtype, shape = np.dtype(_DTYPES[t.data_type]), tuple(t.dims)
        if any(d < 0 for d in shape):
            raise ModelFormatError(f"{path}: weight {t.name!r} has shape {list(shape)}")
        if t.data_location == onnx.TensorProto.EXTERNAL:
            weights[t.name] = protobuf.view(_external(t, path, files, prod(shape) * dtype.itemsize), dtype, shape, t.name)
        elif t.name in large:
            weights[t.name] = protobuf.view(large[t.name], dtype, shape, t.name)
        else:
            weights[t.name] = _small(t, path)
    for t in graph.sparse_initializer:
        problems.append(Problem("weight", t.values.name, "sparse weights"))
    return weights


def _small(t: Any, path: Path) -> np.ndarray:
    try:
        return np.asarray(protobuf.onnx_package().numpy_helper.to_array(t))
    except Exception as error:  # onnx raises ValueError, TypeError and others for a tensor that lies
        raise ModelFormatError(f"{path}: tensor {t.name!r} contradicts itself ({error})") from None


def _external(t: Any, path: Path, files: dict[Path, memoryview], nbytes: int) -> memoryview:
    entries = {e.key: e.value for e in t.external_data}
    folder = path.resolve().parent
    location = entries.get("location", "")
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ModelFormatError(f"{path}: weight {t.name!r} points to {location!r}, outside the folder of the model")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", nbytes))
    except ValueError:
        raise ModelFormatError(f"{path}: weight {t.name!r} has an offset or a length that is no number") from None
    if file not in files:
        files[file] = protobuf.open_bytes(file)
    if offset < 0 or length < 0 or offset + length > len(files[file]):
        raise ModelFormatError(
            f"{path}: weight {t.name!r} needs bytes {offset} to {offset + length} of {location}, which has {len(files[file])}"
        )
    return files[file][offset : offset + length]


def _inputs(graph: Any, weights: Weights, problems: list[Problem]) -> list[TensorSpec]:
    inputs = []
    for value in graph.input:
        if value.name in weights:  # before IR version 4 every initializer was listed as an input, too
            continue
        kind = value.type.WhichOneof("value")
        tensor = value.type.tensor_type
        if kind != "tensor_type":
            problems.append(Problem("input", value.name, f"inputs of kind {(kind or 'unknown').removesuffix('_type')}"))
        elif tensor.elem_type not in _DTYPES:
            problems.append(Problem("input", value.name, f"tensors of type {_type_name(tensor.elem_type)}"))
        elif not tensor.HasField("shape"):
            problems.append(Problem("input", value.name, "an input without a shape"))
        else:
            shape = _declared(value)
            named = tuple(f"{value.name}_dim{axis}" if d == "" else d for axis, d in enumerate(shape))
            inputs.append(TensorSpec(value.name, _DTYPES[tensor.elem_type], named))
    return inputs


def _declared(value: Any) -> tuple[int | str, ...]:
    """Declared dimensions: an int, a symbol, or ``""`` where nothing is said."""
    dims = value.type.tensor_type.shape.dim
    return tuple(int(d.dim_value) if d.WhichOneof("value") == "dim_value" and d.dim_value >= 0 else str(d.dim_param) for d in dims)


def _type_name(number: int) -> str:
    return _TYPE_NAMES.get(number, f"number {number}")


def _attribute(a: Any, node: RawNode) -> Any:
    """The Python value of an attribute: number, str, list, array; :class:`Unreadable` for what has none."""
    onnx = protobuf.onnx_package()
    kinds = onnx.AttributeProto
    if a.type in (kinds.FLOAT, kinds.INT):
        value = a.f if a.type == kinds.FLOAT else a.i
        if node.op == "Cast" and a.name == "to":
            return _DTYPES.get(int(value), Unreadable(f"type {_type_name(int(value))}"))
        return float(value) if a.type == kinds.FLOAT else int(value)
    if a.type == kinds.STRING:
        return a.s.decode("utf-8", "replace")
    if a.type in (kinds.FLOATS, kinds.INTS):
        return [float(v) for v in a.floats] if a.type == kinds.FLOATS else [int(v) for v in a.ints]
    if a.type == kinds.STRINGS:
        return [s.decode("utf-8", "replace") for s in a.strings]
    if a.type == kinds.TENSOR:
        if a.t.data_type not in _DTYPES:
            return Unreadable(f"a tensor of type {_type_name(a.t.data_type)}")
        return _small(a.t, Path(node.name or node.op))
    if a.type in (kinds.GRAPH, kinds.GRAPHS):
        return Unreadable("a subgraph")
    return Unreadable("of a kind that has no value here")


