/* compare.c - every kernel of one variant against plain, on random inputs, without Python, files or an operating system.
 *
 * Runs as a program (native, or under an emulator of another processor) and, linked with boot.S, on a bare emulated machine: that is how
 * instruction sets which the build machine lacks are executed. Prints one line per failure and a closing 'N passed, N failed'.
 */
#include <stddef.h>

#include "table.h"

#ifndef EI_OTHER
#error "compile with -DEI_OTHER=<variant>"
#endif
#define EI_CAT_(a, b) a##b
#define EI_CAT(a, b) EI_CAT_(a, b)
#define OTHER EI_CAT(ei_kernels_, EI_OTHER)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

void out(const char *text); /* boot_out.c or stdio below */

#ifndef EI_BARE
#include <stdio.h>
void out(const char *text) { fputs(text, stdout); }
#endif

static void number(int64_t value) {
  char digits[24];
  int n = 23;
  uint64_t left = value < 0 ? (uint64_t)-value : (uint64_t)value;
  digits[n] = 0;
  do digits[--n] = (char)('0' + left % 10);
  while (left /= 10);
  if (value < 0) digits[--n] = '-';
  out(digits + n);
}

/* ---- random inputs, one bump allocator */
static uint64_t seed = 0x9E3779B97F4A7C15u;
static uint32_t random32(void) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  uint64_t x = seed ^ (seed >> 29);
  return (uint32_t)(x >> 24);
}
static int64_t between(int64_t low, int64_t high) { return low + random32() % (uint64_t)(high - low + 1); }
static float uniform(void) { return (float)(random32() >> 8) / 8388608.0f - 1.0f; }

static _Alignas(64) uint8_t memory[96 << 20];
static size_t used;
static void *take(size_t bytes) {
  void *p = memory + used;
  used += (bytes + 127) / 64 * 64;
  if (used > sizeof memory) {
    out("out of memory\n");
    return memory;
  }
  return p;
}
static float *floats(int64_t count) {
  float *p = take((size_t)count * 4 + 64);
  for (int64_t i = 0; i < count; i++) p[i] = uniform();
  return p;
}
static uint8_t *bytes(size_t count) {
  uint8_t *p = take(count + EI_OVERREAD);
  for (size_t i = 0; i < count; i++) p[i] = (uint8_t)random32();
  return p;
}

/* ---- results */
static int passed, failed;
static const char *subject = "";
static int detail;
static void verdict(int good, double found) {
  if (good) {
    passed++;
    return;
  }
  failed++;
  out("FAIL ");
  out(subject);
  out(" case ");
  number(detail);
  out(": difference in millionths of the range ");
  number((int64_t)(found * 1e6));
  out("\n");
}
static double absolute(double x) { return x < 0 ? -x : x; }
static void same(const float *a, const float *b, int64_t count, double tolerance) {
  double range = 1e-6, worst = 0;
  for (int64_t i = 0; i < count; i++) {
    double size = absolute(a[i]), off = absolute((double)a[i] - b[i]);
    if (a[i] != a[i] && b[i] != b[i]) continue;
    if (a[i] == b[i]) continue;
    if (!(size < 1e30)) size = 0;
    if (size > range) range = size;
    if (!(off <= worst)) worst = off;
  }
  for (int64_t i = 0; i < count; i++) {
    double size = absolute(a[i]);
    if (size > range && size < 1e30) range = size;
  }
  verdict(worst <= tolerance * range, worst / range);
}

/* ---- coded weights of the formats whose every byte string is valid */
static ei_weights *weights(int64_t rows, int64_t k, int groups, int coder, int bits, int planes) {
  ei_weights *w = take(sizeof *w);
  *w = (ei_weights){.rows = rows, .k = k, .groups = groups, .k_chunk = (int32_t)(between(0, 1) ? 512 : between(8, 300)), .n_planes = planes};
  size_t symbols = 0;
  for (int64_t b = 0; b < ei_blocks(w); b++) symbols += (size_t)(EI_PADDED(ei_block_rows(w, b)) * k);
  for (int p = 0; p < planes; p++) {
    int width = planes == 2 && p == 0 ? 1 : bits;
    int format = planes == 2 && p == 0 ? EI_PACKED : coder;
    size_t size = format == EI_PACKED ? (symbols * (size_t)width + 7) / 8
                  : format == EI_RAW_F32 ? symbols * 4
                  : format == EI_RAW_U8 ? symbols
                                        : symbols * 2;
    uint8_t *raw = bytes(size + 64);
    if (format == EI_RAW_F32) for (size_t i = 0; i < symbols; i++) ((float *)raw)[i] = uniform();
    if (format == EI_RAW_F16 || format == EI_RAW_BF16)
      for (size_t i = 0; i < symbols; i++) ((uint16_t *)raw)[i] &= format == EI_RAW_F16 ? 0xBBFF : 0xBFFF; /* finite, below 2 */
    w->plane[p] = (ei_plane){.coder = format, .bits = width, .lanes = 1, .bytes = raw, .n_bytes = size};
  }
  if (coder == EI_PACKED || coder == EI_RAW_U8) {
    w->table_len = planes == 2 ? 2 << bits : coder == EI_RAW_U8 ? 256 : 1 << bits;
    float *table = floats(256);
    if (between(0, 2)) /* most quantizers' values are bfloat16 numbers, which take other paths */
      for (int j = 0; j < 256; j++) ((uint16_t *)table)[2 * j] = 0;
    w->table = table;
    w->base_table = planes == 2 ? floats(2) : 0;
  }
  if (between(0, 1)) w->row_scale = floats(rows);
  return w;
}
static ei_weights *some_weights(int64_t rows, int64_t k, int groups) {
  static int turn;
  int bits = turn % 7 + 1;
  switch (turn++ % 5) {
    case 0: return weights(rows, k, groups, EI_RAW_F32, 0, 1);
    case 1: return weights(rows, k, groups, EI_RAW_F16, 0, 1);
    case 2: return weights(rows, k, groups, EI_PACKED, bits, 2);
    case 3: return weights(rows, k, groups, EI_RAW_U8, 8, 1);
    default: return weights(rows, k, groups, EI_PACKED, 4, 1);
  }
}

/* ---- one step by both variants */
static int run_one(const ei_kernels *kernels, const ei_step *step) {
  ei_share share = {.threads = 1};
  atomic_init(&share.next, 0);
  void *scratch = take(kernels->scratch[step->kind] ? kernels->scratch[step->kind](step) + 64 : 64);
  return kernels->run[step->kind](step, &share, scratch);
}
/* y of `count` floats at tensor position `at` */
static void both(ei_step *step, int at, int64_t count, double tolerance) {
  float *y = floats(count), *other = take((size_t)count * 4 + 64);
  for (int64_t i = 0; i < count; i++) other[i] = y[i];
  size_t mark = used;
  step->t[at] = y;
  int status = run_one(&ei_kernels_plain, step);
  used = mark;
  step->t[at] = other;
  int second = run_one(&OTHER, step);
  if (status || second) {
    out("status ");
    number(status);
    out(" ");
    number(second);
    out("\n");
    verdict(0, 0);
    return;
  }
  same(y, other, count, tolerance);
}
#define STEP(KIND, name)                                   \
  ei_step step = {.kind = EI_STEP_##KIND};                 \
  ei_##name##_tensors *t = (ei_##name##_tensors *)step.t;  \
  ei_##name##_ints *i = (ei_##name##_ints *)step.i;        \
  ei_##name##_floats *f = (ei_##name##_floats *)step.f;    \
  (void)t, (void)i, (void)f
#define AT(KIND, name, field) ((int)(offsetof(ei_##name##_tensors, field) / sizeof(void *)))

static void convolution(int depthwise, int algorithm) {
  STEP(CONV, conv);
  int64_t groups = between(0, 3) ? 1 : 2, c = depthwise ? between(1, 70) : groups * between(1, 40), o = depthwise ? c : groups * between(1, 70);
  if (depthwise) step.kind = EI_STEP_DEPTHWISE, groups = c;
  if (!depthwise && groups == 1 && between(0, 4) == 0) c = between(200, 700);
  i->images = between(1, 3), i->kh = between(1, 4), i->kw = between(1, 4), i->stride_h = between(1, 2), i->stride_w = between(1, 3);
  i->dilation_h = between(1, 2), i->dilation_w = between(1, 2), i->algorithm = algorithm;
  if (algorithm != EI_DIRECT) {
    i->kh = i->kw = algorithm == EI_WINOGRAD_2_5 ? 5 : 3;
    i->stride_h = i->stride_w = i->dilation_h = i->dilation_w = 1;
  }
  i->pad_top = between(0, i->kh - 1), i->pad_left = between(0, i->kw - 1);
  i->in_h = between(i->kh * 2, 12), i->in_w = between(i->kw * 2, 15), i->in_c = c, i->x_ld = c + between(0, 5);
  i->out_h = (i->in_h + 2 * i->pad_top - (i->kh - 1) * i->dilation_h - 1) / i->stride_h + 1;
  i->out_w = (i->in_w + 2 * i->pad_left - (i->kw - 1) * i->dilation_w - 1) / i->stride_w + 1;
  if (algorithm == EI_DIRECT && between(0, 5) == 0) i->in_h = i->in_w = i->out_h = i->out_w = i->kh = i->kw = 1, i->pad_top = i->pad_left = 0, i->images = between(1, 9);
  i->out_c = o, i->y_ld = o + between(0, 5), i->residual_ld = o, i->groups = groups;
  int64_t pixels = i->images * i->out_h * i->out_w;
  t->x = floats(i->images * i->in_h * i->in_w * i->x_ld + 64);
  t->bias = between(0, 1) ? floats(o) : 0;
  t->residual = between(0, 1) ? floats(pixels * o) : 0;
  i->activation = between(0, algorithm == EI_DIRECT ? EI_ACT_GELU : EI_ACT_LEAKY_RELU); /* one that keeps the range: errors are relative to it */
  f->act_a = 0.1f, f->act_b = 0.7f;
  step.w = some_weights(o, i->kh * i->kw * c / groups, (int)groups);
  both(&step, AT(CONV, conv, y), pixels * i->y_ld, algorithm == EI_DIRECT ? 1e-5 : 5e-5);
}

static void pooling(void) {
  STEP(POOL, pool);
  i->kind = between(0, 2), i->images = between(1, 2), i->channels = between(1, 70), i->in_h = between(5, 12), i->in_w = between(5, 12);
  i->x_ld = i->channels + between(0, 3), i->y_ld = i->channels + between(0, 3), i->kh = between(1, 3), i->kw = between(1, 3);
  i->stride_h = between(1, 2), i->stride_w = between(1, 2), i->dilation_h = i->dilation_w = 1;
  i->pad_top = i->pad_bottom = between(0, i->kh - 1), i->pad_left = i->pad_right = between(0, i->kw - 1);
  i->out_h = (i->in_h + i->pad_top + i->pad_bottom - i->kh) / i->stride_h + 1;
  i->out_w = (i->in_w + i->pad_left + i->pad_right - i->kw) / i->stride_w + 1;
  t->x = floats(i->images * i->in_h * i->in_w * i->x_ld);
  both(&step, AT(POOL, pool, y), i->images * i->out_h * i->out_w * i->y_ld, 1e-6);
}

static void global_pooling(void) {
  STEP(GLOBAL_POOL, global_pool);
  i->kind = between(0, 1), i->images = between(1, 3), i->pixels = between(1, 60), i->channels = between(1, 70);
  i->x_ld = i->channels + between(0, 3), i->y_ld = i->channels;
  t->x = floats(i->images * i->pixels * i->x_ld);
  both(&step, AT(GLOBAL_POOL, global_pool, y), i->images * i->y_ld, 1e-6);
}

static void rowwise(void) {
  int64_t rows = between(1, 9), cols = between(1, 150);
  {
    STEP(UNARY, unary);
    i->activation = detail % EI_ACT_COUNT, i->rows = rows, i->cols = cols, i->x_ld = cols + between(0, 2), i->y_ld = cols;
    f->act_a = 0.2f, f->act_b = 0.8f;
    float *x = floats(rows * i->x_ld);
    int positive = i->activation == EI_ACT_LOG || i->activation == EI_ACT_SQRT || i->activation == EI_ACT_RECIPROCAL;
    for (int64_t n = 0; n < rows * i->x_ld; n++) x[n] = positive ? x[n] * x[n] * 20 + 0.01f : x[n] * 12;
    t->x = x;
    subject = "unary";
    both(&step, AT(UNARY, unary, y), rows * cols, 2e-6);
  }
  {
    STEP(AFFINE, affine);
    i->rows = rows, i->cols = cols, i->x_ld = cols + 1, i->y_ld = cols, i->activation = EI_ACT_RELU;
    t->x = floats(rows * i->x_ld), t->scale = floats(cols), t->shift = floats(cols);
    subject = "affine";
    both(&step, AT(AFFINE, affine, y), rows * cols, 1e-6);
  }
  {
    STEP(LRN, lrn);
    i->rows = rows, i->cols = cols, i->x_ld = cols, i->y_ld = cols, i->size = between(1, 5);
    f->alpha = 0.01f, f->beta = between(0, 1) ? 0.75f : 0.6f, f->bias = 1.5f;
    t->x = floats(rows * cols);
    subject = "lrn";
    both(&step, AT(LRN, lrn, y), rows * cols, 2e-6);
  }
  {
    STEP(SOFTMAX, softmax);
    i->outer = rows, i->length = cols, i->inner = between(0, 1) ? 1 : between(1, 20);
    t->x = floats(rows * cols * i->inner);
    subject = "softmax";
    both(&step, AT(SOFTMAX, softmax, y), rows * cols * i->inner, 2e-6);
  }
  {
    STEP(LAYER_NORM, layer_norm);
    i->rows = rows, i->cols = cols + 3, f->epsilon = 1e-5f;
    t->x = floats(rows * i->cols), t->scale = floats(i->cols), t->shift = floats(i->cols);
    subject = "layer_norm";
    both(&step, AT(LAYER_NORM, layer_norm, y), rows * i->cols, 3e-6);
  }
  {
    STEP(REDUCE, reduce);
    i->operation = detail % 8, i->outer = rows, i->length = between(1, 40), i->inner = between(0, 1) ? 1 : cols;
    t->x = floats(rows * i->length * i->inner);
    subject = "reduce";
    both(&step, AT(REDUCE, reduce, y), rows * i->inner, 3e-6);
  }
  {
    STEP(BINARY, binary);
    i->operation = detail % EI_OP_COUNT;
    i->d0 = i->d1 = i->d2 = 1, i->d3 = between(1, 4), i->d4 = rows, i->d5 = cols;
    int form = (int)between(0, 2);
    i->sa3 = rows * cols, i->sa4 = cols, i->sa5 = 1;
    i->sb3 = form == 0 ? rows * cols : 0, i->sb4 = form == 0 ? cols : 0, i->sb5 = form == 2 ? 0 : 1;
    float *a = floats(i->d3 * rows * cols), *b = floats(i->d3 * rows * cols);
    for (int64_t n = 0; n < i->d3 * rows * cols; n++) a[n] = a[n] * a[n] + 0.1f, b[n] = b[n] * b[n] + 0.1f;
    t->a = a, t->b = b;
    subject = "binary";
    both(&step, AT(BINARY, binary, y), i->d3 * rows * cols, 3e-6);
  }
}

static void product(void) {
  STEP(MATMUL, matmul);
  i->b0 = between(1, 2), i->b1 = between(1, 3), i->m = between(1, 20), i->n = between(1, 70), i->k = between(1, 90);
  i->a_m = i->k + 1, i->a_b1 = i->m * i->a_m, i->a_b0 = i->b1 * i->a_b1;
  if (between(0, 1)) i->b_k = i->n, i->b_n = 1;
  else i->b_k = 1, i->b_n = i->k;
  i->b_b1 = i->n * i->k, i->b_b0 = i->b1 * i->b_b1;
  i->y_m = i->n, i->y_b1 = i->m * i->n, i->y_b0 = i->b1 * i->y_b1, f->alpha = 0.5f;
  t->a = floats(i->b0 * i->a_b0 + 64), t->b = floats(i->b0 * i->b_b0);
  both(&step, AT(MATMUL, matmul, y), i->b0 * i->y_b0, 1e-5);
}

static void recurrence(int lstm) {
  int64_t steps = between(1, 5), batch = between(1, 3), hidden = between(1, 50), gates = lstm ? 4 : 3;
  ei_weights *w = some_weights(gates * hidden, hidden, 1);
  float *panels = take((size_t)(ei_blocks(w) * EI_ROW_BLOCK * hidden) * 4 + 4096), *state = take((size_t)(batch * 8 * (hidden + 64)) * 4 + 4096);
  if (lstm) {
    STEP(LSTM, lstm);
    i->steps = steps, i->batch = batch, i->hidden = hidden, i->x_ld = gates * hidden, i->y_ld = hidden + 1, i->reverse = between(0, 1);
    t->x = floats(steps * batch * i->x_ld), t->h0 = between(0, 1) ? floats(batch * hidden) : 0, t->panels = panels, t->state = state;
    step.w = w;
    both(&step, AT(LSTM, lstm, y), steps * batch * i->y_ld, 1e-5);
  } else {
    STEP(GRU, gru);
    i->steps = steps, i->batch = batch, i->hidden = hidden, i->x_ld = gates * hidden, i->y_ld = hidden, i->reverse = between(0, 1);
    i->linear_before_reset = between(0, 1);
    t->x = floats(steps * batch * i->x_ld), t->bias = between(0, 1) ? floats(gates * hidden) : 0, t->panels = panels, t->state = state;
    step.w = w;
    both(&step, AT(GRU, gru, y), steps * batch * i->y_ld, 1e-5);
  }
}

static void embedding(void) {
  STEP(GATHER_ROWS, gather_rows);
  int64_t rows = between(1, 90), k = between(1, 60);
  step.w = some_weights(rows, k, 1);
  i->count = between(1, 12);
  int64_t *index = take((size_t)i->count * 8);
  for (int64_t n = 0; n < i->count; n++) index[n] = between(0, rows - 1);
  t->index = index;
  both(&step, AT(GATHER_ROWS, gather_rows, y), i->count * k, 0);
}

static void resizing(void) {
  STEP(RESIZE, resize);
  i->images = between(1, 2), i->in_h = between(1, 6), i->in_w = between(1, 6), i->channels = between(1, 40), i->out_h = between(1, 9), i->out_w = between(1, 9);
  int32_t *r0 = take(64), *r1 = take(64), *c0 = take(64), *c1 = take(64);
  for (int n = 0; n < 9; n++) {
    r0[n] = (int32_t)between(0, i->in_h - 1), r1[n] = (int32_t)between(0, i->in_h - 1);
    c0[n] = (int32_t)between(0, i->in_w - 1), c1[n] = (int32_t)between(0, i->in_w - 1);
  }
  t->x = floats(i->images * i->in_h * i->in_w * i->channels), t->row0 = r0, t->row1 = r1, t->col0 = c0, t->col1 = c1;
  t->row_mix = floats(9), t->col_mix = floats(9);
  both(&step, AT(RESIZE, resize, y), i->images * i->out_h * i->out_w * i->channels, 2e-6);
}

/* Every tile of random coded tensors must come out the same to the bit. */
static void decoding(void) {
  static const int coders[] = {EI_RAW_F32, EI_RAW_F16, EI_RAW_BF16, EI_RAW_U8, EI_PACKED};
  int coder = coders[detail % 5], planes = coder == EI_PACKED && detail % 3 == 0 ? 2 : 1, groups = between(0, 3) ? 1 : 2;
  int bits = (int)between(1, planes == 2 ? 7 : 8);
  ei_weights *w = weights(groups * between(1, 80), between(1, 1100), groups, coder, bits, planes);
  if (planes == 2) w->base_only = (int32_t)between(0, 1);
  float *a = take((size_t)(EI_ROW_BLOCK * w->k_chunk) * 4 + 4096), *b = take((size_t)(EI_ROW_BLOCK * w->k_chunk) * 4 + 4096);
  void *scratch = take(ei_decode_scratch(w->k_chunk) + 4096);
  for (int64_t block = 0; block < ei_blocks(w); block++)
    for (int64_t chunk = 0; chunk < ei_chunks(w); chunk++) {
      int64_t count = ei_chunk_k(w, chunk) * EI_PANEL_LD(ei_block_rows(w, block));
      if (ei_kernels_plain.decode_tile(w, block, chunk, scratch, a) || OTHER.decode_tile(w, block, chunk, scratch, b)) {
        verdict(0, 0);
        continue;
      }
      same(a, b, count, 0);
    }
}

int compare(void) {
  out("plain against " TEXT(EI_OTHER) "\n");
  static const struct {
    const char *name;
    int cases;
  } plan[] = {{"decode", 60}, {"conv", 60}, {"depthwise", 20}, {"pool", 20}, {"global_pool", 8}, {"rowwise", 60}, {"matmul", 16}, {"gru", 8}, {"lstm", 8}, {"gather_rows", 10}, {"resize", 8}, {"winograd", 45}};
  for (unsigned p = 0; p < sizeof plan / sizeof *plan; p++)
    for (detail = 0; detail < plan[p].cases; detail++) {
      used = 0;
      subject = plan[p].name;
      switch (p) {
        case 0: decoding(); break;
        case 1: convolution(0, EI_DIRECT); break;
        case 2: convolution(1, EI_DIRECT); break;
        case 3: pooling(); break;
        case 4: global_pooling(); break;
        case 5: rowwise(); break;
        case 6: product(); break;
        case 7: recurrence(0); break;
        case 8: recurrence(1); break;
        case 9: embedding(); break;
        case 10: resizing(); break;
        default: convolution(0, EI_WINOGRAD_2_3 + detail % (EI_ALGORITHM_COUNT - 1));
      }
    }
  number(passed);
  out(" passed, ");
  number(failed);
  out(" failed\n");
  return failed != 0 || passed == 0;
}

#ifndef EI_BARE
int main(void) { return compare(); }
#endif
