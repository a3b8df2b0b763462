/* elementwise.c - activations, arithmetic with broadcasting, and scale-and-shift per channel. */
#include "activation.h"

enum { GRAIN = 16384 /* elements that make a work unit */ };

#define ACTIVATE(N)                                                                              \
  case EI_ACT_##N: {                                                                             \
    int64_t j = 0;                                                                               \
    for (; j + EI_VEC <= n; j += EI_VEC) vstore(y + j, ei_act_##N(vload(x + j), va, vb));        \
    if (j < n) vstore_n(y + j, ei_act_##N(vload_n(x + j, n - j), va, vb), n - j);                \
    break;                                                                                       \
  }

void EI_FN(ei_activate)(int64_t activation, float a, float b, const float *x, float *y, int64_t n) {
  const vf va = vset(a), vb = vset(b);
  switch (activation) { EI_ACTIVATIONS(ACTIVATE) }
}

static int64_t grouped(int64_t rows, int64_t cols) { /* rows per unit */
  int64_t n = GRAIN / (cols > 0 ? cols : 1);
  return n < 1 ? 1 : n > rows ? rows > 0 ? rows : 1 : n;
}

/* ---- unary ---- */
typedef struct { int64_t rows, cols, x_ld, y_ld, per; } sheet;

static sheet unary_sheet(const ei_unary_ints *i) {
  sheet s = {i->rows, i->cols, i->x_ld, i->y_ld, 0};
  if (s.x_ld == s.cols && s.y_ld == s.cols) { /* dense: cut anywhere */
    s.cols *= s.rows, s.rows = 1;
    return s;
  }
  s.per = grouped(s.rows, s.cols);
  return s;
}
int64_t EI_FN(ei_unary_units)(const ei_step *step) {
  sheet s = unary_sheet((const ei_unary_ints *)step->i);
  return s.per ? (s.rows + s.per - 1) / s.per : (s.cols + GRAIN - 1) / GRAIN;
}
int EI_FN(ei_unary)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_unary_ints *i = (const ei_unary_ints *)step->i;
  const ei_unary_tensors *t = (const ei_unary_tensors *)step->t;
  const ei_unary_floats *f = (const ei_unary_floats *)step->f;
  const sheet s = unary_sheet(i);
  const float *x = t->x;
  float *y = t->y;
  if (i->activation < 0 || i->activation >= EI_ACT_COUNT) return EI_BAD_STEP;
  for (int64_t unit;;) {
    unit = ei_claim(share);
    if (!s.per) {
      int64_t from = unit * GRAIN, n = s.cols - from;
      if (n <= 0) return EI_OK;
      EI_FN(ei_activate)(i->activation, f->act_a, f->act_b, x + from, y + from, n < GRAIN ? n : GRAIN);
    } else {
      int64_t end = (unit + 1) * s.per < s.rows ? (unit + 1) * s.per : s.rows;
      if (unit * s.per >= s.rows) return EI_OK;
      for (int64_t r = unit * s.per; r < end; r++) EI_FN(ei_activate)(i->activation, f->act_a, f->act_b, x + r * s.x_ld, y + r * s.y_ld, s.cols);
    }
  }
}

/* ---- affine ---- */
int64_t EI_FN(ei_affine_units)(const ei_step *step) {
  const ei_affine_ints *i = (const ei_affine_ints *)step->i;
  int64_t per = grouped(i->rows, i->cols);
  return (i->rows + per - 1) / per;
}
int EI_FN(ei_affine)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_affine_ints *i = (const ei_affine_ints *)step->i;
  const ei_affine_tensors *t = (const ei_affine_tensors *)step->t;
  const ei_affine_floats *f = (const ei_affine_floats *)step->f;
  const float *scale = t->scale, *shift = t->shift;
  const ei_clamp clamp = ei_clamp_of(i->activation, f->act_a, f->act_b);
  const int64_t per = grouped(i->rows, i->cols), units = (i->rows + per - 1) / per;
  for (int64_t unit; (unit = ei_claim(share)) < units;) {
    int64_t end = (unit + 1) * per < i->rows ? (unit + 1) * per : i->rows;
    for (int64_t r = unit * per; r < end; r++) {
      const float *x = (const float *)t->x + r * i->x_ld;
      float *y = (float *)t->y + r * i->y_ld;
      for (int64_t c = 0; c < i->cols; c += EI_VEC) {
        const int64_t n = i->cols - c;
        vstore_n(y + c, ei_clamped(clamp, vadd(vmul(vload_n(x + c, n), vload_n(scale + c, n)), vload_n(shift + c, n))), n);
      }
      if (clamp.rest != EI_ACT_NONE) EI_FN(ei_activate)(clamp.rest, f->act_a, f->act_b, y, y, i->cols);
    }
  }
  return EI_OK;
}

/* ---- binary ---- */
EI_INLINE vi is_nan(vf a) { return (vi)((vbits(a) & 0x7fffffff) > 0x7f800000); }
EI_INLINE vf op_ADD(vf a, vf b) { return vadd(a, b); }
EI_INLINE vf op_SUB(vf a, vf b) { return vsub(a, b); }
EI_INLINE vf op_MUL(vf a, vf b) { return vmul(a, b); }
EI_INLINE vf op_DIV(vf a, vf b) { return vdiv(a, b); }
EI_INLINE vf op_MIN(vf a, vf b) { return vselect(is_nan(a), a, vmin(a, b)); }
EI_INLINE vf op_MAX(vf a, vf b) { return vselect(is_nan(a), a, vmax(a, b)); }
EI_INLINE vf op_POW(vf a, vf b) {
  float x[EI_VEC] __attribute__((aligned(4 * EI_VEC))), p[EI_VEC] __attribute__((aligned(4 * EI_VEC)));
  vstore(x, a), vstore(p, b);
  for (int j = 0; j < EI_VEC; j++) x[j] = p[j] == 2.0f ? x[j] * x[j] : powf(x[j], p[j]);
  return vload(x);
}

/* a vector of operands `stride` apart, n of them exist */
EI_INLINE vf fetch(const float *p, int64_t stride, int64_t n) {
  float t[EI_VEC] __attribute__((aligned(4 * EI_VEC))) = {0};
  for (int64_t j = 0; j < EI_VEC && j < n; j++) t[j] = p[j * stride];
  return vload(t);
}

#define ROW(N)                                                                                                                      \
  case EI_OP_##N: {                                                                                                                 \
    int64_t j = 0;                                                                                                                  \
    if (sa == 1 && sb == 1) {                                                                                                       \
      for (; j + EI_VEC <= n; j += EI_VEC) vstore(y + j, op_##N(vload(a + j), vload(b + j)));                                       \
    } else if (sa == 1 && sb == 0) {                                                                                                \
      const vf vb = vset(*b);                                                                                                       \
      for (; j + EI_VEC <= n; j += EI_VEC) vstore(y + j, op_##N(vload(a + j), vb));                                                 \
    } else if (sa == 0 && sb == 1) {                                                                                                \
      const vf va = vset(*a);                                                                                                       \
      for (; j + EI_VEC <= n; j += EI_VEC) vstore(y + j, op_##N(va, vload(b + j)));                                                 \
    }                                                                                                                               \
    for (; j < n; j += EI_VEC) vstore_n(y + j, op_##N(fetch(a + j * sa, sa, n - j), fetch(b + j * sb, sb, n - j)), n - j);          \
    break;                                                                                                                          \
  }
static void binary_row(int64_t operation, const float *a, int64_t sa, const float *b, int64_t sb, float *y, int64_t n) {
  switch (operation) { EI_OPERATIONS(ROW) }
}

typedef struct {
  int rank;
  int64_t d[EI_RANK], sa[EI_RANK], sb[EI_RANK]; /* outer first; the last one is the inner loop */
  int64_t rows, n, pieces, per;                 /* rows of n; a unit is `per` rows, or one of `pieces` pieces of one row */
} grid;

static grid binary_grid(const ei_binary_ints *i) {
  const int64_t *d = &i->d0, *sa = &i->sa0, *sb = &i->sb0;
  grid g = {.rank = 0, .rows = 1};
  for (int j = 0; j < EI_RANK; j++) {
    if (d[j] == 1 && (g.rank || j < EI_RANK - 1)) continue;
    int last = g.rank - 1;
    if (g.rank && g.sa[last] == d[j] * sa[j] && g.sb[last] == d[j] * sb[j]) { /* the outer dimension only continues this one */
      g.d[last] *= d[j], g.sa[last] = sa[j], g.sb[last] = sb[j];
      continue;
    }
    g.d[g.rank] = d[j], g.sa[g.rank] = sa[j], g.sb[g.rank] = sb[j];
    g.rank++;
  }
  g.n = g.d[g.rank - 1];
  for (int j = 0; j < g.rank - 1; j++) g.rows *= g.d[j];
  g.pieces = g.n > GRAIN ? (g.n + GRAIN - 1) / GRAIN : 1;
  g.per = grouped(g.rows, g.n);
  return g;
}
int64_t EI_FN(ei_binary_units)(const ei_step *step) {
  grid g = binary_grid((const ei_binary_ints *)step->i);
  return (g.rows + g.per - 1) / g.per * g.pieces;
}
int EI_FN(ei_binary)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_binary_ints *i = (const ei_binary_ints *)step->i;
  const ei_binary_tensors *t = (const ei_binary_tensors *)step->t;
  const ei_binary_floats *f = (const ei_binary_floats *)step->f;
  const grid g = binary_grid(i);
  const int64_t units = (g.rows + g.per - 1) / g.per * g.pieces;
  if (i->operation < 0 || i->operation >= EI_OP_COUNT || i->activation < 0 || i->activation >= EI_ACT_COUNT) return EI_BAD_STEP;
  for (int64_t unit; (unit = ei_claim(share)) < units;) {
    const int64_t group = unit / g.pieces, piece = unit % g.pieces;
    const int64_t from = g.n * piece / g.pieces, n = g.n * (piece + 1) / g.pieces - from;
    const int64_t end = (group + 1) * g.per < g.rows ? (group + 1) * g.per : g.rows;
    for (int64_t row = group * g.per; row < end; row++) {
      int64_t left = row, a = from * g.sa[g.rank - 1], b = from * g.sb[g.rank - 1];
      for (int j = g.rank - 2; j >= 0; j--) {
        a += left % g.d[j] * g.sa[j], b += left % g.d[j] * g.sb[j];
        left /= g.d[j];
      }
      float *y = (float *)t->y + row * g.n + from;
      binary_row(i->operation, (const float *)t->a + a, g.sa[g.rank - 1], (const float *)t->b + b, g.sb[g.rank - 1], y, n);
      if (i->activation != EI_ACT_NONE) EI_FN(ei_activate)(i->activation, f->act_a, f->act_b, y, y, n);
    }
  }
  return EI_OK;
}
