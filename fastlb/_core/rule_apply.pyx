# Effects on an exchange (contract in rule_apply.pxd).
#
# A changed head of a request takes the place of the received one before anything was sent; what
# stands behind it, of its body or of a next request, moves with it.

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcpy, memmove

from fastlb._core.arena cimport Arena, Span, arena_add, arena_room, arena_slice
from fastlb._core.body cimport body_start
from fastlb._core.bounds cimport bounds_of_body
from fastlb._core.buffer cimport Buffer, buffer_borrow_bytes, buffer_return
from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.debug cimport BUG_ON
from fastlb._core.limits cimport RULE_LOG_BYTES_MAX
from fastlb._core.plan cimport Plan, Text, plan_class, plan_pool, plan_text
from fastlb._core.relay cimport flow_frame
from fastlb._core.request cimport request_head_at, request_note, request_reload
from fastlb._core.rule_call cimport (
    RULE_GOES_ON, RULE_RESPONSE, RULE_SETS_CLIENT, RULE_SETS_HEAD, RULE_SETS_KEY,
    RULE_SETS_LOG, RULE_SETS_NODE, RULE_SETS_PERSISTENCE, RULE_SETS_POOL, RuleCall, RuleEffects,
    RuleState,
)
from fastlb._core.rule_state cimport rule_state_take
from fastlb._core.slice cimport Slice, slice_equal, slice_of


# --- heads --------------------------------------------------------------------------------

# Makes room for a head of `count` bytes in place of the one there; False: no buffer.
cdef bint _place_head(Worker* w, Exchange* x, uint32_t count) noexcept nogil:
    cdef Buffer* data = x.up.data
    cdef uint32_t rest = data.end - x.head_end
    cdef Buffer* larger
    if x.head_start + count + rest > data.size:
        if count + rest > data.size:
            larger = buffer_borrow_bytes(&w.buffers, count + rest)
            if larger == NULL:
                return False
            memcpy(larger.data + count, data.data + x.head_end, rest)
            buffer_return(&w.buffers, data)
            x.up.data = larger
        else:
            memmove(data.data + count, data.data + x.head_end, rest)
        x.head_start = 0
    else:
        memmove(data.data + x.head_start + count, data.data + x.head_end, rest)
    x.up.data.start = x.head_start
    x.up.data.end = x.head_start + count + rest
    return True


cdef bint _swap_request_head(Worker* w, Exchange* x, Slice head) noexcept nogil:
    cdef RuleState* state = x.rules
    BUG_ON(x.up.kept != NULL)
    if state.target.bytes == 0 and not arena_add(
            &state.arena, request_head_at(x) + (x.target - x.head_start), x.target_bytes,
            &state.target):
        return False
    if not _place_head(w, x, head.bytes):
        return False
    memcpy(x.up.data.data + x.head_start, head.at, head.bytes)
    x.head_end = x.head_start + head.bytes
    w.request_of = NULL
    request_reload(w, x)
    request_note(x, &w.request, x.head_start)
    x.up.keep = x.head_end
    body_start(&x.up.body, w.request.framing, w.request.content_length)
    bounds_of_body(&x.up.body, x.snapshot.plan)
    flow_frame(&x.up, x.head_end, x.up.data.end - x.head_end)
    return True


cdef bint _swap_response_head(Exchange* x, Slice head) noexcept nogil:
    cdef RuleState* state = x.rules
    if not arena_add(&state.arena, head.at, head.bytes, &state.head):
        return False
    # "HTTP/1.1 200": it has been parsed, so there are three digits.
    x.status = <unsigned short> (100 * (head.at[9] - c'0') + 10 * (head.at[10] - c'0')
                                 + head.at[11] - c'0')
    return True


# --- the log ------------------------------------------------------------------------------

# Where the member that begins at `at` ends: its comma, or the end.
cdef uint32_t _member_end(Slice members, uint32_t at) noexcept nogil:
    cdef bint quoted = False
    while at < members.bytes:
        if members.at[at] == c'\\':
            at += 1
        elif members.at[at] == c'"':
            quoted = not quoted
        elif members.at[at] == c',' and not quoted:
            return at
        at += 1
    return members.bytes


# Bytes of the name with its quotes.
cdef uint32_t _name_bytes(Slice members, uint32_t at) noexcept nogil:
    cdef uint32_t i = at + 1
    while i < members.bytes and members.at[i] != c'"':
        i += 2 if members.at[i] == c'\\' else 1
    return i + 1 - at


cdef bint _names(Slice members, Slice name) noexcept nogil:
    cdef uint32_t at = 0
    while at < members.bytes:
        if slice_equal(slice_of(members.at + at, _name_bytes(members, at)), name):
            return True
        at = _member_end(members, at) + 1
    return False


cdef bint rule_merge_log(RuleState* state, Slice more) noexcept nogil:
    cdef Slice had = arena_slice(&state.arena, state.log)
    cdef uint32_t before = state.log.offset, count = state.log.bytes, at = 0, end
    cdef uint32_t first = state.arena.used, written = 0
    cdef char* out
    if more.bytes > RULE_LOG_BYTES_MAX:
        return True
    out = arena_room(&state.arena, count + more.bytes + 1)
    if out == NULL:
        return False
    had = slice_of(state.arena.at + before, count)
    while at < count:
        end = _member_end(had, at)
        if not _names(more, slice_of(had.at + at, _name_bytes(had, at))) \
                and written + (end - at) + more.bytes + 1 <= RULE_LOG_BYTES_MAX:
            memcpy(out + written, had.at + at, end - at)
            written += end - at
            out[written] = c','
            written += 1
        at = end + 1
    memcpy(out + written, more.at, more.bytes)
    state.log.offset = first
    state.log.bytes = written + more.bytes
    return True


# --- effects ------------------------------------------------------------------------------

cdef bint _apply_texts(RuleState* state, RuleCall* call) noexcept nogil:
    cdef RuleEffects* e = &call.effects
    cdef Slice text
    if e.sets & RULE_SETS_KEY:
        text = arena_slice(&call.arena, e.key)
        if not arena_add(&state.arena, text.at, text.bytes, &state.key):
            return False
    if e.sets & RULE_SETS_LOG and e.log.bytes:
        return rule_merge_log(state, arena_slice(&call.arena, e.log))
    return True


cdef bint rule_apply(Worker* w, Exchange* x, RuleCall* call) noexcept nogil:
    cdef RuleEffects* e = &call.effects
    cdef RuleState* state = x.rules
    if e.sets == 0:
        return True
    if e.sets & RULE_SETS_POOL:
        state.pool = e.pool
        x.pool = plan_pool(x.snapshot.plan, <uint32_t> e.pool)
    if e.sets & RULE_SETS_PERSISTENCE:
        state.persistence = e.persistence
    if e.sets & RULE_SETS_NODE:
        state.named = e.named
    if e.sets & RULE_SETS_CLIENT:
        x.client_address = e.client
    if not _apply_texts(state, call):
        return False
    state.sets |= e.sets
    if not e.sets & RULE_SETS_HEAD or e.action != RULE_GOES_ON:
        return True
    if call.kind == RULE_RESPONSE:
        return _swap_response_head(x, arena_slice(&call.arena, e.head))
    return _swap_request_head(w, x, arena_slice(&call.arena, e.head))


# --- connections --------------------------------------------------------------------------

cdef bint _copy(Arena* to, const Arena* source, Span span, Span* out) noexcept nogil:
    if span.bytes == 0:
        out[0] = span
        return True
    return arena_add(to, source.at + span.offset, span.bytes, out)


cdef bint _copy_texts(RuleState* to, const RuleState* source) noexcept nogil:
    return (_copy(&to.arena, &source.arena, source.key, &to.key)
            and _copy(&to.arena, &source.arena, source.log, &to.log))


cdef bint _add_text(Arena* arena, const Plan* plan, Text text, Span* out) noexcept nogil:
    return arena_add(arena, plan_text(plan, text), text.bytes, out)


cdef bint rule_remember(Worker* w, Exchange* x) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef RuleState* kept = rule_state_take(w)
    if kept == NULL:
        return False
    x.client.rules = kept
    kept.sets = x.rules.sets & ~<unsigned> RULE_SETS_HEAD
    kept.generation = plan.generation
    kept.pool = x.rules.pool
    kept.persistence = x.rules.persistence
    kept.named = x.rules.named
    kept.client = x.client_address
    kept.data = x.rules.data
    x.rules.data = NULL
    if kept.sets & RULE_SETS_POOL and not _add_text(
            &kept.arena, plan, x.pool.name, &kept.pool_name):
        return False
    if kept.sets & RULE_SETS_PERSISTENCE and kept.persistence >= 0 and not _add_text(
            &kept.arena, plan, plan_class(plan, <uint32_t> kept.persistence).name,
            &kept.persistence_name):
        return False
    return _copy_texts(kept, x.rules)


cdef bint _is_called(const Plan* plan, Text name, Slice wanted) noexcept nogil:
    return slice_equal(slice_of(plan_text(plan, name), name.bytes), wanted)


cdef int32_t _pool_called(const Plan* plan, Slice name) noexcept nogil:
    cdef uint32_t i
    for i in range(plan.pool_count):
        if _is_called(plan, plan_pool(plan, i).name, name):
            return <int32_t> i
    return -1


cdef int32_t _class_called(const Plan* plan, Slice name) noexcept nogil:
    cdef uint32_t i
    for i in range(plan.class_count):
        if _is_called(plan, plan_class(plan, i).name, name):
            return <int32_t> i
    return -1


# What connection rules chose under another plan is meant by its name; what is gone is not chosen.
cdef void _translate(RuleState* kept, const Plan* plan) noexcept nogil:
    kept.generation = plan.generation
    if kept.sets & RULE_SETS_POOL:
        kept.pool = _pool_called(plan, arena_slice(&kept.arena, kept.pool_name))
        if kept.pool < 0:
            kept.sets &= ~<unsigned> RULE_SETS_POOL
    if kept.sets & RULE_SETS_PERSISTENCE and kept.persistence_name.bytes:
        kept.persistence = _class_called(plan, arena_slice(&kept.arena, kept.persistence_name))
        if kept.persistence < 0:
            kept.sets &= ~<unsigned> RULE_SETS_PERSISTENCE


cdef bint rule_inherit(Worker* w, Exchange* x) noexcept nogil:
    cdef RuleState* kept = x.client.rules
    cdef RuleState* state = x.rules
    if kept.generation != x.snapshot.plan.generation:
        _translate(kept, x.snapshot.plan)
    state.sets = kept.sets
    state.pool = kept.pool
    state.persistence = kept.persistence
    state.named = kept.named
    if kept.sets & RULE_SETS_POOL:
        x.pool = plan_pool(x.snapshot.plan, <uint32_t> kept.pool)
    if kept.sets & RULE_SETS_CLIENT:
        x.client_address = kept.client
    return _copy_texts(state, kept)
