/* steps.h - the vocabulary of a program: every kind of step, its tensors, its integers, its floats.
 *
 * One table serves C (struct fields by name) and Python (the same names, exported by program.pyx), so a step is built by
 * keyword and cannot be built wrongly in silence.  Activations are channels-last: [image][y][x][channel].  Every extent and
 * stride counts elements, not bytes.  A tensor role named r may have an integer r_ld: the distance between consecutive pixels (or
 * rows) of that tensor, so that a step can read or write a channel slice of a wider tensor; the planner fills it in.
 * Roles that begin with y are written, all others are read.  A role that a step does not use is NULL.
 */
#ifndef EI_STEPS_H
#define EI_STEPS_H
#include <stdint.h>
#include "weights.h"

#define EI_MAX_TENSORS 12
#define EI_MAX_INTS 48
#define EI_MAX_FLOATS 8
#define EI_RANK 6

/* F(name) once per name, in stored order */
#define EI_DIMS(F, p) F(p##0) F(p##1) F(p##2) F(p##3) F(p##4) F(p##5)

/* y = act((sum over taps and channels of x * w) * row_scale + bias + residual).  A matrix product is a convolution of one tap
 * over rows: images = rows, all heights and widths 1.  rows of w = out_c, k of w = kh * kw * in_c / groups ordered [kh][kw][c].
 * algorithm: see EI_ALGORITHMS; each has an order of additions of its own. */
#define EI_CONV_TENSORS(F) F(x) F(y) F(bias) F(residual)
#define EI_CONV_INTS(F) F(images) F(in_h) F(in_w) F(in_c) F(x_ld) F(out_h) F(out_w) F(out_c) F(y_ld) F(residual_ld) \
  F(kh) F(kw) F(stride_h) F(stride_w) F(dilation_h) F(dilation_w) F(pad_top) F(pad_left) F(groups) F(activation) F(algorithm)
#define EI_CONV_FLOATS(F) F(act_a) F(act_b)

/* depthwise: groups = in_c = out_c = rows of w, k of w = kh * kw; fields as conv, algorithm 0 */
#define EI_DEPTHWISE_TENSORS(F) EI_CONV_TENSORS(F)
#define EI_DEPTHWISE_INTS(F) EI_CONV_INTS(F)
#define EI_DEPTHWISE_FLOATS(F) EI_CONV_FLOATS(F)

/* kind: 0 max, 1 average over the taps inside the image, 2 average over all taps inside the padded image (count_include_pad;
 * pad_bottom and pad_right say how far that reaches, ceil-mode overhang beyond it never counts) */
#define EI_POOL_TENSORS(F) F(x) F(y)
#define EI_POOL_INTS(F) F(kind) F(images) F(in_h) F(in_w) F(channels) F(x_ld) F(out_h) F(out_w) F(y_ld) \
  F(kh) F(kw) F(stride_h) F(stride_w) F(dilation_h) F(dilation_w) F(pad_top) F(pad_left) F(pad_bottom) F(pad_right)
#define EI_POOL_FLOATS(F)

/* kind: 0 max, 1 average; over all pixels of an image */
#define EI_GLOBAL_POOL_TENSORS(F) F(x) F(y)
#define EI_GLOBAL_POOL_INTS(F) F(kind) F(images) F(pixels) F(channels) F(x_ld) F(y_ld)
#define EI_GLOBAL_POOL_FLOATS(F)

/* y = act(x), elementwise on rows x cols; y may be x */
#define EI_UNARY_TENSORS(F) F(x) F(y)
#define EI_UNARY_INTS(F) F(activation) F(rows) F(cols) F(x_ld) F(y_ld)
#define EI_UNARY_FLOATS(F) F(act_a) F(act_b)

/* y = act(a OP b), y dense of dims d0..d5 (outer first, unused leading dims 1), a and b with strides sa*, sb* (0 broadcasts) */
#define EI_BINARY_TENSORS(F) F(a) F(b) F(y)
#define EI_BINARY_INTS(F) F(operation) F(activation) EI_DIMS(F, d) EI_DIMS(F, sa) EI_DIMS(F, sb)
#define EI_BINARY_FLOATS(F) F(act_a) F(act_b)

/* y = act(x * scale[col] + shift[col]) on rows x cols: batch normalisation that could not be folded */
#define EI_AFFINE_TENSORS(F) F(x) F(y) F(scale) F(shift)
#define EI_AFFINE_INTS(F) F(rows) F(cols) F(x_ld) F(y_ld) F(activation)
#define EI_AFFINE_FLOATS(F) F(act_a) F(act_b)

/* local response normalisation across channels: y = x / (bias + alpha / size * sum of x^2 over the window)^beta */
#define EI_LRN_TENSORS(F) F(x) F(y)
#define EI_LRN_INTS(F) F(rows) F(cols) F(x_ld) F(y_ld) F(size)
#define EI_LRN_FLOATS(F) F(alpha) F(beta) F(bias)

/* softmax over the middle axis of [outer][length][inner], dense; y may be x */
#define EI_SOFTMAX_TENSORS(F) F(x) F(y)
#define EI_SOFTMAX_INTS(F) F(outer) F(length) F(inner)
#define EI_SOFTMAX_FLOATS(F)

/* y = (x - mean) / sqrt(variance + epsilon) * scale + shift on every row of [rows][cols]; y may be x */
#define EI_LAYER_NORM_TENSORS(F) F(x) F(y) F(scale) F(shift)
#define EI_LAYER_NORM_INTS(F) F(rows) F(cols)
#define EI_LAYER_NORM_FLOATS(F) F(epsilon)

/* strided copy of d0 x ... x d5 elements of `size` bytes (1, 2, 4 or 8); from/to: first element of x and of y; negative strides allowed */
#define EI_COPY_TENSORS(F) F(x) F(y)
#define EI_COPY_INTS(F) F(size) F(from) F(to) EI_DIMS(F, d) EI_DIMS(F, sx) EI_DIMS(F, sy)
#define EI_COPY_FLOATS(F)

/* rows x cols floats from x to y, both with a row distance: a part of a channel concatenation; to: first element in y */
#define EI_COPY_ROWS_TENSORS(F) F(x) F(y)
#define EI_COPY_ROWS_INTS(F) F(rows) F(cols) F(x_ld) F(y_ld) F(to)
#define EI_COPY_ROWS_FLOATS(F)

/* count floats of one value */
#define EI_FILL_TENSORS(F) F(y)
#define EI_FILL_INTS(F) F(count)
#define EI_FILL_FLOATS(F) F(value)

/* y[o][i][n] = x[o][index[i]][n]; index int64, negative counts from the end, out of range is EI_BAD_INDEX; elements of `size` bytes */
#define EI_GATHER_TENSORS(F) F(x) F(index) F(y)
#define EI_GATHER_INTS(F) F(size) F(outer) F(length) F(inner) F(count)
#define EI_GATHER_FLOATS(F)

/* y[i][:] = row index[i] of the coded matrix w (an embedding), row scale applied */
#define EI_GATHER_ROWS_TENSORS(F) F(index) F(y)
#define EI_GATHER_ROWS_INTS(F) F(count)
#define EI_GATHER_ROWS_FLOATS(F)

/* reduce the middle axis of [outer][length][inner], dense. operation: 0 sum 1 mean 2 max 3 min 4 prod 5 sum of squares 6 L1 7 L2 */
#define EI_REDUCE_TENSORS(F) F(x) F(y)
#define EI_REDUCE_INTS(F) F(operation) F(outer) F(length) F(inner)
#define EI_REDUCE_FLOATS(F)

/* y[n][i][j][:] = bilinear mix of x rows row0[i], row1[i] (weight row_mix[i] on row1) and columns alike; nearest has mix 0.
 * row0,row1,col0,col1: int32 literals, mixes: float literals */
#define EI_RESIZE_TENSORS(F) F(x) F(y) F(row0) F(row1) F(row_mix) F(col0) F(col1) F(col_mix)
#define EI_RESIZE_INTS(F) F(images) F(in_h) F(in_w) F(channels) F(out_h) F(out_w)
#define EI_RESIZE_FLOATS(F)

/* y[b0][b1] = alpha * a[b0][b1] (m x k, rows a_m apart, k contiguous) times b[b0][b1] (element (k, n) at k * b_k + n * b_n); y rows y_m apart */
#define EI_MATMUL_TENSORS(F) F(a) F(b) F(y)
#define EI_MATMUL_INTS(F) F(b0) F(b1) F(m) F(n) F(k) F(a_b0) F(a_b1) F(a_m) F(b_b0) F(b_b1) F(b_k) F(b_n) F(y_b0) F(y_b1) F(y_m)
#define EI_MATMUL_FLOATS(F) F(alpha)

/* One direction of a GRU.  x: [steps][batch][x_ld] = W x + Wb of the three gates z, r, h in ONNX order, already computed, at column 0;
 * w: recurrence R, 3 * hidden rows, k = hidden; bias: Rb, 3 * hidden or NULL; h0: [batch][hidden] or NULL; y: [steps][batch] rows y_ld apart;
 * y_h: [batch][hidden] or NULL; panels: workspace of ei_whole_panels(3 * hidden, hidden) floats, state: workspace of batch * 4 * hidden floats.  reverse: run time backwards */
#define EI_GRU_TENSORS(F) F(x) F(bias) F(h0) F(panels) F(state) F(y) F(y_h)
#define EI_GRU_INTS(F) F(steps) F(batch) F(hidden) F(x_ld) F(y_ld) F(reverse) F(linear_before_reset)
#define EI_GRU_FLOATS(F)

/* One direction of an LSTM, gates i, o, f, c in ONNX order; as gru, with cell state c0 / y_c;
 * panels: ei_whole_panels(4 * hidden, hidden) floats, state: batch * 6 * hidden floats; bias: Rb added to Wb by the importer */
#define EI_LSTM_TENSORS(F) F(x) F(h0) F(c0) F(panels) F(state) F(y) F(y_h) F(y_c)
#define EI_LSTM_INTS(F) F(steps) F(batch) F(hidden) F(x_ld) F(y_ld) F(reverse)
#define EI_LSTM_FLOATS(F)

/* every kind: K(NAME, c_name) */
#define EI_STEP_KINDS(K) K(CONV, conv) K(DEPTHWISE, depthwise) K(POOL, pool) K(GLOBAL_POOL, global_pool) K(UNARY, unary) \
  K(BINARY, binary) K(AFFINE, affine) K(LRN, lrn) K(SOFTMAX, softmax) K(LAYER_NORM, layer_norm) K(COPY, copy) K(COPY_ROWS, copy_rows) \
  K(FILL, fill) K(GATHER, gather) K(GATHER_ROWS, gather_rows) K(REDUCE, reduce) K(RESIZE, resize) K(MATMUL, matmul) K(GRU, gru) K(LSTM, lstm)

/* activation codes, shared by fused activations and the unary step; a, b: act_a, act_b */
#define EI_ACTIVATIONS(A) \
  A(NONE) A(RELU) A(LEAKY_RELU) /* a: slope */ A(CLIP) /* a: min, b: max */ A(SIGMOID) A(TANH) A(HARD_SIGMOID) /* a x + b in 0..1 */ \
  A(HARD_SWISH) A(GELU) A(GELU_TANH) A(ERF) A(EXP) A(LOG) A(SQRT) A(NEG) A(ABS) A(RECIPROCAL) A(FLOOR) A(CEIL) A(ROUND) \
  A(SOFTPLUS) A(ELU) /* a: alpha */ A(SILU) A(SIN) A(COS)
/* algorithms of a convolution.  WINOGRAD_m_r: filters of r x r taps, m x m outputs at a time; stride and dilation 1 (winograd.c) */
#define EI_ALGORITHMS(A) A(DIRECT) A(WINOGRAD_2_3) A(WINOGRAD_4_3) A(WINOGRAD_2_5)
#define EI_OPERATIONS(A) A(ADD) A(SUB) A(MUL) A(DIV) A(POW) A(MIN) A(MAX)

#define EI_ENUM_KIND(N, n) EI_STEP_##N,
enum ei_step_kind { EI_STEP_KINDS(EI_ENUM_KIND) EI_STEP_COUNT };
#define EI_ENUM_ACT(N) EI_ACT_##N,
enum ei_activation { EI_ACTIVATIONS(EI_ENUM_ACT) EI_ACT_COUNT };
#define EI_ENUM_OP(N) EI_OP_##N,
enum ei_operation { EI_OPERATIONS(EI_ENUM_OP) EI_OP_COUNT };

#define EI_ENUM_ALGORITHM(N) EI_##N,
enum ei_algorithm { EI_ALGORITHMS(EI_ENUM_ALGORITHM) EI_ALGORITHM_COUNT };

#define EI_INT_FIELD(n) int64_t n;
#define EI_FLOAT_FIELD(n) float n;
#define EI_PTR_FIELD(n) void *n;
#define EI_STRUCTS(N, n)                                                 \
  typedef struct { EI_##N##_TENSORS(EI_PTR_FIELD) } ei_##n##_tensors;    \
  typedef struct { EI_##N##_INTS(EI_INT_FIELD) int64_t none_; } ei_##n##_ints;      \
  typedef struct { EI_##N##_FLOATS(EI_FLOAT_FIELD) float none_; } ei_##n##_floats;
EI_STEP_KINDS(EI_STRUCTS)

typedef struct {
  int32_t kind;
  void *t[EI_MAX_TENSORS];  /* read as ei_<kind>_tensors */
  int64_t i[EI_MAX_INTS];   /* read as ei_<kind>_ints */
  float f[EI_MAX_FLOATS];   /* read as ei_<kind>_floats */
  const ei_weights *w;
} ei_step;

#endif
