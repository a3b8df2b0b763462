/* conv.c - convolutions and matrix products by weights that stay coded.
 *
 * Work unit: one row block (32 output channels) times a range of output pixels.  For every chunk of k the tile is decoded into a panel
 * in scratch, then the range's pixels are taken EI_MR at a time: every pixel has one pointer per run of inputs (no im2col), pixels of
 * the padding point to zeros.  Where runs would be short (few input channels) the pixels' inputs are packed side by side first.
 * Neither changes the order of additions, so a pixel's result depends on nothing but its own inputs.
 *
 * The inputs of a kernel row form one long run where they lie side by side in memory (dense x, one group, no dilation).
 */
#include "finish.h"
#include "gemv.h"
#include "micro.h"
#include "scratch.h"
#include "winograd.h"

enum { SHORT_RUN = 16, TINY_RUN = 8, RANGE = 510, MIN_RANGE = 120, ENOUGH_UNITS = 8, WORTH_A_THREAD = 60000 };

typedef struct {
  int32_t len, row, pos; /* inputs; kernel row; first input within the kernel row, counted kw * channels */
  int64_t off;           /* distance of the first input from the pixel's first input */
} piece;

typedef struct {
  int64_t base;             /* distance of the tap (0, 0), channel 0 of the group, from x; may lie outside */
  int32_t row0, row1;       /* kernel rows inside the image */
  int32_t pos0, pos1;       /* inputs of a kernel row inside the image */
  int32_t interior;         /* all taps are inside */
} pixel;

typedef struct {
  const ei_conv_ints *i;
  const ei_weights *w;
  int64_t channels, pixels, blocks, chunks, ranges, most_pieces;
  int pointwise, whole_rows, packs, splits; /* splits: pixels at the border take shorter pieces (single taps) */
} form;

typedef struct {
  void *decode;
  float *panel, *total, *zeros, *pack;
  pixel *pixels;
  const float **ptr;
  piece *pieces, *taps;
  int32_t *piece_len, *tap_len;
} space;

static form form_of(const ei_step *step) {
  form f = {.i = (const ei_conv_ints *)step->i, .w = step->w};
  const ei_conv_ints *i = f.i;
  f.channels = i->in_c / i->groups;
  f.pixels = i->images * i->out_h * i->out_w;
  f.blocks = ei_blocks(f.w);
  f.chunks = ei_chunks(f.w);
  const int64_t pads = i->pad_top | i->pad_left;
  f.pointwise = i->kh == 1 && i->kw == 1 && i->stride_h == 1 && i->stride_w == 1 && !pads && i->in_h == i->out_h && i->in_w == i->out_w;
  f.whole_rows = i->kw > 1 && i->dilation_w == 1 && i->x_ld == f.channels;
  const int64_t run = f.whole_rows ? i->kw * f.channels : f.channels;
  f.packs = !f.pointwise && f.channels < SHORT_RUN && i->kh * i->kw > 1;
  f.splits = f.whole_rows && !f.packs;
  if (f.packs && run < TINY_RUN) f.packs = 2; /* 2: pack always, 1: only at the border */
  const int64_t shortest = f.splits ? f.channels : run;
  f.most_pieces = f.w->k_chunk / shortest + 2 + EI_SEGMENTS;

  int64_t ranges = (f.pixels + RANGE - 1) / RANGE;
  while (f.blocks * ranges < ENOUGH_UNITS && f.pixels / (ranges + 1) >= MIN_RANGE) ranges++;
  f.ranges = ranges < 1 ? 1 : ranges;
  return f;
}

static size_t lay_out(const form *f, space *s, void *memory) {
  ei_scratch at = {memory, 0};
  const int64_t chunk = f->w->k < f->w->k_chunk ? f->w->k : f->w->k_chunk;
  const int64_t range = (f->pixels + f->ranges - 1) / f->ranges;
  s->decode = ei_take(&at, ei_decode_scratch(f->w->k_chunk));
  s->panel = ei_take(&at, (size_t)chunk * EI_ROW_BLOCK * 4);
  s->total = ei_take(&at, (size_t)(f->chunks > 1 ? range : EI_MR) * EI_ROW_BLOCK * 4);
  s->ptr = ei_take(&at, (size_t)f->most_pieces * EI_MR * sizeof(float *));
  s->pieces = ei_take(&at, (size_t)f->most_pieces * sizeof(piece));
  s->piece_len = ei_take(&at, (size_t)f->most_pieces * 4);
  s->taps = ei_take(&at, f->splits ? (size_t)f->most_pieces * sizeof(piece) : 0);
  s->tap_len = ei_take(&at, f->splits ? (size_t)f->most_pieces * 4 : 0);
  s->pixels = ei_take(&at, f->pointwise ? 0 : (size_t)range * sizeof(pixel));
  s->pack = ei_take(&at, f->packs ? (size_t)chunk * EI_MR * 4 : 0);
  s->zeros = ei_take(&at, f->pointwise ? 0 : (size_t)f->channels * 4);
  return at.used;
}

/* cut a chunk into runs at the ends of segments and after every `unit` inputs */
static int cut(const form *f, int64_t k0, int64_t n, int whole_rows, piece *pieces, int32_t *len, ei_runs *runs) {
  const ei_conv_ints *i = f->i;
  const int64_t unit = whole_rows ? i->kw * f->channels : f->channels, segment = ei_segment(n);
  int count = 0;
  runs->len = len;
  for (int s = 0; s < EI_SEGMENTS; s++) {
    runs->first[s] = count;
    int64_t end = (s + 1) * segment < n ? (s + 1) * segment : n;
    for (int64_t at = s * segment; at < end;) {
      int64_t k = k0 + at, inside = k % unit, take = unit - inside < end - at ? unit - inside : end - at;
      int64_t row = whole_rows ? k / unit : k / unit / i->kw, column = whole_rows ? 0 : k / unit % i->kw;
      pieces[count] = (piece){(int32_t)take, (int32_t)row, (int32_t)(column * f->channels + inside),
                              (row * i->dilation_h * i->in_w + column * i->dilation_w) * i->x_ld + inside};
      len[count++] = (int32_t)take;
      at += take;
    }
    runs->first[s + 1] = count;
  }
  return count;
}

/* taps [*from, *to) of n whose coordinate start + tap * step lies in 0 .. size - 1 */
static inline void inside(int64_t start, int64_t step, int64_t n, int64_t size, int32_t *from, int32_t *to) {
  int64_t a = start >= 0 ? 0 : step == 1 ? -start : (-start + step - 1) / step;
  int64_t b = start >= size ? 0 : step == 1 ? size - start : (size - start + step - 1) / step;
  if (b > n) b = n;
  if (a > b) a = b;
  *from = (int32_t)a, *to = (int32_t)b;
}

static void place_pixels(const form *f, int64_t first, int64_t count, pixel *out) {
  const ei_conv_ints *i = f->i;
  const int32_t channels = (int32_t)f->channels, whole = (int32_t)(i->kw * f->channels);
  const int64_t reach = (i->kw - 1) * i->dilation_w;
  int64_t ox = first % i->out_w, oy = first / i->out_w % i->out_h, image = first / i->out_w / i->out_h;
  for (int64_t done = 0; done < count;) {
    const int64_t y = oy * i->stride_h - i->pad_top, line = (image * i->in_h + y) * i->in_w;
    const int64_t n = i->out_w - ox < count - done ? i->out_w - ox : count - done;
    pixel p = {.pos0 = 0};
    inside(y, i->dilation_h, i->kh, i->in_h, &p.row0, &p.row1);
    const int all_rows = p.row0 == 0 && p.row1 == i->kh;
    for (int64_t end = ox + n; ox < end; ox++) {
      const int64_t x = ox * i->stride_w - i->pad_left;
      p.base = (line + x) * i->x_ld;
      if (x >= 0 && x + reach < i->in_w) {
        p.pos0 = 0, p.pos1 = whole, p.interior = all_rows;
      } else {
        inside(x, i->dilation_w, i->kw, i->in_w, &p.pos0, &p.pos1);
        p.pos0 *= channels, p.pos1 *= channels, p.interior = 0;
      }
      *out++ = p;
    }
    done += n;
    ox = 0;
    if (++oy == i->out_h) oy = 0, image++;
  }
}

/* n floats; whole vectors of four, the last one overlapping */
static inline void copy_few(float *to, const float *from, int32_t n) {
  if (n < 4) {
    for (int32_t j = 0; j < n; j++) to[j] = from[j];
    return;
  }
  for (int32_t j = 0; j < n - 4; j += 4) memcpy(to + j, from + j, 16);
  memcpy(to + n - 4, from + n - 4, 16);
}

/* the inputs of one pixel side by side, zeros where there is padding */
static void pack_pixel(const piece *pieces, int count, const pixel *p, const float *x, float *to) {
  x += p->base;
  if (p->interior) {
    for (int r = 0; r < count; to += pieces[r++].len) copy_few(to, x + pieces[r].off, pieces[r].len);
    return;
  }
  for (int r = 0; r < count; r++) {
    const piece *e = pieces + r;
    int32_t a = p->pos0 - e->pos, b = p->pos1 - e->pos;
    if (e->row < p->row0 || e->row >= p->row1) a = b = 0;
    if (a < 0) a = 0;
    if (b > e->len) b = e->len;
    if (b < 0) b = 0; /* a piece that begins beyond the image's edge */
    if (a > b) a = b;
    for (int32_t j = 0; j < a; j++) to[j] = 0.0f;
    copy_few(to + a, x + e->off + a, b - a);
    for (int32_t j = b; j < e->len; j++) to[j] = 0.0f;
    to += e->len;
  }
}

int64_t EI_FN(ei_conv_units)(const ei_step *step) {
  if (((const ei_conv_ints *)step->i)->algorithm != EI_DIRECT) return EI_FN(ei_winograd_units)(step);
  form f = form_of(step);
  if ((double)f.pixels * (double)f.w->rows * (double)f.w->k < WORTH_A_THREAD) return 1;
  return f.blocks * f.ranges;
}

size_t EI_FN(ei_conv_scratch)(const ei_step *step) {
  if (((const ei_conv_ints *)step->i)->algorithm != EI_DIRECT) return EI_FN(ei_winograd_scratch)(step);
  form f = form_of(step);
  space s;
  return lay_out(&f, &s, NULL);
}

int EI_FN(ei_conv)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_conv_ints *i = (const ei_conv_ints *)step->i;
  const ei_conv_tensors *t = (const ei_conv_tensors *)step->t;
  const ei_conv_floats *fl = (const ei_conv_floats *)step->f;
  const ei_weights *w = step->w;
  if (!w || i->groups < 1 || i->groups != w->groups || w->k != i->kh * i->kw * (i->in_c / i->groups) || w->rows != i->out_c) return EI_BAD_STEP;
  if (i->algorithm != EI_DIRECT) {
    if (i->algorithm < 0 || i->algorithm >= EI_ALGORITHM_COUNT || !EI_FN(ei_winograd_fits)(step)) return EI_BAD_STEP;
    return EI_FN(ei_winograd)(step, share, scratch);
  }
  const form f = form_of(step);
  space s;
  lay_out(&f, &s, scratch);
  if (!f.pointwise) memset(s.zeros, 0, (size_t)f.channels * 4);
  ei_finish e = ei_finish_of(i->activation, fl->act_a, fl->act_b);
  ei_gemv gemv;
  const int few = f.pointwise && f.pixels <= EI_GEMV_MOST && EI_FN(ei_gemv_prepare)(&gemv, w);

  for (int64_t unit; (unit = ei_claim(share)) < f.blocks * f.ranges;) {
    const int64_t block = unit % f.blocks, range = unit / f.blocks;
    const int64_t from = f.pixels * range / f.ranges, n = f.pixels * (range + 1) / f.ranges - from;
    const int64_t rows = ei_block_rows(w, block), first = ei_block_first(w, block);
    const int ld = EI_PANEL_LD(rows);
    const float *x = (const float *)t->x + block / ei_blocks_per_group(w) * f.channels;
    float *y = (float *)t->y + from * i->y_ld + first;
    const float *residual = t->residual ? (const float *)t->residual + from * i->residual_ld + first : NULL;
    ei_finish_rows(&e, w, (const float *)t->bias, first, rows);
    if (!f.pointwise) place_pixels(&f, from, n, s.pixels);
    const int64_t tiles = (n + EI_MR - 1) / EI_MR;

    for (int64_t chunk = 0; chunk < f.chunks; chunk++) {
      const int64_t nk = ei_chunk_k(w, chunk);
      int status = few ? EI_FN(ei_gemv_tile)(&gemv, block, chunk, x + from * i->x_ld + chunk * w->k_chunk, i->x_ld, (int)n, s.decode, s.total, chunk == 0) : 1;
      if (status == EI_OK) {
        if (chunk == f.chunks - 1) ei_finish_tile(&e, s.total, (int)n, rows, y, i->y_ld, residual, i->residual_ld);
        continue;
      }
      if (status < 0) return status;
      status = EI_FN(ei_decode_tile)(w, block, chunk, s.decode, s.panel);
      if (status) return status;
      ei_runs runs, border_runs, packed_runs;
      int32_t packed_len[EI_SEGMENTS];
      const int count = cut(&f, chunk * w->k_chunk, nk, f.whole_rows, s.pieces, s.piece_len, &runs);
      const int taps = f.splits ? cut(&f, chunk * w->k_chunk, nk, 0, s.taps, s.tap_len, &border_runs) : 0;
      ei_plain_runs(&packed_runs, packed_len, nk);

      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t p0 = n * tile / tiles;
        const int m = (int)(n * (tile + 1) / tiles - p0);
        const ei_runs *use = &runs;
        if (f.pointwise) {
          const float *at = x + (from + p0) * i->x_ld;
          for (int r = 0; r < count; r++)
            for (int j = 0; j < m; j++) s.ptr[r * EI_MR + j] = at + j * i->x_ld + s.pieces[r].off;
        } else {
          const pixel *p = s.pixels + p0;
          int interior = 1;
          for (int j = 0; j < m; j++) interior &= p[j].interior;
          if (f.packs == 2 || (f.packs && !interior)) {
            use = &packed_runs;
            for (int j = 0; j < m; j++) {
              pack_pixel(s.pieces, count, p + j, x, s.pack + j * nk);
              int64_t at = 0;
              for (int r = 0; r < use->first[EI_SEGMENTS]; r++) {
                s.ptr[r * EI_MR + j] = s.pack + j * nk + at;
                at += use->len[r];
              }
            }
          } else if (interior) {
            for (int r = 0; r < count; r++)
              for (int j = 0; j < m; j++) s.ptr[r * EI_MR + j] = x + p[j].base + s.pieces[r].off;
          } else {
            const piece *e0 = f.splits ? s.taps : s.pieces;
            const int parts = f.splits ? taps : count;
            if (f.splits) use = &border_runs;
            for (int r = 0; r < parts; r++)
              for (int j = 0; j < m; j++) {
                const int in = e0[r].row >= p[j].row0 && e0[r].row < p[j].row1 && e0[r].pos >= p[j].pos0 && e0[r].pos < p[j].pos1;
                s.ptr[r * EI_MR + j] = in ? x + p[j].base + e0[r].off : s.zeros;
              }
          }
        }
        float *total = f.chunks > 1 ? s.total + p0 * EI_ROW_BLOCK : s.total;
        if (chunk < f.chunks - 1) {
          EI_FN(ei_tile)(use, (const float *const *)s.ptr, m, s.panel, ld, (int)rows, total, chunk == 0);
          continue;
        }
        const ei_target to = {&e, y + p0 * i->y_ld, residual ? residual + p0 * i->residual_ld : NULL, i->y_ld, i->residual_ld};
        for (int j = 0; j < m; j++) /* their rows lie far apart, where no hardware looks ahead */
          for (int64_t r = 0; r < rows; r += 16) {
            __builtin_prefetch(to.y + j * to.y_ld + r, 1);
            if (residual) __builtin_prefetch(to.residual + j * to.residual_ld + r, 0);
          }
        EI_FN(ei_tile_to)(use, (const float *const *)s.ptr, m, s.panel, ld, (int)rows, total, chunk == 0, &to);
      }
    }
  }
  return EI_OK;
}
