# Life of calls and states (contract in rule_state.pxd).
#
# A call in the hands of the other thread outlives its exchange: it holds the snapshot that its
# functions are of, and its connection's state, whose `data` it may be reading.

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastlb._core.address cimport address_is_unset
from fastlb._core.arena cimport Arena, arena_clear, arena_free, arena_slice
from fastlb._core.buffer cimport Buffer, buffer_return
from fastlb._core.connection cimport ClientConn, Exchange, Snapshot, Worker
from fastlb._core.debug cimport BUG_ON
from fastlb._core.decision cimport DecideInput
from fastlb._core.hooks cimport hooks_object_release
from fastlb._core.plan cimport Plan, PlanRule, plan_rules
from fastlb._core.rule_call cimport (
    RULE_SETS_KEY, RULE_SETS_NODE, RULE_SETS_PERSISTENCE, RuleCall, RuleState,
)
from fastlb._core.rule_queue cimport rule_queue_tell
from fastlb._core.slice cimport Slice, slice_of
from fastlb._core.snapshot cimport snapshot_release
from fastlb._core.timer cimport timer_clear


# --- free lists ---------------------------------------------------------------------------

cdef RuleState* rule_state_take(Worker* w) noexcept nogil:
    cdef RuleState* state = w.free_rule_states
    cdef Arena arena
    if state != NULL:
        w.free_rule_states = state.next
        arena = state.arena
        memset(state, 0, sizeof(RuleState))
        state.arena = arena
    else:
        state = <RuleState*> calloc(1, sizeof(RuleState))
        if state == NULL:
            return NULL
    state.persistence = -1
    state.decided_by = -1
    w.stats.rule_states += 1
    return state


cdef void rule_state_free(Worker* w, RuleState* state) noexcept nogil:
    BUG_ON(state.call != NULL)
    BUG_ON(state.holders != 0)
    if state.data != NULL:
        hooks_object_release(state.data)
        state.data = NULL
    arena_clear(&state.arena)
    state.next = w.free_rule_states
    w.free_rule_states = state
    w.stats.rule_states -= 1


cdef RuleCall* rule_call_take(Worker* w) noexcept nogil:
    cdef RuleCall* call = w.free_rule_calls
    cdef Arena arena, copied
    if call != NULL:
        w.free_rule_calls = call.next
        arena = call.arena
        copied = call.copied
        memset(call, 0, sizeof(RuleCall))
        call.arena = arena
        call.copied = copied
    else:
        call = <RuleCall*> calloc(1, sizeof(RuleCall))
        if call == NULL:
            return NULL
    call.effects.persistence = -1
    w.stats.rule_calls += 1
    return call


cdef void rule_call_free(Worker* w, RuleCall* call) noexcept nogil:
    cdef RuleState* held = call.connection
    if call.data != NULL:
        hooks_object_release(call.data)
    if call.body_buffer != NULL:
        buffer_return(&w.buffers, <Buffer*> call.body_buffer)
    if call.snapshot != NULL:
        snapshot_release(w, <Snapshot*> call.snapshot)
    if held != NULL:
        held.holders -= 1
        if held.holders == 0 and held.forgotten:
            rule_state_free(w, held)
    arena_clear(&call.arena)
    arena_clear(&call.copied)
    call.next = w.free_rule_calls
    w.free_rule_calls = call
    w.stats.rule_calls -= 1


cdef void rules_free_all(Worker* w) noexcept nogil:
    cdef RuleCall* call
    cdef RuleState* state
    while w.free_rule_calls != NULL:
        call = w.free_rule_calls
        w.free_rule_calls = call.next
        arena_free(&call.arena)
        arena_free(&call.copied)
        free(call)
    while w.free_rule_states != NULL:
        state = w.free_rule_states
        w.free_rule_states = state.next
        arena_free(&state.arena)
        free(state)


# --- letting go ---------------------------------------------------------------------------

cdef void rules_cancel(Worker* w, RuleState* state) noexcept nogil:
    cdef RuleCall* call = state.call
    if call == NULL:
        return
    timer_clear(&(<Exchange*> call.exchange).client.timer)
    state.call = NULL
    state.gathers = False
    call.exchange = NULL
    call.cancelled = True
    rule_queue_tell(call)


cdef void rules_leave(Worker* w, Exchange* x) noexcept nogil:
    cdef RuleState* state = x.rules
    if state == NULL:
        return
    x.rules = NULL
    rules_cancel(w, state)
    rule_state_free(w, state)


cdef void rules_forget(Worker* w, ClientConn* c) noexcept nogil:
    cdef RuleState* state = c.rules
    c.rules = NULL
    if state == NULL:
        return
    state.forgotten = True
    if state.holders == 0:
        rule_state_free(w, state)


# --- what was asked for -------------------------------------------------------------------

cdef void rules_input(const Exchange* x, DecideInput* ask) noexcept nogil:
    cdef const RuleState* state = x.rules
    if state == NULL:
        return
    if state.sets & RULE_SETS_PERSISTENCE:
        ask.persistence = state.persistence
    if state.sets & RULE_SETS_KEY:
        # An empty one is set, too: this request has no key, whatever the class declares.
        ask.request.key = (arena_slice(&state.arena, state.key) if state.key.bytes
                           else slice_of("", 0))
    if state.sets & RULE_SETS_NODE and not address_is_unset(&state.named):
        ask.request.named = &state.named


cdef Slice rules_target(const Exchange* x) noexcept nogil:
    if x.rules == NULL or x.rules.target.bytes == 0:
        return slice_of(NULL, 0)
    return arena_slice(&x.rules.arena, x.rules.target)


cdef const PlanRule* rules_decided_by(const Plan* plan, const Exchange* x) noexcept nogil:
    if x.rules == NULL or x.rules.decided_by < 0:
        return NULL
    return plan_rules(plan) + x.rules.decided_by
