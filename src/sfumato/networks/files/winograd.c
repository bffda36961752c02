/* 3x3 convolutions of padding 1 by Winograd's F(2x2, 3x3), images in channels_last bfloat16, sums in float32. Built by
   networks/_winograd.py, which gives the theory.

   A tile is 2x2 outputs of one image, of which a row has (width + 1) / 2. Sixteen products of matrices, one for each of
   the transformed pixels, take pairs of neighbouring channels (or tiles) as the processor multiplies them. Where a side
   is odd, the last tile's second output is none, and the points that only it needs, the last ones, are left out.

   x: (images, height, width, in), y: (images, height, width, out), weight: (out, 3, 3, in) float32. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t half;
typedef __m512 vec;
enum { LANES = 16, POINTS = 16, ROWS = 6, WIDE = 4 };
#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const half *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE __m256i rounded(vec v) { return (__m256i)_mm512_cvtneps_pbh(v); }
INLINE void store(half *p, vec v) { _mm256_storeu_si256((__m256i *)p, rounded(v)); }
INLINE __m512i paired(vec even, vec odd) { /* the products' order: two halves of a lane belong to one sum */
    return _mm512_or_si512(_mm512_cvtepu16_epi32(rounded(even)), _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded(odd)), 16));
}

/* B^T d B of 4x4 pixels: a column of B^T d, which neighbouring tiles share, and from four of them a row of the result. */
INLINE void enter_column(const half *at, int64_t line, vec out[4]) {
    vec a = load(at), b = load(at + line), c = load(at + 2 * line), d = load(at + 3 * line);
    out[0] = a - c, out[1] = b + c, out[2] = c - b, out[3] = b - d;
}
INLINE void enter_row(vec a, vec b, vec c, vec d, vec out[4]) { out[0] = a - c, out[1] = b + c, out[2] = c - b, out[3] = b - d; }
/* A y A^T of 2x2 gradients, into 4x4. */
INLINE void enter_gradient(const vec y[4], vec d[16]) {
    for (int j = 0; j < 2; j++) d[j] = y[j], d[4 + j] = y[j] + y[2 + j], d[8 + j] = y[j] - y[2 + j], d[12 + j] = -y[2 + j];
    for (int i = 0; i < 16; i += 4) {
        vec a = d[i], b = d[i + 1];
        d[i] = a, d[i + 1] = a + b, d[i + 2] = a - b, d[i + 3] = -b;
    }
}
/* A^T m A of 4x4 products, into 2x2. */
INLINE void leave(const vec m[16], vec y[4]) {
    vec t[8];
    for (int j = 0; j < 4; j++) t[j] = m[j] + m[4 + j] + m[8 + j], t[4 + j] = m[4 + j] - m[8 + j] - m[12 + j];
    for (int i = 0; i < 2; i++) {
        const vec *r = t + 4 * i;
        y[2 * i] = r[0] + r[1] + r[2], y[2 * i + 1] = r[1] - r[2] - r[3];
    }
}
/* G g G^T of 3x3 weights, into 4x4. */
INLINE void enter_weight(const vec g[9], vec u[16]) {
    vec t[12], h = _mm512_set1_ps(0.5f);
    for (int j = 0; j < 3; j++) {
        vec s = g[j] + g[6 + j];
        t[j] = g[j], t[3 + j] = h * (s + g[3 + j]), t[6 + j] = h * (s - g[3 + j]), t[9 + j] = g[6 + j];
    }
    for (int i = 0; i < 4; i++) {
        const vec *r = t + 3 * i;
        vec s = r[0] + r[2];
        u[4 * i] = r[0], u[4 * i + 1] = h * (s + r[1]), u[4 * i + 2] = h * (s - r[1]), u[4 * i + 3] = r[2];
    }
}
/* G^T u G of 4x4 sums, into 3x3. */
INLINE void leave_weight(const vec u[16], vec g[9]) {
    vec t[12], h = _mm512_set1_ps(0.5f);
    for (int j = 0; j < 4; j++) {
        vec s = h * (u[4 + j] + u[8 + j]), d = h * (u[4 + j] - u[8 + j]);
        t[j] = u[j] + s, t[4 + j] = d, t[8 + j] = s + u[12 + j];
    }
    for (int i = 0; i < 3; i++) {
        const vec *r = t + 4 * i;
        vec s = h * (r[1] + r[2]), d = h * (r[1] - r[2]);
        g[3 * i] = r[0] + s, g[3 * i + 1] = d, g[3 * i + 2] = s + r[3];
    }
}

/* c[row][16 w + lane] (+)= sum over pairs k of a[row][k] . b[k][16 w + lane], for `rows` rows and 16 `wide` columns.
   Strides in pairs (a), in pairs a row (b), in floats (c). */
INLINE void block(int rows, int wide, int more, const uint32_t *a, int64_t a_row, int64_t a_pair, const uint32_t *b, int64_t b_pair,
                  float *c, int64_t c_row, int64_t pairs) {
    vec sum[ROWS][WIDE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int w = 0; w < wide; w++) sum[r][w] = more ? _mm512_loadu_ps(c + r * c_row + LANES * w) : _mm512_setzero_ps();
    for (int64_t k = 0; k < pairs; k++) {
        __m512bh line[WIDE];
#pragma GCC unroll 4
        for (int w = 0; w < wide; w++) line[w] = (__m512bh)_mm512_loadu_si512(b + k * b_pair + LANES * w);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512bh one = (__m512bh)_mm512_set1_epi32((int)a[r * a_row + k * a_pair]);
#pragma GCC unroll 4
            for (int w = 0; w < wide; w++) sum[r][w] = _mm512_dpbf16_ps(sum[r][w], one, line[w]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int w = 0; w < wide; w++) _mm512_storeu_ps(c + r * c_row + LANES * w, sum[r][w]);
}
#define CASE(R, W) case 8 * R + W: block(R, W, more, a, a_row, a_pair, b, b_pair, c, c_row, pairs); break;
#define CASES(R) CASE(R, 1) CASE(R, 2) CASE(R, 3) CASE(R, 4)
static void one(int rows, int wide, int more, const uint32_t *a, int64_t a_row, int64_t a_pair, const uint32_t *b, int64_t b_pair,
                float *c, int64_t c_row, int64_t pairs) {
    switch (8 * rows + wide) { CASES(1) CASES(2) CASES(3) CASES(4) CASES(5) CASES(6) }
}
static void product(int more, const half *a, int64_t a_row, int64_t a_pair, const half *b, int64_t columns, float *c, int64_t rows,
                    int64_t pairs) {
    for (int64_t w = 0; w < columns; w += LANES * WIDE)
        for (int64_t r = 0; r < rows; r += ROWS) {
            int64_t wide = (columns - w) / LANES, high = rows - r;
            one(high < ROWS ? high : ROWS, wide < WIDE ? wide : WIDE, more, (const uint32_t *)a + r * a_row, a_row, a_pair,
                (const uint32_t *)b + w, columns, c + r * columns + w, columns, pairs);
        }
}

/* How many tiles of an image a point is made for, and the place of the tile (t, j) of the i-th image, or pair, among them. */
#define TILES(r, p) (((r) < 3 ? high : inner_h) * ((p) < 3 ? wide : inner_w))
#define AT(r, p) (i * TILES(r, p) + t * ((p) < 3 ? wide : inner_w) + j)

/* Copy an image into the middle of zeros, one pixel on every side and what fills the last tiles. */
static void framed(const half *x, half *out, int64_t height, int64_t width, int64_t channels) {
    int64_t line = (width + 3) / 2 * 2 * channels;
    memset(out, 0, (height + 3) / 2 * 2 * line * sizeof(half));
    for (int64_t i = 0; i < height; i++)
        memcpy(out + (i + 1) * line + channels, x + i * width * channels, width * channels * sizeof(half));
}

/* Transform weights for `convolve`: to (points, in / 2, out, 2), or with `back` as its gradient wants them, to (points,
   out / 2, in, 2). */
int pack(const float *weight, half *out, int64_t in, int64_t outs, int back, int threads) {
    const int64_t size = in * outs;
#pragma omp parallel for num_threads(threads)
    for (int64_t o = 0; o < outs; o += 2)
        for (int64_t c = 0; c < in; c += LANES) {
            vec u[2][16];
            for (int s = 0; s < 2; s++) {
                vec g[9];
                for (int k = 0; k < 9; k++) g[back ? 8 - k : k] = _mm512_loadu_ps(weight + ((o + s) * 9 + k) * in + c);
                enter_weight(g, u[s]);
            }
            for (int p = 0; p < POINTS; p++)
                if (back)
                    _mm512_storeu_si512(out + p * size + o * in + 2 * c, paired(u[0][p], u[1][p]));
                else
                    for (int s = 0; s < 2; s++) {
                        uint32_t two[8];
                        _mm256_storeu_si256((__m256i *)two, rounded(u[s][p]));
                        for (int k = 0; k < 8; k++) memcpy(out + p * size + (c / 2 + k) * 2 * outs + 2 * (o + s), two + k, 4);
                    }
        }
    return 0;
}

/* y = x * weight + bias + more, with the packed weights; bias and more, of the shape of y, may be NULL. */
int convolve(const half *x, const half *packed, const float *bias, const half *more, half *y, int64_t images, int64_t height, int64_t width, int64_t in,
             int64_t outs, int64_t at_once, int threads) {
    const int64_t high = (height + 1) / 2, wide = (width + 1) / 2, tiles = high * wide, line = (2 * wide + 2) * in;
    const int64_t inner_h = height / 2, inner_w = width / 2; /* tiles whose second output is one */
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        const int64_t rows = at_once * tiles, frame = (2 * high + 2) * line;
        half *v = aligned_alloc(64, (POINTS * rows * in + frame) * sizeof(half) / 64 * 64 + 64), *f = v + POINTS * rows * in;
        float *m = aligned_alloc(64, POINTS * rows * outs * sizeof(float) / 64 * 64 + 64);
        failed = !v || !m;
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < images; first += at_once) {
            if (failed) continue;
            const int64_t count = images - first < at_once ? images - first : at_once;
            for (int64_t i = 0; i < count; i++) {
                framed(x + (first + i) * height * width * in, f, height, width, in);
                for (int64_t t = 0; t < high; t++)
                    for (int64_t c = 0; c < in; c += LANES) {
                        const half *at = f + t * 2 * line + c;
                        vec k[4][4], row[4];
                        enter_column(at, line, k[0]);
                        enter_column(at + in, line, k[1]);
                        for (int64_t j = 0; j < wide; j++) {
                            const int right = j < inner_w, below = t < inner_h;
                            at += 2 * in;
                            enter_column(at, line, k[2]);
                            enter_column(at + in, line, k[3]);
#pragma GCC unroll 4
                            for (int r = 0; r < 4; r++) {
                                enter_row(k[0][r], k[1][r], k[2][r], k[3][r], row);
                                if (r < 3 || below) {
                                    for (int p = 0; p < 3; p++) store(v + ((4 * r + p) * rows + AT(r, p)) * in + c, row[p]);
                                    if (right) store(v + ((4 * r + 3) * rows + AT(r, 3)) * in + c, row[3]);
                                }
                                k[0][r] = k[2][r], k[1][r] = k[3][r];
                            }
                        }
                    }
            }
            for (int p = 0; p < POINTS; p++)
                product(0, v + p * rows * in, in / 2, 1, packed + p * in * outs, outs, m + p * rows * outs, count * TILES(p / 4, p % 4), in / 2);
            for (int64_t i = 0; i < count; i++)
                for (int64_t t = 0; t < high; t++)
                    for (int64_t j = 0; j < wide; j++) {
                        const int64_t row = t * 2, column = j * 2;
                        const int64_t place = (((first + i) * height + row) * width + column) * outs;
                        half *at = y + place;
                        const int right = j < inner_w, below = t < inner_h;
                        for (int64_t c = 0; c < outs; c += LANES) {
                            vec d[16], out[4], b = bias ? _mm512_loadu_ps(bias + c) : _mm512_setzero_ps();
#pragma GCC unroll 16
                            for (int p = 0; p < 16; p++) {
                                const int none = (p / 4 == 3 && !below) || (p % 4 == 3 && !right);
                                d[p] = none ? _mm512_setzero_ps() : _mm512_loadu_ps(m + (p * rows + AT(p / 4, p % 4)) * outs + c);
                            }
                            leave(d, out);
                            for (int p = 0; p < 4; p++) {
                                const int64_t to = (p / 2 * width + p % 2) * outs + c;
                                if ((p % 2 && !right) || (p / 2 && !below)) continue;
                                out[p] += b;
                                if (more) out[p] += load(more + place + to);
                                store(at + to, out[p]);
                            }
                        }
                    }
        }
        free(v);
        free(m);
    }
    return failed;
}

/* The gradients of the weights (out, 3, 3, in) and of the bias (out), both float32, of a convolution of x whose output
   has the gradient dy. The sums take the same tile of two neighbouring images as a pair; `at_once` pairs are transformed
   before they are summed. */
int weigh(const half *x, const half *dy, float *dweight, float *dbias, int64_t images, int64_t height, int64_t width, int64_t in,
          int64_t outs, int64_t at_once, int threads) {
    const int64_t high = (height + 1) / 2, wide = (width + 1) / 2, inner_h = height / 2, inner_w = width / 2;
    const int64_t line = (2 * wide + 2) * in, other = (2 * wide + 2) * outs, all = at_once * high * wide, size = in * outs;
    const int64_t frame = (2 * high + 2) * line, edged = (2 * high + 2) * other, pairs = (images + 1) / 2;
    /* of every point (pair of tiles, channel, tile of the pair) */
    half *v = aligned_alloc(64, POINTS * all * 2 * in * sizeof(half) / 64 * 64 + 64);
    half *d = aligned_alloc(64, POINTS * all * 2 * outs * sizeof(half) / 64 * 64 + 64);
    float *sum = aligned_alloc(64, (POINTS * size + images * outs) * sizeof(float) / 64 * 64 + 64);
    half *frames = aligned_alloc(64, threads * 2 * (frame + edged) * sizeof(half) / 64 * 64 + 64);
    int failed = !v || !d || !sum || !frames;
    if (!failed) {
        float *ones = sum + POINTS * size;
        for (int64_t first = 0; first < pairs; first += at_once) {
            const int64_t count = pairs - first < at_once ? pairs - first : at_once;
#pragma omp parallel for num_threads(threads)
            for (int64_t i = 0; i < count; i++) {
#ifdef _OPENMP
                extern int omp_get_thread_num(void);
                half *f = frames + omp_get_thread_num() * 2 * (frame + edged), *g = f + 2 * frame;
#else
                half *f = frames, *g = f + 2 * frame;
#endif
                for (int64_t k = 0; k < 2; k++) {
                    const int64_t image = 2 * (first + i) + k;
                    if (image == images) { /* an odd number: the last one is paired with zeros */
                        memset(f + frame, 0, frame * sizeof(half));
                        memset(g + edged, 0, edged * sizeof(half));
                        continue;
                    }
                    const half *gradient = dy + image * height * width * outs;
                    framed(x + image * height * width * in, f + k * frame, height, width, in);
                    framed(gradient, g + k * edged, height, width, outs);
                    for (int64_t c = 0; c < outs; c += LANES) {
                        vec all_of = _mm512_setzero_ps();
                        for (int64_t j = 0; j < height * width; j++) all_of += load(gradient + j * outs + c);
                        _mm512_storeu_ps(ones + image * outs + c, all_of);
                    }
                }
                for (int64_t t = 0; t < high; t++) {
                    const int below = t < inner_h;
                    for (int64_t c = 0; c < in; c += LANES) {
                        const half *at = f + t * 2 * line + c;
                        vec a[4][4], b[4][4], one[4], two[4];
                        for (int j = 0; j < 2; j++) enter_column(at + j * in, line, a[j]), enter_column(at + frame + j * in, line, b[j]);
                        for (int64_t j = 0; j < wide; j++) {
                            const int right = j < inner_w;
                            at += 2 * in;
                            for (int q = 2; q < 4; q++)
                                enter_column(at + (q - 2) * in, line, a[q]), enter_column(at + frame + (q - 2) * in, line, b[q]);
#pragma GCC unroll 4
                            for (int r = 0; r < 4; r++) {
                                if (r < 3 || below) {
                                    enter_row(a[0][r], a[1][r], a[2][r], a[3][r], one);
                                    enter_row(b[0][r], b[1][r], b[2][r], b[3][r], two);
                                    for (int p = 0; p < 4; p++)
                                        if (p < 3 || right)
                                            _mm512_storeu_si512(v + (((4 * r + p) * all + AT(r, p)) * in + c) * 2, paired(one[p], two[p]));
                                }
                                a[0][r] = a[2][r], a[1][r] = a[3][r], b[0][r] = b[2][r], b[1][r] = b[3][r];
                            }
                        }
                    }
                    for (int64_t j = 0; j < wide; j++) {
                        const int right = j < inner_w;
                        const half *at = g + (2 * t + 1) * other + (2 * j + 1) * outs;
                        for (int64_t c = 0; c < outs; c += LANES) {
                            vec a[16], b[16], one[4], two[4];
                            for (int p = 0; p < 4; p++) {
                                const half *of = at + p / 2 * other + p % 2 * outs + c;
                                one[p] = load(of), two[p] = load(of + edged);
                            }
                            enter_gradient(one, a);
                            enter_gradient(two, b);
#pragma GCC unroll 16
                            for (int p = 0; p < 16; p++)
                                if ((p / 4 < 3 || below) && (p % 4 < 3 || right))
                                    _mm512_storeu_si512(d + ((p * all + AT(p / 4, p % 4)) * outs + c) * 2, paired(a[p], b[p]));
                        }
                    }
                }
            }
#pragma omp parallel for num_threads(threads)
            for (int p = 0; p < POINTS; p++)
                product(first > 0, d + p * all * 2 * outs, 1, outs, v + p * all * 2 * in, in, sum + p * size, outs, count * TILES(p / 4, p % 4));
        }
#pragma omp parallel for num_threads(threads)
        for (int64_t o = 0; o < outs; o++)
            for (int64_t c = 0; c < in; c += LANES) {
                vec u[16], g[9];
                for (int p = 0; p < 16; p++) u[p] = _mm512_loadu_ps(sum + p * size + o * in + c);
                leave_weight(u, g);
                for (int k = 0; k < 9; k++) _mm512_storeu_ps(dweight + (o * 9 + k) * in + c, g[k]);
            }
        memset(dbias, 0, outs * sizeof(float));
        for (int64_t i = 0; i < images; i++)
            for (int64_t o = 0; o < outs; o++) dbias[o] += ones[i * outs + o];
    }
    free(v);
    free(d);
    free(sum);
    free(frames);
    return failed;
}
