/* decode_rans.c - rANS tiles of interleaved 32-bit states.
 *
 * Tile: `lanes` u32 states, then u16 words.  Symbol i of the tile's order [k][padded row] belongs to state i mod lanes; a state that falls
 * below 2^16 takes the next word, states in order.  After the last symbol every state is 2^16 again and every word is used: that is checked.
 */
#include "decode.h"

#if defined(__AVX2__)
#include <immintrin.h>

/* Byte i of entry m: how many bits of m lie below bit i; the word that lane i takes when m says which lanes need one. */
#define BELOW(m, i) ((uint64_t)__builtin_popcount((m) & ((1u << (i)) - 1)) << (8 * (i)))
#define RANKS(m) BELOW(m, 0) | BELOW(m, 1) | BELOW(m, 2) | BELOW(m, 3) | BELOW(m, 4) | BELOW(m, 5) | BELOW(m, 6) | BELOW(m, 7)
#define RANKS4(m) RANKS(m), RANKS(m + 1), RANKS(m + 2), RANKS(m + 3)
#define RANKS16(m) RANKS4(m), RANKS4(m + 4), RANKS4(m + 8), RANKS4(m + 12)
#define RANKS64(m) RANKS16(m), RANKS16(m + 16), RANKS16(m + 32), RANKS16(m + 48)
static const uint64_t ranks[256] = {RANKS64(0u), RANKS64(64u), RANKS64(128u), RANKS64(192u)};

/* Whole rounds of 8 or 32 symbols; returns how many symbols were decoded, and moves *at, which is checked before every round.
 * A round reads at most EI_OVERREAD bytes behind the end: 16 bytes at no more than 16 bytes further for each eight states. */
static inline __attribute__((always_inline)) int64_t decode_rounds(const ei_rans_model *model, const uint8_t **at, const uint8_t *end, int lanes, uint32_t *states, int64_t n, uint8_t *out) {
  const uint8_t *p = *at;
  const int *entry = (const int *)model->entry;
  const __m256i slots = _mm256_set1_epi32((1 << model->bits) - 1), low12 = _mm256_set1_epi32(0xfff), one = _mm256_set1_epi32(1);
  const __m128i bits = _mm_cvtsi32_si128((int)model->bits);
  __m256i x[4], e[4];
  int64_t done = 0;
  for (int v = 0; v < lanes / 8; v++) x[v] = _mm256_loadu_si256((const __m256i *)states + v);
  for (; done + lanes <= n && p <= end; done += lanes) {
    for (int v = 0; v < lanes / 8; v++) {
      e[v] = _mm256_i32gather_epi32(entry, _mm256_and_si256(x[v], slots), 4);
      __m256i frequency = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(e[v], 8), low12), one);
      __m256i y = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srl_epi32(x[v], bits)), _mm256_srli_epi32(e[v], 20));
      __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(y, 16), _mm256_setzero_si256());
      unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(low));
      __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
      words = _mm256_permutevar8x32_epi32(words, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)ranks[mask])));
      x[v] = _mm256_blendv_epi8(y, _mm256_or_si256(_mm256_slli_epi32(y, 16), words), low);
      p += 2 * __builtin_popcount(mask);
      e[v] = _mm256_and_si256(e[v], _mm256_set1_epi32(255));
    }
    if (lanes == 32) { /* packing works within 128-bit lanes; the permutation puts the runs of four bytes in order */
      __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(e[0], e[1]), _mm256_packus_epi32(e[2], e[3]));
      _mm256_storeu_si256((__m256i *)(out + done), _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    } else {
      __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(e[0]), _mm256_extracti128_si256(e[0], 1));
      _mm_storel_epi64((__m128i *)(out + done), _mm_packus_epi16(words, words));
    }
  }
  for (int v = 0; v < lanes / 8; v++) _mm256_storeu_si256((__m256i *)states + v, x[v]);
  *at = p;
  return done;
}
#endif

static inline __attribute__((always_inline)) int decode_lanes(const ei_rans_model *model, const uint8_t *p, const uint8_t *end, int lanes, int64_t n, uint8_t *out) {
  uint32_t x[EI_RANS_LANES], mask = (1u << model->bits) - 1;
  const uint32_t *entry = model->entry;
  int bits = (int)model->bits;
  int64_t done = 0;
  if (end - p < 4 * lanes) return EI_BAD_STREAM;
  for (int i = 0; i < lanes; i++) {
    x[i] = ei_load32(p + 4 * i);
    if (x[i] < EI_RANS_LOW) return EI_BAD_STREAM;
  }
  p += 4 * lanes;
#if defined(__AVX2__)
  if (lanes > 1) done = decode_rounds(model, &p, end, lanes, x, n, out);
#endif
  for (; done < n; done += lanes) {
    int now = n - done < lanes ? (int)(n - done) : lanes;
    if (p > end) return EI_BAD_STREAM; /* a round reads at most 2 * EI_RANS_LANES = EI_OVERREAD bytes */
    for (int i = 0; i < now; i++) {
      uint32_t e = entry[x[i] & mask];
      uint32_t y = ((e >> 8 & 0xfff) + 1) * (x[i] >> bits) + (e >> 20);
      uint32_t low = y < EI_RANS_LOW; /* by arithmetic: a branch would be mispredicted every few symbols */
      x[i] = (y << (16 * low)) | (ei_load16(p) & (0u - low));
      p += 2 * low;
      out[done + i] = (uint8_t)e;
    }
  }
  if (p != end) return EI_BAD_STREAM;
  uint32_t odd = 0;
  for (int i = 0; i < lanes; i++) odd |= x[i] ^ EI_RANS_LOW;
  return odd ? EI_BAD_STREAM : EI_OK;
}

int EI_FN(ei_decode_rans)(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols) {
  const uint8_t *end = tile + tile_bytes;
  switch (plane->lanes) {
    case 1: return decode_lanes(plane->model, tile, end, 1, k * padded, symbols);
    case 8: return decode_lanes(plane->model, tile, end, 8, k * padded, symbols);
    case 32: return decode_lanes(plane->model, tile, end, 32, k * padded, symbols);
    default: return EI_BAD_STREAM;
  }
}
