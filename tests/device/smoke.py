"""Smoke test of an installed edgeinfer on a device, emulated or real. Needs numpy and the standard library besides edgeinfer, no pytest.

    python tests/device/smoke.py [--best VARIANT] [--digits N]

``--best`` is the kernel variant that must be chosen; without it, on ARM, what Linux says about the CPU decides.
Prints one line per check that passed and ends with ``N passed``; the first failed check ends the run with exit code 1; an illegal
instruction ends it with a signal, which is what this looks for.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

import edgeinfer as ei
from edgeinfer.coders import CODERS, encode_tensor
from edgeinfer.container import coded_tensor
from edgeinfer.demo.trial import FOLDER, SAMPLES
from edgeinfer.kernels.codec import available_kernels, crc32c
from edgeinfer.quantizers import QUANTIZERS

MODEL = FOLDER / "digits.edge"
EVERY_VARIANT = ("plain", "avx2", "avx512", "neon", "neon_dotprod")
ACCURACY = 0.9  # the network has 98 % of all samples; a wrong kernel has 10 %
TOLERANCE = 1e-5  # of the largest logit: variants differ in the order of sums alone
_count = 0


def passed(what: str) -> None:
    global _count
    _count += 1
    print("ok", what, flush=True)


def check(condition: bool, what: str) -> None:
    if not condition:
        print("FAILED", what, flush=True)
        raise SystemExit(1)
    passed(what)


def best_of_arm() -> str | None:
    """The best variant by the capabilities that Linux reports to this process (asm/hwcap.h); None on other machines."""
    if not platform.machine().startswith(("aarch64", "arm")):
        return None
    tell = ctypes.CDLL(None).getauxval
    tell.restype, tell.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    capabilities = tell(16)
    if sys.maxsize > 1 << 32:
        return "neon_dotprod" if capabilities & 1 << 20 else "neon"
    return "neon" if capabilities & 1 << 12 and capabilities & 1 << 16 else "plain"


def modules() -> None:
    """Every compiled module of this build can be loaded."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    names = {path.name.split(".")[0] for path in Path(importlib.import_module("edgeinfer.kernels").__file__ or "").parent.glob("*.so")}
    check({"codec", "encode", "loader", "program"} <= names, f"four compiled modules ({suffix}): {', '.join(sorted(names))}")
    for name in sorted(names):
        importlib.import_module(f"edgeinfer.kernels.{name}")
    passed("all of them were loaded")


def checksums() -> None:
    """CRC32C by the CPU's instruction (where there is one) and by tables."""
    check(crc32c(b"123456789") == 0xE3069283 == crc32c(b"123456789", portable=True), "CRC32C of the check word")
    noise = np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes()
    for length in (*range(40), 4095, 5000):
        if crc32c(noise[1 : 1 + length], 7) != crc32c(noise[1 : 1 + length], 7, portable=True):
            check(False, f"CRC32C of {length} bytes")
    passed("CRC32C of unaligned runs of 0 to 5000 bytes, two ways")


def codings(variants: list[str]) -> None:
    """Quantizer x coder: what decoders give is what quantizers said, to the bit."""
    weights = np.random.default_rng(2).standard_normal((70, 300)).astype(np.float32)
    weights[np.abs(weights) < 0.3] = 0
    count = 0
    for name in QUANTIZERS:
        quantizer = QUANTIZERS[name]()
        expected = quantizer.fit(weights).decode()
        for coder in ("raw",) if name == "none" else tuple(CODERS):
            tensor = coded_tensor("t", weights.shape, encode_tensor("t", weights, 70, 2, quantizer, CODERS[coder](), 128))
            for variant in variants:
                if not np.array_equal(tensor.decode(variant), expected):
                    check(False, f"{name} x {coder} decoded by {variant}")
                count += 1
    passed(f"{count} combinations of quantizer, coder and variant")


def digits(variants: list[str], number: int) -> None:
    """The network that ships, under every variant: the stored labels, and the logits of ``plain``."""
    with np.load(SAMPLES) as samples:
        images, labels = samples["digits"][:number], samples["labels"][:number]
    inputs = (images.astype(np.float32) / 16)[:, None]
    logits = {}
    for variant in ["plain", *(v for v in variants if v != "plain")]:
        os.environ["EDGEINFER_KERNELS"] = variant
        with ei.InferenceSession(MODEL, batch=4, threads=2) as session:
            check(session.kernels == variant, f"EDGEINFER_KERNELS={variant} is obeyed")
            (logits[variant],) = session.run(None, {"digits": inputs})
        with ei.InferenceSession(MODEL, threads=1) as session:
            (alone,) = session.run(None, {"digits": inputs[:1]})
        right = float((logits[variant].argmax(axis=1) == labels).mean())
        check(right >= ACCURACY, f"{variant}: {right:.1%} of {len(labels)} digits")
        check(np.array_equal(alone, logits[variant][:1]), f"{variant}: the same bits for other batches and threads")
        apart = float(np.abs(logits[variant] - logits["plain"]).max() / np.abs(logits["plain"]).max())
        check(apart <= TOLERANCE, f"{variant}: {apart:.1e} from plain")
    del os.environ["EDGEINFER_KERNELS"]


def absent(variants: list[str]) -> None:
    """A variant that this CPU lacks is an error that names it and what there is; never a crash."""
    for variant in EVERY_VARIANT:
        if variant in variants:
            continue
        os.environ["EDGEINFER_KERNELS"] = variant
        try:
            ei.InferenceSession(MODEL).close()
        except ei.KernelError as error:
            check(repr(variant) in str(error) and all(v in str(error) for v in variants), f"EDGEINFER_KERNELS={variant}: {error}")
        else:
            check(False, f"EDGEINFER_KERNELS={variant} must be refused")
    del os.environ["EDGEINFER_KERNELS"]


def command_line() -> None:
    """The installed command, in a process of its own: the demo's trial, and an absent variant."""
    command = [sys.executable, "-m", "edgeinfer.cli", "plan", str(MODEL)]
    # away from the current folder, which may hold a source tree that was never built
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER)
    check(done.returncode == 0 and "peak" in done.stdout, "edgeinfer plan")
    forced = {**os.environ, "EDGEINFER_KERNELS": "abacus"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER, env=forced)
    check(
        done.returncode == ei.KernelError.exit_code and "abacus" in done.stderr and "Traceback" not in done.stderr,
        f"EDGEINFER_KERNELS=abacus edgeinfer plan: exit code {done.returncode}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Smoke test of an installed edgeinfer.")
    parser.add_argument("--best", choices=EVERY_VARIANT, help="the kernel variant that must be chosen")
    parser.add_argument("--digits", type=int, default=60, help="how many of the 360 sample digits to run")
    args = parser.parse_args()
    os.environ.pop("EDGEINFER_KERNELS", None)
    variants = available_kernels()
    print(f"{platform.machine()}, {8 * ctypes.sizeof(ctypes.c_void_p)} bits, Python {platform.python_version()}, numpy {np.__version__}")
    print("variants:", ", ".join(variants))
    best = args.best or best_of_arm()
    with ei.InferenceSession(MODEL) as session:
        check(session.kernels == (best or variants[0]), f"{session.kernels} was chosen")
    check(variants[-1] == "plain", "plain runs everywhere and comes last")
    modules()
    checksums()
    codings(variants)
    digits(variants, args.digits)
    absent(variants)
    command_line()
    print(f"{_count} passed")


if __name__ == "__main__":
    main()
