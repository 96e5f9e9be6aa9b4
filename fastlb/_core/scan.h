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
 * Each has a plain version and one with SSE2, which every x86-64 has; ValueStops below adds AVX2,
 * chosen at run time, for long runs only. The tests compare them all.
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

/* The stops of many values in a row, as scan_value finds them. Blocks of 64 bytes become bit masks
 * without regard to where lines begin, so the processor need not know the end of one line to work
 * on the next: half of the time of scan_value line by line. Bits after the last stop that was
 * asked for are never wrong, since blocks are read in order and [base, end) does not change. */
typedef struct {
    const char *base;  /* [base, end) may be read */
    const char *block; /* bit 0 of `bits` */
    const char *end;
    uint64_t bits;     /* control characters of the block */
} ValueStops;

#define STOPS_LONG_BYTES 256 /* left to read when calling the AVX2 version begins to pay */

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

/* Letters and '-' only: what nearly all names are made of. The caller looks the byte that stopped
 * it up in the table. */
static inline uint32_t stops_word_sse2(const char *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m128i letter = _mm_sub_epi8(_mm_or_si128(x, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    __m128i dash = _mm_cmpeq_epi8(x, _mm_set1_epi8('-'));
    letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(letter, dash)) ^ 0xffff;
}

/* The part of a block of 16 that lies in [p, end), from a load that ends at `end`. */
#define TAIL_BITS(stops, p, end) (stops((end) - 16) >> (16 - ((end) - (p))))

#define SCAN_SSE2(name) \
    static inline const char *scan_##name##_sse2(const char *base, const char *p, \
                                                 const char *end) \
    { \
        uint32_t mask; \
        while (end - p >= 16) { \
            mask = stops_##name##_sse2(p); \
            if (mask) \
                return p + __builtin_ctz(mask); \
            p += 16; \
        } \
        if (p == end) \
            return end; \
        if (end - base < 16) \
            return scan_##name##_plain(base, p, end); \
        mask = TAIL_BITS(stops_##name##_sse2, p, end); \
        return mask ? p + __builtin_ctz(mask) : end; \
    }

#define scan_word_plain scan_name_plain
SCAN_SSE2(value)
SCAN_SSE2(target)
SCAN_SSE2(pair)
SCAN_SSE2(word)
#undef scan_word_plain

static const char *scan_name_rest_sse2(const char *base, const char *p, const char *end)
{
    for (;;) {
        p = scan_word_sse2(base, p, end);
        if (p == end || !byte_is(*p, BYTE_TOKEN))
            return p;
        p++;
    }
}

/* Most names have under 16 bytes and end at a colon. */
static inline const char *scan_name_sse2(const char *base, const char *p, const char *end)
{
    if (end - p >= 16) {
        uint32_t mask = stops_word_sse2(p);
        if (mask) {
            p += __builtin_ctz(mask);
            if (*p == ':')
                return p;
        }
    }
    return scan_name_rest_sse2(base, p, end);
}

#define scan_name scan_name_sse2
#define scan_value scan_value_sse2
#define scan_target scan_target_sse2
#define scan_pair scan_pair_sse2

/* Control characters of 16 bytes; a tab is one of them. */
static inline uint64_t controls_sse2(const char *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
    __m128i del = _mm_cmpeq_epi8(x, _mm_set1_epi8(0x7f));
    return (uint64_t)_mm_movemask_epi8(_mm_or_si128(low, del));
}

/* The last block, which has under 64 bytes. */
static uint64_t stops_tail(const char *base, const char *p, const char *end)
{
    uint64_t bits = 0;
    int i = 0;
    for (; end - (p + i) >= 16; i += 16)
        bits |= controls_sse2(p + i) << i;
    if (p + i < end && end - base >= 16)
        return bits | (uint64_t)TAIL_BITS(controls_sse2, p + i, end) << i;
    for (; p + i < end; i++)
        bits |= (uint64_t)!byte_is(p[i], BYTE_VALUE) << i;
    return bits;
}

static inline __attribute__((always_inline)) void stops_load(ValueStops *stops)
{
    const char *p = stops->block;
    if (stops->end - p >= 64)
        stops->bits = controls_sse2(p) | controls_sse2(p + 16) << 16 |
                      controls_sse2(p + 32) << 32 | controls_sse2(p + 48) << 48;
    else
        stops->bits = stops_tail(stops->base, p, stops->end);
}

/* A load and a test: libgcc has asked the processor before main. */
static inline int scan_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

/* The first block of 64 from `p` that has a control character, or the one that `end` cuts. */
__attribute__((target("avx2"), noinline)) static const char *skip_blocks_avx2(const char *p,
                                                                              const char *end)
{
    const __m256i limit = _mm256_set1_epi8(0x1f);
    const __m256i del = _mm256_set1_epi8(0x7f);
    for (; end - p >= 64; p += 64) {
        __m256i x = _mm256_loadu_si256((const __m256i *)p);
        __m256i y = _mm256_loadu_si256((const __m256i *)(p + 32));
        __m256i low = _mm256_or_si256(_mm256_cmpeq_epi8(_mm256_min_epu8(x, limit), x),
                                      _mm256_cmpeq_epi8(_mm256_min_epu8(y, limit), y));
        low = _mm256_or_si256(low, _mm256_cmpeq_epi8(x, del));
        low = _mm256_or_si256(low, _mm256_cmpeq_epi8(y, del));
        if (_mm256_movemask_epi8(low))
            break;
    }
    return p;
}

static inline __attribute__((always_inline)) const char *stops_next(ValueStops *stops,
                                                                    const char *p)
{
    for (;;) {
        uint64_t offset = (uint64_t)(p - stops->block);
        if (offset < 64 && stops->bits >> offset) {
            p += __builtin_ctzll(stops->bits >> offset);
            if (*p != '\t')
                return p;
            p++;
            continue;
        }
        if (stops->end - stops->block <= 64)
            return stops->end;
        stops->block += 64;
        stops_load(stops);
        if (stops->bits == 0 && stops->end - stops->block >= STOPS_LONG_BYTES &&
            scan_has_avx2()) {
            stops->block = skip_blocks_avx2(stops->block, stops->end);
            stops_load(stops);
        }
        if (p < stops->block)
            p = stops->block;
    }
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
#define scan_name scan_name_plain
#define scan_value scan_value_plain
#define scan_target scan_target_plain
#define scan_pair scan_pair_plain

static inline void stops_load(ValueStops *stops)
{
    (void)stops;
}

static inline const char *stops_next(ValueStops *stops, const char *p)
{
    return scan_value_plain(stops->base, p, stops->end);
}
#endif

static inline void stops_begin(ValueStops *stops, const char *base, const char *p,
                               const char *end)
{
    stops->base = base;
    stops->block = p;
    stops->end = end;
    stops_load(stops);
}

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
