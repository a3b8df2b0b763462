/* decode.h - what the decoders of one variant share. */
#ifndef EI_DECODE_H
#define EI_DECODE_H
#include <string.h>

#include "models.h"
#include "table.h"

/* Symbols of one tile, [k][padded rows], from the plane's tile `tile`.  symbols: count bytes, and 64 that may be scribbled on.
 * 0 or EI_BAD_STREAM. */
typedef int ei_decode_symbols_fn(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols);
ei_decode_symbols_fn EI_FN(ei_decode_packed), EI_FN(ei_decode_huffman), EI_FN(ei_decode_planes), EI_FN(ei_decode_rans), EI_FN(ei_decode_gaps);

/* the bytes of a tile in a plane */
typedef struct {
  const uint8_t *bytes;
  size_t n;
} ei_place;
ei_place EI_FN(ei_tile_place)(const ei_weights *w, const ei_plane *p, int64_t block, int64_t chunk, int64_t padded);

/* symbols of a tile by whatever its plane's coder is; arguments and result as ei_decode_symbols_fn */
int EI_FN(ei_decode_symbols)(const ei_plane *p, ei_place t, int64_t k, int64_t padded, int alphabet, uint8_t *symbols);

/* values of symbols by table: panel[k][ld], ld = EI_PANEL_LD(padded); padded rows get their symbol's value */
void EI_FN(ei_map_symbols)(const float *table, int table_len, const uint8_t *symbols, int64_t k, int64_t padded, float *panel);

/* Packed planes of 32 rows straight to a panel (instruction sets that can).  signs: a packed 1-bit plane below the symbol's other
 * bits, or NULL.  Returns 0 where there is no such path for these widths. */
int EI_FN(ei_unpack_panel)(const float *table, int bits, const uint8_t *tile, const uint8_t *signs, int64_t k, float *panel);

/* symbols of a packed plane of 32 rows; 0 where there is no such path */
int EI_FN(ei_unpack_symbols)(int bits, const uint8_t *tile, int64_t k, uint8_t *symbols);

static inline uint64_t ei_load64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return v;
}
static inline uint32_t ei_load32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return v;
}
static inline uint32_t ei_load16(const uint8_t *p) {
  uint16_t v;
  memcpy(&v, p, 2);
  return v;
}

#endif
