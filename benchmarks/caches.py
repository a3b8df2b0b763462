"""Layer caches on the CIFAR networks: mean latency, agreement, exits, and whether the promised disagreement is kept.

    python benchmarks/caches.py learn cifar_vgg16              # heads, on the training images and 1,000 test images; kept
    python benchmarks/caches.py splits cifar_vgg16 --splits 200 --promise 0.015    # thresholds on 2,000 others, judged on 2,000 more
    python benchmarks/caches.py run cifar_vgg16 --promise 0.015                    # one of them through the engine, one row at a time
    python benchmarks/caches.py streams cifar_vgg16 --promise 0.015                # shifted and repetitive streams

Figures of ``splits`` are shares of the network's time as the engine took it layer by layer, with the look-ups that ``run`` measures.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
from latency import FOLDER, files  # first: it makes the modules of tests/ importable

import edgeinfer as ei
from edgeinfer.runtime.stop import binomial_upper
from edgeinfer.tune import cache as tune

import datasets  # isort: skip


def rows_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(training images, test images in an order of their own) as the network takes them."""
    sample, labels = datasets.images(name)
    test = sample(0, len(labels))[np.random.default_rng(11).permutation(len(labels))]
    training, _ = datasets.training_images(name)
    return training, test


def learned_file(name: str) -> Path:
    return FOLDER / f"{name}-caches.pickle"


def learn(name: str, augment: int, epochs: int, places: int) -> None:
    """Train the heads; keep them with the activations of the test images that they did not see."""
    _, container = files(name, "kmeans", 4, "packed")
    training, test = rows_of(name)
    began = time.time()
    with ei.InferenceSession(container, threads=1, batch=tune.BATCH) as session:
        key = session.get_inputs()[0].name
        feed = {key: np.concatenate([training, test[:1000]])}
        made = tune.learn(
            session,
            feed,
            augment=augment,
            epochs=epochs,
            places=places,
            generator=np.random.default_rng(0),
            progress=lambda done, total, what: (
                print(f"{time.time() - began:7.1f} s  {what} {done}/{total}", flush=True) if done % 512 == 0 else None
            ),
        )
        rest = tune.capture(session, {key: test[1000:]}, made.boundaries)
    learned_file(name).write_bytes(pickle.dumps((made, rest, test[1000:].astype(np.float16))))
    said = rest[1].argmax(axis=1)
    by_name = {b.name: p for b, p in zip(made.boundaries, rest[0], strict=True)}
    print("\n| boundary | at share of time | kind | bytes | agreement alone |\n|---|---|---|---|---|")
    for c in made.candidates:
        classes, _, _ = c.look(by_name[c.boundary.name])
        at = c.boundary.seconds / made.seconds
        print(f"| {c.boundary.name} | {at:.3f} | {c.kind} | {c.nbytes} | {100 * (classes == said).mean():.2f} % |")


def division(made: Any, rest: Any, seed: int) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """A fifth of the rows selects, three tenths certify, half judges."""
    return [([p[part] for p in rest[0]], rest[1][part]) for part in parts(len(rest[1]), seed)]


def parts(rows: int, seed: int) -> list[np.ndarray]:
    """Numbers of the rows of each part."""
    return np.split(np.random.default_rng(seed).permutation(rows), (rows // 5, rows // 2))


def splits(name: str, promise: float, count: int, confidence: float) -> None:
    """Caches are chosen on a sixth of the rows that heads never saw; the others are divided again and again: a quarter fits thresholds, a
    third certifies, the rest judges."""
    made, rest, _ = pickle.loads(learned_file(name).read_bytes())
    every = np.random.default_rng(99).permutation(len(rest[1]))
    first, others = np.split(every, [len(every) // 6])

    def part(rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        return [p[rows] for p in rest[0]], rest[1][rows]

    chosen = tune.choose(made, part(first), 0.8 * promise)
    seen = tune.look_all(chosen, made.boundaries, *part(others))
    found = []
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(others))
        fitting, certifying, judging = (
            tune.Composition(chosen, range(len(chosen)), tune.Seen(seen.confidence[:, rows], seen.agrees[:, rows]), made.seconds)
            for rows in np.split(order, (len(order) // 4, len(order) * 7 // 12))
        )
        curve = fitting.curve()
        cost, wrong, at = judging.judge(curve[tune.certify(certifying, curve, promise, confidence)])
        found.append((cost, wrong / len(at)))
    cost, wrong = np.array(found).T
    over = int((wrong > promise).sum())
    nbytes = sum(c.nbytes for c in chosen)
    print(
        f"{name}, promise {100 * promise:g} % with confidence {confidence:g}, {count} divisions: mean time {cost.mean():.3f} of the "
        f"network's (standard deviation {cost.std():.3f}), agreement {100 * (1 - wrong.mean()):.2f} % (worst {100 * (1 - wrong.max()):.2f} "
        f"%), promise exceeded on the judging rows in {over} ({100 * over / count:.1f} %); {len(chosen)} caches, {nbytes} bytes: "
        + ", ".join(f"{c.boundary.name} ({c.kind})" for c in chosen)
    )


def write(name: str, promise: float, confidence: float) -> tuple[Path, Path, Any, np.ndarray]:
    """A caches file from the first division; (container, caches, what was fitted, images that judge)."""
    _, container = files(name, "kmeans", 4, "packed")
    made, rest, images = pickle.loads(learned_file(name).read_bytes())
    selecting, certifying, _ = division(made, rest, 0)
    fitted = tune.settle(made, selecting, certifying, promise=promise, confidence=confidence)
    target = FOLDER / f"{name}-{promise}.caches"
    with ei.InferenceSession(container, threads=1) as session:
        tune.write(fitted, session, target)
    return container, target, fitted, images[parts(len(images), 0)[2]].astype(np.float32)


def run(name: str, promise: float, confidence: float, seconds: float) -> None:
    """One row at a time through the engine, with and without caches in turn."""
    container, caches, fitted, test = write(name, promise, confidence)
    plain = ei.InferenceSession(container, threads=1)
    cached = ei.InferenceSession(container, threads=1, caches=caches, cache_audit=0.0)
    key = plain.get_inputs()[0].name
    times: tuple[list[float], list[float]] = ([], [])
    same = exits = 0
    end = time.perf_counter() + seconds
    count = 0
    for row in test:
        answers = []
        for which, session in enumerate((plain, cached)):
            began = time.perf_counter()
            answers.append(session.run(None, {key: row[None]})[0])
            times[which].append(time.perf_counter() - began)
        assert cached.exits is not None
        same += int(answers[0].argmax() == answers[1].argmax())
        exits += int(cached.exits[0] >= 0)
        if cached.exits[0] < 0:
            assert np.array_equal(*answers), "rows that stay get the network's own bits"
        count += 1
        if time.perf_counter() > end:
            break
    a, b = (1e3 * np.array(t) for t in times)
    share = caches.stat().st_size / Path(container).stat().st_size
    print(
        f"{name}, promise {100 * promise:g} %: {count} rows; plain {spread(a)}; cached {spread(b)}; "
        f"ratio of means {b.mean() / a.mean():.3f}, of trimmed means {trimmed(b) / trimmed(a):.3f} (fitted {fitted.cost:.3f}); "
        f"agreement {100 * same / count:.2f} % (bound on disagreement {100 * binomial_upper(count - same, count):.2f} %); answered early "
        f"{100 * exits / count:.1f} %; file {caches.stat().st_size} bytes, {100 * share:.2f} % of the container"
    )
    for line in cached.cache_report()["caches"]:
        print(f"    {line['boundary']:28} {line['kind']:7} answered {100 * line['answered']:.1f} %")


def spread(values: np.ndarray) -> str:
    """Milliseconds as text."""
    parts = [f"mean {values.mean():.3f}", *(f"p{100 * q:g} {np.quantile(values, q):.3f}" for q in (0.5, 0.9, 0.99))]
    return " ".join(parts) + " ms"


def trimmed(values: np.ndarray) -> float:
    """Mean without the slowest hundredth, which a busy machine makes."""
    return float(np.sort(values)[: -max(1, len(values) // 100)].mean())


def streams(name: str, promise: float, confidence: float, audit: float) -> None:
    """What the guard makes of streams that change, and of scenes that come again."""
    container, caches, _, test = write(name, promise, confidence)
    generator = np.random.default_rng(3)
    with ei.InferenceSession(container, threads=1, batch=16) as session:
        key = session.get_inputs()[0].name
        said = session.run(None, {key: test})[0].argmax(axis=1)
    noisy = test + 0.35 * generator.standard_normal(test.shape).astype(np.float32)
    blurred = test.copy()
    for axis in (2, 3):
        blurred = (np.roll(blurred, 1, axis) + 2 * blurred + np.roll(blurred, -1, axis)) / 4
    skewed = test[np.isin(said, (3, 5))]  # two classes that are often confused
    frames = np.repeat(test[:100], 20, axis=0) + 0.02 * generator.standard_normal((2000, *test.shape[1:])).astype(np.float32)
    print("| stream | rows | answered early | disagreement | same, unwatched | audited | changes |\n|---|---|---|---|---|---|---|")
    for what, rows in (("as fitted", test), ("noise", noisy), ("blur", blurred), ("two classes", skewed), ("the same scenes", frames)):
        stream = np.concatenate([test[:1000], rows]) if what != "as fitted" else rows
        with ei.InferenceSession(container, threads=1, batch=16) as session:
            truth = session.run(None, {key: stream})[0].argmax(axis=1)
        wrong, early, report = [], [], None
        for watched in (audit, 0.0):
            with ei.InferenceSession(container, threads=1, caches=caches, cache_audit=watched) as session:
                found = [(session.run(None, {key: row[None]})[0].argmax(), session.exits[0] >= 0) for row in stream]
                wrong.append(float((np.array([f[0] for f in found]) != truth).mean()))
                early.append(float(np.mean([f[1] for f in found])))
                report = report or session.cache_report()
        watch = report["watched"]
        print(
            f"| {what} | {len(stream)} | {100 * early[0]:.1f} % | {100 * wrong[0]:.2f} % | {100 * wrong[1]:.2f} % | {watch['audited']} | "
            f"{watch['changes']} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("learn", "splits", "run", "streams"))
    parser.add_argument("names", nargs="+")
    parser.add_argument("--promise", type=float, default=0.015)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--augment", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--audit", type=float, default=0.05)
    options = parser.parse_args()
    for name in options.names:
        if options.what == "learn":
            learn(name, options.augment, options.epochs, options.places)
        elif options.what == "splits":
            splits(name, options.promise, options.splits, options.confidence)
        elif options.what == "run":
            run(name, options.promise, options.confidence, options.seconds)
        else:
            streams(name, options.promise, options.confidence, options.audit)


if __name__ == "__main__":
    main()
