/* Coverage for tests/fuzz/engine.py: gcc's -fsanitize-coverage=trace-pc calls the function below at
 * each edge of the modules under test. Preloaded, since each of them has to find it.
 *
 * An edge is counted under a hash of the places that it leads from and to, in classes of how often
 * one input has gone over it (once, twice, 3, 4-7, ...), so that one turn more of a loop is no news.
 */
#include <stdint.h>
#include <string.h>

#define MAP_BYTES 65536

static uint8_t edges[MAP_BYTES];
static uint8_t seen[MAP_BYTES];
static uintptr_t before;
static int running;

void __sanitizer_cov_trace_pc(void)
{
    if (!running)
        return;
    uintptr_t here = (uintptr_t)__builtin_return_address(0) * 0x9E3779B97F4A7C15ull >> 40;
    uint8_t *edge = &edges[(here ^ before) % MAP_BYTES];
    if (*edge < 255)
        ++*edge;
    before = here >> 1;
}

void cover_begin(void)
{
    memset(edges, 0, sizeof(edges));
    before = 0;
    running = 1;
}

static uint8_t class_of(uint8_t count)
{
    if (count < 4)
        return (uint8_t)(1u << (count - 1));
    return count < 8 ? 8 : count < 16 ? 16 : count < 32 ? 32 : count < 128 ? 64 : 128;
}

/* How many edges, or classes of them, no input before has had. */
int cover_end(void)
{
    int fresh = 0;
    running = 0;
    for (int i = 0; i < MAP_BYTES; i += 8) {
        uint64_t word;
        memcpy(&word, edges + i, 8);
        if (!word)
            continue;
        for (int j = i; j < i + 8; j++) {
            uint8_t bit = edges[j] ? class_of(edges[j]) : 0;
            if (bit & ~seen[j]) {
                seen[j] |= bit;
                fresh++;
            }
        }
    }
    return fresh;
}

int cover_edges(void)
{
    int count = 0;
    for (int i = 0; i < MAP_BYTES; i++)
        count += seen[i] != 0;
    return count;
}

void cover_forget(void)
{
    memset(seen, 0, sizeof(seen));
}
