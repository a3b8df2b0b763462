/* micro.h - the inner product that every weighted step shares: pixels times one panel, in the order of additions of weights.h. */
#ifndef EI_MICRO_H
#define EI_MICRO_H
#include "finish.h"
#include "table.h"
#include "vec.h"

/* Pixels per tile and vectors of rows per pass: as many accumulators as the registers hold beside the operands.
 * 16 lanes: 10 pixels rather than 14, so that the pixels' pointers stay in registers too. */
#if EI_VEC == 16
#define EI_MR 10
#define EI_NV 2
#elif EI_VEC == 8
#define EI_MR 6
#define EI_NV 2
#elif defined(__aarch64__)
#define EI_MR 6
#define EI_NV 4
#else
#define EI_MR 6
#define EI_NV 2
#endif

/* A chunk of k cut into runs: a run is consecutive k of one segment whose inputs lie side by side in memory. */
typedef struct {
  int32_t first[EI_SEGMENTS + 1]; /* runs of segment s: first[s] .. first[s + 1] - 1 */
  int32_t *len;                   /* inputs of a run */
} ei_runs;

/* the runs of n inputs that all lie side by side: one for each segment that is not empty; len: EI_SEGMENTS numbers */
static inline void ei_plain_runs(ei_runs *runs, int32_t *len, int64_t n) {
  int64_t segment = ei_segment(n);
  runs->len = len;
  for (int s = 0, r = 0; s < EI_SEGMENTS; s++) {
    int64_t left = n - s * segment;
    runs->first[s] = r;
    if (left > 0) len[r++] = (int32_t)(left < segment ? left : segment);
    runs->first[s + 1] = r;
  }
}

/* Add the sums of one chunk to total[m][EI_ROW_BLOCK] (start: begin total with them).  Pixel i of run r begins at ptr[r * EI_MR + i].
 * 1 <= m <= EI_MR; panel as decoded, ld 16 or 32; totals of rows up to ld are written whether they exist or not. */
void EI_FN(ei_tile)(const ei_runs *runs, const float *const *ptr, int m, const float *panel, int ld, int rows, float *total, int start);

/* where a finished tile goes: rows of pixel i at y + i * y_ld; residual may be NULL */
typedef struct {
  const ei_finish *e;
  float *y;
  const float *residual;
  int64_t y_ld, residual_ld;
} ei_target;

/* ei_tile on the last chunk of k, and what ei_finish_tile does with the totals, while they are still in registers */
void EI_FN(ei_tile_to)(const ei_runs *runs, const float *const *ptr, int m, const float *panel, int ld, int rows, float *total, int start,
                       const ei_target *to);

#endif
