/* weights.h - how coded weights look to the kernels.
 *
 * A weight tensor is a matrix of `rows` output rows times `k` inputs, in `groups` equal groups of rows (1 unless a
 * grouped convolution).  It is cut into tiles: a tile is one row block (up to EI_ROW_BLOCK rows that belong to one group)
 * times one chunk of k (up to k_chunk inputs).  Tiles are numbered block-major: tile = block * chunks + chunk.  A tile
 * can be decoded without any other.
 *
 * Inside a tile, symbols are ordered [k][row]: all rows of one k, then the next k.  The rows of a short block are padded
 * up to a multiple of EI_ROW_PAD with the symbol of the value nearest zero.  A decoded tile is a panel: float [k][ld], ld = 16 or 32
 * (EI_PANEL_LD), rows that do not exist hold 0.
 *
 * The order of additions over k is part of this layout, see conv.c: a chunk is summed in EI_SEGMENTS contiguous segments
 * of ei_segment() inputs each; every segment is summed from zero, one k after the other; segment sums are added to the
 * running total in order, chunk after chunk.  Row scale, bias, residual and activation follow once, at the end.
 */
#ifndef EI_WEIGHTS_H
#define EI_WEIGHTS_H
#include <stddef.h>
#include <stdint.h>

#define EI_ROW_BLOCK 32
#define EI_ROW_PAD 8
#define EI_SEGMENTS 4
#define EI_OVERREAD 64 /* bytes readable behind every coded plane */

#define EI_PANEL_LD(rows) ((rows) > 16 ? 32 : 16)
#define EI_PADDED(rows) (((rows) + EI_ROW_PAD - 1) / EI_ROW_PAD * EI_ROW_PAD)

/* inputs per segment of a chunk of n inputs: a quarter, rounded up to 8; at least 64, because every end of a segment costs time */
static inline int64_t ei_segment(int64_t n) {
  int64_t quarter = ((n + EI_SEGMENTS - 1) / EI_SEGMENTS + 7) / 8 * 8;
  return quarter < 64 ? 64 : quarter;
}

enum ei_coder { EI_RAW_F32, EI_RAW_F16, EI_RAW_BF16, EI_RAW_U8, EI_PACKED, EI_HUFFMAN, EI_RANS, EI_GAPS };

/* negative statuses of every kernel that can fail */
enum ei_status { EI_OK = 0, EI_BAD_STREAM = -1, EI_STOPPED = -2, EI_BAD_STEP = -3, EI_BAD_INDEX = -4, EI_NO_SCRATCH = -5 };

typedef struct {          /* one stream of symbols: all tiles of one plane */
  int32_t coder;          /* enum ei_coder */
  int32_t bits;           /* width of a symbol in bits (packed, gaps' values); 8 at most */
  int32_t lanes;          /* rans: interleaved states; huffman: streams; gaps: the symbol left out */
  int32_t extra;          /* coder's own: gap width in bits, longest code, log2 of the frequency total ... */
  const void *model;      /* decode table built from the stored code lengths or frequencies; NULL where not needed */
  const uint32_t *at;     /* tiles + 1 byte offsets into bytes; NULL for coders whose tiles have a computed size */
  const uint8_t *bytes;
  uint64_t n_bytes;
} ei_plane;

typedef struct {
  int64_t rows, k;
  int32_t groups, k_chunk;
  int32_t n_planes;       /* 1; 2 for sign: plane 0 the sign bits, plane 1 the residual buckets */
  int32_t base_only;      /* 1: decode plane 0 alone, with base_table */
  int32_t table_len;      /* 1..256; 0 for raw floats.  Two planes: symbol = sign + 2 * bucket */
  const float *table;     /* symbol -> value; readable (zeros) for every value of the symbol's bits */
  const float *base_table;/* two values, the sign centroids; NULL unless two planes */
  const float *row_scale; /* rows factors, or NULL: all 1 */
  ei_plane plane[2];
} ei_weights;

static inline int64_t ei_blocks_per_group(const ei_weights *w) {
  return (w->rows / w->groups + EI_ROW_BLOCK - 1) / EI_ROW_BLOCK;
}
static inline int64_t ei_blocks(const ei_weights *w) { return w->groups * ei_blocks_per_group(w); }
static inline int64_t ei_chunks(const ei_weights *w) { return (w->k + w->k_chunk - 1) / w->k_chunk; }
/* rows of a block, and its first row in the whole matrix */
static inline int64_t ei_block_first(const ei_weights *w, int64_t block) {
  int64_t per = ei_blocks_per_group(w);
  return block / per * (w->rows / w->groups) + block % per * EI_ROW_BLOCK;
}
static inline int64_t ei_block_rows(const ei_weights *w, int64_t block) {
  int64_t left = w->rows / w->groups - block % ei_blocks_per_group(w) * EI_ROW_BLOCK;
  return left < EI_ROW_BLOCK ? left : EI_ROW_BLOCK;
}
static inline int64_t ei_chunk_k(const ei_weights *w, int64_t chunk) {
  int64_t left = w->k - chunk * w->k_chunk;
  return left < w->k_chunk ? left : w->k_chunk;
}
/* floats that a whole matrix takes once decoded: every row block k x EI_ROW_BLOCK (recurrent steps keep that as workspace) */
static inline int64_t ei_whole_panels(int64_t rows, int64_t k) { return (rows + EI_ROW_BLOCK - 1) / EI_ROW_BLOCK * k * EI_ROW_BLOCK; }
/* bytes of scratch that decode_tile needs: symbols of both planes of one tile, and slack for overlong stores */
static inline size_t ei_decode_scratch(int64_t k_chunk) { return (size_t)(2 * EI_ROW_BLOCK * k_chunk + 256); }

/* Decode tile (block, chunk) into panel[k][ld], ld = EI_PANEL_LD(rows of the block).  scratch: ei_decode_scratch() bytes, 64-byte
 * aligned.  0, or EI_BAD_STREAM where the bytes are not a valid tile (never reads or writes out of bounds). */
typedef int ei_decode_tile_fn(const ei_weights *w, int64_t block, int64_t chunk, void *scratch, float *panel);

#endif
