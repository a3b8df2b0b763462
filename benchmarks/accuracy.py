"""Accuracy of the shared models on the shared data, compressed against fp32 onnxruntime, through the project's own run path.

python benchmarks/accuracy.py --quantizer sign --bits 5 cifar_resnet20 googlenet
"""

from __future__ import annotations

import argparse

import numpy as np
import onnxruntime as ort
from latency import files  # first: it makes the modules of tests/ importable

import edgeinfer as ei

import datasets  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*datasets.CLASSIFIERS, "minilm", "nsnet2"])
    parser.add_argument("--quantizer", default="kmeans")
    parser.add_argument("--bits", type=int, default=5)
    parser.add_argument("--coder")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"| network | onnxruntime fp32 | {options.quantizer}, {options.bits} bits | change | standard error | bits per weight |")
    print("|---|---|---|---|---|---|")
    for name in options.names:
        source, target = files(name, options.quantizer, options.bits, options.coder)
        theirs = ort.InferenceSession(str(source), providers=["CPUExecutionProvider"])
        with ei.InferenceSession(target, threads=options.threads, batch=25 if name in datasets.CLASSIFIERS else 1) as ours:
            error = float("nan")
            if name in datasets.CLASSIFIERS:
                expected, found = datasets.top1(theirs, name), datasets.top1(ours, name)
                before, after = 100 * expected.mean(), 100 * found.mean()
                error = 100 * float(np.std(found - expected) / np.sqrt(len(found)))
            elif name == "minilm":
                before, after = datasets.sts_spearman(theirs), datasets.sts_spearman(ours)
            else:
                before, after = datasets.si_snr(theirs), datasets.si_snr(ours)
            floats = ours.store.fp32_bytes / 4
        rate = target.stat().st_size * 8 / floats
        print(f"| {name} | {before:.2f} | {after:.2f} | {after - before:+.2f} | {error:.2f} | {rate:.2f} |", flush=True)


if __name__ == "__main__":
    main()
