/* Pillow's bicubic resizing, sign for sign (libImaging/Resample.c), on four bytes a pixel and with vectors.
 *
 * Coefficients are rounded to 22 bits, sums are 32-bit integers, columns are resized before rows: so the result is the
 * same as of two calls of Pillow's resize, the first of which changes the height. Those serve where this cannot run. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PRECISION_BITS 22
#define SUPPORT 2.0
#define CHANNELS 4
#define HALF (1 << (PRECISION_BITS - 1))

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#define WITH_VECTORS __attribute__((target("avx2")))

typedef struct {
    int most;       /* coefficients per output pixel, at most */
    int *first;     /* the first input pixel of each output pixel */
    int *count;     /* and how many there are */
    int32_t *values;
} Weights;

static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void weights_free(Weights *weights) {
    free(weights->first);
    free(weights->count);
    free(weights->values);
}

static int weights_make(Weights *weights, int in_size, int out_size) {
    const double scale = (double)in_size / out_size;
    const double stretch = scale < 1.0 ? 1.0 : scale;
    const double support = SUPPORT * stretch, inverse = 1.0 / stretch;
    weights->most = (int)ceil(support) * 2 + 1;
    weights->first = malloc(sizeof(int) * out_size);
    weights->count = malloc(sizeof(int) * out_size);
    weights->values = calloc((size_t)weights->most * out_size, sizeof(int32_t));
    double *exact = malloc(sizeof(double) * weights->most);
    const int failed = !weights->first || !weights->count || !weights->values || !exact;
    for (int out = 0; out < out_size && !failed; out++) {
        const double center = (out + 0.5) * scale;
        double sum = 0.0;
        int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
        if (low < 0) low = 0;
        if (high > in_size) high = in_size;
        for (int k = 0; k < high - low; k++) {
            exact[k] = bicubic((k + low - center + 0.5) * inverse);
            sum += exact[k];
        }
        for (int k = 0; k < high - low; k++) {
            const double value = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << PRECISION_BITS);
            weights->values[(size_t)out * weights->most + k] = (int32_t)(value < 0 ? value - 0.5 : value + 0.5);
        }
        weights->first[out] = low;
        weights->count[out] = high - low;
    }
    free(exact);
    return failed;
}

static inline uint8_t to_byte(int32_t sum) {
    const int32_t value = sum >> PRECISION_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* Bytes `x` and on of one row of the result. */
static void shrink_column(const uint8_t *rows, size_t stride, size_t x, uint8_t *to, const int32_t *values, int count) {
    for (; x < stride; x++) {
        int32_t sum = HALF;
        for (int k = 0; k < count; k++) sum += rows[k * stride + x] * values[k];
        to[x] = to_byte(sum);
    }
}

WITH_VECTORS static inline __m256i products(uint64_t bytes, __m256i value) {
    return _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes)), value);
}

/* Eight sums as bytes: the first four in the low half. */
WITH_VECTORS static inline uint64_t to_bytes(__m256i sums) {
    const __m256i words = _mm256_packus_epi32(_mm256_srai_epi32(sums, PRECISION_BITS), _mm256_setzero_si256());
    const __m256i bytes = _mm256_packus_epi16(words, _mm256_setzero_si256());
    const uint32_t low = (uint32_t)_mm_cvtsi128_si32(_mm256_castsi256_si128(bytes));
    return low | (uint64_t)(uint32_t)_mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1)) << 32;
}

/* Two rows at once, so that eight sums fill a vector. */
WITH_VECTORS static void shrink_rows(
    const uint8_t *in, int in_width, int height, uint8_t *out, int out_width, const Weights *weights) {
    const size_t in_stride = (size_t)in_width * CHANNELS, out_stride = (size_t)out_width * CHANNELS;
    for (int y = 0; y < height; y += 2) {
        const uint8_t *upper = in + y * in_stride, *lower = y + 1 < height ? upper + in_stride : upper;
        uint8_t *to_upper = out + y * out_stride, *to_lower = y + 1 < height ? to_upper + out_stride : to_upper;
        for (int x = 0; x < out_width; x++) {
            const int32_t *values = weights->values + (size_t)x * weights->most;
            const size_t start = (size_t)weights->first[x] * CHANNELS;
            __m256i sums = _mm256_set1_epi32(HALF);
            for (int k = 0; k < weights->count[x]; k++) {
                uint32_t one, other;
                memcpy(&one, upper + start + k * CHANNELS, CHANNELS);
                memcpy(&other, lower + start + k * CHANNELS, CHANNELS);
                sums = _mm256_add_epi32(sums, products(one | (uint64_t)other << 32, _mm256_set1_epi32(values[k])));
            }
            const uint64_t done = to_bytes(sums);
            const uint32_t one = (uint32_t)done, other = (uint32_t)(done >> 32);
            memcpy(to_upper + x * CHANNELS, &one, CHANNELS);
            memcpy(to_lower + x * CHANNELS, &other, CHANNELS);
        }
    }
}

WITH_VECTORS static void shrink_columns(
    const uint8_t *in, int width, uint8_t *out, int out_height, const Weights *weights) {
    const size_t stride = (size_t)width * CHANNELS;
    for (int y = 0; y < out_height; y++) {
        const int32_t *values = weights->values + (size_t)y * weights->most;
        const uint8_t *rows = in + weights->first[y] * stride;
        uint8_t *to = out + y * stride;
        size_t x = 0;
        for (; x + 16 <= stride; x += 16) {
            __m256i low = _mm256_set1_epi32(HALF), high = low;
            for (int k = 0; k < weights->count[y]; k++) {
                uint64_t left, right;
                memcpy(&left, rows + k * stride + x, sizeof left);
                memcpy(&right, rows + k * stride + x + 8, sizeof right);
                const __m256i value = _mm256_set1_epi32(values[k]);
                low = _mm256_add_epi32(low, products(left, value));
                high = _mm256_add_epi32(high, products(right, value));
            }
            const uint64_t done[2] = {to_bytes(low), to_bytes(high)};
            memcpy(to + x, done, sizeof done);
        }
        shrink_column(rows, stride, x, to, values, weights->count[y]);
    }
}
/* Whether this processor can do it. */
int shrink_can(void) { return __builtin_cpu_supports("avx2") != 0; }

/* Resize in [in_height, in_width, 4] to out [out_height, out_width, 4]; 0 where that went well, 1 without memory. */
int shrink(const uint8_t *in, int in_width, int in_height, uint8_t *out, int out_width, int out_height) {
    Weights across = {0}, down = {0};
    uint8_t *between = malloc((size_t)out_height * in_width * CHANNELS);
    const int failed =
        weights_make(&across, in_width, out_width) | weights_make(&down, in_height, out_height) | !between;
    if (!failed) {
        shrink_columns(in, in_width, between, out_height, &down);
        shrink_rows(between, in_width, out_height, out, out_width, &across);
    }
    weights_free(&across);
    weights_free(&down);
    free(between);
    return failed;
}

#else

int shrink_can(void) { return 0; }

#endif
