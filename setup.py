"""Builds the Cython modules and, for each instruction set of the target, the same C kernels with that set's flags.

Everything else about the package is in pyproject.toml. The target is read from sysconfig.get_platform(), so a cross build needs
only the target's sysconfig data (docs/how-to/cross-build.md).
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("cython/kernels")

# Sources compiled once per instruction set, and sources compiled once.
NO_VARIANT = ("pool.c", "readahead.c", "features.c", "checksum.c", "models.c")
PER_VARIANT = sorted(str(p) for p in KERNELS.glob("*.c") if p.name not in NO_VARIANT)
ONCE = [str(KERNELS / name) for name in NO_VARIANT if (KERNELS / name).exists()]

COMMON = ["-std=gnu11", "-O3", "-g0", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
COMMON += ["-Wall", "-Wextra"]
if os.environ.get("EDGEINFER_WERROR"):
    COMMON.append("-Werror")


ARM32 = ("aarch64", "armv8l", "armv7l", "armv6l", "arm")  # where pointers have 32 bits


def variants(platform: str) -> dict[str, list[str]]:
    """Instruction sets that a target may have, with their compiler flags; ``plain`` runs everywhere."""
    if platform.endswith(("x86_64", "amd64")):
        return {
            "plain": [],
            "avx2": ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"],
            "avx512": ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mprefer-vector-width=512"]
            + [f"-mavx512{x}" for x in ("f", "bw", "dq", "vl", "vbmi", "vbmi2")],
        }
    # A 32-bit system on a 64-bit kernel (Raspberry Pi OS ships so) says aarch64 as well: its pointers tell.
    if platform.endswith("aarch64") and sys.maxsize > 1 << 32:
        return {"plain": [], "neon": ["-march=armv8-a"], "neon_dotprod": ["-march=armv8.2-a+dotprod"]}
    if platform.endswith(ARM32):
        return {"plain": [], "neon": ["-march=armv7-a", "-mfpu=neon-vfpv4"]}
    return {"plain": []}


TARGET = variants(sysconfig.get_platform())
DEFINES = [("EI_HAVE_" + name.upper(), "1") for name in TARGET]


class BuildKernels(build_ext):
    """Compiles the kernels of every variant (objects named apart), then links each module with all of them."""

    def build_extensions(self):
        args = {"include_dirs": [str(KERNELS)], "debug": self.debug}
        objects = []
        for name, flags in TARGET.items():
            objects += self.compiler.compile(
                PER_VARIANT,
                output_dir=os.path.join(self.build_temp, name),
                macros=[*DEFINES, ("EI_VARIANT", name), ("EI_VARIANT_" + name.upper(), "1")],
                extra_postargs=COMMON + flags,
                **args,
            )
        if ONCE:
            once = os.path.join(self.build_temp, "once")
            objects += self.compiler.compile(ONCE, output_dir=once, macros=DEFINES, extra_postargs=COMMON, **args)
        for extension in self.extensions:
            extension.extra_objects = objects
            extension.depends = [*objects, *map(str, KERNELS.glob("*.h"))]
            extension.extra_compile_args = ["-O2", "-g0", "-std=gnu11"]
            extension.extra_link_args = ["-Wl,-s", "-Wl,--gc-sections", "-pthread"]
            if "neon" in TARGET and "neon_dotprod" not in TARGET:
                # Raspberry Pi OS compiles for ARMv6 unless told otherwise, which has no 64-bit atomics of its own
                extension.extra_link_args += ["-Wl,--as-needed", "-latomic"]
                # 32-bit systems run on the 64-bit kernel of a Raspberry Pi 5 too, whose pages have 16 KiB; the linker assumes 4 KiB
                extension.extra_link_args.append("-Wl,-z,max-page-size=65536")
            extension.libraries = ["m"]
        super().build_extensions()


setup(
    ext_modules=[
        Extension(f"edgeinfer.kernels.{path.stem}", [str(path)], include_dirs=[str(KERNELS)], define_macros=DEFINES)
        for path in sorted(Path("cython").glob("*.pyx"))
    ],
    cmdclass={"build_ext": BuildKernels},
)
