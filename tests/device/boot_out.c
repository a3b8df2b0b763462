/* boot_out.c - what compare.c and the kernels need where no operating system is: text out through Bochs' port 0xE9, memory functions, the end. */
#include <stddef.h>
#include <stdint.h>

int compare(void);

static void port(uint16_t number, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(number)); }

void out(const char *text) {
  while (*text) port(0xE9, (uint8_t)*text++);
}

void *memcpy(void *to, const void *from, size_t n) {
  void *start = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
  return start;
}
void *memset(void *to, int value, size_t n) {
  void *start = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
  return start;
}
void *memmove(void *to, const void *from, size_t n) {
  uint8_t *t = to;
  const uint8_t *f = from;
  if (t < f) return memcpy(to, from, n);
  while (n--) t[n] = f[n];
  return to;
}
int memcmp(const void *a, const void *b, size_t n) {
  const uint8_t *x = a, *y = b;
  for (; n--; x++, y++)
    if (*x != *y) return *x - *y;
  return 0;
}

void bare_main(void) {
  compare();
  out("the end\n");
  for (const char *word = "Shutdown"; *word; word++) port(0x8900, (uint8_t)*word); /* Bochs' way to power off */
}
