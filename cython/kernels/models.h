/* models.h - decode models: what attach builds from the stored code lengths or frequencies, and how tiles of each coder look.
 *
 * Models are built by the functions below into memory that the caller owns; they check the stored form completely, because decoders trust a
 * model.  Decoders trust nothing that comes from a tile: they bound every read by the tile's end plus EI_OVERREAD and every
 * symbol by the alphabet.
 */
#ifndef EI_MODELS_H
#define EI_MODELS_H
#include "weights.h"

#define EI_HUFFMAN_LONGEST 11   /* bits of the longest code */
#define EI_HUFFMAN_STREAMS 4    /* one per segment of k */
#define EI_HUFFMAN_HEADER 6     /* bytes: u16 lengths of the first three streams; the fourth takes the rest */
#define EI_HUFFMAN_RUN 6        /* symbols that one table look-up gives at most */
#define EI_HUFFMAN_PLANES 0     /* `lanes` of a plane whose code bits lie in planes by depth (decode_planes.c) */
#define EI_RANS_LANES 32        /* most interleaved states of a tile */
#define EI_RANS_LOW (1u << 16)  /* a state is in [2^16, 2^32); it starts (for the decoder: ends) at 2^16 */
#define EI_RANS_MOST_BITS 12    /* log2 of the frequency total: at most */
#define EI_GAPS_HEADER 4        /* bytes: u32 number of entries */

/* Entry of a Huffman table, indexed by the next `bits` bits of the stream (first bit lowest): bytes 0..5 the symbols,
 * bits 48..51 how many, bits 52..55 the length of the first code, bits 56..63 the length of all. */
typedef struct {
  int64_t bits;
  uint64_t entry[];
} ei_huffman_model;

/* Codes whose bits lie in planes: the depths at which leaves begin and end, leaves[d]: codes of at most d bits, symbols in the order of
 * codes.  A code of one symbol has two leaves of depth 1. */
typedef struct {
  int32_t shortest, longest, used;
  int32_t leaves[EI_HUFFMAN_LONGEST + 1];
  uint8_t symbol[256];
} ei_planes_model;

/* Entry of a rANS table, indexed by the slot: symbol | (frequency - 1) << 8 | (slot - first slot of the symbol) << 20 */
typedef struct {
  int64_t bits;
  uint32_t entry[];
} ei_rans_model;

/* bits of the Huffman table of a tensor: a big tensor earns a table whose look-ups give several symbols, a small one a small table */
static inline int ei_huffman_table_bits(int longest, uint64_t weights) {
  return weights >= 65536 ? EI_HUFFMAN_LONGEST : longest;
}
static inline size_t ei_huffman_model_size(int table_bits) { return sizeof(ei_huffman_model) + ((size_t)8 << table_bits); }
static inline size_t ei_rans_model_size(int bits) { return sizeof(ei_rans_model) + ((size_t)4 << bits); }

/* IEEE half to float */
static inline float ei_half_value(uint32_t h) {
  /* shift exponent and mantissa into place and correct the bias by a multiplication, which also normalises subnormals */
  union { uint32_t u; float f; } v = {(h & 0x7fff) << 13}, magic = {0x77800000}; /* 2^112 */
  v.f *= magic.f;
  if ((h & 0x7c00) == 0x7c00) v.u = 0x7f800000 | (h & 0x3ff) << 13 | (h & 0x3ff ? 0x400000 : 0);
  v.u |= (h & 0x8000) << 16;
  return v.f;
}

/* lengths: a nibble per symbol, low one first, 0 = does not occur.  0, or EI_BAD_STREAM unless the code is complete and no code
 * is longer than `longest` <= table_bits <= EI_HUFFMAN_LONGEST; a code of one symbol has length 1. */
int ei_build_huffman(const uint8_t *lengths, int alphabet, int longest, int table_bits, ei_huffman_model *model);
/* the same for bits in planes */
int ei_build_planes(const uint8_t *lengths, int alphabet, int longest, ei_planes_model *model);
/* frequencies: u16 little endian per symbol.  0, or EI_BAD_STREAM unless they sum to 2^bits, 1 <= bits <= EI_RANS_MOST_BITS. */
int ei_build_rans(const uint8_t *frequencies, int alphabet, int bits, ei_rans_model *model);

#endif
