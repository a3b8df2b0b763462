#!/bin/bash
# on_device.sh - measures every model of a folder with `edgeinfer bench` and prints one table (Markdown) that can be posted.
#
#   benchmarks/on_device.sh FOLDER [-o OUT] [BENCH OPTION ...]
#
# FOLDER holds NAME.edge files; where NAME.onnx or NAME.onnx.xz lies beside one and onnxruntime is installed, it is measured in turns with it
# (ncnn too, where it and its converter are installed). OUT (default ./edgeinfer-bench-HOST) gets NAME.json and NAME.html for each model and
# table.md. Options after that go to `edgeinfer bench`: --duration 10s --threads 4 --memory-limit 64MiB --batches 1,4. $EDGEINFER names the command (default edgeinfer).
set -u -o pipefail
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2; }
[ $# -ge 1 ] && [ -d "$1" ] || usage
folder=${1%/} out=edgeinfer-bench-$(uname -n); shift
if [ "${1:-}" = -o ]; then [ $# -ge 2 ] || usage; out=$2; shift 2; fi
read -r -a command <<<"${EDGEINFER:-edgeinfer}"
python=${PYTHON:-python3}
command -v "${command[0]}" >/dev/null || { echo "on_device.sh: there is no ${command[0]}; install edgeinfer, or name it in \$EDGEINFER" >&2; exit 1; }
models=("$folder"/*.edge)
[ -e "${models[0]}" ] || { echo "on_device.sh: $folder holds no .edge file" >&2; exit 1; }
mkdir -p "$out" || exit 1
rm -f "$out"/*.json "$out/table.md"
failed=0 files=()
for model in "${models[@]}"; do
  name=$(basename "$model" .edge)
  against=()
  for source in "$folder/$name.onnx" "$folder/$name.onnx.xz"; do
    [ -e "$source" ] || continue
    for peer in onnxruntime ncnn; do
      "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$peer') is None or '$peer' == 'ncnn' and importlib.util.find_spec('pnnx') is None)" && against+=(--against "$peer:$source")
    done
    break
  done
  echo "$name ..." >&2
  if ! "${command[@]}" bench "$model" "${against[@]}" "$@" --report "$out/$name.html" --json "$out/$name.json"; then
    # a peer that does not take the model must not cost its own figures
    [ ${#against[@]} -gt 0 ] && "${command[@]}" bench "$model" "$@" --report "$out/$name.html" --json "$out/$name.json" || { failed=1; continue; }
  fi
  files+=("$out/$name.json")
done
[ ${#files[@]} -gt 0 ] || exit 1
"$python" "$(dirname "$0")/on_device_table.py" "${files[@]}" | tee "$out/table.md"
exit $failed
