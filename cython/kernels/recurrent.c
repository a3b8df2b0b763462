/* recurrent.c - GRU and LSTM over time.  The recurrence matrix is decoded once, to the step's own workspace; every time step then multiplies
 * it with the hidden state, in the order of additions of weights.h.  Runs on one thread: every time step waits for the one before.
 */
#include "activation.h"
#include "micro.h"
#include "scratch.h"

typedef struct { void *decode; const float **ptr; float *total; } space;

static size_t lay_out(const ei_weights *w, space *s, void *memory) {
  ei_scratch at = {memory, 0};
  s->decode = ei_take(&at, ei_decode_scratch(w->k_chunk));
  s->ptr = ei_take(&at, EI_SEGMENTS * EI_MR * sizeof(float *));
  s->total = ei_take(&at, EI_MR * EI_ROW_BLOCK * 4);
  return at.used;
}
size_t EI_FN(ei_gru_scratch)(const ei_step *step) {
  space s;
  return lay_out(step->w, &s, NULL);
}
size_t EI_FN(ei_lstm_scratch)(const ei_step *step) { return EI_FN(ei_gru_scratch)(step); }
int64_t EI_FN(ei_gru_units)(const ei_step *step) { (void)step; return 1; }
int64_t EI_FN(ei_lstm_units)(const ei_step *step) { (void)step; return 1; }

/* panel of (block, chunk): blocks lie k x 32 apart, chunks follow each other */
static int decode_all(const ei_weights *w, const space *s, float *panels) {
  for (int64_t block = 0; block < ei_blocks(w); block++)
    for (int64_t chunk = 0; chunk < ei_chunks(w); chunk++) {
      const int ld = EI_PANEL_LD(ei_block_rows(w, block));
      int status = EI_FN(ei_decode_tile)(w, block, chunk, s->decode, panels + block * w->k * EI_ROW_BLOCK + chunk * w->k_chunk * ld);
      if (status) return status;
    }
  return EI_OK;
}

/* out[b][row] = w h[b] + bias for rows from .. to - 1 (whole blocks are computed, only those rows written) */
static void multiply(const ei_weights *w, const space *s, const float *panels, const float *h, int64_t h_ld, int64_t batch, const float *bias,
                     int64_t from, int64_t to, float *out, int64_t out_ld) {
  for (int64_t block = from / EI_ROW_BLOCK; block * EI_ROW_BLOCK < to; block++) {
    const int64_t first = block * EI_ROW_BLOCK, rows = ei_block_rows(w, block);
    const int ld = EI_PANEL_LD(rows);
    const int64_t tiles = (batch + EI_MR - 1) / EI_MR;
    for (int64_t tile = 0; tile < tiles; tile++) {
      const int64_t b0 = batch * tile / tiles;
      const int m = (int)(batch * (tile + 1) / tiles - b0);
      for (int64_t chunk = 0; chunk < ei_chunks(w); chunk++) {
        ei_runs runs;
        int32_t len[EI_SEGMENTS];
        ei_plain_runs(&runs, len, ei_chunk_k(w, chunk));
        int64_t at = chunk * w->k_chunk;
        const float *panel = panels + block * w->k * EI_ROW_BLOCK + at * ld;
        for (int r = 0; r < runs.first[EI_SEGMENTS]; at += len[r++])
          for (int j = 0; j < m; j++) s->ptr[r * EI_MR + j] = h + (b0 + j) * h_ld + at;
        EI_FN(ei_tile)(&runs, (const float *const *)s->ptr, m, panel, ld, (int)rows, s->total, chunk == 0);
      }
      for (int j = 0; j < m; j++)
        for (int64_t r = 0; r < rows; r++) {
          const int64_t row = first + r;
          if (row < from || row >= to) continue;
          const float scaled = s->total[j * EI_ROW_BLOCK + r] * (w->row_scale ? w->row_scale[row] : 1.0f);
          out[(b0 + j) * out_ld + row] = scaled + (bias ? bias[row] : 0.0f);
        }
    }
  }
}

static void begin(float *to, int64_t ld, const float *from, int64_t batch, int64_t hidden) {
  for (int64_t b = 0; b < batch; b++)
    for (int64_t j = 0; j < hidden; j++) to[b * ld + j] = from ? from[b * hidden + j] : 0.0f;
}
static void finish(float *to, const float *from, int64_t ld, int64_t batch, int64_t hidden) {
  if (to)
    for (int64_t b = 0; b < batch; b++) memcpy(to + b * hidden, from + b * ld, (size_t)hidden * 4);
}

/* state of one image: sums of the gates [3 * hidden], h [hidden] */
int EI_FN(ei_gru)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_gru_ints *i = (const ei_gru_ints *)step->i;
  const ei_gru_tensors *t = (const ei_gru_tensors *)step->t;
  const ei_weights *w = step->w;
  const int64_t n = i->hidden, batch = i->batch, ld = 4 * n;
  if (!w || w->groups != 1 || w->rows != 3 * n || w->k != n) return EI_BAD_STEP;
  if (ei_claim(share) != 0) return EI_OK;
  space s;
  lay_out(w, &s, scratch);
  int status = decode_all(w, &s, t->panels);
  if (status) return status;
  float *sums = t->state, *h = sums + 3 * n;
  begin(h, ld, t->h0, batch, n);
  for (int64_t round = 0; round < i->steps; round++) {
    const int64_t time = i->reverse ? i->steps - 1 - round : round;
    multiply(w, &s, t->panels, h, ld, batch, t->bias, 0, i->linear_before_reset ? 3 * n : 2 * n, sums, ld);
    for (int64_t b = 0; b < batch; b++) {
      const float *x = (const float *)t->x + (time * batch + b) * i->x_ld;
      float *z = sums + b * ld, *r = z + n, *c = r + n, *hb = h + b * ld;
      for (int64_t j = 0; j < n; j += EI_VEC) {
        const int64_t k = n - j;
        vstore_n(z + j, vsigmoid(vadd(vload_n(x + j, k), vload_n(z + j, k))), k);
        vf reset = vsigmoid(vadd(vload_n(x + n + j, k), vload_n(r + j, k)));
        if (i->linear_before_reset) vstore_n(c + j, vmul(reset, vload_n(c + j, k)), k);
        else vstore_n(r + j, vmul(reset, vload_n(hb + j, k)), k); /* the reset state takes the reset gate's place */
      }
    }
    if (!i->linear_before_reset) multiply(w, &s, t->panels, sums + n, ld, batch, t->bias, 2 * n, 3 * n, sums, ld);
    for (int64_t b = 0; b < batch; b++) {
      const float *x = (const float *)t->x + (time * batch + b) * i->x_ld + 2 * n;
      float *z = sums + b * ld, *c = z + 2 * n, *hb = h + b * ld;
      float *y = t->y ? (float *)t->y + (time * batch + b) * i->y_ld : NULL;
      for (int64_t j = 0; j < n; j += EI_VEC) {
        const int64_t k = n - j;
        vf new = vtanh(vadd(vload_n(x + j, k), vload_n(c + j, k))), keep = vload_n(z + j, k);
        vf v = vadd(vmul(vsub(vset(1.0f), keep), new), vmul(keep, vload_n(hb + j, k)));
        vstore_n(hb + j, v, k);
        if (y) vstore_n(y + j, v, k);
      }
    }
  }
  finish(t->y_h, h, ld, batch, n);
  return EI_OK;
}

/* state of one image: sums of the gates i, o, f, c [4 * hidden], h [hidden], c [hidden] */
int EI_FN(ei_lstm)(const ei_step *step, ei_share *share, void *scratch) {
  const ei_lstm_ints *i = (const ei_lstm_ints *)step->i;
  const ei_lstm_tensors *t = (const ei_lstm_tensors *)step->t;
  const ei_weights *w = step->w;
  const int64_t n = i->hidden, batch = i->batch, ld = 6 * n;
  if (!w || w->groups != 1 || w->rows != 4 * n || w->k != n) return EI_BAD_STEP;
  if (ei_claim(share) != 0) return EI_OK;
  space s;
  lay_out(w, &s, scratch);
  int status = decode_all(w, &s, t->panels);
  if (status) return status;
  float *sums = t->state, *h = sums + 4 * n, *c = sums + 5 * n;
  begin(h, ld, t->h0, batch, n);
  begin(c, ld, t->c0, batch, n);
  for (int64_t round = 0; round < i->steps; round++) {
    const int64_t time = i->reverse ? i->steps - 1 - round : round;
    multiply(w, &s, t->panels, h, ld, batch, NULL, 0, 4 * n, sums, ld);
    for (int64_t b = 0; b < batch; b++) {
      const float *x = (const float *)t->x + (time * batch + b) * i->x_ld, *g = sums + b * ld;
      float *hb = h + b * ld, *cb = c + b * ld, *y = t->y ? (float *)t->y + (time * batch + b) * i->y_ld : NULL;
      for (int64_t j = 0; j < n; j += EI_VEC) {
        const int64_t k = n - j;
        vf in = vsigmoid(vadd(vload_n(x + j, k), vload_n(g + j, k)));
        vf out = vsigmoid(vadd(vload_n(x + n + j, k), vload_n(g + n + j, k)));
        vf forget = vsigmoid(vadd(vload_n(x + 2 * n + j, k), vload_n(g + 2 * n + j, k)));
        vf new = vtanh(vadd(vload_n(x + 3 * n + j, k), vload_n(g + 3 * n + j, k)));
        vf cell = vadd(vmul(forget, vload_n(cb + j, k)), vmul(in, new)), v = vmul(out, vtanh(cell));
        vstore_n(cb + j, cell, k);
        vstore_n(hb + j, v, k);
        if (y) vstore_n(y + j, v, k);
      }
    }
  }
  finish(t->y_h, h, ld, batch, n);
  finish(t->y_c, c, ld, batch, n);
  return EI_OK;
}
