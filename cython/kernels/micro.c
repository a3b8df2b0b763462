/* micro.c - tiles of pixels times rows in registers, and the one-pixel form that runs the segments side by side. */
#include "micro.h"

/* to: NULL, or where the tile goes once the last segment is added; r, rows: the first row of the pass, rows of the block */
typedef void kernel_fn(const ei_runs *runs, const float *const *ptr, const float *panel, int ld, float *total, int start, const ei_target *to,
                       int r, int rows);

/* ei_finish_vector on m pixels times nv vectors */
EI_INLINE void finish(const int m, const int nv, const int adds, vf sum[][4], const float *total, const ei_target *to, int r, int rows) {
  const ei_clamp clamp = to->e->clamp;
  EI_UNROLL for (int v = 0; v < nv; v++) {
    const int lanes = rows - r - v * EI_VEC;
    if (lanes <= 0) return;
    const vf scale = vload(to->e->scale + r + v * EI_VEC), bias = vload(to->e->bias + r + v * EI_VEC);
    float *y = to->y + r + v * EI_VEC;
    const float *residual = to->residual ? to->residual + r + v * EI_VEC : NULL;
    EI_UNROLL for (int i = 0; i < m; i++) {
      vf t = adds ? vadd(vload(total + i * EI_ROW_BLOCK + v * EI_VEC), sum[i][v]) : sum[i][v];
      t = vadd(vmul(t, scale), bias);
      if (residual) t = vadd(t, vload_n(residual + i * to->residual_ld, lanes));
      vstore_n(y + i * to->y_ld, ei_clamped(clamp, t), lanes);
    }
  }
}

EI_INLINE void kernel(const int m, const int nv, const ei_runs *runs, const float *const *ptr, const float *panel, int ld, float *total,
                      int start, const ei_target *target, int first, int rows) {
  for (int s = 0; s < EI_SEGMENTS && runs->first[s] < runs->first[s + 1]; s++) {
    vf sum[EI_MR][4];
    EI_UNROLL for (int i = 0; i < m; i++) EI_UNROLL for (int v = 0; v < nv; v++) sum[i][v] = vzero();
    for (int r = runs->first[s]; r < runs->first[s + 1]; r++) {
      const float *x[EI_MR];
      EI_UNROLL for (int i = 0; i < m; i++) x[i] = ptr[r * EI_MR + i];
      const int64_t n = runs->len[r];
      for (int64_t j = 0; j < n; j++, panel += ld) {
        vf w[4];
        EI_UNROLL for (int v = 0; v < nv; v++) w[v] = vload(panel + v * EI_VEC);
        EI_UNROLL for (int i = 0; i < m; i++) {
          vf b = vset(x[i][j]);
          EI_UNROLL for (int v = 0; v < nv; v++) sum[i][v] = vfma(w[v], b, sum[i][v]);
        }
      }
    }
    float *to = total;
    if (target && (s + 1 == EI_SEGMENTS || runs->first[s + 1] == runs->first[s + 2])) {
      if (start) finish(m, nv, 0, sum, total, target, first, rows);
      else finish(m, nv, 1, sum, total, target, first, rows);
    } else if (start) {
      EI_UNROLL for (int i = 0; i < m; i++) EI_UNROLL for (int v = 0; v < nv; v++) vstore(to + i * EI_ROW_BLOCK + v * EI_VEC, sum[i][v]);
    } else {
      EI_UNROLL for (int i = 0; i < m; i++) EI_UNROLL for (int v = 0; v < nv; v++) {
        float *p = to + i * EI_ROW_BLOCK + v * EI_VEC;
        vstore(p, vadd(vload(p), sum[i][v]));
      }
    }
    start = 0;
  }
}

/* One pixel, every segment one run: `chains` segments at a time, because one chain of dependent sums would wait for its own latency. */
EI_INLINE void one_pixel(const int nv, const int chains, const ei_runs *runs, const float *const *ptr, const float *panel, int ld, float *total,
                         int start) {
  const int n_runs = runs->first[EI_SEGMENTS];
  const float *x[EI_SEGMENTS], *w[EI_SEGMENTS];
  int64_t n[EI_SEGMENTS], at = 0;
  for (int s = 0; s < EI_SEGMENTS; s++) {
    n[s] = s < n_runs ? runs->len[s] : 0;
    x[s] = s < n_runs ? ptr[s * EI_MR] : ptr[0];
    w[s] = panel + at * ld;
    at += n[s];
  }
  vf all[4];
  EI_UNROLL for (int v = 0; v < nv; v++) all[v] = start ? vzero() : vload(total + v * EI_VEC);
  EI_UNROLL for (int s = 0; s < EI_SEGMENTS; s += chains) {
    vf sum[EI_SEGMENTS][4];
    EI_UNROLL for (int c = 0; c < chains; c++) EI_UNROLL for (int v = 0; v < nv; v++) sum[c][v] = vzero();
    const int64_t common = n[s + chains - 1]; /* segments never grow */
    int64_t row = 0;
    for (int64_t j = 0; j < common; j++, row += ld) {
      EI_UNROLL for (int c = 0; c < chains; c++) {
        vf b = vset(x[s + c][j]);
        EI_UNROLL for (int v = 0; v < nv; v++) sum[c][v] = vfma(vload(w[s + c] + row + v * EI_VEC), b, sum[c][v]);
      }
    }
    EI_UNROLL for (int c = 0; c < chains; c++) {
      for (int64_t j = common; j < n[s + c]; j++) {
        vf b = vset(x[s + c][j]);
        EI_UNROLL for (int v = 0; v < nv; v++) sum[c][v] = vfma(vload(w[s + c] + j * ld + v * EI_VEC), b, sum[c][v]);
      }
      if (n[s + c]) EI_UNROLL for (int v = 0; v < nv; v++) all[v] = start && s + c == 0 ? sum[c][v] : vadd(all[v], sum[c][v]);
    }
  }
  EI_UNROLL for (int v = 0; v < nv; v++) vstore(total + v * EI_VEC, all[v]);
}

#define EI_KERNEL(m, nv)                                                                                                            \
  static void kernel_##m##_##nv(const ei_runs *runs, const float *const *ptr, const float *panel, int ld, float *total, int start, \
                                const ei_target *to, int r, int rows) {                                                           \
    kernel(m, nv, runs, ptr, panel, ld, total, start, to, r, rows);                                                               \
  }

/* EI_WIDE: vectors per pass for few pixels, where more rows at a time keep the multipliers busy */
#if EI_VEC == 16
EI_KERNEL(1, 1) EI_KERNEL(2, 1) EI_KERNEL(3, 1) EI_KERNEL(4, 1) EI_KERNEL(5, 1) EI_KERNEL(6, 1) EI_KERNEL(7, 1) EI_KERNEL(8, 1) EI_KERNEL(9, 1)
EI_KERNEL(10, 1)
EI_KERNEL(1, 2) EI_KERNEL(2, 2) EI_KERNEL(3, 2) EI_KERNEL(4, 2) EI_KERNEL(5, 2) EI_KERNEL(6, 2) EI_KERNEL(7, 2) EI_KERNEL(8, 2) EI_KERNEL(9, 2)
EI_KERNEL(10, 2)
static kernel_fn *const narrow[] = {kernel_1_1, kernel_2_1, kernel_3_1, kernel_4_1, kernel_5_1,
                                    kernel_6_1, kernel_7_1, kernel_8_1, kernel_9_1, kernel_10_1};
static kernel_fn *const usual[] = {kernel_1_2, kernel_2_2, kernel_3_2, kernel_4_2, kernel_5_2,
                                   kernel_6_2, kernel_7_2, kernel_8_2, kernel_9_2, kernel_10_2};
#elif EI_NV == 2
EI_KERNEL(1, 4) EI_KERNEL(2, 4) EI_KERNEL(3, 4)
EI_KERNEL(1, 2) EI_KERNEL(2, 2) EI_KERNEL(3, 2) EI_KERNEL(4, 2) EI_KERNEL(5, 2) EI_KERNEL(6, 2)
EI_KERNEL(1, 1) EI_KERNEL(2, 1) EI_KERNEL(3, 1) EI_KERNEL(4, 1) EI_KERNEL(5, 1) EI_KERNEL(6, 1)
static kernel_fn *const narrow[] = {kernel_1_1, kernel_2_1, kernel_3_1, kernel_4_1, kernel_5_1, kernel_6_1};
static kernel_fn *const wide[] = {kernel_1_4, kernel_2_4, kernel_3_4};
static kernel_fn *const usual[] = {kernel_1_2, kernel_2_2, kernel_3_2, kernel_4_2, kernel_5_2, kernel_6_2};
#else
EI_KERNEL(1, 4) EI_KERNEL(2, 4) EI_KERNEL(3, 4) EI_KERNEL(4, 4) EI_KERNEL(5, 4) EI_KERNEL(6, 4)
static kernel_fn *const usual[] = {kernel_1_4, kernel_2_4, kernel_3_4, kernel_4_4, kernel_5_4, kernel_6_4};
#endif

EI_INLINE void tile(const ei_runs *runs, const float *const *ptr, int m, const float *panel, int ld, int rows, float *total, int start,
                    const ei_target *to) {
  int nv = EI_NV, lone = m == 1;
  for (int s = 0; s < EI_SEGMENTS; s++) lone &= runs->first[s + 1] - runs->first[s] <= 1;
  if (lone) {
#if EI_VEC == 16
    if (ld == 16) one_pixel(1, 4, runs, ptr, panel, ld, total, start);
    else one_pixel(2, 4, runs, ptr, panel, ld, total, start);
#elif EI_VEC == 8
    if (ld == 16) one_pixel(2, 4, runs, ptr, panel, ld, total, start);
    else one_pixel(4, 2, runs, ptr, panel, ld, total, start);
#else
    for (int r = 0; r < rows; r += 4 * EI_VEC) one_pixel(4, 2, runs, ptr, panel + r, ld, total + r, start);
#endif
    if (to)
      for (int r = 0; r < rows; r += EI_VEC) ei_finish_vector(to->e, vload(total + r), r, rows - r, to->y + r, to->residual ? to->residual + r : NULL);
    return;
  }
#if EI_VEC == 16
  kernel_fn *f = ld == 16 ? narrow[m - 1] : usual[m - 1];
  if (ld == 16) nv = 1;
#else
  kernel_fn *f = usual[m - 1];
#if EI_NV == 2
  if (m <= 3 && ld >= 4 * EI_VEC) f = wide[m - 1], nv = 4;
  if (rows <= EI_VEC) f = narrow[m - 1], nv = 1;
#endif
#endif
  for (int r = 0; r < rows; r += nv * EI_VEC) f(runs, ptr, panel + r, ld, total + r, start, to, r, rows);
}

void EI_FN(ei_tile)(const ei_runs *runs, const float *const *ptr, int m, const float *panel, int ld, int rows, float *total, int start) {
  tile(runs, ptr, m, panel, ld, rows, total, start, NULL);
}

void EI_FN(ei_tile_to)(const ei_runs *runs, const float *const *ptr, int m, const float *panel, int ld, int rows, float *total, int start,
                       const ei_target *to) {
  tile(runs, ptr, m, panel, ld, rows, total, start, to);
  ei_activate_tile(to->e, m, rows, to->y, to->y_ld);
}
