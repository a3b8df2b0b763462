"""One dynamic program over choices with several costs: the best trades, not one best answer. Pure Python, knows nothing of networks.

A problem is a row of stages. At each stage an option is taken; it adds to a vector of costs (bytes, seconds, error ...; less is better) and
leads to a state, which may restrict or price the options of the next stage. :func:`sweep` returns, per final state, every way through
that is not dominated: no other way to that state is at most as costly in all costs and less in one (Vooturi et al. 2017 use such a list for
batch sizes per layer, time against memory; the same list chooses coders per tensor and caches per layer).

What makes pruning safe, and what callers have to guarantee: an option's state and added costs may depend on the stage and the state alone,
and whether it is allowed on the costs so far only monotonically: what is allowed at some costs is allowed at lower ones.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Costs = tuple[float, ...]


@dataclass(frozen=True)
class Option:
    """One way to take a stage: ``choice`` (free, handed back), ``costs`` it adds, ``state`` it leads to."""

    choice: Any
    costs: Costs
    state: Hashable = None


class Point:
    """A way through the stages so far. ``costs``: their sums; ``choices``: one per stage, in the order of the stages."""

    __slots__ = ("_before", "_choice", "costs")

    def __init__(self, costs: Costs, choice: Any = None, before: Point | None = None) -> None:
        self.costs = costs
        self._choice = choice
        self._before = before

    @property
    def choices(self) -> tuple[Any, ...]:
        found = []
        at: Point | None = self
        while at is not None and at._before is not None:
            found.append(at._choice)
            at = at._before
        return tuple(reversed(found))

    def __repr__(self) -> str:
        return f"Point({self.costs}, {self.choices})"


#: the options of a stage: given the state and the costs so far
Stage = Callable[[Any, Costs], Iterable[Option]]


def front(points: Iterable[Point], resolution: Sequence[float] | None = None) -> list[Point]:
    """The points that no other dominates, by rising first cost; of equal ones the first that was given.

    ``resolution``: a cell width per cost (0: exact). Of points in one cell only the least by order of costs stays, so that the list cannot
    grow beyond the number of cells; what remains of each dropped point is a point that exceeds it by less than one cell in each cost.
    """
    ordered = sorted(points, key=lambda p: p.costs)
    kept: list[Point] = []
    if ordered and len(ordered[0].costs) == 2:
        least = float("inf")
        for point in ordered:  # by rising first cost: only a lower second cost is news
            if point.costs[1] < least:
                kept.append(point)
                least = point.costs[1]
    else:
        for point in ordered:
            if not any(all(a <= b for a, b in zip(other.costs, point.costs, strict=True)) for other in kept):
                kept.append(point)
    if resolution is None or not any(resolution):
        return kept
    cells: dict[tuple, Point] = {}
    for point in kept:
        cell = tuple(cost // width if width else cost for cost, width in zip(point.costs, resolution, strict=True))
        cells.setdefault(cell, point)
    return list(cells.values())


def sweep(
    stages: Sequence[Stage],
    start: Hashable = None,
    zero: Costs = (0.0, 0.0),
    limits: Costs | None = None,
    resolution: Sequence[float] | None = None,
) -> dict[Hashable, list[Point]]:
    """Every non-dominated way through ``stages``, by final state.

    Args:
        stages: called in order with each (state, costs) that is reached; options that are not allowed are not given.
        start, zero: the first state and the costs before the first stage.
        limits: most of each cost; a way that passes one is dropped (costs never fall, so it could not come back).
        resolution: as in :func:`front`, after every stage; a result is at most ``len(stages)`` cells from the best.

    An empty result means that there is no way through.
    """
    reached: dict[Hashable, list[Point]] = {start: [Point(zero)]}
    for stage in stages:
        following: dict[Hashable, list[Point]] = {}
        for state, points in reached.items():
            for point in points:
                for option in stage(state, point.costs):
                    costs = tuple([a + b for a, b in zip(point.costs, option.costs, strict=True)])
                    if limits is not None and any(cost > most for cost, most in zip(costs, limits, strict=True)):
                        continue
                    following.setdefault(option.state, []).append(Point(costs, option.choice, point))
        reached = {state: front(points, resolution) for state, points in following.items()}
    return reached


def combine(items: Sequence[Sequence[Option]], limits: Costs | None = None, resolution: Sequence[float] | None = None) -> list[Point]:
    """One option per item, independent of each other: the front of the sums (the multiple-choice knapsack).

    Raises ValueError where an item has no options or costs differ in length.
    """
    lengths = {len(option.costs) for options in items for option in options}
    if len(lengths) > 1 or not all(items):
        raise ValueError(f"expected options with one number of costs for every item, found {sorted(lengths)} and {len(items)} items")
    zero = (0.0,) * next(iter(lengths), 2)
    stages = [_fixed(options) for options in items]
    return sweep(stages, zero=zero, limits=limits, resolution=resolution).get(None, [])


def _fixed(options: Sequence[Option]) -> Stage:
    stateless = [Option(option.choice, option.costs) for option in options]
    return lambda state, costs: stateless


def least(points: Iterable[Point], cost: int = -1, limits: Costs | None = None) -> Point | None:
    """The point with the least of one cost (ties: the least by all costs) among those within ``limits``; ``None`` where there is none."""
    within = [p for p in points if limits is None or all(c <= most for c, most in zip(p.costs, limits, strict=True))]
    return min(within, key=lambda p: (p.costs[cost], p.costs), default=None)
