/* decode_planes.c - canonical Huffman tiles whose code bits lie in planes by their depth, so that 64 symbols are decoded at a time.
 *
 * Tile: u16 lengths in bytes of all streams but the last; the first `shortest` bits of every code as packed fields (decode_packed.c), the first bit
 * of a code highest; then one stream for each further depth: the next bit of every symbol whose code is longer, in order [k][padded row], bits
 * filled from the low end of each byte, last byte padded with zeros.
 *
 * Codes are canonical, so the nodes at one depth, counted from the left, are first the leaves reached so far and then the inner nodes.  With s the
 * number of a symbol's node and n the number of leaves so far, a leaf stays s and an inner node's child is s + (s - n) + bit; after the
 * last depth s is the rank of the symbol in the order of codes.  A depth is one comparison (which symbols go on), one deposit of stream bits to those
 * symbols, one saturating subtraction and two additions for all symbols at once, as in wavelet trees.  A whole tile goes through one depth before the next: neighbours
 * then depend on each other only by where the stream is, and the processor overlaps them.
 */
#include "decode.h"

typedef struct {
  const uint8_t *bytes;
  uint64_t at, end; /* next bit; bits of the stream */
} stream;

/* nodes from .. to - 1 one depth further */
static int go_down(stream *s, int leaves, int64_t from, int64_t to, uint8_t *nodes) {
  for (int64_t i = from; i < to; i++) {
    if (s->at > s->end) return EI_BAD_STREAM; /* then at most the byte behind the end is read */
    const int node = nodes[i], on = node >= leaves, bit = s->bytes[s->at >> 3] >> (s->at & 7) & on;
    nodes[i] = (uint8_t)(node + (on ? node - leaves : 0) + bit);
    s->at += (uint64_t)on;
  }
  return EI_OK;
}

#if defined(__AVX2__) && defined(__BMI2__) && defined(__x86_64__)
#include <immintrin.h>

/* rounds of 64 symbols between two checks of a stream: 8 bytes each, and up to 16 are read at once, which is less than EI_OVERREAD */
enum { ROUNDS = 4 };

/* the next bits of a stream, as many as `on` has ones, at the places of these ones */
static inline __attribute__((always_inline)) uint64_t deposit(stream *s, uint64_t on) {
  const uint8_t *p = s->bytes + (s->at >> 6) * 8;
  /* shifts count modulo 64 */
  const uint64_t bits = ei_load64(p) >> (s->at & 63) | ei_load64(p + 8) << 1 << (~s->at & 63);
  s->at += (uint64_t)__builtin_popcountll(on);
  return _pdep_u64(bits, on);
}

#if defined(__AVX512VBMI__)
enum { MOST_NODES = 256, MOST_RANKS = 64 };

static inline __attribute__((always_inline)) void round64(stream *s, int leaves, uint8_t *nodes) {
  const __m512i v = _mm512_loadu_si512(nodes), n = _mm512_set1_epi8((char)leaves);
  const __mmask64 bits = deposit(s, _mm512_cmpge_epu8_mask(v, n));
  const __m512i sum = _mm512_add_epi8(v, _mm512_subs_epu8(v, n));
  _mm512_storeu_si512(nodes, _mm512_mask_sub_epi8(sum, bits, sum, _mm512_set1_epi8(-1)));
}

/* multiples of 64 symbols of their ranks */
static void name_symbols(const uint8_t *symbol, int used, int64_t n, uint8_t *nodes) {
  const __m512i table = _mm512_loadu_si512(symbol);
  (void)used;
  for (int64_t i = 0; i < n; i += 64) _mm512_storeu_si512(nodes + i, _mm512_permutexvar_epi8(_mm512_loadu_si512(nodes + i), table));
}
#else
enum { MOST_NODES = 128, MOST_RANKS = 32 }; /* bytes are compared as signed numbers */

/* the nodes that get a bit: spread says which byte of the bits a node finds its own in */
static inline __attribute__((always_inline)) void next_nodes(__m256i v, __m256i leaves, __m256i bits, __m256i spread, uint8_t *nodes) {
  const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201ull);
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(bits, spread), bit), bit);
  _mm256_storeu_si256((__m256i *)nodes, _mm256_sub_epi8(_mm256_add_epi8(v, _mm256_subs_epu8(v, leaves)), set));
}

static inline __attribute__((always_inline)) void round64(stream *s, int leaves, uint8_t *nodes) {
  const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i a = _mm256_loadu_si256((const __m256i *)nodes), b = _mm256_loadu_si256((const __m256i *)(nodes + 32));
  const __m256i n = _mm256_set1_epi8((char)leaves), last = _mm256_set1_epi8((char)(leaves - 1));
  const uint64_t on = (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(a, last)) |
                      (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(b, last)) << 32;
  const __m256i bits = _mm256_set1_epi64x((int64_t)deposit(s, on));
  next_nodes(a, n, bits, spread, nodes);
  next_nodes(b, n, bits, _mm256_add_epi8(spread, _mm256_set1_epi8(4)), nodes + 32);
}

static void name_symbols(const uint8_t *symbol, int used, int64_t n, uint8_t *nodes) {
  const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)symbol));
  const __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(symbol + 16)));
  for (int64_t i = 0; i < n; i += 32) {
    const __m256i v = _mm256_loadu_si256((const __m256i *)(nodes + i));
    __m256i x = _mm256_shuffle_epi8(low, v);
    if (used > 16) x = _mm256_blendv_epi8(x, _mm256_shuffle_epi8(high, v), _mm256_slli_epi16(v, 3));
    _mm256_storeu_si256((__m256i *)(nodes + i), x);
  }
}
#endif

/* whole rounds of 64 symbols; returns how many symbols were taken one depth further */
static int64_t rounds(const ei_planes_model *model, stream *to, int leaves, int64_t n, uint8_t *nodes) {
  stream s = *to;
  int64_t done = 0;
  if (model->used > MOST_NODES) return 0;
  while (s.at <= s.end && n - done >= 64) {
    const int64_t left = (n - done) / 64, now = left < ROUNDS ? left : ROUNDS;
    for (int64_t r = 0; r < now; r++, done += 64) round64(&s, leaves, nodes + done);
  }
  to->at = s.at;
  return done;
}
#else
enum { MOST_RANKS = 0 };
static void name_symbols(const uint8_t *symbol, int used, int64_t n, uint8_t *nodes) { (void)symbol, (void)used, (void)n, (void)nodes; }
static int64_t rounds(const ei_planes_model *model, stream *to, int leaves, int64_t n, uint8_t *nodes) {
  (void)model, (void)to, (void)leaves, (void)n, (void)nodes;
  return 0;
}
#endif

int EI_FN(ei_decode_planes)(const ei_plane *plane, const uint8_t *tile, size_t tile_bytes, int64_t k, int64_t padded, uint8_t *symbols) {
  const ei_planes_model *model = plane->model;
  const int depths = model->longest - model->shortest;
  const size_t header = depths > 1 ? 2 * (size_t)(depths - 1) : 0, first = (size_t)(k * padded) / 8 * (size_t)model->shortest;
  if (tile_bytes < header + first) return EI_BAD_STREAM;
  const uint8_t *p = tile + header + first, *end = tile + tile_bytes;
  const int64_t n = k * padded;
  const ei_plane fields = {.coder = EI_PACKED, .bits = model->shortest};
  EI_FN(ei_decode_packed)(&fields, tile + header, first, k, padded, symbols);
  for (int d = 0; d < depths; d++) {
    const size_t bytes = d < depths - 1 ? ei_load16(tile + 2 * d) : (size_t)(end - p);
    if (bytes > (size_t)(end - p)) return EI_BAD_STREAM;
    stream s = {p, 0, 8 * (uint64_t)bytes};
    const int leaves = model->leaves[model->shortest + d];
    const int64_t done = rounds(model, &s, leaves, n, symbols);
    /* what was read must end in the stream's last byte */
    if (go_down(&s, leaves, done, n, symbols) || (s.at + 7) / 8 != bytes) return EI_BAD_STREAM;
    p += bytes;
  }
  if (p != end) return EI_BAD_STREAM;
  const int64_t named = model->used <= MOST_RANKS ? n / 64 * 64 : 0;
  name_symbols(model->symbol, model->used, named, symbols);
  for (int64_t i = named; i < n; i++) symbols[i] = model->symbol[symbols[i]];
  return EI_OK;
}
