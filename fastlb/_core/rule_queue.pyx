# The queues between worker and event loop (contract in rule_queue.pxd).
#
# One lock covers both, since a call changes sides: a cancellation may cross the call's own way
# back, and only who sees both queues at once can tell which of them was first. It is held for a
# few instructions at a time, or for one pass over what came.
#
# A descriptor is written once when its queue is to be looked at, and not again until it has been:
# `woken` says that it was. Descriptors are written, read and closed under the lock.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlb._core cimport system
from fastlb._core.connection cimport Stream, Worker
from fastlb._core.debug cimport BUG_ON
from fastlb._core.rule_call cimport RULE_DONE, RuleCall

cdef extern from *:
    """
    #include <pthread.h>
    #include <sys/eventfd.h>
    static pthread_mutex_t rule_queue_mutex = PTHREAD_MUTEX_INITIALIZER;
    static void rule_queue_lock(void) { pthread_mutex_lock(&rule_queue_mutex); }
    static void rule_queue_unlock(void) { pthread_mutex_unlock(&rule_queue_mutex); }
    static int rule_queue_descriptor(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
    """
    void rule_queue_lock() noexcept nogil
    void rule_queue_unlock() noexcept nogil
    int rule_queue_descriptor() noexcept nogil

ctypedef struct Queue:
    RuleCall* first
    RuleCall* last
    uint32_t count
    int fd                           # -1: not open
    bint woken

cdef Queue _out = Queue(NULL, NULL, 0, -1, False)
cdef Queue _back = Queue(NULL, NULL, 0, -1, False)
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


cdef void _wake(Queue* q) noexcept nogil:
    cdef uint64_t one = 1
    if not q.woken and q.first != NULL and q.fd >= 0:
        q.woken = True
        system.write(q.fd, &one, sizeof(one))


cdef void _heard(Queue* q) noexcept nogil:
    cdef uint64_t times
    if q.woken and q.fd >= 0:
        system.read(q.fd, &times, sizeof(times))
    q.woken = False


# --- descriptors --------------------------------------------------------------------------

cdef int _descriptor(Queue* q) noexcept nogil:
    cdef int fd
    rule_queue_lock()
    if q.fd < 0:
        q.fd = rule_queue_descriptor()
        q.woken = False
        _wake(q)
    fd = q.fd
    rule_queue_unlock()
    return fd


cdef void _close(Queue* q) noexcept nogil:
    rule_queue_lock()
    if q.fd >= 0:
        system.close(q.fd)
    q.fd = -1
    rule_queue_unlock()


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
    rule_queue_lock()
    _heard(&_back)
    left = _back.count
    rule_queue_unlock()
    while left:
        left -= 1
        call = _next_back(&message)
        if call == NULL:
            break
        _on_call(w, call, message)
    # What came meanwhile may have to wait for the others of this turn, but not for ever.
    rule_queue_lock()
    _wake(&_back)
    rule_queue_unlock()


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
    cdef RuleCall* call
    cdef uint8_t message
    call = _next_back(&message) if w.rules.on_events != NULL else NULL
    while call != NULL:
        _on_call(w, call, message)
        call = _next_back(&message)
    w.rules.on_events = NULL
    w.rules.fd = -1
    _close(&_back)                   # which takes it out of the epoll, too
    _close(&_out)                    # the event loop may have opened it, and never got a call


cdef void rule_queue_put(RuleCall* call) noexcept nogil:
    rule_queue_lock()
    _link(&_out, call, RULE_QUEUED_OUT)
    _wake(&_out)
    rule_queue_unlock()


cdef void rule_queue_tell(RuleCall* call) noexcept nogil:
    rule_queue_lock()
    if call.queued == RULE_QUEUED_BACK and call.message != RULE_DONE:
        _unlink(&_back, call)
    if call.queued == RULE_QUEUED_NOWHERE:
        _link(&_out, call, RULE_QUEUED_OUT)
    _wake(&_out)
    rule_queue_unlock()


# --- the event loop's side ----------------------------------------------------------------

cdef RuleCall* rule_queue_take() noexcept nogil:
    cdef RuleCall* first
    cdef RuleCall* call
    rule_queue_lock()
    _heard(&_out)
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
    _wake(&_back)
    rule_queue_unlock()


def fd():
    """The event loop's descriptor; raises OSError when there is none to be had."""
    cdef int found = rule_queue_fd()
    if found < 0:
        raise OSError(system.errno, "rules: eventfd")
    return found
