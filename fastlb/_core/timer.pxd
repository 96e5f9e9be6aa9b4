# Timer wheel: one list of timers per slot of TIMER_SLOT_MS; a bitmap tells which slots hold any.
#
# A connection sets its deadline at every request, and it almost never fires. So
# timer_set only writes the deadline while the timer is already filed at or before
# it; when its slot comes up, the wheel files it again under the new deadline. Moving
# a deadline forward costs one store, no list operation.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    TIMER_SLOT_MS = 16
    TIMER_SLOTS = 4096               # horizon 65 s; what is later is filed again on the way
    TIMER_MAP_WORDS = TIMER_SLOTS // 64

ctypedef struct Timer:
    Timer* next                      # neighbours in the slot's list; NULL when not filed
    Timer* prev
    uint64_t deadline_ms             # monotonic; 0: not armed
    uint64_t filed_slot              # number of the slot that holds the timer
    uint32_t kind                    # the owner's, to tell timers apart in the callback

# Called for each timer that is due; it is unfiled and disarmed by then and may be set again.
ctypedef void (*timer_fire_t)(void* context, Timer* timer) noexcept nogil

ctypedef struct TimerWheel:
    Timer slots[TIMER_SLOTS]         # list heads
    uint64_t filled[TIMER_MAP_WORDS]
    uint64_t slot_now                # the slot that was run last
    uint32_t count                   # timers filed

cdef void timer_wheel_init(TimerWheel* wheel, uint64_t now_ms) noexcept nogil
cdef void timer_file(TimerWheel* wheel, Timer* timer) noexcept nogil
cdef void timer_unfile(TimerWheel* wheel, Timer* timer) noexcept nogil
cdef void timer_run(TimerWheel* wheel, uint64_t now_ms, timer_fire_t fire,
                    void* context) noexcept nogil
# Milliseconds until the next slot that holds a timer, -1 when none does.
cdef int timer_next_ms(TimerWheel* wheel, uint64_t now_ms) noexcept nogil


cdef inline void timer_set(TimerWheel* wheel, Timer* timer, uint64_t deadline_ms) noexcept nogil:
    timer.deadline_ms = deadline_ms
    if timer.next != NULL and timer.filed_slot <= deadline_ms // TIMER_SLOT_MS:
        return
    if timer.next != NULL:
        timer_unfile(wheel, timer)
    timer_file(wheel, timer)


# The timer stays filed; its slot will find it disarmed.
cdef inline void timer_clear(Timer* timer) noexcept nogil:
    timer.deadline_ms = 0


# A limit on waiting without progress: what the other side does meanwhile does not extend it.
cdef inline void timer_await(TimerWheel* wheel, Timer* timer, uint64_t deadline_ms,
                             bint progress) noexcept nogil:
    if progress or timer.deadline_ms == 0:
        timer_set(wheel, timer, deadline_ms)
