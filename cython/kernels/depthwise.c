/* depthwise.c - one filter per channel: vectors run over channels, several pixels of a row at a time share the weights.
 *
 * Work unit: one row block (32 channels) times some output rows.  The taps inside the image are summed one after the other, from zero.
 */
#include "finish.h"
#include "scratch.h"
#include "vec.h"

enum { MOST = 8 /* pixels of a tile */, MIN_PIXELS = 256 /* output pixels of a unit */, WORTH_A_THREAD = 30000 };

static int64_t rows_per_unit(const ei_depthwise_ints *i) {
  int64_t rows = (MIN_PIXELS + i->out_w - 1) / i->out_w, all = i->images * i->out_h;
  return rows < all ? rows : all;
}
static int64_t spans(const ei_depthwise_ints *i) { return (i->images * i->out_h + rows_per_unit(i) - 1) / rows_per_unit(i); }

int64_t EI_FN(ei_depthwise_units)(const ei_step *step) {
  const ei_depthwise_ints *i = (const ei_depthwise_ints *)step->i;
  if (i->images * i->out_h * i->out_w * i->out_c * i->kh * i->kw < WORTH_A_THREAD) return 1;
  return ei_blocks(step->w) * spans(i);
}
size_t EI_FN(ei_depthwise_scratch)(const ei_step *step) {
  ei_scratch at = {NULL, 0};
  ei_take(&at, ei_decode_scratch(step->w->k_chunk));
  ei_take(&at, (size_t)step->w->k * EI_ROW_BLOCK * 4);
  return at.used;
}

/* what a tile needs beside its place: one row block's filter and the inputs' distances */
typedef struct {
  const ei_depthwise_ints *i;
  const float *panel;
  const ei_finish *e;
  int64_t ld, down, along, next; /* floats from one row of the panel, tap row, tap, output pixel to the next */
  int64_t y_ld, residual_ld;
} filter;

EI_INLINE void finish_pixels(const filter *f, const int m, const int nv, const vf sum[][4], int64_t r, int64_t n, float *y, const float *residual) {
  const ei_clamp clamp = f->e->clamp;
  EI_UNROLL for (int v = 0; v < nv; v++) {
    const vf scale = vload(f->e->scale + r + v * EI_VEC), bias = vload(f->e->bias + r + v * EI_VEC);
    const int64_t lanes = nv > 1 ? EI_VEC : n;
    if (residual) {
      EI_UNROLL for (int j = 0; j < m; j++) {
        vf t = vadd(vadd(vmul(sum[j][v], scale), bias), vload_n(residual + j * f->residual_ld + v * EI_VEC, lanes));
        vstore_n(y + j * f->y_ld + v * EI_VEC, ei_clamped(clamp, t), lanes);
      }
    } else {
      EI_UNROLL for (int j = 0; j < m; j++)
        vstore_n(y + j * f->y_ld + v * EI_VEC, ei_clamped(clamp, vadd(vmul(sum[j][v], scale), bias)), lanes);
    }
  }
}

/* any filter: m pixels times nv vectors of channels from channel r of the block on (nv 1: n of its lanes), taps [r0, r1) x [c0, c1) */
EI_INLINE void any_tile(const filter *f, const int m, const int nv, const float *x, const int32_t *taps, int64_t r, int64_t n, float *y,
                        const float *residual) {
  vf sum[MOST][4];
  EI_UNROLL for (int j = 0; j < m; j++) EI_UNROLL for (int v = 0; v < nv; v++) sum[j][v] = vzero();
  for (int64_t row = taps[0]; row < taps[1]; row++) {
    const float *p = x + row * f->down + taps[2] * f->along, *w = f->panel + (row * f->i->kw + taps[2]) * f->ld + r;
    for (int64_t c = taps[2]; c < taps[3]; c++, p += f->along, w += f->ld) {
      EI_UNROLL for (int v = 0; v < nv; v++) {
        vf weight = vload(w + v * EI_VEC);
        EI_UNROLL for (int j = 0; j < m; j++) {
          vf a = nv > 1 ? vload(p + j * f->next + v * EI_VEC) : vload_n(p + j * f->next, n);
          sum[j][v] = vfma(a, weight, sum[j][v]);
        }
      }
    }
  }
  finish_pixels(f, m, nv, sum, r, n, y, residual);
}

/* filters of kw taps side by side: every input is loaded once for all pixels that it belongs to */
EI_INLINE void near_tile(const filter *f, const int kw, const int stride, const int m, const float *x, const int32_t *taps, int64_t r, int64_t n,
                         float *y, const float *residual) {
  vf sum[MOST][4];
  EI_UNROLL for (int j = 0; j < m; j++) sum[j][0] = vzero();
  for (int64_t row = taps[0]; row < taps[1]; row++) {
    const float *p = x + row * f->down, *w = f->panel + row * kw * f->ld + r;
    vf weight[5];
    EI_UNROLL for (int c = 0; c < kw; c++) weight[c] = vload(w + c * f->ld);
    EI_UNROLL for (int j = 0; j < (m - 1) * stride + kw; j++) {
      vf a = vload_n(p + j * f->along, n);
      EI_UNROLL for (int c = 0; c < kw; c++) {
        const int at = j - c;
        if (at >= 0 && at % stride == 0 && at / stride < m) sum[at / stride][0] = vfma(a, weight[c], sum[at / stride][0]);
      }
    }
  }
  finish_pixels(f, m, 1, sum, r, n, y, residual);
}

/* tiles side by side, `tiles` of them */
typedef void tile_fn(const filter *f, int64_t tiles, const float *x, const int32_t *taps, int64_t r, int64_t n, float *y, const float *residual);
#define TILES(tile, m)                                                                              \
  for (; tiles; tiles--, x += m * f->next, y += m * f->y_ld) {                                      \
    tile;                                                                                           \
    if (residual) residual += m * f->residual_ld;                                                   \
  }
#define NEAR(kw, stride, m)                                                                                                                    \
  static void near_##kw##_##stride##_##m(const filter *f, int64_t tiles, const float *x, const int32_t *taps, int64_t r, int64_t n, float *y,  \
                                         const float *residual) {                                                                             \
    if (n >= EI_VEC) TILES(near_tile(f, kw, stride, m, x, taps, r, EI_VEC, y, residual), m)                                                    \
    else TILES(near_tile(f, kw, stride, m, x, taps, r, n, y, residual), m)                                                                     \
  }
NEAR(3, 1, 8) NEAR(3, 1, 4) NEAR(3, 2, 8) NEAR(3, 2, 4) NEAR(5, 1, 8) NEAR(5, 1, 4) NEAR(5, 2, 8) NEAR(5, 2, 4)
static void any_4(const filter *f, int64_t tiles, const float *x, const int32_t *taps, int64_t r, int64_t n, float *y, const float *residual) {
  TILES(any_tile(f, 4, 1, x, taps, r, n, y, residual), 4)
}

/* the functions for 8 and for 4 pixels inside the image */
typedef struct { tile_fn *eight, *four; } choice;
static choice choose(const ei_depthwise_ints *i) {
  if (i->dilation_w == 1 && i->kw == 3 && i->stride_w == 1) return (choice){near_3_1_8, near_3_1_4};
  if (i->dilation_w == 1 && i->kw == 3 && i->stride_w == 2) return (choice){near_3_2_8, near_3_2_4};
  if (i->dilation_w == 1 && i->kw == 5 && i->stride_w == 1) return (choice){near_5_1_8, near_5_1_4};
  if (i->dilation_w == 1 && i->kw == 5 && i->stride_w == 2) return (choice){near_5_2_8, near_5_2_4};
  return (choice){NULL, any_4};
}

static void single(const filter *f, const float *x, const int32_t *taps, int64_t rows, float *y, const float *residual) {
  int64_t r = 0;
  for (; r + 4 * EI_VEC <= rows; r += 4 * EI_VEC) any_tile(f, 1, 4, x + r, taps, r, EI_VEC, y + r, residual ? residual + r : NULL);
  for (; r < rows; r += EI_VEC) any_tile(f, 1, 1, x + r, taps, r, rows - r, y + r, residual ? residual + r : NULL);
}

static void inside(int64_t start, int64_t step, int64_t n, int64_t size, int32_t *from, int32_t *to) {
  int64_t a = start >= 0 ? 0 : (-start + step - 1) / step, b = start >= size ? 0 : (size - start + step - 1) / step;
  if (b > n) b = n;
  *from = (int32_t)(a < b ? a : b), *to = (int32_t)b;
}

int EI_FN(ei_depthwise)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_depthwise_ints *i = (const ei_depthwise_ints *)step->i;
  const ei_depthwise_tensors *t = (const ei_depthwise_tensors *)step->t;
  const ei_depthwise_floats *fl = (const ei_depthwise_floats *)step->f;
  const ei_weights *w = step->w;
  if (!w || i->in_c != i->out_c || w->rows != i->out_c || w->k != i->kh * i->kw) return EI_BAD_STEP;
  ei_scratch at = {scratch, 0};
  void *decode = ei_take(&at, ei_decode_scratch(w->k_chunk));
  float *panel = ei_take(&at, (size_t)w->k * EI_ROW_BLOCK * 4);
  ei_finish e = ei_finish_of(i->activation, fl->act_a, fl->act_b);
  const int64_t blocks = ei_blocks(w), per = rows_per_unit(i), all = i->images * i->out_h, units = blocks * spans(i);
  /* output columns whose taps all lie inside */
  int64_t left = (i->pad_left + i->stride_w - 1) / i->stride_w;
  int64_t right = i->in_w + i->pad_left - (i->kw - 1) * i->dilation_w; /* first input column, padding counted, where a window no longer fits */
  right = right > 0 ? (right + i->stride_w - 1) / i->stride_w : 0;
  if (right > i->out_w) right = i->out_w;
  if (left > right) left = right;
  int64_t ready = -1;
  const choice tiles = choose(i);
  filter f = {i, panel, &e, 0, i->dilation_h * i->in_w * i->x_ld, i->dilation_w * i->x_ld, i->stride_w * i->x_ld, i->y_ld, i->residual_ld};

  for (int64_t unit; (unit = ei_claim(share)) < units;) {
    const int64_t block = unit % blocks, span = unit / blocks;
    const int64_t rows = ei_block_rows(w, block), first = ei_block_first(w, block);
    const int ld = EI_PANEL_LD(rows);
    if (block != ready) {
      for (int64_t chunk = 0; chunk < ei_chunks(w); chunk++) {
        int status = EI_FN(ei_decode_tile)(w, block, chunk, decode, panel + chunk * w->k_chunk * ld);
        if (status) return status;
      }
      ei_finish_rows(&e, w, t->bias, first, rows);
      f.ld = ld;
      ready = block;
    }
    for (int64_t row = span * per; row < (span + 1) * per && row < all; row++) {
      const int64_t image = row / i->out_h, y0 = row % i->out_h * i->stride_h - i->pad_top;
      const float *x = (const float *)t->x + (image * i->in_h + y0) * i->in_w * i->x_ld + first;
      int32_t taps[4];
      inside(y0, i->dilation_h, i->kh, i->in_h, taps, taps + 1);
      const int64_t pixel = row * i->out_w;
      float *y = (float *)t->y + pixel * i->y_ld + first;
      const float *residual = t->residual ? (const float *)t->residual + pixel * i->residual_ld + first : NULL;
      int64_t done = left; /* interior pixels done in tiles: left .. done - 1 */
      taps[2] = 0, taps[3] = (int32_t)i->kw;
      for (int64_t r = 0; r < rows; r += EI_VEC)
        for (done = left; right - done >= 4;) {
          const int m = right - done >= 8 && tiles.eight ? 8 : 4;
          const int64_t count = (right - done) / m;
          (m == 8 ? tiles.eight : tiles.four)(&f, count, x + (done * i->stride_w - i->pad_left) * i->x_ld + r, taps, r, rows - r,
                                              y + done * i->y_ld + r, residual ? residual + done * i->residual_ld + r : NULL);
          done += count * m;
        }
      for (int64_t ox = 0; ox < i->out_w; ox++) {
        if (ox == left && done > left) ox = done;
        if (ox >= i->out_w) break;
        const int64_t x0 = ox * i->stride_w - i->pad_left;
        inside(x0, i->dilation_w, i->kw, i->in_w, taps + 2, taps + 3);
        single(&f, x + x0 * i->x_ld, taps, rows, y + ox * i->y_ld, residual ? residual + ox * i->residual_ld : NULL);
      }
      if (e.clamp.rest != EI_ACT_NONE)
        for (int64_t ox = 0; ox < i->out_w; ox++) EI_FN(ei_activate)(e.clamp.rest, e.a, e.b, y + ox * i->y_ld, y + ox * i->y_ld, rows);
    }
  }
  return EI_OK;
}
