"""Watches answers that were given early: estimates how often they are wrong while they are given, and tightens thresholds.

A random share of rows is *audited*: it runs to the end, so that what every cache would have said is known to be right or wrong. The last
``ROOM`` of them are kept. After each, every cache gets the least extra strictness (added to its threshold in log odds) at which the latest
audited rows, in short windows and in long ones, stay within the promise, where what the fit already knows counts as ``PRIOR`` rows without
an error; where none of the steps does, the cache is off until audits say otherwise. A wrong answer among the audits, or a share of early
answers far from what the fit saw, makes the next rows be audited more often, so that a change of the stream is found in tens of rows and
not in thousands.

The state is a JSON file that is replaced atomically. Sizes are fixed: ``ROOM`` rows.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ContainerError
from ..kernels.codec import crc32c
from .stop import Draw, binomial_upper

VERSION = 1
#: audited rows that are kept
ROOM = 240
#: the promise has to hold over each of these numbers of latest audited rows: a change shows in the short ones first
WINDOWS = (40, 80, 160, ROOM)
#: rows that the fit stands for: an audited row or two that are wrong by chance do not move thresholds
PRIOR = 60
#: rows that are audited more often after a reason, and how often
BURST, BURST_SHARE = 100, 0.5
#: extra strictness in log odds; infinity is off
STEPS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, math.inf)
#: rows over which the share of early answers is followed, and its distance from the expected one, in standard deviations, that is a reason
FOLLOWED, FAR = 200, 4.0
#: audited rows between two writes of the state
SAVE_EVERY = 20


def stricter(threshold: float, step: float) -> float:
    """``threshold`` with ``step`` added in log odds; 2 (never passed) for an infinite one."""
    if math.isinf(step):
        return 2.0
    if step == 0.0 or not 0.0 < threshold < 1.0:
        return threshold
    return 1.0 / (1.0 + math.exp(-(math.log(threshold / (1.0 - threshold)) + step)))


class Guard:
    """Thresholds as they are now, and the evidence for them.

    Args:
        fitted, shares: threshold of each cache, and the share of rows expected to leave there.
        order: numbers of the caches in the order in which they are tried.
        promise: share of rows that may be answered wrongly.
        share: of rows that are audited.
        owner: digest of the caches; a state file of other caches is refused.
        path: the state file, or ``None``.

    Attributes:
        thresholds: in force; above 1 where a cache is off.

    Raises ContainerError: the state file is damaged or belongs to other caches.
    """

    def __init__(
        self,
        fitted: Sequence[float],
        shares: Sequence[float],
        order: Sequence[int],
        promise: float,
        share: float,
        owner: str,
        path: str | os.PathLike[str] | None = None,
        draw: Draw | None = None,
    ) -> None:
        self.fitted = list(fitted)
        self.order = list(order)
        self.promise = promise
        self.share = share
        self.owner = owner
        self.path = None if path is None else os.fspath(path)
        self.thresholds = list(fitted)
        self.steps = [0.0] * len(self.fitted)
        self.expected = sum(shares)
        self.early = self.expected  # running share of rows answered early
        self.rows = self.audited = self.wrong = self.changes = 0
        self._burst = 0
        self._draw = draw or Draw()
        self._confidence = np.zeros((ROOM, len(self.fitted)), np.float32)
        self._bad = np.zeros((ROOM, len(self.fitted)), bool)
        self._kept = self._next = 0
        if self.path is not None and os.path.exists(self.path):
            self._load(self.path)

    # ---- what to audit

    def draw(self, rows: int) -> np.ndarray:
        """Which of the next ``rows`` rows are audited, ``bool [rows]``."""
        chosen = np.zeros(rows, bool)
        if self.share > 0:
            for row in range(rows):
                share = max(self.share, BURST_SHARE) if self._burst > 0 else self.share
                self._burst -= self._burst > 0
                chosen[row] = self._draw() < share
        return chosen

    def note(self, exits: np.ndarray) -> None:
        """Rows were answered: ``exits`` as of :meth:`edgeinfer.runtime.cache.Caches.run`."""
        self.rows += len(exits)
        if self.share == 0 or any(self.steps) or not 0 < self.expected < 1:
            return
        keep = (1.0 - 1.0 / FOLLOWED) ** len(exits)
        self.early = keep * self.early + (1.0 - keep) * float((exits >= 0).mean())
        # variance of the running mean of independent rows; audited rows never leave early
        spread = math.sqrt(self.expected * (1.0 - self.expected) / (2 * FOLLOWED - 1))
        if abs(self.early - self.expected * (1.0 - self.share)) > FAR * spread and self._burst == 0:
            self._burst = BURST
            self.early = self.expected

    # ---- what audits say

    def audit(self, confidence: np.ndarray, bad: np.ndarray) -> None:
        """A row ran to the end: each cache's confidence about it, and whether its answer was another one."""
        first = self._first_hits(confidence[None], [stricter(t, s) for t, s in zip(self.fitted, self.steps, strict=True)])[0]
        self._confidence[self._next], self._bad[self._next] = confidence, bad
        self._next = (self._next + 1) % ROOM
        self._kept = min(self._kept + 1, ROOM)
        self.audited += 1
        if first >= 0 and bad[first]:
            self.wrong += 1
            self._burst = BURST
        self._tighten()
        if self.path is not None and self.audited % SAVE_EVERY == 0:
            self.save()

    def _first_hits(self, confidence: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        first = np.full(len(confidence), -1)
        for number in reversed(self.order):
            first[confidence[:, number] > thresholds[number]] = number
        return first

    def _tighten(self) -> None:
        """The least strictness that keeps the promise on the audited rows: caches with the most wrong answers go first."""
        latest = (self._next - 1 - np.arange(self._kept)) % ROOM  # latest first
        confidence, bad = self._confidence[latest], self._bad[latest]
        rows = np.arange(self._kept)
        windows = sorted({min(w, self._kept) for w in WINDOWS})
        at = [0] * len(self.fitted)
        while True:
            thresholds = [stricter(t, STEPS[i]) for t, i in zip(self.fitted, at, strict=True)]
            first = self._first_hits(confidence, thresholds)
            wrong = (first >= 0) & bad[rows, first]
            broken = next((w for w in windows if wrong[:w].sum() > self.promise * (w + PRIOR)), None)
            if broken is None:
                break
            counts = np.bincount(first[:broken][wrong[:broken]], minlength=len(at))
            at[int(counts.argmax())] += 1
        steps = [STEPS[i] for i in at]
        if steps != self.steps:
            self.changes += 1
            self.steps, self.thresholds = steps, thresholds

    def report(self) -> dict[str, Any]:
        """Counts, and the estimate on the rows that are kept with its upper bound (95 %)."""
        first = self._first_hits(self._confidence[: self._kept], self.thresholds)
        wrong = int(((first >= 0) & self._bad[np.arange(self._kept), first]).sum())
        return {
            "rows": self.rows,
            "audited": self.audited,
            "wrong": self.wrong,
            "estimate": wrong / self._kept if self._kept else None,
            "bound": binomial_upper(wrong, self._kept) if self._kept else None,
            "strictness": [s if math.isfinite(s) else None for s in self.steps],
            "changes": self.changes,
        }

    # ---- the state file

    def save(self) -> None:
        """Write the state, whole or not at all. Nothing happens without a path."""
        if self.path is None:
            return
        value = {
            "version": VERSION,
            "owner": self.owner,
            "counts": [self.rows, self.audited, self.wrong, self.changes],
            "steps": [STEPS.index(s) for s in self.steps],
            "early": self.early,
            "kept": [self._kept, self._next],
            "confidence": [[round(float(c), 5) for c in row] for row in self._confidence[: self._kept]],
            "bad": [[int(b) for b in row] for row in self._bad[: self._kept]],
        }
        body = json.dumps(value, sort_keys=True)
        text = json.dumps({"state": value, "checksum": f"{crc32c(body.encode()):08x}"})
        beside = f"{self.path}.{os.getpid()}.partial"
        try:
            with open(beside, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise ContainerError(f"{self.path}: the state of the caches cannot be written: {error.strerror}") from None

    def _load(self, path: str) -> None:
        try:
            with open(path) as file:
                text = file.read(8 << 20)
            whole = json.loads(text)
            value = whole["state"]
            found = f"{crc32c(json.dumps(value, sort_keys=True).encode()):08x}"
            if found != whole["checksum"]:
                raise ValueError(f"expected checksum {whole['checksum']}, found {found}")
            if value["version"] != VERSION:
                raise ValueError(f"expected version {VERSION}, found {value['version']}")
            if value["owner"] != self.owner:
                raise ValueError("it belongs to other caches; remove it or name another file")
            kept, following = value["kept"]
            confidence = np.array(value["confidence"], np.float32).reshape(kept, len(self.fitted))
            bad = np.array(value["bad"], bool).reshape(kept, len(self.fitted))
            if not 0 <= kept <= ROOM or not 0 <= following < ROOM or len(value["steps"]) != len(self.fitted):
                raise ValueError("its sizes do not fit")
            self.steps = [STEPS[i] for i in value["steps"]]
            self.rows, self.audited, self.wrong, self.changes = (int(n) for n in value["counts"])
            self.early = float(value["early"])
        except OSError as error:
            raise ContainerError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise ContainerError(f"{path}: not a state of these caches: {' '.join(str(error).split())}") from None
        self._confidence[:kept], self._bad[:kept] = confidence, bad
        self._kept, self._next = kept, following
        self.thresholds = [stricter(t, s) for t, s in zip(self.fitted, self.steps, strict=True)]
