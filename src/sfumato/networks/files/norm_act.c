/* GroupNorm, per-channel gain and shift, and SiLU in one pass over memory; images in channels_last, arithmetic in
   float32. Built by networks/_fused.py, which gives the theory; HALF is defined for bfloat16 storage.

   x, y, dy, dx: (images, positions, channels). gain, shift: (images, channels), or one row for all (stride 0).
   mean, rstd: (images, groups). dgain, dshift: (images, channels).

   Channels are taken WIDE registers or one at a time, so that sums over positions stay there; the last ones, if fewer,
   with zeros beside them. The order of a sum does not depend on that, nor on the processor. */

#ifdef __AVX2__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, WIDE = 4 };
#elif defined(__AVX2__)
enum { LANES = 8, WIDE = 4 };
#else
enum { LANES = 4, WIDE = 4 };
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t whole __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
#define INLINE static inline __attribute__((always_inline))

INLINE lanes pick(whole where, lanes yes, lanes no) { return (lanes)((where & (whole)yes) | (~where & (whole)no)); }
INLINE lanes row(const float *p) {
    lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void keep(lanes v, float *p) { memcpy(p, &v, sizeof v); }

#ifdef HALF
typedef uint16_t store;
typedef halves stored;
INLINE lanes widened(stored v) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    return (lanes)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)v), 16);
#else
    return (lanes)(__builtin_convertvector(v, bits) << 16);
#endif
}
INLINE stored narrowed(lanes v) { /* to nearest, ties to even; NaN stays NaN */
#ifdef __AVX512BF16__
    return (stored)_mm512_cvtneps_pbh((__m512)v);
#else
    bits b = (bits)v, up = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16, nan = (b >> 16) | 0x40u;
    whole half = (whole)pick(v == v, (lanes)up, (lanes)nan);
#if defined(__AVX2__) && !defined(__AVX512F__)
    __m256i packed = _mm256_packus_epi32((__m256i)half, (__m256i)half); /* within each half of the register */
    return (stored)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
    return __builtin_convertvector((bits)half, halves);
#endif
#endif
}
#else
typedef float store;
typedef lanes stored;
INLINE lanes widened(stored v) { return v; }
INLINE stored narrowed(lanes v) { return v; }
#endif

/* Load and store n <= LANES neighbouring channels. */
INLINE lanes get(const store *p, int64_t n) {
    stored v;
    if (n == LANES) memcpy(&v, p, sizeof v);
    else memset(&v, 0, sizeof v), memcpy(&v, p, n * sizeof(store));
    return widened(v);
}
INLINE void put(lanes v, store *p, int64_t n) {
    stored s = narrowed(v);
    memcpy(p, &s, n * sizeof(store));
}

INLINE lanes held(lanes t, float limit) { /* within +-limit; a NaN stays */
#ifdef __AVX512F__
    return (lanes)_mm512_max_ps(_mm512_set1_ps(-limit), _mm512_min_ps(_mm512_set1_ps(limit), (__m512)t));
#elif defined(__AVX2__)
    return (lanes)_mm256_max_ps(_mm256_set1_ps(-limit), _mm256_min_ps(_mm256_set1_ps(limit), (__m256)t));
#else
    t = pick(t < -limit, (lanes){0} - limit, t);
    return pick(t > limit, (lanes){0} + limit, t);
#endif
}
INLINE lanes floored(lanes t) { /* of what an int32 holds */
#ifdef __AVX512F__
    return (lanes)_mm512_roundscale_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
    return (lanes)_mm256_floor_ps((__m256)t);
#else
    lanes n = __builtin_convertvector(__builtin_convertvector(t, whole), lanes);
    return pick(n > t, n - 1.0f, n);
#endif
}

/* 1 / (1 + exp(-v)): 2^n times a polynomial on [-ln2/2, ln2/2], relative error below 1e-6. */
INLINE lanes sigmoid(lanes v) {
    lanes t = held(-v * 1.44269504088896f, 126.0f);
    lanes n = floored(t + 0.5f);
    lanes r = (t - n) * 0.693147180559945f;
    lanes p = (lanes){0} + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    lanes scale = (lanes)((__builtin_convertvector(n, whole) + 127) << 23);
    return 1.0f / (1.0f + p * scale); /* NaN of a NaN: so is its p */
}

/* Call WORK(wide, n) for every block of `wide` times n channels from c on. */
#define BLOCKS(WORK)                                                                                  \
    do {                                                                                              \
        int64_t c = 0;                                                                                \
        for (; c + WIDE * LANES <= channels; c += WIDE * LANES) WORK(WIDE, LANES);                    \
        for (; c < channels; c += LANES) WORK(1, channels - c < LANES ? channels - c : LANES);        \
    } while (0)

/* Sum x, or the squares of x - m, over the positions. */
INLINE void sum(const store *x, const float *m, float *out, int64_t positions, int64_t channels, int wide, int64_t n) {
    lanes s[WIDE], centre[WIDE];
    for (int w = 0; w < wide; w++) s[w] = (lanes){0}, centre[w] = m ? row(m + LANES * w) : s[w];
    for (int64_t k = 0; k < positions; k++)
        for (int w = 0; w < wide; w++) {
            lanes v = get(x + k * channels + LANES * w, n), d = v - centre[w];
            s[w] += m ? d * d : v;
        }
    for (int w = 0; w < wide; w++) keep(s[w], out + LANES * w);
}

INLINE void normalise(const store *x, store *y, const float *a, const float *b, int64_t positions, int64_t channels, int act, int wide, int64_t n) {
    lanes gain[WIDE], shift[WIDE];
    for (int w = 0; w < wide; w++) gain[w] = row(a + LANES * w), shift[w] = row(b + LANES * w);
    for (int64_t k = 0; k < positions; k++)
        for (int w = 0; w < wide; w++) {
            lanes v = get(x + k * channels + LANES * w, n) * gain[w] + shift[w];
            put(act ? v * sigmoid(v) : v, y + k * channels + LANES * w, n);
        }
}

/* Keep d = dL / d(before SiLU), and sum it and d times the normalised values over the positions. */
INLINE void gather(const store *x, const store *dy, const float *m, const float *r, const float *a, const float *b, float *kept, float *pg,
                   float *pb, int64_t positions, int64_t channels, int64_t padded, int act, int wide, int64_t n) {
    lanes one[WIDE], two[WIDE];
    for (int w = 0; w < wide; w++) one[w] = two[w] = (lanes){0};
    for (int64_t k = 0; k < positions; k++)
        for (int w = 0; w < wide; w++) {
            const int64_t at = LANES * w;
            lanes unit = (get(x + k * channels + at, n) - row(m + at)) * row(r + at), d = get(dy + k * channels + at, n);
            if (act) {
                lanes v = unit * row(a + at) + row(b + at), s = sigmoid(v);
                d *= s * (1.0f + v * (1.0f - s));
            }
            keep(d, kept + k * padded + at);
            one[w] += d * unit;
            two[w] += d;
        }
    for (int w = 0; w < wide; w++) keep(one[w], pg + LANES * w), keep(two[w], pb + LANES * w);
}

INLINE void scatter(const store *x, store *dx, const float *m, const float *r, const float *a, const float *u, const float *t, const float *kept,
                    int64_t positions, int64_t channels, int64_t padded, int wide, int64_t n) {
    for (int64_t k = 0; k < positions; k++)
        for (int w = 0; w < wide; w++) {
            const int64_t at = LANES * w;
            lanes scale = row(r + at), unit = (get(x + k * channels + at, n) - row(m + at)) * scale;
            put(scale * (row(a + at) * row(kept + k * padded + at) - row(u + at) - unit * row(t + at)), dx + k * channels + at, n);
        }
}

/* Sum a row of channels into groups. */
static void by_group(const float *line, float *out, int64_t groups, int64_t width) {
    for (int64_t g = 0; g < groups; g++) {
        float s = 0;
        for (int64_t c = 0; c < width; c++) s += line[g * width + c];
        out[g] = s;
    }
}

static void spread(const float *by, float *line, int64_t groups, int64_t width) {
    for (int64_t g = 0; g < groups; g++)
        for (int64_t c = 0; c < width; c++) line[g * width + c] = by[g];
}

static float *lines(int64_t count, int64_t padded) { /* of channels, zero */
    return calloc(count * padded, sizeof(float));
}

int forward(const store *restrict x, const float *restrict gain, const float *restrict shift, int64_t gain_stride, int64_t shift_stride,
            store *restrict y, float *restrict mean, float *restrict rstd, int64_t images, int64_t positions, int64_t channels, int64_t groups,
            float eps, int act, int threads) {
    const int64_t width = channels / groups, padded = (channels + LANES - 1) / LANES * LANES;
    const float count = (float)(positions * width);
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed)
    for (int64_t i = 0; i < images; i++) {
        float *restrict m = lines(4, padded);
        if (!m) { failed = 1; continue; }
        float *restrict s = m + padded, *restrict a = s + padded, *restrict b = a + padded;
        const store *xi = x + i * positions * channels;
        store *yi = y + i * positions * channels;
#define WORK(wide, n) sum(xi + c, 0, s + c, positions, channels, wide, n)
        BLOCKS(WORK);
#undef WORK
        by_group(s, mean + i * groups, groups, width);
        for (int64_t j = 0; j < groups; j++) mean[i * groups + j] /= count;
        spread(mean + i * groups, m, groups, width);
#define WORK(wide, n) sum(xi + c, m + c, s + c, positions, channels, wide, n) /* again: no cancellation where the mean is large */
        BLOCKS(WORK);
#undef WORK
        by_group(s, rstd + i * groups, groups, width);
        for (int64_t j = 0; j < groups; j++) rstd[i * groups + j] = 1.0f / sqrtf(rstd[i * groups + j] / count + eps);
        spread(rstd + i * groups, a, groups, width);
        for (int64_t c = 0; c < channels; c++) {
            a[c] *= gain[i * gain_stride + c];
            b[c] = shift[i * shift_stride + c] - m[c] * a[c];
        }
#define WORK(wide, n) normalise(xi + c, yi + c, a + c, b + c, positions, channels, act, wide, n)
        BLOCKS(WORK);
#undef WORK
        free(m);
    }
    return failed;
}

int backward(const store *restrict dy, const store *restrict x, const float *restrict gain, const float *restrict shift, int64_t gain_stride,
             int64_t shift_stride, const float *restrict mean, const float *restrict rstd, store *restrict dx, float *restrict dgain, float *restrict dshift,
             int64_t images, int64_t positions, int64_t channels, int64_t groups, int act, int threads) {
    const int64_t width = channels / groups, padded = (channels + LANES - 1) / LANES * LANES;
    const float count = (float)(positions * width);
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed)
    for (int64_t i = 0; i < images; i++) {
        float *restrict m = lines(8, padded), *restrict kept = malloc(positions * padded * sizeof(float));
        if (!m || !kept) {
            failed = 1, free(m), free(kept);
            continue;
        }
        float *restrict r = m + padded, *restrict a = r + padded, *restrict b = a + padded, *restrict u = b + padded, *restrict t = u + padded;
        float *restrict pg = t + padded, *restrict pb = pg + padded;
        const store *xi = x + i * positions * channels, *di = dy + i * positions * channels;
        store *oi = dx + i * positions * channels;
        spread(mean + i * groups, m, groups, width);
        spread(rstd + i * groups, r, groups, width);
        memcpy(a, gain + i * gain_stride, channels * sizeof(float));
        memcpy(b, shift + i * shift_stride, channels * sizeof(float));
#define WORK(wide, n) gather(xi + c, di + c, m + c, r + c, a + c, b + c, kept + c, pg + c, pb + c, positions, channels, padded, act, wide, n)
        BLOCKS(WORK);
#undef WORK
        for (int64_t j = 0; j < groups; j++) {
            float one = 0, two = 0;
            for (int64_t c = j * width; c < (j + 1) * width; c++) {
                one += a[c] * pb[c];
                two += a[c] * pg[c];
            }
            for (int64_t c = j * width; c < (j + 1) * width; c++) {
                u[c] = one / count;
                t[c] = two / count;
            }
        }
#define WORK(wide, n) scatter(xi + c, oi + c, m + c, r + c, a + c, u + c, t + c, kept + c, positions, channels, padded, wide, n)
        BLOCKS(WORK);
#undef WORK
        memcpy(dgain + i * channels, pg, channels * sizeof(float));
        memcpy(dshift + i * channels, pb, channels * sizeof(float));
        free(m);
        free(kept);
    }
    return failed;
}
