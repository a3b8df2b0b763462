"""Layer caches: where a small head is sure of the answer, the rest of the network need not run, nor its weights be decoded.

"Accelerating Deep Learning Inference via Freezing" (Kumar et al., HotCloud 2019) and its successor GATI (2021). A cache stands at a
boundary (:func:`edgeinfer.runtime.lowering.boundaries`): the activation is averaged over a coarse grid and projected; a *head* turns the
projection into scores, a *k-means* cache into its nearest centre. A selector says how sure that is: it estimates the probability that the
network would give the same class. Rows whose confidence passes the cache's threshold leave with the cache's scores; the rows that
stay are moved together and go on. :mod:`edgeinfer.tune.cache` fits all of this.

A caches file is a container (``container.py``) with its checksums: the graph holds the heads, one chain of nodes per cache from its
boundary, and ``metadata["caches"]`` the rest::

    version       1
    network       SHA-256 of the container it was fitted to
    output        name of the network's output; scores: logits or probabilities
    promise       share of rows that may be answered otherwise than by the whole network; confidence of that promise
    caches        a list in the order of boundaries: boundary, kind (head or kmeans), output (the scores or the projection), key (the
                  projection), selector (3 weights, then one offset per class), threshold, share (of rows expected to leave there)
    recent        null, or {cache, radius, room}: answers of the last rows that ran to the end, by their key at one cache

A k-means cache has two plain tensors beside the graph, ``<output>.centres`` float32 [centres, key] and ``<output>.votes`` float32
[centres, classes]: the share of each class among the rows of a centre.

Answers are watched while they are given: a random share of rows runs to the end whatever the caches say, and :mod:`.guard` tightens
thresholds by what it finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ContainerError, UsageError
from .arena import Mapping as Memory
from .execution import Execution
from .guard import Guard
from .lowering import boundaries
from .stop import SCORES, softmax
from .weights import WeightStore

VERSION = 1
#: sizes of the batch that rows which stay are padded to: at most a third more rows, and few programs to keep
SIZES = tuple(sorted({n for p in range(21) for n in (1 << p, 3 << p)}))
#: programs of heads that are kept; those of SIZES up to a batch of 4096 fit
KEPT_HEADS = 32
_KINDS = ("head", "kmeans")


@dataclass(frozen=True)
class Cache:
    """One cache; the fields are those of the file, see the module."""

    boundary: str
    kind: str
    output: str
    key: str
    selector: tuple[float, ...]
    threshold: float
    share: float


@dataclass(frozen=True)
class Recent:
    """Answers of rows that ran to the end: a key within ``radius`` of one of the last ``room`` keys at cache ``cache`` gets its answer."""

    cache: int
    radius: float
    room: int


def features(kind: str, found: np.ndarray, centres: np.ndarray | None, votes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What a selector looks at: ``(scores [rows, classes] as logits, three features [rows, 3])``.

    ``found``: scores of a head, or keys for k-means. Features of a head: log of the largest probability, its log ratio to the second, the
    entropy; of k-means: log of (share of the class / distance) (the confidence of Freeze Inference), log distance, 0.
    """
    if kind == "kmeans":
        assert centres is not None and votes is not None
        squares = (found * found).sum(axis=1)[:, None] - 2 * (found @ centres.T) + (centres * centres).sum(axis=1)
        nearest = squares.argmin(axis=1)
        distance = np.log(np.sqrt(np.maximum(squares[np.arange(len(found)), nearest], 0)) + 1e-6)
        scores = np.log(votes[nearest] + np.float32(1e-4))
        return scores, np.stack([scores.max(axis=1) - distance, distance, np.zeros_like(distance)], axis=1)
    shares = softmax(found)
    logs = np.log(shares + np.float32(1e-12))
    if shares.shape[1] > 1:
        top = np.partition(logs, logs.shape[1] - 2, axis=1)[:, -2:]
    else:
        top = np.repeat(logs, 2, axis=1)
    return found, np.stack([top[:, 1], top[:, 1] - top[:, 0], -(shares * logs).sum(axis=1)], axis=1)


def sure(selector: np.ndarray, classes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Estimated probability that the network gives the same class, ``[rows]``, from features ``seen`` and the ``classes`` found."""
    value = np.clip(seen @ selector[:3] + selector[3 + classes], -60.0, 60.0)
    return 1.0 / (1.0 + np.exp(-value))


class Caches:
    """The caches of one network, opened.

    Args:
        path: a caches file.
        network: the store of the container it was fitted to.
        kernels: kernel variant of the heads.
        audit: share of rows that run to the end to watch the caches; 0 turns watching off.
        state: file that keeps what watching has found between runs; ``None``: nothing is kept.

    Raises ContainerError: the file is damaged or was fitted to another container.
    """

    def __init__(
        self, path: str | os.PathLike[str], network: WeightStore, kernels: str, audit: float, state: str | os.PathLike[str] | None
    ) -> None:
        self.path = os.fspath(path)
        if not 0.0 <= audit <= 1.0:
            raise UsageError(f"cache_audit: expected a share from 0 to 1, found {audit}")
        self.store = WeightStore(self.path)
        try:
            self._read(self.store.metadata["caches"], network)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ContainerError(f"{self.path}: not a caches file of version {VERSION}: {text}") from None
        self.kernels = kernels
        self.store.load()
        self._selectors = [np.array(c.selector, np.float32) for c in self.caches]
        self._centres = [self.store.plain(f"{c.output}.centres") if c.kind == "kmeans" else None for c in self.caches]
        self._votes = [self.store.plain(f"{c.output}.votes") if c.kind == "kmeans" else None for c in self.caches]
        self._heads: dict[int, tuple[Execution, Memory, list[tuple[int, int, np.ndarray, np.ndarray]]]] = {}
        self._unset = np.zeros(16, np.float32)
        places = [*range(len(self.caches))]
        if self.recent is not None:
            places.insert(self.recent.cache + 1, len(self.caches))
            width = int(self.store.graph.outputs[[s.name for s in self.store.graph.outputs].index(self._recent_key)].shape[1])
            self._keys = np.zeros((self.recent.room, width), np.float32)
            self._answers = np.zeros((self.recent.room, self.classes), np.float32)
            self._kept, self._next = 0, 0
        #: order in which answers are tried: numbers of caches, and their count for the recent answers
        self.order = tuple(places)
        thresholds = [c.threshold for c in self.caches] + [0.5] * (self.recent is not None)
        shares = [c.share for c in self.caches] + [0.0] * (self.recent is not None)
        self.guard = Guard(thresholds, shares, self.order, self.promise, audit, self.store.digest, state)
        self.answered = [0] * len(thresholds)
        self.rows = 0
        #: per row of the last run: number of the cache that answered, -1 where the network did
        self.exits = np.empty(0, np.int64)

    def _read(self, value: Any, network: WeightStore) -> None:
        if value["version"] != VERSION:
            raise ValueError(f"expected version {VERSION}, found {value['version']!r}")
        if value["network"] != network.digest:
            raise ContainerError(
                f"{self.path}: fitted to the container with SHA-256 {str(value['network'])[:16]}..., but {network.path} has "
                f"{network.digest[:16]}...; fit caches for it with 'edgeinfer tune cache'"
            )
        (output,) = network.graph.outputs
        if value["output"] != output.name or value["scores"] not in SCORES:
            raise ValueError(
                f"expected the output {output.name!r} as logits or probabilities, found {value['output']!r}, {value['scores']!r}"
            )
        self.output, self.scores, self.classes = output.name, str(value["scores"]), int(output.shape[1])
        self.promise, self.confidence = float(value["promise"]), float(value["confidence"])
        self.caches = [
            Cache(
                str(c["boundary"]),
                str(c["kind"]),
                str(c["output"]),
                str(c["key"]),
                tuple(float(v) for v in c["selector"]),
                float(c["threshold"]),
                float(c["share"]),
            )
            for c in value["caches"]
        ]
        outputs = {spec.name: spec for spec in self.store.graph.outputs}
        inputs = {spec.name for spec in self.store.graph.inputs}
        for c in self.caches:
            if c.kind not in _KINDS or c.boundary not in inputs or c.output not in outputs or c.key not in outputs:
                raise ValueError(f"cache at {c.boundary!r}: kind {c.kind!r}, output {c.output!r} or key {c.key!r} is unknown")
            if len(c.selector) != 3 + self.classes or not np.isfinite(c.selector).all() or not 0.0 <= c.threshold <= 1.0:
                raise ValueError(f"cache at {c.boundary!r}: expected {3 + self.classes} finite selector weights and a threshold in 0..1")
            width = outputs[c.output].shape[-1]
            if c.kind == "head" and width != self.classes:
                raise ValueError(f"cache at {c.boundary!r}: expected scores of {self.classes} classes, found {width}")
            if c.kind == "kmeans":
                centres, votes = (tuple(self.store.entries[f"{c.output}.{part}"].shape) for part in ("centres", "votes"))
                if len(centres) != 2 or centres[1] != width or votes != (centres[0], self.classes):
                    raise ValueError(f"cache at {c.boundary!r}: centres {centres} and votes {votes} do not fit a key of {width}")
        recent = value["recent"]
        self.recent = None if recent is None else Recent(int(recent["cache"]), float(recent["radius"]), int(recent["room"]))
        if self.recent is not None:
            if not 0 <= self.recent.cache < len(self.caches) or not 0 < self.recent.room <= 4096 or not self.recent.radius > 0:
                raise ValueError(f"recent: expected a cache, a radius and room for 1 to 4096 answers, found {recent}")
            self._recent_key = self.caches[self.recent.cache].key

    # ---- looking things up

    def _head(self, rows: int) -> tuple[Execution, Memory, list[tuple[int, int, np.ndarray, np.ndarray]]]:
        """The heads' program for a number of rows, its memory, and for each cache the range of its actions, its output and its key."""
        made = self._heads.get(rows)
        if made is None:
            execution = Execution(self.store, {self.store.graph.batch or "N": rows}, self.kernels, 1)
            memory = Memory(execution.arena_bytes)
            execution.bind(memory)
            # a program binds all its slots at once; each boundary gets its real place when it is reached
            execution.begin({spec.name: self._unset for spec in self.store.graph.inputs})
            ranges = []
            for cache in self.caches:
                names = self._chain(cache)
                own = [i for i, action in enumerate(execution.lowered.actions) if action.node.name in names]
                # views are made once: making them takes longer than the head
                ranges.append((own[0], own[-1] + 1, execution.tensor(cache.output, {}), execution.tensor(cache.key, {})))
            while len(self._heads) >= KEPT_HEADS:
                self._heads.pop(next(iter(self._heads)))
            made = self._heads[rows] = execution, memory, ranges
        return made

    def prepare(self, rows: int) -> None:
        """Make everything that looking up ``rows`` rows takes, so that a plan made afterwards counts it."""
        _, memory, ranges = self._head(rows)
        memory.buffer(0, memory.nbytes)[...] = 0
        # NumPy's code and the buffers of its products become resident when they are first used
        for number, cache in enumerate(self.caches):
            scores, seen = features(cache.kind, ranges[number][2], self._centres[number], self._votes[number])
            sure(self._selectors[number], scores.argmax(axis=1), seen)
        if self.recent is not None:
            kept, self._kept = self._kept, self.recent.room
            self._look_recent(np.zeros((rows, self._keys.shape[1]), np.float32))
            self._kept = kept

    def _chain(self, cache: Cache) -> set[str]:
        """Names of the nodes between a cache's boundary and its output and key."""
        makers = {o: n for n in self.store.graph.nodes for o in n.outputs}
        at, names = {cache.output, cache.key}, set()
        while at:
            name = at.pop()
            if name in makers:
                names.add(makers[name].name)
                at |= {i for i in makers[name].inputs if i}
        return names

    def look(self, number: int, activation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(scores as logits, classes, confidence, keys) of rows at the boundary of cache ``number``; keys are views."""
        cache = self.caches[number]
        execution, _, ranges = self._head(len(activation))
        first, last, found, keys = ranges[number]
        inputs = {cache.boundary: activation}
        execution.begin(inputs)
        execution.advance(inputs, first, last)
        scores, seen = features(cache.kind, found, self._centres[number], self._votes[number])
        classes = scores.argmax(axis=1)
        return scores, classes, sure(self._selectors[number], classes, seen), keys

    def _look_recent(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(answers as the network gave them, classes, confidence); confidence is 1 at distance 0, 0.5 at the radius."""
        assert self.recent is not None
        if not self._kept:
            none = np.zeros((len(keys), self.classes), np.float32)
            return none, np.zeros(len(keys), np.int64), np.zeros(len(keys), np.float32)
        known = self._keys[: self._kept]
        squares = (keys * keys).sum(axis=1)[:, None] - 2 * (keys @ known.T) + (known * known).sum(axis=1)
        nearest = squares.argmin(axis=1)
        distance = np.sqrt(np.maximum(squares[np.arange(len(keys)), nearest], 0))
        answers = self._answers[nearest]
        return answers, answers.argmax(axis=1), np.maximum(1.0 - distance / (2.0 * self.recent.radius), 0.0)

    def _remember(self, keys: np.ndarray, answers: np.ndarray) -> None:
        assert self.recent is not None
        for key, answer in zip(keys, answers, strict=True):
            self._keys[self._next] = key
            self._answers[self._next] = answer
            self._next = (self._next + 1) % self.recent.room
            self._kept = min(self._kept + 1, self.recent.room)

    # ---- running

    def run(
        self,
        execution: Execution,
        inputs: Mapping[str, np.ndarray],
        output: np.ndarray,
        smaller: Callable[[int], Execution | None],
        on_layer: Callable[[str, float, int], None] | None = None,
    ) -> np.ndarray:
        """Run one slice; rows leave at caches that are sure.

        Args:
            execution: of all rows of ``inputs``. output: float32 ``[rows, classes]``, filled.
            smaller: gives the execution of fewer rows on the same arena, or ``None`` where there is none.

        Returns the number of the cache that answered each row, -1 for the network. Raises Stopped, KernelError.
        """
        rows = len(output)
        exits = np.full(rows, -1, np.int64)
        audited = self.guard.draw(rows)
        tried = len(self.guard.thresholds)
        seen = np.zeros((rows, tried), np.float32) if audited.any() else None
        said = np.zeros((rows, tried), np.int64) if audited.any() else None
        remembered = np.zeros((rows, self._keys.shape[1]), np.float32) if self.recent is not None else None
        waiting = np.arange(rows)  # rows of the request that the first rows of the current execution stand for
        current, at = execution, 0
        places = boundaries_of(current)
        current.begin(inputs)
        keys: np.ndarray | None = None
        for number in self.order:
            threshold = self.guard.thresholds[number]
            is_recent = number == len(self.caches)
            if not is_recent and threshold > 1.0 and seen is None and not (self.recent and self.recent.cache == number):
                continue  # switched off
            boundary = self.caches[self.recent.cache if is_recent and self.recent else number].boundary
            if places[boundary] > at:
                current.advance(inputs, at, places[boundary], on_layer)
                at = places[boundary]
            activation = current.tensor(boundary, inputs)
            if is_recent:
                assert keys is not None and remembered is not None
                answers, classes, confidence = self._look_recent(keys)
                scores = answers
            else:
                # all rows of the buffer, so that there is one program per size of the batch and not one per number of rows that stay
                scores, classes, confidence, keys = (part[: len(waiting)] for part in self.look(number, activation))
                if self.scores == "probabilities":
                    scores = softmax(scores)
                if self.recent is not None and number == self.recent.cache:
                    assert remembered is not None
                    remembered[waiting] = keys
            if seen is not None and said is not None:
                seen[waiting, number], said[waiting, number] = confidence, classes
            hit = (confidence > threshold) & ~audited[waiting]
            if not hit.any():
                continue
            leaving = waiting[hit]
            output[leaving] = scores[hit]
            exits[leaving] = number
            stay = np.flatnonzero(~hit)
            waiting = waiting[stay]
            if not len(waiting):
                break
            if keys is not None:
                keys = keys[stay]
            size = next(n for n in SIZES if n >= len(stay))
            following = smaller(size) if size < len(activation) else None
            moved = activation if following is None else following.tensor(boundary, inputs)
            _compact(activation, moved, stay)
            if following is not None:
                current, places = following, boundaries_of(following)
                current.begin(inputs)
                at = places[boundary]
        if len(waiting):
            current.advance(inputs, at, len(current.lowered.actions), on_layer)
            output[waiting] = current.tensor(self.output, inputs)[: len(waiting)]
            if remembered is not None:
                self._remember(remembered[waiting], output[waiting])
        self.rows += rows
        for number in range(tried):
            self.answered[number] += int((exits == number).sum())
        self.guard.note(exits)
        if seen is not None and said is not None:
            final = output.argmax(axis=1)
            for row in np.flatnonzero(audited):
                self.guard.audit(seen[row], said[row] != final[row])
        return exits

    def report(self) -> dict[str, Any]:
        """What was answered where, and what watching has found; shares are of all rows so far."""
        rows = max(self.rows, 1)
        return {
            "rows": self.rows,
            "promise": self.promise,
            "caches": [
                {
                    "boundary": c.boundary,
                    "kind": c.kind,
                    "answered": self.answered[i] / rows,
                    "expected": c.share,
                    "threshold": self.guard.thresholds[i] if self.guard.thresholds[i] <= 1.0 else None,
                    "fitted_threshold": c.threshold,
                }
                for i, c in enumerate(self.caches)
            ],
            "recent": None if self.recent is None else {"answered": self.answered[-1] / rows, "kept": self._kept},
            "watched": self.guard.report(),
            "bytes": self.store.nbytes,
        }

    def close(self) -> None:
        """Keep the state and give memory back."""
        self.guard.save()
        for _, memory, _ in self._heads.values():
            memory.close()
        self._heads.clear()


def boundaries_of(execution: Execution) -> dict[str, int]:
    """:func:`boundaries` of an execution, found once."""
    found = getattr(execution, "_boundaries", None)
    if found is None:
        found = boundaries(execution.lowered)
        execution._boundaries = found  # type: ignore[attr-defined]
    return found


def _compact(rows: np.ndarray, to: np.ndarray, stay: np.ndarray) -> None:
    """Move the rows ``stay`` of ``rows`` to the front of ``to``, which may overlap them; what is left of ``to`` repeats the first.

    Only one row is copied at a time, so no second buffer is needed: first together at the front, then to the new place in the direction
    that never overwrites what is still to be moved.
    """
    for index, row in enumerate(stay):
        if index != row:
            rows[index] = rows[row]
    count = len(stay)
    source, target = (a.__array_interface__["data"][0] for a in (rows, to))
    if source != target:
        order = range(count) if target < source else range(count - 1, -1, -1)
        for index in order:
            to[index] = rows[index]
    for index in range(count, len(to)):
        to[index] = to[0]
