"""Samples that a network is run on while it is compressed: those of a file, or made ones for networks that take images.

Made images are dead leaves: opaque shapes of power-law sizes that cover one another (Lee, Mumford and Huang, IJCV 2001). Their edges,
flat areas and scales are those of photographs, and networks answer to them much as to photographs (Baradad et al., NeurIPS 2021): on
SqueezeNet the energies of channels deep in the network correlate at 0.6 with those of photographs, where noise of the right spectrum
reaches 0.4.

Nobody says which numbers stand for a pixel. Half of the images is in units of a deviation (-1 to 1, or standardised), the other half in
0 to 255 around its mean, and every image weighs the same in what layers learn from them.
"""

from __future__ import annotations

from os import PathLike

import numpy as np

from ..errors import InputError, UsageError
from ..graph import Graph

#: images: as many as let a layer of 4096 inputs see 170 of each
COUNT = 24
#: factors from a deviation of 1 to pixels as networks take them
SCALES = (0.7, 64.0)
#: side of an image where the network does not say
SIDE = 224
#: less than so many pixels a side is no scene: shapes of several scales have no room
SMALLEST = 16
#: leaves of an image
LEAVES = 200
SEED = 1
#: samples of a file at least: fewer say more about themselves than about their kind
FEWEST = 8


def made_samples(graph: Graph) -> dict[str, np.ndarray] | None:
    """Images for a network that takes one image per sample, ``[COUNT, ...]`` by input name; ``None`` for any other network.

    An image is a float32 input of rank 4 with one or three channels on axis 1 or on the last axis, and at least 16 pixels a side.
    """
    if len(graph.inputs) != 1:
        return None
    spec = graph.inputs[0]
    if spec.dtype != "float32" or len(spec.shape) != 4:
        return None
    shape = [SIDE if isinstance(d, str) else d for d in spec.shape[1:]]
    for channels in (0, 2):
        sides = [d for axis, d in enumerate(shape) if axis != channels]
        if spec.shape[1 + channels] in (1, 3) and min(sides) >= SMALLEST:
            images = dead_leaves(COUNT, shape[channels], (sides[0], sides[1]))
            images *= np.resize(np.asarray(SCALES, np.float32), COUNT)[:, None, None, None]
            return {spec.name: images if channels == 0 else np.ascontiguousarray(images.transpose(0, 2, 3, 1))}
    return None


def dead_leaves(count: int, channels: int, sides: tuple[int, int], seed: int = SEED) -> np.ndarray:
    """``count`` images float32 ``[count, channels, height, width]`` of mean about 0 and deviation about 1; the same for the same
    arguments."""
    generator = np.random.default_rng(seed)
    height, width = sides
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    images = np.empty((count, channels, height, width), np.float32)
    largest, smallest = 0.6 * max(sides), 0.02 * max(sides) + 1
    for image in images:
        image[:] = 0
        light = 0.25 * generator.uniform(-1, 1)
        # radii with density r^-3: every scale covers as much
        radii = 1 / np.sqrt(largest**-2 + generator.random(LEAVES) * (smallest**-2 - largest**-2))
        for radius in radii:
            _leaf(image, row, column, float(radius), light, generator)
        for axis in (1, 2):  # a lens
            image += np.roll(image, 1, axis) + np.roll(image, -1, axis)
            image /= 3
    return np.clip(images, -1.9, 2.2)


def _leaf(image: np.ndarray, row: np.ndarray, column: np.ndarray, radius: float, light: float, generator: np.random.Generator) -> None:
    """Put an ellipse, a rectangle or a triangle with a shade, a texture and some noise on ``image`` [channels, height, width]."""
    channels, height, width = image.shape
    y, x = generator.uniform(0, height), generator.uniform(0, width)
    reach = 1.5 * radius
    window = (slice(int(max(0, y - reach)), int(min(height, y + reach + 1))), slice(int(max(0, x - reach)), int(min(width, x + reach + 1))))
    down, along = row[window] - y, column[window] - x
    angle = generator.uniform(0, np.pi)
    u, v = np.cos(angle) * along + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * along
    breadth = generator.uniform(0.4, 1) * radius
    kind = generator.integers(3)
    if kind == 0:
        inside = (u / radius) ** 2 + (v / breadth) ** 2 < 1
    elif kind == 1:
        inside = (np.abs(u) < radius) & (np.abs(v) < breadth)
    else:
        inside = (v > -breadth) & (v + 1.7 * np.abs(u) < radius)
    colour = np.float64(light + generator.uniform(-1.6, 1.6)) + 0.3 * np.asarray(generator.standard_normal(channels))
    texture = np.sin(generator.uniform(0.05, 1.2) * u + generator.uniform(0, 6))
    if generator.random() < 0.5:
        texture *= np.sin(generator.uniform(0.05, 1.2) * v)
    slope = 0.4 * float(generator.standard_normal()) / radius
    shade = np.asarray(slope * u + generator.exponential(0.15) * texture)
    grain = np.asarray(generator.exponential(0.075) * generator.standard_normal(u.shape))
    image[(slice(None), *window)][:, inside] = (colour[:, None] + (shade + grain)[inside]).astype(np.float32)


def load_samples(path: str | PathLike[str], graph: Graph) -> dict[str, np.ndarray]:
    """Calibration samples: an ``.npz`` with one array per network input, by name, samples along the first axis. Labels are not needed; an
    array named ``labels`` is left out unless an input has that name.

    Raises:
        InputError: names, shapes or dtypes that are not the network's, values that are not finite, fewer than ``FEWEST`` samples.
        UsageError: the file cannot be read.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise UsageError(f"{path}: expected an .npz with one array per input, found a single array")
        with loaded as stored:
            arrays = {name: stored[name] for name in stored.files}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UsageError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy's header parser raise many kinds
        raise UsageError(f"{path}: expected an .npz with one array per input ({error})") from None
    wanted = {spec.name: spec for spec in graph.inputs}
    arrays = {name: a for name, a in arrays.items() if name in wanted or name != "labels"}
    if set(arrays) != set(wanted):
        found_names = ", ".join(map(repr, sorted(arrays))) or "nothing"
        raise InputError(f"{path}: expected the inputs {', '.join(map(repr, wanted))}, found {found_names}")
    counts = {name: len(a) if a.ndim else 0 for name, a in arrays.items()}
    if len(set(counts.values())) != 1:
        raise InputError(f"{path}: expected as many samples of every input, found {', '.join(f'{n} of {k!r}' for k, n in counts.items())}")
    if next(iter(counts.values())) < FEWEST:
        raise InputError(f"{path}: expected {FEWEST} samples or more, found {next(iter(counts.values()))}")
    sizes: dict[str, int] = {}
    for name, spec in wanted.items():
        found = arrays[name]
        same = found.ndim == len(spec.shape)
        for axis, (size, d) in enumerate(zip(found.shape, spec.shape, strict=False)):
            if axis:
                same &= size > 0 and sizes.setdefault(d, size) == size if isinstance(d, str) else size == d
        if not same:
            raise InputError(f"{path}: input {name!r}: expected shape {list(spec.shape)}, found {list(found.shape)}")
        kinds = np.dtype(spec.dtype).kind, found.dtype.kind
        if kinds[0] != kinds[1] and not (kinds[0] in "iu" and kinds[1] in "iu"):
            raise InputError(f"{path}: input {name!r}: expected {spec.dtype}, found {found.dtype}")
        if kinds[1] == "f" and not np.isfinite(found).all():
            raise InputError(f"{path}: input {name!r}: expected finite values, found NaN or infinity")
        arrays[name] = found.astype(spec.dtype, copy=False)
    return arrays
