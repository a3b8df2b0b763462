/* pool.c - the thread pool.
 *
 * A step is published by one store to `gate`: generation, whether it is open, how many threads have entered and how many of them are still
 * inside.  A helper enters by compare-and-swap while the gate is open; the caller takes part, closes the gate when no work is left to claim
 * and waits for those inside only.  A helper that wakes late finds the gate closed and costs nothing.  Between steps helpers spin for
 * SPIN_NS and then sleep on a condition variable: spinning longer would steal time from whoever shares the core.
 *
 * After fork() the child has no helpers; a handler forgets them and the next step starts new ones.
 */
#include "pool.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

enum { STACK = 256 * 1024, SPIN_NS = 30000 };

#define GENERATION ((uint64_t)1 << 32)
#define OPEN ((uint64_t)1 << 31)
#define ENTERED ((uint64_t)1 << 16)
#define entered_of(gate) ((int)((gate) >> 16 & 0x7fff))
#define inside_of(gate) ((int)((gate) & 0xffff))
#define generation_of(gate) ((uint32_t)((gate) >> 32))

static struct {
  pthread_mutex_t owner; /* held by the caller whose step is running */
  pthread_mutex_t lock;  /* guards the two conditions */
  pthread_cond_t work, done;
  _Atomic uint64_t gate;
  _Atomic int sleepers, caller_sleeps, wanted;
  int helpers;
  ei_run_fn *run;
  const ei_step *step;
  char *scratch;
  size_t stride;
  ei_share share;
  _Atomic int status;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static inline void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)
  __asm__ volatile("yield" ::: "memory");
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void note(int status) {
  int none = 0;
  if (status) atomic_compare_exchange_strong(&pool.status, &none, status);
}

/* enter the open gate; ticket 1 .. wanted, or 0 */
static int enter(uint64_t seen) {
  while (seen & OPEN && entered_of(seen) < atomic_load_explicit(&pool.wanted, memory_order_relaxed))
    if (atomic_compare_exchange_weak(&pool.gate, &seen, seen + ENTERED + 1)) return entered_of(seen) + 1;
  return 0;
}

static void *helper(void *unused) {
  (void)unused;
  uint32_t last = 0;
  for (;;) {
    uint64_t seen = atomic_load(&pool.gate);
    if (generation_of(seen) == last || !(seen & OPEN)) {
      int64_t until = now_ns() + SPIN_NS;
      int fresh = 0;
      for (int round = 1;; round++) {
        seen = atomic_load_explicit(&pool.gate, memory_order_acquire);
        if ((fresh = generation_of(seen) != last && seen & OPEN)) break;
        pause_a_little();
        if (round % 64 == 0 && now_ns() > until) break;
      }
      if (!fresh) {
        pthread_mutex_lock(&pool.lock);
        atomic_fetch_add(&pool.sleepers, 1);
        while (seen = atomic_load(&pool.gate), generation_of(seen) == last || !(seen & OPEN)) pthread_cond_wait(&pool.work, &pool.lock);
        atomic_fetch_sub(&pool.sleepers, 1);
        pthread_mutex_unlock(&pool.lock);
      }
    }
    last = generation_of(seen);
    int ticket = enter(seen);
    if (!ticket) continue;
    last = generation_of(atomic_load(&pool.gate)); /* cannot change while this thread is inside */
    note(pool.run(pool.step, &pool.share, pool.scratch + (size_t)ticket * pool.stride));
    uint64_t before = atomic_fetch_sub(&pool.gate, 1);
    if (inside_of(before) == 1 && !(before & OPEN) && atomic_load(&pool.caller_sleeps)) {
      pthread_mutex_lock(&pool.lock);
      pthread_cond_signal(&pool.done);
      pthread_mutex_unlock(&pool.lock);
    }
  }
  return NULL;
}

static void forget_helpers(void) {
  static const pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static const pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
  memcpy(&pool.owner, &mutex, sizeof mutex);
  memcpy(&pool.lock, &mutex, sizeof mutex);
  memcpy(&pool.work, &cond, sizeof cond);
  memcpy(&pool.done, &cond, sizeof cond);
  atomic_store(&pool.gate, 0);
  atomic_store(&pool.sleepers, 0);
  atomic_store(&pool.caller_sleeps, 0);
  pool.helpers = 0;
}

/* called with owner held */
static void grow(int helpers) {
  static int registered;
  if (!registered) registered = pthread_atfork(NULL, NULL, forget_helpers) == 0;
  if (!registered) return; /* without the handler a fork would hang: stay single */
  pthread_attr_t attr;
  sigset_t all, old;
  if (pthread_attr_init(&attr)) return;
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attr, STACK);
  sigfillset(&all); /* signals are for the threads that the caller knows */
  pthread_sigmask(SIG_SETMASK, &all, &old);
  while (pool.helpers < helpers) {
    pthread_t thread;
    if (pthread_create(&thread, &attr, helper, NULL)) break; /* fewer threads also do the work */
    pool.helpers++;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
}

static int run_alone(ei_run_fn *run, const ei_step *step, char *scratch) {
  ei_share share = {.next = 0, .threads = 1};
  return run(step, &share, scratch);
}

static int run_shared(ei_run_fn *run, const ei_step *step, char *scratch, size_t stride, int threads) {
  if (pthread_mutex_trylock(&pool.owner)) return run_alone(run, step, scratch);
  if (pool.helpers < threads - 1) grow(threads - 1);
  pool.run = run, pool.step = step, pool.scratch = scratch, pool.stride = stride;
  atomic_store_explicit(&pool.share.next, 0, memory_order_relaxed);
  pool.share.threads = threads;
  atomic_store(&pool.status, 0);
  atomic_store(&pool.wanted, threads - 1);
  uint64_t next = ((uint64_t)(generation_of(atomic_load(&pool.gate)) + 1) & 0xffffffff) * GENERATION;
  atomic_store(&pool.gate, next | OPEN);
  if (atomic_load(&pool.sleepers)) {
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
  }
  note(run(step, &pool.share, scratch));
  atomic_fetch_and(&pool.gate, ~OPEN);
  int64_t until = 0;
  for (int round = 1; inside_of(atomic_load(&pool.gate)); round++) {
    pause_a_little();
    if (round % 64) continue;
    if (!until) until = now_ns() + SPIN_NS;
    else if (now_ns() > until) {
      pthread_mutex_lock(&pool.lock);
      atomic_store(&pool.caller_sleeps, 1);
      while (inside_of(atomic_load(&pool.gate))) pthread_cond_wait(&pool.done, &pool.lock);
      atomic_store(&pool.caller_sleeps, 0);
      pthread_mutex_unlock(&pool.lock);
    }
  }
  int status = atomic_load(&pool.status);
  pthread_mutex_unlock(&pool.owner);
  return status;
}

/* here and not in features.c, so that modules which only ask for names do not carry the kernels */
const ei_kernels *ei_find_kernels(const char *name) {
  static const ei_kernels *const tables[] = {
#if defined(EI_HAVE_AVX512)
      &ei_kernels_avx512,
#endif
#if defined(EI_HAVE_AVX2)
      &ei_kernels_avx2,
#endif
#if defined(EI_HAVE_NEON_DOTPROD)
      &ei_kernels_neon_dotprod,
#endif
#if defined(EI_HAVE_NEON)
      &ei_kernels_neon,
#endif
      &ei_kernels_plain,
  };
  for (const char *const *runs = ei_available_kernels(); *runs; runs++)
    for (size_t j = 0; j < sizeof tables / sizeof *tables; j++)
      if (!strcmp(*runs, name) && !strcmp(tables[j]->name, name)) return tables[j];
  return NULL;
}

int64_t ei_run_steps(const ei_job_list *list, int64_t first, int64_t last, int threads, int *status) {
  const ei_kernels *k = list->kernels;
  *status = 0;
  if (threads > EI_MOST_THREADS) threads = EI_MOST_THREADS;
  for (int64_t at = first; at < last; at++) {
    if (atomic_load_explicit(list->stop, memory_order_relaxed)) return at;
    const ei_step *step = list->steps + at;
    const int64_t start = list->nanoseconds ? now_ns() : 0, units = threads > 1 ? k->units[step->kind](step) : 1;
    const int n = units < threads ? (int)units : threads;
    *status = n > 1 ? run_shared(k->run[step->kind], step, list->scratch, list->scratch_stride, n) : run_alone(k->run[step->kind], step, list->scratch);
    if (list->nanoseconds) list->nanoseconds[at] = now_ns() - start;
    if (*status) return at;
  }
  return last;
}
