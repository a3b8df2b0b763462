/* pool.h - runs the steps of a program, each on as many threads as asked for; one pool of threads per process. */
#ifndef EI_POOL_H
#define EI_POOL_H
#include "table.h"

#define EI_MOST_THREADS 64 /* threads that one step may use */

typedef struct {
  const ei_kernels *kernels;
  const ei_step *steps;
  char *scratch;             /* threads * scratch_stride bytes, 64-byte aligned */
  size_t scratch_stride;
  const _Atomic int32_t *stop; /* read before every step: not zero stops */
  int64_t *nanoseconds;      /* one number per step, or NULL */
} ei_job_list;

/* Run steps first .. last - 1 on up to `threads` threads, the caller among them. Returns the first step not run; *status is the failing step's
 * status or 0.  Many callers may run at a time: the pool serves one step at a time, a caller that finds it busy works alone. */
int64_t ei_run_steps(const ei_job_list *list, int64_t first, int64_t last, int threads, int *status);

#endif
