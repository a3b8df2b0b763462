/* table.h - one table of functions per instruction set, and how a function is named in each.
 *
 * Every source in this folder but pool.c, readahead.c, features.c, checksum.c and models.c is compiled once per variant with -DEI_VARIANT=<name>; EI_FN(conv) is then
 * conv_avx2 and so on. The variant's table is defined in table.c.
 */
#ifndef EI_TABLE_H
#define EI_TABLE_H
#include <stdatomic.h>
#include "steps.h"

#ifdef EI_VARIANT
#define EI_PASTE_(a, b) a##_##b
#define EI_PASTE(a, b) EI_PASTE_(a, b)
#define EI_FN(name) EI_PASTE(name, EI_VARIANT)
#endif

/* What the threads of one step share. Work units are claimed with ei_claim; a thread that gets a number past the last unit is done. */
typedef struct {
  _Atomic int64_t next;
  int threads;
} ei_share;

static inline int64_t ei_claim(ei_share *share) { return atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed); }

/* Runs (a thread's part of) a step. Every thread of the pool calls it with the same step and share and its own scratch. 0 or ei_status. */
typedef int ei_run_fn(const ei_step *step, ei_share *share, void *scratch);
/* Units of work that a step splits into (1: not worth a second thread), and scratch bytes that each thread needs. */
typedef int64_t ei_units_fn(const ei_step *step);
typedef size_t ei_scratch_fn(const ei_step *step);

typedef struct {
  const char *name;
  ei_decode_tile_fn *decode_tile;
  ei_run_fn *run[EI_STEP_COUNT];
  ei_units_fn *units[EI_STEP_COUNT];
  ei_scratch_fn *scratch[EI_STEP_COUNT];
} ei_kernels;

#define EI_VARIANTS(V) V(plain) V(avx2) V(avx512) V(neon) V(neon_dotprod)
#define EI_DECLARE_TABLE(v) extern const ei_kernels ei_kernels_##v;
EI_VARIANTS(EI_DECLARE_TABLE)

/* table of a variant by name; NULL where this build or this CPU does not have it (pool.c) */
const ei_kernels *ei_find_kernels(const char *name);
/* names of the variants that this build has and this CPU can run, best first, NULL at the end (features.c) */
const char *const *ei_available_kernels(void);

/* decode.c */
#ifdef EI_VARIANT
ei_decode_tile_fn EI_FN(ei_decode_tile);
#endif
#endif
