#!/bin/bash
# old_pc.sh PYTHON - smoke.py on emulated PC processors without AVX2 (Nehalem: 'plain' must be chosen) and without AVX-512 (Haswell: 'avx2').
# Needs Debian's qemu-user-static and an x86-64 PYTHON that has edgeinfer; what is missing is skipped and counted. No root needed.
set -u
python=$1 here=$(cd "$(dirname "$0")" && pwd) pass=0 fail=0
if [ "$(uname -m)" != x86_64 ] || ! command -v qemu-x86_64-static >/dev/null; then
  echo "SKIP Nehalem, Haswell: no qemu-x86_64-static, or not a PC"; echo "0 passed, 0 failed, 2 skipped"; exit 0
fi
for pair in Nehalem:plain Haswell:avx2; do
  said=$(OPENBLAS_NUM_THREADS=1 timeout 900 qemu-x86_64-static -cpu "${pair%:*}" "$python" "$here/smoke.py" --best "${pair#*:}" --digits 24 2>&1)
  code=$?
  if [ $code = 0 ]; then
    pass=$((pass + 1)); echo "PASS ${pair%:*}: $(tail -n 1 <<<"$said")"
  else
    fail=$((fail + 1)); echo "FAIL ${pair%:*} (exit code $code)"; grep -v 'TCG doesn' <<<"$said" | tail -n 12
  fi
done
echo "$pass passed, $fail failed, 0 skipped"
[ $fail = 0 ]
