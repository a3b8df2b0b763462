/* decode_packed.c - fixed-width symbols, generic form.
 *
 * A width of b bits is split into fields of 8 | 4, 2, 1 bits, widest first; the widest field holds the symbol's low bits.  For one k and R
 * padded rows a field of f bits takes R * f / 8 bytes: byte j holds the rows j + i * (R * f / 8) at bits [i * f, (i + 1) * f).
 */
#include "decode.h"

/* padded and field are constants wherever this is inlined, so the loops become vector code */
static inline __attribute__((always_inline)) const uint8_t *unpack_field(const uint8_t *tile, int64_t padded, int field, int low, uint8_t *symbols) {
  int64_t bytes = padded * field / 8;
  uint8_t mask = (uint8_t)((1 << field) - 1);
  for (int part = 0; part < 8 / field; part++)
    for (int64_t j = 0; j < bytes; j++) {
      uint8_t bits = tile[j] >> (part * field) & mask;
      uint8_t *out = symbols + part * bytes + j;
      *out = low ? (uint8_t)(*out | bits << low) : bits;
    }
  return tile + bytes;
}

static inline __attribute__((always_inline)) void unpack_rows(int bits, const uint8_t *tile, int64_t k, int64_t padded, uint8_t *symbols) {
  for (int64_t i = 0; i < k; i++, symbols += padded) {
    if (bits & 4) tile = unpack_field(tile, padded, 4, 0, symbols);
    if (bits & 2) tile = unpack_field(tile, padded, 2, bits & 4, symbols);
    if (bits & 1) tile = unpack_field(tile, padded, 1, bits & 6, symbols);
  }
}

int EI_FN(ei_decode_packed)(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols) {
  int bits = plane->bits;
  if (bits == 8) {
    memcpy(symbols, tile, tile_bytes);
    return EI_OK;
  }
  if (padded == 32 && EI_FN(ei_unpack_symbols)(bits, tile, k, symbols)) return EI_OK;
#define WIDTHS(PADDED)                                             \
  switch (bits) {                                                  \
    case 1: unpack_rows(1, tile, k, PADDED, symbols); break;       \
    case 2: unpack_rows(2, tile, k, PADDED, symbols); break;       \
    case 3: unpack_rows(3, tile, k, PADDED, symbols); break;       \
    case 4: unpack_rows(4, tile, k, PADDED, symbols); break;       \
    case 5: unpack_rows(5, tile, k, PADDED, symbols); break;       \
    case 6: unpack_rows(6, tile, k, PADDED, symbols); break;       \
    default: unpack_rows(7, tile, k, PADDED, symbols); break;      \
  }
  switch (padded) {
    case 8: WIDTHS(8) break;
    case 16: WIDTHS(16) break;
    case 24: WIDTHS(24) break;
    default: WIDTHS(32) break;
  }
  return EI_OK;
}
