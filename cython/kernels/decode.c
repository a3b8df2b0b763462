/* decode.c - a tile of coded weights to a panel of floats: finds the tile, lets its coder give symbols, looks up their values. */
#include "decode.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

/* byte offset of a tile whose weights take `bits` bits each (8 rows of one k always fill whole bytes) */
static uint64_t fixed_offset(const ei_weights *w, int64_t block, int64_t chunk, int64_t padded, uint64_t bits) {
  int64_t per = ei_blocks_per_group(w);
  int64_t group_rows = (per - 1) * EI_ROW_BLOCK + EI_PADDED(w->rows / w->groups - (per - 1) * EI_ROW_BLOCK);
  uint64_t rows_before = (uint64_t)(block / per * group_rows + block % per * EI_ROW_BLOCK);
  return (rows_before * (uint64_t)w->k + (uint64_t)(padded * chunk * w->k_chunk)) / 8 * bits;
}

ei_place EI_FN(ei_tile_place)(const ei_weights *w, const ei_plane *p, int64_t block, int64_t chunk, int64_t padded) {
  if (p->at) {
    const uint32_t *at = p->at + block * ei_chunks(w) + chunk;
    return (ei_place){p->bytes + at[0], at[1] - at[0]};
  }
  uint64_t bits = p->coder == EI_RAW_F32 ? 32 : p->coder == EI_RAW_F16 || p->coder == EI_RAW_BF16 ? 16 : (uint64_t)p->bits;
  return (ei_place){p->bytes + fixed_offset(w, block, chunk, padded, bits), (size_t)((uint64_t)(padded * ei_chunk_k(w, chunk)) / 8 * bits)};
}

/* bytes, which must be below the alphabet: vector forms look up 64 values only */
static int copy_symbols(const uint8_t *bytes, int64_t n, int alphabet, uint8_t *symbols) {
  uint8_t most = 0;
  for (int64_t i = 0; i < n; i++) {
    most = bytes[i] > most ? bytes[i] : most;
    symbols[i] = bytes[i];
  }
  return most < alphabet ? EI_OK : EI_BAD_STREAM;
}

int EI_FN(ei_decode_symbols)(const ei_plane *p, ei_place t, int64_t k, int64_t padded, int alphabet, uint8_t *symbols) {
  switch (p->coder) {
    case EI_RAW_U8: return copy_symbols(t.bytes, k * padded, alphabet, symbols);
    case EI_PACKED: return EI_FN(ei_decode_packed)(p, t.bytes, t.n, k, padded, symbols);
    case EI_HUFFMAN:
      return (p->lanes == EI_HUFFMAN_PLANES ? EI_FN(ei_decode_planes) : EI_FN(ei_decode_huffman))(p, t.bytes, t.n, k, padded, symbols);
    case EI_RANS: return EI_FN(ei_decode_rans)(p, t.bytes, t.n, k, padded, symbols);
    case EI_GAPS: return EI_FN(ei_decode_gaps)(p, t.bytes, t.n, k, padded, symbols);
    default: return EI_BAD_STREAM;
  }
}

static void expand_raw(int coder, const uint8_t *bytes, int64_t k, int64_t padded, float *panel) {
  int64_t ld = EI_PANEL_LD(padded);
  for (int64_t i = 0; i < k; i++, panel += ld) {
    if (coder == EI_RAW_F32) {
      memcpy(panel, bytes, (size_t)padded * 4);
      bytes += padded * 4;
      continue;
    }
    for (int64_t r = 0; r < padded; r += 8, bytes += 16) {
      if (coder == EI_RAW_BF16) {
        for (int j = 0; j < 8; j++) {
          uint32_t u = ei_load16(bytes + 2 * j) << 16;
          memcpy(panel + r + j, &u, 4);
        }
      } else {
#if defined(__F16C__)
        __m128i half;
        memcpy(&half, bytes, 16);
        _mm256_storeu_ps(panel + r, _mm256_cvtph_ps(half));
#else
        for (int j = 0; j < 8; j++) panel[r + j] = ei_half_value(ei_load16(bytes + 2 * j));
#endif
      }
    }
  }
}

int EI_FN(ei_decode_tile)(const ei_weights *w, int64_t block, int64_t chunk, void *scratch, float *panel) {
  int64_t rows = ei_block_rows(w, block), padded = EI_PADDED(rows), ld = EI_PANEL_LD(rows), k = ei_chunk_k(w, chunk);
  const ei_plane *p = w->plane;
  int signs = w->n_planes == 2 && !w->base_only;
  const float *table = w->n_planes == 2 && w->base_only ? w->base_table : w->table;
  int table_len = w->n_planes == 2 && w->base_only ? 2 : w->table_len;
  ei_place t = EI_FN(ei_tile_place)(w, p, block, chunk, padded), b = {NULL, 0};
  if (signs) b = EI_FN(ei_tile_place)(w, p + 1, block, chunk, padded);

  if (w->table_len == 0) {
    expand_raw(p->coder, t.bytes, k, padded, panel);
  } else if (padded == 32 && !signs && p->coder == EI_PACKED && EI_FN(ei_unpack_panel)(table, p->bits, t.bytes, NULL, k, panel)) {
  } else if (padded == 32 && signs && p[1].coder == EI_PACKED && EI_FN(ei_unpack_panel)(table, p[1].bits, b.bytes, t.bytes, k, panel)) {
  } else {
    uint8_t *first = scratch, *second = first + EI_ROW_BLOCK * (int64_t)w->k_chunk + 128;
    int status = EI_FN(ei_decode_symbols)(p, t, k, padded, w->table_len, first);
    if (status) return status;
    if (signs) {
      status = EI_FN(ei_decode_symbols)(p + 1, b, k, padded, w->table_len / 2, second);
      if (status) return status;
      for (int64_t i = 0; i < k * padded; i++) first[i] |= (uint8_t)(second[i] << 1);
    }
    EI_FN(ei_map_symbols)(table, table_len, first, k, padded, panel);
  }
  if (rows < ld)
    for (int64_t i = 0; i < k; i++)
      for (int64_t r = rows; r < ld; r++) panel[i * ld + r] = 0.0f;
  return EI_OK;
}
