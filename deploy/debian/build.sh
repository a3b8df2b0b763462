#!/bin/bash
# Builds Debian packages from wheels that deploy/wheels.sh made. No root, no network; the result is the same for the same wheels.
#
#   deploy/debian/build.sh [-w DIR] [-o DIR] [arm64|armhf|amd64 ...]
#
# -w DIR   where the wheels are (default dist)
# -o DIR   where the packages go (default: where the wheels are)
#
# One package serves Debian 12 and 13 and Raspberry Pi OS: it holds the Python files once and the compiled modules of each Python that has a
# wheel of that architecture (3.11 and 3.13; on amd64 whatever was built). Without an architecture, every one that has wheels is packaged.
set -eu -o pipefail
wheels=dist out=
while getopts w:o:h option; do
  case $option in
    w) wheels=$OPTARG ;; o) out=$OPTARG ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
here=$(cd "$(dirname "$0")" && pwd) source=$(cd "$(dirname "$0")/../.." && pwd)
wheels=$(cd "$wheels" && pwd) out=${out:-$wheels}
mkdir -p "$out" && out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
stop() { echo "build.sh: $1" >&2; exit 1; }
command -v dpkg-deb >/dev/null || stop "needs dpkg-deb"

version=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$here/changelog")
upstream=${version%-*}
SOURCE_DATE_EPOCH=$(date -d "$(sed -n 's/^ -- .*>  //p' "$here/changelog" | head -1)" +%s)
export SOURCE_DATE_EPOCH

package() { # debian architecture, architecture of the wheels
  local root=$work/$1 lib=$work/$1/usr/lib/python3/dist-packages doc=$work/$1/usr/share/doc/edgeinfer found=("$wheels"/edgeinfer-"$upstream"-cp3*_"$2".whl) wheel python versions=() floor=0
  [ -e "${found[0]}" ] || return 1
  mkdir -p "$lib" "$root/DEBIAN" "$root/usr/bin" "$doc/how-to" "$root/usr/lib/systemd/system" "$root/usr/lib/sysusers.d" "$root/etc/edgeinfer" "$root/var/lib/edgeinfer/models" "$root/usr/share/man/man1"
  for wheel in "${found[@]}"; do
    python=$(basename "$wheel" | sed 's/.*-cp3\([0-9]*\)-cp3.*/3.\1/')
    mkdir "$work/wheel-$1-$python"
    python3 -m zipfile -e "$wheel" "$work/wheel-$1-$python"
    # the Python files of all wheels must be the same: only one copy is packaged
    if [ ${#versions[@]} -gt 0 ]; then
      diff -rq -x '*.so' -x '*.dist-info' "$work/wheel-$1-${versions[0]}/edgeinfer" "$work/wheel-$1-$python/edgeinfer" >&2 || stop "the wheels of $2 differ: build them all again with deploy/wheels.sh"
    fi
    cp -r "$work/wheel-$1-$python/edgeinfer" "$lib/"
    versions+=("$python")
    glibc=$(basename "$wheel" | sed -n 's/.*manylinux_2_\([0-9]*\)_.*/\1/p')
    [ "${glibc:-0}" -le "$floor" ] || floor=$glibc
  done
  mapfile -t versions < <(printf '%s\n' "${versions[@]}" | sort -V)
  mkdir "$lib/edgeinfer-$upstream.dist-info"
  cp "$work/wheel-$1-${versions[0]}/edgeinfer-$upstream.dist-info/"{METADATA,entry_points.txt} "$lib/edgeinfer-$upstream.dist-info/"
  printf '#!/usr/bin/python3\nimport sys\n\nfrom edgeinfer.cli import main\n\nsys.exit(main())\n' >"$root/usr/bin/edgeinfer"
  chmod 755 "$root/usr/bin/edgeinfer"

  # Pythons that have modules: from the oldest to the newest, less the gaps between them
  local minor first=${versions[0]#3.} last=${versions[-1]#3.} depends
  depends="python3 (>= 3.$first), python3 (<< 3.$((last + 1)))"
  for ((minor = first + 1; minor < last; minor++)); do
    case " ${versions[*]} " in *" 3.$minor "*) ;; *) depends="$depends, python3 (<< 3.$minor) | python3 (>= 3.$((minor + 1)))" ;; esac
  done

  cp "$source"/deploy/edgeinfer.{service,socket} "$root/usr/lib/systemd/system/"
  cp "$source/deploy/edgeinfer.sysusers" "$root/usr/lib/sysusers.d/edgeinfer.conf"
  cp "$source/deploy/serve.yaml" "$root/etc/edgeinfer/serve.yaml"
  cp "$here/copyright" "$doc/"
  mkdir -p "$root/usr/share/lintian/overrides" && cp "$here/lintian-overrides" "$root/usr/share/lintian/overrides/edgeinfer"
  gzip -9n <"$here/changelog" >"$doc/changelog.Debian.gz"
  cp "$source"/docs/how-to/*.md "$doc/how-to/"
  gzip -9n <"$here/edgeinfer.1" >"$root/usr/share/man/man1/edgeinfer.1.gz"
  find "$root" -type d -exec chmod 755 {} +
  find "$root" -type f ! -path "$root/usr/bin/*" -exec chmod 644 {} +

  local script
  for script in preinst postinst prerm postrm; do install -m 755 "$here/$script" "$root/DEBIAN/$script"; done
  (cd "$root" && find etc -type f -printf '/%p\n') >"$root/DEBIAN/conffiles"
  sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$1/; s/@PYTHON@/$depends/; s/@GLIBC@/2.$floor/" \
    -e "s/@SIZE@/$(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f1)/" "$here/control.in" >"$root/DEBIAN/control"
  (cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
  find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zxz --build "$root" "$out/edgeinfer_${version}_$1.deb" >/dev/null
  echo "edgeinfer_${version}_$1.deb: $(stat -c %s "$out/edgeinfer_${version}_$1.deb") bytes, modules for Python ${versions[*]}"
}

wanted=("$@")
[ $# -gt 0 ] || wanted=(arm64 armhf amd64)
made=0
for architecture in "${wanted[@]}"; do
  case $architecture in
    arm64) machine=aarch64 ;; armhf) machine=armv7l ;; amd64) machine=x86_64 ;;
    *) stop "unknown architecture $architecture: expected arm64, armhf or amd64" ;;
  esac
  if ls "$wheels"/edgeinfer-"$upstream"-cp3*_$machine.whl >/dev/null 2>&1; then
    package "$architecture" $machine
    made=$((made + 1))
  elif [ $# -gt 0 ]; then
    stop "$wheels holds no edgeinfer-$upstream wheel for $machine: run deploy/wheels.sh"
  fi
done
[ $made -gt 0 ] || stop "$wheels holds no wheel of edgeinfer $upstream: run deploy/wheels.sh"
