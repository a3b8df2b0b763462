/* decode_gaps.c - EIE's relative index over a tile's linear order [k][padded row].
 *
 * Tile: u32 number of entries, then entries of plane->extra + plane->bits bits from the low end of each byte: the gap (how many symbols are
 * left out before this one), then the symbol.  A gap too long for its field is bridged by entries of the greatest gap whose symbol is the
 * one left out (plane->lanes).  What follows the last entry is left out too.
 */
#include "decode.h"

int EI_FN(ei_decode_gaps)(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols) {
  if (tile_bytes < EI_GAPS_HEADER) return EI_BAD_STREAM;
  uint64_t n = ei_load32(tile), width = (uint64_t)(plane->extra + plane->bits), total = (uint64_t)(k * padded), at = 0;
  if (n > total || (n * width + 7) / 8 != tile_bytes - EI_GAPS_HEADER) return EI_BAD_STREAM;
  const uint8_t *p = tile + EI_GAPS_HEADER;
  uint64_t gap_mask = (1ull << plane->extra) - 1, symbol_mask = (1ull << plane->bits) - 1;
  memset(symbols, plane->lanes, total);
  for (uint64_t i = 0, bit = 0; i < n; i++, bit += width) {
    uint64_t e = ei_load64(p + (bit >> 3)) >> (bit & 7);
    at += e & gap_mask;
    if (at >= total) return EI_BAD_STREAM;
    symbols[at++] = (uint8_t)(e >> plane->extra & symbol_mask);
  }
  return EI_OK;
}
