"""Ensembles that stop early: members run one after the other, over the rows that are not decided yet.

"Flexible Deep Neural Network Processing" (Tann, Hashemi, Reda; 2018): the scores of the members that ran are averaged after softmax, the
difference of the two largest averages is the margin, and a row whose margin passes the threshold for that number of members is
decided. Thresholds are fitted by ``edgeinfer tune ensemble`` (:mod:`edgeinfer.tune.ensemble`) and come as a curve over a dial,
``quality``: 1 runs every member on every row, 0 only the first.

The file is YAML::

    version: 1
    scores: logits              # what members give: logits or probabilities
    quality: 0.6                # the dial where nothing else is asked for
    confidence: 0.95            # of every `bound`
    members:                    # in the order in which they run
    - path: small.edge          # beside this file, or absolute
      sha256: 3f0c...           # of the container, as its trailer states it
      milliseconds: 1.2         # per row, measured when the file was made
    curve:                      # by rising quality
    - quality: 0.0
      thresholds: [0.0, 0.0]    # of 1, 2, ... members; one less than members
      milliseconds: 1.2         # expected mean per row
      members: 1.0              # expected mean
      disagreement: 0.04        # share of rows that the full ensemble answers otherwise, on the data that was held out
      bound: 0.05               # upper bound on that share
    checksum: 1a2b3c4d          # CRC32C of all of the above but the paths, as JSON with sorted keys
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..errors import ContainerError, InputError, UsageError
from ..kernels.codec import crc32c
from ..sizes import parse_seconds
from .arena import Arena
from .ceiling import peak_footprint
from .plan import choose_limit
from .session import InferenceSession, NodeArg
from .stop import SCORES, margins, probabilities

VERSION = 1
#: share that one row more takes in the running means of measured times
FOLLOW = 0.05


@dataclass(frozen=True)
class Member:
    """One network of an ensemble: ``path`` of its container, ``sha256`` that it must have, measured ``milliseconds`` per row."""

    path: str
    sha256: str
    milliseconds: float


@dataclass(frozen=True)
class Setting:
    """One position of the dial; the fields are those of the file, see the module."""

    quality: float
    thresholds: tuple[float, ...]
    milliseconds: float
    members: float
    disagreement: float
    bound: float


@dataclass(frozen=True)
class EnsembleFile:
    """The contents of an ensemble file. ``scores``: one of :data:`~edgeinfer.runtime.stop.SCORES`."""

    members: tuple[Member, ...]
    curve: tuple[Setting, ...]
    quality: float
    scores: str
    confidence: float

    def checksum(self) -> str:
        """CRC32C over everything but the paths."""
        value = asdict(self)
        for member in value["members"]:
            del member["path"]
        return f"{crc32c(json.dumps(value, sort_keys=True).encode()):08x}"

    def dumps(self) -> str:
        """The file as text; paths as they are given."""
        import yaml

        value = {
            "version": VERSION,
            "scores": self.scores,
            "quality": self.quality,
            "confidence": self.confidence,
            "members": [asdict(m) for m in self.members],
            "curve": [{**asdict(s), "thresholds": list(s.thresholds)} for s in self.curve],
            "checksum": self.checksum(),
        }
        return yaml.safe_dump(value, sort_keys=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EnsembleFile:
        """Read a file; member paths become relative to the working directory. Raises ContainerError naming what is wrong."""
        import yaml

        path = os.fspath(path)
        try:
            with open(path, encoding="utf-8") as file:
                value = yaml.safe_load(file)
        except OSError as error:
            raise ContainerError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ContainerError(f"{path}: not an ensemble file: {' '.join(str(error).split())}") from None
        try:
            made = _parsed(value)
        except KeyError as error:
            raise ContainerError(f"{path}: not a whole ensemble file: {error} is missing") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise ContainerError(f"{path}: not an ensemble file of version {VERSION}: {error}") from None
        if value.get("checksum") != made.checksum():
            raise ContainerError(f"{path}: damaged: expected checksum {value.get('checksum')}, found {made.checksum()}")
        folder = os.path.dirname(path)
        members = tuple(Member(os.path.join(folder, m.path), m.sha256, m.milliseconds) for m in made.members)
        return cls(members, made.curve, made.quality, made.scores, made.confidence)


def _parsed(value: Any) -> EnsembleFile:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping, found {type(value).__name__}")
    if value["version"] != VERSION:
        raise ValueError(f"expected version {VERSION}, found {value['version']!r}")
    members = tuple(Member(_text(m["path"]), _text(m["sha256"]), _number(m["milliseconds"])) for m in value["members"])
    curve = tuple(
        Setting(
            quality=_number(s["quality"], 1.0),
            thresholds=tuple(_number(t) for t in s["thresholds"]),
            milliseconds=_number(s["milliseconds"]),
            members=_number(s["members"]),
            disagreement=_number(s["disagreement"], 1.0),
            bound=_number(s["bound"], 1.0),
        )
        for s in value["curve"]
    )
    if not members or len(curve) < 2:
        raise ValueError(f"expected members and at least two points of the curve, found {len(members)} and {len(curve)}")
    dial = [s.quality for s in curve]
    if dial[0] != 0.0 or dial[-1] != 1.0 or any(a >= b for a, b in zip(dial, dial[1:], strict=False)):
        raise ValueError(f"expected qualities that rise from 0 to 1, found {dial}"[:200])
    for setting in curve:
        if len(setting.thresholds) != len(members) - 1:
            raise ValueError(f"expected {len(members) - 1} thresholds for {len(members)} members, found {len(setting.thresholds)}")
    if value["scores"] not in SCORES:
        raise ValueError(f"scores: expected one of {', '.join(SCORES)}, found {value['scores']!r}")
    return EnsembleFile(members, curve, _number(value["quality"], 1.0), value["scores"], _number(value["confidence"], 1.0))


def _number(value: Any, most: float = 1e12) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ValueError(f"expected a number from 0 to {most:g}, found {value!r}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected text, found {value!r}")
    return value


class Answer(NamedTuple):
    """``scores``: mean probabilities float32 ``[rows, classes]``; ``members_used``: members that ran, int64 ``[rows]``."""

    scores: np.ndarray
    members_used: np.ndarray


class Ensemble:
    """Networks for one task that are asked one after the other until the answer is clear. Made by :meth:`load`.

    Used by one thread at a time. Sessions of members share compressed bytes with other sessions of the same file.
    """

    def __init__(
        self, file: EnsembleFile, sessions: Sequence[InferenceSession], memory_limit: int | None, opened: contextlib.ExitStack
    ) -> None:
        self._opened = opened
        self.file = file
        self.sessions = list(sessions)
        self.quality = file.quality
        self._limit = memory_limit
        self._target: float | None = None
        #: seconds per row of each member, followed while it runs
        self._seconds = [m.milliseconds / 1e3 for m in file.members]
        #: running sums of what requests took and what the curve expected of them, for the controller
        self._taken = self._expected = 0.0
        self.member_seconds = 0.0  # of the last run: spent inside the members

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        memory_limit: str | int | None = None,
        threads: int | None = None,
        batch: int = 1,
        kernels: str | None = None,
    ) -> Ensemble:
        """Open an ensemble file and its members; arguments as those of :class:`~edgeinfer.InferenceSession`.

        Raises ContainerError (the file or a member is missing or damaged, or a member is not the container it was fitted with), PlanError
        (the members do not fit ``memory_limit`` together), UsageError (members that do not belong together).
        """
        file = EnsembleFile.load(path)
        limit = choose_limit(memory_limit)
        with contextlib.ExitStack() as opened:
            sessions = open_members([m.path for m in file.members], limit, threads, batch, kernels, opened)
            for member, session in zip(file.members, sessions, strict=True):
                if session.store.digest != member.sha256:
                    raise ContainerError(
                        f"{os.fspath(path)}: member {member.path}: expected the container with SHA-256 {member.sha256[:16]}..., found "
                        f"{session.store.digest[:16]}...; fit the ensemble again with 'edgeinfer tune ensemble'"
                    )
            return cls(file, sessions, limit, opened.pop_all())

    # ---- what it is

    def get_inputs(self) -> list[NodeArg]:
        """Inputs of the first member; those of the others have the same shapes in the same order."""
        return self.sessions[0].get_inputs()

    def setting(self, quality: float | None = None) -> Setting:
        """The point of the curve at ``quality`` (default: the dial), between points by linear interpolation."""
        at = self.quality if quality is None else quality
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0.0 <= at <= 1.0:
            raise UsageError(f"quality: expected a number from 0 to 1, found {quality!r}")
        dial = [s.quality for s in self.file.curve]
        after = min(max(int(np.searchsorted(dial, at)), 1), len(dial) - 1)
        low, high = self.file.curve[after - 1], self.file.curve[after]
        share = (at - low.quality) / (high.quality - low.quality)

        def between(a: float, b: float) -> float:
            return a + (b - a) * share if share < 1.0 else b

        return Setting(
            at,
            tuple(between(a, b) for a, b in zip(low.thresholds, high.thresholds, strict=True)),
            between(low.milliseconds, high.milliseconds),
            between(low.members, high.members),
            between(low.disagreement, high.disagreement),
            max(low.bound, high.bound),
        )

    # ---- the controller

    @property
    def target_latency(self) -> float | None:
        """Mean seconds per row to hold, or ``None``."""
        return self._target

    def hold_latency(self, target: str | float | None) -> None:
        """Turn the dial from now on so that the mean time per row stays at ``target`` (``"5ms"``) as load and clock change.

        The curve says what a dial position costs on the machine it was fitted on; the ratio of measured to expected time, followed over
        the last requests, carries that to the machine as it is now. ``None`` lets the dial go.
        """
        self._target = None if target is None else parse_seconds(target)
        if self._target == 0.0:
            raise UsageError(f"target latency: expected more than 0 seconds, found {target!r}")

    def _follow(self, seconds: float, rows: int, setting: Setting) -> None:
        keep = (1.0 - FOLLOW) ** rows
        self._taken = keep * self._taken + seconds
        self._expected = keep * self._expected + rows * setting.milliseconds / 1e3
        if self._target is None:
            return
        allowed = 1e3 * self._target * self._expected / self._taken if self._taken > 0 else float("inf")
        curve = self.file.curve
        best = 0.0
        for low, high in zip(curve, curve[1:], strict=False):
            if high.milliseconds <= allowed:
                best = high.quality
            elif low.milliseconds <= allowed < high.milliseconds:
                best = low.quality + (high.quality - low.quality) * (allowed - low.milliseconds) / (high.milliseconds - low.milliseconds)
        self.quality = best

    # ---- running

    def run(
        self,
        inputs: np.ndarray | Mapping[str, Any],
        *,
        quality: float | None = None,
        latency_budget: str | float | None = None,
    ) -> Answer:
        """Classify rows.

        Args:
            inputs: the array of the only input, or arrays by the first member's input names; rows along axis 0.
            quality: position of the dial for this request, 0 (first member only) to 1 (all members); default :attr:`quality`.
            latency_budget: seconds (or ``"50ms"``) for this request: a member that is not expected to be done in time is not begun.
                The first member always runs.

        Raises InputError, UsageError, CeilingExceeded, PlanError.
        """
        began = time.perf_counter()
        setting = self.setting(quality)
        budget = None if latency_budget is None else parse_seconds(latency_budget)
        arrays = self._arrays(inputs)
        rows = len(arrays[0])
        used = np.zeros(rows, np.int64)
        total: np.ndarray | None = None
        undecided = np.arange(rows)
        self.member_seconds = 0.0
        for index, session in enumerate(self.sessions):
            if index and budget is not None and time.perf_counter() - began + self._seconds[index] * len(undecided) > budget:
                break
            part = arrays if len(undecided) == rows else [a[undecided] for a in arrays]
            scores = self._ask(index, session, part)
            if total is None:
                total = np.zeros((rows, scores.shape[1]), np.float32)
            running = total[undecided] + scores
            total[undecided] = running
            used[undecided] = index + 1
            if index < len(self.sessions) - 1:
                undecided = undecided[margins(running) <= setting.thresholds[index] * (index + 1)]
                if not len(undecided):
                    break
        assert total is not None
        total /= used[:, None].astype(np.float32)
        self._follow(time.perf_counter() - began, rows, setting)
        return Answer(total, used)

    def _ask(self, index: int, session: InferenceSession, arrays: Sequence[np.ndarray]) -> np.ndarray:
        began = time.perf_counter()
        names = [arg.name for arg in session.get_inputs()]
        (scores,) = session.run([session.get_outputs()[0].name], dict(zip(names, arrays, strict=True)))
        seconds = time.perf_counter() - began
        self.member_seconds += seconds
        rows = len(arrays[0])
        self._seconds[index] += (1.0 - (1.0 - FOLLOW) ** rows) * (seconds / rows - self._seconds[index])
        return probabilities(scores, self.file.scores)

    def _arrays(self, inputs: np.ndarray | Mapping[str, Any]) -> list[np.ndarray]:
        wanted = self.get_inputs()
        if not isinstance(inputs, Mapping):
            if len(wanted) != 1:
                raise InputError(f"inputs: the members have {len(wanted)} inputs; give arrays by name: {', '.join(a.name for a in wanted)}")
            inputs = {wanted[0].name: inputs}
        if set(inputs) != {arg.name for arg in wanted}:
            raise InputError(f"inputs: expected {', '.join(repr(a.name) for a in wanted)}, found {', '.join(map(repr, inputs)) or 'none'}")
        arrays = [np.asarray(inputs[arg.name]) for arg in wanted]
        lengths = {a.shape[:1] for a in arrays}
        if len(lengths) != 1 or lengths in ({()}, {(0,)}):
            raise InputError(
                f"inputs: expected the same number of rows, at least one, along axis 0; found shapes {[a.shape for a in arrays]}"
            )
        return arrays

    # ---- what it takes

    def memory_report(self) -> dict[str, Any]:
        """Bytes of the whole ensemble: prediction and measured peak, compressed weights, and each member's report."""
        reports = [s.memory_report() for s in self.sessions]
        predicted = [r["predicted_peak_rss"] for r in reports if r["predicted_peak_rss"] is not None]
        return {
            "predicted_peak_rss": max(predicted, default=None),
            "peak_rss": peak_footprint(),
            "memory_limit": self._limit,
            "arena_bytes": max(r["arena_bytes"] for r in reports),
            "compressed_resident_bytes": sum(r["compressed_resident_bytes"] for r in reports),
            "members": reports,
        }

    def trim(self) -> None:
        """Give memory back between runs, as :meth:`edgeinfer.InferenceSession.trim`."""
        for session in self.sessions:
            session.trim()

    def close(self) -> None:
        """Close the members. A closed ensemble cannot run."""
        self._opened.close()

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_members(
    paths: Sequence[str],
    limit: int | None,
    threads: int | None,
    batch: int,
    kernels: str | None,
    opened: contextlib.ExitStack,
) -> list[InferenceSession]:
    """Sessions of containers that answer the same question, planned for being resident together under ``limit`` bytes.

    ``opened`` closes what is open when it is left. Raises UsageError where inputs or outputs differ or are not ``[rows, classes]``.
    """
    if not paths:
        raise UsageError("an ensemble needs at least one member")
    sessions: list[InferenceSession] = []
    arena = Arena()  # members run in turn, so one arena serves them all
    opened.callback(arena.close)
    for path in paths:
        session = InferenceSession(path, memory_limit=limit, threads=threads, batch=batch, kernels=kernels, arena=arena)
        opened.push(session)
        sessions.append(session)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if session.store.graph.batch is None or len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].type != "tensor(float)":
            found = "; ".join(f"{o.name} {o.shape} {o.type}" for o in outputs)
            raise UsageError(f"{path}: a member needs a free batch and one float output [rows, classes], found {found}")
        first = sessions[0]
        if [(a.shape[1:], a.type) for a in inputs] != [(a.shape[1:], a.type) for a in first.get_inputs()]:
            raise UsageError(f"{path}: expected inputs like those of {paths[0]}, {_shapes(first.get_inputs())}; found {_shapes(inputs)}")
        if outputs[0].shape[1:] != first.get_outputs()[0].shape[1:]:
            raise UsageError(f"{path}: expected outputs like those of {paths[0]}, {_shapes(first.get_outputs())}; found {_shapes(outputs)}")
    if limit is not None:
        # rows that go on to the next member are copied: one more set of inputs and scores than a session plans for
        each = sum(4 * prod(d for d in a.shape[1:] if isinstance(d, int)) for a in (*sessions[0].get_inputs(), *sessions[0].get_outputs()))
        for session in sessions:  # each one's plan was made before the later ones were loaded
            session.set_memory_limit(limit - batch * each)
    return sessions


def _shapes(args: Sequence[NodeArg]) -> str:
    return ", ".join(f"{a.type} {a.shape}" for a in args)
