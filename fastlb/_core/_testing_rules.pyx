"""The parts of rules that need no worker; for tests only."""

from libc.string cimport memset

from fastlb._core.arena cimport (
    ARENA_BYTES_MAX, ARENA_FIRST_BYTES, ARENA_KEPT_BYTES, Arena, Span, arena_add, arena_clear,
    arena_free, arena_room, arena_slice,
)
from fastlb._core.head cimport Head
from fastlb._core.rule_apply cimport rule_merge_log
from fastlb._core.rule_call cimport RuleCall, RuleState, rule_call_own
from fastlb._core.slice cimport Slice, slice_of

FIRST_BYTES = ARENA_FIRST_BYTES
KEPT_BYTES = ARENA_KEPT_BYTES
BYTES_MAX = ARENA_BYTES_MAX


cdef class Texts:
    """One arena; spans are (offset, bytes)."""

    cdef Arena arena

    def __cinit__(self):
        memset(&self.arena, 0, sizeof(Arena))

    def __dealloc__(self):
        arena_free(&self.arena)

    def add(self, bytes text):
        """The span, or None where there is no room."""
        cdef Span span
        if not arena_add(&self.arena, text, <unsigned> len(text), &span):
            return None
        return (span.offset, span.bytes)

    def room(self, unsigned count):
        return arena_room(&self.arena, count) != NULL

    def at(self, unsigned offset, unsigned count):
        cdef Span span
        span.offset = offset
        span.bytes = count
        return arena_slice(&self.arena, span).at[:count]

    def clear(self):
        arena_clear(&self.arena)

    @property
    def used(self):
        return self.arena.used

    @property
    def size(self):
        return self.arena.size


cdef Slice _slice(object text):
    if text is None:
        return slice_of(NULL, 0)
    return slice_of(<const char*> <bytes> text, <unsigned> len(text))


cdef object _bytes(Slice s):
    return None if s.at == NULL else s.at[:s.bytes]


def owned(list texts):
    """The seven texts of a call's facts after rule_call_own; the originals are overwritten."""
    cdef RuleCall call
    cdef list held = [None if one is None else bytearray(one) for one in texts]
    cdef char* at
    memset(&call, 0, sizeof(RuleCall))
    slices = []
    for one in held:
        if one is None:
            slices.append((<size_t> 0, 0))
        else:
            at = one
            slices.append((<size_t> at, len(one)))
    for i, (where, count) in enumerate(slices):
        _set(&call, <int> i, slice_of(<const char*> <size_t> where, <unsigned> count))
    call.facts.request_head = <const Head*> &call
    call.facts.response_head = <const Head*> &call
    try:
        if not rule_call_own(&call):
            raise MemoryError("no room for the facts")
        for one in held:
            if one is not None:
                one[:] = b"?" * len(one)
        if call.facts.request_head != NULL or call.facts.response_head != NULL:
            raise AssertionError("a parsed head went along")
        return [
            _bytes(call.facts.key), _bytes(call.facts.request), _bytes(call.facts.response),
            _bytes(call.facts.sni), _bytes(call.facts.alpn), _bytes(call.facts.subject),
            _bytes(call.facts.certificate),
        ]
    finally:
        arena_free(&call.copied)


cdef void _set(RuleCall* call, int i, Slice s):
    if i == 0:
        call.facts.key = s
    elif i == 1:
        call.facts.request = s
    elif i == 2:
        call.facts.response = s
    elif i == 3:
        call.facts.sni = s
    elif i == 4:
        call.facts.alpn = s
    elif i == 5:
        call.facts.subject = s
    else:
        call.facts.certificate = s


def merged(list logs):
    """The members that stay when each of these is said after the one before."""
    cdef RuleState state
    cdef Slice more
    memset(&state, 0, sizeof(RuleState))
    try:
        for one in logs:
            more = _slice(one)
            if not rule_merge_log(&state, more):
                raise MemoryError("no room for the log")
        more = arena_slice(&state.arena, state.log)
        return more.at[:more.bytes] if more.bytes else b""
    finally:
        arena_free(&state.arena)
