# Test-only: what a plain rule's caller tells the watchdog, and loops that hold the GIL or not.

import time

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastlb._core cimport system
from fastlb._core.rule_watchdog cimport rule_watch_begin, rule_watch_end, rule_watch_open
from fastlb._core.stats cimport WorkerStats

cdef WorkerStats* _stats = NULL


def count():
    """Counts from now on."""
    global _stats
    if _stats == NULL:
        _stats = <WorkerStats*> calloc(1, sizeof(WorkerStats))
    rule_watch_open(_stats)


def blocked(uint32_t slot):
    """Calls of this rule that were found to block."""
    return _stats.rules[slot].blocked


def uncount():
    global _stats
    rule_watch_open(NULL)
    free(_stats)
    _stats = NULL


def call(uint32_t slot, function):
    """Calls a rule as the worker does."""
    rule_watch_begin(slot)
    try:
        return function()
    finally:
        rule_watch_end()


def spin(uint32_t milliseconds):
    """C code that holds the GIL and looks for no signals."""
    cdef uint64_t end = system.clock_us() + milliseconds * 1000
    while system.clock_us() < end:
        pass


def pair_ns(uint32_t times):
    """What begin and end cost."""
    cdef uint32_t _i
    begun = time.thread_time_ns()
    for _i in range(times):
        rule_watch_begin(1)
        rule_watch_end()
    return (time.thread_time_ns() - begun) / times
