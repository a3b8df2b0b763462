#!/bin/bash
# try_wheels.sh - wheels of this machine's architecture, each in a fresh environment of its Python: the smoke test, the demo, and on demand the tests.
#
#   tests/device/try_wheels.sh [-w DIR] [-p DIR] [-n NUMPY] [-t 'PYTEST ARGUMENTS'] [VERSION ...]
#
# -w DIR     where the wheels and the source distribution are (default dist)
# -p DIR     also look for Pythons as DIR/*/bin/python3.N
# -n NUMPY   a version of NumPy to install, as 1.24.* (default: the newest that pip finds)
# -t ARGS    also run pytest with these arguments on the tests of the source distribution, against the installed wheel
# Pythons that are not there are skipped and counted. The last line is 'N passed, N failed, N skipped'.
set -u -o pipefail
wheels=dist more= numpy= tests=
while getopts w:p:n:t:h option; do
  case $option in
    w) wheels=$OPTARG ;; p) more=$OPTARG ;; n) numpy=$OPTARG ;; t) tests=$OPTARG ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- 3.10 3.11 3.12 3.13 3.14
here=$(cd "$(dirname "$0")" && pwd) wheels=$(cd "$wheels" && pwd) || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pass=0 fail=0 skip=0
ok() { pass=$((pass + 1)); echo "PASS $*"; }
bad() { fail=$((fail + 1)); echo "FAIL $*"; }
for version in "$@"; do
  wheel=("$wheels"/edgeinfer-*-cp"${version/./}"-*_"$(uname -m)".whl)
  python=
  for candidate in "$(command -v "python$version")" "$more"/*/bin/python"$version"; do
    [ -x "$candidate" ] && "$candidate" -c 'import venv, ensurepip' 2>/dev/null && python=$candidate && break
  done
  if [ ! -e "${wheel[0]}" ] || [ -z "$python" ]; then skip=$((skip + 1)); echo "SKIP Python $version: no $([ -n "$python" ] && echo wheel || echo "python$version")"; continue; fi
  place=$work/$version
  "$python" -m venv "$place" && "$place/bin/pip" --disable-pip-version-check --quiet install "${wheel[0]}" ${numpy:+"numpy==$numpy"} >"$work/log" 2>&1 || { tail -3 "$work/log"; bad "Python $version: pip install"; continue; }
  # from an empty folder: nothing of the source tree can be imported by accident
  mkdir "$place/empty"
  if (cd "$place/empty" && "$place/bin/python" "$here/smoke.py") >"$work/log" 2>&1; then ok "Python $version: $(grep -m1 Python "$work/log"), $(tail -n 1 "$work/log")"; else tail -5 "$work/log"; bad "Python $version: smoke test"; fi
  if (cd "$place/empty" && "$place/bin/edgeinfer" demo) >"$work/log" 2>&1; then ok "Python $version: demo"; else tail -5 "$work/log"; bad "Python $version: demo"; fi
  [ -n "$tests" ] || continue
  mkdir "$place/source" && tar -xf "$wheels"/edgeinfer-*.tar.gz -C "$place/source" --strip-components=1 && rm -r "$place/source/edgeinfer" "$place/source/cython"/*.pyx
  "$place/bin/pip" --disable-pip-version-check --quiet install "${wheel[0]}[convert,test]" ${numpy:+"numpy==$numpy"} >"$work/log" 2>&1 || { tail -3 "$work/log"; bad "Python $version: test requirements"; continue; }
  eval "arguments=($tests)" # as a shell would take them apart: -m "not slow"
  if (cd "$place/source" && OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$place/bin/pytest" -p no:cacheprovider "${arguments[@]}") >"$work/log" 2>&1; then
    ok "Python $version: tests, $(tail -n 1 "$work/log")"
  else
    tail -30 "$work/log"; bad "Python $version: tests"
  fi
done
echo "$pass passed, $fail failed, $skip skipped"
[ $fail = 0 ] && [ $pass -gt 0 ]
