/* models.c - builds and checks decode models; see models.h. Compiled once: nothing here is worth an instruction set. */
#include "models.h"

/* codes of each length; the number of symbols that have one, or EI_BAD_STREAM unless they make a complete code of at most `longest` bits */
static int count_codes(const uint8_t *lengths, int alphabet, int longest, uint32_t *count, int *last) {
  int used = 0;
  for (int s = 0; s < alphabet; s++) {
    int n = lengths[s / 2] >> (s % 2 * 4) & 15;
    if (n > longest) return EI_BAD_STREAM;
    if (n) count[n]++, used++, *last = s;
  }
  if (alphabet % 2 && lengths[alphabet / 2] >> 4) return EI_BAD_STREAM;
  uint32_t kraft = 0;
  for (int n = 1; n <= longest; n++) kraft += count[n] << (longest - n);
  if (used == 1 ? !count[1] : kraft != 1u << longest) return EI_BAD_STREAM;
  return used;
}

int ei_build_huffman(const uint8_t *lengths, int alphabet, int longest, int table_bits, ei_huffman_model *model) {
  if (alphabet < 1 || alphabet > 256 || longest < 1 || longest > table_bits || table_bits > EI_HUFFMAN_LONGEST) return EI_BAD_STREAM;
  uint32_t count[EI_HUFFMAN_LONGEST + 1] = {0}, next[EI_HUFFMAN_LONGEST + 2];
  int last = 0, used = count_codes(lengths, alphabet, longest, count, &last);
  if (used < 0) return used;
  uint32_t size = 1u << table_bits;
  uint64_t *entry = model->entry;
  model->bits = table_bits;
  if (used == 1) { /* both values of the one bit mean the one symbol */
    for (uint32_t i = 0; i < size; i++) entry[i] = (uint64_t)last | 1ull << 48 | 1ull << 52 | 1ull << 56;
  } else {
    next[1] = 0;
    for (int n = 1; n <= longest; n++) next[n + 1] = (next[n] + count[n]) << 1;
    for (int s = 0; s < alphabet; s++) {
      int n = lengths[s / 2] >> (s % 2 * 4) & 15;
      if (!n) continue;
      uint32_t code = next[n]++, reversed = 0;
      for (int bit = 0; bit < n; bit++) reversed |= (code >> bit & 1) << (n - 1 - bit);
      for (uint32_t i = reversed; i < size; i += 1u << n) entry[i] = (uint64_t)s | 1ull << 48 | (uint64_t)n << 52 | (uint64_t)n << 56;
    }
  }
  /* Further symbols of each entry: those whose codes lie wholly within the bits known.  The first symbol and its length
   * of every entry are in place and are not changed, so the order does not matter. */
  for (uint32_t i = 0; i < size; i++) {
    uint64_t e = entry[i];
    uint64_t symbols = e & 255, run = 1, total = e >> 52 & 15;
    while (run < EI_HUFFMAN_RUN) {
      uint64_t f = entry[i >> total], n = f >> 52 & 15;
      if (total + n > (uint64_t)table_bits) break;
      symbols |= (f & 255) << (8 * run++);
      total += n;
    }
    entry[i] = symbols | run << 48 | (e & 15ull << 52) | total << 56;
  }
  return EI_OK;
}

int ei_build_planes(const uint8_t *lengths, int alphabet, int longest, ei_planes_model *model) {
  if (alphabet < 1 || alphabet > 256 || longest < 1 || longest > EI_HUFFMAN_LONGEST) return EI_BAD_STREAM;
  uint32_t count[EI_HUFFMAN_LONGEST + 1] = {0};
  int last = 0, used = count_codes(lengths, alphabet, longest, count, &last);
  if (used < 0) return used;
  *model = (ei_planes_model){.shortest = 1, .longest = 1, .used = used};
  if (used == 1) { /* both values of the one bit mean the one symbol */
    model->symbol[0] = model->symbol[1] = (uint8_t)last;
    model->leaves[1] = model->used = 2;
    return EI_OK;
  }
  while (!count[model->shortest]) model->shortest++;
  for (int n = 1, rank = 0; n <= longest; n++) {
    if (count[n]) model->longest = n;
    model->leaves[n] = model->leaves[n - 1] + (int32_t)count[n];
    for (int s = 0; s < alphabet; s++)
      if ((lengths[s / 2] >> (s % 2 * 4) & 15) == n) model->symbol[rank++] = (uint8_t)s;
  }
  return EI_OK;
}

int ei_build_rans(const uint8_t *frequencies, int alphabet, int bits, ei_rans_model *model) {
  if (alphabet < 1 || alphabet > 256 || bits < 1 || bits > EI_RANS_MOST_BITS) return EI_BAD_STREAM;
  uint32_t size = 1u << bits, slot = 0;
  model->bits = bits;
  for (int s = 0; s < alphabet; s++) {
    uint32_t f = frequencies[2 * s] | (uint32_t)frequencies[2 * s + 1] << 8;
    if (f > size - slot) return EI_BAD_STREAM;
    for (uint32_t i = 0; i < f; i++) model->entry[slot++] = (uint32_t)s | (f - 1) << 8 | i << 20;
  }
  return slot == size ? EI_OK : EI_BAD_STREAM;
}
