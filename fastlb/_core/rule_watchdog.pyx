# The watchdog of rules (contract in rule_watchdog.pxd; what Python does for it: rule_watch.py).
#
# The place is written by faulthandler, in a signal handler on the thread that is held: it needs no
# GIL, so that a C function that holds it for ever is shown, too. It writes into a pipe that never
# blocks; the watchdog reads that, leaves out frames that are fastlb's, and writes the report with
# one call.
#
# A rule that has run for too long is asked to end by a signal whose handler Python runs: between
# two of its instructions, and wherever C code looks for signals, as sleeping and `re` do. The
# handler raises only if the very call that was overdue still runs. In the event loop's thread,
# which runs no handlers, the exception is set from outside.

import threading

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcpy, memset, strlen, strncmp

from fastlb._core cimport system
from fastlb._core.debug cimport unlikely
from fastlb._core.limits cimport RULES_MAX
from fastlb._core.siphash cimport SipKey, siphash64
from fastlb._core.stats cimport WorkerStats

cdef extern from *:
    """
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <sys/eventfd.h>
    static pthread_mutex_t watch_mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_mutex_t watch_turn_mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_t watch_thread;
    static void watch_lock(void) { pthread_mutex_lock(&watch_mutex); }
    static void watch_unlock(void) { pthread_mutex_unlock(&watch_mutex); }
    /* Held while it looks, and signals: what is watched may end only when it does not. */
    static void watch_turn_begin(void) { pthread_mutex_lock(&watch_turn_mutex); }
    static void watch_turn_end(void) { pthread_mutex_unlock(&watch_turn_mutex); }
    static int watch_start(void *(*main)(void *))
    {
        /* It takes no signal of the process's. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int failed = pthread_create(&watch_thread, NULL, main, NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return failed;
    }
    static void watch_join(void) { pthread_join(watch_thread, NULL); }
    static void watch_kill(unsigned long thread, int number)
    {
        pthread_kill((pthread_t)thread, number);
    }
    static int watch_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
    static int watch_poll(int fd, int timeout_ms)
    {
        struct pollfd one = { fd, POLLIN, 0 };
        return poll(&one, 1, timeout_ms);
    }
    #define watch_load(at) __atomic_load_n(at, __ATOMIC_ACQUIRE)
    #define watch_store(at, value) __atomic_store_n(at, value, __ATOMIC_RELEASE)
    """
    void watch_lock() noexcept nogil
    void watch_unlock() noexcept nogil
    void watch_turn_begin() noexcept nogil
    void watch_turn_end() noexcept nogil
    int watch_start(void* (*main)(void*) noexcept nogil) noexcept nogil
    void watch_join() noexcept nogil
    void watch_kill(unsigned long thread, int number) noexcept nogil
    int watch_eventfd() noexcept nogil
    int watch_poll(int fd, int timeout_ms) noexcept nogil
    uint64_t watch_load(const uint64_t* at) noexcept nogil
    void watch_store(uint64_t* at, uint64_t value) noexcept nogil

cdef extern from "<unistd.h>" nogil:
    void _exit(int status) noexcept

cdef extern from "Python.h":
    int PyThreadState_SetAsyncExc(unsigned long thread, object exception)

cdef enum:
    WORKER_THREAD = 0
    LOOP_THREAD
    THREADS
    NAME_BYTES = 128                 # of a rule, in reports
    PACKAGE_BYTES = 256
    DUMP_BYTES = 32 * 1024
    REPORT_BYTES = 16 * 1024
    REPORT_LINES = 40
    PLACES = 64                      # reported within the last minute, and remembered
    PLACE_US = 60 * 1000000
    DUMP_FIRST_MS = 500              # for the thread to be run at all
    DUMP_QUIET_MS = 20               # then nothing more comes

ctypedef struct Watched:             # one thread; the first two are the thread's, by two stores
    uint64_t sequence                # odd: a rule runs
    uint64_t slot                    # in WorkerStats.rules
    uint64_t thread                  # pthread_t; 0: nobody to watch
    # the watchdog's
    uint64_t seen                    # sequence at its last look
    uint64_t since_us                # when it saw that first
    uint64_t overdue                 # sequence of the call that was asked to end
    uint32_t asked                   # how often
    bint reported

ctypedef struct Place:               # where a rule blocked
    uint64_t hash
    uint64_t at_us                   # of the last report
    uint32_t left_out                # reports since then

cdef Watched _watched[THREADS]
cdef Place _places[PLACES]
cdef char _names[RULES_MAX][NAME_BYTES]
cdef WorkerStats* _stats = NULL
cdef uint64_t _watchdog_us = 0
cdef uint64_t _timeout_us = 0
cdef char _package[PACKAGE_BYTES]              # folder of fastlb, with a slash at its end
cdef int _dump_signal = 0
cdef int _ask_signal = 0
cdef int _dump_fd = -1               # the pipe's end for reading
cdef int _report_fd = 2
cdef int _wake_fd = -1
cdef int _loop_fd = -1               # a byte: the event loop's thread is to be asked to end
cdef bint _runs = False
cdef uint64_t _stop = 0
cdef bint _forked = False            # this is a child of the worker's
cdef const char* LEAVES = (b"fastlb: error: a process that a rule forked came back from the rule;"
                           b" it is ended. End it by os._exit, or use subprocess\n")
cdef char _dump[DUMP_BYTES]
cdef char _report[REPORT_BYTES]


# --- what is watched ----------------------------------------------------------------------

cdef void _leave() noexcept nogil:
    # A rule forked, and its child came back from it: a second worker on the same connections.
    system.write(2, LEAVES, strlen(LEAVES))
    _exit(70)


cdef void rule_watch_open(WorkerStats* stats) noexcept nogil:
    global _stats
    _stats = stats


cdef void rule_watch_begin(uint32_t slot) noexcept nogil:
    _watched[WORKER_THREAD].slot = slot
    watch_store(&_watched[WORKER_THREAD].sequence, _watched[WORKER_THREAD].sequence + 1)


cdef void rule_watch_end() noexcept nogil:
    if unlikely(_forked):
        _leave()
    watch_store(&_watched[WORKER_THREAD].sequence, _watched[WORKER_THREAD].sequence + 1)


# --- the report ---------------------------------------------------------------------------

cdef uint32_t _read_dump() noexcept nogil:
    cdef uint32_t count = 0
    cdef int timeout = DUMP_FIRST_MS
    cdef ssize_t got
    while count < DUMP_BYTES and watch_poll(_dump_fd, timeout) > 0:
        got = system.read(_dump_fd, _dump + count, DUMP_BYTES - count)
        if got <= 0:
            break
        count += <uint32_t> got
        timeout = DUMP_QUIET_MS
    return count


cdef bint _has(const char* line, uint32_t bytes, const char* text) noexcept nogil:
    cdef uint32_t count = <uint32_t> strlen(text)
    cdef uint32_t i = 0
    while i + count <= bytes:
        if strncmp(line + i, text, count) == 0:
            return True
        i += 1
    return False


# Whether a frame is not the rule's: 1 it is left out, 2 so are all behind it.
cdef int _foreign(const char* line, uint32_t bytes) noexcept nogil:
    if bytes < 8 or strncmp(line, "  File \"", 8) != 0:
        return 1
    if _has(line, bytes, "asyncio/events.py\"") or _has(line, bytes, "\"<frozen runpy>\""):
        return 2
    if _has(line, bytes, _package):
        if _has(line, bytes, "/worker_main.py\"") or _has(line, bytes, "/rule_loop.py\""):
            return 2
        return 1
    return 0


cdef uint32_t _add(uint32_t used, const char* text, uint32_t bytes) noexcept nogil:
    if bytes > REPORT_BYTES - used:
        bytes = REPORT_BYTES - used
    memcpy(_report + used, text, bytes)
    return used + bytes


# The frames of the dump, innermost first, each with `prefix`; `hash` of the first.
cdef uint32_t _add_frames(uint32_t used, uint32_t dumped, const char* prefix,
                          uint64_t* hash) noexcept nogil:
    cdef SipKey key = SipKey(1, 2)
    cdef const char* line = _dump
    cdef const char* end
    cdef uint32_t bytes
    cdef uint32_t lines = 0
    cdef int foreign
    while line < _dump + dumped and lines < REPORT_LINES:
        end = <const char*> memchr(line, 10, <size_t> (_dump + dumped - line))
        if end == NULL:
            break
        bytes = <uint32_t> (end - line) + 1
        foreign = _foreign(line, bytes)
        if foreign == 2 and lines:
            break
        if foreign == 0:
            if lines == 0:
                hash[0] ^= siphash64(&key, line, bytes)
            used = _add(used, prefix, <uint32_t> strlen(prefix))
            used = _add(used, line, bytes)
            lines += 1
        line = end + 1
    return used


# How often this place was left out since it was reported last; -1: it is to be left out now.
cdef int64_t _left_out(uint64_t hash, uint64_t now_us) noexcept nogil:
    cdef Place* oldest = &_places[0]
    cdef int64_t left_out
    cdef int i
    for i in range(PLACES):
        if _places[i].hash == hash and _places[i].at_us:
            if now_us - _places[i].at_us < PLACE_US:
                _places[i].left_out += 1
                return -1
            left_out = _places[i].left_out
            _places[i].at_us = now_us
            _places[i].left_out = 0
            return left_out
        if _places[i].at_us < oldest.at_us:
            oldest = &_places[i]
    oldest.hash = hash
    oldest.at_us = now_us
    oldest.left_out = 0
    return 0


cdef void _report_place(int which, uint64_t slot, uint64_t took_us, uint64_t now_us) noexcept nogil:
    cdef char name[NAME_BYTES + 32]
    cdef char prefix[NAME_BYTES + 64]
    cdef char first[512]
    cdef uint64_t hash = slot if which == WORKER_THREAD else 1 << 32
    cdef uint32_t used, body, dumped
    cdef const char* thread = b"worker"
    cdef const char* waits = b"request"
    cdef const char* before
    cdef int64_t left_out
    if which == WORKER_THREAD:
        watch_lock()
        snprintf(name, sizeof(name), b"rule %s", _names[slot])
        watch_unlock()
    else:
        snprintf(name, sizeof(name), b"an async rule")
        thread = b"event loop"
        waits = b"async rule"
    snprintf(prefix, sizeof(prefix), b"fastlb: %s: ", name)
    watch_kill(<unsigned long> _watched[which].thread, _dump_signal)
    dumped = _read_dump()
    body = _add_frames(512, dumped, prefix, &hash)
    left_out = _left_out(hash, now_us)
    if left_out < 0:
        return
    before = b" (as it has before)" if left_out else b""
    used = <uint32_t> snprintf(
        first, sizeof(first), b"fastlb: warning: %s holds its %s for %u ms now, and no %s goes on"
        b" meanwhile%s:\n", name, thread, <unsigned int> (took_us // 1000), waits, before)
    if used > sizeof(first) - 1:
        used = sizeof(first) - 1
    # The first line stands right before the frames, so that one write is enough.
    memcpy(_report + 512 - used, first, used)
    system.write(_report_fd, _report + 512 - used, body - (512 - used))


# --- the thread ---------------------------------------------------------------------------

cdef void _ask(int which) noexcept nogil:
    watch_store(&_watched[which].overdue, _watched[which].seen)
    if which == WORKER_THREAD:
        watch_kill(<unsigned long> _watched[which].thread, _ask_signal)
    elif _loop_fd >= 0:
        system.write(_loop_fd, b"!", 1)


cdef void _look(int which, uint64_t now_us) noexcept nogil:
    cdef Watched* one = &_watched[which]
    cdef uint64_t sequence = watch_load(&one.sequence)
    cdef uint64_t slot = one.slot if one.slot < RULES_MAX else 0
    cdef uint64_t took
    if sequence != one.seen or not sequence & 1:
        one.seen = sequence
        one.since_us = now_us
        one.reported = False
        one.asked = 0
        return
    took = now_us - one.since_us
    if not one.reported and took >= _watchdog_us:
        one.reported = True
        if which == WORKER_THREAD and _stats != NULL:
            _stats.rules[slot].blocked += 1
        _report_place(which, slot, took, now_us)
    if took >= _timeout_us * (one.asked + 1):
        one.asked += 1
        _ask(which)


cdef void* _main(void* unused) noexcept nogil:
    cdef uint64_t period
    cdef int which
    while not watch_load(&_stop):
        watch_lock()
        period = (_watchdog_us if _watchdog_us < _timeout_us else _timeout_us) // 4000
        watch_unlock()
        watch_poll(_wake_fd, <int> period if period else 1)
        watch_turn_begin()
        for which in range(THREADS):
            if _watched[which].thread:
                _look(which, system.clock_us())
        watch_turn_end()
    return NULL


# --- for rule_watch.py --------------------------------------------------------------------

def set_times(uint64_t watchdog_ms, uint64_t timeout_ms):
    """After how long a call is reported, and asked to end (0: never)."""
    global _watchdog_us, _timeout_us
    watch_lock()
    _watchdog_us = watchdog_ms * 1000
    _timeout_us = timeout_ms * 1000 if timeout_ms else <uint64_t> 1 << 60
    watch_unlock()


def set_name(uint32_t slot, str name):
    """What the rule in `slot` is called in reports."""
    cdef bytes text = name.encode("utf-8", "replace")[:NAME_BYTES - 1]
    if slot >= RULES_MAX:
        raise ValueError(f"no rule has slot {slot}")
    watch_lock()
    memset(_names[slot], 0, NAME_BYTES)
    memcpy(_names[slot], <const char*> text, len(text))
    watch_unlock()


def start(int dump_signal, int ask_signal, int dump_fd, int loop_fd, bytes package,
          int report_fd=2):
    """Starts the thread, once; it watches nobody yet."""
    global _dump_signal, _ask_signal, _dump_fd, _loop_fd, _report_fd, _wake_fd, _runs, _stop
    cdef int failed
    if _runs:
        return
    if not 0 < len(package) < PACKAGE_BYTES:
        package = b"/fastlb/"
    memcpy(_package, <const char*> package, len(package) + 1)
    memset(_places, 0, sizeof(_places))
    _dump_signal, _ask_signal, _report_fd = dump_signal, ask_signal, report_fd
    _dump_fd, _loop_fd = dump_fd, loop_fd
    _stop = 0
    _wake_fd = watch_eventfd()
    if _wake_fd < 0:
        raise OSError(system.errno, "rules: eventfd of the watchdog")
    failed = watch_start(_main)
    if failed:
        system.close(_wake_fd)
        raise OSError(failed, "rules: the thread of the watchdog")
    _runs = True


def stop():
    """Ends the thread, which watches nobody any more."""
    global _runs
    cdef uint64_t one = 1
    if not _runs:
        return
    watch_store(&_stop, 1)
    system.write(_wake_fd, &one, sizeof(one))
    with nogil:
        watch_join()
    system.close(_wake_fd)
    memset(_watched, 0, sizeof(_watched))
    _runs = False


def runs():
    """Whether the thread runs."""
    return _runs


def watch_worker(bint watched=True):
    """The calling thread is the worker's, or is it no more."""
    cdef uint64_t thread = threading.get_ident() if watched else 0
    with nogil:
        watch_turn_begin()
        _watched[WORKER_THREAD].thread = thread
        watch_turn_end()


def watch_loop(bint watched=True):
    """The calling thread is that of the event loop, or is it no more."""
    cdef uint64_t thread = threading.get_ident() if watched else 0
    with nogil:
        watch_turn_begin()
        _watched[LOOP_THREAD].sequence = (_watched[LOOP_THREAD].sequence | 1) + 1
        _watched[LOOP_THREAD].thread = thread
        watch_turn_end()


def loop_busy():
    """The event loop's thread begins to run what is ready."""
    watch_store(&_watched[LOOP_THREAD].sequence, _watched[LOOP_THREAD].sequence | 1)


def loop_idle():
    """It waits for what is to come."""
    watch_store(&_watched[LOOP_THREAD].sequence, (_watched[LOOP_THREAD].sequence | 1) + 1)


def overdue():
    """Whether the call that runs in the worker's thread is the one that was asked to end."""
    cdef uint64_t sequence = watch_load(&_watched[WORKER_THREAD].sequence)
    return bool(sequence & 1) and watch_load(&_watched[WORKER_THREAD].overdue) == sequence


def in_child():
    """This is a forked child: rules may run to their end here, but no further."""
    global _forked
    _forked = True


def leave_if_forked():
    """Called behind each async rule; ends a child that came back from one."""
    if _forked:
        _leave()


def ask_loop(exception):
    """Raises `exception` in the event loop's thread, if what was asked to end still holds it."""
    cdef uint64_t sequence = watch_load(&_watched[LOOP_THREAD].sequence)
    if not sequence & 1 or watch_load(&_watched[LOOP_THREAD].overdue) != sequence:
        return False
    return PyThreadState_SetAsyncExc(
        <unsigned long> _watched[LOOP_THREAD].thread, exception) == 1
