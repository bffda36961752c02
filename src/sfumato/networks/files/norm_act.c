/* GroupNorm, per-channel gain and shift, and SiLU in one pass over memory; images in channels_last, arithmetic in
   float32. Built by networks/_fused.py, which gives the theory; HALF is defined for bfloat16 storage.

   x, y, dy, dx: (images, positions, channels). gain, shift: (images, channels), or one row for all (stride 0).
   mean, rstd: (images, groups). dgain, dshift: (images, channels). */

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef HALF
typedef uint16_t store;
static inline float get(store v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline store put(float f) { /* to nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (bits & 0x7fffffffu) > 0x7f800000u ? (store)((bits >> 16) | 0x40u) : (store)rounded;
}
#else
typedef float store;
static inline float get(store v) { return v; }
static inline store put(float f) { return f; }
#endif

/* Store a row of channels. */
static inline void put_row(const float *restrict row, store *restrict out, int64_t channels) {
    int64_t c = 0;
#if defined(HALF) && defined(__AVX512BF16__)
    for (; c + 16 <= channels; c += 16) _mm256_storeu_si256((__m256i *)(out + c), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row + c)));
#endif
    for (; c < channels; c++) out[c] = put(row[c]);
}

/* 1 / (1 + exp(-v)): 2^n times a polynomial on [-ln2/2, ln2/2], relative error below 1e-6. */
static inline float sigmoid(float v) {
    float t = -v * 1.44269504088896f;
    t = t < -126.0f ? -126.0f : (t > 126.0f ? 126.0f : t); /* a NaN fails both and stays */
    float n = floorf(t + 0.5f);
    float r = (t - n) * 0.693147180559945f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    float out = 1.0f / (1.0f + p * scale);
    return v == v ? out : v;
}

/* Sum a row of channels into groups. */
static void by_group(const float *row, float *out, int64_t groups, int64_t width) {
    for (int64_t g = 0; g < groups; g++) {
        float s = 0;
        for (int64_t c = 0; c < width; c++) s += row[g * width + c];
        out[g] = s;
    }
}

static void spread(const float *by, float *row, int64_t groups, int64_t width) {
    for (int64_t g = 0; g < groups; g++)
        for (int64_t c = 0; c < width; c++) row[g * width + c] = by[g];
}

int forward(const store *restrict x, const float *restrict gain, const float *restrict shift, int64_t gain_stride, int64_t shift_stride,
            store *restrict y, float *restrict mean, float *restrict rstd, int64_t images, int64_t positions, int64_t channels, int64_t groups,
            float eps, int act, int threads) {
    const int64_t width = channels / groups;
    const float count = (float)(positions * width);
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed)
    for (int64_t i = 0; i < images; i++) {
        float *restrict m = malloc(5 * channels * sizeof(float));
        if (!m) { failed = 1; continue; }
        float *restrict s = m + channels, *restrict a = s + channels, *restrict b = a + channels, *restrict g = b + channels;
        const store *restrict xi = x + i * positions * channels;
        store *restrict yi = y + i * positions * channels;
        memset(s, 0, channels * sizeof(float));
        for (int64_t k = 0; k < positions; k++)
            for (int64_t c = 0; c < channels; c++) s[c] += get(xi[k * channels + c]);
        by_group(s, mean + i * groups, groups, width);
        for (int64_t j = 0; j < groups; j++) mean[i * groups + j] /= count;
        spread(mean + i * groups, m, groups, width);
        memset(s, 0, channels * sizeof(float));
        for (int64_t k = 0; k < positions; k++) /* a second pass: no cancellation where the mean is large */
            for (int64_t c = 0; c < channels; c++) {
                float d = get(xi[k * channels + c]) - m[c];
                s[c] += d * d;
            }
        by_group(s, g, groups, width);
        for (int64_t j = 0; j < groups; j++) rstd[i * groups + j] = 1.0f / sqrtf(g[j] / count + eps);
        spread(rstd + i * groups, a, groups, width);
        for (int64_t c = 0; c < channels; c++) {
            a[c] *= gain[i * gain_stride + c];
            b[c] = shift[i * shift_stride + c] - m[c] * a[c];
        }
        for (int64_t k = 0; k < positions; k++) {
            for (int64_t c = 0; c < channels; c++) s[c] = get(xi[k * channels + c]) * a[c] + b[c];
            if (act)
                for (int64_t c = 0; c < channels; c++) s[c] *= sigmoid(s[c]);
            put_row(s, yi + k * channels, channels);
        }
        free(m);
    }
    return failed;
}

int backward(const store *restrict dy, const store *restrict x, const float *restrict gain, const float *restrict shift, int64_t gain_stride,
             int64_t shift_stride, const float *restrict mean, const float *restrict rstd, store *restrict dx, float *restrict dgain, float *restrict dshift,
             int64_t images, int64_t positions, int64_t channels, int64_t groups, int act, int threads) {
    const int64_t width = channels / groups;
    const float count = (float)(positions * width);
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed)
    for (int64_t i = 0; i < images; i++) {
        float *restrict m = malloc((6 + positions) * channels * sizeof(float));
        if (!m) { failed = 1; continue; }
        float *restrict r = m + channels, *restrict a = r + channels, *restrict b = a + channels, *restrict u = b + channels, *restrict w = u + channels;
        float *restrict kept = w + channels; /* dL / d(before SiLU) */
        const store *restrict xi = x + i * positions * channels, *restrict di = dy + i * positions * channels;
        store *restrict oi = dx + i * positions * channels;
        float *restrict pg = dgain + i * channels, *restrict pb = dshift + i * channels;
        spread(mean + i * groups, m, groups, width);
        spread(rstd + i * groups, r, groups, width);
        for (int64_t c = 0; c < channels; c++) {
            a[c] = gain[i * gain_stride + c];
            b[c] = shift[i * shift_stride + c];
        }
        memset(pg, 0, channels * sizeof(float));
        memset(pb, 0, channels * sizeof(float));
        for (int64_t k = 0; k < positions; k++)
            for (int64_t c = 0; c < channels; c++) {
                float unit = (get(xi[k * channels + c]) - m[c]) * r[c], d = get(di[k * channels + c]);
                if (act) {
                    float v = unit * a[c] + b[c], s = sigmoid(v);
                    d *= s * (1.0f + v * (1.0f - s));
                }
                kept[k * channels + c] = d;
                pg[c] += d * unit;
                pb[c] += d;
            }
        for (int64_t j = 0; j < groups; j++) {
            float one = 0, two = 0;
            for (int64_t c = j * width; c < (j + 1) * width; c++) {
                one += a[c] * pb[c];
                two += a[c] * pg[c];
            }
            for (int64_t c = j * width; c < (j + 1) * width; c++) {
                u[c] = one / count;
                w[c] = two / count;
            }
        }
        for (int64_t k = 0; k < positions; k++)
            for (int64_t c = 0; c < channels; c++) {
                float unit = (get(xi[k * channels + c]) - m[c]) * r[c];
                oi[k * channels + c] = put(r[c] * (a[c] * kept[k * channels + c] - u[c] - unit * w[c]));
            }
        free(m);
    }
    return failed;
}
