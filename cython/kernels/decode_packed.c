/* decode_packed.c - fixed-width symbols, generic form.
 *
 * A width of b bits is split into fields of 8 | 4, 2, 1 bits, widest first; the widest field holds the symbol's low bits.  For one k and R
 * padded rows a field of f bits takes R * f / 8 bytes: byte j holds the rows j + i * (R * f / 8) at bits [i * f, (i + 1) * f).
 */
#include "decode.h"

int EI_FN(ei_decode_packed)(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols) {
  (void)tile_bytes;
  for (int64_t i = 0; i < k; i++, symbols += padded) {
    int low = 0;
    for (int field = 8; field; field >>= 1) {
      if (!(plane->bits & field)) continue;
      int64_t bytes = padded * field / 8;
      uint8_t mask = (uint8_t)((1 << field) - 1);
      for (int64_t part = 0; part < 8 / field; part++) {
        uint8_t *out = symbols + part * bytes;
        int shift = (int)part * field;
        if (low == 0)
          for (int64_t j = 0; j < bytes; j++) out[j] = tile[j] >> shift & mask;
        else
          for (int64_t j = 0; j < bytes; j++) out[j] |= (uint8_t)((tile[j] >> shift & mask) << low);
      }
      tile += bytes;
      low += field;
    }
  }
  return EI_OK;
}
