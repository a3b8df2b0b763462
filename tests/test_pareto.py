"""The dynamic program against exhaustive search, on small random instances of the three problems that use it."""

from __future__ import annotations

import itertools
import random
from math import inf

import pytest

from edgeinfer.pareto import Option, Point, combine, front, least, sweep


def dominated(costs: tuple[float, ...], by: tuple[float, ...]) -> bool:
    return all(b <= a for a, b in zip(costs, by, strict=True)) and by != costs


def test_independent_choices_equal_exhaustive_search() -> None:
    random.seed(1)
    for _ in range(1000):
        items = [
            [Option((i, n), (random.randint(0, 9), random.randint(0, 9))) for n in range(random.randint(1, 4))]
            for i in range(random.randint(1, 5))
        ]
        limits = (random.randint(0, 30), inf) if random.random() < 0.5 else None
        every = [tuple(map(sum, zip(*(o.costs for o in way), strict=True))) for way in itertools.product(*items)]
        within = {c for c in every if limits is None or c[0] <= limits[0]}
        expected = sorted(c for c in within if not any(dominated(c, other) for other in within))
        found = combine(items, limits)
        assert [p.costs for p in found] == expected
        for point in found:
            costs = [next(o.costs for o in options if o.choice == c) for options, c in zip(items, point.choices, strict=True)]
            assert tuple(map(sum, zip(*costs, strict=True))) == point.costs


class Priced:
    """A stage whose prices depend on the state, and whose options are forbidden beyond some first cost; three costs."""

    def __init__(self) -> None:
        self.price = {(a, b): tuple(random.randint(0, 5) for _ in range(3)) for a in range(3) for b in range(3)}
        self.most = {key: random.randint(4, 20) for key in self.price}

    def __call__(self, state: int, costs: tuple[float, ...]) -> list[Option]:
        return [Option(b, self.price[state, b], b) for b in range(3) if costs[0] <= self.most[state, b]]


def test_states_and_conditions_equal_exhaustive_search() -> None:
    random.seed(2)
    for _ in range(1000):
        stages = [Priced() for _ in range(random.randint(1, 4))]
        found = sweep(stages, start=0, zero=(0, 0, 0))
        expected: dict[int, set[tuple[float, ...]]] = {}
        for way in itertools.product(range(3), repeat=len(stages)):
            state, costs = 0, (0, 0, 0)
            for stage, following in zip(stages, way, strict=True):
                if costs[0] > stage.most[state, following]:
                    break
                costs = tuple(a + b for a, b in zip(costs, stage.price[state, following], strict=True))
                state = following
            else:
                expected.setdefault(state, set()).add(costs)
        assert set(found) == set(expected)
        for state, points in found.items():
            best = {c for c in expected[state] if not any(dominated(c, other) for other in expected[state])}
            assert {p.costs for p in points} == best and len(points) == len(best)


def test_resolution_bounds_the_list_and_the_loss() -> None:
    random.seed(3)
    items = [[Option(n, (random.random(), random.random())) for n in range(5)] for _ in range(30)]
    exact = combine(items)
    coarse = combine(items, resolution=(0.1, 0.1))
    assert len(coarse) <= 30 / 0.1 and len(coarse) < len(exact)
    for point in exact:
        assert any(all(c <= p + 30 * 0.1 for c, p in zip(other.costs, point.costs, strict=True)) for other in coarse)


def test_choosing_one_point() -> None:
    points = [Point((1.0, 9.0)), Point((3.0, 5.0)), Point((4.0, 5.0))]
    best = least(points)
    assert best is not None and best.costs == (3.0, 5.0)
    assert least(points, limits=(2.0, inf)) is points[0]
    assert least(points, limits=(0.5, inf)) is None
    assert [p.costs for p in front(points)] == [(1.0, 9.0), (3.0, 5.0)]


def test_no_way_and_nothing_to_do() -> None:
    assert sweep([lambda state, costs: []]) == {}
    assert [p.choices for p in combine([])] == [()]
    with pytest.raises(ValueError, match="no|expected"):
        combine([[]])
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        combine([[Option(0, (1.0,))], [Option(0, (1.0, 2.0))]])
