# Test-only: the queues of calls from Python, and both sides at once in threads without the GIL.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastlb._core cimport system
from fastlb._core.connection cimport Stream, Worker
from fastlb._core.rule_call cimport RULE_DONE, RULE_WANTS_BODY, RuleCall
from fastlb._core.rule_queue cimport (
    RULE_QUEUED_NOWHERE, rule_queue_close, rule_queue_fd, rule_queue_give, rule_queue_open,
    rule_queue_put, rule_queue_take, rule_queue_tell,
)

DONE = RULE_DONE
WANTS_BODY = RULE_WANTS_BODY

cdef RuleCall* _calls = NULL
cdef uint32_t* _done = NULL          # how often each came back as done
cdef uint32_t* _wished = NULL
cdef uint32_t _all_done = 0
cdef uint32_t _seen = 0
cdef RuleCall* _seen_call[4096]
cdef uint8_t _seen_message[4096]


cdef void _note(Worker* w, RuleCall* call, uint8_t message) noexcept nogil:
    global _seen
    if _seen < 4096:
        _seen_call[_seen] = call
        _seen_message[_seen] = message
        _seen += 1


cdef void _answer(Worker* w, RuleCall* call, uint8_t message) noexcept nogil:
    # A worker that gives a body to who asks, and counts who is done.
    global _all_done
    cdef size_t number = call - _calls
    if message == RULE_DONE:
        _done[number] += 1
        _all_done += 1
    else:
        _wished[number] += 1
        rule_queue_tell(call)


cdef inline uint64_t _drawn(uint64_t seed) noexcept nogil:
    return seed * <uint64_t> 6364136223846793005 + <uint64_t> 1442695040888963407


cdef class Queues:
    """Both queues with a worker of their own; calls are numbers."""

    cdef Worker* w
    cdef uint32_t count

    def __cinit__(self, uint32_t count, bint answers=False):
        global _calls, _done, _wished, _all_done, _seen
        _all_done = _seen = 0
        self.count = count
        self.w = <Worker*> calloc(1, sizeof(Worker))
        _calls = <RuleCall*> calloc(count, sizeof(RuleCall))
        _done = <uint32_t*> calloc(count, sizeof(uint32_t))
        _wished = <uint32_t*> calloc(count, sizeof(uint32_t))
        self.w.epoll_fd = system.epoll_create1(system.EPOLL_CLOEXEC)
        if not rule_queue_open(self.w, _answer if answers else _note):
            raise OSError(system.errno, "eventfd")

    def close(self):
        """What on_call saw at the end."""
        global _calls, _seen
        _seen = 0
        rule_queue_close(self.w)
        seen = self.seen()
        system.close(self.w.epoll_fd)
        free(self.w)
        free(_calls)
        free(_done)
        free(_wished)
        self.w = NULL
        _calls = NULL
        return seen

    def open_again(self):
        return rule_queue_open(self.w, _note)

    @property
    def fd(self):
        return rule_queue_fd()

    @property
    def epoll(self):
        return self.w.epoll_fd

    def queued(self, uint32_t number):
        return _calls[number].queued

    def put(self, uint32_t number):
        rule_queue_put(&_calls[number])

    def tell(self, uint32_t number):
        rule_queue_tell(&_calls[number])

    def give(self, uint32_t number, uint8_t message=RULE_DONE):
        rule_queue_give(&_calls[number], message)

    def take(self):
        cdef RuleCall* call = rule_queue_take()
        taken = []
        while call != NULL:
            taken.append(call - _calls)
            call = call.next
        return taken

    cdef uint32_t _turn(self, int timeout) noexcept nogil:
        cdef system.epoll_event events[4]
        cdef Stream* s
        cdef int i
        cdef int count = system.epoll_wait(self.w.epoll_fd, events, 4, timeout)
        for i in range(count):
            s = <Stream*> events[i].data.ptr
            s.on_events(self.w, s, events[i].events)
        return <uint32_t> count if count > 0 else 0

    def turn(self):
        """What one turn of the worker's loop brings: (number, message)."""
        global _seen
        _seen = 0
        self._turn(0)
        return self.seen()

    def seen(self):
        return [(_seen_call[i] - _calls, _seen_message[i]) for i in range(_seen)]

    def worker_side(self, uint64_t seed):
        """Puts all calls, a few at a time, and tells some of what is out; until all are done."""
        cdef uint32_t put = 0
        cdef uint32_t idle = 0
        cdef RuleCall* call
        with nogil:
            while _all_done < self.count and idle < 200:
                seed = _drawn(seed)
                if put < self.count and put - _all_done < 64 + (seed >> 60) * 32:
                    rule_queue_put(&_calls[put])
                    put += 1
                if put and (seed >> 33) & 3 == 0:
                    # Told of a cancellation, whatever way it is on, as long as it is not back.
                    call = &_calls[put - 1 - ((seed >> 40) & 31) % put]
                    if not _done[call - _calls]:
                        call.cancelled = True
                        rule_queue_tell(call)
                if (seed >> 50) & 7 == 0 or put == self.count:
                    idle = 0 if self._turn(50 if put == self.count else 0) else idle + (
                        put == self.count)
        return _all_done

    def loop_side(self, uint64_t seed):
        """Takes calls and gives them back, half of them after a wish; until all are done."""
        cdef RuleCall* call
        cdef RuleCall* following
        cdef uint32_t idle = 0
        cdef uint32_t given = 0
        cdef uint8_t* state = <uint8_t*> calloc(self.count, 1)
        cdef size_t number
        with nogil:
            while given < self.count and idle < 50_000_000:
                call = rule_queue_take()
                idle = 0 if call != NULL else idle + 1
                while call != NULL:
                    following = call.next
                    number = call - _calls
                    seed = _drawn(seed)
                    if state[number] == 0 and (seed >> 40) & 1 and not call.cancelled:
                        state[number] = 1
                        rule_queue_give(call, RULE_WANTS_BODY)
                        if (seed >> 45) & 1:
                            # Its time is over, while the wish is on its way.
                            state[number] = 2
                            given += 1
                            rule_queue_give(call, RULE_DONE)
                    elif state[number] < 2:
                        state[number] = 2
                        given += 1
                        rule_queue_give(call, RULE_DONE)
                    call = following
            free(state)
        return given

    def totals(self):
        """Calls that came back once, more than once; wishes; calls left in a queue."""
        once = sum(_done[i] == 1 for i in range(self.count))
        more = sum(_done[i] > 1 for i in range(self.count))
        wishes = sum(_wished[i] for i in range(self.count))
        left = sum(_calls[i].queued != RULE_QUEUED_NOWHERE for i in range(self.count))
        return once, more, wishes, left
