"""Checks a wheel: what a compiled file of it must be, and must not need, on the machines its tag promises.

    python deploy/check_wheel.py --architecture aarch64 [--objects BUILD_FOLDER] [--retag] WHEEL

Every compiled module is for that machine, stripped, needs only the C library and looks for it nowhere else, is aligned for pages of 64 KiB
on ARM (a Raspberry Pi 5 has pages of 16 KiB), and needs no newer C library than the tag says. With ``--objects``, the folder that
setup.py built in: objects that run on every processor hold no instruction beyond the architecture's base set (modules are stripped, so
their objects are looked at).
The wheel holds every Python file of the source tree and nothing else's sources.
``--retag`` gives the wheel the manylinux tag that auditwheel finds for it. Prints the wheel's name and, with exit code 1, a line per
violation. Needs binutils for the architecture, auditwheel and wheel.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

#: machine as readelf spells it, prefix of the cross binutils, most bytes that one module may have
MACHINES = {
    "x86_64": ("Advanced Micro Devices X86-64", "x86_64-linux-gnu-"),
    "aarch64": ("AArch64", "aarch64-linux-gnu-"),
    "armv7l": ("ARM", "arm-linux-gnueabihf-"),
}
#: what every manylinux system has; a module that needs more would fail to load on a bare one
LIBRARIES = {
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "ld-linux-aarch64.so.1",
    "ld-linux-armhf.so.3",
    "ld-linux-x86-64.so.2",
    "libgcc_s.so.1",
}
#: least alignment of loaded segments, by architecture
ALIGNMENT = {"x86_64": 4096, "aarch64": 65536, "armv7l": 65536}
MODULE_BYTES = 2 << 20  # the largest has 0.7 MB; with debug symbols or a copy too many it has several

#: Mnemonics beyond the base set: x86-64 with SSE2; ARMv8.0-A (no LSE atomics, no dot product, no fp16 arithmetic, no CRC); ARMv7-A with
#: VFPv3-D16 (no division, no fused multiply-add, no NEON dot product).
BEYOND = {
    "x86_64": re.compile(
        r"""(v[a-z]\w+                                                                                   # AVX and later
        |lddqu|movddup|movs[hl]dup|h(add|sub)p[sd]|addsubp[sd]                                         # SSE3
        |pshufb|palignr|pabs[bwd]|ph(add|sub)\w+|pmulhrsw|pmaddubsw|psign[bwd]                         # SSSE3
        |p(max|min)(sb|sd|uw|ud)|pmulld|pmuldq|pmov[sz]x\w+|pblend\w+|blendv?p[sd]|round[sp][sd]|dpp[sd]|insertps|extractps
        |pinsr[bdq]|pextr[bdq]|ptest|packusdw|pcmpeqq|movntdqa|mpsadbw|phminposuw                      # SSE4.1
        |pcmpgtq|pcmp[ei]str[im]|crc32\w*|popcnt\w*|pclmul\w*|aes\w+                                   # SSE4.2, POPCNT, AES
        |[lt]zcnt\w*|andn|bls[ir]\w*|blsmsk\w*|pdep|pext|sarx|shlx|shrx|mulx|bextr|rorx|movbe          # BMI
        |k(mov|ortest|and|or|xor|shift|unpck|add|test)\w*)$                                            # AVX-512 masks
        """,
        re.VERBOSE,
    ),
    "aarch64": re.compile(
        r"""(sdot|udot|usdot|sudot|[su]mmla|usmmla|bf\w*mmla|bfdot|fml[as]l2?|sqrdmla[hs]h|fjcvtzs|fcmla|fcadd|crc32\w*|ldapr\w*
        |cas[alphb]*|(ld|st)(add|clr|eor|set|[su]max|[su]min)a?l?[hb]?|swp[alhb]*)$
        """,
        re.VERBOSE,
    ),
    "armv7l": re.compile(
        r"""(v[su]dot\S*|v\S*\.f16|crc32\S*|sdiv\S*|udiv\S*|vfn?m[as]\S*|lda\w*|stl\w*|vrint\S*|vsel\S*|v(max|min)nm\S*)$
        """,
        re.VERBOSE,
    ),
}
#: the source tree that the wheel was built from
SOURCE = Path(__file__).resolve().parents[1]
#: functions that run only after the processor was asked for their instructions
GUARDED = {"crc_instruction"}
#: folders of setup.py's objects that are compiled for one instruction set each and run only on processors that have it
VARIANTS = {"avx2", "avx512", "neon", "neon_dotprod"}


def tool(architecture: str, name: str) -> str | None:
    """The binutils program for an architecture: the cross one, or the machine's own where it is the same."""
    return shutil.which(MACHINES[architecture][1] + name) or (shutil.which(name) if architecture == "x86_64" or name == "readelf" else None)


def said(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def check_module(path: Path, architecture: str) -> list[str]:
    """What is wrong with one compiled module."""
    readelf = tool(architecture, "readelf")
    if readelf is None:
        return ["readelf is not installed: nothing can be checked"]
    wrong = []
    machine = re.search(r"Machine:\s+(.*)", said(readelf, "-h", path))
    if machine is None or machine[1].strip() != MACHINES[architecture][0]:
        wrong.append(f"is for {machine[1].strip() if machine else 'nothing'}")
    sections = said(readelf, "-SW", path)
    if ".debug_" in sections or ".symtab" in sections:
        wrong.append("is not stripped")
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", said(readelf, "-dW", path)))
    if needed - LIBRARIES:
        wrong.append(f"needs {', '.join(sorted(needed - LIBRARIES))}")
    # shared objects link with symbols that nobody has; those of Python are meant to be such
    missing = re.findall(r"UND (ei_\w+)", said(readelf, "--dyn-syms", "-W", path))
    if missing:
        wrong.append(f"lacks {', '.join(missing[:5])}")
    search = re.search(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", said(readelf, "-dW", path))
    if search:
        wrong.append(f"looks for libraries in {search[1]}")
    segments = said(readelf, "-lW", path)
    alignment = min((int(line.split()[-1], 16) for line in segments.splitlines() if line.strip().startswith("LOAD")), default=0)
    if alignment < ALIGNMENT[architecture]:
        wrong.append(f"is aligned to {alignment} bytes, less than {ALIGNMENT[architecture]}")
    stack = re.search(r"GNU_STACK.*", segments)
    if stack is None or "E" in stack[0].split()[-2]:
        wrong.append("wants an executable stack")
    if path.stat().st_size > MODULE_BYTES:
        wrong.append(f"has {path.stat().st_size} bytes, more than {MODULE_BYTES}")
    return wrong


def beyond_base(path: Path, architecture: str) -> dict[str, list[str]]:
    """Instructions of an object beyond the architecture's base set, by function; guarded functions left out."""
    objdump = tool(architecture, "objdump")
    if objdump is None:
        raise FileNotFoundError(f"objdump for {architecture} is not installed")
    found: dict[str, list[str]] = {}
    function = ""
    for line in said(objdump, "-d", "--no-show-raw-insn", path).splitlines():
        head = re.match(r"^[0-9a-f]+ <(.*)>:$", line)
        if head:
            function = head[1]
            continue
        parts = line.split("\t")
        if len(parts) < 2 or not parts[1].strip():
            continue
        mnemonic = parts[1].split()[0]
        if BEYOND[architecture].match(mnemonic) and function.split(".")[0] not in GUARDED:
            found.setdefault(function, []).append(mnemonic)
    return found


def floor(path: Path, architecture: str) -> tuple[int, ...]:
    """Newest version of the GNU C library that a module asks for."""
    readelf = tool(architecture, "readelf") or "readelf"
    versions = re.findall(r"Name: GLIBC_([\d.]+)", said(readelf, "-VW", path))
    return max((tuple(int(part) for part in version.split(".")) for version in versions), default=(2, 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", choices=sorted(MACHINES), required=True)
    parser.add_argument("--objects", type=Path, help="folder in which setup.py built the wheel")
    parser.add_argument("--retag", action="store_true", help="give the wheel the tag that auditwheel finds")
    parser.add_argument("wheel", type=Path)
    args = parser.parse_args()
    problems: list[str] = []
    newest: tuple[int, ...] = (2, 0)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(args.wheel) as archive:
            archive.extractall(folder)
            stray = [
                name
                for name in archive.namelist()
                if name.endswith((".c", ".h", ".pyx", ".o")) or name.startswith(("tests/", "benchmarks/"))
            ]
            sources = {str(path.relative_to(SOURCE)) for path in (SOURCE / "edgeinfer").rglob("*.py")}
            lost = sorted(sources - set(archive.namelist()))
        if lost:
            problems.append(f"lacks {', '.join(lost[:5])}: is every package named in pyproject.toml?")
        modules = sorted(Path(folder).rglob("*.so"))
        if len(modules) != 4:
            problems.append(f"holds {len(modules)} compiled modules, expected 4")
        if stray:
            problems.append(f"holds files that do not belong into it: {', '.join(stray[:5])}")
        for module in modules:
            problems += [f"{module.name} {what}" for what in check_module(module, args.architecture)]
            newest = max(newest, floor(module, args.architecture))
        sizes = sum(module.stat().st_size for module in modules)
    looked = 0
    for path in sorted(args.objects.rglob("*.o")) if args.objects else []:
        if VARIANTS & set(path.parts):
            continue
        looked += 1
        for function, mnemonics in beyond_base(path, args.architecture).items():
            problems.append(f"{path.name}: {function} has {', '.join(sorted(set(mnemonics)))}, beyond the base set, without a guard")
    if args.objects and not looked:
        problems.append(f"no objects under {args.objects}")
    name = args.wheel.name
    if args.retag and not problems:
        verdict = said(sys.executable, "-m", "auditwheel", "show", args.wheel)
        tag = re.search(r'"(manylinux_(\d+)_(\d+)_' + args.architecture + r')"', " ".join(verdict.split()))
        if tag is None:
            problems.append(f"auditwheel finds no manylinux tag: {' '.join(verdict.split())}")
        elif newest > (int(tag[2]), int(tag[3])):
            problems.append(f"asks for glibc {'.'.join(map(str, newest))}, but auditwheel says {tag[1]}")
        else:
            name = said(sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag[1], args.wheel).strip().splitlines()[-1]
    size = (args.wheel.parent / name).stat().st_size
    print(f"{name}: {size} bytes, modules {sizes} bytes, glibc {'.'.join(map(str, newest))}, {looked} objects of the base set looked at")
    for problem in problems:
        print("  wrong:", problem)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
