"""Every convolution of whole networks as a fraction of the processor's multiply-add peak, with the algorithm that the plan chose.

    python benchmarks/convolutions.py resnet18 mobilenetv2
    python benchmarks/kernels.py --networks          # the same for all four networks

One thread, 4-bit packed weights, each layer alone and warm. "Of peak" counts the multiply-adds of the direct form, so that Winograd's
algorithms may pass 100 %. The peak is that of a loop of independent fused multiply-adds, compiled here.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from latency import files

from edgeinfer.kernels.program import ALGORITHMS, available_kernels
from edgeinfer.runtime.execution import Execution
from edgeinfer.runtime.weights import open_store
from edgeinfer.tune.profile import Layer, time_layer

NETWORKS = ("vgg16", "resnet18", "resnet50", "mobilenetv2")
FLAGS = {"avx512": ["-mavx512f", "-mfma", "-DV=16"], "avx2": ["-mavx2", "-mfma", "-DV=8"]}

PEAK = """
#include <time.h>
typedef float v __attribute__((vector_size(4 * V)));
double peak(void) {  /* floating point operations per second: twelve chains, best of many turns */
  double best = 0;
  for (int turn = 0; turn < 200; turn++) {
    v s[12], a = (v){0} + 0.999f, b = (v){0} + 1e-3f;
    for (int j = 0; j < 12; j++) s[j] = b;
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (int n = 0; n < 20000; n++) {
      _Pragma("GCC unroll 12") for (int j = 0; j < 12; j++) s[j] = s[j] * a + b;
      __asm__ volatile("" /* else equal chains become one */ : "+x"(s[0]), "+x"(s[1]), "+x"(s[2]), "+x"(s[3]), "+x"(s[4]), "+x"(s[5]),
                       "+x"(s[6]), "+x"(s[7]), "+x"(s[8]), "+x"(s[9]), "+x"(s[10]), "+x"(s[11]));
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    v sum = s[0];
    for (int j = 1; j < 12; j++) sum += s[j];
    volatile float keep = sum[0];
    (void)keep;
    double rate = 2.0 * V * 12 * 20000 / ((t1.tv_sec - t0.tv_sec) + 1e-9 * (t1.tv_nsec - t0.tv_nsec));
    if (rate > best) best = rate;
  }
  return best;
}
"""


def peak(kernels: str) -> float:
    """Multiply-add peak of one core in floating point operations per second; 0 for instruction sets without a loop here."""
    if kernels not in FLAGS:
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "peak.c"), Path(folder, "peak.so")
        source.write_text(PEAK)
        command = ["cc", "-O3", "-ffp-contract=fast", *FLAGS[kernels], "-fPIC", "-shared", str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        function = ctypes.CDLL(str(library)).peak
        function.restype = ctypes.c_double
        return float(function())


def convolutions(name: str, kernels: str) -> Counter[Layer]:
    """The convolutions of a network's plan, with how often each occurs."""
    store = open_store(str(files(name, "kmeans", 4, "packed")[1]))
    names = {code: name for name, code in ALGORITHMS.items()}
    found: Counter[Layer] = Counter()
    execution = Execution(store, {store.graph.batch: 1} if store.graph.batch else {}, kernels, 1)
    for action in execution.lowered.actions:
        for step in action.steps or ():
            i = step.ints
            if step.kind in ("conv", "depthwise") and i["in_h"] > 1 and i["kh"] == i["kw"]:
                choice = execution.choices.get(action.node.name)
                algorithm = choice.algorithm if choice else names[0]
                found[Layer(i["in_h"], i["in_w"], i["in_c"], i["out_c"], i["kh"], i["stride_h"], i["groups"], algorithm=algorithm)] += 1
    return found


def table(wanted: list[str], kernels: str, seconds: float) -> None:
    """Print one table per network."""
    top = peak(kernels)
    print(f"{kernels}, one thread, 4 bits packed; multiply-add peak {top * 1e-9:.0f} GFLOP/s")
    for name in wanted:
        print(f"\n| {name} | | algorithm | ms | GFLOP/s | of peak |\n|---|---|---|---|---|---|")
        total = work = 0.0
        for layer, times in convolutions(name, kernels).items():
            least = time_layer(layer, kernels, 1, seconds)
            operations = 2.0 * layer.out[0] * layer.out[1] * layer.rows * layer.k
            total, work = total + times * least, work + times * operations
            groups = f", {layer.groups} groups" if layer.groups > 1 else ""
            shape = f"{layer.channels} to {layer.rows} at {layer.height}, {layer.kernel}x{layer.kernel}/{layer.stride}{groups}"
            share = f"{operations / least / top:.0%}" if top else ""
            print(f"| {shape} | x{times} | {layer.algorithm} | {least * 1e3:.3f} | {operations / least * 1e-9:.0f} | {share} |", flush=True)
        print(f"| all | | | {total * 1e3:.2f} | {work / total * 1e-9:.0f} | {f'{work / total / top:.0%}' if top else ''} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--kernels", default=available_kernels()[0], choices=available_kernels())
    parser.add_argument("--seconds", type=float, default=0.2, help="time given to a layer")
    options = parser.parse_args()
    table(options.names, options.kernels, options.seconds)


if __name__ == "__main__":
    main()
