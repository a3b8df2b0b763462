"""``edgeinfer bench``: latency, memory, faults, heat and energy of a model on this device, alone or in turns with peers."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PlanError, UsageError
from ..sizes import format_seconds, format_size
from . import inputs
from .arguments import add_session_arguments, option, seconds
from .output import Progress, add_json_argument, check_writable, report, table, write_whole

if TYPE_CHECKING:
    from .peer import Peer

SUMMARY = (
    "Measure latency, memory, page faults, heat and energy of a model on this device; with --against, in turns with other runtimes on the "
    "same inputs."
)
EXAMPLE = """  edgeinfer bench model.edge --threads 2 --memory-limit 64MiB --batches 1,4,16 --report bench.html
  edgeinfer bench model.edge --against onnxruntime:model.onnx --duration 10s --json result.json"""

#: Length of one turn when runtimes alternate: long against the few ms that a peer's threads spin after a run, short against
#: changes of the clock frequency. The first run of a turn warms caches up and is not counted.
TURN_SECONDS = 0.25
#: pause before a turn, for the other side's threads to fall asleep
PAUSE_SECONDS = 0.01
#: a batch size gets this part of --duration
BATCH_SHARE = 0.25


@option
def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"expected whole numbers of at least 1, separated by commas, found {text!r}")
    return sorted({int(part) for part in parts})


@option
def _times(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"expected a whole number, found {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    parser.add_argument("--duration", type=seconds, default=5.0, metavar="TIME", help="measured time per runtime (default 5s)")
    parser.add_argument("--warmup", type=seconds, default=1.0, metavar="TIME", help="time to run before measuring (default 1s)")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="RUNTIME:MODEL",
        help="measure a peer in turns: onnxruntime:MODEL.onnx or ncnn:MODEL.onnx (may be given twice)",
    )
    parser.add_argument(
        "--batches", type=_numbers, default=[], metavar="N,N,...", help="also measure these batch sizes, a quarter of --duration each"
    )
    parser.add_argument(
        "--cold-starts", type=_times, default=1, metavar="N", help="fresh processes that read the model from storage (default 1; 0: none)"
    )
    parser.add_argument("--input", metavar="FILE", help=".npy, .npz or image to run on (default: the same made-up values everywhere)")
    parser.add_argument("--report", metavar="FILE.html", help="write one page with tables and charts, which needs no network to be read")
    add_session_arguments(parser, "samples per run (default 1)")
    inputs.add_image_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json, args.report)
    peer_models = _peer_models(args.against)
    batch = args.batch or (max(inputs.rows_of(args.input, args.model), 1) if args.input else 1)
    from ..runtime.session import InferenceSession
    from . import coldstart, measurement

    def open_session(samples: int) -> InferenceSession:
        return InferenceSession(args.model, memory_limit=args.memory_limit, threads=args.threads, batch=samples, symbols=args.symbols)

    opened: list[InferenceSession] = []
    load = measurement.timed(lambda: opened.append(open_session(batch)))
    with opened[0] as session:
        wanted = session.get_inputs()
        if args.input:
            feed = inputs.load(args.input, wanted, inputs.preprocessing(args))
        else:
            feed = inputs.noise(wanted, session.store.graph.batch, batch, args.symbols)

        def once() -> float:
            return measurement.timed(lambda: session.run(None, feed))

        first = once()
        _repeat(once, args.warmup)
        peers: list[Peer] = []
        try:
            if peer_models:
                from .peer import Peer

                for runtime, model in peer_models:
                    peers.append(Peer(runtime, model, feed, session.threads))
                    peers[-1].turn(args.warmup)
            times: list[float] = []
            faulted = [0, 0]
            surroundings = measurement.Surroundings()
            with Progress("measuring") as progress:
                while not times or sum(times) < args.duration:
                    # shared with peers, or with looks at the thermometer
                    turn = TURN_SECONDS if peers else min(TURN_SECONDS, args.duration)
                    if peers:
                        time.sleep(PAUSE_SECONDS)
                        once()
                    before = measurement.faults()
                    surroundings.begin()
                    times += _repeat(once, turn)
                    surroundings.end()
                    for index, (now, then) in enumerate(zip(measurement.faults(), before, strict=True)):
                        faulted[index] += now - then
                    for peer in peers:
                        time.sleep(PAUSE_SECONDS)
                        peer.turn(turn, keep=True)
                    progress(int(1000 * min(sum(times), args.duration)), int(1000 * args.duration) or 1, "ms")
            results = {peer.runtime: peer.result() for peer in peers}
        finally:
            for peer in peers:
                peer.close()
        session.profiling = True
        session.run(None, feed)
        layers, profile = measurement.profile_table(session)
        compute = sum(layer["ms"] for layer in layers) / 1e3
        free_batch = session.store.graph.batch is not None
        samples = batch if free_batch else 1
        measured = measurement.document(session, args.model, samples, load, first, times, (faulted[0], faulted[1]), compute)
        measured.update(surroundings.document(measured["throughput_per_s"]))
        made_up = None if args.input else (wanted, session.store.graph.batch)
        threads = session.threads
    measured["against"] = {name: _compared(theirs, measured) for name, theirs in results.items()}
    measured["batches"] = []
    for size in args.batches:
        if not free_batch or made_up is None:
            raise UsageError(
                f"--batches: {args.model} runs one batch size alone ('edgeinfer inspect' says why)"
                if not free_batch
                else "--batches runs on made-up values and does not go with --input"
            )
        measured["batches"].append(_batch(open_session, size, inputs.noise(*made_up, size, args.symbols), args.duration * BATCH_SHARE))
    options = {"memory_limit": args.memory_limit, "threads": threads, "batch": batch, "symbols": args.symbols}
    measured["cold_start_ms"] = coldstart.measure(args.model, feed, options, args.cold_starts)
    if args.report:
        from .page import page

        html = page(measured, layers, times)
        write_whole(Path(args.report), lambda file: file.write(html.encode()))
    report(args, measured, lambda: _text(measured))
    if measured["rss_bytes"]["ceiling"] and measured["rss_bytes"]["peak"] > measured["rss_bytes"]["ceiling"]:
        print("edgeinfer: warning: the measured peak passed the ceiling", file=sys.stderr)


def _peer_models(against: list[str]) -> list[tuple[str, str]]:
    """``RUNTIME:MODEL`` taken apart and checked."""
    from .peer import RUNTIMES

    found: list[tuple[str, str]] = []
    for text in against:
        runtime, _, model = text.partition(":")
        if runtime not in RUNTIMES:
            raise UsageError(f"--against {text}: expected {' or '.join(f'{name}:MODEL.onnx' for name in RUNTIMES)}")
        if not model.endswith(RUNTIMES[runtime][0]):
            raise UsageError(f"--against {text}: name the peer's model as {runtime}:FILE, ending in {' or '.join(RUNTIMES[runtime][0])}")
        if runtime in dict(found):
            raise UsageError(f"--against {text}: {runtime} is given twice")
        found.append((runtime, model))
    return found


def _compared(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    from . import measurement

    latency = measurement.latency_ms(theirs["seconds"], theirs["first"])
    return {
        "version": theirs["version"],
        "runs": len(theirs["seconds"]),
        "load_ms": theirs["load"] * 1e3,
        "latency_ms": latency,
        "rss_bytes": {"peak": theirs["peak"]},
        "latency_ratio_p50": ours["latency_ms"]["p50"] / latency["p50"],
        "rss_ratio": ours["rss_bytes"]["peak"] / theirs["peak"],
    }


def _batch(open_session: Callable[[int], Any], batch: int, feed: dict[str, Any], duration: float) -> dict[str, Any]:
    """One batch size: latency per run, samples per second, the peak; or why it does not run under the ceiling."""
    from . import measurement

    clean = measurement.forget_peak()
    try:
        session = open_session(batch)
    except PlanError as error:
        return {"batch": batch, "error": str(error)}
    with session:

        def once() -> float:
            return measurement.timed(lambda: session.run(None, feed))

        first = once()
        times = _repeat(once, duration)
        memory = session.memory_report()
        return {
            "batch": batch,
            "planned_batch": session.plan.batch if session.plan else None,
            "runs": len(times),
            "latency_ms": measurement.latency_ms(times, first),
            "throughput_per_s": batch * len(times) / sum(times),
            "rss_bytes": {"peak": memory["peak_rss"] if clean else None, "predicted_peak": memory["predicted_peak_rss"]},
        }


def _repeat(once: Callable[[], float], duration: float) -> list[float]:
    """Times of runs until ``duration`` seconds have passed, at least one run."""
    times: list[float] = []
    end = time.perf_counter() + duration
    while not times or time.perf_counter() < end:
        times.append(once())
    return times


def batch_rows(batches: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of batch sizes."""
    header = ["batch", "per run", "99 %", "samples per second", "peak", "note"]
    rows = []
    for each in batches:
        if "error" in each:
            rows.append([str(each["batch"]), "", "", "", "", each["error"]])
            continue
        latency, peak = each["latency_ms"], each["rss_bytes"]["peak"]
        note = f"in slices of {each['planned_batch']}" if each["planned_batch"] not in (None, each["batch"]) else ""
        rows.append(
            [
                str(each["batch"]),
                format_seconds(latency["p50"] / 1e3),
                format_seconds(latency["p99"] / 1e3),
                f"{each['throughput_per_s']:.1f}",
                format_size(peak) if peak else "not told",
                note,
            ]
        )
    return header, rows


def cold_start_line(cold: dict[str, Any]) -> str:
    """:func:`coldstart.measure` for people."""
    parts = ", ".join(
        f"{name} {format_seconds(cold[key] / 1e3)}"
        for key, name in (("process", "Python"), ("import", "import"), ("open", "load and plan"), ("first", "first run"))
    )
    # less than half of the file read: somebody else keeps it in memory, or it is on no storage at all
    where = "from storage" if cold["read_bytes"] * 2 >= cold["file_bytes"] else "the system kept the file in memory: not from storage"
    total = format_seconds(cold["total"] / 1e3)
    return f"{total} to the first answer of a fresh process ({parts}; {format_size(cold['read_bytes'])} read, {where})"


def _text(measured: dict[str, Any]) -> str:
    from . import measurement

    rss = measured["rss_bytes"]
    lines = [
        f"{measured['model']}: {measured['threads']} thread(s), batch {measured['batch']}, "
        f"kernels {measured['kernels']}, {measured['runs']} runs",
        f"latency   {measurement.latency_line(measured['latency_ms'])}",
        f"rate      {measured['throughput_per_s']:.1f} samples per second",
        f"load      {measured['load_ms']:.1f} ms; decoding every weight once, alone, on one thread: {measured['decode_ms']:.2f} ms "
        f"(a run spends {measured['compute_ms']:.2f} ms in its layers, decoding included)",
        *measurement.memory_lines(measured),
        f"resident  {format_size(rss['anonymous'])} anonymous, {format_size(rss['file'])} of files; "
        f"faults while measuring: {measured['faults']['major']} major, {measured['faults']['minor']} minor",
        *measurement.surroundings_lines(measured),
    ]
    if measured["cold_start_ms"] is not None:
        lines.append(f"cold      {cold_start_line(measured['cold_start_ms'])}")
    if measured["batches"]:
        lines += ["", table(*batch_rows(measured["batches"]), left=0)]
    for name, peer in measured["against"].items():
        lines += [
            "",
            f"{name} {peer['version']}, in turns on the same inputs, {peer['runs']} runs",
            f"latency   {measurement.latency_line(peer['latency_ms'])}",
            f"memory    peak {format_size(peer['rss_bytes']['peak'])} in a process of its own",
            f"edgeinfer takes {peer['latency_ratio_p50']:.2f} times its median latency and {peer['rss_ratio']:.2f} times its memory",
        ]
    return "\n".join(lines)
