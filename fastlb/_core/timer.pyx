# The timer wheel's list work (see timer.pxd for the idea).
#
# Slots are numbered without wrapping (now_ms / TIMER_SLOT_MS); the list of slot n is
# slots[n % TIMER_SLOTS]. A timer further away than the horizon is filed at the
# horizon and filed again from there.

from libc.stdint cimport uint64_t

from fastlb._core.debug cimport BUG_ON

cdef extern from * nogil:
    int __builtin_ctzll(unsigned long long x) noexcept


cdef void timer_wheel_init(TimerWheel* wheel, uint64_t now_ms) noexcept nogil:
    cdef int i
    for i in range(TIMER_SLOTS):
        wheel.slots[i].next = &wheel.slots[i]
        wheel.slots[i].prev = &wheel.slots[i]
    for i in range(TIMER_MAP_WORDS):
        wheel.filled[i] = 0
    wheel.slot_now = now_ms // TIMER_SLOT_MS
    wheel.count = 0


cdef void timer_file(TimerWheel* wheel, Timer* timer) noexcept nogil:
    # Rounded up: a timer never fires before its deadline.
    cdef uint64_t slot = timer.deadline_ms // TIMER_SLOT_MS + 1
    cdef Timer* head
    BUG_ON(timer.next != NULL)
    if slot <= wheel.slot_now:
        slot = wheel.slot_now + 1
    elif slot >= wheel.slot_now + TIMER_SLOTS:
        slot = wheel.slot_now + TIMER_SLOTS - 1
    timer.filed_slot = slot
    head = &wheel.slots[slot % TIMER_SLOTS]
    timer.next = head
    timer.prev = head.prev
    head.prev.next = timer
    head.prev = timer
    wheel.filled[slot % TIMER_SLOTS // 64] |= <uint64_t> 1 << (slot % 64)
    wheel.count += 1


cdef void timer_unfile(TimerWheel* wheel, Timer* timer) noexcept nogil:
    if timer.next == NULL:
        return
    timer.prev.next = timer.next
    timer.next.prev = timer.prev
    timer.next = NULL
    timer.prev = NULL
    wheel.count -= 1


cdef void _run_slot(TimerWheel* wheel, uint64_t slot, uint64_t now_ms, timer_fire_t fire,
                    void* context) noexcept nogil:
    cdef Timer* head = &wheel.slots[slot % TIMER_SLOTS]
    cdef Timer* timer
    wheel.filled[slot % TIMER_SLOTS // 64] &= ~(<uint64_t> 1 << (slot % 64))
    # What a callback files meanwhile goes to later slots, so the list only shrinks here;
    # a callback may also unfile others of this list, so it is read anew each time.
    while head.next != head:
        timer = head.next
        timer_unfile(wheel, timer)
        if timer.deadline_ms == 0:
            continue
        if timer.deadline_ms > now_ms:
            timer_file(wheel, timer)
            continue
        timer.deadline_ms = 0
        fire(context, timer)


cdef void timer_run(TimerWheel* wheel, uint64_t now_ms, timer_fire_t fire,
                    void* context) noexcept nogil:
    cdef uint64_t target = now_ms // TIMER_SLOT_MS
    if target > wheel.slot_now + TIMER_SLOTS:
        # A long pause (suspended machine): each list once is enough.
        wheel.slot_now = target - TIMER_SLOTS
    while wheel.slot_now < target:
        wheel.slot_now += 1
        _run_slot(wheel, wheel.slot_now, now_ms, fire, context)


cdef int timer_next_ms(TimerWheel* wheel, uint64_t now_ms) noexcept nogil:
    cdef uint64_t slot = wheel.slot_now + 1
    cdef uint64_t end = wheel.slot_now + TIMER_SLOTS
    cdef uint64_t word
    if wheel.count == 0:
        return -1
    while slot <= end:
        word = wheel.filled[slot % TIMER_SLOTS // 64] >> (slot % 64)
        if word:
            slot += __builtin_ctzll(word)
            break
        slot += 64 - slot % 64
    if slot * TIMER_SLOT_MS <= now_ms:
        return 0
    return <int> (slot * TIMER_SLOT_MS - now_ms)
