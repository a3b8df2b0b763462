#!/bin/sh
# Installs edgeinfer from this tree: a virtual environment under a prefix, and the command linked where shells look for it.
#
#   deploy/install.sh [--prefix DIR] [--bin DIR] [--python PYTHON] [--extras convert,...] [--uninstall]
#
# --prefix DIR     where the environment goes (default /opt/edgeinfer)
# --bin DIR        where the command is linked (default /usr/local/bin)
# --python PYTHON  the Python to use (default python3)
# --extras LIST    extras to install besides what running needs: convert compresses ONNX files
# --uninstall      remove the environment and the link; nothing else was ever written
set -eu

prefix=/opt/edgeinfer
bin=/usr/local/bin
python=python3
extras=""
uninstall=""

stop() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --bin | --python | --extras)
            [ $# -ge 2 ] || stop "$1 wants a value" 2
            case $1 in
                --prefix) prefix=$2 ;;
                --bin) bin=$2 ;;
                --python) python=$2 ;;
                --extras) extras=$2 ;;
            esac
            shift 2
            ;;
        --uninstall) uninstall=1 && shift ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" && exit 0 ;;
        *) stop "unknown option $1 (see --help)" 2 ;;
    esac
done

# Removing a whole folder is only done to one that this script made.
mark="$prefix/.edgeinfer-installed"

if [ -n "$uninstall" ]; then
    [ -f "$mark" ] || stop "$prefix was not made by this script; nothing removed"
    [ "$(readlink "$bin/edgeinfer" 2>/dev/null)" = "$prefix/bin/edgeinfer" ] && rm "$bin/edgeinfer"
    rm -rf "$prefix"
    echo "removed $prefix"
    exit 0
fi

source=$(cd "$(dirname "$0")/.." && pwd)
[ -f "$source/pyproject.toml" ] || stop "$source is not edgeinfer's source tree"
sh "$source/deploy/prerequisites.sh" "$python"
if [ -e "$prefix" ] && [ ! -f "$mark" ] && [ -n "$(ls -A "$prefix" 2>/dev/null)" ]; then
    stop "$prefix exists and was not made by this script; choose another --prefix"
fi
if [ -e "$bin/edgeinfer" ] && [ "$(readlink "$bin/edgeinfer")" != "$prefix/bin/edgeinfer" ]; then
    stop "$bin/edgeinfer exists and is another one; remove it or choose another --bin"
fi
mkdir -p "$prefix" "$bin" || stop "cannot write to $prefix and $bin (run with sudo, or choose --prefix and --bin)"
prefix=$(cd "$prefix" && pwd)
mark="$prefix/.edgeinfer-installed"
: > "$mark"

"$python" -m venv "$prefix"
"$prefix/bin/python" -m pip --disable-pip-version-check --quiet install "$source${extras:+[$extras]}"
ln -sf "$prefix/bin/edgeinfer" "$bin/edgeinfer"
"$prefix/bin/edgeinfer" --version
echo "installed in $prefix; the command is $bin/edgeinfer"
