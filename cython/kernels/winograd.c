/* winograd.c - convolutions of stride 1 by minimal filtering: m x m outputs of an r x r filter take (m + r - 1)^2 multiplications per channel
 * instead of (m r)^2 (Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks", CVPR 2016).
 *
 * F(4,3) and F(2,5) share their transform of the inputs: both interpolate at 0, +-5/8, +-3/2 and infinity.  Those points halve the rounding
 * error of the usual 0, +-1, +-2 (relative rms 6.5e-7 against 1.3e-6 over 256 channels); F(2,3) takes 0, +-1 and infinity (2.8e-7).
 *
 * Work unit: a block of tiles of one group of channels, times some row blocks.  A thread transforms the tiles' inputs once for all its row
 * blocks; per row block it decodes the weights, and CHANNELS input channels at a time transforms them and adds their products to the sums of
 * every tile and point.  Transformed weights live no longer than that.  The sums are transformed back with scale, bias, residual and
 * activation.  Inputs outside the image are read from zeros, outputs outside it are not written.
 *
 * Order of additions: per tile and point, the channels of a part (part_channels) one after the other, the parts in order; both transforms are
 * fixed expressions.  Which tiles share a block does not matter.
 */
#include "finish.h"
#include "micro.h"
#include "scratch.h"

enum {
  CHANNELS = 64,       /* most input channels of a part: their transformed weights, 288 KiB, stay in the second level cache */
  V_BYTES = 1 << 20,   /* transformed inputs of a block of tiles, unless fewer than LEAST_TILES fit */
  LEAST_TILES = 48,    /* tiles that share one decoding and transform of the weights, which then cost 6 % */
  MOST_TILES = 112,
  ENOUGH_UNITS = 8,
  SKEW = 16,           /* floats between planes: strides that are powers of two would fall into the same lines of the cache */
  MOST_POINTS = 36
};

typedef struct {
  const ei_conv_ints *i;
  const ei_weights *w;
  int m, r, n, points;               /* outputs, taps, points of one axis; points of a tile */
  int64_t channels, part, parts;     /* input channels of a group, of a part; parts */
  int64_t down, across, tiles, tile_blocks, most_tiles;
  int64_t blocks, shares;            /* row blocks of a group; shares they are split into */
  int64_t tap_skew;                  /* weights between two skews of the decoded block, 0: none */
  int64_t u_plane, v_plane, v_part, m_plane; /* floats */
} form;

typedef struct {
  void *decode;
  float *weights, *u, *v, *sums, *zeros;
} space;

int EI_FN(ei_winograd_fits)(const ei_step *step) {
  const ei_conv_ints *i = (const ei_conv_ints *)step->i;
  const int64_t taps = i->algorithm == EI_WINOGRAD_2_5 ? 5 : 3;
  return i->kh == taps && i->kw == taps && i->stride_h == 1 && i->stride_w == 1 && i->dilation_h == 1 && i->dilation_w == 1;
}

static form form_of(const ei_step *step) {
  form f = {.i = (const ei_conv_ints *)step->i, .w = step->w};
  const ei_conv_ints *i = f.i;
  f.m = i->algorithm == EI_WINOGRAD_4_3 ? 4 : 2;
  f.r = i->algorithm == EI_WINOGRAD_2_5 ? 5 : 3;
  f.n = f.m + f.r - 1;
  f.points = f.n * f.n;
  f.channels = i->in_c / i->groups;
  f.parts = (f.channels + CHANNELS - 1) / CHANNELS;
  f.part = ((f.channels + f.parts - 1) / f.parts + 15) / 16 * 16;
  f.parts = (f.channels + f.part - 1) / f.part;
  f.down = (i->out_h + f.m - 1) / f.m;
  f.across = (i->out_w + f.m - 1) / f.m;
  f.tiles = i->images * f.down * f.across;
  int64_t most = V_BYTES / (f.points * f.channels * 4);
  most = most < LEAST_TILES ? LEAST_TILES : most > MOST_TILES ? MOST_TILES : most;
  f.tile_blocks = (f.tiles + most - 1) / most;
  if (f.tile_blocks < 1) f.tile_blocks = 1;
  f.most_tiles = (f.tiles + f.tile_blocks - 1) / f.tile_blocks;
  f.blocks = ei_blocks_per_group(f.w);
  const int64_t jobs = f.tile_blocks * i->groups;
  f.shares = jobs >= ENOUGH_UNITS ? 1 : (ENOUGH_UNITS + jobs - 1) / jobs;
  if (f.shares > f.blocks) f.shares = f.blocks;
  const int64_t chunk = f.w->k_chunk, longer = chunk > f.channels ? chunk : f.channels;
  f.tap_skew = longer % chunk == 0 && longer % f.channels == 0 ? longer : 0;
  f.u_plane = f.part * EI_ROW_BLOCK + SKEW;
  f.v_plane = f.most_tiles * f.part + SKEW;
  f.v_part = f.points * f.v_plane;
  f.m_plane = f.most_tiles * EI_ROW_BLOCK + SKEW;
  return f;
}

/* place of input k of a row block whose decoded rows are ld floats long */
static inline int64_t weight_at(const form *f, int64_t k, int ld) { return k * ld + (f->tap_skew ? k / f->tap_skew * SKEW : 0); }

static size_t lay_out(const form *f, space *s, void *memory) {
  ei_scratch at = {memory, 0};
  s->decode = ei_take(&at, ei_decode_scratch(f->w->k_chunk));
  s->weights = ei_take(&at, (size_t)weight_at(f, f->w->k, EI_ROW_BLOCK) * 4);
  s->u = ei_take(&at, (size_t)(f->points * f->u_plane) * 4);
  s->v = ei_take(&at, (size_t)(f->parts * f->v_part) * 4);
  s->sums = ei_take(&at, (size_t)(f->points * f->m_plane) * 4);
  s->zeros = ei_take(&at, (size_t)(f->channels + EI_VEC) * 4);
  return at.used;
}

/* ---- transforms of one axis ---- */
#define A2 0.390625f /* points +-a and +-b of the six: a = 5/8, b = 3/2 */
#define B2 2.25f
#define A1 0.625f
#define B1 1.5f

/* x and y: n vectors, `step` apart; may be the same */
EI_INLINE void inputs(const int n, const vf *x, const int step, vf *y) {
  if (n == 4) {
    const vf x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step];
    y[0] = vsub(x2, x0), y[step] = vadd(x2, x1), y[2 * step] = vsub(x2, x1), y[3 * step] = vsub(x3, x1);
    return;
  }
  const vf a_even = vfma(vset(-B2), x[2 * step], x[4 * step]), a_odd = vfma(vset(-B2), x[step], x[3 * step]);
  const vf b_even = vfma(vset(-A2), x[2 * step], x[4 * step]), b_odd = vfma(vset(-A2), x[step], x[3 * step]);
  y[0] = vfma(vset(A2 * B2), x[0], vfma(vset(-(A2 + B2)), x[2 * step], x[4 * step]));
  y[5 * step] = vfma(vset(A2 * B2), x[step], vfma(vset(-(A2 + B2)), x[3 * step], x[5 * step]));
  y[1 * step] = vfma(vset(A1), a_odd, a_even);
  y[2 * step] = vfma(vset(-A1), a_odd, a_even);
  y[3 * step] = vfma(vset(B1), b_odd, b_even);
  y[4 * step] = vfma(vset(-B1), b_odd, b_even);
}

/* r vectors of x, `from` apart, to n of y, `to` apart */
EI_INLINE void filters(const int n, const int r, const vf *x, const int from, vf *y, const int to) {
  if (n == 4) {
    const vf half = vset(0.5f), even = vmul(half, vadd(x[0], x[2 * from])), odd = vmul(half, x[from]);
    y[0] = vneg(x[0]);
    y[to] = vadd(even, odd);
    y[2 * to] = vsub(even, odd);
    y[3 * to] = x[2 * from];
    return;
  }
  const float na = 1.0f / (2 * A2 * (A2 - B2)), nb = 1.0f / (2 * B2 * (B2 - A2));
  vf a_even = vfma(vset(A2 * na), x[2 * from], vmul(vset(na), x[0])), a_odd = vmul(vset(A1 * na), x[from]);
  vf b_even = vfma(vset(B2 * nb), x[2 * from], vmul(vset(nb), x[0])), b_odd = vmul(vset(B1 * nb), x[from]);
  if (r == 5) {
    a_even = vfma(vset(A2 * A2 * na), x[4 * from], a_even), a_odd = vfma(vset(A1 * A2 * na), x[3 * from], a_odd);
    b_even = vfma(vset(B2 * B2 * nb), x[4 * from], b_even), b_odd = vfma(vset(B1 * B2 * nb), x[3 * from], b_odd);
  }
  y[0] = vmul(vset(1.0f / (A2 * B2)), x[0]);
  y[to] = vadd(a_even, a_odd);
  y[2 * to] = vsub(a_even, a_odd);
  y[3 * to] = vadd(b_even, b_odd);
  y[4 * to] = vsub(b_even, b_odd);
  y[5 * to] = x[(r - 1) * from];
}

/* n vectors of x to m of y */
EI_INLINE void outputs(const int m, const int n, const vf *x, const int from, vf *y, const int to) {
  const vf sum = vadd(x[from], x[2 * from]), less = vsub(x[from], x[2 * from]);
  if (n == 4) {
    y[0] = vadd(x[0], sum);
    y[to] = vadd(less, x[3 * from]);
    return;
  }
  const vf sum_b = vadd(x[3 * from], x[4 * from]), less_b = vsub(x[3 * from], x[4 * from]);
  y[0] = vadd(x[0], vadd(sum, sum_b));
  if (m == 2) {
    y[to] = vfma(vset(A1), less, vfma(vset(B1), less_b, x[5 * from]));
    return;
  }
  y[to] = vfma(vset(A1), less, vmul(vset(B1), less_b));
  y[2 * to] = vfma(vset(A2), sum, vmul(vset(B2), sum_b));
  y[3 * to] = vfma(vset(A1 * A2), less, vfma(vset(B1 * B2), less_b, x[5 * from]));
}

/* ---- transforms of planes ---- */

/* count (at most EI_VEC) channels of a tile: p: its inputs, from row to row; to: point 0 */
EI_INLINE void transform_inputs(const int n, const float *const *p, int64_t c, int64_t count, float *to, int64_t plane) {
  vf x[MOST_POINTS];
  EI_UNROLL for (int j = 0; j < n * n; j++) x[j] = count >= EI_VEC ? vload(p[j] + c) : vload_n(p[j] + c, count);
  EI_UNROLL for (int j = 0; j < n; j++) inputs(n, x + j, n, x + j);
  EI_UNROLL for (int j = 0; j < n; j++) inputs(n, x + j * n, 1, x + j * n);
  EI_UNROLL for (int j = 0; j < n * n; j++) vstore(to + j * plane, x[j]);
}

/* one input channel times EI_VEC rows of weights: taps lie tap[j] behind w */
EI_INLINE void transform_filters(const int n, const int r, const float *w, const int64_t *tap, float *to, int64_t plane) {
  vf x[25], half[30], y[6];
  EI_UNROLL for (int j = 0; j < r * r; j++) x[j] = vload(w + tap[j]);
  EI_UNROLL for (int j = 0; j < r; j++) filters(n, r, x + j, r, half + j, r);
  EI_UNROLL for (int j = 0; j < n; j++) {
    filters(n, r, half + j * r, 1, y, 1);
    EI_UNROLL for (int k = 0; k < n; k++) vstore(to + (j * n + k) * plane, y[k]);
  }
}

EI_INLINE void transform_outputs(const int m, const int n, const float *from, int64_t plane, vf *y) {
  vf x[MOST_POINTS], half[24];
  EI_UNROLL for (int j = 0; j < n * n; j++) x[j] = vload(from + j * plane);
  EI_UNROLL for (int j = 0; j < n; j++) outputs(m, n, x + j, n, half + j, n);
  EI_UNROLL for (int j = 0; j < m; j++) outputs(m, n, half + j * n, 1, y + j * m, 1);
}

typedef void inputs_fn(const float *const *p, int64_t channels, int64_t part, float *to, int64_t plane, int64_t v_part);
typedef void filters_fn(const float *w, const int64_t *tap, int64_t channels, int ld, float *to, int64_t plane);
typedef void outputs_fn(const form *f, const ei_finish *e, const float *from, int64_t rows, int64_t height, int64_t width, float *y, const float *residual);

EI_INLINE void all_inputs(const int n, const float *const *p, int64_t channels, int64_t part, float *to, int64_t plane, int64_t v_part) {
  for (int64_t c0 = 0; c0 < channels; c0 += part, to += v_part) {
    const int64_t end = c0 + part < channels ? c0 + part : channels;
    int64_t c = c0;
    for (; c + EI_VEC <= end; c += EI_VEC) transform_inputs(n, p, c, EI_VEC, to + c - c0, plane);
    if (c < end) transform_inputs(n, p, c, end - c, to + c - c0, plane);
  }
}
EI_INLINE void all_filters(const int n, const int r, const float *w, const int64_t *tap, int64_t channels, int ld, float *to, int64_t plane) {
  for (int64_t at = 0; at < channels * ld; at += EI_VEC) transform_filters(n, r, w + at, tap, to + at, plane);
}
/* height x width pixels of a tile lie inside the image */
EI_INLINE void all_outputs(const int m, const int n, const form *f, const ei_finish *e, const float *from, int64_t rows, int64_t height,
                           int64_t width, float *y, const float *residual) {
  const ei_conv_ints *i = f->i;
  for (int64_t r = 0; r < rows; r += EI_VEC) {
    vf t[16];
    transform_outputs(m, n, from + r, f->m_plane, t);
    EI_UNROLL for (int a = 0; a < m; a++) EI_UNROLL for (int b = 0; b < m; b++) {
      if (a >= height || b >= width) continue;
      const int64_t pixel = a * i->out_w + b;
      ei_finish_vector(e, t[a * m + b], r, rows - r, y + pixel * i->y_ld + r, residual ? residual + pixel * i->residual_ld + r : NULL);
    }
  }
  if (e->clamp.rest != EI_ACT_NONE)
    for (int64_t a = 0; a < height; a++)
      for (int64_t b = 0; b < width; b++) {
        float *at = y + (a * i->out_w + b) * i->y_ld;
        EI_FN(ei_activate)(e->clamp.rest, e->a, e->b, at, at, rows);
      }
}

#define INPUTS(n)                                                                                                                        \
  static void inputs_##n(const float *const *p, int64_t channels, int64_t part, float *to, int64_t plane, int64_t v_part) {              \
    all_inputs(n, p, channels, part, to, plane, v_part);                                                                                 \
  }
#define ALGORITHM(m, r)                                                                                                                  \
  static void filters_##m##_##r(const float *w, const int64_t *tap, int64_t channels, int ld, float *to, int64_t plane) {                \
    all_filters(m + r - 1, r, w, tap, channels, ld, to, plane);                                                                          \
  }                                                                                                                                      \
  static void outputs_##m##_##r(const form *f, const ei_finish *e, const float *from, int64_t rows, int64_t height, int64_t width,       \
                                float *y, const float *residual) {                                                                       \
    all_outputs(m, m + r - 1, f, e, from, rows, height, width, y, residual);                                                             \
  }
INPUTS(4) INPUTS(6) ALGORITHM(2, 3) ALGORITHM(4, 3) ALGORITHM(2, 5)

/* ---- the step ---- */

typedef struct {
  int64_t image, y, x; /* of a tile's first output */
} corner;
static corner corner_of(const form *f, int64_t tile) {
  const int64_t of_image = f->down * f->across, in_image = tile % of_image;
  return (corner){tile / of_image, in_image / f->across * f->m, in_image % f->across * f->m};
}

static void gather_inputs(const form *f, const space *s, const float *x, int64_t first, int64_t count) {
  const ei_conv_ints *i = f->i;
  inputs_fn *transform = f->n == 4 ? inputs_4 : inputs_6;
  for (int64_t t = 0; t < count; t++) {
    const corner at = corner_of(f, first + t);
    const float *p[MOST_POINTS];
    for (int a = 0; a < f->n; a++) {
      const int64_t row = at.y + a - i->pad_top, line = (at.image * i->in_h + row) * i->in_w;
      for (int b = 0; b < f->n; b++) {
        const int64_t column = at.x + b - i->pad_left;
        const int outside = row < 0 || row >= i->in_h || column < 0 || column >= i->in_w;
        p[a * f->n + b] = outside ? s->zeros : x + (line + column) * i->x_ld;
      }
    }
    transform(p, f->channels, f->part, s->v + t * f->part, f->v_plane, f->v_part);
  }
}

/* the sums of `count` tiles at every point over the channels of one part */
static void multiply(const form *f, const space *s, const float *v, int64_t count, int64_t channels, int ld, int rows, int start) {
  ei_runs runs;
  int32_t len[EI_SEGMENTS];
  ei_plain_runs(&runs, len, channels);
  const int64_t groups = (count + EI_MR - 1) / EI_MR;
  for (int point = 0; point < f->points; point++)
    for (int64_t group = 0; group < groups; group++) {
      const int64_t t0 = count * group / groups;
      const int m = (int)(count * (group + 1) / groups - t0);
      const float *ptr[EI_SEGMENTS * EI_MR];
      for (int j = 0; j < m; j++) ptr[j] = v + point * f->v_plane + (t0 + j) * f->part;
      EI_FN(ei_tile)(&runs, ptr, m, s->u + point * f->u_plane, ld, rows, s->sums + point * f->m_plane + t0 * EI_ROW_BLOCK, start);
    }
}

int64_t EI_FN(ei_winograd_units)(const ei_step *step) {
  const form f = form_of(step);
  return f.tile_blocks * f.i->groups * f.shares;
}

size_t EI_FN(ei_winograd_scratch)(const ei_step *step) {
  const form f = form_of(step);
  space s;
  return lay_out(&f, &s, NULL);
}

int EI_FN(ei_winograd)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_conv_ints *i = (const ei_conv_ints *)step->i;
  const ei_conv_tensors *t = (const ei_conv_tensors *)step->t;
  const ei_conv_floats *fl = (const ei_conv_floats *)step->f;
  const ei_weights *w = step->w;
  const form f = form_of(step);
  space s;
  lay_out(&f, &s, scratch);
  memset(s.zeros, 0, (size_t)f.channels * 4);
  filters_fn *filter = f.r == 5 ? filters_2_5 : f.m == 4 ? filters_4_3 : filters_2_3;
  outputs_fn *back = f.r == 5 ? outputs_2_5 : f.m == 4 ? outputs_4_3 : outputs_2_3;
  ei_finish e = ei_finish_of(i->activation, fl->act_a, fl->act_b);
  const int64_t units = f.tile_blocks * i->groups * f.shares;
  int64_t ready = -1; /* job whose inputs are transformed */

  for (int64_t unit; (unit = ei_claim(share)) < units;) {
    const int64_t job = unit / f.shares, part = unit % f.shares, group = job % i->groups, tile_block = job / i->groups;
    const int64_t first_tile = f.tiles * tile_block / f.tile_blocks, count = f.tiles * (tile_block + 1) / f.tile_blocks - first_tile;
    if (job != ready) gather_inputs(&f, &s, (const float *)t->x + group * f.channels, first_tile, count);
    ready = job;
    for (int64_t b = f.blocks * part / f.shares; b < f.blocks * (part + 1) / f.shares; b++) {
      const int64_t block = group * f.blocks + b, rows = ei_block_rows(w, block), first = ei_block_first(w, block);
      const int ld = EI_PANEL_LD(rows);
      for (int64_t chunk = 0; chunk < ei_chunks(w); chunk++) {
        int status = EI_FN(ei_decode_tile)(w, block, chunk, s.decode, s.weights + weight_at(&f, chunk * w->k_chunk, ld));
        if (status) return status;
      }
      int64_t tap[25];
      for (int j = 0; j < f.r * f.r; j++) tap[j] = weight_at(&f, j * f.channels, ld);
      for (int64_t p = 0; p < f.parts; p++) {
        const int64_t c0 = p * f.part, channels = f.channels - c0 < f.part ? f.channels - c0 : f.part;
        filter(s.weights + c0 * ld, tap, channels, ld, s.u, f.u_plane);
        multiply(&f, &s, s.v + p * f.v_part, count, channels, ld, (int)rows, p == 0);
      }
      ei_finish_rows(&e, w, (const float *)t->bias, first, rows);
      for (int64_t tile = 0; tile < count; tile++) {
        const corner at = corner_of(&f, first_tile + tile);
        const int64_t pixel = (at.image * i->out_h + at.y) * i->out_w + at.x;
        const int64_t height = i->out_h - at.y < f.m ? i->out_h - at.y : f.m, width = i->out_w - at.x < f.m ? i->out_w - at.x : f.m;
        back(&f, &e, s.sums + tile * EI_ROW_BLOCK, rows, height, width, (float *)t->y + pixel * i->y_ld + first,
             t->residual ? (const float *)t->residual + pixel * i->residual_ld + first : NULL);
      }
    }
  }
  return EI_OK;
}
