/* table.c - the functions of one variant, in the order of steps.h. */
#include "table.h"

#define DECLARE(N, n) \
  ei_run_fn EI_FN(ei_##n); \
  ei_units_fn EI_FN(ei_##n##_units);
EI_STEP_KINDS(DECLARE)

/* steps that need scratch */
#define SCRATCH(S) S(CONV, conv) S(DEPTHWISE, depthwise) S(LRN, lrn) S(GATHER_ROWS, gather_rows) S(MATMUL, matmul) S(GRU, gru) S(LSTM, lstm)
#define DECLARE_SCRATCH(N, n) ei_scratch_fn EI_FN(ei_##n##_scratch);
SCRATCH(DECLARE_SCRATCH)

#define RUN(N, n) [EI_STEP_##N] = EI_FN(ei_##n),
#define UNITS(N, n) [EI_STEP_##N] = EI_FN(ei_##n##_units),
#define SCRATCH_OF(N, n) [EI_STEP_##N] = EI_FN(ei_##n##_scratch),
#define TEXT_(v) #v
#define TEXT(v) TEXT_(v)

const ei_kernels EI_FN(ei_kernels) = {
    .name = TEXT(EI_VARIANT),
    .decode_tile = EI_FN(ei_decode_tile),
    .run = {EI_STEP_KINDS(RUN)},
    .units = {EI_STEP_KINDS(UNITS)},
    .scratch = {SCRATCH(SCRATCH_OF)}, /* NULL: none */
};
