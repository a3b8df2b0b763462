/* pooling.c - windows and whole images, maximum and average; vectors run over channels. */
#include "table.h"
#include "vec.h"

enum { MAX, AVERAGE, AVERAGE_PADDED };
enum { GRAIN = 16384, WIDE = 4 /* vectors of channels at a time */, BLOCK = 64 /* pixels per partial sum, against rounding errors */ };

/* taps [from, to) of n that lie inside 0 .. size - 1 */
static void inside(int64_t start, int64_t step, int64_t n, int64_t size, int64_t *from, int64_t *to) {
  int64_t a = start >= 0 ? 0 : (-start + step - 1) / step, b = start >= size ? 0 : (size - start + step - 1) / step;
  *to = b < n ? b : n;
  *from = a < *to ? a : *to;
}

EI_INLINE void window(const int kind, const int nv, const float *x, int64_t rows, int64_t columns, int64_t down, int64_t along, float count,
                      float *y, int64_t n) {
  vf v[WIDE];
  EI_UNROLL for (int j = 0; j < nv; j++) v[j] = kind == MAX ? vset(-INFINITY) : vzero();
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) {
      const float *p = x + r * down + c * along;
      EI_UNROLL for (int j = 0; j < nv; j++) {
        vf t = nv > 1 ? vload(p + j * EI_VEC) : vload_n(p, n);
        v[j] = kind == MAX ? vmax(v[j], t) : vadd(v[j], t);
      }
    }
  const vf d = vset(count);
  EI_UNROLL for (int j = 0; j < nv; j++) {
    vf t = kind == MAX ? v[j] : vdiv(v[j], d);
    if (nv > 1) vstore(y + j * EI_VEC, t);
    else vstore_n(y, t, n);
  }
}

static int64_t pool_rows_per_unit(const ei_pool_ints *i) {
  int64_t work = i->out_w * i->channels * (i->kh * i->kw + 2) / 4;
  return work >= GRAIN ? 1 : GRAIN / (work + 1) + 1;
}
int64_t EI_FN(ei_pool_units)(const ei_step *step) {
  const ei_pool_ints *i = (const ei_pool_ints *)step->i;
  int64_t per = pool_rows_per_unit(i);
  return (i->images * i->out_h + per - 1) / per;
}
int EI_FN(ei_pool)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_pool_ints *i = (const ei_pool_ints *)step->i;
  const ei_pool_tensors *t = (const ei_pool_tensors *)step->t;
  const int64_t per = pool_rows_per_unit(i), all = i->images * i->out_h;
  for (int64_t unit; (unit = ei_claim(share)) * per < all;)
    for (int64_t row = unit * per; row < (unit + 1) * per && row < all; row++) {
      const int64_t image = row / i->out_h, y0 = row % i->out_h * i->stride_h - i->pad_top;
      int64_t r0, r1, padded_rows, c0, c1, padded_columns, unused;
      inside(y0, i->dilation_h, i->kh, i->in_h, &r0, &r1);
      inside(y0 + i->pad_top, i->dilation_h, i->kh, i->in_h + i->pad_top + i->pad_bottom, &unused, &padded_rows);
      for (int64_t ox = 0; ox < i->out_w; ox++) {
        const int64_t x0 = ox * i->stride_w - i->pad_left;
        inside(x0, i->dilation_w, i->kw, i->in_w, &c0, &c1);
        inside(x0 + i->pad_left, i->dilation_w, i->kw, i->in_w + i->pad_left + i->pad_right, &unused, &padded_columns);
        const int64_t rows = r1 - r0, columns = c1 - c0, taps = i->kind == AVERAGE_PADDED ? padded_rows * padded_columns : rows * columns;
        const int64_t along = i->dilation_w * i->x_ld, down = i->dilation_h * i->in_w * i->x_ld;
        const float count = taps > 0 ? (float)taps : 1.0f;
        const float *x = (const float *)t->x + ((image * i->in_h + y0 + r0 * i->dilation_h) * i->in_w + x0 + c0 * i->dilation_w) * i->x_ld;
        float *y = (float *)t->y + (row * i->out_w + ox) * i->y_ld;
        int64_t c = 0;
        for (; c + WIDE * EI_VEC <= i->channels; c += WIDE * EI_VEC) {
          if (i->kind == MAX) window(MAX, WIDE, x + c, rows, columns, down, along, count, y + c, 0);
          else window(AVERAGE, WIDE, x + c, rows, columns, down, along, count, y + c, 0);
        }
        for (; c < i->channels; c += EI_VEC) {
          if (i->kind == MAX) window(MAX, 1, x + c, rows, columns, down, along, count, y + c, i->channels - c);
          else window(AVERAGE, 1, x + c, rows, columns, down, along, count, y + c, i->channels - c);
        }
      }
    }
  return EI_OK;
}

/* a unit: 4 vectors of channels of one image; small images: all channels */
static int64_t global_blocks(const ei_global_pool_ints *i) {
  if (i->pixels * i->channels < GRAIN) return 1;
  return (i->channels + WIDE * EI_VEC - 1) / (WIDE * EI_VEC);
}
int64_t EI_FN(ei_global_pool_units)(const ei_step *step) {
  const ei_global_pool_ints *i = (const ei_global_pool_ints *)step->i;
  return i->images * global_blocks(i);
}
EI_INLINE void whole(const int kind, const float *x, int64_t pixels, int64_t ld, float *y, int64_t n) {
  vf total = kind == MAX ? vset(-INFINITY) : vzero();
  for (int64_t p = 0; p < pixels;) {
    vf part = kind == MAX ? total : vzero();
    for (int64_t end = p + BLOCK < pixels ? p + BLOCK : pixels; p < end; p++) {
      vf v = vload_n(x + p * ld, n);
      part = kind == MAX ? vmax(part, v) : vadd(part, v);
    }
    total = kind == MAX ? part : vadd(total, part);
  }
  vstore_n(y, kind == MAX ? total : vdiv(total, vset((float)pixels)), n);
}
int EI_FN(ei_global_pool)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_global_pool_ints *i = (const ei_global_pool_ints *)step->i;
  const ei_global_pool_tensors *t = (const ei_global_pool_tensors *)step->t;
  const int64_t blocks = global_blocks(i), width = blocks == 1 ? i->channels : WIDE * EI_VEC;
  for (int64_t unit; (unit = ei_claim(share)) < i->images * blocks;) {
    const int64_t image = unit / blocks, from = unit % blocks * width, to = from + width < i->channels ? from + width : i->channels;
    const float *x = (const float *)t->x + image * i->pixels * i->x_ld;
    float *y = (float *)t->y + image * i->y_ld;
    for (int64_t c = from; c < to; c += EI_VEC) {
      if (i->kind == MAX) whole(MAX, x + c, i->pixels, i->x_ld, y + c, i->channels - c);
      else whole(AVERAGE, x + c, i->pixels, i->x_ld, y + c, i->channels - c);
    }
  }
  return EI_OK;
}
