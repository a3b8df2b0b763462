#!/bin/bash
# run.sh - every kernel variant against plain, executed on processors that this machine may not have.
#
#   tests/device/run.sh [avx512] [neon] [neon_dotprod] [armv7]      default: all
#
# avx512        Bochs (an emulated Ice Lake) boots compare.c on the bare machine; no operating system
# neon          qemu-user, Cortex-A53;  neon_dotprod: Cortex-A76;  armv7: Cortex-A7, 32 bits
# Needs Debian's bochs bochs-term bochsbios vgabios grub-pc-bin xorriso mtools musl-dev, and qemu-user-static gcc-aarch64-linux-gnu
# gcc-arm-linux-gnueabihf libc6-dev-arm64-cross libc6-dev-armhf-cross. What is missing is skipped and counted.
set -u
here=$(cd "$(dirname "$0")" && pwd)
kernels=$here/../../cython/kernels
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
pass=0 fail=0 skip=0
common="-std=gnu11 -O2 -fno-math-errno -fno-trapping-math -ffp-contract=off -Wall -Wextra -Werror -I$kernels"

compile() { # compiler, variant, "flags of the variant", "flags of all": objects of plain and of the variant
  local variant source name flags
  rm -f "$out"/*.o
  for variant in plain "$2"; do
    flags=; [ "$variant" = plain ] || flags=$3
    for source in "$kernels"/*.c; do
      name=$(basename "$source" .c)
      case $name in pool | features | checksum | readahead) continue ;; esac
      case $name in models) [ "$variant" = plain ] || continue ;; esac
      # shellcheck disable=SC2086
      "$1" $common $4 $flags -DEI_VARIANT="$variant" -DEI_VARIANT_"${variant^^}"=1 -DEI_HAVE_PLAIN=1 -DEI_HAVE_"${2^^}"=1 \
        -c "$source" -o "$out/$variant-$name.o" || return 1
    done
  done
}

verdict() { # name, file with what was printed
  if grep -aqE '^[0-9]+ passed, 0 failed' <(tr -d '\r' <"$2"); then
    pass=$((pass + 1)); echo "PASS $1: $(grep -aoE '[0-9]+ passed' "$2" | head -1)"
  else
    fail=$((fail + 1)); echo "FAIL $1"; grep -a -E 'FAIL|passed|status|error' "$2" | head -20
  fi
}

missing() { local tool; for tool in "$@"; do command -v "$tool" >/dev/null || { echo "$tool"; return; }; done; }

skipped() { skip=$((skip + 1)); echo "SKIP $1: $2 is not installed"; }

emulated() { # name, variant, compiler, "flags", emulator...
  local name=$1 variant=$2 compiler=$3 flags=$4; shift 4
  local tool; tool=$(missing "$compiler" "$1"); [ -z "$tool" ] || { skipped "$name" "$tool"; return; }
  # shellcheck disable=SC2086
  compile "$compiler" "$variant" "$flags" "" && "$compiler" $common -static -DEI_OTHER="$variant" "$here/compare.c" "$out"/*.o -lm -o "$out/compare" &&
    "$@" "$out/compare" >"$out/log"
  verdict "$name" "$out/log"
}

bare_avx512() {
  local tool libm=/usr/lib/x86_64-linux-musl/libc.a
  tool=$(missing gcc bochs grub-mkrescue script xorriso mformat); [ -z "$tool" ] || { skipped avx512 "$tool"; return; }
  [ -e $libm ] || { skipped avx512 musl-dev; return; }
  local bare="-ffreestanding -fno-pic -mcmodel=small -mno-red-zone -fno-stack-protector -fno-asynchronous-unwind-tables -U_FORTIFY_SOURCE"
  local flags="-mavx2 -mfma -mf16c -mbmi -mbmi2 -mprefer-vector-width=512"
  for tool in f bw dq vl vbmi vbmi2; do flags="$flags -mavx512$tool"; done
  # shellcheck disable=SC2086
  compile gcc avx512 "$flags" "$bare" || { fail=$((fail + 1)); return; }
  # shellcheck disable=SC2086
  gcc $common $bare -DEI_BARE -DEI_OTHER=avx512 -c "$here/compare.c" -o "$out/compare.o" && gcc $common $bare -c "$here/boot_out.c" -o "$out/out.o" &&
    gcc -c "$here/boot.S" -o "$out/boot.o" &&
    ld -m elf_x86_64 -nostdlib --no-warn-rwx-segments -T "$here/boot.ld" -o "$out/bare" "$out"/*.o $libm && mkdir -p "$out/iso/boot/grub" &&
    objcopy -O elf32-i386 "$out/bare" "$out/iso/boot/bare" || { fail=$((fail + 1)); return; }
  printf 'set timeout=0\nmultiboot /boot/bare\nboot\n' >"$out/iso/boot/grub/grub.cfg"
  grub-mkrescue -o "$out/bare.iso" "$out/iso" >/dev/null 2>&1
  cat >"$out/bochsrc" <<END
megs: 512
cpu: model=corei7_icelake_u, count=1, ips=100000000
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$out/bare.iso, status=inserted
boot: cdrom
port_e9_hack: enabled=1
log: $out/bochs.log
display_library: term
panic: action=fatal
error: action=ignore
END
  (echo c | TERM=xterm timeout 600 script -qc "bochs -q -f $out/bochsrc" /dev/null) >"$out/log" 2>&1
  verdict "avx512 (Bochs, bare machine)" "$out/log"
}

[ $# -gt 0 ] || set -- avx512 neon neon_dotprod armv7
for what in "$@"; do
  case $what in
    avx512) bare_avx512 ;;
    neon) emulated "neon (Cortex-A53)" neon aarch64-linux-gnu-gcc "-march=armv8-a" qemu-aarch64-static -cpu cortex-a53 ;;
    neon_dotprod) emulated "neon_dotprod (Cortex-A76)" neon_dotprod aarch64-linux-gnu-gcc "-march=armv8.2-a+dotprod" qemu-aarch64-static -cpu cortex-a76 ;;
    armv7) emulated "neon (Cortex-A7, 32 bits)" neon arm-linux-gnueabihf-gcc "-mfpu=neon-vfpv4" qemu-arm-static -cpu cortex-a7 ;;
    *) echo "unknown: $what" >&2; exit 2 ;;
  esac
done
echo "$pass passed, $fail failed, $skip skipped"
[ $fail = 0 ] && [ $pass -gt 0 ]
