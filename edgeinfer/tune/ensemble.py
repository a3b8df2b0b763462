"""Fits the thresholds of an ensemble (:mod:`edgeinfer.runtime.ensemble`) to held-out data; makes its file and its report.

Three aims: the paper's objective ``alpha * latency + (1 - alpha) * relative increase of the error`` (Tann et al. 2018), the least
mean latency under a bound on disagreement with the full ensemble (or on lost accuracy), and the least error under a bound on mean or
99th percentile latency. All three are points of one curve, which the file stores as its dial.

The rows are split in two by chance. The curve is fitted on one half: for each weight of an error, thresholds are improved one at a time,
each exactly (rows sorted by margin, every cut tried), until nothing moves. The other half only judges. Points of the curve are tested from
the slowest to the fastest, and testing ends with the first that fails, so the promised share of wrong promises is that of a single
test (fixed sequence testing; Angelopoulos et al., "Learn then Test", 2021).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, UsageError
from ..runtime.ensemble import EnsembleFile, Member, Setting, open_members
from ..runtime.stop import binomial_upper, margins, probabilities
from .page import Line, chart, page, paragraph, table
from .thresholds import improve, stops

#: weights of an error against the latency of all members that make the curve
WEIGHTS = tuple(float(w) for w in np.geomspace(0.05, 1000.0, 40))
#: steps of the curve beyond the last fitted point: shares of the way of each threshold to 1
CAUTION = (0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
#: up to this many members every order is tried
TRIED = 4
OBJECTIVES = ("paper", "disagreement", "drop", "latency")


@dataclass(frozen=True)
class Recording:
    """What members answered, each asked alone about every row.

    Attributes:
        scores: probabilities float32 ``[members, rows, classes]``, in the order given.
        seconds: float64 ``[members, rows]``.
        labels: classes int64 ``[rows]``, or ``None``.
    """

    scores: np.ndarray
    seconds: np.ndarray
    labels: np.ndarray | None

    def part(self, rows: np.ndarray) -> Recording:
        """Some rows of it."""
        return Recording(self.scores[:, rows], self.seconds[:, rows], None if self.labels is None else self.labels[rows])

    def ordered(self, order: Sequence[int]) -> Recording:
        """With members in another order."""
        return Recording(self.scores[list(order)], self.seconds[list(order)], self.labels)


@dataclass(frozen=True)
class Outcome:
    """What thresholds do to rows. ``used``: members per row; ``milliseconds`` mean and 99th percentile per row; rates are shares of rows.

    ``error`` is against labels, ``drop`` that error less the full ensemble's; both ``None`` without labels.
    """

    used: np.ndarray
    milliseconds: float
    p99: float
    disagreement: float
    wrong: int
    error: float | None
    drop: float | None


class Ladder:
    """Running means of an ordered recording: what each number of members answers, with which margin, at which cost.

    Attributes:
        answers: int64 ``[members, rows]``; margins: float32 ``[members - 1, rows]``; cost: seconds of the first k members, ``[members]``.
    """

    def __init__(self, recording: Recording) -> None:
        members = len(recording.scores)
        running = np.cumsum(recording.scores, axis=0, dtype=np.float32) / np.arange(1, members + 1, dtype=np.float32)[:, None, None]
        self.answers = running.argmax(axis=2)
        self.margins = np.stack([margins(r) for r in running[:-1]]) if members > 1 else np.empty((0, running.shape[1]), np.float32)
        self.cost = np.cumsum(np.median(recording.seconds, axis=1))
        self.labels = recording.labels

    def used(self, thresholds: Sequence[float]) -> np.ndarray:
        """Members that run, per row."""
        return stops(self.margins, thresholds) + 1

    def outcome(self, thresholds: Sequence[float]) -> Outcome:
        """What ``thresholds`` do."""
        used = self.used(thresholds)
        rows = np.arange(len(used))
        answer = self.answers[used - 1, rows]
        wrong = int((answer != self.answers[-1]).sum())
        cost = 1e3 * self.cost[used - 1]
        error = drop = None
        if self.labels is not None:
            error = float((answer != self.labels).mean())
            drop = error - float((self.answers[-1] != self.labels).mean())
        return Outcome(used, float(cost.mean()), float(np.quantile(cost, 0.99)), wrong / len(used), wrong, error, drop)

    def losses(self) -> np.ndarray:
        """What stopping with k members costs in errors, ``[members, rows]``: 1 where the full ensemble would say something else.

        The labels only choose a point of the curve. Curves fitted to them lose more accuracy for the same time: a few hundred rows have a
        dozen errors, and thresholds follow those (docs/benchmarks.md).
        """
        return (self.answers != self.answers[-1]).astype(np.float64)

    def fit(self, weight: float, start: Sequence[float]) -> tuple[float, ...]:
        """Thresholds that minimise mean cost / full cost + ``weight`` * mean loss, one after the other from ``start`` until none moves."""
        return improve(self.margins, (self.cost / self.cost[-1])[:, None] + weight * self.losses(), start)


@dataclass(frozen=True)
class Fit:
    """A fitted ensemble: ``order`` of the members as given, the ``curve`` and the dial's ``quality``; ``judged``: outcomes of the curve's
    points on the half that only judges; ``seconds``: median per row of each member, in that order."""

    order: tuple[int, ...]
    curve: tuple[Setting, ...]
    quality: float
    judged: tuple[Outcome, ...]
    seconds: tuple[float, ...]

    @property
    def chosen(self) -> tuple[Setting, Outcome]:
        """The point at ``quality``."""
        return next((s, o) for s, o in zip(self.curve, self.judged, strict=True) if s.quality == self.quality)


def record(
    paths: Sequence[str],
    feed: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    *,
    scores: str = "logits",
    memory_limit: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int, str], Any] | None = None,
) -> tuple[Recording, list[str]]:
    """Ask each member about every row, one row at a time, in the order of the inputs of the first.

    Returns the recording and the digests of the containers. Raises InputError, UsageError, ContainerError, PlanError.
    """
    with contextlib.ExitStack() as opened:
        sessions = open_members(paths, memory_limit, threads, 1, None, opened)
        names = [arg.name for arg in sessions[0].get_inputs()]
        missing = [n for n in names if n not in feed]
        if missing:
            raise InputError(f"data: expected arrays {', '.join(map(repr, names))}, missing {', '.join(map(repr, missing))}")
        rows = len(feed[names[0]])
        if rows == 0:
            raise InputError("data: expected samples to fit on, found none")
        if labels is not None and labels.shape != (rows,):
            raise InputError(f"labels: expected one class per sample, shape ({rows},), found {labels.shape}")
        answers, seconds = [], np.zeros((len(paths), rows))
        for index, session in enumerate(sessions):
            inputs, output = [a.name for a in session.get_inputs()], session.get_outputs()[0].name
            found = []
            for row in range(rows):
                if progress is not None and row % 50 == 0:
                    progress(index * rows + row, len(paths) * rows, os.path.basename(paths[index]))
                part = {mine: feed[name][row : row + 1] for mine, name in zip(inputs, names, strict=True)}
                began = time.perf_counter()
                found += session.run([output], part)
                seconds[index, row] = time.perf_counter() - began
            answers.append(probabilities(np.concatenate(found), scores))
            classes = answers[-1].shape[1]
            if labels is not None and not (0 <= labels.min() and labels.max() < classes):
                raise InputError(f"labels: expected classes from 0 to {classes - 1}, found {labels.min()} to {labels.max()}")
        return Recording(np.stack(answers), seconds, labels), [s.store.digest for s in sessions]


def scores_of(path: str) -> str:
    """``probabilities`` where a container's network ends in Softmax, else ``logits``."""
    from ..container import Reader

    with Reader(path) as reader:
        last = {o: n.op for n in reader.graph.nodes for o in n.outputs}
        return "probabilities" if last.get(reader.graph.outputs[0].name) == "Softmax" else "logits"


def orders(recording: Recording) -> list[tuple[int, ...]]:
    """Orders worth trying: every one of few members, else cheap before dear and, at nearly equal cost, good before bad.

    Members of equal cost (within a tenth) are taken to be alike, as in the paper, where any order does.
    """
    members = len(recording.scores)
    cost = np.median(recording.seconds, axis=1)
    reference = recording.labels if recording.labels is not None else recording.scores.mean(axis=0).argmax(axis=1)
    accuracy = (recording.scores.argmax(axis=2) == reference).mean(axis=1)
    size = np.round(np.log(cost / cost.min()) / np.log(1.1))
    by_cost = tuple(int(i) for i in sorted(range(members), key=lambda i: (size[i], -accuracy[i])))
    if members > TRIED or size.max() == 0:
        return [by_cost]
    return [by_cost, *(o for o in itertools.permutations(range(members)) if o != by_cost)]


def curve_of(ladder: Ladder, weights: Sequence[float]) -> list[tuple[float, ...]]:
    """Threshold vectors from only the first member to all, by rising mean cost on the ladder's rows."""
    steps = ladder.answers.shape[0] - 1
    ends = [(0.0,) * steps, (1.0,) * steps]
    found, start = [], ends[1]
    for weight in sorted(weights, reverse=True):
        start = ladder.fit(weight, start)
        found.append(start)
    cost = {t: ladder.outcome(t).milliseconds for t in [*found, *ends]}
    # few rows are answered otherwise, and where none is left the weights say nothing: from there to all members in even steps
    slowest = max((t for t in found if t not in ends), key=lambda t: cost[t], default=ends[0])
    for share in CAUTION:
        stricter = tuple(t + share * (1.0 - t) for t in slowest)
        cost[stricter] = ladder.outcome(stricter).milliseconds
        found.append(stricter)
    inner = sorted((t for t in dict.fromkeys(found) if t not in ends), key=lambda t: cost[t])
    kept: list[tuple[float, ...]] = []
    for thresholds in inner:
        if cost[ends[0]] < cost[thresholds] < cost[ends[1]] and (not kept or cost[thresholds] > cost[kept[-1]]):
            kept.append(thresholds)
    return [ends[0], *kept, ends[1]] if steps else [ends[0]]


def fit(
    recording: Recording,
    *,
    objective: str = "paper",
    alpha: float = 0.5,
    max_disagreement: float | None = None,
    max_drop: float | None = None,
    max_latency: float | None = None,
    max_p99: float | None = None,
    confidence: float = 0.95,
    keep_order: bool = False,
    seed: int = 0,
) -> Fit:
    """Fit order, curve and dial.

    Args:
        recording: of held-out rows. objective: one of :data:`OBJECTIVES`.
        alpha: weight of latency in the paper's objective.
        max_disagreement: for ``disagreement``: share of rows that may be answered otherwise than by all members; the point taken keeps it
            with ``confidence``.
        max_drop: for ``drop``: points of accuracy that may be lost against all members, as measured on the judging half.
        max_latency, max_p99: for ``latency``: seconds per row, mean and 99th percentile.
        keep_order: leave members in the order given.

    Raises UsageError: aims that contradict each other or cannot be met, too few rows, labels that are needed and missing.
    """
    members, rows = recording.scores.shape[:2]
    if objective not in OBJECTIVES:
        raise UsageError(f"objective: expected one of {', '.join(OBJECTIVES)}, found {objective!r}")
    needed = {"disagreement": max_disagreement, "drop": max_drop, "latency": max_latency if max_latency is not None else max_p99}
    if objective in needed and needed[objective] is None:
        raise UsageError(f"objective {objective!r} needs its bound (max_disagreement, max_drop, or max_latency or max_p99)")
    if objective in ("paper", "drop") and recording.labels is None:
        raise UsageError(f"objective {objective!r} needs labels; 'disagreement' and 'latency' do not")
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"alpha: expected a number between 0 and 1, found {alpha}")
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"confidence: expected a number between 0 and 1, found {confidence}")
    if members < 2 or rows < 20:
        raise UsageError(f"fitting an ensemble needs at least 2 members and 20 rows, found {members} and {rows}")
    if not np.isfinite(recording.scores).all():
        raise UsageError("a member gave scores that are not finite")
    shuffled = np.random.default_rng(seed).permutation(rows)
    mine, judge = recording.part(np.sort(shuffled[: rows // 2])), recording.part(np.sort(shuffled[rows // 2 :]))
    weights = list(WEIGHTS)
    if recording.labels is not None:
        error = max(Ladder(mine).outcome((1.0,) * (members - 1)).error or 0.0, 0.5 / len(mine.scores[0]))
        weights.append((1 - alpha) / alpha / error)
    candidates = [tuple(range(members))] if keep_order else orders(mine)
    best_order, best_value = candidates[0], np.inf
    if len(candidates) > 1:
        for order in candidates:
            ladder = Ladder(mine.ordered(order))
            value, losses = 0.0, ladder.losses()
            for weight in WEIGHTS[::4]:
                used = ladder.used(ladder.fit(weight, (1.0,) * (members - 1)))
                mean = float((ladder.cost[used - 1] / ladder.cost[-1]).mean())
                loss = float(losses[used - 1, np.arange(len(used))].mean())
                value += np.log(mean + weight * max(loss, 0.0))
            if value < best_value - 1e-9:
                best_order, best_value = order, value
    ladder, judging = Ladder(mine.ordered(best_order)), Ladder(judge.ordered(best_order))
    every = Ladder(recording.ordered(best_order))
    points = curve_of(ladder, weights)
    judged = [judging.outcome(t) for t in points]
    measured = [every.outcome(t) for t in points]
    # one bound for each point, all of them together with `confidence`: the dial may be turned anywhere
    each = 1.0 - (1.0 - confidence) / max(len(points) - 1, 1)
    bounds = [*(binomial_upper(o.wrong, len(o.used), each) for o in judged[:-1]), 0.0]
    slowest = len(points) - 1
    if objective == "disagreement":
        assert max_disagreement is not None
        chosen = slowest
        while chosen > 0 and binomial_upper(judged[chosen - 1].wrong, len(judge.scores[0]), confidence) <= max_disagreement:
            chosen -= 1
            bounds[chosen] = min(bounds[chosen], max_disagreement)
    elif objective == "paper":
        error = max(measured[-1].error or 0.0, 0.5 / rows)
        values = [alpha * o.milliseconds / judged[-1].milliseconds + (1 - alpha) * (o.drop or 0.0) / error for o in judged]
        chosen = int(np.argmin(values))
    else:
        within = [
            max_drop is not None and 100 * (o.drop or 0.0) <= max_drop + 1e-9
            if objective == "drop"
            else (max_latency is None or o.milliseconds <= 1e3 * max_latency) and (max_p99 is None or o.p99 <= 1e3 * max_p99)
            for o in measured
        ]
        allowed = [i for i, fits in enumerate(within) if fits]
        if not allowed:
            first = measured[0]
            raise UsageError(
                f"latency: the first member alone takes {first.milliseconds:.3g} ms (99th percentile {first.p99:.3g} ms), more than allowed"
            )

        def errors(i: int) -> float:
            found = measured[i].error
            return measured[i].disagreement if found is None else found

        chosen = allowed[0] if objective == "drop" else min(allowed, key=lambda i: (errors(i), measured[i].milliseconds))
    last = max(len(points) - 1, 1)
    curve = tuple(
        Setting(
            quality=round(i / last, 6),
            thresholds=tuple(float(t) for t in thresholds),
            milliseconds=float(ladder.outcome(thresholds).milliseconds),
            members=float(o.used.mean()),
            disagreement=float(o.disagreement),
            bound=float(bound),
        )
        for i, (thresholds, o, bound) in enumerate(zip(points, judged, bounds, strict=True))
    )
    seconds = tuple(float(s) for s in np.median(recording.seconds, axis=1)[list(best_order)])
    return Fit(tuple(best_order), curve, curve[chosen].quality, tuple(judged), seconds)


def file_of(fitted: Fit, paths: Sequence[str], digests: Sequence[str], scores: str, confidence: float) -> EnsembleFile:
    """The ensemble file of a fit; ``paths`` and ``digests`` as the members were given."""
    members = tuple(Member(paths[i], digests[i], 1e3 * s) for i, s in zip(fitted.order, fitted.seconds, strict=True))
    return EnsembleFile(members, fitted.curve, fitted.quality, scores, confidence)


def document(fitted: Fit, paths: Sequence[str], confidence: float) -> dict[str, Any]:
    """The fit as JSON values, for ``--json`` and the report."""
    setting, outcome = fitted.chosen
    full = fitted.judged[-1]

    def rate(value: float | None) -> float | None:
        return None if value is None else 1.0 - value

    return {
        "members": [{"path": paths[i], "milliseconds": 1e3 * s} for i, s in zip(fitted.order, fitted.seconds, strict=True)],
        "quality": fitted.quality,
        "confidence": confidence,
        "chosen": {
            "thresholds": list(setting.thresholds),
            "latency_ms": {"mean": outcome.milliseconds, "p99": outcome.p99},
            "members": float(outcome.used.mean()),
            "disagreement": outcome.disagreement,
            "bound": setting.bound,
            "accuracy": rate(outcome.error),
        },
        "full": {"latency_ms": {"mean": full.milliseconds}, "accuracy": rate(full.error)},
        "curve": [
            {
                "quality": s.quality,
                "thresholds": list(s.thresholds),
                "latency_ms": {"mean": o.milliseconds, "p99": o.p99},
                "members": float(o.used.mean()),
                "shares": [float((o.used == k + 1).mean()) for k in range(len(fitted.order))],
                "disagreement": o.disagreement,
                "bound": s.bound,
                "accuracy": rate(o.error),
            }
            for s, o in zip(fitted.curve, fitted.judged, strict=True)
        ],
        "rows": {"judging": len(full.used)},
    }


def report(found: Mapping[str, Any]) -> str:
    """The page that ``--report`` writes, from :func:`document`."""
    curve, chosen, full = found["curve"], found["chosen"], found["full"]
    rate = "accuracy" if full["accuracy"] is not None else "agreement"

    def score(point: Mapping[str, Any]) -> float:
        return 100 * (point["accuracy"] if rate == "accuracy" else 1.0 - point["disagreement"])

    latency = [p["latency_ms"]["mean"] for p in curve]
    lines = [
        Line("dial", latency, [score(p) for p in curve]),
        Line("chosen", [chosen["latency_ms"]["mean"]], [score(chosen)], marks=True),
    ]
    shares = [
        Line(f"{k + 1} of {len(found['members'])} members", [p["quality"] for p in curve], [100 * p["shares"][k] for p in curve])
        for k in range(min(len(found["members"]), 4))
    ]
    rows = [
        [
            f"{p['quality']:.3f}",
            f"{p['latency_ms']['mean']:.3f}",
            f"{p['latency_ms']['p99']:.3f}",
            f"{p['members']:.2f}",
            f"{score(p):.2f} %",
            f"{100 * p['disagreement']:.2f} %",
            f"{100 * p['bound']:.2f} %",
        ]
        for p in curve
    ]
    return page(
        "Ensemble: thresholds fitted to held-out rows",
        [
            paragraph(
                f"Judged on {found['rows']['judging']} rows that the thresholds were not fitted to. Chosen: quality {found['quality']:g}, "
                f"{chosen['latency_ms']['mean']:.3f} ms per row on average against {full['latency_ms']['mean']:.3f} ms for all members; "
                f"{100 * chosen['disagreement']:.2f} % of rows are answered otherwise than by all members, with confidence "
                f"{found['confidence']:g} at most {100 * chosen['bound']:.2f} %."
            ),
            table(["member", "ms per row"], [[os.path.basename(m["path"]), f"{m['milliseconds']:.3f}"] for m in found["members"]]),
            chart(f"Mean latency and {rate} over the dial", "mean latency, ms per row", f"{rate}, %", lines),
            chart("Where rows are decided", "quality", "share of rows, %", shares),
            table(["quality", "mean ms", "p99 ms", "members", rate, "disagreement", "bound"], rows),
        ],
    )
