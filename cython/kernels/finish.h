/* finish.h - what follows once all products of a row are summed: row scale, bias, residual, activation. */
#ifndef EI_FINISH_H
#define EI_FINISH_H
#include "activation.h"

typedef struct {
  float scale[EI_ROW_BLOCK], bias[EI_ROW_BLOCK];
  ei_clamp clamp;
  float a, b;
} ei_finish;

static inline ei_finish ei_finish_of(int64_t activation, float a, float b) {
  ei_finish e = {.clamp = ei_clamp_of(activation, a, b), .a = a, .b = b};
  return e;
}

/* the factors of the block of rows that begins at row `first`; missing ones are 1 and 0 */
static inline void ei_finish_rows(ei_finish *e, const ei_weights *w, const float *bias, int64_t first, int64_t rows) {
  for (int64_t r = 0; r < EI_ROW_BLOCK; r++) {
    e->scale[r] = r < rows && w->row_scale ? w->row_scale[first + r] : 1.0f;
    e->bias[r] = r < rows && bias ? bias[first + r] : 0.0f;
  }
}

/* rows r .. of one pixel; y and residual point at the pixel's row r, n rows are left */
EI_INLINE void ei_finish_vector(const ei_finish *e, vf total, int64_t r, int64_t n, float *y, const float *residual) {
  vf t = vadd(vmul(total, vload(e->scale + r)), vload(e->bias + r));
  if (residual) t = vadd(t, vload_n(residual, n));
  vstore_n(y, ei_clamped(e->clamp, t), n);
}

/* what is left of the activation, on m pixels that are finished otherwise */
static inline void ei_activate_tile(const ei_finish *e, int m, int64_t rows, float *y, int64_t y_ld) {
  if (e->clamp.rest == EI_ACT_NONE) return;
  for (int j = 0; j < m; j++) EI_FN(ei_activate)(e->clamp.rest, e->a, e->b, y + j * y_ld, y + j * y_ld, rows);
}

/* m pixels whose totals are EI_ROW_BLOCK floats apart */
static inline void ei_finish_tile(const ei_finish *e, const float *total, int m, int64_t rows, float *y, int64_t y_ld, const float *residual,
                                  int64_t residual_ld) {
  for (int j = 0; j < m; j++, total += EI_ROW_BLOCK, y += y_ld) {
    for (int64_t r = 0; r < rows; r += EI_VEC) ei_finish_vector(e, vload(total + r), r, rows - r, y + r, residual ? residual + r : NULL);
    if (e->clamp.rest != EI_ACT_NONE) EI_FN(ei_activate)(e->clamp.rest, e->a, e->b, y, y, rows);
    if (residual) residual += residual_ld;
  }
}
#endif
