/* A histogram of durations in nanoseconds with about 1.6 % resolution: 64 buckets to each power of two. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

enum { SUB_BITS = 6, SUB_BUCKETS = 1 << SUB_BITS, BUCKETS = 64 * SUB_BUCKETS };

struct histogram {
    uint64_t buckets[BUCKETS];
    uint64_t count;
    uint64_t max;
};

static inline int histogram_index(uint64_t value) {
    if (value < SUB_BUCKETS)
        return (int)value;
    int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    return ((shift + 1) << SUB_BITS) + (int)((value >> shift) & (SUB_BUCKETS - 1));
}

/* The middle of a bucket. */
static inline uint64_t histogram_value(int index) {
    if (index < SUB_BUCKETS)
        return (uint64_t)index;
    int shift = (index >> SUB_BITS) - 1;
    uint64_t mantissa = (uint64_t)((index & (SUB_BUCKETS - 1)) | SUB_BUCKETS);
    return (mantissa << shift) + ((1ull << shift) >> 1);
}

static inline void histogram_add(struct histogram *h, uint64_t value) {
    h->buckets[histogram_index(value)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

/* The value below which the share `q` (0 to 1) of all values lies; 0 when there are none. */
static inline uint64_t histogram_quantile(const struct histogram *h, double q) {
    uint64_t wanted = (uint64_t)(q * (double)h->count), seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted) {
            uint64_t value = histogram_value(i);
            return value < h->max ? value : h->max;
        }
    }
    return h->max;
}

#endif
