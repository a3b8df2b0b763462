#!/bin/bash
# device_test.sh - the package on emulated Raspberry Pis: cross-built, installed, run as a user would run it.
#
#   tests/device/device_test.sh [short|long] [STAGE...]
#
# Stages (short: those with *):
#   build*     wheels for aarch64 (long: and armv7l, Python 3.11 and 3.13) by deploy/wheels.sh, Debian packages from them
#   kernels*   every step and decoder of the NEON variants against plain (long: 32 bits, AVX-512 and old PCs too), tests/device/run.sh
#   userland*  the package in Debian 12 under qemu-user: cortex-a53, a76 (long: a72)
#   trixie     the same in Debian 13 (its wheel needs a Python 3.13 on this machine)
#   armhf      the same in 32-bit Debian 12 and 13 on cortex-a7
#   units*     systemd's own verdict on the units
#   machine*   a booted Debian arm64 machine, 512 MB, systemd: package installed, service up, requests, OOM kill, watchdog
#   nomemory   the same with the memory controller off, as Raspberry Pi OS starts
#   powercut   the machine loses power while a model is being replaced
#   pages16k   a kernel with pages of 16 KiB, as on a Raspberry Pi 5
#   pi3        QEMU's model of the Raspberry Pi 3
#
# Needs root on Debian 12 or newer: missing packages are installed. Without root, or where something cannot be had, what depends on it is
# skipped and counted; nothing is passed silently. The last line is 'N passed, N failed, N skipped'; exit code 1 if anything failed.
# Roots, kernels and build environments are kept in $EDGEINFER_DEVICE_CACHE (default ~/.cache/edgeinfer-device); delete it to renew them.
set -u -o pipefail
case ${1:-} in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;; esac
if [ "$(id -u)" != 0 ]; then
  echo "SKIP all of it: device tests install packages and make root file systems, and this user is not root"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
here=$(cd "$(dirname "$0")" && pwd) tree=$(cd "$(dirname "$0")/../.." && pwd)
cache=${EDGEINFER_DEVICE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/edgeinfer-device}
mkdir -p "$cache" && cache=$(cd "$cache" && pwd) || exit 1
work=$(mktemp -d "$cache/run.XXXXXX")
machine_pid=
trap '[ -z "$machine_pid" ] || kill "$machine_pid" 2>/dev/null; [ -n "${EDGEINFER_DEVICE_KEEP:-}" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
pass=0 fail=0 skip=0 began=$SECONDS long=
dist=$cache/dist

ok() { pass=$((pass + 1)); printf '[%4d s] PASS %s\n' $((SECONDS - began)) "$*"; }
bad() { fail=$((fail + 1)); printf '[%4d s] FAIL %s\n' $((SECONDS - began)) "$*"; }
skipped() { skip=$((skip + 1)); printf '[%4d s] SKIP %s\n' $((SECONDS - began)) "$*"; }
finish() { echo "$pass passed, $fail failed, $skip skipped"; [ $fail = 0 ]; exit; }
count() { # add up the closing line of another script: N passed, N failed, N skipped
  local line; line=$(grep -aE '^[0-9]+ (passed|built), [0-9]+ failed' "$1" | tail -1)
  grep -aE '^(FAIL|SKIP|PASS)' "$1" | sed 's/^/         /'
  [ -n "$line" ] || { bad "$2: ended without a verdict"; tail -5 "$1"; return; }
  set -- $line
  pass=$((pass + $1)) fail=$((fail + $3)) skip=$((skip + ${5:-0}))
}

# need PACKAGE...: Debian packages on this machine, installed if we are root; the reason where that fails
reason=
need() {
  local package lacking=()
  for package in "$@"; do dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || lacking+=("$package"); done
  [ ${#lacking[@]} -gt 0 ] || return 0
  reason="${lacking[*]} not installed"
  [ "$(id -u)" = 0 ] || { reason="$reason, and only root can install packages"; return 1; }
  command -v apt-get >/dev/null || { reason="$reason, and this is no Debian"; return 1; }
  [ -e "$work/apt-updated" ] || { apt-get update >"$work/apt.log" 2>&1; touch "$work/apt-updated"; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${lacking[@]}" >>"$work/apt.log" 2>&1 || { reason="$reason, and could not be installed"; return 1; }
}

mirror() { # Debian's mirror that this machine uses
  local found=${DEBIAN_MIRROR:-}
  [ -n "$found" ] || found=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -1)
  [ -n "$found" ] || found=$(awk '$1=="deb"{for(i=2;i<=NF;i++) if($i~/:\/\//){print $i; exit}}' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null)
  echo "$found"
}

# unpacked SUITE ARCHITECTURE PACKAGES: a folder with these packages and what they depend on, unpacked and not configured: seconds
# instead of minutes, as nothing runs under emulation. What configuring would have done, as far as it matters here, is done below.
unpacked() {
  local place triplet; place=$cache/root-$1-$2-$(printf %s "$3" | sha256sum | cut -c1-10)
  [ ! -e "$place/.ready" ] || { echo "$place"; return; }
  rm -rf "$place"
  mmdebstrap --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr "--architectures=$2" "--include=$3" "$1" "$place" "$(mirror)" >"$work/mmdebstrap.log" 2>&1 ||
    { rm -rf "$place"; return 1; }
  mkdir -p "$place"/{proc,dev,tmp,sys,root,run,opt,var/lib/dpkg/info,var/lib/dpkg/updates,var/lib/dpkg/triggers}
  touch "$place/var/lib/dpkg/status"
  cp "$place/usr/share/base-passwd/passwd.master" "$place/etc/passwd"
  cp "$place/usr/share/base-passwd/group.master" "$place/etc/group"
  case $2 in arm64) triplet=aarch64-linux-gnu ;; armhf) triplet=arm-linux-gnueabihf ;; esac
  # update-alternatives did not run
  for library in blas lapack; do
    [ ! -e "$place/usr/lib/$triplet/$library/lib$library.so.3" ] || ln -sf "$library/lib$library.so.3" "$place/usr/lib/$triplet/lib$library.so.3"
  done
  ln -sf mawk "$place/usr/bin/awk"
  touch "$place/.ready"; echo "$place"
}

python_packages=base-files,base-passwd,bash,dash,coreutils,grep,sed,findutils,libc-bin,mawk,ca-certificates,python3,python3-numpy,python3-psutil,python3-yaml,python3-waitress
machine_packages=$python_packages,systemd,systemd-sysv,libnss-systemd,dbus,util-linux,mount,procps,kmod,login,libpam-runtime,busybox-static,tar,gzip,xz-utils,hostname,e2fsprogs,dpkg,init-system-helpers,perl-base,diffutils,debianutils,curl

# ---- build

stage_build() {
  need gcc-aarch64-linux-gnu libc6-dev-arm64-cross python3-venv python3-dev binutils || { skipped "build: $reason"; return; }
  local targets=(aarch64:3.11)
  if [ -n "$long" ]; then
    need gcc-arm-linux-gnueabihf libc6-dev-armhf-cross || { skipped "build for armhf: $reason"; }
    targets=(aarch64:3.11 aarch64:3.13 armv7l:3.11 armv7l:3.13)
  fi
  rm -rf "$dist"
  bash "$tree/deploy/wheels.sh" -o "$dist" -c "$cache/build" ${EDGEINFER_PYTHONS:+-p "$EDGEINFER_PYTHONS"} "${targets[@]}" >"$work/wheels.log" 2>&1
  grep -E 'bytes|wrong' "$work/wheels.log" | sed 's/^/         /'
  count "$work/wheels.log" build
  if ls "$dist"/*.whl >/dev/null 2>&1; then
    if said=$(bash "$tree/deploy/debian/build.sh" -w "$dist" 2>&1); then ok "Debian packages: $(tr '\n' ';' <<<"$said")"; else bad "Debian packages: $said"; fi
  fi
}

# ---- kernels

stage_kernels() {
  need qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross || { skipped "kernels: $reason"; return; }
  local variants=(neon neon_dotprod)
  if [ -n "$long" ]; then
    need gcc-arm-linux-gnueabihf libc6-dev-armhf-cross && variants+=(armv7) || skipped "kernels of armv7: $reason"
    need bochs bochs-term bochsbios vgabios grub-pc-bin xorriso mtools musl-dev && variants+=(avx512) || skipped "kernels of avx512: $reason"
  fi
  bash "$here/run.sh" "${variants[@]}" >"$work/kernels.log" 2>&1
  count "$work/kernels.log" kernels
  [ -n "$long" ] || return 0
  if [ -x "$tree/.venv/bin/edgeinfer" ]; then
    bash "$here/old_pc.sh" "$tree/.venv/bin/python" >"$work/old.log" 2>&1
    count "$work/old.log" "old PCs"
  else
    skipped "old PCs: make test or make demo made no .venv"
  fi
}

# ---- userland

binfmt() { # qemu-ARCHITECTURE registered with the kernel: what a chroot's programs run by
  mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null
  [ -e "/proc/sys/fs/binfmt_misc/qemu-$1" ] || update-binfmts --enable "qemu-$1" >/dev/null 2>&1
  [ -e "/proc/sys/fs/binfmt_misc/qemu-$1" ]
}

with_package() { # ROOT PACKAGE FOLDER: the root with a package's files in it, as hard links
  rm -rf "$3"; cp -al "$1" "$3" && dpkg-deb -x "$2" "$3"
}

emulated() { # ROOT CPU COMMAND...: in a mount namespace of its own, so that nothing stays mounted
  local root=$1 cpu=$2; shift 2
  timeout -k 5 900 unshare -m sh -c 'mount -t proc proc "$1/proc" && mkdir -p "$1/dev/shm" && mount -t tmpfs shm "$1/dev/shm" && touch "$1/dev/null" "$1/dev/urandom" &&
      mount --bind /dev/null "$1/dev/null" && mount --bind /dev/urandom "$1/dev/urandom" && root=$1 && shift && exec chroot "$root" "$@"' - "$root" \
    /usr/bin/env -i "QEMU_CPU=$cpu" PATH=/usr/bin:/usr/sbin HOME=/tmp LC_ALL=C.UTF-8 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 "$@"
}

userland() { # SUITE ARCHITECTURE CPU...
  local suite=$1 architecture=$2 cpu root said code; shift 2
  local package=("$dist"/edgeinfer_*_"$architecture".deb)
  [ -e "${package[0]}" ] || { skipped "$suite $architecture: there is no package to run"; return; }
  root=$(unpacked "$suite" "$architecture" "$machine_packages") || { skipped "$suite $architecture: its packages could not be had"; return; }
  with_package "$root" "${package[0]}" "$work/userland" || { bad "$suite $architecture: package cannot be unpacked"; return; }
  cp "$here/smoke.py" "$work/userland/opt/"
  for cpu in "$@"; do
    said=$(emulated "$work/userland" "$cpu" python3 /opt/smoke.py --digits 12 2>&1)
    code=$?
    if [ $code = 0 ]; then
      ok "$suite $architecture on $cpu: $(grep -m1 Python <<<"$said"), $(grep -m1 chosen <<<"$said" | sed 's/^ok //'), $(tail -n 1 <<<"$said")"
    else
      tail -n 8 <<<"$said"; bad "$suite $architecture on $cpu: exit code $code$([ $code = 132 ] && echo ', an illegal instruction')"
    fi
  done
  rm -rf "$work/userland"
}

emulation() { # NAME OF THE STAGE, ARCHITECTURE: 0 if programs of that architecture run in a chroot
  need qemu-user-static binfmt-support mmdebstrap arch-test util-linux || { skipped "$1: $reason"; return 1; }
  binfmt "$2" || { skipped "$1: this kernel takes no binfmt_misc registration"; return 1; }
}

stage_userland() {
  emulation userland aarch64 || return 0
  if [ -z "$long" ]; then userland bookworm arm64 cortex-a53 cortex-a76; return; fi # a72 has a53's instructions
  userland bookworm arm64 cortex-a53 cortex-a72 cortex-a76
}

stage_trixie() {
  emulation trixie aarch64 || return 0
  userland trixie arm64 cortex-a53 cortex-a76
}

stage_armhf() {
  emulation armhf arm || return 0
  userland bookworm armhf cortex-a7
  userland trixie armhf cortex-a7
}

# ---- units

stage_units() {
  local unit=$tree/deploy/edgeinfer.service score said code
  need systemd || { skipped "units: $reason"; return; }
  # ExecStart must exist: a root with nothing but the command's name
  mkdir -p "$work/units/usr/bin" "$work/units/bin" "$work/units/etc/systemd/system" && for program in usr/bin/edgeinfer bin/kill; do printf "#!/bin/sh\n" >"$work/units/$program" && chmod +x "$work/units/$program"; done
  cp "$(dirname "$unit")"/edgeinfer.{service,socket} "$work/units/etc/systemd/system/"
  for target in basic network sysinit shutdown multi-user sockets local-fs; do printf '[Unit]\nDescription=x\n' >"$work/units/etc/systemd/system/$target.target"; done
  if said=$(systemd-analyze verify --man=no --recursive-errors=no --root="$work/units" edgeinfer.service 2>&1); then ok "systemd-analyze verify"; else bad "systemd-analyze verify: $said"; fi
  said=$(systemd-analyze security --offline=true --threshold=20 "$unit" 2>&1) && code=0 || code=$?
  score=$(grep -aoE 'exposure level.*: [0-9.]+' <<<"$said" | grep -oE '[0-9.]+$')
  if [ $code = 0 ] && [ -n "$score" ]; then ok "systemd-analyze security: exposure $score, at most 2.0"; else bad "systemd-analyze security: exposure ${score:-unknown}, more than 2.0"; fi
}

# ---- machines

# kernel SUITE PACKAGE: a folder with Image, the modules and the device tree of the Raspberry Pi 3
kernel() {
  local place=$cache/kernel-$1-$2
  [ ! -e "$place/.ready" ] || { echo "$place"; return; }
  rm -rf "$place"
  mmdebstrap --variant=extract --architectures=arm64 "--include=$2" "$1" "$place" "$(mirror)" >"$work/kernel.log" 2>&1 || { rm -rf "$place"; return 1; }
  cp "$place"/boot/vmlinuz-* "$place/Image" && touch "$place/.ready" && echo "$place"
}

# what Debian's kernel keeps out of its image but needs to reach its root, in the order of loading
modules="crc16 mbcache crc32c_generic libcrc32c jbd2 ext4 virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_mmio virtio_blk fixed gpio-regulator sdhci sdhci-pltfm sdhci-iproc bcm2835"

initial() { # KERNEL ROOT FILE: an initramfs of busybox and these modules
  local folder=$work/initial module file
  rm -rf "$folder"; mkdir -p "$folder"/{bin,proc,sys,dev,newroot,m}
  cp "$2/usr/bin/busybox" "$folder/bin/" || return 1
  for module in $modules; do
    file=$(find "$1"/usr/lib/modules/*/kernel "$1"/lib/modules/*/kernel \( -name "$module.ko" -o -name "$module.ko.xz" \) 2>/dev/null | grep -vE '/char/|/spi/|/sound/' | head -1)
    case $file in *.xz) xz -dc "$file" >"$folder/m/$module.ko" ;; *.ko) cp "$file" "$folder/m/" ;; esac
  done
  cat >"$folder/init" <<END
#!/bin/busybox sh
b=/bin/busybox; \$b mount -t proc p /proc; \$b mount -t sysfs s /sys; \$b mount -t devtmpfs d /dev
for m in $modules; do [ -e /m/\$m.ko ] && \$b insmod /m/\$m.ko; done
R=\$(\$b sed 's/.*root=\([^ ]*\).*/\1/' /proc/cmdline); i=0; while [ ! -b \$R ] && [ \$i -lt 300 ]; do \$b sleep 0.1; i=\$((i+1)); done
\$b mount -t ext4 \$R /newroot || { echo "no root \$R: Kernel panic"; \$b poweroff -f; }
\$b mount --move /dev /newroot/dev; \$b umount /proc /sys; exec \$b switch_root /newroot /sbin/init
END
  chmod +x "$folder/init"; (cd "$folder" && find . | cpio -o -H newc --quiet | gzip -1) >"$3"
}

# disk ROOT PACKAGE FILE: a disk with that root, the package beside it (not installed) and the checks that run inside
disk() {
  local image=$work/image unit
  rm -rf "$image"; cp -al "$1" "$image" || return 1
  rm -f "$image"/etc/{passwd,shadow,machine-id,hostname,fstab,nsswitch.conf} # hard links: written anew, never through
  sed 's/^root:\*:/root::/' "$1/etc/passwd" >"$image/etc/passwd"; : >"$image/etc/shadow"; : >"$image/etc/fstab"
  echo uninitialized >"$image/etc/machine-id"; echo device >"$image/etc/hostname"
  printf 'passwd: files systemd\ngroup: files systemd\nshadow: files\nhosts: files\n' >"$image/etc/nsswitch.conf"
  mkdir -p "$image/etc/systemd/system" "$image/opt/test"
  for unit in getty.target serial-getty@.service systemd-{timesyncd,networkd,logind,firstboot,hwdb-update,update-utmp,sysusers}.service systemd-networkd.socket apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    ln -sf /dev/null "$image/etc/systemd/system/$unit"
  done
  cp "$2" "$image/opt/test/edgeinfer.deb"; cp "$here"/guest.sh "$here"/guest_client.py "$here"/smoke.py "$image/opt/test/"
  cat >"$image/etc/systemd/system/device-test@.service" <<END
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
Requires=basic.target
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/bash /opt/test/guest.sh %i
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
TimeoutStartSec=1500
END
  rm -f "$3"; mke2fs -q -t ext4 -d "$image" -L root "$3" 1G && rm -rf "$image"
}

# boot KIND KERNEL INITIAL DISK LOG SECONDS KEEP STAGE [kernel words]: run STAGE of guest.sh; 0 if it came to its end. With KEEP, what is written stays written.
# One instruction is one nanosecond of the guest's clock (icount): a busy host cannot fire its watchdogs, and its times are repeatable.
boot() {
  local kind=$1 kernel=$2 initial=$3 disk=$4 log=$5 seconds=$6 keep=$7 stage=$8 start=$SECONDS snapshot=on; shift 8
  [ "$keep" != keep ] || snapshot=off
  : >"$log"
  local words="rw quiet loglevel=4 systemd.show_status=no panic=5 systemd.unit=device-test@$stage.service $*"
  local common=(-display none -monitor none -no-reboot -kernel "$kernel/Image" -initrd "$initial" -accel "tcg,thread=single" -icount shift=0)
  case $kind in
    virt) qemu-system-aarch64 -M virt -cpu "${CPU:-cortex-a72}" -m "${MEMORY:-512M}" -smp 2 "${common[@]}" -nic none -serial "file:$log" -device virtio-rng-pci \
      -drive "if=none,id=d,file=$disk,format=raw,cache=${CACHE:-unsafe},snapshot=$snapshot" -device virtio-blk-pci,drive=d -append "console=ttyAMA0 root=/dev/vda $words" 2>"$log.qemu" & ;;
    raspi3b) qemu-system-aarch64 -M raspi3b "${common[@]}" -dtb "$(find "$kernel/usr/lib" -name bcm2837-rpi-3-b.dtb | head -1)" -serial null -serial "file:$log" \
      -drive "if=sd,file=$disk,format=raw,cache=unsafe,snapshot=$snapshot" -append "console=ttyS1,115200 root=/dev/mmcblk0 $words" 2>"$log.qemu" & ;;
  esac
  machine_pid=$!
  while kill -0 $machine_pid 2>/dev/null && ! grep -qaE "${UNTIL:-DEVTEST end|Kernel panic}" "$log" && [ $((SECONDS - start)) -lt "$seconds" ]; do sleep 0.5; done
  [ -z "${AFTER:-}" ] || sleep "$AFTER"
  kill -9 $machine_pid 2>/dev/null; wait $machine_pid 2>/dev/null
  machine_pid=
  took=$((SECONDS - start))
  grep -qaE "${UNTIL:-DEVTEST end}" "$log"
}

verdicts() { # LOG NAME: what guest.sh said, counted
  local line
  while IFS= read -r line; do
    line=$(tr -d '\r' <<<"$line")
    case $line in
      "DEVTEST PASS "*) ok "$2: ${line#DEVTEST PASS }" ;;
      "DEVTEST FAIL "*) bad "$2: ${line#DEVTEST FAIL }" ;;
      "DEVTEST SKIP "*) skipped "$2: ${line#DEVTEST SKIP }" ;;
      "DEVTEST NOTE "*) echo "         $2: ${line#DEVTEST NOTE }" ;;
    esac
  done < <(grep -aoE 'DEVTEST (PASS|FAIL|SKIP|NOTE) .*' "$1")
}

machine_ready= machine_kernel= machine_disk=
prepare() { # everything a machine needs; 0 if it can boot
  [ -z "$machine_ready" ] || [ "$machine_ready" = yes ]; [ -n "$machine_ready" ] && { [ "$machine_ready" = yes ]; return; }
  machine_ready=no
  local root package=("$dist"/edgeinfer_*_arm64.deb)
  need qemu-system-arm mmdebstrap arch-test cpio e2fsprogs xz-utils || return 1
  [ -e "${package[0]}" ] || { reason="there is no package to install"; return 1; }
  root=$(unpacked bookworm arm64 "$machine_packages") && machine_kernel=$(kernel bookworm linux-image-arm64) || { reason="Debian's packages could not be had"; return 1; }
  initial "$machine_kernel" "$root" "$work/initial.gz" && disk "$root" "${package[0]}" "$work/disk.img" || { reason="the disk could not be made"; return 1; }
  machine_disk=$work/disk.img machine_ready=yes
}

one_boot() { # NAME KIND SECONDS STAGE [kernel words]
  local name=$1 kind=$2 seconds=$3 stage=$4; shift 4
  prepare || { skipped "$name: $reason"; return; }
  if boot "$kind" "$machine_kernel" "$work/initial.gz" "$machine_disk" "$work/$name.log" "$seconds" no "$stage" "$@"; then
    verdicts "$work/$name.log" "$name"; echo "         $name: $took s"
  else
    verdicts "$work/$name.log" "$name"; bad "$name: not at its end after $took s"; tail -n 15 "$work/$name.log" | tr -d '\r'; tail -n 3 "$work/$name.log.qemu"
  fi
}

stage_machine() { one_boot machine virt 2400 service; }
stage_nomemory() { MEMORY=256M one_boot nomemory virt 2400 nomemory cgroup_disable=memory psi=0; }
stage_pi3() { one_boot pi3 raspi3b 2400 answer; }

stage_pages16k() {
  prepare || { skipped "pages16k: $reason"; return; }
  local other
  other=$(kernel trixie linux-image-arm64-16k) || { skipped "pages16k: Debian's kernel with pages of 16 KiB could not be had"; return; }
  local root; root=$(unpacked bookworm arm64 "$machine_packages")
  initial "$other" "$root" "$work/initial-16k.gz"
  if CPU=cortex-a76 boot virt "$other" "$work/initial-16k.gz" "$machine_disk" "$work/pages16k.log" 2400 no pages16k; then
    verdicts "$work/pages16k.log" pages16k
  else
    verdicts "$work/pages16k.log" pages16k; bad "pages16k: not at its end after $took s"; tail -n 15 "$work/pages16k.log"
  fi
}

stage_powercut() { # cut at a random moment while models are replaced, boot again, look
  prepare || { skipped "powercut: $reason"; return; }
  local disk=$work/cut.img cut wait
  cp --sparse=always "$machine_disk" "$disk"
  boot virt "$machine_kernel" "$work/initial.gz" "$disk" "$work/cut-install.log" 2400 keep cut-install || { verdicts "$work/cut-install.log" powercut; bad "powercut: not installed"; tail -n 15 "$work/cut-install.log"; return; }
  for ((cut = 1; cut <= ${EDGEINFER_CUTS:-3}; cut++)); do
    wait=$((RANDOM % 6)).$((RANDOM % 10))
    UNTIL='DEVTEST replacing' AFTER=$wait CACHE=writeback boot virt "$machine_kernel" "$work/initial.gz" "$disk" "$work/cut-$cut.log" 1200 keep cut-write || { bad "powercut $cut: nothing was being written"; tail -n 15 "$work/cut-$cut.log"; return; }
    if boot virt "$machine_kernel" "$work/initial.gz" "$disk" "$work/cut-$cut-after.log" 1200 keep cut-check; then
      verdicts "$work/cut-$cut-after.log" "powercut $cut (after $wait s)"
    else
      bad "powercut $cut: does not come back"; tail -n 15 "$work/cut-$cut-after.log"; return
    fi
  done
}

# ---- which stages

[ $# -gt 0 ] || set -- short
case $1 in
  short) shift; [ $# -gt 0 ] || set -- build kernels userland units machine ;;
  long) long=1; shift; [ $# -gt 0 ] || set -- build kernels userland trixie armhf units machine nomemory powercut pages16k pi3 ;;
esac
for stage in "$@"; do
  declare -F "stage_$stage" >/dev/null || { echo "device_test.sh: no stage $stage (see --help)" >&2; exit 2; }
done
for stage in "$@"; do echo "== $stage"; "stage_$stage"; done
finish
