/* activation.h - the activations of steps.h on one vector: one definition for fused activations and for the unary step. */
#ifndef EI_ACTIVATION_H
#define EI_ACTIVATION_H
#include "table.h"
#include "vec.h"

EI_INLINE float ei_softplus(float x) { return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x))); }
EI_INLINE float ei_elu_negative(float x) { return expm1f(x); }

EI_INLINE vf ei_act_NONE(vf x, vf a, vf b) { (void)a, (void)b; return x; }
EI_INLINE vf ei_act_RELU(vf x, vf a, vf b) { (void)a, (void)b; return vmax(vzero(), x); }
EI_INLINE vf ei_act_LEAKY_RELU(vf x, vf a, vf b) { (void)b; return vselect(vless(x, vzero()), vmul(x, a), x); }
EI_INLINE vf ei_act_CLIP(vf x, vf a, vf b) { return vmin(b, vmax(a, x)); }
EI_INLINE vf ei_act_SIGMOID(vf x, vf a, vf b) { (void)a, (void)b; return vsigmoid(x); }
EI_INLINE vf ei_act_TANH(vf x, vf a, vf b) { (void)a, (void)b; return vtanh(x); }
EI_INLINE vf ei_act_HARD_SIGMOID(vf x, vf a, vf b) { return vmin(vset(1.0f), vmax(vzero(), vadd(vmul(x, a), b))); }
EI_INLINE vf ei_act_HARD_SWISH(vf x, vf a, vf b) {
  (void)a, (void)b;
  return vmul(x, vmin(vset(1.0f), vmax(vzero(), vadd(vmul(x, vset(1.0f / 6.0f)), vset(0.5f)))));
}
EI_INLINE vf ei_act_GELU(vf x, vf a, vf b) {
  (void)a, (void)b;
  return vmul(vmul(x, vset(0.5f)), vadd(vset(1.0f), verf(vmul(x, vset(0.70710678f)))));
}
EI_INLINE vf ei_act_GELU_TANH(vf x, vf a, vf b) {
  (void)a, (void)b;
  vf inner = vmul(vset(0.79788456f), vadd(x, vmul(vset(0.044715f), vmul(x, vmul(x, x)))));
  return vmul(vmul(x, vset(0.5f)), vadd(vset(1.0f), vtanh(inner)));
}
EI_INLINE vf ei_act_ERF(vf x, vf a, vf b) { (void)a, (void)b; return verf(x); }
EI_INLINE vf ei_act_EXP(vf x, vf a, vf b) { (void)a, (void)b; return vexp(x); }
EI_INLINE vf ei_act_LOG(vf x, vf a, vf b) { (void)a, (void)b; return EI_LANES(logf, x); }
EI_INLINE vf ei_act_SQRT(vf x, vf a, vf b) { (void)a, (void)b; return vsqrt(x); }
EI_INLINE vf ei_act_NEG(vf x, vf a, vf b) { (void)a, (void)b; return vneg(x); }
EI_INLINE vf ei_act_ABS(vf x, vf a, vf b) { (void)a, (void)b; return vabs(x); }
EI_INLINE vf ei_act_RECIPROCAL(vf x, vf a, vf b) { (void)a, (void)b; return vdiv(vset(1.0f), x); }
EI_INLINE vf ei_act_FLOOR(vf x, vf a, vf b) { (void)a, (void)b; return EI_LANES(floorf, x); }
EI_INLINE vf ei_act_CEIL(vf x, vf a, vf b) { (void)a, (void)b; return EI_LANES(ceilf, x); }
EI_INLINE vf ei_act_ROUND(vf x, vf a, vf b) { (void)a, (void)b; return EI_LANES(rintf, x); } /* half to even, as ONNX */
EI_INLINE vf ei_act_SOFTPLUS(vf x, vf a, vf b) { (void)a, (void)b; return EI_LANES(ei_softplus, x); }
EI_INLINE vf ei_act_ELU(vf x, vf a, vf b) {
  (void)b;
  vf low = vmul(a, EI_LANES(ei_elu_negative, x));
  return vselect(vless(x, vzero()), low, x);
}
EI_INLINE vf ei_act_SILU(vf x, vf a, vf b) { (void)a, (void)b; return vdiv(x, vadd(vset(1.0f), vexp(vneg(x)))); }
EI_INLINE vf ei_act_SIN(vf x, vf a, vf b) { (void)a, (void)b; return EI_LANES(sinf, x); }
EI_INLINE vf ei_act_COS(vf x, vf a, vf b) { (void)a, (void)b; return EI_LANES(cosf, x); }

/* elementwise.c: n floats from x to y (may be the same) */
void EI_FN(ei_activate)(int64_t activation, float a, float b, const float *x, float *y, int64_t n);

/* The activations that cost next to nothing are one clamp; a fused activation is a clamp, or a clamp of nothing and then ei_activate. */
typedef struct {
  vf low, high;
  int64_t rest; /* activation still to be applied, or EI_ACT_NONE */
} ei_clamp;
EI_INLINE ei_clamp ei_clamp_of(int64_t activation, float a, float b) {
  ei_clamp c = {vset(-INFINITY), vset(INFINITY), EI_ACT_NONE};
  if (activation == EI_ACT_RELU) c.low = vzero();
  else if (activation == EI_ACT_CLIP) c.low = vset(a), c.high = vset(b);
  else c.rest = activation;
  return c;
}
EI_INLINE vf ei_clamped(ei_clamp c, vf x) { return vmin(c.high, vmax(c.low, x)); }
#endif
