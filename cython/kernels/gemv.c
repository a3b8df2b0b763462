/* gemv.c - products of few rows of x by coded weights, straight from the code.
 *
 * A product of one to four rows reads every weight for one to four multiplications only, so storing decoded weights and loading them again costs
 * more than the arithmetic.  Here symbols of one k (32 rows) become values in registers and are multiplied at once.  Packed symbols are unpacked on
 * the way; entropy-coded ones are first decoded to bytes, a tile at a time.  Values are looked up as in decode_panel.c: tables of up to
 * 64 bfloat16 numbers, two byte shuffles per 16 of them.  Rows leave the shuffles in the instruction set's own order; sums are put in order once per segment.
 *
 * The order of additions is that of weights.h: segments are summed from zero, several of them side by side where there is one row of x.
 */
#include "gemv.h"

#include "decode.h"
#include "vec.h"

#if (defined(__AVX512F__) && EI_VEC == 16) || (defined(__AVX2__) && EI_VEC == 8) || (defined(EI_NEON) && defined(__aarch64__))
#define FUSED 1
#endif

/* Gaps whose left-out symbol is worth zero: entries alone are multiplied (Han et al. 2016, EIE, section 3), one row of x.  Zeros that are not added
 * change no bit of a sum of finite numbers, so x must be finite.  An entry takes longer here (its sum is in memory, and often the one that was
 * just stored) than on its way through bytes, which cost something for every weight: only tiles of few entries gain.  Zero activations are not
 * looked for: an input has two entries in such a tile, and a branch on its value cannot be predicted. */
static int sparse(const ei_plane *plane, ei_place tile, const float *table, const float *x, int64_t k, float *total, int start) {
  if (tile.n < EI_GAPS_HEADER) return EI_BAD_STREAM;
  const uint64_t n = ei_load32(tile.bytes), width = (uint64_t)(plane->extra + plane->bits), end = (uint64_t)k * EI_ROW_BLOCK;
  if (n > end || (n * width + 7) / 8 != tile.n - EI_GAPS_HEADER) return EI_BAD_STREAM;
  const uint8_t *p = tile.bytes + EI_GAPS_HEADER;
  const uint64_t gap_mask = (1ull << plane->extra) - 1, symbol_mask = (1ull << plane->bits) - 1;
  const uint64_t segment = (uint64_t)ei_segment(k) * EI_ROW_BLOCK;
  uint64_t i = 0, bit = 0, at = 0;
  for (uint64_t first = 0; first < end; first += segment) {
    const uint64_t limit = first + segment < end ? first + segment : end;
    float sum[EI_ROW_BLOCK] = {0};
    for (; i < n; i++, bit += width) {
      const uint64_t e = ei_load64(p + (bit >> 3)) >> (bit & 7), to = at + (e & gap_mask);
      if (to >= limit) break;
      float *s = sum + to % EI_ROW_BLOCK;
      *s = sfma(table[e >> plane->extra & symbol_mask], x[to / EI_ROW_BLOCK], *s);
      at = to + 1;
    }
    for (int r = 0; r < EI_ROW_BLOCK; r++) total[r] = start ? sum[r] : total[r] + sum[r];
    start = 0;
  }
  return i == n ? EI_OK : EI_BAD_STREAM;
}

/* few enough entries: measured on Zen 3, 7.6 cycles for an entry here, 4 through bytes and 0.2 for every weight */
static int few_entries(ei_place tile, int64_t k) {
  return tile.n >= EI_GAPS_HEADER && (uint64_t)ei_load32(tile.bytes) * 16 <= (uint64_t)k * EI_ROW_BLOCK;
}

static int all_finite(const float *x, int64_t n) {
  uint32_t infinite = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t u;
    memcpy(&u, x + i, 4);
    infinite |= (u & 0x7f800000) == 0x7f800000;
  }
  return !infinite;
}

static int is_sparse(const ei_weights *w) {
  const ei_plane *p = w->plane;
  return w->n_planes == 1 && p->coder == EI_GAPS && w->table[p->lanes] == 0.0f;
}

#if defined(FUSED)
#define NV (EI_ROW_BLOCK / EI_VEC) /* vectors of values per k */

/* A symbol's bits, from the lowest: its nibble looks a value up in a table of 16, up to two more bits choose among tables.
 *   field4, field2, field1: fields of the packed plane; bytes: a byte per symbol instead, of `bytes` bits; sign: bits of the sign plane come on top
 * All members are constants wherever a form is used. */
typedef struct {
  int field4, field2, field1, bytes, sign;
} form;

EI_INLINE int form_width(form f) { return 4 * f.field4 + 2 * f.field2 + f.field1 + f.bytes + f.sign; }
EI_INLINE int form_tables(form f) { return form_width(f) <= 4 ? 1 : form_width(f) == 5 ? 2 : 4; }
EI_INLINE int64_t form_stride(form f) { return f.bytes ? 32 : 16 * f.field4 + 8 * f.field2 + 4 * f.field1; }

#if EI_VEC == 8
typedef struct {
  __m256i table[4][2];
} tables;

EI_INLINE tables load_tables(const ei_gemv *g, form f) {
  tables t;
  for (int i = 0; i < form_tables(f); i++)
    for (int b = 0; b < 2; b++) t.table[i][b] = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)g->bytes[b][i]));
  return t;
}

/* bytes that are all ones where the row's bit of a 1-bit field is set: byte j of the field has row j + 4 i at bit i */
EI_INLINE __m256i bit_rows(const uint8_t *p) {
  const __m256i bits = _mm256_setr_epi32(0x01010101, 0x02020202, 0x04040404, 0x08080808, 0x10101010, 0x20202020, 0x40404040, (int)0x80808080);
  return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_set1_epi32((int)ei_load32(p)), bits), bits);
}
/* the same for one bit (0 or 1) of a 2-bit field: byte j has row j + 8 i at bits 2 i */
EI_INLINE __m256i pair_rows(const uint8_t *p, int bit) {
  const __m256i low = _mm256_setr_epi32(0x01010101, 0x01010101, 0x04040404, 0x04040404, 0x10101010, 0x10101010, 0x40404040, 0x40404040);
  const __m256i bits = bit ? _mm256_add_epi8(low, low) : low;
  return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_set1_epi64x((int64_t)ei_load64(p)), bits), bits);
}

EI_INLINE __m256i one_of(const tables *t, int count, int byte, __m256i nibble, __m256i first, __m256i second) {
  __m256i v = _mm256_shuffle_epi8(t->table[0][byte], nibble);
  if (count > 1) v = _mm256_blendv_epi8(v, _mm256_shuffle_epi8(t->table[1][byte], nibble), first);
  if (count > 2) {
    __m256i u = _mm256_shuffle_epi8(t->table[2][byte], nibble);
    u = _mm256_blendv_epi8(u, _mm256_shuffle_epi8(t->table[3][byte], nibble), first);
    v = _mm256_blendv_epi8(v, u, second);
  }
  return v;
}

/* values of one k: vectors 0 and 1 have the even and odd ones of rows 0-7 and 16-23, vectors 2 and 3 those of rows 8-15 and 24-31 */
EI_INLINE void fetch(const tables *t, form f, const uint8_t *p, const uint8_t *signs, int part, vf *out) {
  const int count = form_tables(f);
  __m256i nibble, chosen[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  int at = 0, more = 0; /* bits of the nibble so far, bits that choose a table so far */
  if (f.bytes) {
    nibble = _mm256_loadu_si256((const __m256i *)p), at = f.bytes;
    for (int bit = 4; bit < f.bytes; bit++) chosen[more++] = _mm256_slli_epi16(nibble, 7 - bit); /* only bit 7 of a byte counts */
  } else if (f.field4) {
    __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
    nibble = _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)), _mm256_set1_epi8(15));
    p += 16, at = 4;
  } else {
    nibble = _mm256_setzero_si256();
  }
  if (f.field2) {
    if (at < 4) {
      __m256i v = _mm256_set1_epi64x((int64_t)ei_load64(p));
      nibble = _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_setr_epi32(0, 0, 2, 2, 4, 4, 6, 6)), _mm256_set1_epi8(3)), at = 2;
    } else {
      chosen[0] = pair_rows(p, 0), chosen[1] = pair_rows(p, 1), more = 2;
    }
    p += 8;
  }
  EI_UNROLL for (int plane = 0; plane < 2; plane++) {
    if (!(plane ? f.sign : f.field1)) continue;
    __m256i rows = bit_rows(plane ? signs : p);
    if (at < 4) nibble = _mm256_or_si256(nibble, _mm256_and_si256(rows, _mm256_set1_epi8((char)(1 << at)))), at++;
    else chosen[more++] = rows;
  }
  const __m256i b2 = one_of(t, count, 0, nibble, chosen[0], chosen[1]), b3 = one_of(t, count, 1, nibble, chosen[0], chosen[1]);
  const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
  if (part != 1) {
    const __m256i v = _mm256_unpacklo_epi8(b2, b3);
    out[0] = (vf)_mm256_slli_epi32(v, 16), out[1] = (vf)_mm256_and_si256(v, upper);
  }
  if (part != 0) {
    const __m256i v = _mm256_unpackhi_epi8(b2, b3);
    out[2] = (vf)_mm256_slli_epi32(v, 16), out[3] = (vf)_mm256_and_si256(v, upper);
  }
}

/* sums in the order of fetch to vectors of consecutive rows, which begin at first_row() */
EI_INLINE void in_order(vf *s, int first, int count) {
  EI_UNROLL for (int v = first; v < first + count; v += 2) {
    const vf a = _mm256_unpacklo_ps(s[v], s[v + 1]), b = _mm256_unpackhi_ps(s[v], s[v + 1]);
    s[v] = _mm256_permute2f128_ps(a, b, 0x20), s[v + 1] = _mm256_permute2f128_ps(a, b, 0x31);
  }
}
EI_INLINE int first_row(int v) { return v / 2 * 8 + v % 2 * 16; }

#elif EI_VEC == 16
typedef struct {
  __m512 table[4];
} tables;

EI_INLINE tables load_tables(const ei_gemv *g, form f) {
  tables t;
  for (int i = 0; i < form_tables(f); i++) t.table[i] = _mm512_load_ps(g->values[i]);
  return t;
}

#define EACH16(BIT) _mm512_setr_epi32(BIT(0), BIT(1), BIT(2), BIT(3), BIT(4), BIT(5), BIT(6), BIT(7), BIT(8), BIT(9), BIT(10), BIT(11), BIT(12), BIT(13), BIT(14), BIT(15))
/* rows half * 16 .. whose bit of a 1-bit field is set: byte j of the field has row j + 4 i at bit i */
EI_INLINE __mmask16 bit_rows(const uint8_t *p, int half) {
#define LOW(r) (int)(1u << (8 * ((r) % 4) + (r) / 4))
#define HIGH(r) (int)(16u << (8 * ((r) % 4) + (r) / 4))
  const __m512i v = _mm512_set1_epi32((int)ei_load32(p));
  return half ? _mm512_test_epi32_mask(v, EACH16(HIGH)) : _mm512_test_epi32_mask(v, EACH16(LOW));
}

EI_INLINE __m512 one_of(const tables *t, int count, __m512i index, __mmask16 first, __mmask16 second) {
  __m512 v = _mm512_permutexvar_ps(index, t->table[0]); /* uses the low four bits of the index only */
  if (count > 1) v = _mm512_mask_permutexvar_ps(v, first, index, t->table[1]);
  if (count > 2) {
    __m512 u = _mm512_permutexvar_ps(index, t->table[2]);
    u = _mm512_mask_permutexvar_ps(u, first, index, t->table[3]);
    v = _mm512_mask_blend_ps(second, v, u);
  }
  return v;
}

EI_INLINE void fetch(const tables *t, form f, const uint8_t *p, const uint8_t *signs, int part, vf *out) {
  const int count = form_tables(f);
  (void)part;
  EI_UNROLL for (int half = 0; half < 2; half++) {
    const uint8_t *q = p;
    __m512i index = _mm512_setzero_si512();
    __mmask16 chosen[2] = {0, 0};
    int at = 0, more = 0;
    if (f.bytes) {
      index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(q + 16 * half))), at = f.bytes;
      for (int bit = 4; bit < f.bytes; bit++) chosen[more++] = _mm512_test_epi32_mask(index, _mm512_set1_epi32(1 << bit));
    } else if (f.field4) {
      index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)q));
      if (half) index = _mm512_srli_epi32(index, 4);
      q += 16, at = 4;
    }
    if (f.field2) {
#define TURN(r) ((r) / 8 * 2)
      __m512i v = _mm512_cvtepu8_epi32(_mm_set1_epi64x((int64_t)ei_load64(q)));
      v = _mm512_srlv_epi32(half ? _mm512_srli_epi32(v, 4) : v, EACH16(TURN));
      if (at < 4) {
        index = _mm512_and_si512(v, _mm512_set1_epi32(3)), at = 2;
      } else {
        chosen[0] = _mm512_test_epi32_mask(v, _mm512_set1_epi32(1)), chosen[1] = _mm512_test_epi32_mask(v, _mm512_set1_epi32(2)), more = 2;
      }
      q += 8;
    }
    EI_UNROLL for (int plane = 0; plane < 2; plane++) {
      if (!(plane ? f.sign : f.field1)) continue;
      const __mmask16 rows = bit_rows(plane ? signs : q, half);
      if (at < 4) index = _mm512_mask_or_epi32(index, rows, index, _mm512_set1_epi32(1 << at)), at++;
      else chosen[more++] = rows;
    }
    out[half] = one_of(t, count, index, chosen[0], chosen[1]);
  }
}

EI_INLINE void in_order(vf *s, int first, int count) { (void)s, (void)first, (void)count; }
EI_INLINE int first_row(int v) { return v * EI_VEC; }

#else
typedef struct {
  uint8x16x4_t table[2]; /* tables of 16, one after the other, of each byte */
} tables;

EI_INLINE tables load_tables(const ei_gemv *g, form f) {
  tables t;
  (void)f;
  for (int b = 0; b < 2; b++)
    for (int i = 0; i < 4; i++) t.table[b].val[i] = vld1q_u8(g->bytes[b][i]);
  return t;
}

/* rows half * 16 .. : all ones where the bit of a 1-bit field is set: byte j of the field has row j + 4 i at bit i */
EI_INLINE uint8x16_t bit_rows(const uint8_t *p, int half) {
  const uint32x4_t low = {0x01010101, 0x02020202, 0x04040404, 0x08080808}, high = {0x10101010, 0x20202020, 0x40404040, 0x80808080};
  return vtstq_u8(vreinterpretq_u8_u32(vdupq_n_u32(ei_load32(p))), vreinterpretq_u8_u32(half ? high : low));
}

EI_INLINE uint8x16_t one_of(const tables *t, int width, int byte, uint8x16_t index) {
  const uint8x16_t *v = t->table[byte].val;
  if (width <= 4) return vqtbl1q_u8(v[0], index);
  if (width == 5) return vqtbl2q_u8((uint8x16x2_t){{v[0], v[1]}}, index);
  return vqtbl4q_u8(t->table[byte], index);
}

EI_INLINE void fetch(const tables *t, form f, const uint8_t *p, const uint8_t *signs, int part, vf *out) {
  const int width = form_width(f);
  EI_UNROLL for (int half = 0; half < 2; half++) {
    if (part >= 0 && part != half) continue;
    const uint8_t *q = p;
    uint8x16_t index = vdupq_n_u8(0);
    int at = 0;
    if (f.bytes) {
      index = vld1q_u8(q + 16 * half), at = f.bytes;
    } else if (f.field4) {
      index = vld1q_u8(q);
      index = half ? vshrq_n_u8(index, 4) : vandq_u8(index, vdupq_n_u8(15));
      q += 16, at = 4;
    }
    if (f.field2) {
      const int8x16_t low = {0, 0, 0, 0, 0, 0, 0, 0, -2, -2, -2, -2, -2, -2, -2, -2}, high = vsubq_s8(low, vdupq_n_s8(4));
      uint8x16_t v = vandq_u8(vshlq_u8(vreinterpretq_u8_u64(vdupq_n_u64(ei_load64(q))), half ? high : low), vdupq_n_u8(3));
      index = at ? vorrq_u8(index, vshlq_n_u8(v, 4)) : v, at += 2;
      q += 8;
    }
    EI_UNROLL for (int plane = 0; plane < 2; plane++) {
      if (!(plane ? f.sign : f.field1)) continue;
      index = vorrq_u8(index, vandq_u8(bit_rows(plane ? signs : q, half), vdupq_n_u8((uint8_t)(1 << at)))), at++;
    }
    const uint8x16_t b2 = one_of(t, width, 0, index), b3 = one_of(t, width, 1, index);
    const uint16x8_t low = vreinterpretq_u16_u8(vzip1q_u8(b2, b3)), high = vreinterpretq_u16_u8(vzip2q_u8(b2, b3));
    vf *o = out + 4 * half;
    o[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)), o[1] = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(low), 16));
    o[2] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)), o[3] = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(high), 16));
  }
}

EI_INLINE void in_order(vf *s, int first, int count) { (void)s, (void)first, (void)count; }
EI_INLINE int first_row(int v) { return v * EI_VEC; }
#endif

/* Registers hold the sums of one or two rows of x; for more, a segment is gone through twice, each time for half of the output rows:
 * unpacking symbols a second time costs less than sums that live in memory. */
#if EI_VEC == 16
#define PARTS(M) 1
#define CHAINS(M) ((M) == 1 ? 4 : 1)
#else
#define PARTS(M) ((M) > 2 ? 2 : 1)
#define CHAINS(M) 1
#endif

/* m rows of x, `chains` segments side by side, each in `parts` passes */
EI_INLINE void multiply(form f, const int m, const int chains, const int parts, const ei_gemv *g, const uint8_t *symbols, const uint8_t *signs,
                        const float *x, int64_t x_ld, int64_t k, float *total, int start) {
  const tables t = load_tables(g, f);
  const int64_t segment = ei_segment(k), stride = form_stride(f);
  for (int64_t from = 0; from < k; from += chains * segment) {
    int64_t n[EI_SEGMENTS];
    for (int c = 0; c < chains; c++) {
      const int64_t left = k - from - c * segment;
      n[c] = left < 0 ? 0 : left < segment ? left : segment;
    }
    const int64_t common = n[chains - 1]; /* segments never grow */
    const uint8_t *p = symbols + from * stride, *s = f.sign ? signs + from * 4 : NULL;
    const float *at = x + from;
    EI_UNROLL for (int part = 0; part < parts; part++) {
      const int count = NV / parts, first = part * count;
      vf sum[EI_SEGMENTS][EI_GEMV_MOST][NV];
      EI_UNROLL for (int c = 0; c < chains; c++)
        EI_UNROLL for (int i = 0; i < m; i++)
          EI_UNROLL for (int v = first; v < first + count; v++) sum[c][i][v] = vzero();
#define STEP(c, j)                                                                                                                    \
  {                                                                                                                                   \
    vf value[NV];                                                                                                                     \
    fetch(&t, f, p + ((c) * segment + (j)) * stride, f.sign ? s + ((c) * segment + (j)) * 4 : NULL, parts == 1 ? -1 : part, value);    \
    EI_UNROLL for (int i = 0; i < m; i++) {                                                                                           \
      const vf b = vset(at[i * x_ld + (c) * segment + (j)]);                                                                          \
      EI_UNROLL for (int v = first; v < first + count; v++) sum[c][i][v] = vfma(value[v], b, sum[c][i][v]);                           \
    }                                                                                                                                 \
  }
      for (int64_t j = 0; j < common; j++) EI_UNROLL for (int c = 0; c < chains; c++) STEP(c, j)
      EI_UNROLL for (int c = 0; c < chains; c++) {
        for (int64_t j = common; j < n[c]; j++) STEP(c, j)
      }
      EI_UNROLL for (int c = 0; c < chains; c++) {
        if (!n[c]) continue;
        EI_UNROLL for (int i = 0; i < m; i++) {
          in_order(sum[c][i], first, count);
          EI_UNROLL for (int v = first; v < first + count; v++) {
            float *to = total + i * EI_ROW_BLOCK + first_row(v);
            vstore(to, start && c == 0 ? sum[c][i][v] : vadd(vload(to), sum[c][i][v]));
          }
        }
      }
    }
    start = 0;
  }
}

#define LOOP(NAME, M, ...)                                                                                                                \
  static void NAME##_##M(const ei_gemv *g, const uint8_t *symbols, const uint8_t *signs, const float *x, int64_t x_ld, int64_t k,         \
                         float *total, int start) {                                                                                       \
    multiply((form)__VA_ARGS__, M, CHAINS(M), PARTS(M), g, symbols, signs, x, x_ld, k, total, start);                                     \
  }
#define LOOPS(NAME, ...) LOOP(NAME, 1, __VA_ARGS__) LOOP(NAME, 2, __VA_ARGS__) LOOP(NAME, 3, __VA_ARGS__) LOOP(NAME, 4, __VA_ARGS__)

/* field4, field2, field1, bytes, sign */
#define FORMS(F)                                                                                                        \
  F(packed1, {0, 0, 1, 0, 0}) F(packed2, {0, 1, 0, 0, 0}) F(packed3, {0, 1, 1, 0, 0}) F(packed4, {1, 0, 0, 0, 0})      \
  F(packed5, {1, 0, 1, 0, 0}) F(packed6, {1, 1, 0, 0, 0})                                                              \
  F(signs1, {0, 0, 1, 0, 1}) F(signs2, {0, 1, 0, 0, 1}) F(signs3, {0, 1, 1, 0, 1}) F(signs4, {1, 0, 0, 0, 1})          \
  F(signs5, {1, 0, 1, 0, 1})                                                                                           \
  F(bytes4, {0, 0, 0, 4, 0}) F(bytes5, {0, 0, 0, 5, 0}) F(bytes6, {0, 0, 0, 6, 0})                                     \
  F(bytes3_signs, {0, 0, 0, 3, 1}) F(bytes4_signs, {0, 0, 0, 4, 1}) F(bytes5_signs, {0, 0, 0, 5, 1})
FORMS(LOOPS)

#define ENTRY(NAME, ...) static ei_gemv_fn *const NAME[EI_GEMV_MOST] = {NAME##_1, NAME##_2, NAME##_3, NAME##_4};
FORMS(ENTRY)

/* tables and loops of the fused forms; 0 where there is none */
static int prepare_fused(ei_gemv *g, const ei_weights *w) {
  static ei_gemv_fn *const *const packed[] = {NULL, packed1, packed2, packed3, packed4, packed5, packed6};
  static ei_gemv_fn *const *const with_signs[] = {NULL, signs1, signs2, signs3, signs4, signs5};
  static ei_gemv_fn *const *const decoded[] = {NULL, bytes4, bytes4, bytes4, bytes4, bytes5, bytes6};
  static ei_gemv_fn *const *const decoded_signs[] = {NULL, bytes3_signs, bytes3_signs, bytes3_signs, bytes4_signs, bytes5_signs};
  const int base = w->n_planes == 2 && w->base_only, signs = w->n_planes == 2 && !base;
  const ei_plane *p = w->plane + signs;
  const float *table = base ? w->base_table : w->table;
  if (w->table_len == 0 || p->bits > 6 - signs) return 0;
  g->decodes = p->coder != EI_PACKED;
  ei_gemv_fn *const *loops = (g->decodes ? signs ? decoded_signs : decoded : signs ? with_signs : packed)[p->bits];
  memcpy(g->multiply, loops, sizeof g->multiply);
  /* the sign is the lowest bit of a symbol, and the highest one of the index here; decoded symbols of fewer bits leave room below it */
  const int bits = g->decodes && p->bits < 4 - signs ? 4 - signs : p->bits;
  memset(g->bytes, 0, sizeof g->bytes);
  memset(g->values, 0, sizeof g->values);
  for (int symbol = 0; symbol < (base ? 2 : w->table_len); symbol++) {
    const int index = signs ? symbol >> 1 | (symbol & 1) << bits : symbol;
    uint32_t u;
    memcpy(&u, table + symbol, 4);
    if (u & 0xffff) return 0;
    g->bytes[0][index / 16][index % 16] = (uint8_t)(u >> 16);
    g->bytes[1][index / 16][index % 16] = (uint8_t)(u >> 24);
    g->values[index / 16][index % 16] = table[symbol];
  }
  return 1;
}

static int run_fused(const ei_gemv *g, int64_t block, int64_t chunk, const float *x, int64_t x_ld, int m, void *scratch, float *total,
                     int start) {
  const ei_weights *w = g->w;
  const int64_t k = ei_chunk_k(w, chunk);
  const int signs = w->n_planes == 2 && !w->base_only;
  const ei_plane *p = w->plane + signs;
  ei_place at = EI_FN(ei_tile_place)(w, p, block, chunk, EI_ROW_BLOCK), sign = {NULL, 0};
  if (signs) sign = EI_FN(ei_tile_place)(w, w->plane, block, chunk, EI_ROW_BLOCK);
  const uint8_t *symbols = at.bytes;
  if (g->decodes) {
    int status = EI_FN(ei_decode_symbols)(p, at, k, EI_ROW_BLOCK, signs ? w->table_len / 2 : w->table_len, scratch);
    if (status) return status;
    symbols = scratch;
  }
  g->multiply[m - 1](g, symbols, sign.bytes, x, x_ld, k, total, start);
  return EI_OK;
}

#else
static int prepare_fused(ei_gemv *g, const ei_weights *w) {
  (void)g, (void)w;
  return 0;
}
static int run_fused(const ei_gemv *g, int64_t block, int64_t chunk, const float *x, int64_t x_ld, int m, void *scratch, float *total,
                     int start) {
  (void)g, (void)block, (void)chunk, (void)x, (void)x_ld, (void)m, (void)scratch, (void)total, (void)start;
  return 1;
}
#endif

int EI_FN(ei_gemv_prepare)(ei_gemv *g, const ei_weights *w) {
  g->w = w;
  g->sparse = is_sparse(w);
  g->fused = prepare_fused(g, w);
  return g->sparse || g->fused;
}

int EI_FN(ei_gemv_tile)(const ei_gemv *g, int64_t block, int64_t chunk, const float *x, int64_t x_ld, int m, void *scratch, float *total,
                        int start) {
  const ei_weights *w = g->w;
  if (ei_block_rows(w, block) != EI_ROW_BLOCK) return 1;
  const int64_t k = ei_chunk_k(w, chunk);
  if (g->sparse && m == 1) {
    const ei_place tile = EI_FN(ei_tile_place)(w, w->plane, block, chunk, EI_ROW_BLOCK);
    if (few_entries(tile, k) && all_finite(x, k)) return sparse(w->plane, tile, w->table, x, k, total, start);
  }
  return g->fused ? run_fused(g, block, chunk, x, x_ld, m, scratch, total, start) : 1;
}
