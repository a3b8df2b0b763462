/* features.c - which kernel variants this CPU can run. */
#include <string.h>

#include "table.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) || defined(__arm__)
#include <sys/auxv.h>
#endif

/* Best first. avx512 needs VBMI and VBMI2; a CPU without them runs avx2. */
static const char *const order[] = {
#ifdef EI_HAVE_AVX512
    "avx512",
#endif
#ifdef EI_HAVE_AVX2
    "avx2",
#endif
#ifdef EI_HAVE_NEON_DOTPROD
    "neon_dotprod",
#endif
#ifdef EI_HAVE_NEON
    "neon",
#endif
    "plain",
};
#define ORDERED (sizeof order / sizeof *order)

static int cpu_has(const char *name) {
  if (!strcmp(name, "plain")) return 1;
#if defined(__x86_64__)
  unsigned a, b, c = 0, d;
  int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
             __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1); /* bit 29: half precision conversions */
  if (!strcmp(name, "avx2")) return avx2;
  if (!strcmp(name, "avx512"))
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
#elif defined(__aarch64__)
  unsigned long caps = getauxval(AT_HWCAP);
  if (!strcmp(name, "neon")) return 1;
  const unsigned long v82 = 1ul << 7 | 1ul << 8 | 1ul << 12; /* the compiler may also use CRC32, atomics and rounding multiplies of ARMv8.1 */
  if (!strcmp(name, "neon_dotprod")) return (caps >> 20 & 1) && (caps & v82) == v82;
#elif defined(__arm__)
  unsigned long caps = getauxval(AT_HWCAP);
  if (!strcmp(name, "neon")) return (caps >> 12 & 1) && (caps >> 16 & 1); /* NEON and VFPv4 */
#endif
  return 0;
}

const char *const *ei_available_kernels(void) {
  static const char *found[ORDERED + 1];
  size_t n = 0;
  for (size_t i = 0; i < ORDERED; i++)
    if (cpu_has(order[i])) found[n++] = order[i];
  found[n] = NULL;
  return found;
}
