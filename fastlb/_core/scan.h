/* Byte scanners of the HTTP/1 parsers: each returns the first byte in [p, end) that may not stand
 * in its kind of text, or end. [base, end) must be readable and nothing outside it is read: the
 * last block is loaded so that it ends at `end`, which is why the scanners want to know `base`.
 *
 *   name    field names and methods   token of RFC 9110 5.6.2
 *   value   field values, reasons     HTAB, SP, VCHAR, obs-text of RFC 9110 5.5
 *   target  request targets           0x21-0x7E without '#': RFC 9112 3.2 has no fragment, and
 *                                     servers disagree on what one means; 8-bit bytes must be
 *                                     percent-encoded (RFC 3986 2.1). Bytes that browsers send
 *                                     raw against RFC 3986, like '|' or '"', pass.
 *   pair    pieces of a Cookie value  everything but ';' and ','
 *
 * Three versions of each give the same results: plain C, SSE2 (in every x86-64), AVX2 (chosen at
 * run time, for long runs only: benchmarks/test_head.py). The tests compare them.
 */
#ifndef FASTLB_SCAN_H
#define FASTLB_SCAN_H

#include <stddef.h>
#include <stdint.h>

enum {
    BYTE_TOKEN = 1,
    BYTE_VALUE = 2,
    BYTE_TARGET = 4,
    BYTE_PAIR = 8,
    BYTE_REG_NAME = 16, /* unreserved / sub-delims of RFC 3986 */
    BYTE_HEX = 32,
    BYTE_QUOTED = 64,   /* qdtext of RFC 9110 5.6.4 */
};

/* The table is computed from these predicates by the preprocessor. */
#define IS_DIGIT(c) ((c) >= '0' && (c) <= '9')
#define IS_ALPHA(c) (((c) | 0x20) >= 'a' && ((c) | 0x20) <= 'z' && (c) < 0x80)
#define IS_WORD(c) (IS_ALPHA(c) || IS_DIGIT(c) || (c) == '-' || (c) == '_')
#define IS_SUB_DELIM(c) \
    ((c) == '!' || (c) == '$' || ((c) >= '&' && (c) <= ',') || (c) == ';' || (c) == '=')
#define IS_TOKEN(c) \
    (IS_WORD(c) || (c) == '!' || ((c) >= '#' && (c) <= '\'') || (c) == '*' || (c) == '+' || \
     (c) == '.' || (c) == '^' || (c) == '`' || (c) == '|' || (c) == '~')
#define IS_VALUE(c) (((c) >= 0x20 && (c) != 0x7f) || (c) == '\t')
#define BYTE_CLASS(c) \
    ((IS_TOKEN(c) ? BYTE_TOKEN : 0) | (IS_VALUE(c) ? BYTE_VALUE : 0) | \
     ((c) > 0x20 && (c) < 0x7f && (c) != '#' ? BYTE_TARGET : 0) | \
     ((c) != ';' && (c) != ',' ? BYTE_PAIR : 0) | \
     (IS_WORD(c) || (c) == '.' || (c) == '~' || IS_SUB_DELIM(c) ? BYTE_REG_NAME : 0) | \
     (IS_DIGIT(c) || (((c) | 0x20) >= 'a' && ((c) | 0x20) <= 'f' && (c) < 0x80) ? BYTE_HEX : 0) | \
     (IS_VALUE(c) && (c) != '"' && (c) != '\\' ? BYTE_QUOTED : 0))
#define ROW4(c) BYTE_CLASS(c), BYTE_CLASS((c) + 1), BYTE_CLASS((c) + 2), BYTE_CLASS((c) + 3)
#define ROW16(c) ROW4(c), ROW4((c) + 4), ROW4((c) + 8), ROW4((c) + 12)
#define ROW64(c) ROW16(c), ROW16((c) + 16), ROW16((c) + 32), ROW16((c) + 48)

static const uint8_t byte_classes[256] = {ROW64(0), ROW64(64), ROW64(128), ROW64(192)};

static inline int byte_is(char c, int classes)
{
    return byte_classes[(uint8_t)c] & classes;
}

#define SCAN_PLAIN(name, byte_class) \
    static inline const char *scan_##name##_plain(const char *base, const char *p, \
                                                  const char *end) \
    { \
        (void)base; \
        while (p < end && byte_is(*p, byte_class)) \
            p++; \
        return p; \
    }

SCAN_PLAIN(name, BYTE_TOKEN)
SCAN_PLAIN(value, BYTE_VALUE)
SCAN_PLAIN(target, BYTE_TARGET)
SCAN_PLAIN(pair, BYTE_PAIR)

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* Bit i of each mask: byte i stops the run. Comparisons are signed unless made of min/max, so
 * "less than 0x21" also catches the bytes from 0x80 up. */
static inline uint32_t stops_value_sse2(const char *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
    __m128i tab = _mm_cmpeq_epi8(x, _mm_set1_epi8('\t'));
    __m128i del = _mm_cmpeq_epi8(x, _mm_set1_epi8(0x7f));
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, low), del));
}

static inline uint32_t stops_target_sse2(const char *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m128i low = _mm_cmplt_epi8(x, _mm_set1_epi8(0x21));
    __m128i del = _mm_cmpeq_epi8(x, _mm_set1_epi8(0x7f));
    __m128i hash = _mm_cmpeq_epi8(x, _mm_set1_epi8('#'));
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(low, del), hash));
}

static inline uint32_t stops_pair_sse2(const char *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m128i semicolon = _mm_cmpeq_epi8(x, _mm_set1_epi8(';'));
    __m128i comma = _mm_cmpeq_epi8(x, _mm_set1_epi8(','));
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(semicolon, comma));
}

/* Letters, digits and '-' only: what nearly all names are made of. The caller looks the byte that
 * stopped it up in the table. */
static inline uint32_t stops_word_sse2(const char *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m128i folded = _mm_or_si128(x, _mm_set1_epi8(0x20));
    __m128i letter = _mm_sub_epi8(folded, _mm_set1_epi8('a'));
    __m128i digit = _mm_sub_epi8(x, _mm_set1_epi8('0'));
    letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
    digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
    __m128i dash = _mm_cmpeq_epi8(x, _mm_set1_epi8('-'));
    __m128i good = _mm_or_si128(_mm_or_si128(letter, digit), dash);
    return (uint32_t)_mm_movemask_epi8(good) ^ 0xffff;
}

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline uint32_t stops_value_avx2(const char *p)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)p);
    __m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(0x1f)), x);
    __m256i tab = _mm256_cmpeq_epi8(x, _mm256_set1_epi8('\t'));
    __m256i del = _mm256_cmpeq_epi8(x, _mm256_set1_epi8(0x7f));
    return (uint32_t)_mm256_movemask_epi8(_mm256_or_si256(_mm256_andnot_si256(tab, low), del));
}

AVX2 static inline uint32_t stops_target_avx2(const char *p)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)p);
    __m256i low = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x21), x);
    __m256i del = _mm256_cmpeq_epi8(x, _mm256_set1_epi8(0x7f));
    __m256i hash = _mm256_cmpeq_epi8(x, _mm256_set1_epi8('#'));
    return (uint32_t)_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(low, del), hash));
}

#define SCAN_BLOCKS(attributes, name, suffix, block_bytes, stops) \
    attributes const char *scan_##name##_##suffix(const char *base, const char *p, \
                                                  const char *end) \
    { \
        uint32_t mask; \
        while (end - p >= block_bytes) { \
            mask = stops(p); \
            if (mask) \
                return p + __builtin_ctz(mask); \
            p += block_bytes; \
        } \
        if (p == end) \
            return end; \
        if (end - base < block_bytes) \
            return scan_##name##_plain(base, p, end); \
        mask = stops(end - block_bytes) >> (block_bytes - (end - p)); \
        return mask ? p + __builtin_ctz(mask) : end; \
    }

#define scan_word_plain scan_name_plain
SCAN_BLOCKS(static inline, value, sse2, 16, stops_value_sse2)
SCAN_BLOCKS(static inline, target, sse2, 16, stops_target_sse2)
SCAN_BLOCKS(static inline, pair, sse2, 16, stops_pair_sse2)
SCAN_BLOCKS(static inline, word, sse2, 16, stops_word_sse2)
SCAN_BLOCKS(AVX2 static __attribute__((noinline)), value, avx2, 32, stops_value_avx2)
SCAN_BLOCKS(AVX2 static __attribute__((noinline)), target, avx2, 32, stops_target_avx2)
#undef scan_word_plain
#undef AVX2

static inline const char *scan_name_sse2(const char *base, const char *p, const char *end)
{
    for (;;) {
        p = scan_word_sse2(base, p, end);
        if (p == end || !byte_is(*p, BYTE_TOKEN))
            return p;
        p++;
    }
}

/* A load and a test: libgcc has asked the processor before main. */
static inline int scan_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

#define SCAN_LONG_BYTES 96 /* where calling the AVX2 version begins to pay */

static inline const char *scan_value(const char *base, const char *p, const char *end)
{
    for (int block = 0; block < SCAN_LONG_BYTES / 16 && end - p >= 16; block++) {
        uint32_t mask = stops_value_sse2(p);
        if (mask)
            return p + __builtin_ctz(mask);
        p += 16;
    }
    if (end - p >= 32 && scan_has_avx2())
        return scan_value_avx2(base, p, end);
    return scan_value_sse2(base, p, end);
}

static inline const char *scan_name(const char *base, const char *p, const char *end)
{
    return scan_name_sse2(base, p, end);
}

static inline const char *scan_target(const char *base, const char *p, const char *end)
{
    return scan_target_sse2(base, p, end);
}

static inline const char *scan_pair(const char *base, const char *p, const char *end)
{
    return scan_pair_sse2(base, p, end);
}

#else /* not x86-64 */

static inline int scan_has_avx2(void)
{
    return 0;
}

#define scan_name_sse2 scan_name_plain
#define scan_value_sse2 scan_value_plain
#define scan_target_sse2 scan_target_plain
#define scan_pair_sse2 scan_pair_plain
#define scan_value_avx2 scan_value_plain
#define scan_target_avx2 scan_target_plain
#define scan_name scan_name_plain
#define scan_value scan_value_plain
#define scan_target scan_target_plain
#define scan_pair scan_pair_plain
#endif

#undef IS_DIGIT
#undef IS_ALPHA
#undef IS_WORD
#undef IS_SUB_DELIM
#undef IS_TOKEN
#undef IS_VALUE
#undef BYTE_CLASS
#undef ROW4
#undef ROW16
#undef ROW64
#endif
