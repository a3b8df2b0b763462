/* vec.h - float vectors of EI_VEC lanes, one source for every instruction set.
 *
 * Built on GCC vector extensions, so that the same C is 4 lanes wide on plain and NEON, 8 on AVX2 and 16 on AVX-512, and so that the 16-wide
 * code also compiles (and can be tested) with AVX2 flags: -DEI_VEC=16.  Intrinsics stand only where the extensions fall short: a true fused
 * multiply-add, NaN behaviour of min and max, masked loads, and 32-bit ARM, where GCC splits float vectors into scalars.
 *
 * vfma is fused wherever the variant's instruction set has it, and a rounded product followed by a sum on plain; sfma is the same
 * operation on one float, so that scalar and vector code give the same bits.
 * vmax(a, b) and vmin(a, b) return b where either is NaN (x86) or NaN (ARM): put the value that may be NaN second.
 */
#ifndef EI_VEC_H
#define EI_VEC_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(EI_VARIANT_AVX2) || defined(EI_VARIANT_AVX512)
#include <immintrin.h>
#define EI_X86 1
#elif defined(EI_VARIANT_NEON) || defined(EI_VARIANT_NEON_DOTPROD)
#include <arm_neon.h>
#define EI_NEON 1
#elif defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef EI_VEC
#if defined(EI_VARIANT_AVX512)
#define EI_VEC 16
#elif defined(EI_VARIANT_AVX2)
#define EI_VEC 8
#else
#define EI_VEC 4
#endif
#endif

#define EI_INLINE static inline __attribute__((always_inline))
/* registers that hold accumulators are only kept in registers if every loop over them is unrolled (GCC) */
#define EI_UNROLL _Pragma("GCC unroll 64")

typedef int32_t vi __attribute__((vector_size(4 * EI_VEC)));
#if defined(EI_NEON)
typedef float32x4_t vf;
#else
typedef float vf __attribute__((vector_size(4 * EI_VEC)));
#endif
typedef float vf_unaligned __attribute__((vector_size(4 * EI_VEC), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(4 * EI_VEC), aligned(4), may_alias));

#if defined(EI_NEON) && defined(__arm__)
#define EI_NEON32 1
#endif
#if defined(EI_X86) || (defined(EI_NEON) && defined(__ARM_FEATURE_FMA)) || (defined(EI_NEON) && defined(__aarch64__))
#define EI_FUSED 1
#endif

/* ---- memory ---- */
EI_INLINE vf vload(const float *p) {
#if defined(EI_NEON)
  return vld1q_f32(p);
#else
  return (vf) * (const vf_unaligned *)p;
#endif
}
EI_INLINE void vstore(float *p, vf a) {
#if defined(EI_NEON)
  vst1q_f32(p, a);
#else
  *(vf_unaligned *)p = (vf_unaligned)a;
#endif
}
EI_INLINE vf vset(float x) {
#if defined(EI_NEON)
  return vdupq_n_f32(x);
#elif defined(__AVX512F__) && EI_VEC == 16
  return _mm512_set1_ps(x);
#elif defined(__AVX__) && EI_VEC == 8
  return _mm256_set1_ps(x);
#else
  return (vf){0} + x;
#endif
}
EI_INLINE vf vzero(void) { return vset(0.0f); }
EI_INLINE vi viset(int32_t x) { return (vi){0} + x; }
EI_INLINE vi vbits(vf a) { return (vi)a; }
EI_INLINE vf vfrombits(vi a) { return (vf)a; }

#if defined(EI_X86) && EI_VEC == 8
EI_INLINE __m256i vlanes_(ptrdiff_t n) {
  static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256((const __m256i *)(ones + 8 - n));
}
#endif
/* first n lanes (1 <= n <= EI_VEC), the others 0; never touches memory behind them */
EI_INLINE vf vload_n(const float *p, ptrdiff_t n) {
  if (n >= EI_VEC) return vload(p);
#if defined(EI_VARIANT_AVX512) && EI_VEC == 16 && defined(__AVX512F__)
  return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(EI_X86) && EI_VEC == 8
  return _mm256_maskload_ps(p, vlanes_(n));
#else
  float t[EI_VEC] __attribute__((aligned(4 * EI_VEC))) = {0};
  for (ptrdiff_t i = 0; i < n; i++) t[i] = p[i];
  return vload(t);
#endif
}
EI_INLINE void vstore_n(float *p, vf a, ptrdiff_t n) {
  if (n >= EI_VEC) {
    vstore(p, a);
    return;
  }
#if defined(EI_VARIANT_AVX512) && EI_VEC == 16 && defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
#elif defined(EI_X86) && EI_VEC == 8 /* a masked store takes a dozen cycles on AMD, three branches that go the same way do not */
  __m128 part = _mm256_castps256_ps128(a);
  if (n & 4) _mm_storeu_ps(p, part), p += 4, part = _mm256_extractf128_ps(a, 1);
  if (n & 2) _mm_storel_pi((__m64 *)p, part), p += 2, part = _mm_movehl_ps(part, part);
  if (n & 1) _mm_store_ss(p, part);
#else
  float t[EI_VEC] __attribute__((aligned(4 * EI_VEC)));
  vstore(t, a);
  for (ptrdiff_t i = 0; i < n; i++) p[i] = t[i];
#endif
}

/* ---- arithmetic ---- */
#if defined(EI_NEON32)
EI_INLINE vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
EI_INLINE vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
EI_INLINE vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
EI_INLINE vi vless(vf a, vf b) { return (vi)vcltq_f32(a, b); }
EI_INLINE vi vtoint(vf a) { return (vi)vcvtq_s32_f32(a); }
EI_INLINE vf vtofloat(vi a) { return vcvtq_f32_s32((int32x4_t)a); }
#else
EI_INLINE vf vadd(vf a, vf b) { return a + b; }
EI_INLINE vf vsub(vf a, vf b) { return a - b; }
EI_INLINE vf vmul(vf a, vf b) { return a * b; }
EI_INLINE vi vless(vf a, vf b) { return (vi)(a < b); }
EI_INLINE vi vtoint(vf a) { return __builtin_convertvector(a, vi); }
EI_INLINE vf vtofloat(vi a) { return (vf)__builtin_convertvector(a, vf); }
#endif
EI_INLINE vf vdiv(vf a, vf b) { return a / b; }
/* lane by lane: mask (all ones or all zeros) ? a : b */
EI_INLINE vf vselect(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }

/* a * b + c */
EI_INLINE vf vfma(vf a, vf b, vf c) {
#if defined(EI_NEON) && defined(EI_FUSED)
  return vfmaq_f32(c, a, b);
#elif defined(EI_X86) && EI_VEC == 16 && defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(EI_X86) && EI_VEC == 8
  return _mm256_fmadd_ps(a, b, c);
#elif defined(EI_X86) && EI_VEC == 16 /* the 16-wide code on an AVX2 machine: tests only */
  union { vf v; __m256 h[2]; } x = {a}, y = {b}, z = {c};
  z.h[0] = _mm256_fmadd_ps(x.h[0], y.h[0], z.h[0]);
  z.h[1] = _mm256_fmadd_ps(x.h[1], y.h[1], z.h[1]);
  return z.v;
#else
  return vadd(vmul(a, b), c);
#endif
}
EI_INLINE float sfma(float a, float b, float c) {
#if defined(EI_FUSED)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

EI_INLINE vf vmax(vf a, vf b) {
#if defined(EI_NEON)
  return vmaxq_f32(a, b);
#elif defined(__AVX512F__) && EI_VEC == 16
  return _mm512_max_ps(a, b);
#elif defined(__AVX__) && EI_VEC == 8
  return _mm256_max_ps(a, b);
#elif defined(__SSE2__) && EI_VEC == 4
  return _mm_max_ps(a, b);
#else
  return vselect(vless(b, a), a, b);
#endif
}
EI_INLINE vf vmin(vf a, vf b) {
#if defined(EI_NEON)
  return vminq_f32(a, b);
#elif defined(__AVX512F__) && EI_VEC == 16
  return _mm512_min_ps(a, b);
#elif defined(__AVX__) && EI_VEC == 8
  return _mm256_min_ps(a, b);
#elif defined(__SSE2__) && EI_VEC == 4
  return _mm_min_ps(a, b);
#else
  return vselect(vless(a, b), a, b);
#endif
}

/* one scalar function on every lane */
#define EI_LANES(f, a)                                                  \
  ({                                                                    \
    float t_[EI_VEC] __attribute__((aligned(4 * EI_VEC)));              \
    vstore(t_, a);                                                      \
    for (int i_ = 0; i_ < EI_VEC; i_++) t_[i_] = f(t_[i_]);             \
    vload(t_);                                                          \
  })

EI_INLINE vf vsqrt(vf a) {
#if defined(EI_NEON) && defined(__aarch64__)
  return vsqrtq_f32(a);
#elif defined(__AVX512F__) && EI_VEC == 16
  return _mm512_sqrt_ps(a);
#elif defined(__AVX__) && EI_VEC == 8
  return _mm256_sqrt_ps(a);
#elif defined(__SSE2__) && EI_VEC == 4
  return _mm_sqrt_ps(a);
#else
  return EI_LANES(sqrtf, a);
#endif
}
EI_INLINE vf vabs(vf a) { return vfrombits(vbits(a) & 0x7fffffff); }
EI_INLINE vf vneg(vf a) { return vfrombits(vbits(a) ^ (int32_t)0x80000000); }
/* size of a, sign of b */
EI_INLINE vf vcopysign(vf a, vf b) { return vfrombits((vbits(a) & 0x7fffffff) | (vbits(b) & (int32_t)0x80000000)); }

/* sums and maxima over the lanes, in a fixed tree */
EI_INLINE float vsum(vf a) {
  float t[EI_VEC] __attribute__((aligned(4 * EI_VEC)));
  vstore(t, a);
  for (int n = EI_VEC / 2; n; n /= 2)
    for (int i = 0; i < n; i++) t[i] += t[i + n];
  return t[0];
}

/* ---- functions ---- */
/* e^x to 2 units in the last place; 0 below -104, infinity above 88.73 (Cody-Waite reduction, polynomial of degree 6) */
EI_INLINE vf vexp(vf x) {
  x = vmin(vset(89.0f), vmax(vset(-104.0f), x));
  const vf magic = vset(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
  vf n = vsub(vfma(x, vset(1.44269504f), magic), magic);
  vf r = vfma(n, vset(-0.693359375f), x);
  r = vfma(n, vset(2.12194440e-4f), r);
  vf p = vset(1.3930436e-3f);
  p = vfma(p, r, vset(8.3333310e-3f));
  p = vfma(p, r, vset(4.1666646e-2f));
  p = vfma(p, r, vset(1.6666667e-1f));
  p = vfma(p, r, vset(0.5f));
  p = vfma(p, vmul(r, r), vadd(r, vset(1.0f)));
  /* two factors, because 2^n alone overflows at 128 and underflows at -127 */
  vi i = vtoint(n), half = i >> 1;
  vf a = vfrombits((half + 127) << 23), b = vfrombits((i - half + 127) << 23);
  return vmul(vmul(p, a), b);
}
EI_INLINE vf vsigmoid(vf x) { return vdiv(vset(1.0f), vadd(vset(1.0f), vexp(vneg(x)))); }
/* odd polynomial near zero (Cephes), 1 - 2 / (e^2x + 1) elsewhere */
EI_INLINE vf vtanh(vf x) {
  vf t = vabs(x), z = vmul(x, x);
  vf p = vset(-5.70498872745e-3f);
  p = vfma(p, z, vset(2.06390887954e-2f));
  p = vfma(p, z, vset(-5.37397155531e-2f));
  p = vfma(p, z, vset(1.33314422036e-1f));
  p = vfma(p, z, vset(-3.33332819422e-1f));
  vf small = vfma(vmul(p, z), x, x);
  vf e = vexp(vadd(t, t));
  vf large = vcopysign(vsub(vset(1.0f), vdiv(vset(2.0f), vadd(e, vset(1.0f)))), x);
  return vselect(vless(t, vset(0.625f)), small, large);
}
/* odd polynomial below 0.93, 1 - e^q(x) above: within 2 units in the last place */
EI_INLINE vf verf(vf x) {
  vf t = vmin(vset(10.0f), vabs(x)), s = vmul(t, t);
  vf r = vfma(vset(-1.72853470e-5f), t, vset(3.83197126e-4f));
  vf u = vfma(vset(-3.88396438e-3f), t, vset(2.42546219e-2f));
  r = vfma(r, s, u);
  r = vfma(r, t, vset(-1.06777877e-1f));
  r = vfma(r, t, vset(-6.34846687e-1f));
  r = vfma(r, t, vset(-1.28717512e-1f));
  r = vfma(r, t, vneg(t));
  vf large = vcopysign(vsub(vset(1.0f), vexp(r)), x);
  vf p = vset(-5.96761703e-4f);
  p = vfma(p, s, vset(4.99119423e-3f));
  p = vfma(p, s, vset(-2.67681349e-2f));
  p = vfma(p, s, vset(1.12819925e-1f));
  p = vfma(p, s, vset(-3.76125336e-1f));
  p = vfma(p, s, vset(1.28379166e-1f));
  vf small = vfma(p, x, x);
  return vselect(vless(t, vset(0.927734375f)), small, large);
}
#endif
