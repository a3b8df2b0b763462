#!/bin/bash
# guest.sh STAGE - runs as root inside the emulated machine (see device_test.sh) and says what it found, in lines that the host counts.
set -u
here=/opt/test socket=/run/edgeinfer/http.sock models=/var/lib/edgeinfer/models
digits=/usr/lib/python3/dist-packages/edgeinfer/demo/digits.edge
ok() { echo "DEVTEST PASS $*"; }
bad() { echo "DEVTEST FAIL $*"; }
note() { echo "DEVTEST NOTE $*"; }
skipped() { echo "DEVTEST SKIP $*"; }
check() { local what=$1; shift; if "$@" >/tmp/said 2>&1; then ok "$what"; else bad "$what: $(tail -n 2 /tmp/said | tr '\n' ' ')"; fi; }
property() { systemctl show edgeinfer.service -p "$1" --value; }
status_kib() { sed -n "s/^$1:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$(property MainPID)/status"; }
user() { sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(property MainPID)/status"; }
export HOME=/tmp OPENBLAS_NUM_THREADS=1 LC_ALL=C.UTF-8

installed() { # the root was unpacked without configuring, so that dpkg knows no packages: it is told not to mind; apt is for a real system
  if dpkg --force-depends --install $here/edgeinfer.deb >/tmp/said 2>&1; then ok "package installed: $(edgeinfer --version)"; else bad "dpkg --install: $(tail -n 3 /tmp/said | tr '\n' ' ')"; fi
  systemctl daemon-reload
}

quick() { # a watchdog that bites while we wait; everything else as packaged
  mkdir -p /run/systemd/system/edgeinfer.service.d
  printf '[Service]\nWatchdogSec=12\n' >/run/systemd/system/edgeinfer.service.d/test.conf
  systemctl daemon-reload
}

started() { # the service with the digits network, answering
  install -m 644 $digits $models/digits.edge
  systemctl start edgeinfer.service || { bad "systemctl start edgeinfer: $(journalctl -u edgeinfer -n 5 --no-pager -o cat | tr '\n' ';')"; return 1; }
  [ "$(property ActiveState)" = active ] && ok "service active (Type=$(property Type))" || bad "service is $(property ActiveState)"
}

answers() { # what for, model, count
  local said tries
  for tries in 1 2 3 4 5 6 7 8 9 10; do
    said=$(python3 $here/guest_client.py $socket "${2:-digits}" "${3:-8}" 2>&1) && { ok "$1: $said"; return 0; }
    sleep 2
  done
  bad "$1: $(tail -n 1 <<<"$said"); $(journalctl -u edgeinfer -n 3 --no-pager -o cat | tr '\n' ';')"
  return 1
}

restarted() { # what for, restarts before, result that must be in the journal
  local tries
  for ((tries = 0; tries < 90; tries++)); do
    [ "$(property NRestarts)" -gt "$2" ] && [ "$(property ActiveState)" = active ] && break
    sleep 1
  done
  if [ "$(property NRestarts)" -gt "$2" ] && { journalctl -u edgeinfer --no-pager -o cat; dmesg | grep edgeinfer.service; } | grep -i "$3" >/dev/null; then
    ok "$1: systemd restarted the service ($3)"
  else
    bad "$1: NRestarts $(property NRestarts), state $(property ActiveState), result $(property Result)"
  fi
}

stage_service() {
  installed
  check "doctor" edgeinfer doctor --folder /usr/lib
  check "demo model under 64 MiB" edgeinfer bench $digits --memory-limit 64MiB --duration 1s --warmup 0s
  note "$(grep -m1 latency /tmp/said)"; note "$(grep -m1 memory /tmp/said)"
  if ! systemctl cat edgeinfer.service >/dev/null 2>&1; then skipped "service: the package has none"; return; fi
  quick
  started || return
  note "memory: peak $(status_kib VmHWM) KiB, now $(status_kib VmRSS) KiB, MemoryMax $(property MemoryMax), MemoryHigh $(property MemoryHigh), user $(user)"
  answers "requests" digits 12
  check "health" curl -sf --unix-socket $socket http://localhost/v2/health/ready
  if curl -sf --unix-socket $socket http://localhost/metrics | grep -c '^edgeinfer_' >/tmp/said; then ok "metrics: $(cat /tmp/said) lines"; else bad "metrics"; fi
  [ "$(user)" -gt 0 ] && ok "does not run as root" || bad "runs as root"

  local before; before=$(property NRestarts)
  if [ "$(property MemoryMax)" != infinity ]; then
    # a process in the service's own control group takes more than its MemoryMax
    sh -c "echo \$\$ >/sys/fs/cgroup/system.slice/edgeinfer.service/cgroup.procs; exec python3 -c 'x = bytearray(400 << 20); x[::4096] = bytes(len(x[::4096]))'" >/dev/null 2>&1
    restarted "out of memory" "$before" oom
    answers "requests after the kill" digits 4
  else
    bad "MemoryMax is not set"
  fi
  before=$(property NRestarts)
  if [ "$(property WatchdogUSec)" != 0 ]; then
    kill -STOP "$(property MainPID)"
    restarted "hung process" "$before" watchdog
    answers "requests after the watchdog" digits 4
  else
    bad "WatchdogSec is not set"
  fi

  check "stop" systemctl stop edgeinfer.service edgeinfer.socket
  check "upgrade to the same version keeps the configuration" sh -c "echo '# mine' >>/etc/edgeinfer/serve.yaml; dpkg --force-depends --force-confold --install $here/edgeinfer.deb && grep -q '# mine' /etc/edgeinfer/serve.yaml"
  dpkg --force-depends --remove edgeinfer >/tmp/said 2>&1 && [ -e /etc/edgeinfer/serve.yaml ] && [ -e $models/digits.edge ] && ! [ -e /usr/lib/python3/dist-packages/edgeinfer ] &&
    ok "removal keeps configuration and models, nothing else" || bad "removal: $(tail -n 3 /tmp/said | tr '\n' ' '); $(find /usr/lib/python3/dist-packages/edgeinfer 2>/dev/null | head -3 | tr '\n' ' ')"
  dpkg --purge edgeinfer >/tmp/said 2>&1
  local left; left=$(find /etc /usr /var \( -path '*edgeinfer*' -o -name '*edgeinfer*' \) ! -path '/var/log/*' 2>/dev/null | head -5 | tr '\n' ' ')
  [ -z "$left" ] && ok "purging leaves nothing" || bad "purging leaves $left"
}

stage_nomemory() {
  installed
  grep -qw memory /sys/fs/cgroup/cgroup.controllers && bad "the memory controller is there all the same" || ok "the memory controller is off"
  edgeinfer doctor --folder /usr/lib >/tmp/said 2>&1
  grep -q 'MemoryMax= of systemd does nothing' /tmp/said && ok "doctor says that MemoryMax= does nothing" || bad "doctor does not say that MemoryMax= does nothing"
  edgeinfer run $digits $here/none.npy --memory-limit 20MiB >/tmp/said 2>&1
  edgeinfer plan $digits --memory-limit 24MiB >/tmp/said 2>&1; [ $? = 7 ] && ok "a ceiling of its own: $(tail -n 1 /tmp/said | cut -c1-110)" || bad "plan under 24 MiB: $(tail -n 1 /tmp/said)"
  if ! systemctl cat edgeinfer.service >/dev/null 2>&1; then skipped "service: the package has none"; return; fi
  started || return
  answers "requests" digits 8
  local limit; limit=$(sed -n 's/^memory_limit: *\([0-9]*\)MiB.*/\1/p' /etc/edgeinfer/serve.yaml)
  note "peak $(status_kib VmHWM) KiB, configured ceiling ${limit:-none} MiB"
  [ -n "$limit" ] && { [ "$(status_kib VmHWM)" -le $((limit * 1024)) ] && ok "peak within the configured ceiling" || bad "peak above the configured ceiling"; }
  local said; said=$(journalctl -u edgeinfer --no-pager -o cat | grep -ci 'memory.*control')
  [ "$said" = 1 ] && ok "the journal says once that there is no memory controller" || bad "the journal says $said times that there is no memory controller"
}

stage_answer() {
  installed
  check "demo model under 64 MiB" edgeinfer bench $digits --memory-limit 64MiB --duration 1s --warmup 0s
  note "$(grep -m1 latency /tmp/said)"; note "$(grep -m1 memory /tmp/said)"
  if ! systemctl cat edgeinfer.service >/dev/null 2>&1; then skipped "service: the package has none"; return; fi
  started && answers "requests" digits 4 && note "peak $(status_kib VmHWM) KiB"
}

stage_pages16k() {
  [ "$(getconf PAGESIZE 2>/dev/null || python3 -c 'import resource; print(resource.getpagesize())')" = 16384 ] && ok "pages have 16 KiB" || bad "pages have another size"
  installed
  check "smoke test" python3 $here/smoke.py --digits 12
  note "$(tail -n 1 /tmp/said), $(grep -m1 chosen /tmp/said)"
  check "demo model under 80 MiB" edgeinfer bench $digits --memory-limit 80MiB --duration 1s --warmup 0s
  note "$(grep -m1 memory /tmp/said)"
}

stage_cut-install() {
  installed
  install -m 644 $digits $models/digits.edge
  systemctl cat edgeinfer.service >/dev/null 2>&1 && { started && answers "before any cut" digits 4; systemctl stop edgeinfer.service; }
  sync
}

stage_cut-write() { # replaced as the guide says: written beside, renamed; the service reloads each time
  local i=0
  systemctl cat edgeinfer.service >/dev/null 2>&1 && systemctl start edgeinfer.service
  echo "DEVTEST replacing"
  while :; do
    i=$((i + 1))
    cp $digits $models/.digits.part && { [ $((i % 2)) = 0 ] || sync $models/.digits.part; } && mv $models/.digits.part $models/digits.edge
    systemctl reload edgeinfer.service >/dev/null 2>&1
  done
}

stage_cut-check() {
  check "the model in the folder is whole" edgeinfer inspect $models/digits.edge --verify
  systemctl cat edgeinfer.service >/dev/null 2>&1 || { skipped "service: the package has none"; return; }
  systemctl start edgeinfer.service
  answers "answers after the cut" digits 4
  systemctl stop edgeinfer.service; sync
}

echo "DEVTEST begin $1 on $(uname -m), $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
"stage_$1"
echo "DEVTEST end"
