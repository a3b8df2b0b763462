/* normalize.c - softmax, layer and local response normalisation, reductions. */
#include <float.h>
#include "scratch.h"
#include "table.h"
#include "vec.h"

enum { GRAIN = 8192, BLOCK = 128 /* long sums are made of short ones, which keeps rounding errors small */ };

static int64_t per_unit(int64_t work) { return work >= GRAIN ? 1 : work > 0 ? GRAIN / work : GRAIN; }

/* ---- softmax ---- */
static void softmax_row(const float *x, float *y, int64_t n) {
  vf top = vset(-INFINITY);
  int64_t j = 0;
  for (; j + EI_VEC <= n; j += EI_VEC) top = vmax(top, vload(x + j));
  float t[EI_VEC] __attribute__((aligned(4 * EI_VEC)));
  vstore(t, top);
  float most = t[0];
  for (int v = 1; v < EI_VEC; v++) most = t[v] > most ? t[v] : most;
  for (; j < n; j++) most = x[j] > most ? x[j] : most;
  const vf shift = vset(most);
  vf sum = vzero();
  for (j = 0; j + EI_VEC <= n; j += EI_VEC) {
    vf e = vexp(vsub(vload(x + j), shift));
    vstore(y + j, e);
    sum = vadd(sum, e);
  }
  if (j < n) {
    vstore_n(y + j, vexp(vsub(vload_n(x + j, n - j), shift)), n - j);
    sum = vadd(sum, vload_n(y + j, n - j));
  }
  const vf scale = vset(1.0f / vsum(sum));
  for (j = 0; j < n; j += EI_VEC) vstore_n(y + j, vmul(vload_n(y + j, n - j), scale), n - j);
}

static void softmax_columns(const float *x, float *y, int64_t length, int64_t inner, int64_t n) {
  vf top = vset(-INFINITY), sum = vzero();
  for (int64_t j = 0; j < length; j++) top = vmax(top, vload_n(x + j * inner, n));
  for (int64_t j = 0; j < length; j++) {
    vf e = vexp(vsub(vload_n(x + j * inner, n), top));
    vstore_n(y + j * inner, e, n);
    sum = vadd(sum, e);
  }
  const vf scale = vdiv(vset(1.0f), sum);
  for (int64_t j = 0; j < length; j++) vstore_n(y + j * inner, vmul(vload_n(y + j * inner, n), scale), n);
}

/* a job is one row (inner 1) or one vector of columns */
static int64_t softmax_jobs(const ei_softmax_ints *i) { return i->inner == 1 ? i->outer : i->outer * ((i->inner + EI_VEC - 1) / EI_VEC); }
static int64_t softmax_per(const ei_softmax_ints *i) { return per_unit(4 * i->length * (i->inner == 1 ? 1 : EI_VEC)); }
int64_t EI_FN(ei_softmax_units)(const ei_step *step) {
  const ei_softmax_ints *i = (const ei_softmax_ints *)step->i;
  return (softmax_jobs(i) + softmax_per(i) - 1) / softmax_per(i);
}
int EI_FN(ei_softmax)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_softmax_ints *i = (const ei_softmax_ints *)step->i;
  const ei_softmax_tensors *t = (const ei_softmax_tensors *)step->t;
  const int64_t jobs = softmax_jobs(i), per = softmax_per(i), across = (i->inner + EI_VEC - 1) / EI_VEC;
  for (int64_t unit; (unit = ei_claim(share)) * per < jobs;)
    for (int64_t job = unit * per; job < (unit + 1) * per && job < jobs; job++) {
      if (i->inner == 1) {
        softmax_row((const float *)t->x + job * i->length, (float *)t->y + job * i->length, i->length);
      } else {
        int64_t column = job % across * EI_VEC, at = job / across * i->length * i->inner + column;
        softmax_columns((const float *)t->x + at, (float *)t->y + at, i->length, i->inner, i->inner - column);
      }
    }
  return EI_OK;
}

/* ---- sums along a row ---- */
static float row_sum(const float *x, int64_t n, float less, int squares) {
  /* squares: of x - less */
  const vf shift = vset(less);
  vf total = vzero();
  int64_t j = 0;
  while (j + EI_VEC <= n) {
    int64_t end = j + BLOCK * EI_VEC < n ? j + BLOCK * EI_VEC : n;
    vf sum = vzero();
    for (; j + EI_VEC <= end; j += EI_VEC) {
      vf d = vsub(vload(x + j), shift);
      sum = squares ? vfma(d, d, sum) : vadd(sum, d);
    }
    total = vadd(total, sum);
  }
  float rest = 0.0f;
  for (; j < n; j++) rest += squares ? (x[j] - less) * (x[j] - less) : x[j] - less;
  return vsum(total) + rest;
}

/* ---- layer normalisation ---- */
int64_t EI_FN(ei_layer_norm_units)(const ei_step *step) {
  const ei_layer_norm_ints *i = (const ei_layer_norm_ints *)step->i;
  int64_t per = per_unit(2 * i->cols);
  return (i->rows + per - 1) / per;
}
int EI_FN(ei_layer_norm)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_layer_norm_ints *i = (const ei_layer_norm_ints *)step->i;
  const ei_layer_norm_tensors *t = (const ei_layer_norm_tensors *)step->t;
  const float epsilon = ((const ei_layer_norm_floats *)step->f)->epsilon, *scale = t->scale, *shift = t->shift;
  const int64_t per = per_unit(2 * i->cols), n = i->cols;
  for (int64_t unit; (unit = ei_claim(share)) * per < i->rows;)
    for (int64_t r = unit * per; r < (unit + 1) * per && r < i->rows; r++) {
      const float *x = (const float *)t->x + r * n;
      float *y = (float *)t->y + r * n;
      const float mean = row_sum(x, n, 0.0f, 0) / (float)n;
      const float norm = 1.0f / sqrtf(row_sum(x, n, mean, 1) / (float)n + epsilon);
      const vf vmean = vset(mean), vnorm = vset(norm);
      for (int64_t j = 0; j < n; j += EI_VEC) {
        vf v = vmul(vsub(vload_n(x + j, n - j), vmean), vnorm);
        if (scale) v = vmul(v, vload_n(scale + j, n - j));
        if (shift) v = vadd(v, vload_n(shift + j, n - j));
        vstore_n(y + j, v, n - j);
      }
    }
  return EI_OK;
}

/* ---- local response normalisation ---- */
size_t EI_FN(ei_lrn_scratch)(const ei_step *step) {
  const ei_lrn_ints *i = (const ei_lrn_ints *)step->i;
  return (size_t)(i->cols + i->size + EI_VEC) * 4;
}
int64_t EI_FN(ei_lrn_units)(const ei_step *step) {
  const ei_lrn_ints *i = (const ei_lrn_ints *)step->i;
  int64_t per = per_unit(2 * i->cols);
  return (i->rows + per - 1) / per;
}
int EI_FN(ei_lrn)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_lrn_ints *i = (const ei_lrn_ints *)step->i;
  const ei_lrn_tensors *t = (const ei_lrn_tensors *)step->t;
  const ei_lrn_floats *f = (const ei_lrn_floats *)step->f;
  const int64_t per = per_unit(2 * i->cols), n = i->cols, before = (i->size - 1) / 2;
  const vf alpha = vset(f->alpha / (float)i->size), bias = vset(f->bias);
  float *squares = scratch; /* those of a row, zeros of the window's reach before and behind it */
  memset(squares, 0, (size_t)(n + i->size + EI_VEC) * 4);
  for (int64_t unit; (unit = ei_claim(share)) * per < i->rows;)
    for (int64_t r = unit * per; r < (unit + 1) * per && r < i->rows; r++) {
      const float *x = (const float *)t->x + r * i->x_ld;
      float *y = (float *)t->y + r * i->y_ld;
      for (int64_t j = 0; j < n; j += EI_VEC) {
        vf v = vload_n(x + j, n - j);
        vstore_n(squares + before + j, vmul(v, v), n - j);
      }
      for (int64_t j = 0; j < n; j += EI_VEC) {
        vf sum = vzero();
        for (int64_t k = 0; k < i->size; k++) sum = vadd(sum, vload(squares + j + k));
        vf base = vfma(alpha, sum, bias), factor;
        if (f->beta == 0.75f) { /* b^-3/4 = b^-1/2 * b^-1/4 */
          vf root = vdiv(vset(1.0f), vsqrt(base));
          factor = vmul(root, vsqrt(root));
        } else {
          float b[EI_VEC] __attribute__((aligned(4 * EI_VEC)));
          vstore(b, base);
          for (int v = 0; v < EI_VEC; v++) b[v] = powf(b[v], -f->beta);
          factor = vload(b);
        }
        vstore_n(y + j, vmul(vload_n(x + j, n - j), factor), n - j);
      }
    }
  return EI_OK;
}

/* ---- reductions ---- */
enum { SUM, MEAN, MAX, MIN, PROD, SQUARES, L1, L2, REDUCTIONS };
EI_INLINE float neutral(int op) { return op == MAX ? -INFINITY : op == MIN ? INFINITY : op == PROD ? 1.0f : 0.0f; }
EI_INLINE vf take(int op, vf sum, vf x) {
  switch (op) {
    case MAX: return vmax(sum, x);
    case MIN: return vmin(sum, x);
    case PROD: return vmul(sum, x);
    case SQUARES: case L2: return vfma(x, x, sum);
    case L1: return vadd(sum, vabs(x));
    default: return vadd(sum, x);
  }
}
/* two partial results */
EI_INLINE vf join(int op, vf a, vf b) { return op == MAX ? vmax(a, b) : op == MIN ? vmin(a, b) : op == PROD ? vmul(a, b) : vadd(a, b); }
static float join_lanes(int op, vf a) {
  float t[EI_VEC] __attribute__((aligned(4 * EI_VEC)));
  vstore(t, a);
  for (int n = EI_VEC / 2; n; n /= 2)
    for (int j = 0; j < n; j++)
      t[j] = op == MAX ? (t[j] > t[j + n] ? t[j] : t[j + n]) : op == MIN ? (t[j] < t[j + n] ? t[j] : t[j + n]) : op == PROD ? t[j] * t[j + n] : t[j] + t[j + n];
  return t[0];
}
EI_INLINE vf last_touch(int op, vf v, int64_t length) {
  return op == MEAN ? vdiv(v, vset((float)length)) : op == L2 ? vsqrt(v) : v;
}

/* `steps` vectors, `stride` floats apart */
EI_INLINE vf reduce_vectors(const int op, const float *x, int64_t steps, int64_t stride, int64_t lanes) {
  vf total = vset(neutral(op));
  for (int64_t j = 0; j < steps;) {
    vf part = vset(neutral(op));
    for (int64_t end = j + BLOCK < steps ? j + BLOCK : steps; j < end; j++) part = take(op, part, vload_n(x + j * stride, lanes));
    total = join(op, total, part);
  }
  return total;
}
EI_INLINE void reduce_job(const int op, const ei_reduce_ints *i, const float *x, float *y, int64_t job) {
  const int64_t across = (i->inner + EI_VEC - 1) / EI_VEC;
  if (i->inner > 1) {
    int64_t column = job % across * EI_VEC, outer = job / across;
    vf v = reduce_vectors(op, x + outer * i->length * i->inner + column, i->length, i->inner, i->inner - column);
    vstore_n(y + outer * i->inner + column, last_touch(op, v, i->length), i->inner - column);
    return;
  }
  const float *row = x + job * i->length;
  const int64_t whole = i->length / EI_VEC, rest = i->length % EI_VEC;
  vf v = reduce_vectors(op, row, whole, EI_VEC, EI_VEC);
  if (rest) {
    float t[EI_VEC] __attribute__((aligned(4 * EI_VEC)));
    for (int j = 0; j < EI_VEC; j++) t[j] = j < rest ? row[whole * EI_VEC + j] : neutral(op);
    v = take(op, v, vload(t));
  }
  vstore_n(y + job, last_touch(op, vset(join_lanes(op, v)), i->length), 1);
}
static int64_t reduce_jobs(const ei_reduce_ints *i) { return i->inner == 1 ? i->outer : i->outer * ((i->inner + EI_VEC - 1) / EI_VEC); }
static int64_t reduce_per(const ei_reduce_ints *i) { return per_unit(i->length * (i->inner == 1 ? 1 : EI_VEC)); }
int64_t EI_FN(ei_reduce_units)(const ei_step *step) {
  const ei_reduce_ints *i = (const ei_reduce_ints *)step->i;
  return (reduce_jobs(i) + reduce_per(i) - 1) / reduce_per(i);
}
int EI_FN(ei_reduce)(const ei_step *step, ei_share *share, void *scratch) {
  (void)scratch;
  const ei_reduce_ints *i = (const ei_reduce_ints *)step->i;
  const ei_reduce_tensors *t = (const ei_reduce_tensors *)step->t;
  const int64_t jobs = reduce_jobs(i), per = reduce_per(i);
  if (i->operation < 0 || i->operation >= REDUCTIONS) return EI_BAD_STEP;
  for (int64_t unit; (unit = ei_claim(share)) * per < jobs;)
    for (int64_t job = unit * per; job < (unit + 1) * per && job < jobs; job++) switch (i->operation) {
#define CASE(op) case op: reduce_job(op, i, t->x, t->y, job); break;
        CASE(SUM) CASE(MEAN) CASE(MAX) CASE(MIN) CASE(PROD) CASE(SQUARES) CASE(L1) CASE(L2)
      }
  return EI_OK;
}
