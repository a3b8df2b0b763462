"""Fitting of layer caches: composition against brute force, certificates that hold, selectors, the command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_classifiers as task

import edgeinfer as ei
from edgeinfer.cli import main
from edgeinfer.tune import cache as tune
from edgeinfer.tune.cache import Boundary, Candidate, Composition, Seen
from edgeinfer.tune.thresholds import improve, stops


def invented(rows: int, seed: int, count: int = 5) -> tuple[list[Candidate], Seen]:
    """Caches of which deeper ones know more; confidence is the true chance of being right."""
    generator = np.random.default_rng(seed)
    hard = generator.exponential(1.0, rows)
    none: Any = np.zeros((1, 1), np.float32)
    candidates, confidence, agrees = [], [], []
    for i in range(count):
        at = Boundary(f"b{i}", (4,), 1, 0.15 * (i + 1))
        candidates.append(Candidate(at, "head", none, none, none, none, None, None, 1000 * (1 + i % 2), 0.01))
        chance = np.clip(1.0 - 0.25 * hard / (1 + i) + 0.05 * generator.standard_normal(rows), 0.02, 0.999)
        confidence.append(chance)
        agrees.append(generator.random(rows) < chance)
    return candidates, Seen(np.array(confidence), np.array(agrees))


def test_thresholds_are_the_best_for_one_another() -> None:
    generator = np.random.default_rng(0)
    confidence, value = generator.random((3, 50)), generator.random((4, 50))
    found = improve(confidence, value, (1.0,) * 3)

    def mean(thresholds: tuple[float, ...]) -> float:
        return float(value[stops(confidence, thresholds), np.arange(50)].mean())

    for k, grid in itertools.product(range(3), np.linspace(0, 1, 401)):
        assert mean(found) <= mean(tuple(float(grid) if j == k else t for j, t in enumerate(found))) + 1e-12


def test_composition_is_near_the_best_of_all_sets() -> None:
    for seed in range(4):
        candidates, seen = invented(500, seed)
        for most_bytes in (1500, 3000, 10000):
            made = tune.compose(candidates, seen, 1.0, 0.02, most_bytes)
            assert sum(candidates[i].nbytes for i in made.chosen) <= most_bytes
            cost, thresholds = made.best(0.02)
            assert made.judge(thresholds)[1] <= 0.02 * 500
            best = min(
                Composition(candidates, chosen, seen, 1.0).best(0.02)[0]
                for size in range(6)
                for chosen in itertools.combinations(range(5), size)
                if sum(candidates[i].nbytes for i in chosen) <= most_bytes
            )
            assert cost <= best + 0.05, (seed, most_bytes, cost, best)


def test_certificates_hold() -> None:
    """200 fits: the truth, measured on 20,000 rows, is above the promise in at most 5 % of them, and three standard errors."""
    candidates, truth = invented(20000, 999)
    true = Composition(candidates, (0, 2, 4), truth, 1.0)
    broken, costs = 0, []
    for seed in range(200):
        _, seen = invented(400, 2 * seed)
        _, fresh = invented(500, 2 * seed + 1)
        curve = Composition(candidates, (0, 2, 4), seen, 1.0).curve()
        chosen = tune.certify(Composition(candidates, (0, 2, 4), fresh, 1.0), curve, 0.03, 0.95)
        cost, wrong, at = true.judge(curve[chosen])
        broken += wrong / len(at) > 0.03
        costs.append(cost)
    assert broken <= 10 + 3 * np.sqrt(200 * 0.05 * 0.95)
    assert np.mean(costs) < 0.95


def test_costs_count_every_look_up() -> None:
    candidates, seen = invented(100, 3)
    made = Composition(candidates, (1, 3), seen, 1.0)
    np.testing.assert_allclose(made.cost, [0.3 + 0.01, 0.6 + 0.02, 1.0 + 0.02])
    assert Composition(candidates, (), seen, 1.0).judge(())[0] == 1.0


def test_a_selector_learns_where_a_head_is_right() -> None:
    generator = np.random.default_rng(0)
    seen, classes = generator.standard_normal((4000, 3)), generator.integers(0, 4, 4000)
    chance = 1 / (1 + np.exp(-(2 * seen[:, 0] - seen[:, 1] + np.where(classes == 2, -1.5, 0.5))))
    agrees = (generator.random(4000) < chance).astype(float)
    selector = tune.fit_selector(seen, classes, agrees, 4)
    estimate = tune.sure(selector, classes, seen)
    assert np.abs(estimate - chance).mean() < 0.03


def test_k_means_finds_separate_clusters() -> None:
    generator = np.random.default_rng(1)
    centres = 10 * generator.standard_normal((5, 3))
    points = (centres[generator.integers(0, 5, 500)] + 0.1 * generator.standard_normal((500, 3))).astype(np.float32)
    found = min((tune.k_means(points, 8, np.random.default_rng(s)) for s in range(3)), key=lambda c: _spread(points, c))
    assert _spread(points, found) < 0.5


def _spread(points: np.ndarray, centres: np.ndarray) -> float:
    return float(np.sqrt(((points[:, None] - centres) ** 2).sum(axis=2)).min(axis=1).max())


@pytest.mark.parametrize("shape", [(8, 8, 5), (6, 6, 3), (3, 3, 4), (12, 7), (7, 7, 2), (9,)])
def test_pooling_is_that_of_the_graph(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    grid = tune.grid_of(shape)
    pooled = tune.pool(x, grid)
    assert pooled.shape == (2, Boundary("b", shape, grid, 0.0).width)
    if len(shape) == 3:
        size = [n // grid for n in shape[:2]]
        blocks = x[:, : size[0], : size[1]].mean(axis=(1, 2))
        np.testing.assert_allclose(pooled[:, : shape[2]], blocks, rtol=1e-4, atol=1e-5)


def test_varied_rows_keep_form_and_values() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((20, 3, 12, 10)).astype(np.float32)
    ids = generator.integers(0, 9, (20, 7))
    made = tune.varied({"image": x, "last": x.transpose(0, 2, 3, 1), "ids": ids}, 50, generator)
    assert made["image"].shape == (50, 3, 12, 10) and made["last"].shape == (50, 12, 10, 3) and made["ids"].dtype == ids.dtype
    assert np.isfinite(made["image"]).all() and np.abs(made["image"]).max() < 1.5 * np.abs(x).max()
    assert {tuple(r) for r in made["ids"]} <= {tuple(r) for r in ids}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"promise": 0.0}, ei.UsageError, "between 0 and 1"),
        ({"training": {"photo": np.zeros((5, 2, 6, 6))}}, ei.InputError, "'image'.*'photo'"),
        ({"most_bytes": 64}, ei.UsageError, "no head fits"),
    ],
)
def test_bad_aims(tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "LEAST_STEPS", 5)
    (container,) = task.containers(tmp_path, (8,))
    with ei.InferenceSession(container, threads=1, batch=16) as session:
        with pytest.raises(error, match=message):
            tune.fit(session, {"image": task.rows(120, 0)[0]}, augment=0, **options)
        with pytest.raises(ei.UsageError, match="at least 100 held-out rows, found 9"):
            tune.fit(session, {"image": task.rows(9, 0)[0]})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "LOOK_SECONDS", 1e-6)
    monkeypatch.setattr(tune, "LEAST_STEPS", 300)
    (container,) = task.containers(tmp_path, (32,))
    x, _ = task.rows(900, 1, 1.0)
    np.savez(tmp_path / "held.npz", image=x[:700])
    np.savez(tmp_path / "more.npz", image=x[700:])
    out, page = tmp_path / "m.caches", tmp_path / "m.html"
    command = ["tune", "cache", str(container), "--data", str(tmp_path / "held.npz"), "--training", str(tmp_path / "more.npz")]
    command += ["-o", str(out), "--max-disagreement", "0.06", "--max-bytes", "60kB", "--augment", "1", "--places", "3", "--threads", "1"]
    assert main([*command, "--report", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["latency_share"] < 1 and found["caches"] and found["rows"]["heads"] == 480 and found["bytes"] == out.stat().st_size
    assert found["bytes"] <= 60000
    assert "<svg" in page.read_text() and found["disagreement"] <= 0.06
    assert main(["inspect", str(out), "--verify"]) == 0
    capsys.readouterr()
    impossible = [
        *command[: command.index("--max-disagreement")],
        "--max-disagreement",
        "0.001",
        "--max-bytes",
        "60kB",
        "--augment",
        "0",
        "--places",
        "1",
    ]
    impossible[impossible.index(str(out))] = str(tmp_path / "none.caches")
    assert main(impossible) == 2
    assert "no cache keeps the promise" in capsys.readouterr().err and not (tmp_path / "none.caches").exists()


@pytest.mark.parametrize(("option", "value", "most"), [("--augment", "-3", 100), ("--recent", "4097", 4096)])
def test_a_bad_count_is_named_alone(option: str, value: str, most: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "cache", "m.edge", "--data", "d.npz", "-o", str(tmp_path / "m.caches"), option, value]) == 2
    assert capsys.readouterr().err == f"edgeinfer: error: {option}: expected 0 to {most}, found {value}\n"
