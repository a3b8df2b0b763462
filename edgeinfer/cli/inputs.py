"""What ``run`` and ``bench`` feed a model: ``.npy``, ``.npz``, an image, or deterministic noise."""

from __future__ import annotations

import argparse
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DependencyError, InputError, UsageError
from .arguments import numbers, option

if TYPE_CHECKING:
    from ..runtime.session import NodeArg

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

DTYPES = {"float": "float32", "double": "float64"}  # where ONNX Runtime's spelling of a type is not NumPy's


def dtype_of(arg: NodeArg) -> str:
    """NumPy dtype name of an input: ``tensor(float)`` is ``float32``."""
    name = arg.type[len("tensor(") : -1]
    return DTYPES.get(name, name)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor: value = (pixel / 255 * white - mean) / std, per channel in the order the network sees them.

    ``size``: (height, width), default the network's. ``fit``: ``crop`` keeps the aspect (shorter side resized, centre cut out),
    ``stretch`` does not.
    ``layout``: ``nchw`` or ``nhwc``, default by where the input has 1 or 3 channels.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    white: float = 1.0
    channels: str = "rgb"
    layout: str | None = None
    fit: str = "crop"


@option
def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise UsageError(f"expected HEIGHTxWIDTH or one number, found {text!r}")
    return int(parts[0]), int(parts[1])


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`Preprocessing`."""
    group = parser.add_argument_group("images", "value = (pixel / 255 * WHITE - MEAN) / STD; without options, pixels from 0 to 1")
    group.add_argument("--size", type=_size, metavar="HxW", help="resize to this (default: the network's input size)")
    group.add_argument("--fit", choices=("crop", "stretch"), default="crop", help="crop: keep the aspect, cut out the centre (default)")
    group.add_argument("--white", type=float, default=1.0, help="value of a white pixel before mean and std: 1 (default) or 255")
    group.add_argument("--mean", type=numbers, default=(0.0,), metavar="M[,M,M]", help="subtracted per channel")
    group.add_argument("--std", type=numbers, default=(1.0,), metavar="S[,S,S]", help="divides per channel")
    group.add_argument("--channels", choices=("rgb", "bgr"), default="rgb", help="order in which the network wants them")
    group.add_argument("--layout", choices=("nchw", "nhwc"), help="default: by where the input has 1 or 3 channels")


def preprocessing(args: argparse.Namespace) -> Preprocessing:
    """The image options that the user gave."""
    return Preprocessing(args.size, args.mean, args.std, args.white, args.channels, args.layout, args.fit)


def rows_of(path: str, model: str) -> int:
    """Samples in a file, from its headers alone; 1 for images. Where arrays disagree, those count that ``model`` takes samples from."""
    kind = _kind(path)
    if kind == "image":
        _pillow()  # its code is part of the baseline of the plan
        return 1
    try:
        if kind == "npy":
            with open(path, "rb") as file:
                shapes = {"": _shape_in_header(file)}
        else:
            import zipfile

            shapes = {}
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    with archive.open(name) as member:
                        shapes[name.removesuffix(".npy")] = _shape_in_header(member)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zipfile and NumPy's header parser raise many kinds
        raise InputError(f"{path}: not a .{kind} file: {error}") from None
    firsts = {name: shape[0] for name, shape in shapes.items() if shape}
    if len(set(firsts.values())) > 1:
        from ..container import Reader

        with Reader(model) as reader:
            graph = reader.graph
        firsts = {t.name: firsts[t.name] for t in graph.inputs if t.name in firsts and t.shape[:1] == (graph.batch,)}
    return max(firsts.values(), default=1)


def _shape_in_header(file: Any) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)[0]


def load(path: str, wanted: list[NodeArg], images: Preprocessing) -> dict[str, np.ndarray]:
    """The feed for a model's inputs from a file. Raises InputError where it cannot be read or does not fit the model."""
    kind = _kind(path)
    if kind == "image":
        return {_only(path, wanted).name: read_image(path, _only(path, wanted), images)}
    try:
        found = np.load(path, allow_pickle=False)
        if kind == "npy":
            return {_only(path, wanted).name: found}
        with found:
            names = [arg.name for arg in wanted]
            if not set(names) <= set(found.files):
                there = ", ".join(map(repr, found.files)) or "none"
                raise InputError(f"{path}: expected arrays {', '.join(map(repr, names))}, found {there}")
            return {name: found[name] for name in names}  # other arrays, like labels, are not read
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a .{kind} file: {error}") from None


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    if suffix in (".npy", ".npz"):
        return suffix[1:]
    if suffix in IMAGE_SUFFIXES:
        return "image"
    raise UsageError(f"{path}: expected a .npy, .npz or image file ({', '.join(IMAGE_SUFFIXES)})")


def _only(path: str, wanted: list[NodeArg]) -> NodeArg:
    if len(wanted) != 1:
        names = ", ".join(repr(arg.name) for arg in wanted)
        raise InputError(f"{path}: the model has {len(wanted)} inputs ({names}); give an .npz with one array per input")
    return wanted[0]


def read_image(path: str, arg: NodeArg, how: Preprocessing) -> np.ndarray:
    """An image as the one sample of a 4-dimensional float input."""
    Image = _pillow()
    shape = arg.shape
    if len(shape) != 4 or dtype_of(arg) != "float32":
        raise InputError(f"{path}: input {arg.name!r} is {dtype_of(arg)} {_text(shape)}, and an image fits float32 with four axes only")
    layout = how.layout or ("nchw" if shape[1] in (1, 3) else "nhwc" if shape[3] in (1, 3) else None)
    if layout is None:
        raise InputError(f"{path}: input {arg.name!r} has shape {_text(shape)}; say with --layout where its channels are")
    channels, height, width = (shape[1], shape[2], shape[3]) if layout == "nchw" else (shape[3], shape[1], shape[2])
    if channels not in (1, 3):
        raise InputError(f"{path}: input {arg.name!r} has {channels} channels in layout {layout}, an image has 1 or 3")
    if how.size is not None:
        height, width = how.size
    if not isinstance(height, int) or not isinstance(width, int):
        raise UsageError(f"{path}: the model takes any image size ({_text(shape)}); choose one with --size HxW")
    for name, values in (("--mean", how.mean), ("--std", how.std)):
        if len(values) not in (1, channels):
            raise UsageError(f"{name}: expected 1 or {channels} numbers, found {len(values)}")
    if 0.0 in how.std:
        raise UsageError("--std: expected numbers other than 0")
    try:
        with Image.open(path) as image:
            pixels = _fitted(image.convert("L" if channels == 1 else "RGB"), height, width, how.fit)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image that Pillow can read: {error}") from None
    tensor: np.ndarray = pixels.reshape(1, height, width, channels).astype(np.float32)
    if how.channels == "bgr":
        tensor = tensor[..., ::-1]
    tensor = (tensor * np.float32(how.white / 255) - np.array(how.mean, dtype=np.float32)) / np.array(how.std, dtype=np.float32)
    return np.ascontiguousarray(tensor if layout == "nhwc" else tensor.transpose(0, 3, 1, 2))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DependencyError("reading images needs Pillow: pip install pillow, or give the tensor as .npy") from None
    return Image


def _fitted(image: Any, height: int, width: int, fit: str) -> np.ndarray:
    from PIL import Image

    if fit == "crop":
        scale = max(height / image.height, width / image.width)
        image = image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))), Image.Resampling.BILINEAR)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    else:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def noise(wanted: list[NodeArg], batch_symbol: str | None, batch: int, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs for a measurement: the same values in every run and on every machine.

    Floats are spread evenly over -1..1 (a multiplicative sequence; NumPy's random module would cost 7 MiB of the memory that is
    measured); integers are all 1, which is a valid token, index and mask.
    """
    feed = {}
    for arg in wanted:
        shape = []
        for dim in arg.shape:
            if isinstance(dim, int):
                shape.append(dim)
            elif dim == batch_symbol:
                shape.append(batch)
            elif dim in sizes:
                shape.append(sizes[dim])
            else:
                raise UsageError(f"input {arg.name!r} has the free dimension {dim!r}; choose its size with --symbols {dim}=N")
        dtype = np.dtype(dtype_of(arg))
        array = np.ones(shape, dtype=dtype)
        if dtype.kind == "f":
            flat = array.reshape(-1)
            for start in range(0, flat.size, 1 << 14):  # in pieces: no large temporary array
                index = np.arange(start, min(start + (1 << 14), flat.size), dtype=np.uint32)
                flat[start : start + index.size] = (index * np.uint32(2654435761) >> np.uint32(8)).astype(np.float32) / (1 << 23) - 1
        feed[arg.name] = array
    return feed


def _text(shape: Any) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
