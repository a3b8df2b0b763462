#!/bin/sh
# Checks what building edgeinfer from source needs, in order: Python, its venv module, Python.h, a C compiler, make.
# Usage: prerequisites.sh [PYTHON]. Exit code 0 if all is there; else 1, and one message that lists every Debian package to install.
set -u
python=${1:-python3}

fail() {
    echo "edgeinfer: cannot build here: $1" >&2
    echo "edgeinfer: $2" >&2
    exit 1
}

if ! command -v "$python" >/dev/null 2>&1; then
    # Nothing else can be checked without Python, but a fresh machine is told everything at once.
    packages="python3 python3-venv python3-dev"
    command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || packages="$packages gcc"
    command -v make >/dev/null 2>&1 || packages="$packages make"
    fail "there is no $python" "on Debian and Raspberry Pi OS: sudo apt install $packages"
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || fail "$python does not start" "reinstall it: sudo apt install --reinstall python3"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    for newer in python3.14 python3.13 python3.12 python3.11 python3.10; do
        if command -v $newer >/dev/null 2>&1; then
            fail "$python is Python $version, and 3.10 or newer is needed" "this machine has $newer: use it with 'make PYTHON=$newer' (it wants sudo apt install $newer-venv $newer-dev)"
        fi
        if apt-cache show $newer >/dev/null 2>&1; then
            fail "$python is Python $version, and 3.10 or newer is needed" "sudo apt install $newer $newer-venv $newer-dev, then 'make PYTHON=$newer'"
        fi
    done
    fail "$python is Python $version, and 3.10 or newer is needed" "this system has no newer package; Debian 12 and Raspberry Pi OS 'bookworm' bring 3.11"
fi

missing=""
packages=""
lack() {
    missing="${missing:+$missing, }$1"
    packages="${packages:+$packages }$2"
}

# Debian's packages of the default Python are python3-*; those of another one carry its number.
name=$(basename "$python")
case $name in
    python3.[0-9]*) ;;
    *) name=python3 ;;
esac

"$python" -c 'import venv, ensurepip' >/dev/null 2>&1 || lack "Python's venv module" "$name-venv"
"$python" -c '
import os, sys, sysconfig
paths = (sysconfig.get_path("include"), sysconfig.get_path("platinclude"))
sys.exit(not any(os.path.exists(os.path.join(p, "Python.h")) for p in paths))' || lack "Python.h" "$name-dev"

compiler=""
for candidate in ${CC:-} cc gcc clang; do
    if command -v "$candidate" >/dev/null 2>&1; then
        compiler=$candidate
        break
    fi
done
if [ -z "$compiler" ]; then
    lack "a C compiler" "gcc"
elif ! printf '#include <stdio.h>\n' | "$compiler" -E - >/dev/null 2>&1; then
    lack "the C library's headers (stdio.h)" "libc6-dev"
fi
command -v make >/dev/null 2>&1 || lack "make" "make"

[ -z "$missing" ] || fail "missing: $missing" "on Debian and Raspberry Pi OS: sudo apt install $packages"
