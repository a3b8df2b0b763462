/* readahead.c - the reader of readahead.h: one lock, one condition, at most one range under way. */
#include "readahead.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#include "checksum.h"

enum { STACK = 64 * 1024 };

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int read_range(int fd, const ei_range *range, uint8_t *base) {
  uint8_t *to = base + range->to;
  for (int64_t done = 0; done < range->length;) {
    const ssize_t got = pread(fd, to + done, (size_t)(range->length - done), (off_t)(range->offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return EI_READER_ENDED;
    done += got;
  }
  const int64_t page = sysconf(_SC_PAGESIZE), first = range->offset / page * page;
  /* the page at the end may hold the next range's beginning: it stays */
  posix_fadvise(fd, (off_t)first, (off_t)((range->offset + range->length) / page * page - first), POSIX_FADV_DONTNEED);
  return ei_crc32c(0, to, (size_t)range->length) == range->crc ? 0 : EI_READER_CHECKSUM;
}

/* read the next range; called and left with the lock held, which is free meanwhile */
static void advance(ei_reader *r) {
  const ei_range *range = r->ranges + r->ready;
  pthread_mutex_unlock(&r->lock);
  const int64_t began = now_ns();
  const int problem = read_range(r->fd, range, r->base);
  const int64_t took = now_ns() - began;
  pthread_mutex_lock(&r->lock);
  r->read_ns += took;
  if (problem) r->problem = problem;
  else r->ready++, r->bytes += range->length;
  pthread_cond_broadcast(&r->change);
}

static void *work(void *argument) {
  ei_reader *r = argument;
  pthread_mutex_lock(&r->lock);
  while (!r->quit && !r->problem && r->ready < r->count) {
    if (r->released < r->ranges[r->ready].after) pthread_cond_wait(&r->change, &r->lock);
    else advance(r);
  }
  pthread_mutex_unlock(&r->lock);
  return NULL;
}

void ei_reader_start(ei_reader *r, uint8_t *base, int threaded) {
  ei_reader_stop(r);
  r->base = base;
  r->ready = r->released = r->problem = r->quit = 0;
  r->read_ns = r->wait_ns = r->bytes = 0;
  pthread_mutex_init(&r->lock, NULL);
  pthread_cond_init(&r->change, NULL);
  pthread_attr_t attr;
  if (!threaded || pthread_attr_init(&attr)) return;
  sigset_t all, old;
  pthread_attr_setstacksize(&attr, STACK);
  sigfillset(&all); /* signals are for the threads that the caller knows */
  pthread_sigmask(SIG_SETMASK, &all, &old);
  r->started = pthread_create(&r->thread, &attr, work, r) == 0;
  r->owner = getpid();
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
}

int ei_reader_acquire(ei_reader *r, int64_t n) {
  const int64_t began = now_ns();
  pthread_mutex_lock(&r->lock);
  while (!r->problem && r->ready <= n) {
    if (r->started) pthread_cond_wait(&r->change, &r->lock);
    else advance(r);
  }
  const int problem = r->ready > n ? 0 : r->problem;
  r->wait_ns += now_ns() - began;
  pthread_mutex_unlock(&r->lock);
  return problem;
}

void ei_reader_release(ei_reader *r, int64_t n) {
  pthread_mutex_lock(&r->lock);
  if (n > r->released) r->released = n;
  pthread_cond_broadcast(&r->change);
  pthread_mutex_unlock(&r->lock);
}

void ei_reader_stop(ei_reader *r) {
  if (!r->started) return;
  r->started = 0;
  if (r->owner != getpid()) return; /* a forked child has the memory of a thread, but not the thread */
  pthread_mutex_lock(&r->lock);
  r->quit = 1;
  pthread_cond_broadcast(&r->change);
  pthread_mutex_unlock(&r->lock);
  pthread_join(r->thread, NULL);
}
