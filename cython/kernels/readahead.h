/* readahead.h - reads byte ranges of a file in order, ahead of who consumes them, on a thread of its own.
 *
 * A range has its place in memory that the caller owns; places may be reused: a range is read only when `after` earlier ranges have been
 * released.  Every range is checked against its CRC32C when it arrives.  Pages of the file are given back to the system behind the reader,
 * so that streaming a large file does not push everything else out of the page cache.
 * Where no thread can be started, the consumer reads by itself; the results are the same.
 */
#ifndef EI_READAHEAD_H
#define EI_READAHEAD_H
#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct {
  int64_t offset, length; /* in the file */
  int64_t to;             /* from the base address */
  int64_t after;          /* ranges that must have been released before this one may be read: all whose place it takes */
  uint32_t crc;
} ei_range;

typedef struct {
  int fd, started, quit;
  pid_t owner;            /* process that started the thread */
  const ei_range *ranges;
  int64_t count, ready, released;
  uint8_t *base;
  int problem;            /* 0, an errno, or an ei_reader_problem */
  int64_t read_ns, wait_ns, bytes; /* time spent reading, time the consumer waited, bytes read: since ei_reader_start */
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t change;
} ei_reader;

enum ei_reader_problem { EI_READER_ENDED = -1, EI_READER_CHECKSUM = -2 };

/* Begin with range 0. threaded: whether to try to start a thread. Nothing can fail here. */
void ei_reader_start(ei_reader *reader, uint8_t *base, int threaded);
/* Wait until range n is in memory. 0, or the problem (of the first range that could not be read, its number being `ready`). */
int ei_reader_acquire(ei_reader *reader, int64_t n);
/* The first n ranges will not be looked at again. */
void ei_reader_release(ei_reader *reader, int64_t n);
/* End the thread, after the read under way. */
void ei_reader_stop(ei_reader *reader);

#endif
