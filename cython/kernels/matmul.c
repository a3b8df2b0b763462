/* matmul.c - products of two activations, matrix by matrix.
 *
 * Work unit: 32 columns of one product times a range of its rows.  The columns of b are copied to a panel, chunk by chunk; from there on it is
 * the same inner product as a convolution's, in the same order of additions (chunks of CHUNK).
 */
#include "micro.h"
#include "scratch.h"

enum { CHUNK = 256, RANGE = 240, WORTH_A_THREAD = 60000 };

typedef struct { int64_t blocks, ranges, units; } form;

static form form_of(const ei_matmul_ints *i) {
  form f = {(i->n + EI_ROW_BLOCK - 1) / EI_ROW_BLOCK, (i->m + RANGE - 1) / RANGE, 0};
  f.units = i->b0 * i->b1 * f.blocks * f.ranges;
  return f;
}
int64_t EI_FN(ei_matmul_units)(const ei_step *step) {
  const ei_matmul_ints *i = (const ei_matmul_ints *)step->i;
  if ((double)i->b0 * (double)i->b1 * (double)i->m * (double)i->n * (double)i->k < WORTH_A_THREAD) return 1;
  return form_of(i).units;
}

typedef struct { float *panel, *total; } space;
static size_t lay_out(const ei_matmul_ints *i, space *s, void *memory) {
  ei_scratch at = {memory, 0};
  s->panel = ei_take(&at, (size_t)(i->k < CHUNK ? i->k : CHUNK) * EI_ROW_BLOCK * 4);
  s->total = ei_take(&at, (size_t)((i->m < RANGE ? i->m : RANGE) + 1) * EI_ROW_BLOCK * 4);
  return at.used;
}
size_t EI_FN(ei_matmul_scratch)(const ei_step *step) {
  space s;
  return lay_out((const ei_matmul_ints *)step->i, &s, NULL);
}

static void fill_panel(const float *b, int64_t b_k, int64_t b_n, int64_t k, int64_t n, int ld, float *panel) {
  if (b_n == 1) {
    for (int64_t j = 0; j < k; j++, b += b_k, panel += ld) {
      int64_t c = 0;
      for (; c < n; c++) panel[c] = b[c];
      for (; c < ld; c++) panel[c] = 0.0f;
    }
    return;
  }
  for (int64_t c = 0; c < ld; c++)
    for (int64_t j = 0; j < k; j++) panel[j * ld + c] = c < n ? b[j * b_k + c * b_n] : 0.0f;
}

int EI_FN(ei_matmul)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_matmul_ints *i = (const ei_matmul_ints *)step->i;
  const ei_matmul_tensors *t = (const ei_matmul_tensors *)step->t;
  const vf alpha = vset(((const ei_matmul_floats *)step->f)->alpha);
  const form f = form_of(i);
  space s;
  lay_out(i, &s, scratch);
  for (int64_t unit; (unit = ei_claim(share)) < f.units;) {
    const int64_t range = unit % f.ranges, block = unit / f.ranges % f.blocks, product = unit / f.ranges / f.blocks;
    const int64_t p0 = product / i->b1, p1 = product % i->b1, column = block * EI_ROW_BLOCK;
    const int64_t m0 = i->m * range / f.ranges, rows = i->m * (range + 1) / f.ranges - m0;
    const int64_t n = i->n - column < EI_ROW_BLOCK ? i->n - column : EI_ROW_BLOCK;
    const int ld = EI_PANEL_LD(n);
    const float *a = (const float *)t->a + p0 * i->a_b0 + p1 * i->a_b1 + m0 * i->a_m;
    const float *b = (const float *)t->b + p0 * i->b_b0 + p1 * i->b_b1 + column * i->b_n;
    float *y = (float *)t->y + p0 * i->y_b0 + p1 * i->y_b1 + m0 * i->y_m + column;
    const int64_t tiles = (rows + EI_MR - 1) / EI_MR;
    for (int64_t k0 = 0; k0 < i->k; k0 += CHUNK) {
      const int64_t k = i->k - k0 < CHUNK ? i->k - k0 : CHUNK;
      ei_runs runs;
      int32_t len[EI_SEGMENTS];
      const float *ptr[EI_SEGMENTS * EI_MR];
      ei_plain_runs(&runs, len, k);
      fill_panel(b + k0 * i->b_k, i->b_k, i->b_n, k, n, ld, s.panel);
      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t r0 = rows * tile / tiles;
        const int count = (int)(rows * (tile + 1) / tiles - r0);
        int64_t at = k0;
        for (int r = 0; r < runs.first[EI_SEGMENTS]; at += len[r++])
          for (int j = 0; j < count; j++) ptr[r * EI_MR + j] = a + (r0 + j) * i->a_m + at;
        EI_FN(ei_tile)(&runs, ptr, count, s.panel, ld, (int)n, s.total + r0 * EI_ROW_BLOCK, k0 == 0);
      }
    }
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < n; c += EI_VEC)
        vstore_n(y + r * i->y_m + c, vmul(i->k ? vload(s.total + r * EI_ROW_BLOCK + c) : vzero(), alpha), n - c);
  }
  return EI_OK;
}
