#!/bin/bash
# Builds and checks the source distribution and the wheels. No root needed.
#
#   deploy/wheels.sh [-o DIR] [-c DIR] [-p DIR] [TARGET ...]
#
# TARGET   sdist, or ARCHITECTURE[:PYTHON] with x86_64, aarch64 or armv7l; default: sdist, x86_64 for every Python from 3.10 to 3.14 that is
#          found, aarch64 and armv7l for 3.11 (Debian 12, Raspberry Pi OS bookworm) and 3.13 (Debian 13)
# -o DIR   where the files go (default dist)
# -c DIR   cache of build environments and of the targets' Python headers (default ~/.cache/edgeinfer-build), made where it is absent
# -p DIR   also look for Pythons as DIR/*/bin/python3.N, as pyenv and uv keep them
#
# Every wheel is built from the source distribution. For ARM it is cross-compiled with Debian's compilers (gcc-aarch64-linux-gnu,
# gcc-arm-linux-gnueabihf and their libc6-dev-*-cross); the target's Python headers come from Debian's own packages, unpacked and never run.
# DEBIAN_MIRROR names the mirror; by default it is the one this machine uses. What is missing is skipped and counted. The last line is
# 'N built, N failed, N skipped'; the exit code is 0 if something was built and nothing failed.
set -u -o pipefail
out=dist cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgeinfer-build more=
while getopts o:c:p:h option; do
  case $option in
    o) out=$OPTARG ;; c) cache=$OPTARG ;; p) more=$OPTARG ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- sdist x86_64 aarch64:3.11 aarch64:3.13 armv7l:3.11 armv7l:3.13
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out" "$cache" || exit 1
out=$(cd "$out" && pwd) cache=$(cd "$cache" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
built=0 failed=0 skipped=0

failure() { failed=$((failed + 1)); echo "FAIL $1"; }
skip() { skipped=$((skipped + 1)); echo "SKIP $1: $2"; }

python_of() { # version: a Python that starts
  local candidate
  for candidate in "$(command -v "python$1")" "$more"/*/bin/python"$1" /usr/bin/python"$1"; do
    [ -x "$candidate" ] && "$candidate" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null && echo "$candidate" && return
  done
  return 1
}

environment() { # python, version: a virtual environment with what building needs
  local place=$cache/build-$2
  [ -e "$place/.ready" ] && [ "$(cat "$place/.ready")" = "$1" ] && echo "$place" && return
  rm -rf "$place"
  "$1" -m venv "$place" && "$place/bin/pip" --disable-pip-version-check --quiet install 'setuptools>=77' 'cython>=3.0' wheel build auditwheel >&2 &&
    echo "$1" >"$place/.ready" && echo "$place"
}

mirror() {
  local found=${DEBIAN_MIRROR:-}
  [ -n "$found" ] || found=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -1)
  [ -n "$found" ] || found=$(awk '$1=="deb"{for(i=2;i<=NF;i++) if($i~/:\/\//){print $i; exit}}' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null)
  echo "$found"
}

headers() { # debian architecture, suite, version: a folder with the target's Python.h and sysconfig data
  local place=$cache/headers-$1-$3 apt=$work/apt-$1-$2 package
  [ -e "$place/.ready" ] && echo "$place" && return
  local uri; uri=$(mirror)
  [ -n "$uri" ] && command -v apt-get >/dev/null || return 1
  rm -rf "$place"; mkdir -p "$place" "$apt"/{lists/partial,cache/archives/partial,packages}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $2 main" >"$apt/sources.list"
  local set=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
    -o Dir::State::status=/dev/null -o "APT::Architecture=$1" -o "APT::Architectures=$1" -o APT::Sandbox::User= -o APT::Get::List-Cleanup=false)
  apt-get -qq "${set[@]}" update >&2 && (cd "$apt/packages" && apt-get -qq "${set[@]}" download "libpython$3-dev" "libpython$3-minimal" "libpython$3-stdlib" >&2) || return 1
  for package in "$apt"/packages/*.deb; do dpkg-deb -x "$package" "$place" || return 1; done
  touch "$place/.ready"; echo "$place"
}

sdist() { # the archive that every wheel is built from; made once
  local archive=("$out"/edgeinfer-*.tar.gz) python version
  [ -z "${made:-}" ] || return 0
  for version in 3.11 3.13 3.12 3.10 3.14; do python=$(python_of $version) && break; done
  [ -n "$python" ] || { missing="no Python with venv was found"; return 1; }
  local place; place=$(environment "$python" $version) || { missing="setuptools, Cython and auditwheel could not be installed"; return 1; }
  rm -f "${archive[@]}"
  # from a copy without anything that was built, so that nothing of it can slip in
  mkdir "$work/tree" && (cd "$source" && tar -c --no-wildcards-match-slash --exclude=.git --exclude=.venv --exclude=build --exclude=dist --exclude='*.egg-info' --exclude='*.so' --exclude='./cython/*.c' .) | tar -x -C "$work/tree" &&
    "$place/bin/python" -m build --sdist --no-isolation --outdir "$out" "$work/tree" >"$work/sdist.log" 2>&1 || { tail -5 "$work/sdist.log" >&2; return 1; }
  made=$(ls "$out"/edgeinfer-*.tar.gz) && mkdir "$work/source" && tar -xf "$made" -C "$work/source" --strip-components=1
}

wheel() { # architecture, version
  local architecture=$1 version=$2 name="$1 for Python $2" python place compiler= triplet= suite= root= began=$SECONDS
  python=$(python_of "$version") || { skip "$name" "no python$version with venv was found"; return; }
  place=$(environment "$python" "$version") || { skip "$name" "setuptools, Cython and auditwheel could not be installed"; return; }
  local env=()
  case $architecture in
    x86_64)
      [ "$(uname -m)" = x86_64 ] || { skip "$name" "this machine is no PC"; return; }
      env=(LDSHARED="${CC:-gcc} -pthread -shared") # a Python that was built from source links with a path to its own library
      ;;
    aarch64) triplet=aarch64-linux-gnu debian=arm64 ;;
    armv7l) triplet=arm-linux-gnueabihf debian=armhf ;;
    *) failure "$name: unknown architecture"; return ;;
  esac
  if [ -n "$triplet" ]; then
    case $version in 3.11) suite=bookworm ;; 3.13) suite=trixie ;; *) failure "$name: only 3.11 and 3.13 are cross-compiled"; return ;; esac
    compiler=$triplet-gcc
    command -v $compiler >/dev/null && echo '#include <stdio.h>' | $compiler -E - >/dev/null 2>&1 || { skip "$name" "gcc-$triplet or libc6-dev-$debian-cross is not installed"; return; }
    root=$(headers $debian $suite "$version") || { skip "$name" "the headers of Debian's Python $version ($debian) could not be had"; return; }
    local data; data=$(cd "$root/usr/lib/python$version" && ls _sysconfigdata__"$triplet".py _sysconfigdata__linux_"$triplet".py 2>/dev/null | head -1)
    [ -n "$data" ] || { failure "$name: no sysconfig data"; return; }
    mkdir -p "$work/config-$1-$2" && cp "$root/usr/lib/python$version/$data" "$work/config-$1-$2/"
    env=(_PYTHON_HOST_PLATFORM="linux-$architecture" _PYTHON_SYSCONFIGDATA_NAME="${data%.py}" PYTHONPATH="$work/config-$1-$2"
      CC=$compiler AR=$triplet-ar LDSHARED="$compiler -shared" CFLAGS="-I$root/usr/include/python$version -I$root/usr/include")
  fi
  local fresh=$work/wheel-$1-$2
  # build in place: what Cython wrote is used again by the next wheel, and the objects stay for the check
  rm -rf "$work/source/build" "$fresh"
  (cd "$work/source" && env "${env[@]}" "$place/bin/python" setup.py --quiet bdist_wheel --dist-dir "$fresh") >"$work/build.log" 2>&1 || { tail -20 "$work/build.log"; failure "$name: does not build"; return; }
  "$place/bin/python" "$source/deploy/check_wheel.py" --architecture "$architecture" --objects "$work/source/build" --retag "$fresh"/*.whl || { failure "$name"; return; }
  rm -f "$out"/edgeinfer-*-cp"${version/./}"-*_"$architecture".whl
  mv "$fresh"/*.whl "$out/"
  built=$((built + 1)); echo "PASS $name in $((SECONDS - began)) s"
}

missing=
if ! sdist; then
  if [ -n "$missing" ]; then skip "sdist and all wheels" "$missing"; else failure "sdist"; fi
  echo "$built built, $failed failed, $skipped skipped"
  exit 1
fi
built=$((built + 1)); echo "PASS sdist $(basename "$made"), $(stat -c %s "$made") bytes"
for target in "$@"; do
  case $target in
    sdist) ;;
    x86_64) for version in 3.10 3.11 3.12 3.13 3.14; do wheel x86_64 $version; done ;;
    *:*) wheel "${target%%:*}" "${target#*:}" ;;
    *) failure "$target: expected sdist, x86_64 or ARCHITECTURE:PYTHON" ;;
  esac
done
echo "$built built, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $built -gt 0 ]
