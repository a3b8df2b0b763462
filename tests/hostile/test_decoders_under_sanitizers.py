"""Random bytes into the tile decoders, compiled with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeinfer.kernels.codec import available_kernels

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "cython" / "kernels"
FLAGS = {"plain": [], "avx2": ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"], "neon": []}
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.skip("no C compiler")
    source = tmp_path_factory.mktemp("cc") / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    program = source.with_suffix("")
    built = subprocess.run([found, *SANITIZE, str(source), "-o", str(program)], capture_output=True)
    if built.returncode or subprocess.run([program], capture_output=True).returncode:
        pytest.skip(f"{found} has no address sanitizer that runs here")
    return found


@pytest.mark.skipif(not KERNELS.is_dir(), reason="needs the C sources")
@pytest.mark.parametrize("kernels", [name for name in available_kernels() if name in FLAGS])
def test_random_tiles(compiler, tmp_path, kernels):
    if kernels == "neon" and platform.machine() != "aarch64":
        pytest.skip("flags known for 64-bit only")
    program = tmp_path / "decode_random"
    sources = [str(path) for path in sorted(KERNELS.glob("decode*.c"))] + [str(KERNELS / "models.c"), str(HERE / "decode_random.c")]
    define = [f"-DEI_VARIANT={kernels}", f"-DEI_VARIANT_{kernels.upper()}=1", f"-I{KERNELS}"]
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", *SANITIZE, *FLAGS[kernels], *define, *sources, "-o", str(program)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    # leak checking needs ptrace, which containers forbid; the program frees what it takes
    ran = subprocess.run([program, "1500"], capture_output=True, text=True, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    decoded, refused = map(int, re.findall(r"\d+", ran.stdout))
    assert decoded > 1000 and refused > 100
