#!/bin/sh
# Installs edgeinfer from this tree: a virtual environment under a prefix, and the command linked where shells look for it.
#
#   deploy/install.sh [--prefix DIR] [--bin DIR] [--python PYTHON] [--extras convert,...] [--service] [--uninstall]
#
# --prefix DIR     where the environment goes (default /opt/edgeinfer)
# --bin DIR        where the command is linked (default /usr/local/bin)
# --python PYTHON  the Python to use (default python3)
# --extras LIST    extras to install besides what running needs: convert compresses ONNX files
# --service        also the systemd service: units in /etc/systemd/system, /etc/edgeinfer/serve.yaml where there is none, and the folder
#                  /var/lib/edgeinfer/models. It is enabled, not started: put a model there, then 'systemctl start edgeinfer'
# --uninstall      remove the environment, the link and the units; configuration and models stay
set -eu

prefix=/opt/edgeinfer
bin=/usr/local/bin
python=python3
extras=""
service=""
uninstall=""
units=${EDGEINFER_UNITS:-/etc/systemd/system} # other folders are for tests
etc=${EDGEINFER_ETC:-/etc/edgeinfer}
models=${EDGEINFER_MODELS:-/var/lib/edgeinfer/models}

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
        --service) service=1 && shift ;;
        --uninstall) uninstall=1 && shift ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" && exit 0 ;;
        *) stop "unknown option $1 (see --help)" 2 ;;
    esac
done

# Removing a whole folder is only done to one that this script made.
mark="$prefix/.edgeinfer-installed"

if [ -n "$uninstall" ]; then
    [ -f "$mark" ] || stop "$prefix was not made by this script; nothing removed"
    prefix=$(cd "$prefix" && pwd)
    [ "$(readlink "$bin/edgeinfer" 2>/dev/null)" = "$prefix/bin/edgeinfer" ] && rm "$bin/edgeinfer"
    if [ -f "$units/edgeinfer.service" ] && grep -q "^# installed by $prefix\$" "$units/edgeinfer.service"; then
        if [ -d /run/systemd/system ] && [ "$units" = /etc/systemd/system ]; then
            systemctl disable --now edgeinfer.service edgeinfer.socket || true
        fi
        rm -f "$units/edgeinfer.service" "$units/edgeinfer.socket"
        [ ! -d /run/systemd/system ] || systemctl daemon-reload || true
    fi
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
if [ -n "$service" ]; then
    extras="${extras:+$extras,}serve"
    if [ -e "$units/edgeinfer.service" ] && ! grep -q "^# installed by $prefix\$" "$units/edgeinfer.service"; then
        stop "$units/edgeinfer.service exists and is another one"
    fi
    if [ -e /usr/lib/systemd/system/edgeinfer.service ] && [ "$units" = /etc/systemd/system ]; then
        stop "the Debian package has installed the service already; use that one, or remove the package first"
    fi
fi
mkdir -p "$prefix" "$bin" || stop "cannot write to $prefix and $bin (run with sudo, or choose --prefix and --bin)"
prefix=$(cd "$prefix" && pwd)
mark="$prefix/.edgeinfer-installed"
: > "$mark"

"$python" -m venv "$prefix"
"$prefix/bin/python" -m pip --disable-pip-version-check --quiet install "$source${extras:+[$extras]}"
ln -sf "$prefix/bin/edgeinfer" "$bin/edgeinfer"
"$prefix/bin/edgeinfer" --version
if [ -n "$service" ]; then
    mkdir -p "$units" "$etc" "$models" || stop "cannot write to $units, $etc and $models (run with sudo)"
    for unit in edgeinfer.service edgeinfer.socket; do
        { echo "# installed by $prefix"; sed "s#^\(Exec[A-Za-z]*=\)/usr/bin/edgeinfer#\1$bin/edgeinfer#" "$source/deploy/$unit"; } > "$units/$unit"
    done
    if ! getent group edgeinfer >/dev/null && [ "$units" = /etc/systemd/system ]; then
        groupadd --system edgeinfer # its members may connect to the socket
    fi
    [ -e "$etc/serve.yaml" ] || cp "$source/deploy/serve.yaml" "$etc/serve.yaml"
    if [ -d /run/systemd/system ] && [ "$units" = /etc/systemd/system ]; then
        systemctl daemon-reload
        systemctl enable edgeinfer.service
    fi
    echo "service installed; models go into $models, then: systemctl start edgeinfer"
fi
echo "installed in $prefix; the command is $bin/edgeinfer"
