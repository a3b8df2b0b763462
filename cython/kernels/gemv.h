/* gemv.h - products of few rows of x by coded weights, straight from the code: no panel is written. */
#ifndef EI_GEMV_H
#define EI_GEMV_H
#include "table.h"

#define EI_GEMV_MOST 4 /* rows of x */

#if defined(EI_VARIANT)
typedef struct ei_gemv ei_gemv;
typedef void ei_gemv_fn(const ei_gemv *g, const uint8_t *symbols, const uint8_t *signs, const float *x, int64_t x_ld, int64_t k, float *total,
                        int start);

/* What a step prepares once per thread: value tables as the instruction set looks them up, and the loops for these weights. */
struct ei_gemv {
  const ei_weights *w;
  int sparse;                      /* gaps around weights of zero: entries alone are multiplied with a single row of x */
  int fused;                       /* what follows is filled in */
  int decodes;                     /* the plane of symbols is entropy coded: its symbols are decoded first, a byte each */
  ei_gemv_fn *multiply[EI_GEMV_MOST]; /* by rows of x; NULL: no fused form */
  /* loaded as whole vectors that must be aligned, so the members are, not the struct alone */
  uint8_t bytes[2][4][16] __attribute__((aligned(64))); /* [third and fourth byte of a bfloat16 value][table of 16] */
  float values[4][16] __attribute__((aligned(64)));
};
_Static_assert(offsetof(ei_gemv, bytes) % 64 == 0 && offsetof(ei_gemv, values) % 64 == 0 && _Alignof(ei_gemv) >= 64, "tables are loaded aligned");

/* 0 where these weights have no fused form on this instruction set; weights of two planes are multiplied by both unless base_only */
int EI_FN(ei_gemv_prepare)(ei_gemv *g, const ei_weights *w);

/* Add tile (block, chunk) times m <= EI_GEMV_MOST rows of x to total[m][EI_ROW_BLOCK] (start: begin total with it), in the order of
 * additions of weights.h.  x: first input of the chunk, rows x_ld apart.  scratch: ei_decode_scratch() bytes.  EI_OK, EI_BAD_STREAM, or
 * 1 where this tile has no fused form (a short block) and nothing was done. */
int EI_FN(ei_gemv_tile)(const ei_gemv *g, int64_t block, int64_t chunk, const float *x, int64_t x_ld, int m, void *scratch, float *total,
                        int start);
#endif
#endif
