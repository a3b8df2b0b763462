/* decode_rans.c - rANS tiles of interleaved 32-bit states.
 *
 * Tile: `lanes` u32 states, then u16 words.  Symbol i of the tile's order [k][padded row] belongs to state i mod lanes; a state that falls
 * below 2^16 takes the next word, states in order.  After the last symbol every state is 2^16 again and every word is used: that is checked.
 */
#include "decode.h"

static inline __attribute__((always_inline)) int decode_lanes(const ei_rans_model *model, const uint8_t *p, const uint8_t *end, int lanes, int64_t n, uint8_t *out) {
  uint32_t x[EI_RANS_LANES], mask = (1u << model->bits) - 1;
  const uint32_t *entry = model->entry;
  int bits = (int)model->bits;
  if (end - p < 4 * lanes) return EI_BAD_STREAM;
  for (int i = 0; i < lanes; i++) {
    x[i] = ei_load32(p + 4 * i);
    if (x[i] < EI_RANS_LOW) return EI_BAD_STREAM;
  }
  p += 4 * lanes;
  for (int64_t done = 0; done < n; done += lanes) {
    int now = n - done < lanes ? (int)(n - done) : lanes;
    if (p > end) return EI_BAD_STREAM; /* a round reads at most 2 * EI_RANS_LANES = EI_OVERREAD bytes */
    for (int i = 0; i < now; i++) {
      uint32_t e = entry[x[i] & mask];
      uint32_t y = ((e >> 8 & 0xfff) + 1) * (x[i] >> bits) + (e >> 20);
      uint32_t low = y < EI_RANS_LOW;
      x[i] = low ? y << 16 | ei_load16(p) : y;
      p += 2 * low;
      out[done + i] = (uint8_t)e;
    }
  }
  if (p != end) return EI_BAD_STREAM;
  uint32_t odd = 0;
  for (int i = 0; i < lanes; i++) odd |= x[i] ^ EI_RANS_LOW;
  return odd ? EI_BAD_STREAM : EI_OK;
}

int EI_FN(ei_decode_rans)(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols) {
  const uint8_t *end = tile + tile_bytes;
  switch (plane->lanes) {
    case 1: return decode_lanes(plane->model, tile, end, 1, k * padded, symbols);
    case 8: return decode_lanes(plane->model, tile, end, 8, k * padded, symbols);
    case 32: return decode_lanes(plane->model, tile, end, 32, k * padded, symbols);
    default: return EI_BAD_STREAM;
  }
}
