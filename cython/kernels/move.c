/* move.c - steps that move or mix values without weights of their own: copies, fills, gathers, resizes. */
#include "scratch.h"
#include "table.h"
#include "vec.h"

enum { GRAIN = 32768 /* bytes, about, that make a work unit */, EDGE = 16 /* side of a transposed block */ };

/* ---- strided copy ---- */
typedef struct { int64_t n, sx, sy; } dim;
typedef struct {
  int rank;              /* outer dimensions */
  dim outer[EI_RANK], a, b; /* b innermost, then a */
  int64_t rows, strip, strips; /* product of the outer extents; strip: a's of one piece of work */
  int64_t jobs, per;
} plan;

static int64_t size_of(int64_t v) { return v < 0 ? -v : v; }

static plan copy_plan(const ei_copy_ints *i) {
  const int64_t *d = &i->d0, *sx = &i->sx0, *sy = &i->sy0;
  dim dims[EI_RANK];
  int n = 0;
  for (int j = 0; j < EI_RANK; j++) {
    if (d[j] == 1) continue;
    if (n && dims[n - 1].sx == d[j] * sx[j] && dims[n - 1].sy == d[j] * sy[j]) {
      dims[n - 1] = (dim){dims[n - 1].n * d[j], sx[j], sy[j]};
      continue;
    }
    dims[n++] = (dim){d[j], sx[j], sy[j]};
  }
  plan p = {.a = {1, 0, 0}, .b = {1, 0, 0}, .rows = 1};
  /* innermost: the dimension that is densest in y (and then in x); next to it the one densest in x, so that blocks of the two are
   * read and written in whole cache lines */
  int b = -1, a = -1;
  for (int j = 0; j < n; j++)
    if (b < 0 || size_of(dims[j].sy) < size_of(dims[b].sy) || (dims[j].sy == dims[b].sy && size_of(dims[j].sx) < size_of(dims[b].sx))) b = j;
  for (int j = 0; j < n; j++)
    if (j != b && (a < 0 || size_of(dims[j].sx) <= size_of(dims[a].sx))) a = j;
  if (b >= 0) p.b = dims[b];
  if (a >= 0) p.a = dims[a];
  for (int j = 0; j < n; j++)
    if (j != a && j != b) p.outer[p.rank++] = dims[j], p.rows *= dims[j].n;
  int64_t across = p.b.n * i->size;
  p.strip = across >= GRAIN ? EDGE : (GRAIN / (across + 1) / EDGE + 1) * EDGE;
  p.strips = (p.a.n + p.strip - 1) / p.strip;
  int64_t job = across * (p.a.n < p.strip ? p.a.n : p.strip);
  p.jobs = p.rows * p.strips;
  p.per = job >= GRAIN ? 1 : GRAIN / (job + 1) + 1;
  return p;
}
int64_t EI_FN(ei_copy_units)(const ei_step *step) {
  plan p = copy_plan((const ei_copy_ints *)step->i);
  return (p.jobs + p.per - 1) / p.per;
}

#define COPY_BLOCKS(type)                                                                                                     \
  static void copy_##type(const char *from, char *to, dim a, dim b) {                                                         \
    const type *x = (const type *)from;                                                                                       \
    type *y = (type *)to;                                                                                                     \
    for (int64_t a0 = 0; a0 < a.n; a0 += EDGE)                                                                                \
      for (int64_t b0 = 0; b0 < b.n; b0 += EDGE) {                                                                            \
        const int64_t a1 = a0 + EDGE < a.n ? a0 + EDGE : a.n, b1 = b0 + EDGE < b.n ? b0 + EDGE : b.n;                         \
        for (int64_t j = a0; j < a1; j++)                                                                                     \
          for (int64_t k = b0; k < b1; k++) y[j * a.sy + k * b.sy] = x[j * a.sx + k * b.sx];                                  \
      }                                                                                                                       \
  }
COPY_BLOCKS(uint8_t) COPY_BLOCKS(uint16_t) COPY_BLOCKS(uint32_t) COPY_BLOCKS(uint64_t)

/* A matrix turned over, in blocks of 4 x 4: neighbours along a lie side by side in x, those along b in y. */
typedef uint32_t quad __attribute__((vector_size(16)));
static inline quad quad_at(const uint32_t *p) {
  quad q;
  memcpy(&q, p, 16);
  return q;
}
static void turn_few(const uint32_t *x, uint32_t *y, dim a, dim b, int64_t a0, int64_t a1, int64_t b0, int64_t b1) {
  for (int64_t j = a0; j < a1; j++)
    for (int64_t k = b0; k < b1; k++) y[j * a.sy + k] = x[j + k * b.sx];
}
static void turn(const char *from, char *to, dim a, dim b) {
  const uint32_t *x = (const uint32_t *)from;
  uint32_t *y = (uint32_t *)to;
  for (int64_t a0 = 0; a0 < a.n; a0 += EDGE)
    for (int64_t b0 = 0; b0 < b.n; b0 += EDGE) {
      const int64_t a1 = a0 + EDGE < a.n ? a0 + EDGE : a.n, b1 = b0 + EDGE < b.n ? b0 + EDGE : b.n;
      int64_t k = b0;
      for (; b1 - k >= 3; k += 4) { /* three, as the colours of pixels, are four without the last */
        const int64_t across = b1 - k < 4 ? 3 : 4;
        const uint32_t *p = x + k * b.sx;
        int64_t j = a0;
        for (; j + 4 <= a1; j += 4) {
          const quad r0 = quad_at(p + j), r1 = quad_at(p + j + b.sx), r2 = quad_at(p + j + 2 * b.sx), r3 = quad_at(p + j + (across - 1) * b.sx);
          const quad even = {0, 4, 1, 5}, odd = {2, 6, 3, 7}, low = {0, 1, 4, 5}, high = {2, 3, 6, 7};
          const quad l01 = __builtin_shuffle(r0, r1, even), h01 = __builtin_shuffle(r0, r1, odd);
          const quad l23 = __builtin_shuffle(r2, r3, even), h23 = __builtin_shuffle(r2, r3, odd);
          const quad out[4] = {__builtin_shuffle(l01, l23, low), __builtin_shuffle(l01, l23, high), __builtin_shuffle(h01, h23, low),
                               __builtin_shuffle(h01, h23, high)};
          EI_UNROLL for (int i = 0; i < 4; i++) {
            uint32_t *q = y + (j + i) * a.sy + k;
            if (across == 4) memcpy(q, &out[i], 16);
            else memcpy(q, &out[i], 12);
          }
        }
        turn_few(x, y, a, b, j, a1, k, k + across);
      }
      if (k < b1) turn_few(x, y, a, b, a0, a1, k, b1);
    }
}

int EI_FN(ei_copy)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_copy_ints *i = (const ei_copy_ints *)step->i;
  const ei_copy_tensors *t = (const ei_copy_tensors *)step->t;
  if (i->size != 1 && i->size != 2 && i->size != 4 && i->size != 8) return EI_BAD_STEP;
  for (int j = 0; j < EI_RANK; j++)
    if ((&i->d0)[j] <= 0) return EI_OK;
  const plan p = copy_plan(i);
  for (int64_t unit; (unit = ei_claim(share)) * p.per < p.jobs;)
    for (int64_t job = unit * p.per; job < (unit + 1) * p.per && job < p.jobs; job++) {
      int64_t left = job / p.strips, a0 = job % p.strips * p.strip, x = i->from + a0 * p.a.sx, y = i->to + a0 * p.a.sy;
      for (int j = p.rank - 1; j >= 0; j--) {
        x += left % p.outer[j].n * p.outer[j].sx, y += left % p.outer[j].n * p.outer[j].sy;
        left /= p.outer[j].n;
      }
      dim a = p.a;
      a.n = a.n - a0 < p.strip ? a.n - a0 : p.strip;
      const char *from = (const char *)t->x + x * i->size;
      char *to = (char *)t->y + y * i->size;
      if (p.b.sx == 1 && p.b.sy == 1 && p.b.n * i->size >= 32) {
        for (int64_t j = 0; j < a.n; j++) memcpy(to + j * a.sy * i->size, from + j * a.sx * i->size, (size_t)(p.b.n * i->size));
      } else if (i->size == 4 && a.sx == 1 && p.b.sy == 1 && p.b.n >= 3) {
        turn(from, to, a, p.b);
      } else if (i->size == 4) {
        copy_uint32_t(from, to, a, p.b);
      } else if (i->size == 8) {
        copy_uint64_t(from, to, a, p.b);
      } else if (i->size == 2) {
        copy_uint16_t(from, to, a, p.b);
      } else {
        copy_uint8_t(from, to, a, p.b);
      }
    }
  return EI_OK;
}

/* ---- rows ---- */
static int64_t rows_per_unit(int64_t bytes) { return bytes >= GRAIN ? 1 : GRAIN / (bytes + 1) + 1; }
int64_t EI_FN(ei_copy_rows_units)(const ei_step *step) {
  const ei_copy_rows_ints *i = (const ei_copy_rows_ints *)step->i;
  int64_t per = rows_per_unit(i->cols * 4);
  return (i->rows + per - 1) / per;
}
int EI_FN(ei_copy_rows)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_copy_rows_ints *i = (const ei_copy_rows_ints *)step->i;
  const ei_copy_rows_tensors *t = (const ei_copy_rows_tensors *)step->t;
  const int64_t per = rows_per_unit(i->cols * 4);
  for (int64_t unit; (unit = ei_claim(share)) * per < i->rows;)
    for (int64_t r = unit * per; r < (unit + 1) * per && r < i->rows; r++)
      memcpy((float *)t->y + i->to + r * i->y_ld, (const float *)t->x + r * i->x_ld, (size_t)i->cols * 4);
  return EI_OK;
}

int64_t EI_FN(ei_fill_units)(const ei_step *step) { return (((const ei_fill_ints *)step->i)->count * 4 + GRAIN - 1) / GRAIN; }
int EI_FN(ei_fill)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const int64_t count = ((const ei_fill_ints *)step->i)->count, per = GRAIN / 4;
  const float value = ((const ei_fill_floats *)step->f)->value;
  float *y = ((const ei_fill_tensors *)step->t)->y;
  for (int64_t unit; (unit = ei_claim(share)) * per < count;)
    for (int64_t j = unit * per; j < (unit + 1) * per && j < count; j++) y[j] = value;
  return EI_OK;
}

/* ---- gathers ---- */
static int64_t gather_per(const ei_gather_ints *i) { return rows_per_unit(i->inner * i->size); }
int64_t EI_FN(ei_gather_units)(const ei_step *step) {
  const ei_gather_ints *i = (const ei_gather_ints *)step->i;
  return (i->outer * i->count + gather_per(i) - 1) / gather_per(i);
}
int EI_FN(ei_gather)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_gather_ints *i = (const ei_gather_ints *)step->i;
  const ei_gather_tensors *t = (const ei_gather_tensors *)step->t;
  const int64_t per = gather_per(i), bytes = i->inner * i->size, all = i->outer * i->count, *index = t->index;
  for (int64_t unit; (unit = ei_claim(share)) * per < all;)
    for (int64_t j = unit * per; j < (unit + 1) * per && j < all; j++) {
      int64_t from = index[j % i->count];
      if (from < 0) from += i->length;
      if (from < 0 || from >= i->length) return EI_BAD_INDEX;
      memcpy((char *)t->y + j * bytes, (const char *)t->x + (j / i->count * i->length + from) * bytes, (size_t)bytes);
    }
  return EI_OK;
}

enum { TOKENS = 8 /* rows of a work unit of gather_rows: neighbours in one row block share its decoding */ };
int64_t EI_FN(ei_gather_rows_units)(const ei_step *step) { return (((const ei_gather_rows_ints *)step->i)->count + TOKENS - 1) / TOKENS; }
size_t EI_FN(ei_gather_rows_scratch)(const ei_step *step) {
  ei_scratch at = {NULL, 0};
  ei_take(&at, ei_decode_scratch(step->w->k_chunk));
  ei_take(&at, (size_t)step->w->k_chunk * EI_ROW_BLOCK * 4);
  return at.used;
}
int EI_FN(ei_gather_rows)(const ei_step *step, ei_share *share, void *scratch) {
  const int64_t count = ((const ei_gather_rows_ints *)step->i)->count;
  const ei_gather_rows_tensors *t = (const ei_gather_rows_tensors *)step->t;
  const ei_weights *w = step->w;
  if (!w) return EI_BAD_STEP;
  const int64_t *index = t->index, group_rows = w->rows / w->groups;
  ei_scratch at = {scratch, 0};
  void *decode = ei_take(&at, ei_decode_scratch(w->k_chunk));
  float *panel = ei_take(&at, (size_t)w->k_chunk * EI_ROW_BLOCK * 4);
  for (int64_t unit; (unit = ei_claim(share)) * TOKENS < count;) {
    const int64_t first = unit * TOKENS, n = count - first < TOKENS ? count - first : TOKENS;
    int64_t row[TOKENS], block[TOKENS];
    for (int64_t j = 0; j < n; j++) {
      row[j] = index[first + j] < 0 ? index[first + j] + w->rows : index[first + j];
      if (row[j] < 0 || row[j] >= w->rows) return EI_BAD_INDEX;
      block[j] = row[j] / group_rows * ei_blocks_per_group(w) + row[j] % group_rows / EI_ROW_BLOCK;
    }
    uint32_t done = 0;
    for (int64_t j = 0; j < n; j++) {
      if (done >> j & 1) continue;
      const int ld = EI_PANEL_LD(ei_block_rows(w, block[j]));
      for (int64_t chunk = 0; chunk < ei_chunks(w); chunk++) {
        int status = EI_FN(ei_decode_tile)(w, block[j], chunk, decode, panel);
        if (status) return status;
        const int64_t k0 = chunk * w->k_chunk, nk = ei_chunk_k(w, chunk);
        for (int64_t m = j; m < n; m++) {
          if (block[m] != block[j]) continue;
          const float scale = w->row_scale ? w->row_scale[row[m]] : 1.0f;
          const float *from = panel + (row[m] - ei_block_first(w, block[m]));
          float *y = (float *)t->y + (first + m) * w->k + k0;
          for (int64_t k = 0; k < nk; k++) y[k] = from[k * ld] * scale;
          done |= 1u << m;
        }
      }
    }
  }
  return EI_OK;
}

/* ---- resize ---- */
int64_t EI_FN(ei_resize_units)(const ei_step *step) {
  const ei_resize_ints *i = (const ei_resize_ints *)step->i;
  int64_t per = rows_per_unit(i->out_w * i->channels * 4);
  return (i->images * i->out_h + per - 1) / per;
}
int EI_FN(ei_resize)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_resize_ints *i = (const ei_resize_ints *)step->i;
  const ei_resize_tensors *t = (const ei_resize_tensors *)step->t;
  const int32_t *row0 = t->row0, *row1 = t->row1, *col0 = t->col0, *col1 = t->col1;
  const float *row_mix = t->row_mix, *col_mix = t->col_mix;
  const int64_t per = rows_per_unit(i->out_w * i->channels * 4), all = i->images * i->out_h, c = i->channels;
  for (int64_t unit; (unit = ei_claim(share)) * per < all;)
    for (int64_t row = unit * per; row < (unit + 1) * per && row < all; row++) {
      const int64_t image = row / i->out_h, k = row % i->out_h;
      const float *top = (const float *)t->x + (image * i->in_h + row0[k]) * i->in_w * c;
      const float *bottom = (const float *)t->x + (image * i->in_h + row1[k]) * i->in_w * c;
      float *y = (float *)t->y + row * i->out_w * c;
      for (int64_t j = 0; j < i->out_w; j++, y += c) {
        const float *a = top + col0[j] * c, *b = top + col1[j] * c, *d = bottom + col0[j] * c, *e = bottom + col1[j] * c;
        if (row_mix[k] == 0.0f && col_mix[j] == 0.0f) {
          memcpy(y, a, (size_t)c * 4);
          continue;
        }
        const vf down = vset(row_mix[k]), up = vset(1.0f - row_mix[k]), right = vset(col_mix[j]), left = vset(1.0f - col_mix[j]);
        for (int64_t v = 0; v < c; v += EI_VEC) {
          vf over = vadd(vmul(vload_n(a + v, c - v), left), vmul(vload_n(b + v, c - v), right));
          vf under = vadd(vmul(vload_n(d + v, c - v), left), vmul(vload_n(e + v, c - v), right));
          vstore_n(y + v, vadd(vmul(over, up), vmul(under, down)), c - v);
        }
      }
    }
  return EI_OK;
}
