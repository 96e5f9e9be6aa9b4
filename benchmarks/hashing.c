/* Consistent hashing: the proxy's algorithm beside those that could stand in its place.
 *
 *   hashing ALGORITHM time  NODES WEIGHTS LOOKUPS        ns per look-up, ns to make, bytes
 *   hashing ALGORITHM count NODES WEIGHTS KEYS FIRST [SALT]     keys of each node, a line each
 *   hashing ALGORITHM move  NODES WEIGHTS KEYS CHANGE [SALT]    keys moved, and moved needlessly
 *   hashing ALGORITHM picks < "seed weight" lines, an empty line, keys     nodes of the keys
 *
 * WEIGHTS is a list that is repeated over the nodes: "1" or "1,2,3,4". CHANGE is "add" (one more
 * at the end), "last" or "middle" (that one is taken out, of the list too). SALT makes other nodes.
 *
 *   rendezvous  as the proxy has it (rendezvous.pxd): a draw of each node, log2 / weight
 *   pruned      the same nodes: no logarithm for a draw that could not win
 *   slots       2^16 slots, each given to a node by rendezvous beforehand
 *   ring-N      Karger 1997 as ketama does it: N points on a ring per unit of weight
 *   maglev      Eisenbud 2016: a table of 65,537 that nodes fill in turns
 *   jump        Lamping and Veach 2014, over a list with each node as often as its weight says
 *   modulo      the same list, key % length */
#define _GNU_SOURCE
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NODES_MAX = 1 << 16, STEPS = 1024, MAGLEV = 65537, SLOT_BITS = 16 };

struct node {
    uint64_t seed;
    uint32_t weight;
};

struct point {
    uint64_t at;
    uint32_t node;
};

static struct node nodes[NODES_MAX];
static uint32_t count;
static uint64_t log_table[STEPS + 1];
static uint64_t seeds[NODES_MAX];      /* packed: all that `pruned` reads */
static uint16_t weights[NODES_MAX];
static uint16_t *table;                /* slots, maglev */
static uint32_t *list, list_count;     /* jump, modulo */
static struct point *ring;
static uint32_t ring_count, points_per_weight;
static uint64_t salt;                  /* another one makes other nodes */
static size_t bytes;                   /* of what was made */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The finalizer of MurmurHash3. */
static inline uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

static uint64_t key_of(uint64_t number)
{
    return mix(number * 0x9e3779b97f4a7c15u + 0x1234567);
}

static void *make_bytes(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory)
        exit(1);
    bytes = size;
    return memory;
}

/* ---- rendezvous ---- */

/* -log2(x / 2^64) in units of 2^-32. */
static inline uint64_t draw_log(uint64_t x)
{
    if (!x)
        return (uint64_t)64 << 32;
    int zeros = __builtin_clzll(x);
    uint64_t mantissa = (x << zeros) << 1, step = mantissa >> 54;
    uint64_t rest = mantissa >> 22 & 0xffffffffu;
    uint64_t fraction = log_table[step] + ((log_table[step + 1] - log_table[step]) * rest >> 32);
    return ((uint64_t)(zeros + 1) << 32) - fraction;
}

static void rendezvous_make(void)
{
    bytes = count * sizeof *nodes;
}

static uint32_t rendezvous_pick(uint64_t key)
{
    uint32_t best = 0;
    uint64_t best_draw = draw_log(mix(key ^ nodes[0].seed));
    for (uint32_t i = 1; i < count; i++) {
        uint64_t draw = draw_log(mix(key ^ nodes[i].seed));
        if (draw * nodes[best].weight < best_draw * nodes[i].weight) {
            best = i;
            best_draw = draw;
        }
    }
    return best;
}

static void pruned_make(void)
{
    for (uint32_t i = 0; i < count; i++) {
        seeds[i] = nodes[i].seed;
        weights[i] = nodes[i].weight;
    }
    bytes = count * (sizeof *seeds + sizeof *weights);
}

/* A smaller hash has no smaller logarithm: it cannot win with no greater weight. */
static uint32_t pruned_pick(uint64_t key)
{
    uint32_t best = 0;
    uint64_t best_x = mix(key ^ seeds[0]), best_draw = draw_log(best_x);
    for (uint32_t i = 1; i < count; i++) {
        uint64_t x = mix(key ^ seeds[i]);
        if (x <= best_x && weights[i] <= weights[best])
            continue;
        uint64_t draw = draw_log(x);
        if (draw * weights[best] < best_draw * weights[i]) {
            best = i;
            best_x = x;
            best_draw = draw;
        }
    }
    return best;
}

static void slots_make(void)
{
    table = make_bytes(sizeof *table << SLOT_BITS);
    pruned_make();
    for (uint32_t slot = 0; slot < 1u << SLOT_BITS; slot++)
        table[slot] = (uint16_t)pruned_pick(mix(slot + 1));
    bytes = sizeof *table << SLOT_BITS;
}

static uint32_t slots_pick(uint64_t key)
{
    return table[mix(key) >> (64 - SLOT_BITS)];
}

/* ---- ring ---- */

static int point_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct point *)a)->at, y = ((const struct point *)b)->at;
    return (x > y) - (x < y);
}

static void ring_make(void)
{
    uint32_t total = 0, at = 0;
    for (uint32_t i = 0; i < count; i++)
        total += nodes[i].weight * points_per_weight;
    ring = make_bytes(total * sizeof *ring);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < nodes[i].weight * points_per_weight; j++)
            ring[at++] = (struct point){mix(nodes[i].seed + j * 0x9e3779b97f4a7c15u), i};
    ring_count = total;
    qsort(ring, ring_count, sizeof *ring, point_compare);
}

/* The first point at or after the key, around the end. */
static uint32_t ring_pick(uint64_t key)
{
    uint32_t low = 0, left = ring_count;
    uint64_t at = mix(key);
    while (left) {
        uint32_t half = left / 2;
        bool above = ring[low + half].at < at;
        low = above ? low + half + 1 : low;
        left = above ? left - half - 1 : half;
    }
    return ring[low == ring_count ? 0 : low].node;
}

/* ---- Maglev ---- */

static void maglev_make(void)
{
    uint32_t *next = calloc(count, sizeof *next), *skip = calloc(count, sizeof *skip);
    table = make_bytes(MAGLEV * sizeof *table);
    memset(table, 0xff, MAGLEV * sizeof *table);
    if (!next || !skip)
        exit(1);
    for (uint32_t i = 0; i < count; i++) {
        next[i] = (uint32_t)(mix(nodes[i].seed) % MAGLEV);
        skip[i] = (uint32_t)(mix(~nodes[i].seed) % (MAGLEV - 1)) + 1;
    }
    for (uint32_t filled = 0, i = 0; filled < MAGLEV; i = (i + 1) % count) {
        for (uint32_t turn = 0; turn < nodes[i].weight && filled < MAGLEV; turn++) {
            while (table[next[i]] != UINT16_MAX)
                next[i] = (next[i] + skip[i]) % MAGLEV;
            table[next[i]] = (uint16_t)i;
            filled++;
        }
    }
    free(next);
    free(skip);
}

static uint32_t maglev_pick(uint64_t key)
{
    return table[mix(key) % MAGLEV];
}

/* ---- lists ---- */

static void list_make(void)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        total += nodes[i].weight;
    list = make_bytes(total * sizeof *list);
    list_count = 0;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < nodes[i].weight; j++)
            list[list_count++] = i;
}

static uint32_t modulo_pick(uint64_t key)
{
    return list[mix(key) % list_count];
}

static uint32_t jump_pick(uint64_t key)
{
    int64_t bucket = -1, next = 0;
    while (next < (int64_t)list_count) {
        bucket = next;
        key = key * 2862933555777941757u + 1;
        next = (int64_t)((double)(bucket + 1) * (double)(1LL << 31) / (double)((key >> 33) + 1));
    }
    return list[bucket];
}

/* ---- what is measured ---- */

static const struct algorithm {
    const char *name;
    void (*make)(void);
    uint32_t (*pick)(uint64_t key);
    uint32_t points;
} ALGORITHMS[] = {
    {"rendezvous", rendezvous_make, rendezvous_pick, 0},
    {"pruned", pruned_make, pruned_pick, 0},
    {"slots", slots_make, slots_pick, 0},
    {"ring-40", ring_make, ring_pick, 40},
    {"ring-160", ring_make, ring_pick, 160},
    {"ring-1000", ring_make, ring_pick, 1000},
    {"maglev", maglev_make, maglev_pick, 0},
    {"jump", list_make, jump_pick, 0},
    {"modulo", list_make, modulo_pick, 0},
};

static void nodes_make(uint32_t wanted, const char *weight_list)
{
    const char *at = weight_list;
    count = wanted;
    for (uint32_t i = 0; i < count; i++) {
        char *end;
        nodes[i] = (struct node){mix(salt + i + 1) * 0x9e3779b97f4a7c15u, (uint32_t)strtoul(at, &end, 10)};
        at = *end ? end + 1 : weight_list;
    }
}

static void structure_free(void)
{
    free(table);
    free(list);
    free(ring);
    table = NULL;
    list = NULL;
    ring = NULL;
}

static void time_print(const struct algorithm *algorithm, uint64_t lookups)
{
    uint64_t sink = 0, begun = now_ns(), made, done;
    algorithm->make();
    made = now_ns();
    for (uint64_t i = 0; i < lookups / 8; i++)
        sink += algorithm->pick(key_of(i));
    done = now_ns();
    for (uint64_t i = 0; i < lookups; i++)
        sink += algorithm->pick(key_of(i));
    printf("%.2f %lu %zu\n", (double)(now_ns() - done) / (double)lookups,
           (unsigned long)(made - begun), sink ? bytes : 0);
}

static void counts_print(const struct algorithm *algorithm, uint64_t keys, uint64_t first)
{
    uint64_t *counts = calloc(count, sizeof *counts);
    if (!counts)
        exit(1);
    algorithm->make();
    for (uint64_t i = first; i < first + keys; i++)
        counts[algorithm->pick(key_of(i))]++;
    for (uint32_t i = 0; i < count; i++)
        printf("%lu\n", (unsigned long)counts[i]);
    free(counts);
}

static void moved_print(const struct algorithm *algorithm, uint64_t keys, const char *change,
                        const char *weight_list)
{
    uint64_t *before = calloc(keys, sizeof *before), moved = 0, needless = 0, changed;
    bool adds = !strcmp(change, "add");
    if (!before)
        exit(1);
    algorithm->make();
    for (uint64_t i = 0; i < keys; i++)
        before[i] = nodes[algorithm->pick(key_of(i))].seed;
    structure_free();
    if (adds) {
        nodes_make(count + 1, weight_list);
        changed = nodes[count - 1].seed;
    } else {
        uint32_t gone = strcmp(change, "last") ? count / 2 : count - 1;
        changed = nodes[gone].seed;
        memmove(&nodes[gone], &nodes[gone + 1], (--count - gone) * sizeof *nodes);
    }
    algorithm->make();
    for (uint64_t i = 0; i < keys; i++) {
        uint64_t after = nodes[algorithm->pick(key_of(i))].seed;
        moved += after != before[i];
        needless += after != before[i] && (adds ? after : before[i]) != changed;
    }
    printf("%lu %lu\n", (unsigned long)moved, (unsigned long)needless);
    free(before);
}

static void picks_print(const struct algorithm *algorithm)
{
    char line[64];
    unsigned long first, second;
    for (count = 0; fgets(line, sizeof line, stdin) && *line != '\n'; count++) {
        if (count == NODES_MAX || sscanf(line, "%lu %lu", &first, &second) != 2)
            exit(2);
        nodes[count] = (struct node){first, (uint32_t)second};
    }
    algorithm->make();
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%lu", &first) == 1)
        printf("%u\n", algorithm->pick(first));
}

int main(int argc, char **argv)
{
    const struct algorithm *algorithm = NULL;
    for (size_t i = 0; argc > 2 && i < sizeof ALGORITHMS / sizeof *ALGORITHMS; i++)
        if (!strcmp(ALGORITHMS[i].name, argv[1]))
            algorithm = &ALGORITHMS[i];
    if (!algorithm || (strcmp(argv[2], "picks") && argc < 6))
        return 2;
    for (int i = 0; i <= STEPS; i++)
        log_table[i] = (uint64_t)(log2(1.0 + i / (double)STEPS) * 4294967296.0 + 0.5);
    points_per_weight = algorithm->points;
    if (!strcmp(argv[2], "picks")) {
        picks_print(algorithm);
        return 0;
    }
    if (argc > 7)
        salt = strtoull(argv[7], NULL, 10) * NODES_MAX;
    nodes_make((uint32_t)strtoul(argv[3], NULL, 10), argv[4]);
    uint64_t number = strtoull(argv[5], NULL, 10);
    if (!strcmp(argv[2], "time"))
        time_print(algorithm, number);
    else if (!strcmp(argv[2], "count") && argc > 6)
        counts_print(algorithm, number, strtoull(argv[6], NULL, 10));
    else if (!strcmp(argv[2], "move") && argc > 6)
        moved_print(algorithm, number, argv[6], argv[4]);
    else
        return 2;
    return 0;
}
