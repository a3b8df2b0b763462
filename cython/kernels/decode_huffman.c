/* decode_huffman.c - canonical Huffman tiles of four streams, one per segment of k.
 *
 * Tile: u16 lengths in bytes of streams 0..2, then the four streams.  Stream s codes the symbols of segment s in order
 * [k][padded row], first bit of a code first, bits filled from the low end of each byte, last byte padded with zeros.
 * The four streams are decoded in turn so that four look-ups are in flight; a look-up gives up to EI_HUFFMAN_RUN symbols.
 */
#include "decode.h"

typedef struct {
  const uint8_t *next, *end; /* next byte to load; end of this stream */
  const uint8_t *begin;
  uint64_t window;           /* the next bits, lowest first; at least `bits` of them are right */
  unsigned bits;
  uint8_t *out, *out_end;
} stream;

/* At least 56 bits in the window.  The caller has checked next <= end + 8, so this reads at most 16 bytes behind the stream's end. */
static inline void refill(stream *s) {
  s->window |= ei_load64(s->next) << s->bits;
  s->next += (63 - s->bits) >> 3;
  s->bits |= 56;
}

static inline void look_up(stream *s, const uint64_t *entry, uint64_t mask) {
  uint64_t e = entry[s->window & mask];
  memcpy(s->out, &e, 8);
  s->out += e >> 48 & 15;
  s->window >>= e >> 56;
  s->bits -= (unsigned)(e >> 56);
}

static int finish(stream *s, const uint64_t *entry, uint64_t mask) {
  while (s->out < s->out_end) {
    if (s->next > s->end + 8) return EI_BAD_STREAM;
    refill(s);
    if (s->out_end - s->out >= 5 * EI_HUFFMAN_RUN + 8) {
      for (int i = 0; i < 5; i++) look_up(s, entry, mask);
    } else {
      for (int i = 0; i < 5 && s->out < s->out_end; i++) { /* one at a time: a run could pass the end */
        uint64_t e = entry[s->window & mask], n = e >> 52 & 15;
        *s->out++ = (uint8_t)e;
        s->window >>= n;
        s->bits -= (unsigned)n;
      }
    }
  }
  /* consumed bits must end in the stream's last byte */
  int64_t consumed = (s->next - s->begin) * 8 - s->bits;
  return (consumed + 7) / 8 == s->end - s->begin ? EI_OK : EI_BAD_STREAM;
}

int EI_FN(ei_decode_huffman)(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols) {
  const ei_huffman_model *model = plane->model;
  const uint64_t *entry = model->entry;
  uint64_t mask = (1ull << model->bits) - 1;
  stream s[EI_HUFFMAN_STREAMS];
  if (tile_bytes < EI_HUFFMAN_HEADER) return EI_BAD_STREAM;
  const uint8_t *p = tile + EI_HUFFMAN_HEADER, *end = tile + tile_bytes;
  int64_t segment = ei_segment(k);
  for (int i = 0; i < EI_HUFFMAN_STREAMS; i++) {
    int64_t from = i * segment < k ? i * segment : k, to = (i + 1) * segment < k ? (i + 1) * segment : k;
    size_t n = i < EI_HUFFMAN_STREAMS - 1 ? ei_load16(tile + 2 * i) : (size_t)(end - p);
    if (n > (size_t)(end - p)) return EI_BAD_STREAM;
    s[i] = (stream){p, p + n, p, 0, 0, symbols + from * padded, symbols + to * padded};
    p += n;
  }
  stream a = s[0], b = s[1], c = s[2], d = s[3];
#define LEFT(s) ((s).out_end - (s).out >= 5 * EI_HUFFMAN_RUN + 8 && (s).next <= (s).end + 8)
  while (LEFT(a) & LEFT(b) & LEFT(c) & LEFT(d)) {
    refill(&a), refill(&b), refill(&c), refill(&d);
    for (int i = 0; i < 5; i++) look_up(&a, entry, mask), look_up(&b, entry, mask), look_up(&c, entry, mask), look_up(&d, entry, mask);
  }
#undef LEFT
  int bad = finish(&a, entry, mask) | finish(&b, entry, mask) | finish(&c, entry, mask) | finish(&d, entry, mask);
  return bad ? EI_BAD_STREAM : EI_OK;
}
