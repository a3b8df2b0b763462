/* checksum.c - CRC32C with the CPU's instruction where there is one, else slicing by eight. */
#include "checksum.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#elif defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define POLYNOMIAL 0x82f63b78u /* reversed 0x1edc6f41 */

static uint32_t slice[8][256];
static atomic_int slice_ready;

/* Two threads may fill the table at once: they write the same words, and nobody reads before one of them is done. */
static void fill_slices(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = (c >> 1) ^ (POLYNOMIAL & (0u - (c & 1)));
    slice[0][i] = c;
  }
  for (int t = 1; t < 8; t++)
    for (int i = 0; i < 256; i++) slice[t][i] = (slice[t - 1][i] >> 8) ^ slice[0][slice[t - 1][i] & 255];
  atomic_store_explicit(&slice_ready, 1, memory_order_release);
}

uint32_t ei_crc32c_portable(uint32_t crc, const void *bytes, size_t n) {
  if (!atomic_load_explicit(&slice_ready, memory_order_acquire)) fill_slices();
  const uint8_t *p = bytes;
  crc = ~crc;
  for (; n >= 8; n -= 8, p += 8) {
    uint32_t a = crc ^ (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
    crc = slice[7][a & 255] ^ slice[6][a >> 8 & 255] ^ slice[5][a >> 16 & 255] ^ slice[4][a >> 24] ^ slice[3][p[4]] ^ slice[2][p[5]] ^
          slice[1][p[6]] ^ slice[0][p[7]];
  }
  for (; n; n--) crc = (crc >> 8) ^ slice[0][(crc ^ *p++) & 255];
  return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_instruction(uint32_t crc, const uint8_t *p, size_t n) {
  uint64_t c = (uint32_t)~crc;
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    c = _mm_crc32_u64(c, word);
  }
  for (; n; n--) c = _mm_crc32_u8((uint32_t)c, *p++);
  return ~(uint32_t)c;
}
static int has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
__attribute__((target("+crc"))) static uint32_t crc_instruction(uint32_t crc, const uint8_t *p, size_t n) {
  crc = ~crc;
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    crc = __crc32cd(crc, word);
  }
  for (; n; n--) crc = __crc32cb(crc, *p++);
  return ~crc;
}
static int has_instruction(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#endif

uint32_t ei_crc32c(uint32_t crc, const void *bytes, size_t n) {
#if defined(__x86_64__) || defined(__aarch64__)
  if (has_instruction()) return crc_instruction(crc, bytes, n);
#endif
  return ei_crc32c_portable(crc, bytes, n);
}
