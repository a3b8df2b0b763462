"""Fits layer caches (:mod:`edgeinfer.runtime.cache`) to a container: heads, selectors, which caches, thresholds, and what they promise.

Nothing but NumPy, and no labels: everything is distilled from the network's own answers (Freeze Inference, HotCloud 2019; GATI, 2021).

1. *Boundaries* with their share of the time, measured; a few of them, spread over the network.
2. *Heads*: the activation averaged over a grid, one hidden layer, scores. Trained with Adam on the network's softened answers (Hinton et
   al. 2015) for fitting rows and varied copies of them: the network names the answer of any image, so varied and mixed images are free
   samples. Weights are then quantized as weights of networks are. *k-means* caches: centres of the hidden layer's output, with the
   share of each class.
3. *Selectors*: logistic regression of "the network says the same" on the form of the scores and the class, on rows the heads never saw.
4. *Composition*: hits as bitmaps; one dynamic program (:mod:`edgeinfer.pareto`) over boundaries for latency under bytes and errors,
   supposing that what a cache answers a deeper one answers too; then changes of one cache at a time, judged exactly.
5. *Thresholds* along a curve of error weights, and the point that a third part of rows, never seen before, certifies (fixed sequence
   testing with exact binomial bounds, as in :mod:`.ensemble`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from .. import pareto
from ..coders import CODERS, encode_tensor
from ..container import Writer, coded_tensor
from ..errors import InputError, UsageError
from ..graph import Graph, Node, TensorSpec
from ..quantizers import QUANTIZERS
from ..runtime.cache import VERSION, boundaries_of, features, sure
from ..runtime.execution import Execution
from ..runtime.session import InferenceSession
from ..runtime.stop import binomial_upper, softmax
from .page import Line, chart, page, paragraph, table
from .thresholds import NEVER, improve, stops

#: softening of the network's answers that heads learn from; GATI uses 6, two kept most agreement on the CIFAR networks (docs/benchmarks.md)
TEMPERATURE = 2.0
#: inputs of a head at most: a finer grid of a wide layer costs bytes and learns noise
WIDEST = 4096
#: seconds that a look-up takes beside its products: selector, comparison and bookkeeping in Python (docs/benchmarks.md)
LOOK_SECONDS = 60e-6
#: multiply-adds per second of a head, batch 1: decoding four-bit weights sets the pace
LOOK_RATE = 4e9
#: weights of an error against the time of the whole network, for the curve of thresholds
WEIGHTS = tuple(float(w) for w in np.geomspace(1.0, 300.0, 25))
BATCH = 16
#: bytes of the file that describe one cache: its nodes, entries and selector as JSON, padding (three caches of ResNet-56 take 5,500)
HEADER_BYTES = 2048
#: ways of the dynamic program that are judged exactly
STARTS = 12
#: steps of training that a head gets at least, however few its rows
LEAST_STEPS = 1500

Progress = Callable[[int, int, str], Any]


@dataclass(frozen=True)
class Boundary:
    """A place for a cache: tensor, its shape without rows, the grid it is averaged over, seconds of the network up to it."""

    name: str
    shape: tuple[int, ...]
    grid: int
    seconds: float

    @property
    def width(self) -> int:
        """Inputs of a head."""
        return self.grid ** (len(self.shape) - 1) * self.shape[-1]


@dataclass
class Candidate:
    """A cache that may be taken.

    Attributes:
        hidden: weights float32 ``[hidden, width]`` as decoded, ``hidden_bias``; ``out`` ``[classes, hidden]``, ``out_bias``.
        encoded: the coded ``hidden``. centres, votes: of k-means, else ``None``.
        nbytes: that it takes in the file. seconds: of one look-up.
        selector: as in the file.
    """

    boundary: Boundary
    kind: str
    hidden: np.ndarray
    hidden_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    encoded: Any
    encoded_out: Any
    nbytes: int
    seconds: float
    centres: np.ndarray | None = None
    votes: np.ndarray | None = None
    selector: np.ndarray | None = None

    def keys(self, pooled: np.ndarray) -> np.ndarray:
        """The projection of pooled activations."""
        return np.maximum(pooled.astype(np.float32) @ self.hidden.T + self.hidden_bias, 0)

    def look(self, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(classes, features, confidence) of pooled activations ``[rows, width]``; confidence is 0 before there is a selector."""
        keys = self.keys(pooled)
        found = keys if self.kind == "kmeans" else keys @ self.out.T + self.out_bias
        scores, seen = features(self.kind, found, self.centres, self.votes)
        classes = scores.argmax(axis=1)
        confidence = np.zeros(len(keys)) if self.selector is None else sure(self.selector, classes, seen)
        return classes, seen, confidence


# ---- the network and what passes through it


def grid_of(shape: Sequence[int], most: int = WIDEST) -> int:
    """The finest of the grids 4, 3, 2, 1 that divides the spatial axes of ``shape`` (channels last) and keeps a head's inputs in bounds."""
    for grid in (4, 3, 2):
        if len(shape) > 1 and all(n % grid == 0 for n in shape[:-1]) and grid ** (len(shape) - 1) * shape[-1] <= most:
            return grid
    return 1


def pool(activation: np.ndarray, grid: int) -> np.ndarray:
    """``[rows, spatial..., channels]`` averaged over ``grid`` equal parts of each spatial axis, flat: ``[rows, width]``."""
    rows, *spatial, channels = activation.shape
    split: list[int] = [rows]
    for n in spatial:
        split += [grid, n // grid]
    axes = tuple(range(2, 2 * len(spatial) + 1, 2))
    cut = activation[(slice(None), *(slice(0, n // grid * grid) for n in spatial))]
    return cut.reshape(*split, channels).mean(axis=axes).reshape(rows, -1)


def find_boundaries(
    session: InferenceSession, feed: Mapping[str, np.ndarray], most: int, repeats: int = 30
) -> tuple[list[Boundary], float]:
    """Boundaries between 5 and 92 % of the time of one row, at most ``most``, spread by time; and the seconds of one row."""
    times = []
    one = {name: array[:1] for name, array in feed.items()}
    profiling, session.profiling = session.profiling, True
    for _ in range(repeats):
        session.run(None, one)
        times.append([seconds for _, _, seconds in session.profile()])
    session.profiling = profiling
    until = np.cumsum(np.median(np.array(times), axis=0))
    total = float(until[-1])
    sides = []
    for rows in (2, 3):
        execution = Execution(session.store, {session.store.graph.batch or "": rows}, session.kernels, session.threads)
        sides.append({n: (i, execution.lowered.specs[n].shape, rows) for n, i in boundaries_of(execution).items()})
    found = []
    for name, (index, shape, rows) in sides[0].items():
        share = until[index - 1] / total
        other = sides[1].get(name)
        if other is None or len(shape) < 2 or shape[0] != rows or other[1][0] != other[2] or not 0.05 <= share <= 0.92:
            continue
        inner = tuple(int(n) for n in shape[1:])
        found.append(Boundary(name, inner, grid_of(inner), float(until[index - 1])))
    # of boundaries at nearly the same time the smallest; then those that leave the largest gap least
    kept: list[Boundary] = []
    for boundary in found:
        if kept and boundary.seconds - kept[-1].seconds < 0.02 * total:
            if prod(boundary.shape) <= prod(kept[-1].shape):
                kept[-1] = boundary
        else:
            kept.append(boundary)
    while len(kept) > most:
        if len(kept) == 2:
            del kept[1]
            break
        gaps = [kept[i + 1].seconds - kept[i - 1].seconds for i in range(1, len(kept) - 1)]
        del kept[1 + int(np.argmin(gaps))]
    return kept, total


def capture(
    session: InferenceSession, feed: Mapping[str, np.ndarray], places: Sequence[Boundary], progress: Progress | None = None, what: str = ""
) -> tuple[list[np.ndarray], np.ndarray]:
    """Pooled activations float16 ``[rows, width]`` at each boundary, and the network's output, for rows of ``feed``."""
    rows = len(next(iter(feed.values())))
    (output,) = session.get_outputs()
    pooled = [np.empty((rows, b.width), np.float16) for b in places]
    answers = np.empty((rows, int(output.shape[1])), np.float32)
    for first in range(0, rows, BATCH):
        if progress is not None:
            progress(first, rows, what)
        count = min(BATCH, rows - first)
        part = {n: np.ascontiguousarray(a[first : first + count]) for n, a in feed.items()}
        execution = session.pausable({}, count)
        execution.begin(part)
        at = 0
        for number, boundary in enumerate(places):
            index = boundaries_of(execution)[boundary.name]
            execution.advance(part, at, index)
            at = index
            pooled[number][first : first + count] = pool(execution.tensor(boundary.name, part), boundary.grid)
        execution.advance(part, at, len(execution.lowered.actions))
        answers[first : first + count] = execution.tensor(output.name, part)
    return pooled, answers


def varied(feed: Mapping[str, np.ndarray], count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """``count`` varied rows: images (four axes, channels first or last) mirrored, shifted by up to an eighth, brighter or darker; a third
    of all rows mixed with others, by weight or by halves. Other float inputs are only mixed by weight; what is not float stays as it is."""
    rows = len(next(iter(feed.values())))
    pick, other = generator.integers(0, rows, count), generator.integers(0, rows, count)
    mirror, bright = generator.random(count) < 0.5, generator.uniform(0.8, 1.2, count)
    down, right = generator.uniform(-1, 1, (2, count)) / 8
    how, share = generator.random(count), generator.random(count)
    made = {}
    for name, array in feed.items():
        if array.dtype.kind != "f":
            made[name] = array[pick]
            continue
        axes = (1, 2) if array.ndim == 4 and array.shape[-1] in (1, 3) else (2, 3) if array.ndim == 4 else None
        scale = float(array.std()) or 1.0

        def vary(at: np.ndarray, array: np.ndarray = array, axes: tuple[int, int] | None = axes, scale: float = scale) -> np.ndarray:
            if axes is None:
                return array[at].astype(np.float32)
            out = np.empty((count, *array.shape[1:]), np.float32)
            for i, row in enumerate(at):
                image = np.flip(array[row], axes[1] - 1) if mirror[i] else array[row]
                shift = [int(round(s[i] * array.shape[a])) for s, a in ((down, axes[0]), (right, axes[1]))]
                wide = [(abs(shift[a == axes[1]]),) * 2 if a in axes else (0, 0) for a in range(1, 4)]
                padded = np.pad(image, wide, mode="edge")
                cut = tuple(
                    slice(w[0] + shift[a == axes[1]], w[0] + shift[a == axes[1]] + array.shape[a]) if a in axes else slice(None)
                    for a, w in zip(range(1, 4), wide, strict=True)
                )
                out[i] = padded[cut] * bright[i] + scale * 0.1 * (bright[i] - 1.0)
            return out

        first = vary(pick)
        mixed = np.flatnonzero(how < 0.35)
        second = vary(other)
        for i in mixed:
            if how[i] < 0.2 or axes is None:
                first[i] = share[i] * first[i] + (1 - share[i]) * second[i]
            else:
                edge = int(share[i] * array.shape[axes[i % 2]])
                cut = tuple(slice(0, edge) if a == axes[i % 2] else slice(None) for a in range(1, array.ndim))
                first[i][cut] = second[i][cut]
        made[name] = first.astype(array.dtype)
    return made


# ---- heads


def train_head(
    pooled: np.ndarray, logits: np.ndarray, hidden: int, epochs: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights ``[hidden, width]``, bias, weights ``[classes, hidden]``, bias of a head for ``logits``.

    Inputs are standardised while it learns; that is folded into the weights. One in five inputs is dropped at random.
    """
    mean = pooled[:4096].astype(np.float32).mean(axis=0)
    spread = pooled[:4096].astype(np.float32).std(axis=0)
    spread += 0.05 * float(spread.mean()) + 1e-6
    target = softmax(logits, TEMPERATURE).astype(np.float32)
    rows, width = pooled.shape
    batch = min(128, rows)
    w1 = (generator.standard_normal((width, hidden)) / np.sqrt(width)).astype(np.float32)
    w2 = (0.5 * generator.standard_normal((hidden, logits.shape[1])) / np.sqrt(hidden)).astype(np.float32)
    weights = [w1, np.zeros(hidden, np.float32), w2, np.zeros(logits.shape[1], np.float32)]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    epochs = max(epochs, -(-LEAST_STEPS // (rows // batch)))
    steps, total = 0, epochs * (rows // batch)
    for _ in range(epochs):
        order = generator.permutation(rows)
        for at in range(0, rows - batch + 1, batch):
            chosen = order[at : at + batch]
            x = (pooled[chosen] - mean) / spread
            x *= (generator.random(x.shape, dtype=np.float32) > 0.2) / np.float32(0.8)
            before = x @ weights[0] + weights[1]
            h = np.maximum(before, 0)
            d = (softmax(h @ weights[2] + weights[3]) - target[chosen]) / batch
            back = (d @ weights[2].T) * (before > 0)
            slopes = [x.T @ back, back.sum(axis=0), h.T @ d, d.sum(axis=0)]
            steps += 1
            rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * steps / total)) * np.sqrt(1 - 0.999**steps) / (1 - 0.9**steps)
            for w, g, m, v in zip(weights, slopes, first, second, strict=True):
                m *= 0.9
                m += 0.1 * g
                v *= 0.999
                v += 0.001 * g * g
                w -= np.float32(rate) * m / (np.sqrt(v) + 1e-8)
    hidden_weights = np.ascontiguousarray((weights[0] / spread[:, None]).T)
    return (
        hidden_weights,
        weights[1] - hidden_weights @ mean,
        np.ascontiguousarray(weights[2].T) * np.float32(TEMPERATURE),
        weights[3] * np.float32(TEMPERATURE),
    )


def k_means(points: np.ndarray, count: int, generator: np.random.Generator, rounds: int = 20) -> np.ndarray:
    """Centres float32 ``[count, width]`` (Lloyd; started at random points; an empty cluster takes the point farthest from its centre)."""
    centres = points[generator.choice(len(points), count, replace=False)].copy()
    for _ in range(rounds):
        squares = (points * points).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres * centres).sum(axis=1)
        nearest = squares.argmin(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        counts = np.bincount(nearest, minlength=count)
        empty = np.flatnonzero(counts == 0)
        centres = sums / np.maximum(counts, 1)[:, None]
        if len(empty):
            centres[empty] = points[np.argsort(squares.min(axis=1))[::-1][: len(empty)]]
    return centres.astype(np.float32)


def _made(name: str, **options: Any) -> Any:
    make: Any = QUANTIZERS[name]
    return make(**options)


def _coded(name: str, matrix: np.ndarray, bits: int) -> tuple[Any, np.ndarray]:
    """A matrix as a container stores it, and as it decodes; matrices that tables would not make smaller stay half precision floats."""
    small = matrix.size < 2048
    quantizer: Any = _made("none", dtype="float16") if small else _made("kmeans", bits=bits)
    encoded = encode_tensor(name, matrix, len(matrix), 1, quantizer, None if small else CODERS["packed"]())
    return encoded, coded_tensor(name, matrix.shape, encoded).decode("plain").reshape(matrix.shape)


def make_candidate(
    boundary: Boundary, pooled: np.ndarray, logits: np.ndarray, hidden: int, bits: int, epochs: int, generator: np.random.Generator
) -> Candidate:
    """A trained and quantized head at a boundary."""
    w1, b1, w2, b2 = train_head(pooled, logits, hidden, epochs, generator)
    name = f"hidden:{boundary.name}"
    encoded, w1 = _coded(name, w1, bits)
    encoded_out, w2 = _coded(f"out:{boundary.name}", w2, 8)
    # the quantized first layer moves its outputs; the biases take the mean of that back
    nbytes = HEADER_BYTES + encoded.nbytes + encoded_out.nbytes + 4 * (len(b1) + len(b2))
    seconds = LOOK_SECONDS + (w1.size + w2.size) / LOOK_RATE
    return Candidate(boundary, "head", w1, b1, w2, b2, encoded, encoded_out, nbytes, seconds)


def k_means_candidate(head: Candidate, pooled: np.ndarray, logits: np.ndarray, count: int, generator: np.random.Generator) -> Candidate:
    """A k-means cache on the projection of a head (Freeze Inference)."""
    keys = head.keys(pooled)
    centres = k_means(keys, count, generator)
    squares = -2 * keys @ centres.T + (centres * centres).sum(axis=1)
    nearest, said = squares.argmin(axis=1), logits.argmax(axis=1)
    votes = np.zeros((count, logits.shape[1]), np.float32)
    np.add.at(votes, (nearest, said), 1.0)
    votes /= np.maximum(votes.sum(axis=1, keepdims=True), 1.0)
    nbytes = HEADER_BYTES + head.encoded.nbytes + 4 * len(head.hidden_bias) + centres.nbytes + votes.nbytes
    seconds = LOOK_SECONDS + head.hidden.size / LOOK_RATE + centres.size / 1e9
    return Candidate(
        head.boundary, "kmeans", head.hidden, head.hidden_bias, head.out, head.out_bias, head.encoded, None, nbytes, seconds, centres, votes
    )


def fit_selector(seen: np.ndarray, classes: np.ndarray, agrees: np.ndarray, count: int) -> np.ndarray:
    """Logistic regression of ``agrees`` on features and class, ``[3 + count]`` (Newton's method; offsets of classes shrink to one another).

    ``seen``: features ``[rows, 3]``.
    """
    mean, spread = seen.mean(axis=0), seen.std(axis=0) + 1e-6
    offsets = np.zeros((len(seen), count))
    offsets[np.arange(len(seen)), classes] = 1.0
    x = np.concatenate([(seen - mean) / spread, np.ones((len(seen), 1)), offsets], axis=1).astype(np.float64)
    penalty = np.diag([0.1] * 3 + [1e-3] + [4.0] * count)
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ w, -30, 30)))
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + penalty, x.T @ (agrees - p) - penalty @ w)
        w += step
        if np.abs(step).max() < 1e-6:
            break
    slopes = w[:3] / spread
    return np.concatenate([slopes, w[3] - slopes @ mean + w[4:]]).astype(np.float32)


# ---- composition


@dataclass(frozen=True)
class Seen:
    """What candidates say about rows: confidence ``[candidates, rows]`` and whether the network says the same ``[candidates, rows]``."""

    confidence: np.ndarray
    agrees: np.ndarray


def look_all(candidates: Sequence[Candidate], places: Sequence[Boundary], pooled: Sequence[np.ndarray], answers: np.ndarray) -> Seen:
    """Ask all candidates about captured rows."""
    by_name = {b.name: p for b, p in zip(places, pooled, strict=True)}
    said = answers.argmax(axis=1)
    confidence, agrees = [], []
    for candidate in candidates:
        classes, _, sure_of = candidate.look(by_name[candidate.boundary.name])
        confidence.append(sure_of)
        agrees.append(classes == said)
    return Seen(np.array(confidence), np.array(agrees))


class Composition:
    """Some candidates in order, judged on rows.

    ``chosen``: numbers of candidates by rising boundary; ``total``: seconds of the network.
    """

    def __init__(self, candidates: Sequence[Candidate], chosen: Sequence[int], seen: Seen, total: float) -> None:
        self.chosen = tuple(chosen)
        self.confidence = seen.confidence[list(chosen)] if len(chosen) else np.empty((0, seen.confidence.shape[1]))
        agrees = seen.agrees[list(chosen)] if len(chosen) else np.empty((0, seen.confidence.shape[1]), bool)
        looks = np.cumsum([candidates[i].seconds for i in chosen]) if len(chosen) else np.empty(0)
        until = np.array([candidates[i].boundary.seconds for i in chosen])
        self.cost = np.append(until + looks, total + (looks[-1] if len(looks) else 0.0)) / total
        self.loss = np.concatenate([~agrees, np.zeros((1, agrees.shape[1]), bool)]).astype(np.float64)

    def fit(self, weight: float, start: Sequence[float]) -> tuple[float, ...]:
        """Thresholds that make mean cost + ``weight`` * mean loss small."""
        return improve(self.confidence, self.cost[:, None] + weight * self.loss, start)

    def judge(self, thresholds: Sequence[float]) -> tuple[float, int, np.ndarray]:
        """(mean cost as a share of the network's time, wrong rows, where each row stops)."""
        at = stops(self.confidence, thresholds)
        return float(self.cost[at].mean()), int(self.loss[at, np.arange(len(at))].sum()), at

    def curve(self) -> list[tuple[float, ...]]:
        """Threshold vectors from never answering early to the hastiest, by falling cost."""
        start: tuple[float, ...] = (NEVER,) * len(self.chosen)
        found = [start]
        for weight in sorted(WEIGHTS, reverse=True):
            start = self.fit(weight, start)
            if self.judge(start)[0] < self.judge(found[-1])[0] - 1e-9:
                found.append(start)
        return found

    def best(self, allowed: float) -> tuple[float, tuple[float, ...]]:
        """(mean cost, thresholds) of the cheapest point whose share of wrong rows is at most ``allowed``."""
        rows = self.confidence.shape[1]
        low, high = np.log(0.5), np.log(1000.0)
        best: tuple[float, ...] = (NEVER,) * len(self.chosen)
        best_cost = self.judge(best)[0]
        for _ in range(9):
            middle = (low + high) / 2
            thresholds = self.fit(float(np.exp(middle)), best)
            cost, wrong, _ = self.judge(thresholds)
            if wrong <= allowed * rows:
                high = middle
                if cost < best_cost:
                    best, best_cost = thresholds, cost
            else:
                low = middle
        return best_cost, best


def compose(candidates: Sequence[Candidate], seen: Seen, total: float, allowed: float, most_bytes: int) -> Composition:
    """The caches to take: a dynamic program on bitmaps of hits, then exact changes of one cache at a time."""
    rows = seen.confidence.shape[1]
    order = sorted(range(len(candidates)), key=lambda i: candidates[i].boundary.seconds)
    names = list(dict.fromkeys(candidates[i].boundary.name for i in order))
    # hits and wrong hits of each candidate alone, at the threshold that spends each share of the errors
    alone: dict[int, list[tuple[float, float]]] = {}
    for i in order:
        by_confidence = np.argsort(-seen.confidence[i], kind="stable")
        wrong = np.cumsum(~seen.agrees[i][by_confidence])
        alone[i] = []
        for share in (0.25, 0.5, 1.0):
            within = np.flatnonzero(wrong <= share * allowed * rows)
            if len(within):
                last = int(within[-1])
                alone[i].append(((last + 1) / rows, float(wrong[last]) / rows))
    hits: dict[Any, tuple[float, float, float]] = {None: (0.0, 0.0, 0.0)}  # state -> (hit share, wrong share, seconds)
    for i in order:
        for level, (hit, wrong_share) in enumerate(alone[i]):
            hits[i, level] = (hit, wrong_share, candidates[i].boundary.seconds)

    def stage(name: str) -> pareto.Stage:
        def options(state: Any, _: pareto.Costs) -> list[pareto.Option]:
            hit, wrong_share, seconds = hits[state]
            found = [pareto.Option(None, (0.0, 0.0, 0.0), state)]
            for i in order:
                if candidates[i].boundary.name != name:
                    continue
                for level, (deeper, wrong_deeper) in enumerate(alone[i]):
                    if deeper <= hit:
                        continue
                    passed = (candidates[i].boundary.seconds - seconds + candidates[i].seconds) * (1.0 - hit)
                    cost = (passed, float(candidates[i].nbytes), max(wrong_deeper - wrong_share, 0.0))
                    found.append(pareto.Option(i, cost, (i, level)))
            return found

        return options

    def end(state: Any, _: pareto.Costs) -> list[pareto.Option]:
        hit, _wrong, seconds = hits[state]
        return [pareto.Option(None, ((total - seconds) * (1.0 - hit), 0.0, 0.0))]

    limits = (float("inf"), float(most_bytes), allowed)
    resolution = (0.002 * total, most_bytes / 64, allowed / 16)
    points = pareto.sweep([*map(stage, names), end], zero=(0.0, 0.0, 0.0), limits=limits, resolution=resolution).get(None, [])
    ways = [tuple(c for c in point.choices if c is not None) for point in sorted(points, key=lambda p: p.costs)]

    def cost_of(trial: tuple[int, ...]) -> float:
        return Composition(candidates, trial, seen, total).best(allowed)[0]

    # the program's own cost rests on its supposition, so its best ways are judged exactly before one is improved
    best, chosen = min((cost_of(way), way) for way in [*dict.fromkeys(ways)][:STARTS] or [()])
    while True:
        trials = set()
        for i in order:
            rest = tuple(c for c in chosen if candidates[c].boundary.name != candidates[i].boundary.name)
            trials.add(tuple(sorted((*rest, i), key=order.index)))
            trials.add(rest)
            trials.update(tuple(sorted({*rest, i} - {j}, key=order.index)) for j in rest)  # one for another
        trials = {t for t in trials if t != chosen and sum(candidates[i].nbytes for i in t) <= most_bytes}
        cost, trial = min(((cost_of(t), t) for t in sorted(trials)), default=(best, chosen))
        if cost >= best - 1e-4:
            break
        best, chosen = cost, trial
    return Composition(candidates, chosen, seen, total)


def radius_of(keys: np.ndarray, answers: np.ndarray) -> float:
    """The distance within which only one row in a hundred has a row of another answer. ``keys``: ``[rows, width]``."""
    said = answers.argmax(axis=1)
    squares = (keys * keys).sum(axis=1)[:, None] - 2 * keys @ keys.T + (keys * keys).sum(axis=1)
    squares[said[:, None] == said[None]] = np.inf
    nearest = np.sqrt(np.maximum(squares.min(axis=1), 0))
    finite = nearest[np.isfinite(nearest)]
    return float(np.quantile(finite, 0.01)) if len(finite) else 0.0


# ---- all of it


@dataclass(frozen=True)
class Fitted:
    """What :func:`fit` found, ready for :func:`write`. ``curve``: (cost, disagreement and upper bound on certifying rows) of its points."""

    candidates: tuple[Candidate, ...]
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    seconds: float
    promise: float
    confidence: float
    cost: float
    disagreement: float
    rows: tuple[int, int, int]
    curve: tuple[tuple[float, float, float], ...]
    agreement: tuple[tuple[str, str, float, int], ...]
    recent: tuple[int, float, int] | None
    scores: str


def certify(composition: Composition, curve: Sequence[Sequence[float]], promise: float, confidence: float) -> int:
    """Number of the cheapest point of ``curve`` that the composition's rows certify: tested in order, up to the first that fails."""
    rows = composition.confidence.shape[1]
    chosen = 0
    for number in range(1, len(curve)):
        _, wrong, _ = composition.judge(curve[number])
        if binomial_upper(wrong, rows, confidence) > promise:
            break
        chosen = number
    return chosen


@dataclass(frozen=True)
class Learned:
    """What :func:`learn` made: candidates without selectors, the boundaries considered, seconds of the network, rows it learned from."""

    candidates: tuple[Candidate, ...]
    boundaries: tuple[Boundary, ...]
    seconds: float
    rows: int
    limit: int


def check(session: InferenceSession, feed: Mapping[str, np.ndarray], training: Mapping[str, np.ndarray] | None = None) -> list[str]:
    """Names of the inputs. Raises UsageError where the network is no classifier with a free batch, InputError where arrays are missing."""
    outputs = session.get_outputs()
    if session.store.graph.batch is None or len(outputs) != 1 or len(outputs[0].shape) != 2 or not isinstance(outputs[0].shape[1], int):
        found = ", ".join(f"{o.name} {o.shape}" for o in outputs)
        raise UsageError(f"layer caches need a network with a free batch and one output [rows, classes], found {found}")
    names = [arg.name for arg in session.get_inputs()]
    for what, given in (("data", feed), ("training data", training)):
        if given is not None and not set(names) <= set(given):
            raise InputError(f"{what}: expected arrays {', '.join(map(repr, names))}, found {', '.join(map(repr, given)) or 'none'}")
    return names


def learn(
    session: InferenceSession,
    feed: Mapping[str, np.ndarray],
    *,
    most_bytes: int | None = None,
    augment: int = 4,
    epochs: int = 6,
    bits: int = 4,
    places: int = 8,
    scores: str = "logits",
    generator: np.random.Generator,
    progress: Progress | None = None,
) -> Learned:
    """Candidates trained on rows of ``feed`` and varied copies of them; arguments as of :func:`fit`."""
    boundaries, total = find_boundaries(session, feed, places)
    if not boundaries:
        raise UsageError("this network has no boundary where a cache could stand")
    limit = most_bytes if most_bytes is not None else int(0.05 * os.path.getsize(session.store.path))
    rows = len(next(iter(feed.values())))
    pooled, answers = capture(session, feed, boundaries, progress, "activations")
    more = []
    for at in range(0, rows * augment, 512):
        part = varied(feed, min(512, rows * augment - at), generator)
        more.append(capture(session, part, boundaries, _offset(progress, at, rows * augment)))
    pooled = [np.concatenate([p, *(m[0][i] for m in more)]) for i, p in enumerate(pooled)]
    answers = np.concatenate([answers, *(m[1] for m in more)])
    del more
    logits = np.log(answers + 1e-7) if scores == "probabilities" else answers
    candidates: list[Candidate] = []
    for number, boundary in enumerate(boundaries):
        if progress is not None:
            progress(number, len(boundaries), f"heads at {boundary.name}")
        # what a third of the bytes, and a ninth of them, pay for
        widest = max(8, int(limit / 3 * 8 / bits / boundary.width) // 8 * 8)
        head = None
        for hidden in dict.fromkeys((min(64, widest), min(64, max(8, widest // 3 // 8 * 8)))):
            made = make_candidate(boundary, pooled[number], logits, hidden, bits, epochs, generator)
            if made.nbytes <= limit:
                candidates.append(made)
                head = head or made
        if head is not None:
            count = min(10 * answers.shape[1], 100, len(answers) // 4)
            candidates.append(k_means_candidate(head, pooled[number][:8192], answers[:8192], count, generator))
    if not candidates:
        raise UsageError(f"no head fits into {limit} bytes; allow more with max_bytes")
    return Learned(tuple(candidates), tuple(boundaries), total, rows, limit)


Captured = tuple[Sequence[np.ndarray], np.ndarray]


def select(learned: Learned, selecting: Captured) -> list[Candidate]:
    """The candidates with selectors fitted to captured rows; without those that another one at the same boundary beats in agreement and
    bytes."""
    by_name = {b.name: p for b, p in zip(learned.boundaries, selecting[0], strict=True)}
    said, classes = selecting[1].argmax(axis=1), selecting[1].shape[1]
    made, rates = [], []
    for candidate in learned.candidates:
        given, seen, _ = candidate.look(by_name[candidate.boundary.name])
        same = given == said
        made.append(replace(candidate, selector=fit_selector(seen, given, same.astype(np.float64), classes)))
        rates.append(float(same.mean()))
    return [
        mine
        for mine, rate in zip(made, rates, strict=True)
        if not any(
            other.boundary == mine.boundary and other_rate >= rate and other.nbytes < mine.nbytes
            for other, other_rate in zip(made, rates, strict=True)
        )
    ]


def choose(learned: Learned, selecting: Captured, allowed: float) -> list[Candidate]:
    """The caches that :func:`compose` takes, with selectors, both from captured rows; ``allowed``: share of wrong rows."""
    candidates = select(learned, selecting)
    seen = look_all(candidates, learned.boundaries, *selecting)
    return [candidates[i] for i in compose(candidates, seen, learned.seconds, allowed, learned.limit).chosen]


def settle(
    learned: Learned,
    selecting: Captured,
    certifying: Captured,
    *,
    promise: float,
    confidence: float = 0.95,
    recent: int = 64,
    scores: str = "logits",
) -> Fitted:
    """Selectors, composition and thresholds from rows that the heads never saw; ``certifying`` rows judge only.

    ``selecting``, ``certifying``: pooled activations and answers as :func:`capture` gives them.
    """
    boundaries, total = learned.boundaries, learned.seconds
    by_name = {b.name: p for b, p in zip(boundaries, selecting[0], strict=True)}
    said = selecting[1].argmax(axis=1)
    candidates = select(learned, selecting)
    agreement = []
    for candidate in candidates:
        same = candidate.look(by_name[candidate.boundary.name])[0] == said
        agreement.append((candidate.boundary.name, candidate.kind, float(same.mean()), candidate.nbytes))
    composition = compose(candidates, look_all(candidates, boundaries, *selecting), total, 0.8 * promise, learned.limit)
    curve = composition.curve()
    judge = Composition(candidates, composition.chosen, look_all(candidates, boundaries, *certifying), total)
    chosen = certify(judge, curve, promise, confidence)
    cost, wrong, at = judge.judge(curve[chosen])
    kept = [(i, t) for i, t in zip(composition.chosen, curve[chosen], strict=True) if t < NEVER]
    store = None
    if kept and recent > 0:
        first = candidates[kept[0][0]]
        radius = radius_of(first.keys(by_name[first.boundary.name]), selecting[1])
        store = (0, radius, recent) if radius > 0 else None
    return Fitted(
        candidates=tuple(candidates[i] for i, _ in kept),
        thresholds=tuple(t for _, t in kept),
        shares=tuple(float((at == composition.chosen.index(i)).mean()) for i, _ in kept),
        seconds=total,
        promise=promise,
        confidence=confidence,
        cost=cost,
        disagreement=wrong / len(at),
        rows=(learned.rows, len(said), len(at)),
        curve=tuple(_point(judge, t, confidence) for t in curve),
        agreement=tuple(agreement),
        recent=store,
        scores=scores,
    )


def fit(
    session: InferenceSession,
    feed: Mapping[str, np.ndarray],
    *,
    training: Mapping[str, np.ndarray] | None = None,
    promise: float = 0.01,
    confidence: float = 0.95,
    most_bytes: int | None = None,
    augment: int = 4,
    epochs: int = 6,
    bits: int = 4,
    places: int = 8,
    recent: int = 64,
    scores: str = "logits",
    seed: int = 0,
    progress: Progress | None = None,
) -> Fitted:
    """Fit caches for the network of a session.

    Args:
        feed: held-out rows by input name; 40 % teach the heads, 25 % select, 35 % certify. training: more rows for the heads alone; may be
            rows the network was trained on.
        promise: share of rows that may be answered otherwise than by the whole network, kept with ``confidence``.
        most_bytes: of all caches; default 5 % of the container.
        augment: varied copies per row that heads learn from. epochs: passes over them. bits: of the heads' weights.
        places: boundaries to consider. recent: answers kept for repetitive streams, 0 for none.

    Raises UsageError (networks that are not classifiers with a free batch, aims that make no sense, too few rows), InputError.
    """
    names = check(session, feed, training)
    if not 0.0 < promise < 1.0 or not 0.0 < confidence < 1.0:
        raise UsageError(f"expected a share of disagreement and a confidence between 0 and 1, found {promise} and {confidence}")
    rows = len(feed[names[0]])
    if rows < 100:
        raise UsageError(f"fitting layer caches needs at least 100 held-out rows, found {rows}")
    generator = np.random.default_rng(seed)
    order = generator.permutation(rows)
    part = [{n: feed[n][np.sort(chosen)] for n in names} for chosen in np.split(order, (int(0.4 * rows), int(0.65 * rows)))]
    if training is not None:
        part[0] = {n: np.concatenate([part[0][n], training[n]]) for n in names}
    learned = learn(
        session,
        part[0],
        most_bytes=most_bytes,
        augment=augment,
        epochs=epochs,
        bits=bits,
        places=places,
        scores=scores,
        generator=generator,
        progress=progress,
    )
    selecting, certifying = (capture(session, p, learned.boundaries, progress, "held-out rows") for p in part[1:])
    return settle(learned, selecting, certifying, promise=promise, confidence=confidence, recent=recent, scores=scores)


def _point(judge: Composition, thresholds: Sequence[float], confidence: float) -> tuple[float, float, float]:
    cost, wrong, at = judge.judge(thresholds)
    return cost, wrong / len(at), binomial_upper(wrong, len(at), confidence) if len(at) else 1.0


def _offset(progress: Progress | None, start: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _, what: progress(start + done, total, "varied rows")


def write(fitted: Fitted, session: InferenceSession, path: str | os.PathLike[str]) -> int:
    """Write the caches file; returns its bytes. Raises ContainerError where it cannot be written, UsageError where there are no caches."""
    if not fitted.candidates:
        raise UsageError("no cache keeps the promise on the held-out rows; give more rows, or allow more disagreement")
    classes = len(fitted.candidates[0].out_bias)
    inputs: dict[str, TensorSpec] = {}
    outputs: list[TensorSpec] = []
    nodes: list[Node] = []
    for number, c in enumerate(fitted.candidates):
        boundary = c.boundary
        inputs.setdefault(boundary.name, TensorSpec(boundary.name, "float32", ("N", *boundary.shape)))
        at = boundary.name
        if len(boundary.shape) > 1:
            window = [n // boundary.grid for n in boundary.shape[:-1]]
            attrs = {"kernel_shape": window, "strides": window, "pads": [0] * (2 * len(window)), "ceil_mode": 0, "count_include_pad": 0}
            nodes.append(Node("AveragePool", f"pool{number}", (at,), (f"grid{number}",), attrs))
            nodes.append(Node("Flatten", f"flat{number}", (f"grid{number}",), (f"flat{number}",), {"axis": 1}))
            at = f"flat{number}"
        nodes.append(Node("Gemm", f"hidden{number}", (at, f"w{number}", f"b{number}"), (f"key{number}",), {"activation": "Relu"}))
        outputs.append(TensorSpec(f"key{number}", "float32", ("N", len(c.hidden_bias))))
        if c.kind == "head":
            nodes.append(Node("Gemm", f"out{number}", (f"key{number}", f"v{number}", f"c{number}"), (f"scores{number}",), {}))
            outputs.append(TensorSpec(f"scores{number}", "float32", ("N", classes)))
    caches = [
        {
            "boundary": c.boundary.name,
            "kind": c.kind,
            "output": f"scores{n}" if c.kind == "head" else f"key{n}",
            "key": f"key{n}",
            "selector": [float(v) for v in c.selector] if c.selector is not None else [],
            "threshold": float(threshold),
            "share": share,
        }
        for n, (c, threshold, share) in enumerate(zip(fitted.candidates, fitted.thresholds, fitted.shares, strict=True))
    ]
    recent = None if fitted.recent is None else dict(zip(("cache", "radius", "room"), fitted.recent, strict=True))
    metadata = {
        "caches": {
            "version": VERSION,
            "network": session.store.digest,
            "output": session.get_outputs()[0].name,
            "scores": fitted.scores,
            "promise": fitted.promise,
            "confidence": fitted.confidence,
            "caches": caches,
            "recent": recent,
        }
    }
    graph = Graph("caches", tuple(inputs.values()), tuple(outputs), tuple(nodes), "N")
    with Writer(path, graph, metadata) as writer:
        for n, c in enumerate(fitted.candidates):
            writer.add_coded(f"w{n}", c.hidden.shape, "float32", c.encoded)
            writer.add_plain(f"b{n}", c.hidden_bias.astype(np.float32))
            if c.kind == "head":
                writer.add_coded(f"v{n}", c.out.shape, "float32", c.encoded_out)
                writer.add_plain(f"c{n}", c.out_bias.astype(np.float32))
            else:
                assert c.centres is not None and c.votes is not None
                writer.add_plain(f"key{n}.centres", c.centres)
                writer.add_plain(f"key{n}.votes", c.votes)
    return os.path.getsize(path)


def document(fitted: Fitted, nbytes: int, network_bytes: int) -> dict[str, Any]:
    """The fit as JSON values, for ``--json`` and the report."""
    return {
        "promise": fitted.promise,
        "confidence": fitted.confidence,
        "rows": dict(zip(("heads", "selection", "certification"), fitted.rows, strict=True)),
        "latency_ms": {"network": 1e3 * fitted.seconds, "expected_mean": 1e3 * fitted.cost * fitted.seconds},
        "latency_share": fitted.cost,
        "disagreement": fitted.disagreement,
        "bytes": nbytes,
        "bytes_share": nbytes / network_bytes,
        "caches": [
            {
                "boundary": c.boundary.name,
                "kind": c.kind,
                "latency_share": c.boundary.seconds / fitted.seconds,
                "threshold": t,
                "share": s,
                "bytes": c.nbytes,
            }
            for c, t, s in zip(fitted.candidates, fitted.thresholds, fitted.shares, strict=True)
        ],
        "candidates": [{"boundary": b, "kind": k, "agreement": a, "bytes": n} for b, k, a, n in fitted.agreement],
        "curve": [{"latency_share": c, "disagreement": d, "bound": u} for c, d, u in fitted.curve],
        "recent": None if fitted.recent is None else {"radius": fitted.recent[1], "room": fitted.recent[2]},
    }


def report(found: Mapping[str, Any]) -> str:
    """The page that ``--report`` writes, from :func:`document`."""
    curve = found["curve"]
    lines = [
        Line("measured", [p["latency_share"] for p in curve], [100 * p["disagreement"] for p in curve]),
        Line("upper bound of each", [p["latency_share"] for p in curve], [100 * p["bound"] for p in curve]),
        Line("chosen", [found["latency_share"]], [100 * found["disagreement"]], marks=True),
    ]
    gone = np.cumsum([c["share"] for c in found["caches"]])
    left = Line("answered so far", [c["latency_share"] for c in found["caches"]], [100 * float(g) for g in gone])
    caches = [
        [
            c["boundary"],
            c["kind"],
            f"{100 * c['latency_share']:.1f} %",
            f"{100 * c['share']:.1f} %",
            f"{c['threshold']:.4f}",
            str(c["bytes"]),
        ]
        for c in found["caches"]
    ]
    tried = [[c["boundary"], c["kind"], f"{100 * c['agreement']:.2f} %", str(c["bytes"])] for c in found["candidates"]]
    return page(
        "Layer caches",
        [
            paragraph(
                f"Expected mean time {100 * found['latency_share']:.1f} % of the whole network's {found['latency_ms']['network']:.3f} ms, "
                f"look-ups included; {100 * found['disagreement']:.2f} % of {found['rows']['certification']} certifying rows are answered "
                f"otherwise, "
                f"with confidence {found['confidence']:g} at most {100 * found['promise']:.2f} %. The caches take {found['bytes']} bytes, "
                f"{100 * found['bytes_share']:.2f} % of the container."
            ),
            table(["boundary", "kind", "at share of time", "rows answered", "threshold", "bytes"], caches),
            chart("Where rows leave", "share of the network's time", "rows, %", [left]) if caches else "",
            chart("Time and disagreement", "mean time as a share of the network's", "rows answered otherwise, %", lines),
            paragraph("Every cache that was tried, alone and without a threshold:"),
            table(["boundary", "kind", "agreement", "bytes"], tried),
        ],
    )
