/* Assertions and object counting; both vanish in release builds.
 *
 * BUG_ON(cond) is for programmer errors only: it aborts with the condition and
 * the place. Operating errors (peers, kernel, configuration) are return values.
 * A Cython assert cannot do this: in a noexcept function it prints and goes on.
 */
#ifndef FASTLB_DEBUG_H
#define FASTLB_DEBUG_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#ifdef FASTLB_DEBUG
static inline void fastlb_bug(const char *what, const char *file, int line)
{
    fprintf(stderr, "fastlb: BUG at %s:%d: %s\n", file, line, what);
    fflush(stderr);
    abort();
}
#define BUG_ON(cond) do { if (unlikely(cond)) fastlb_bug(#cond, __FILE__, __LINE__); } while (0)
#define FASTLB_DEBUG_BUILD 1
#else
#define BUG_ON(cond) do { if (0) (void) (cond); } while (0)
#define FASTLB_DEBUG_BUILD 0
#endif

#ifdef __SANITIZE_ADDRESS__
#define FASTLB_SANITIZE_BUILD 1
#else
#define FASTLB_SANITIZE_BUILD 0
#endif

#endif
