/* decode_random.c - feeds random bytes to the tile decoders, under sanitizers (test_decoders_under_sanitizers.py compiles and runs this).
 *
 * Planes are allocated with exactly EI_OVERREAD bytes behind them, scratch and panel with exactly what decode_tile may use, so that the address
 * sanitizer sees the first byte out of bounds.  Offsets and models are valid, as attach guarantees; all else is random.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models.h"
#include "table.h"

static uint64_t state = 88172645463325252ull;

static uint32_t next(uint32_t below) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (uint32_t)(state >> 32) % below;
}

static uint8_t *exactly(size_t n, size_t alignment) {
  void *p = NULL;
  if (posix_memalign(&p, alignment, n ? n : 1)) abort();
  return p;
}

static void *random_bytes(size_t n) {
  uint8_t *p = exactly(n, 64);
  int sparse = next(3) == 0;
  for (size_t i = 0; i < n; i++) p[i] = sparse && next(8) ? 0 : (uint8_t)next(256);
  return p;
}

/* code lengths of a random complete code: split leaves until there are enough */
static int random_lengths(int alphabet, uint8_t *nibbles) {
  uint8_t length[256] = {0};
  int used = 1, longest = 1;
  if (alphabet == 1) {
    length[0] = 1;
  } else {
    length[0] = length[1] = 1, used = 2;
    while (used < alphabet && next(40)) {
      int s = (int)next((uint32_t)used);
      if (length[s] == EI_HUFFMAN_LONGEST) continue;
      length[used++] = ++length[s];
      if (length[s] > longest) longest = length[s];
    }
  }
  for (int i = 0; i < (alphabet + 1) / 2; i++) nibbles[i] = (uint8_t)(length[2 * i] | (2 * i + 1 < alphabet ? length[2 * i + 1] << 4 : 0));
  return longest;
}

static void random_frequencies(int alphabet, int bits, uint8_t *bytes) {
  uint32_t left = 1u << bits, f[256];
  for (int s = 0; s < alphabet; s++) {
    f[s] = s == alphabet - 1 ? left : next(3) ? next(left / (uint32_t)(alphabet - s) * 2 + 1) : 0;
    if (f[s] > left) f[s] = left;
    left -= f[s];
    bytes[2 * s] = (uint8_t)f[s], bytes[2 * s + 1] = (uint8_t)(f[s] >> 8);
  }
}

static void fill_plane(ei_weights *w, int number, int coder, int alphabet) {
  ei_plane *p = &w->plane[number];
  int64_t per = ei_blocks_per_group(w), tiles = ei_blocks(w) * ei_chunks(w);
  int64_t padded = w->groups * ((per - 1) * EI_ROW_BLOCK + EI_PADDED(w->rows / w->groups - (per - 1) * EI_ROW_BLOCK));
  p->coder = coder;
  p->bits = 1;
  while (1 << p->bits < alphabet) p->bits++;
  if (coder == EI_RAW_U8) p->bits = 8;
  int bits = coder == EI_RAW_F32 ? 32 : coder == EI_RAW_F16 || coder == EI_RAW_BF16 ? 16 : p->bits;
  uint64_t n = (uint64_t)(padded * w->k) / 8 * (uint64_t)bits;
  if (coder >= EI_HUFFMAN) {
    uint32_t *at = (uint32_t *)exactly(sizeof *at * (size_t)(tiles + 1), 64);
    n = 0;
    for (int64_t t = 0; t <= tiles; t++) {
      at[t] = (uint32_t)n;
      if (t < tiles) n += next(4) ? next((uint32_t)(32 * w->k_chunk) / 2 + 40) : next(12);
    }
    p->at = at;
  }
  uint8_t *bytes = random_bytes((size_t)n + EI_OVERREAD);
  uint8_t stored[512];
  if (coder == EI_HUFFMAN) {
    p->extra = random_lengths(alphabet, stored);
    p->lanes = next(2) ? EI_HUFFMAN_STREAMS : EI_HUFFMAN_PLANES;
    int lengths = 3, head = EI_HUFFMAN_HEADER;
    if (p->lanes == EI_HUFFMAN_PLANES) {
      ei_planes_model *model = (void *)exactly(sizeof *model, 64);
      if (ei_build_planes(stored, alphabet, p->extra, model)) abort();
      p->model = model;
      lengths = model->longest - model->shortest - 1;
      head = 2 * (lengths > 0 ? lengths : 0);
    } else {
      int table_bits = next(2) ? EI_HUFFMAN_LONGEST : p->extra;
      ei_huffman_model *model = (void *)exactly(ei_huffman_model_size(table_bits), 64);
      if (ei_build_huffman(stored, alphabet, p->extra, table_bits, model)) abort();
      p->model = model;
    }
    for (int64_t t = 0; t < tiles; t++) /* stream lengths that fit, mostly */
      if (next(4) && p->at[t + 1] - p->at[t] >= (uint32_t)head)
        for (int s = 0; s < lengths; s++) {
          uint16_t size = (uint16_t)next((p->at[t + 1] - p->at[t] - (uint32_t)head) / 3 + 1);
          memcpy(bytes + p->at[t] + 2 * s, &size, 2);
        }
  } else if (coder == EI_RANS) {
    static const int lanes[] = {1, 8, 32};
    p->lanes = lanes[next(3)];
    p->extra = 8 + (int)next(5);
    random_frequencies(alphabet, p->extra, stored);
    ei_rans_model *model = (void *)exactly(ei_rans_model_size(p->extra), 64);
    if (ei_build_rans(stored, alphabet, p->extra, model)) abort();
    p->model = model;
  } else if (coder == EI_GAPS) {
    p->extra = 1 + (int)next(16);
    p->lanes = (int)next((uint32_t)alphabet);
    for (int64_t t = 0; t < tiles; t++) { /* a number of entries that fits, mostly */
      uint32_t size = p->at[t + 1] - p->at[t];
      if (size < EI_GAPS_HEADER || !next(4)) continue;
      uint32_t entries = (size - EI_GAPS_HEADER) * 8 / (uint32_t)(p->extra + p->bits);
      memcpy(bytes + p->at[t], &entries, 4);
    }
  }
  p->bytes = bytes;
  p->n_bytes = n;
}

int main(int argc, char **argv) {
  long rounds = argc > 1 ? atol(argv[1]) : 1000, good = 0, bad = 0;
  for (long round = 0; round < rounds; round++) {
    ei_weights w;
    memset(&w, 0, sizeof w);
    w.groups = 1 + (int)next(3);
    w.rows = w.groups * (1 + (int64_t)next(70));
    w.k = 1 + (int64_t)next(next(2) ? 40 : 700);
    w.k_chunk = 1 + (int32_t)next(600);
    int coder = (int)next(EI_GAPS + 1);
    w.n_planes = coder >= EI_RAW_U8 && next(3) == 0 ? 2 : 1;
    float *table = (float *)random_bytes(1024), base[16] = {-1, 1};
    if (next(2)) /* bfloat16 values take another path */
      for (int i = 0; i < 256; i++) ((uint16_t *)table)[2 * i] = 0;
    w.table = table;
    w.base_table = w.n_planes == 2 ? base : NULL;
    if (coder < EI_RAW_U8) {
      fill_plane(&w, 0, coder, 1);
    } else if (w.n_planes == 1) {
      w.table_len = 1 + (int)next(256);
      fill_plane(&w, 0, coder, w.table_len);
    } else {
      int buckets = 1 + (int)next(128);
      w.table_len = 2 * buckets;
      w.base_only = next(4) == 0;
      fill_plane(&w, 0, EI_PACKED, 2);
      fill_plane(&w, 1, coder, buckets);
    }
    for (int64_t block = 0; block < ei_blocks(&w); block++)
      for (int64_t chunk = 0; chunk < ei_chunks(&w); chunk++) {
        uint8_t *scratch = exactly(ei_decode_scratch(w.k_chunk), 64);
        float *panel = (float *)exactly((size_t)(ei_chunk_k(&w, chunk) * EI_PANEL_LD(ei_block_rows(&w, block))) * 4, 64);
        int status = EI_FN(ei_decode_tile)(&w, block, chunk, scratch, panel);
        if (status == EI_OK) good++;
        else if (status == EI_BAD_STREAM) bad++;
        else return 1;
        free(scratch);
        free(panel);
      }
    for (int i = 0; i < w.n_planes; i++) {
      free((void *)w.plane[i].at);
      free((void *)w.plane[i].bytes);
      free((void *)w.plane[i].model);
    }
    free(table);
  }
  printf("%ld tiles decoded, %ld refused\n", good, bad);
  return good && bad ? 0 : 1;
}
