/* depthwise.c - one filter per channel: vectors run over channels, several pixels of a row at a time share the weights.
 *
 * Work unit: one row block (32 channels) times some output rows.  The taps inside the image are summed one after the other, from zero.
 */
#include "finish.h"
#include "scratch.h"
#include "vec.h"

enum { PIXELS = 4, MIN_PIXELS = 256 /* output pixels of a unit */, WORTH_A_THREAD = 30000 };

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

/* m pixels `next` apart times nv vectors of channels (nv 1: n of its lanes) over taps [r0, r1) x [c0, c1) */
EI_INLINE void filter(const int m, const int nv, const float *x, int64_t next, const ei_depthwise_ints *i, const int32_t *taps, const float *panel,
                      int ld, int64_t n, float *to) {
  const int64_t down = i->dilation_h * i->in_w * i->x_ld, along = i->dilation_w * i->x_ld;
  vf sum[PIXELS][2];
  EI_UNROLL for (int j = 0; j < m; j++) EI_UNROLL for (int v = 0; v < nv; v++) sum[j][v] = vzero();
  for (int64_t r = taps[0]; r < taps[1]; r++) {
    const float *p = x + r * down + taps[2] * along, *w = panel + (r * i->kw + taps[2]) * ld;
    for (int64_t c = taps[2]; c < taps[3]; c++, p += along, w += ld) {
      EI_UNROLL for (int v = 0; v < nv; v++) {
        vf f = vload(w + v * EI_VEC);
        EI_UNROLL for (int j = 0; j < m; j++) {
          vf a = nv > 1 ? vload(p + j * next + v * EI_VEC) : vload_n(p + j * next, n);
          sum[j][v] = vfma(a, f, sum[j][v]);
        }
      }
    }
  }
  EI_UNROLL for (int j = 0; j < m; j++) EI_UNROLL for (int v = 0; v < nv; v++) vstore(to + j * EI_ROW_BLOCK + v * EI_VEC, sum[j][v]);
}

static void several(const float *x, int64_t next, const ei_depthwise_ints *i, const int32_t *taps, const float *panel, int ld, int64_t rows,
                    float *to) {
  int64_t r = 0;
  for (; r + 2 * EI_VEC <= rows; r += 2 * EI_VEC) filter(PIXELS, 2, x + r, next, i, taps, panel + r, ld, 0, to + r);
  for (; r < rows; r += EI_VEC) filter(PIXELS, 1, x + r, next, i, taps, panel + r, ld, rows - r, to + r);
}
static void single(const float *x, const ei_depthwise_ints *i, const int32_t *taps, const float *panel, int ld, int64_t rows, float *to) {
  int64_t r = 0;
  for (; r + 2 * EI_VEC <= rows; r += 2 * EI_VEC) filter(1, 2, x + r, 0, i, taps, panel + r, ld, 0, to + r);
  for (; r < rows; r += EI_VEC) filter(1, 1, x + r, 0, i, taps, panel + r, ld, rows - r, to + r);
}

static void inside(int64_t start, int64_t step, int64_t n, int64_t size, int32_t *from, int32_t *to) {
  int64_t a = start >= 0 ? 0 : (-start + step - 1) / step, b = start >= size ? 0 : (size - start + step - 1) / step;
  if (b > n) b = n;
  *from = (int32_t)(a < b ? a : b), *to = (int32_t)b;
}

int EI_FN(ei_depthwise)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_depthwise_ints *i = (const ei_depthwise_ints *)step->i;
  const ei_depthwise_tensors *t = (const ei_depthwise_tensors *)step->t;
  const ei_depthwise_floats *f = (const ei_depthwise_floats *)step->f;
  const ei_weights *w = step->w;
  if (!w || i->in_c != i->out_c || w->rows != i->out_c || w->k != i->kh * i->kw) return EI_BAD_STEP;
  ei_scratch at = {scratch, 0};
  void *decode = ei_take(&at, ei_decode_scratch(w->k_chunk));
  float *panel = ei_take(&at, (size_t)w->k * EI_ROW_BLOCK * 4);
  ei_finish e = ei_finish_of(i->activation, f->act_a, f->act_b);
  const int64_t blocks = ei_blocks(w), per = rows_per_unit(i), all = i->images * i->out_h, units = blocks * spans(i);
  /* output columns whose taps all lie inside */
  int64_t left = (i->pad_left + i->stride_w - 1) / i->stride_w;
  int64_t right = i->in_w + i->pad_left - (i->kw - 1) * i->dilation_w; /* first input column, padding counted, where a window no longer fits */
  right = right > 0 ? (right + i->stride_w - 1) / i->stride_w : 0;
  if (right > i->out_w) right = i->out_w;
  if (left > right) left = right;
  int64_t ready = -1;

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
      ready = block;
    }
    for (int64_t row = span * per; row < (span + 1) * per && row < all; row++) {
      const int64_t image = row / i->out_h, y0 = row % i->out_h * i->stride_h - i->pad_top;
      const float *x = (const float *)t->x + (image * i->in_h + y0) * i->in_w * i->x_ld + first;
      int32_t taps[4];
      inside(y0, i->dilation_h, i->kh, i->in_h, taps, taps + 1);
      for (int64_t ox = 0; ox < i->out_w;) {
        float total[PIXELS * EI_ROW_BLOCK] __attribute__((aligned(64)));
        const int64_t x0 = ox * i->stride_w - i->pad_left, pixel = row * i->out_w + ox;
        int m = 1;
        if (ox >= left && ox + PIXELS <= right) {
          taps[2] = 0, taps[3] = (int32_t)i->kw, m = PIXELS;
          several(x + x0 * i->x_ld, i->stride_w * i->x_ld, i, taps, panel, ld, rows, total);
        } else {
          inside(x0, i->dilation_w, i->kw, i->in_w, taps + 2, taps + 3);
          single(x + x0 * i->x_ld, i, taps, panel, ld, rows, total);
        }
        ei_finish_tile(&e, total, m, rows, (float *)t->y + pixel * i->y_ld + first, i->y_ld,
                       t->residual ? (const float *)t->residual + pixel * i->residual_ld + first : NULL, i->residual_ld);
        ox += m;
      }
    }
  }
  return EI_OK;
}
