# The queues between worker and event loop (contract in rule_queue.pxd).
#
# One lock covers both, since a call changes sides: a cancellation may cross the call's own way
# back, and only who sees both queues at once can tell which of them was first. It is held for a
# few instructions at a time, or for one pass over what came.
#
# A descriptor is written once when its queue is to be looked at, and not again until it has been:
# `woken` says that it was. It is written and read without the lock: who is woken may run at once,
# on this very CPU, and its first step is to take the lock. `users` keeps it open meanwhile. Who
# reads does so before it looks at the queue, so it may be woken in vain, but never too late.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlb._core cimport system
from fastlb._core.connection cimport Stream, Worker
from fastlb._core.debug cimport BUG_ON
from fastlb._core.rule_call cimport RULE_DONE, RuleCall

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <sys/eventfd.h>
    static pthread_mutex_t rule_queue_mutex = PTHREAD_MUTEX_INITIALIZER;
    static void rule_queue_lock(void) { pthread_mutex_lock(&rule_queue_mutex); }
    static void rule_queue_unlock(void) { pthread_mutex_unlock(&rule_queue_mutex); }
    static void rule_queue_used(uint32_t* users)
    {
        __atomic_sub_fetch(users, 1, __ATOMIC_RELEASE);
    }
    static void rule_queue_use(uint32_t* users)
    {
        __atomic_add_fetch(users, 1, __ATOMIC_RELAXED);
    }
    static int rule_queue_in_use(uint32_t* users)
    {
        return __atomic_load_n(users, __ATOMIC_ACQUIRE) != 0;
    }
    static int rule_queue_descriptor(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
    """
    void rule_queue_lock() noexcept nogil
    void rule_queue_unlock() noexcept nogil
    void rule_queue_used(uint32_t* users) noexcept nogil
    void rule_queue_use(uint32_t* users) noexcept nogil
    bint rule_queue_in_use(uint32_t* users) noexcept nogil
    int rule_queue_descriptor() noexcept nogil
    int sched_yield() noexcept nogil

cdef enum:
    BACK_PER_TURN = 4

ctypedef struct Queue:
    RuleCall* first
    RuleCall* last
    uint32_t count
    int fd                           # -1: not open
    bint woken
    uint32_t users                   # who will write or read `fd` yet

cdef Queue _out = Queue(NULL, NULL, 0, -1, False, 0)
cdef Queue _back = Queue(NULL, NULL, 0, -1, False, 0)
cdef RuleCallBack _on_call = NULL


# --- under the lock -----------------------------------------------------------------------

cdef void _link(Queue* q, RuleCall* call, uint8_t queued) noexcept nogil:
    BUG_ON(call.queued != RULE_QUEUED_NOWHERE)
    call.queued = queued
    call.queue_next = NULL
    call.queue_previous = q.last
    if q.last != NULL:
        q.last.queue_next = call
    else:
        q.first = call
    q.last = call
    q.count += 1


cdef void _unlink(Queue* q, RuleCall* call) noexcept nogil:
    BUG_ON(call.queued == RULE_QUEUED_NOWHERE)
    if call.queue_previous != NULL:
        call.queue_previous.queue_next = call.queue_next
    else:
        q.first = call.queue_next
    if call.queue_next != NULL:
        call.queue_next.queue_previous = call.queue_previous
    else:
        q.last = call.queue_previous
    call.queued = RULE_QUEUED_NOWHERE
    q.count -= 1


cdef int _to_wake(Queue* q) noexcept nogil:
    # The descriptor for _unlock_and_wake; -1: nobody is to be woken.
    if q.woken or q.first == NULL or q.fd < 0:
        return -1
    q.woken = True
    rule_queue_use(&q.users)
    return q.fd


cdef void _lock_and_hear(Queue* q) noexcept nogil:
    cdef uint64_t times
    cdef int fd
    rule_queue_lock()
    fd = q.fd                        # also if `woken` is not set: a late write may be there
    if fd >= 0:
        rule_queue_use(&q.users)
        rule_queue_unlock()
        system.read(fd, &times, sizeof(times))
        rule_queue_used(&q.users)
        rule_queue_lock()
    q.woken = False


cdef void _unlock_and_wake(Queue* q) noexcept nogil:
    cdef uint64_t one = 1
    cdef int fd = _to_wake(q)
    rule_queue_unlock()
    if fd >= 0:
        system.write(fd, &one, sizeof(one))
        rule_queue_used(&q.users)


# --- descriptors --------------------------------------------------------------------------

cdef int _descriptor(Queue* q) noexcept nogil:
    cdef int fd
    rule_queue_lock()
    if q.fd < 0:
        q.fd = rule_queue_descriptor()
        q.woken = False
    fd = q.fd
    _unlock_and_wake(q)
    return fd


cdef void _close(Queue* q) noexcept nogil:
    cdef int fd
    rule_queue_lock()
    fd = q.fd
    q.fd = -1
    rule_queue_unlock()
    while rule_queue_in_use(&q.users):
        sched_yield()
    if fd >= 0:
        system.close(fd)


cdef int rule_queue_fd() noexcept nogil:
    return _descriptor(&_out)


# --- the worker's side --------------------------------------------------------------------

cdef RuleCall* _next_back(uint8_t* message) noexcept nogil:
    cdef RuleCall* call
    rule_queue_lock()
    call = _back.first
    if call != NULL:
        message[0] = call.message
        _unlink(&_back, call)
    rule_queue_unlock()
    return call


cdef void _drain(Worker* w) noexcept nogil:
    # One by one: what is done for a call may tell others, which moves them between the queues.
    cdef RuleCall* call
    cdef uint32_t left
    cdef uint8_t message
    _lock_and_hear(&_back)
    left = min(_back.count, <uint32_t> BACK_PER_TURN)
    rule_queue_unlock()
    while left:
        left -= 1
        call = _next_back(&message)
        if call == NULL:
            break
        _on_call(w, call, message)
    # The others wait for the next turn: a thousand rules that slept as long end at one time, and
    # who has no rule would wait for all of their answers.
    rule_queue_lock()
    _unlock_and_wake(&_back)


cdef void _on_events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    _drain(w)


cdef bint rule_queue_open(Worker* w, RuleCallBack on_call) noexcept nogil:
    global _on_call
    cdef system.epoll_event event
    _on_call = on_call
    if w.rules.on_events != NULL and w.rules.fd >= 0:
        return True
    if _descriptor(&_out) < 0 or _descriptor(&_back) < 0:
        return False
    w.rules.on_events = _on_events
    event.events = system.EPOLLIN
    event.data.ptr = &w.rules
    if system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_ADD, _back.fd, &event) < 0:
        return False
    w.rules.fd = _back.fd
    return True


cdef void rule_queue_close(Worker* w) noexcept nogil:
    cdef uint8_t message
    # The event loop may have opened its side though no call was ever put.
    cdef RuleCall* call = _next_back(&message)
    while call != NULL:
        _on_call(w, call, message)
        call = _next_back(&message)
    w.rules.on_events = NULL
    w.rules.fd = -1
    _close(&_back)                   # which takes it out of the epoll, too
    _close(&_out)


cdef void rule_queue_put(RuleCall* call) noexcept nogil:
    rule_queue_lock()
    _link(&_out, call, RULE_QUEUED_OUT)
    _unlock_and_wake(&_out)


cdef void rule_queue_tell(RuleCall* call) noexcept nogil:
    rule_queue_lock()
    if call.queued == RULE_QUEUED_BACK and call.message != RULE_DONE:
        _unlink(&_back, call)
    if call.queued == RULE_QUEUED_NOWHERE:
        _link(&_out, call, RULE_QUEUED_OUT)
    _unlock_and_wake(&_out)


# --- the event loop's side ----------------------------------------------------------------

cdef RuleCall* rule_queue_take() noexcept nogil:
    cdef RuleCall* first
    cdef RuleCall* call
    _lock_and_hear(&_out)
    first = call = _out.first
    while call != NULL:
        call.queued = RULE_QUEUED_NOWHERE
        call.next = call.queue_next
        call = call.queue_next
    _out.first = NULL
    _out.last = NULL
    _out.count = 0
    rule_queue_unlock()
    return first


cdef void rule_queue_give(RuleCall* call, uint8_t message) noexcept nogil:
    rule_queue_lock()
    if call.queued == RULE_QUEUED_OUT and message == RULE_DONE:
        _unlink(&_out, call)
    if call.queued == RULE_QUEUED_BACK and message == RULE_DONE:
        call.message = message       # instead of a wish, which nobody has any more
    if call.queued == RULE_QUEUED_NOWHERE:
        call.message = message
        _link(&_back, call, RULE_QUEUED_BACK)
    _unlock_and_wake(&_back)


def fd():
    """The event loop's descriptor; raises OSError when there is none to be had."""
    cdef int found = rule_queue_fd()
    if found < 0:
        raise OSError(system.errno, "rules: eventfd")
    return found
