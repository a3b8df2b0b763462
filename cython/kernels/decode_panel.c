/* decode_panel.c - values of symbols, and packed planes straight to values.
 *
 * Vector forms look a value up byte by byte: the table of up to 16 (32, 64) floats is held as four planes of bytes, a byte shuffle gives one
 * byte of the value of 32 (16) symbols, and interleaving the four results gives the floats, exactly.  Tables whose values all are bfloat16
 * numbers (the quantizers round their tables so up to 6 bits) need two planes only.
 */
#include "decode.h"

static inline uint32_t float_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

static void map_plain(const float *table, const uint8_t *symbols, int64_t k, int64_t padded, float *panel) {
  int64_t ld = EI_PANEL_LD(padded);
  for (int64_t i = 0; i < k; i++, panel += ld, symbols += padded)
    for (int64_t r = 0; r < padded; r++) panel[r] = table[symbols[r]];
}

#if defined(__AVX2__) || defined(__aarch64__)
/* 1 if the low halves of all values are 0 */
static int is_bfloat(const float *table, int n) {
  uint32_t low = 0;
  for (int i = 0; i < n; i++) low |= float_bits(table[i]) & 0xffff;
  return low == 0;
}

/* 1 if every value is (i - zero) * step in float arithmetic; the table of a uniform grid is */
static int is_grid(const float *table, int n, float *zero, float *step) {
  int z = 0;
  while (z < n && float_bits(table[z]) != 0) z++;
  if (z >= n - 1) return 0;
  float s = table[z + 1];
  for (int i = 0; i < n; i++)
    if (float_bits((float)(i - z) * s) != float_bits(table[i])) return 0;
  *zero = (float)z, *step = s;
  return 1;
}
#endif

#if defined(__AVX2__)
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Symbols travel in an order that comes out right when bytes and then words are interleaved within the two 128-bit lanes: the lower lane
 * has rows 0-3, 8-11, 16-19, 24-27, the upper one rows 4-7, 12-15, 20-23, 28-31. */
INLINE __m256i field8(const uint8_t *p) {
  return _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)p), _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}
INLINE __m256i field4(const uint8_t *p) {
  const __m256i pick = _mm256_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15, 4, 5, 6, 7, 12, 13, 14, 15);
  __m256i v = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p)), pick);
  return _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4)), _mm256_set1_epi8(15));
}
INLINE __m256i field2(const uint8_t *p) {
  const __m256i pick = _mm256_setr_epi8(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
  __m256i v = _mm256_shuffle_epi8(_mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)p)), pick);
  return _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)), _mm256_set1_epi8(3));
}
INLINE __m256i field1(const uint8_t *p) {
  __m256i v = _mm256_set1_epi32((int)ei_load32(p));
  return _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)), _mm256_set1_epi8(1));
}

/* the symbols of one k of 32 rows; bits is constant wherever this is inlined */
INLINE __m256i symbols32(const uint8_t *p, int bits) {
  __m256i v = _mm256_setzero_si256();
  int low = 0;
  if (bits == 8) return field8(p);
  if (bits & 4) v = field4(p), p += 16, low = 4;
  if (bits & 2) v = _mm256_or_si256(v, _mm256_slli_epi32(field2(p), low)), p += 8, low += 2;
  if (bits & 1) v = _mm256_or_si256(v, _mm256_slli_epi32(field1(p), low));
  return v;
}

typedef struct {
  __m256i plane[4][4]; /* [table of 16][byte of the value] */
} byte_tables;

static void split_table(byte_tables *t, const float *table, int tables) {
  uint8_t bytes[4][16];
  for (int i = 0; i < tables; i++) {
    for (int j = 0; j < 16; j++) {
      uint32_t u = float_bits(table[16 * i + j]);
      for (int b = 0; b < 4; b++) bytes[b][j] = (uint8_t)(u >> (8 * b));
    }
    for (int b = 0; b < 4; b++) t->plane[i][b] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes[b]));
  }
}

/* one byte of the values of 32 symbols, which are less than 16 * tables */
INLINE __m256i look_up(const byte_tables *t, int tables, int byte, const __m256i *index) {
  __m256i v = _mm256_shuffle_epi8(t->plane[0][byte], index[0]);
  for (int i = 1; i < tables; i++) v = _mm256_or_si256(v, _mm256_shuffle_epi8(t->plane[i][byte], index[i]));
  return v;
}

INLINE void store_values(const byte_tables *t, int tables, int bfloat, __m256i symbols, float *out) {
  __m256i index[4] = {symbols};
  if (tables > 1) /* index of another table: bit 7 set, for which the shuffle gives 0 */
    for (int i = 0; i < tables; i++)
      index[i] = _mm256_add_epi8(_mm256_xor_si256(symbols, _mm256_set1_epi8((char)(16 * i))), _mm256_set1_epi8(0x70));
  __m256i b2 = look_up(t, tables, 2, index), b3 = look_up(t, tables, 3, index);
  __m256i low = _mm256_setzero_si256(), high = low;
  if (!bfloat) {
    __m256i b0 = look_up(t, tables, 0, index), b1 = look_up(t, tables, 1, index);
    low = _mm256_unpacklo_epi8(b0, b1), high = _mm256_unpackhi_epi8(b0, b1);
  }
  __m256i low23 = _mm256_unpacklo_epi8(b2, b3), high23 = _mm256_unpackhi_epi8(b2, b3);
  _mm256_storeu_si256((__m256i *)out, _mm256_unpacklo_epi16(low, low23));
  _mm256_storeu_si256((__m256i *)(out + 8), _mm256_unpackhi_epi16(low, low23));
  _mm256_storeu_si256((__m256i *)(out + 16), _mm256_unpacklo_epi16(high, high23));
  _mm256_storeu_si256((__m256i *)(out + 24), _mm256_unpackhi_epi16(high, high23));
}

/* bits: of the packed plane (the buckets where there are signs); tables, bfloat, bits, with_signs are constants at every call */
INLINE void unpack(const byte_tables *t, int tables, int bfloat, int bits, int with_signs, const uint8_t *tile, const uint8_t *signs, int64_t k, float *panel) {
  for (int64_t i = 0; i < k; i++, tile += 4 * bits, panel += 32) {
    __m256i v = symbols32(tile, bits);
    if (with_signs) v = _mm256_or_si256(_mm256_slli_epi32(v, 1), field1(signs)), signs += 4;
    store_values(t, tables, bfloat, v, panel);
  }
}

int EI_FN(ei_unpack_panel)(const float *table, int bits, const uint8_t *tile, const uint8_t *signs, int64_t k, float *panel) {
  int width = bits + (signs != NULL);
  if (width > 6) return 0;
  int tables = width <= 4 ? 1 : width == 5 ? 2 : 4, bfloat = is_bfloat(table, 16 * tables);
  byte_tables t;
  split_table(&t, table, tables);
#define CASE(TABLES, BITS)                                                                     \
  if (bfloat) unpack(&t, TABLES, 1, BITS, 0, tile, NULL, k, panel);                            \
  else unpack(&t, TABLES, 0, BITS, 0, tile, NULL, k, panel);                                   \
  return 1;
#define CASE_SIGNS(TABLES, BITS)                                                               \
  if (bfloat) unpack(&t, TABLES, 1, BITS, 1, tile, signs, k, panel);                           \
  else unpack(&t, TABLES, 0, BITS, 1, tile, signs, k, panel);                                  \
  return 1;
  if (signs) {
    switch (bits) {
      case 1: CASE_SIGNS(1, 1)
      case 2: CASE_SIGNS(1, 2)
      case 3: CASE_SIGNS(1, 3)
      case 4: CASE_SIGNS(2, 4)
      case 5: CASE_SIGNS(4, 5)
    }
  } else {
    switch (bits) {
      case 1: CASE(1, 1)
      case 2: CASE(1, 2)
      case 3: CASE(1, 3)
      case 4: CASE(1, 4)
      case 5: CASE(2, 5)
      case 6: CASE(4, 6)
    }
  }
  return 0;
}

int EI_FN(ei_unpack_symbols)(int bits, const uint8_t *tile, int64_t k, uint8_t *symbols) {
  const __m256i back = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
#define ROWS(BITS)                                                                                                            \
  for (int64_t i = 0; i < k; i++, tile += 4 * BITS, symbols += 32)                                                            \
    _mm256_storeu_si256((__m256i *)symbols, _mm256_permutevar8x32_epi32(symbols32(tile, BITS), back));                        \
  return 1;
  switch (bits) {
    case 1: ROWS(1)
    case 2: ROWS(2)
    case 3: ROWS(3)
    case 4: ROWS(4)
    case 5: ROWS(5)
    case 6: ROWS(6)
    case 7: ROWS(7)
  }
  return 0;
}

/* Symbols of 32 panel floats at `step` 32-float rows: rows of 32 (or 24, the last 8 floats being overwritten by the caller) lie `padded`
 * symbols apart; of 16 rows two k are adjacent; of 8 rows two k are put together. */
INLINE __m256i load_symbols(const uint8_t *p, int64_t padded) {
  if (padded != 8) return field8(p);
  __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p)), _mm_loadu_si128((const __m128i *)(p + 8)), 1);
  return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}

INLINE void map_tables(const byte_tables *t, int tables, int bfloat, const uint8_t *symbols, int64_t rounds, int64_t step, int64_t padded, float *panel) {
  for (int64_t i = 0; i < rounds; i++, symbols += step, panel += 32) store_values(t, tables, bfloat, load_symbols(symbols, padded), panel);
}

void EI_FN(ei_map_symbols)(const float *table, int table_len, const uint8_t *symbols, int64_t k, int64_t padded, float *panel) {
  int64_t per_round = padded > 16 ? 1 : 2, rounds = k / per_round, step = padded * per_round;
  if (table_len <= 64) {
    int tables = table_len <= 16 ? 1 : table_len <= 32 ? 2 : 4, bfloat = is_bfloat(table, table_len);
    byte_tables t;
    float whole[64] = {0};
    memcpy(whole, table, (size_t)table_len * 4);
    split_table(&t, whole, tables);
#define MAP(TABLES)                                                                     \
  if (bfloat) map_tables(&t, TABLES, 1, symbols, rounds, step, padded, panel);          \
  else map_tables(&t, TABLES, 0, symbols, rounds, step, padded, panel)
    if (tables == 1) {
      MAP(1);
    } else if (tables == 2) {
      MAP(2);
    } else {
      MAP(4);
    }
  } else {
    float zero, factor;
    int64_t ld = EI_PANEL_LD(padded);
    int grid = is_grid(table, table_len, &zero, &factor);
    rounds = 0; /* all of it is done here */
    const uint8_t *s = symbols;
    float *out = panel;
    const __m256 zeros = _mm256_set1_ps(grid ? zero : 0), factors = _mm256_set1_ps(grid ? factor : 0);
    for (int64_t i = 0; i < k; i++, s += padded, out += ld)
      for (int64_t r = 0; r < padded; r += 8) {
        __m256i index = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(s + r)));
        __m256 v = grid ? _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(index), zeros), factors) : _mm256_i32gather_ps(table, index, 4);
        _mm256_storeu_ps(out + r, v);
      }
    return;
  }
  int64_t done = rounds * per_round;
  map_plain(table, symbols + done * padded, k - done, padded, panel + done * EI_PANEL_LD(padded));
}

#elif defined(__aarch64__)
#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct {
  uint8x16_t half[2]; /* rows 0-15, 16-31 */
} pair;

INLINE pair symbols32(const uint8_t *p, int bits) {
  pair v = {{vdupq_n_u8(0), vdupq_n_u8(0)}};
  int low = 0;
  if (bits & 4) {
    uint8x16_t b = vld1q_u8(p);
    v.half[0] = vandq_u8(b, vdupq_n_u8(15)), v.half[1] = vshrq_n_u8(b, 4);
    p += 16, low = 4;
  }
  if (bits & 2) {
    uint8x8_t b = vld1_u8(p);
    uint8x16_t a = vandq_u8(vcombine_u8(b, vshr_n_u8(b, 2)), vdupq_n_u8(3)), c = vandq_u8(vcombine_u8(vshr_n_u8(b, 4), vshr_n_u8(b, 6)), vdupq_n_u8(3));
    v.half[0] = vorrq_u8(v.half[0], vshlq_u8(a, vdupq_n_s8((int8_t)low))), v.half[1] = vorrq_u8(v.half[1], vshlq_u8(c, vdupq_n_s8((int8_t)low)));
    p += 8, low += 2;
  }
  if (bits & 1) {
    static const int32_t first[4] = {0, -1, -2, -3}, second[4] = {-4, -5, -6, -7};
    uint32x4_t b = vdupq_n_u32(ei_load32(p));
    uint8x16_t a = vandq_u8(vreinterpretq_u8_u32(vshlq_u32(b, vld1q_s32(first))), vdupq_n_u8(1));
    uint8x16_t c = vandq_u8(vreinterpretq_u8_u32(vshlq_u32(b, vld1q_s32(second))), vdupq_n_u8(1));
    v.half[0] = vorrq_u8(v.half[0], vshlq_u8(a, vdupq_n_s8((int8_t)low))), v.half[1] = vorrq_u8(v.half[1], vshlq_u8(c, vdupq_n_s8((int8_t)low)));
  }
  return v;
}

typedef struct {
  uint8x16x4_t plane[4]; /* [byte of the value].val[table of 16] */
} byte_tables;

static void split_table(byte_tables *t, const float *table, int tables) {
  uint8_t bytes[4][4][16] = {{{0}}};
  for (int i = 0; i < tables; i++)
    for (int j = 0; j < 16; j++) {
      uint32_t u = float_bits(table[16 * i + j]);
      for (int b = 0; b < 4; b++) bytes[b][i][j] = (uint8_t)(u >> (8 * b));
    }
  for (int b = 0; b < 4; b++)
    for (int i = 0; i < 4; i++) t->plane[b].val[i] = vld1q_u8(bytes[b][i]);
}

INLINE uint8x16_t look_up(const byte_tables *t, int tables, int byte, uint8x16_t index) {
  if (tables == 1) return vqtbl1q_u8(t->plane[byte].val[0], index);
  if (tables == 2) return vqtbl2q_u8((uint8x16x2_t){{t->plane[byte].val[0], t->plane[byte].val[1]}}, index);
  return vqtbl4q_u8(t->plane[byte], index);
}

INLINE void store_values(const byte_tables *t, int tables, int bfloat, uint8x16_t symbols, float *out) {
  uint8x16_t b2 = look_up(t, tables, 2, symbols), b3 = look_up(t, tables, 3, symbols);
  if (bfloat) {
    uint16x8_t low = vreinterpretq_u16_u8(vzip1q_u8(b2, b3)), high = vreinterpretq_u16_u8(vzip2q_u8(b2, b3));
    vst1q_f32(out, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)));
    vst1q_f32(out + 4, vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(low), 16)));
    vst1q_f32(out + 8, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)));
    vst1q_f32(out + 12, vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(high), 16)));
  } else {
    uint8x16x4_t v = {{look_up(t, tables, 0, symbols), look_up(t, tables, 1, symbols), b2, b3}};
    vst4q_u8((uint8_t *)out, v);
  }
}

INLINE void unpack(const byte_tables *t, int tables, int bfloat, int bits, int with_signs, const uint8_t *tile, const uint8_t *signs, int64_t k, float *panel) {
  for (int64_t i = 0; i < k; i++, tile += 4 * bits, panel += 32) {
    pair v = symbols32(tile, bits);
    if (with_signs) {
      pair s = symbols32(signs, 1);
      v.half[0] = vorrq_u8(vshlq_n_u8(v.half[0], 1), s.half[0]), v.half[1] = vorrq_u8(vshlq_n_u8(v.half[1], 1), s.half[1]);
      signs += 4;
    }
    store_values(t, tables, bfloat, v.half[0], panel);
    store_values(t, tables, bfloat, v.half[1], panel + 16);
  }
}

int EI_FN(ei_unpack_panel)(const float *table, int bits, const uint8_t *tile, const uint8_t *signs, int64_t k, float *panel) {
  int width = bits + (signs != NULL);
  if (width > 6) return 0;
  int tables = width <= 4 ? 1 : width == 5 ? 2 : 4, bfloat = is_bfloat(table, 16 * tables);
  byte_tables t;
  split_table(&t, table, tables);
#define CASE(TABLES, BITS, SIGNS)                                                              \
  if (bfloat) unpack(&t, TABLES, 1, BITS, SIGNS, tile, signs, k, panel);                       \
  else unpack(&t, TABLES, 0, BITS, SIGNS, tile, signs, k, panel);                              \
  return 1;
  if (signs) {
    switch (bits) {
      case 1: CASE(1, 1, 1)
      case 2: CASE(1, 2, 1)
      case 3: CASE(1, 3, 1)
      case 4: CASE(2, 4, 1)
      case 5: CASE(4, 5, 1)
    }
  } else {
    switch (bits) {
      case 1: CASE(1, 1, 0)
      case 2: CASE(1, 2, 0)
      case 3: CASE(1, 3, 0)
      case 4: CASE(1, 4, 0)
      case 5: CASE(2, 5, 0)
      case 6: CASE(4, 6, 0)
    }
  }
  return 0;
}

int EI_FN(ei_unpack_symbols)(int bits, const uint8_t *tile, int64_t k, uint8_t *symbols) {
#define ROWS(BITS)                                                             \
  for (int64_t i = 0; i < k; i++, tile += 4 * BITS, symbols += 32) {           \
    pair v = symbols32(tile, BITS);                                            \
    vst1q_u8(symbols, v.half[0]), vst1q_u8(symbols + 16, v.half[1]);           \
  }                                                                            \
  return 1;
  switch (bits) {
    case 1: ROWS(1)
    case 2: ROWS(2)
    case 3: ROWS(3)
    case 4: ROWS(4)
    case 5: ROWS(5)
    case 6: ROWS(6)
    case 7: ROWS(7)
  }
  return 0;
}

void EI_FN(ei_map_symbols)(const float *table, int table_len, const uint8_t *symbols, int64_t k, int64_t padded, float *panel) {
  if (table_len > 64 || padded % 16) {
    float zero, step;
    if (table_len <= 64 || !is_grid(table, table_len, &zero, &step)) {
      map_plain(table, symbols, k, padded, panel);
      return;
    }
    int64_t ld = EI_PANEL_LD(padded);
    for (int64_t i = 0; i < k; i++, panel += ld, symbols += padded)
      for (int64_t r = 0; r < padded; r++) panel[r] = ((float)symbols[r] - zero) * step;
    return;
  }
  int tables = table_len <= 16 ? 1 : table_len <= 32 ? 2 : 4, bfloat = is_bfloat(table, table_len);
  byte_tables t;
  float whole[64] = {0};
  memcpy(whole, table, (size_t)table_len * 4);
  split_table(&t, whole, tables);
  /* 16 and 32 rows fill their panel rows, so both are one run of floats */
#define MAP(TABLES)                                                                                                    \
  for (int64_t i = 0; i < k * padded; i += 16)                                                                         \
    if (bfloat) store_values(&t, TABLES, 1, vld1q_u8(symbols + i), panel + i);                                         \
    else store_values(&t, TABLES, 0, vld1q_u8(symbols + i), panel + i);
  if (tables == 1) {
    MAP(1)
  } else if (tables == 2) {
    MAP(2)
  } else {
    MAP(4)
  }
}

#else

int EI_FN(ei_unpack_symbols)(int bits, const uint8_t *tile, int64_t k, uint8_t *symbols) {
  (void)bits, (void)tile, (void)k, (void)symbols;
  return 0;
}

int EI_FN(ei_unpack_panel)(const float *table, int bits, const uint8_t *tile, const uint8_t *signs, int64_t k, float *panel) {
  (void)table, (void)bits, (void)tile, (void)signs, (void)k, (void)panel;
  return 0;
}

void EI_FN(ei_map_symbols)(const float *table, int table_len, const uint8_t *symbols, int64_t k, int64_t padded, float *panel) {
  (void)table_len;
  map_plain(table, symbols, k, padded, panel);
}

#endif
