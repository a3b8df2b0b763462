/* scratch.h - cuts a thread's scratch into parts; with no memory it only adds up how much is needed. */
#ifndef EI_SCRATCH_H
#define EI_SCRATCH_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  void *memory; /* 64-byte aligned, or NULL to measure */
  size_t used;
} ei_scratch;

static inline void *ei_take(ei_scratch *s, size_t bytes) {
  void *part = s->memory ? (char *)s->memory + s->used : NULL;
  s->used += (bytes + 63) & ~(size_t)63;
  return part;
}
#endif
