"""``edgeinfer bench``: latency, memory and faults of a model on this device, alone or in turns with a peer."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from ..sizes import format_size
from . import inputs
from .arguments import add_session_arguments, seconds
from .output import Progress, add_json_argument, check_writable, report

SUMMARY = (
    "Measure latency, memory and page faults of a model on this device; with --against, in turns with another runtime on the same inputs."
)
EXAMPLE = """  edgeinfer bench model.edge --threads 2 --memory-limit 64MiB
  edgeinfer bench model.edge --against onnxruntime:model.onnx --duration 10s --json result.json"""

#: Length of one turn when two runtimes alternate: long against the few ms that a peer's threads spin after a run, short against
#: changes of the clock frequency. The first run of a turn warms caches up and is not counted.
TURN_SECONDS = 0.25
#: pause before a turn, for the other side's threads to fall asleep
PAUSE_SECONDS = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    parser.add_argument("--duration", type=seconds, default=5.0, metavar="TIME", help="measured time per runtime (default 5s)")
    parser.add_argument("--warmup", type=seconds, default=1.0, metavar="TIME", help="time to run before measuring (default 1s)")
    parser.add_argument("--against", metavar="RUNTIME:MODEL", help="measure a peer in turns: onnxruntime:MODEL.onnx")
    parser.add_argument("--input", metavar="FILE", help=".npy, .npz or image to run on (default: the same made-up values everywhere)")
    add_session_arguments(parser, "samples per run (default 1)")
    inputs.add_image_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    peer_model = _peer_model(args.against)
    batch = args.batch or (max(inputs.rows_of(args.input, args.model), 1) if args.input else 1)
    from ..runtime.session import InferenceSession
    from . import measurement

    opened: list[InferenceSession] = []
    load = measurement.timed(
        lambda: opened.append(
            InferenceSession(args.model, memory_limit=args.memory_limit, threads=args.threads, batch=batch, symbols=args.symbols)
        )
    )
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
        peer = None
        if peer_model is not None:
            from .peer import Peer

            peer = Peer(peer_model, feed, session.threads)
        try:
            times: list[float] = []
            faulted = [0, 0]
            if peer is not None:
                peer.turn(args.warmup)
            with Progress("measuring") as progress:
                while not times or sum(times) < args.duration:
                    turn = TURN_SECONDS if peer is not None else min(TURN_SECONDS, args.duration)
                    if peer is not None:
                        time.sleep(PAUSE_SECONDS)
                        once()
                    before = measurement.faults()
                    times += _repeat(once, turn)
                    for index, (now, then) in enumerate(zip(measurement.faults(), before, strict=True)):
                        faulted[index] += now - then
                    if peer is not None:
                        time.sleep(PAUSE_SECONDS)
                        peer.turn(turn, keep=True)
                    progress(int(1000 * min(sum(times), args.duration)), int(1000 * args.duration) or 1, "ms")
            theirs = peer.result() if peer is not None else None
        finally:
            if peer is not None:
                peer.close()
        session.profiling = True
        session.run(None, feed)
        compute = sum(spent for _, _, spent in session.profile())
        samples = batch if session.store.graph.batch is not None else 1
        measured = measurement.document(session, args.model, samples, load, first, times, (faulted[0], faulted[1]), compute)
    measured["against"] = {}
    if theirs is not None:
        latency = measurement.latency_ms(theirs["seconds"], theirs["first"])
        measured["against"]["onnxruntime"] = {
            "version": theirs["version"],
            "runs": len(theirs["seconds"]),
            "load_ms": theirs["load"] * 1e3,
            "latency_ms": latency,
            "rss_bytes": {"peak": theirs["peak"]},
            "latency_ratio_p50": measured["latency_ms"]["p50"] / latency["p50"],
            "rss_ratio": measured["rss_bytes"]["peak"] / theirs["peak"],
        }
    report(args, measured, lambda: _text(measured))
    if measured["rss_bytes"]["ceiling"] and measured["rss_bytes"]["peak"] > measured["rss_bytes"]["ceiling"]:
        print("edgeinfer: warning: the measured peak passed the ceiling", file=sys.stderr)


def _peer_model(against: str | None) -> str | None:
    if against is None:
        return None
    runtime, _, model = against.partition(":")
    if runtime != "onnxruntime":
        raise UsageError(f"--against {against}: expected onnxruntime:MODEL.onnx; other peers cannot be measured yet")
    if not model:
        raise UsageError(f"--against {against}: name the peer's model as onnxruntime:MODEL.onnx")
    return model


def _repeat(once: Callable[[], float], duration: float) -> list[float]:
    """Times of runs until ``duration`` seconds have passed, at least one run."""
    times: list[float] = []
    end = time.perf_counter() + duration
    while not times or time.perf_counter() < end:
        times.append(once())
    return times


def _text(measured: dict[str, Any]) -> str:
    from . import measurement

    rss = measured["rss_bytes"]
    lines = [
        f"{measured['model']}: {measured['threads']} thread(s), batch {measured['batch']}, "
        f"kernels {measured['kernels']}, {measured['runs']} runs",
        f"latency   {measurement.latency_line(measured['latency_ms'])}",
        f"rate      {measured['throughput_per_s']:.1f} samples per second",
        f"load      {measured['load_ms']:.1f} ms; decoding every weight once, alone, on one thread: {measured['decode_ms']:.2f} ms",
        *measurement.memory_lines(measured),
        f"resident  {format_size(rss['anonymous'])} anonymous, {format_size(rss['file'])} of files; "
        f"faults while measuring: {measured['faults']['major']} major, {measured['faults']['minor']} minor",
    ]
    for name, peer in measured["against"].items():
        lines += [
            "",
            f"{name} {peer['version']}, in turns on the same inputs, {peer['runs']} runs",
            f"latency   {measurement.latency_line(peer['latency_ms'])}",
            f"memory    peak {format_size(peer['rss_bytes']['peak'])} in a process of its own",
            f"edgeinfer takes {peer['latency_ratio_p50']:.2f} times its median latency and {peer['rss_ratio']:.2f} times its memory",
        ]
    return "\n".join(lines)
