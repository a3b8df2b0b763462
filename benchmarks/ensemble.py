"""Ensembles that stop early: mean latency against all members and accuracy, means over random fit/test divisions.

    python benchmarks/ensemble.py record digits        # train eight small networks on scikit-learn's digits, ask each about the others
    python benchmarks/ensemble.py record cifar         # the CIFAR ResNets and VGG-16 at 4 bits on 5,000 test images
    python benchmarks/ensemble.py time digits          # medians per member, in turn, one thread
    python benchmarks/ensemble.py splits digits --alpha 0.5
    python benchmarks/ensemble.py splits cifar --alpha 0.1
    python benchmarks/ensemble.py run digits           # through ei.Ensemble, one row at a time; Python's share apart

`splits` fits on one half of the rows, judges on the other; latencies are those of `time` (medians per member, batch 1, one thread).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from latency import FOLDER, files  # first: it makes the modules of tests/ importable

import edgeinfer as ei
from edgeinfer.tune import ensemble as tune

import datasets  # isort: skip

CIFAR = ("cifar_resnet20", "cifar_resnet32", "cifar_resnet56", "cifar_vgg16")
MEMBERS = 8


def members(what: str) -> list[str]:
    """Containers, made where they are missing."""
    if what == "cifar":
        return [str(files(name, "kmeans", 4, "packed")[1]) for name in CIFAR]
    import digits

    made = []
    for source in digits.make(FOLDER / "digits", MEMBERS):
        target = source.with_suffix(".edge")
        if not target.exists():
            ei.compress(str(source), str(target), quantizer="kmeans", bits=5)
        made.append(str(target))
    return made


def rows(what: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Held-out rows by input name, and labels."""
    if what == "cifar":
        sample, labels = datasets.images(CIFAR[0])
        return {"input": sample(0, len(labels))}, labels
    import digits

    _, _, images, labels = digits.split()
    return {"digits": images}, labels


def record(what: str) -> None:
    """Ask every member about every row; keep the answers."""
    feed, labels = rows(what)
    found, _ = tune.record(members(what), feed, labels, threads=1)
    np.savez(FOLDER / f"ensemble-{what}.npz", scores=found.scores, labels=labels)


def latencies(what: str, seconds: float) -> np.ndarray:
    """Median seconds per row of each member alone, members in turn, one thread; and what their stop costs in Python."""
    feed, _ = rows(what)
    sessions = [ei.InferenceSession(path, threads=1) for path in members(what)]
    times: list[list[float]] = [[] for _ in sessions]
    end, row = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        part = {name: array[row % len(array)][None] for name, array in feed.items()}
        row += 1
        for index, session in enumerate(sessions):
            session.run(None, part)
            began = time.perf_counter()
            session.run(None, part)
            times[index].append(time.perf_counter() - began)
    found = np.array([np.median(t) for t in times])
    np.save(FOLDER / f"ensemble-{what}-seconds.npy", found)
    print("| member | ms |\n|---|---|")
    for path, value in zip(members(what), found, strict=True):
        print(f"| {Path(path).stem} | {1e3 * value:.4f} |")
    return found


def recording(what: str) -> tune.Recording:
    """What `record` and `time` kept."""
    with np.load(FOLDER / f"ensemble-{what}.npz") as found:
        scores, labels = found["scores"], found["labels"]
    seconds = np.load(FOLDER / f"ensemble-{what}-seconds.npy")
    return tune.Recording(scores, np.repeat(seconds[:, None], scores.shape[1], axis=1), labels)


def splits(what: str, alphas: list[float], count: int) -> None:
    """Means over divisions, a line per alpha."""
    made = recording(what)
    best = int((made.scores.argmax(axis=2) == made.labels).mean(axis=1).argmax())
    columns = (
        "alpha",
        "all / early",
        "early, %",
        "all, %",
        "change",
        "best member, %",
        "its latency / early",
        "members",
        "p50 / p90 / p99 ms",
    )
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for alpha in alphas:
        found = []
        for seed in range(count):
            order = np.random.default_rng(seed).permutation(made.scores.shape[1])
            half = len(order) // 2
            fitted = tune.fit(made.part(order[:half]), objective="paper", alpha=alpha, seed=seed)
            ladder = tune.Ladder(made.part(order[half:]).ordered(fitted.order))
            early = ladder.outcome(fitted.chosen[0].thresholds)
            full = ladder.outcome((1.0,) * (len(made.scores) - 1))
            single = made.part(order[half:])
            ours = 1e3 * ladder.cost[early.used - 1]
            found.append(
                (
                    full.milliseconds,
                    early.milliseconds,
                    100 * (1 - (early.error or 0)),
                    100 * (1 - (full.error or 0)),
                    100 * (single.scores[best].argmax(axis=1) == single.labels).mean(),
                    1e3 * np.median(single.seconds[best]),
                    early.used.mean(),
                    *(np.quantile(ours, q) for q in (0.5, 0.9, 0.99)),
                )
            )
        full, early, accuracy, whole, single_accuracy, single_ms, used, *tail = np.mean(found, axis=0)
        print(
            f"| {alpha:g} | {full / early:.2f} | {accuracy:.2f} | {whole:.2f} | {accuracy - whole:+.2f} | {single_accuracy:.2f} | "
            f"{single_ms / early:.2f} | {used:.2f} | {' / '.join(f'{t:.3f}' for t in tail)} |",
            flush=True,
        )


def run(what: str, alpha: float, seconds: float) -> None:
    """The first division through :class:`edgeinfer.Ensemble`, against all members; rows one at a time."""
    made = recording(what)
    order = np.random.default_rng(0).permutation(made.scores.shape[1])
    half = len(order) // 2
    fitted = tune.fit(made.part(order[:half]), objective="paper", alpha=alpha)
    paths = members(what)
    from edgeinfer.container import Reader

    digests = [Reader(p).digest.hex() for p in paths]
    target = FOLDER / f"ensemble-{what}.yaml"
    target.write_text(tune.file_of(fitted, paths, digests, "logits", 0.95).dumps())
    feed, labels = rows(what)
    (images,) = feed.values()
    with ei.Ensemble.load(target, threads=1) as ensemble:
        times: dict[float | None, list[float]] = {None: [], 1.0: []}
        inside: dict[float | None, list[float]] = {None: [], 1.0: []}
        right: dict[float | None, int] = {None: 0, 1.0: 0}
        used, count, end = 0, 0, time.perf_counter() + seconds
        for row in order[half:]:
            for quality in times:
                began = time.perf_counter()
                answer = ensemble.run(images[row][None], quality=quality)
                times[quality].append(time.perf_counter() - began)
                inside[quality].append(ensemble.member_seconds)
                right[quality] += int(answer.scores[0].argmax() == labels[row])
                used += int(answer.members_used[0]) if quality is None else 0
            count += 1
            if time.perf_counter() > end:
                break
        report = ensemble.memory_report()
    early, full = (np.array(times[q]) * 1e3 for q in (None, 1.0))
    python = 100 * (1 - np.sum(inside[None]) / np.sum(times[None]))
    print(
        f"{what}: {count} rows; all members mean {full.mean():.3f} ms, early mean {early.mean():.3f} p50 {np.median(early):.3f} "
        f"p90 {np.quantile(early, 0.9):.3f} p99 {np.quantile(early, 0.99):.3f} ms; ratio of means {full.mean() / early.mean():.2f}; "
        f"{used / count:.2f} members; accuracy {100 * right[None] / count:.2f} % against {100 * right[1.0] / count:.2f} %; "
        f"Python outside the members {python:.1f} % of the time; weights {report['compressed_resident_bytes']} bytes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "time", "splits", "run"))
    parser.add_argument("what", choices=("digits", "cifar"))
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.5, 0.2, 0.1])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if options.command == "record":
        record(options.what)
    elif options.command == "time":
        latencies(options.what, options.seconds)
    elif options.command == "splits":
        splits(options.what, options.alpha, options.splits)
    else:
        run(options.what, options.alpha[0], options.seconds)


if __name__ == "__main__":
    main()
