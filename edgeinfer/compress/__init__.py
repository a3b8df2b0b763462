"""The compress trip: an ONNX file into a container. Nothing here is needed to run one.

``import -> passes -> recipe -> per tensor: quantizer, coder -> container``. Weights are taken one at a time; in memory at once are the
largest tensor, its symbols and its code, beside views into the ONNX file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import UsageError
from .recipe import Choice, Recipe, Tensor
from .report import Layer, Report

__all__ = ["Choice", "Layer", "Recipe", "Report", "Tensor", "compress"]


def compress(
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    quantizer: str | None = None,
    coder: str | None = None,
    bits: int | None = None,
    recipe: Recipe | str | PathLike[str] | None = None,
    like: str | PathLike[str] | None = None,
    calibration: str | PathLike[str] | None = None,
    compensation: bool = True,
    progress: Callable[[int, int, str], Any] | None = None,
) -> Report:
    """Compress an ONNX file into a container.

    Args:
        model: ``.onnx`` or ``.onnx.xz``.
        output: the ``.edge`` file; written beside and renamed, so that an interrupted run leaves nothing.
        quantizer: ``none``, ``uniform``, ``kmeans`` (the default) or ``sign``.
        coder: ``raw``, ``packed``, ``huffman``, ``rans`` or ``gaps``; ``None``: for each tensor the smallest that runs fused.
        bits: bits per symbol, 1 to 8, default 5. For all large weights; smaller tensors get more as long as all together take a tenth more,
            those of less than 4096 weights stay fp16 and depthwise filters 8-bit. What entropy coding makes of it is in the report.
        recipe: a :class:`Recipe` or a YAML file with one, in place of the three before.
        like: a container, in place of the four before: what it was asked to be is asked for again. Rules are repeated as they are, names
            in them too. The bits that smaller tensors got beyond those asked for are shared out anew by the sizes of this network's
            tensors, so that a network of other sizes or names gets what the same options would have given it, and the same network
            the same container. Samples are made where they were; a container made with samples of the user's needs ``calibration``
            again (a container does not hold them), or ``compensation=False``.
        calibration: ``.npz`` with samples of every input by name, without labels (:func:`edgeinfer.compress.samples.load_samples`):
            symbols are chosen so that the outputs of each layer change least on them. Some hundred are enough.
        compensation: without ``calibration`` run a network that takes images on a few made images (:mod:`edgeinfer.compress.samples`)
            and choose symbols that change the outputs of each layer least; otherwise errors cancel within rows only, which takes a
            fraction of the time.
        progress: called as ``progress(done, total, name)`` with bytes of weights before every tensor.

    Raises:
        InputError: calibration samples that the network does not take.
        ModelFormatError, UnsupportedModelError: see :func:`edgeinfer.compress.importer.import_model`.
        UsageError: options that contradict each other, a quantizer or coder that does not exist, or a ``like`` without a recipe.
        ContainerError: ``like`` is no container.
        DependencyError: the ``onnx`` package is missing.
    """
    from ..coders import CODERS, encode_tensor
    from ..container import Writer
    from ..quantizers import QUANTIZERS
    from .importer import import_model
    from .propagation import Propagation
    from .roles import matrices
    from .samples import load_samples, made_samples

    start = time.monotonic()
    if like is None:
        chosen = _recipe(recipe, quantizer, coder, bits)
        allotted = recipe is None and chosen.default.quantizer != "none"
    else:
        if (recipe, quantizer, coder, bits) != (None, None, None, None):
            raise UsageError("a container to be like says quantizer, coder and bits of every tensor; leave out these and the recipe")
        chosen, allotted, samples_then = _repeated(fspath(like))
        if compensation and calibration is None and samples_then not in ("none", "made"):
            raise UsageError(
                f"{fspath(like)}: made with calibration samples ({samples_then}), which a container does not hold; "
                "give them again, or leave compensation out"
            )
        compensation = compensation and samples_then != "none"
    if Path(model).resolve() == Path(output).resolve():
        raise UsageError(f"{fspath(output)}: the container cannot take the place of the model it is made of")
    for choice in (chosen.default, *(rule.choice for rule in chosen.rules)):  # fail before the long part
        _made(QUANTIZERS, choice.quantizer, choice.options)
        if choice.coder is not None:
            _made(CODERS, choice.coder, {})

    graph, weights, roles = matrices(*import_model(fspath(model)))
    asked = len(chosen.rules)
    if allotted:
        chosen = chosen.refine([Tensor(name, role.op, weights[name].size, role.depthwise) for name, role in roles.items()])
    choices = {n: _suited(chosen.choose(Tensor(n, r.op, weights[n].size, r.depthwise)), weights[n]) for n, r in roles.items()}
    rounded = any(choice.quantizer != "none" for choice in choices.values())
    kind = "made" if calibration is None else Path(calibration).name
    samples = None
    if calibration is not None:
        samples = load_samples(calibration, graph)
    elif compensation and rounded:
        samples = made_samples(graph)
    propagation = Propagation(graph, weights, roles, samples, even=calibration is None) if samples is not None and rounded else None
    metadata: dict[str, Any] = {"source": Path(model).name, "recipe": chosen.to_json(), "samples": "none" if propagation is None else kind}
    if allotted:
        metadata["allotted"] = len(chosen.rules) - asked
    layers: list[Layer] = []
    constants: list[Layer] = []
    users = {name: node.op for node in reversed(graph.nodes) for name in node.inputs}
    total, done = sum(a.nbytes for a in weights.values()), 0
    with Writer(fspath(output), graph, metadata) as writer:
        for name, array in weights.items():
            if progress is not None:
                progress(done, total, name)
            done += array.nbytes
            role = roles.get(name)
            if role is None:
                writer.add_plain(name, array)
                constants.append(Layer(name, users[name], array.shape, None, None, array.size, array.nbytes, 0.0))
                continue
            choice = choices[name]
            encoded = encode_tensor(
                name,
                array,
                role.rows,
                role.groups,
                _made(QUANTIZERS, choice.quantizer, choice.options),
                None if choice.coder is None else _made(CODERS, choice.coder, {}),
                inputs=propagation.inputs(name) if propagation is not None and choice.quantizer != "none" else None,
            )
            if propagation is not None:
                propagation.record(name, encoded.quantized)
            writer.add_coded(name, array.shape, array.dtype.name, encoded)
            layers.append(
                Layer(name, role.op, array.shape, encoded.quantizer, encoded.coder, array.size, encoded.nbytes, encoded.max_error)
            )
    if progress is not None:
        progress(total, total, "")
    return Report(fspath(output), tuple(layers), tuple(constants), graph.notes, time.monotonic() - start)


def _recipe(recipe: Recipe | str | PathLike[str] | None, quantizer: str | None, coder: str | None, bits: int | None) -> Recipe:
    if recipe is None:
        return Recipe.simple(quantizer, coder, bits)
    if quantizer is not None or coder is not None or bits is not None:
        raise UsageError("a recipe says quantizer, coder and bits of every tensor; leave out the three others")
    return recipe if isinstance(recipe, Recipe) else Recipe.load(fspath(recipe))


def _repeated(path: str) -> tuple[Recipe, bool, str]:
    """What a container was asked to be: the recipe before allotment, whether bits were allotted to smaller tensors, and the samples.

    The last ``metadata["allotted"]`` rules of the recipe are those of the allotment. Without that entry all rules are repeated as they
    are: there was no allotment (a recipe of the user's, quantizer ``none``), or the container is older than the entry.
    """
    from ..container import Reader

    with Reader(path) as reader:
        metadata = reader.metadata
    if "recipe" not in metadata:
        raise UsageError(f"{path}: a container without a recipe; expected one that compress made")
    recipe = Recipe.from_json(metadata["recipe"], f"{path}: recipe")
    samples, allotted = metadata.get("samples", "none"), metadata.get("allotted")
    if not isinstance(samples, str):
        raise UsageError(f"{path}: samples: expected a name, found {samples!r:.60}")
    if allotted is None:
        return recipe, False, samples
    if type(allotted) is not int or not 0 <= allotted <= len(recipe.rules):
        raise UsageError(f"{path}: allotted: expected a number of rules up to {len(recipe.rules)}, found {allotted!r:.60}")
    if type(recipe.default.options.get("bits")) is not int:
        raise UsageError(f"{path}: recipe, default: expected bits, found {recipe.default.to_json()!r:.60}")
    return replace(recipe, rules=recipe.rules[: len(recipe.rules) - allotted]), True, samples


def _suited(choice: Choice, array: np.ndarray) -> Choice:
    """The choice, or float32 where float16 was chosen for numbers that it does not reach (65520 rounds to infinity)."""
    if choice.quantizer == "none" and choice.options.get("dtype") == "float16" and not np.abs(array).max() < 65520:
        return Choice("none", {}, choice.coder)
    return choice


def _made(registry: Any, name: str, options: Any) -> Any:
    try:
        return registry[name](**options)
    except TypeError as error:
        raise UsageError(f"{registry.kind} {name!r} does not take the options {dict(options)} ({error})") from None
    except ValueError as error:
        raise UsageError(f"{registry.kind} {name!r}: {error}") from None


class _Callable(ModuleType):
    """``edgeinfer.compress`` is a function to the user and a package to the interpreter; once imported, the package answers for both."""

    def __call__(self, *args: Any, **options: Any) -> Report:
        return compress(*args, **options)


sys.modules[__name__].__class__ = _Callable
