# The order of rules and what becomes of their effects (contract in rules.pxd).
#
# A client that ends its side of the connection while an async rule works for it has left: what
# half-closes is rare, what navigates away is not, and both look the same.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from fastlb._core.arena cimport arena_room, arena_slice
from fastlb._core.connection cimport STREAM_ERROR, STREAM_HUP, Exchange, Worker
from fastlb._core.debug cimport BUG_ON
from fastlb._core.edit cimport edit_bytes, edit_copy
from fastlb._core.exchange_end cimport (
    exchange_abort, exchange_learn_key, exchange_reply, exchange_reply_rule,
)
from fastlb._core.hooks cimport hooks_rules_run
from fastlb._core.outcome cimport (
    CAUSE_BODY_TIMEOUT, CAUSE_CLIENT_CLOSED, CAUSE_NO_BUFFER, CAUSE_RULE_CLOSED,
    CAUSE_RULE_FAILED,
)
from fastlb._core.plan cimport RULES_ANSWER_500
from fastlb._core.request cimport request_choose_pool, request_reload
from fastlb._core.rule_apply cimport rule_apply, rule_inherit, rule_remember
from fastlb._core.rule_body cimport rule_body_begin, rule_body_run
from fastlb._core.rule_call cimport (
    RULE_ANSWERS, RULE_CLOSES, RULE_CONNECTION, RULE_FAILS, RULE_GOES_ON, RULE_REQUEST,
    RULE_RESPONSE, RULE_SETS_HEAD, RULE_SETS_KEY, RULE_SETS_POOL, RULE_WANTS_BODY, RuleCall,
    RuleList, RuleState, rule_call_own, rule_list,
)
from fastlb._core.rule_facts cimport rule_facts, rule_server
from fastlb._core.rule_queue cimport rule_queue_open, rule_queue_put
from fastlb._core.rule_state cimport (
    rule_call_free, rule_call_take, rule_state_take, rules_cancel,
)
from fastlb._core.slice cimport Slice
from fastlb._core.timer cimport timer_clear, timer_set

cdef enum:
    ABANDON_MS = 1000                # after its time, for a rule that ends though cancelled


cdef inline const RuleList* _list(const Exchange* x, int kind) noexcept nogil:
    BUG_ON(x.snapshot.rules == NULL)
    return rule_list(x.snapshot.rules, rule_server(x), kind)


# --- one call -----------------------------------------------------------------------------

cdef int _failed(Worker* w, Exchange* x, uint32_t rule) noexcept nogil:
    # What a rule does in Python is judged there; this is for calls that never came to that.
    if x.snapshot.plan.rules.on_error != RULES_ANSWER_500:
        return RULES_GO_ON
    x.rules.decided_by = <int32_t> rule
    return _end(w, x, RULE_FAILS, NULL)


cdef int _end(Worker* w, Exchange* x, int action, const RuleCall* call) noexcept nogil:
    if action == RULE_CLOSES:
        exchange_abort(w, x, CAUSE_RULE_CLOSED)
    elif action == RULE_ANSWERS and not x.passage:
        exchange_reply_rule(w, x, call)
    elif x.passage:
        exchange_abort(w, x, CAUSE_RULE_FAILED)
    else:
        exchange_reply(w, x, 500, CAUSE_RULE_FAILED)
    return RULES_ENDED


cdef int _carry_out(Worker* w, Exchange* x, RuleCall* call) noexcept nogil:
    x.rules.data = call.data
    call.data = NULL
    if not rule_apply(w, x, call):
        if x.passage:
            exchange_abort(w, x, CAUSE_NO_BUFFER)
        else:
            exchange_reply(w, x, 503, CAUSE_NO_BUFFER)
        return RULES_ENDED
    if call.kind == RULE_RESPONSE and call.effects.sets & RULE_SETS_KEY:
        exchange_learn_key(w, x, arena_slice(&x.rules.arena, x.rules.key))
    if call.effects.action == RULE_GOES_ON:
        return RULES_GO_ON
    x.rules.decided_by = <int32_t> call.effects.decided_by
    return _end(w, x, call.effects.action, call)


cdef bint _has_left(const Exchange* x) noexcept nogil:
    # A passage's client may have said all that it wants to say.
    return x.client.stream.ready & (STREAM_ERROR if x.passage else STREAM_ERROR | STREAM_HUP) != 0


cdef void _set_timer(Worker* w, Exchange* x, const RuleCall* call) noexcept nogil:
    timer_set(&w.timers, &x.client.timer, w.now_ms + ABANDON_MS
              + <uint64_t> x.snapshot.plan.rules.timeout * call.count)


cdef int _hand_over(Worker* w, Exchange* x, RuleCall* call) noexcept nogil:
    cdef uint32_t rule = call.steps[0].rule
    if _has_left(x):
        x.rules.data = call.data
        call.data = NULL
        rule_call_free(w, call)
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
        return RULES_ENDED
    if w.rules_parked >= x.snapshot.plan.rules.parked_max or not rule_call_own(call) \
            or not rule_queue_open(w, _on_call):
        w.stats.rules[call.steps[0].slot].errors += 1
        x.rules.data = call.data
        call.data = NULL
        rule_call_free(w, call)
        return _failed(w, x, rule)
    call.exchange = x
    call.snapshot = x.snapshot
    x.snapshot.references += 1
    x.rules.call = call
    w.rules_parked += 1
    if x.node != NULL:
        timer_clear(&x.node.timer)
    _set_timer(w, x, call)
    rule_queue_put(call)
    return RULES_WAIT


# The rules of the list that follow and run in the same thread.
cdef int _run(Worker* w, Exchange* x, const RuleList* rules) noexcept nogil:
    cdef RuleState* state = x.rules
    cdef uint32_t first = state.step, end = first + 1
    cdef RuleCall* call = rule_call_take(w)
    cdef int result
    while end < rules.count and rules.steps[end].is_async == rules.steps[first].is_async:
        end += 1
    state.step = <unsigned char> end
    if call == NULL:
        return _failed(w, x, rules.steps[first].rule)
    call.steps = &rules.steps[first]
    call.count = end - first
    call.kind = state.kind
    call.last = end == rules.count and not _more_follow(x)
    call.data = state.data
    state.data = NULL
    rule_facts(w, x, call)
    if rules.steps[first].is_async:
        return _hand_over(w, x, call)
    hooks_rules_run(call)
    result = _carry_out(w, x, call)
    rule_call_free(w, call)
    return result


# Whether rules of a later kind will ask for what these keep in `data`.
cdef bint _more_follow(const Exchange* x) noexcept nogil:
    if x.passage or x.rules.kind == RULE_RESPONSE:
        return False
    return (_list(x, RULE_RESPONSE).count != 0
            or (x.rules.kind == RULE_CONNECTION and _list(x, RULE_REQUEST).count != 0))


cdef void _on_call(Worker* w, RuleCall* call, uint8_t message) noexcept nogil:
    cdef Exchange* x = <Exchange*> call.exchange
    cdef int result
    if message == RULE_WANTS_BODY:
        if x != NULL and rule_body_begin(w, x):
            _set_timer_if_told(w, x)
        return
    BUG_ON(w.rules_parked == 0)
    w.rules_parked -= 1
    if x == NULL:
        rule_call_free(w, call)
        return
    BUG_ON(x.rules.call != call)
    x.rules.call = NULL
    x.rules.gathers = False
    timer_clear(&x.client.timer)
    if not x.passage:
        request_reload(w, x)
    result = _carry_out(w, x, call)
    rule_call_free(w, call)
    if result == RULES_GO_ON:
        w.rules_done(w, x)


# --- in their order -----------------------------------------------------------------------

# False: no memory.
cdef bint _begin(Worker* w, Exchange* x) noexcept nogil:
    x.rules = rule_state_take(w)
    if x.rules == NULL:
        return False
    if x.client.rules != NULL:
        x.rules.kind = RULE_REQUEST
        return rule_inherit(w, x)
    x.rules.kind = RULE_CONNECTION if _list(x, RULE_CONNECTION).count else RULE_REQUEST
    return True


cdef int rules_before(Worker* w, Exchange* x) noexcept nogil:
    cdef const RuleList* rules
    cdef int result
    if x.rules == NULL:
        if x.client.rules == NULL and _list(x, RULE_CONNECTION).count == 0 \
                and (x.passage or _list(x, RULE_REQUEST).count == 0):
            return RULES_GO_ON
        if not _begin(w, x):
            return _no_memory(w, x)
    while True:
        rules = _list(x, x.rules.kind)
        while x.rules.step < rules.count:
            result = _run(w, x, rules)
            if result != RULES_GO_ON:
                return result
        if x.passage:
            return RULES_GO_ON
        if x.rules.kind == RULE_REQUEST:
            break
        if not rule_remember(w, x):
            return _no_memory(w, x)
        x.rules.kind = RULE_REQUEST
        x.rules.step = 0
    if x.rules.sets & RULE_SETS_HEAD and not x.rules.sets & RULE_SETS_POOL:
        request_choose_pool(w, x)
    return RULES_GO_ON


cdef int _no_memory(Worker* w, Exchange* x) noexcept nogil:
    if x.passage:
        exchange_abort(w, x, CAUSE_NO_BUFFER)
    else:
        exchange_reply(w, x, 503, CAUSE_NO_BUFFER)
    return RULES_ENDED


cdef bint _keep_response_head(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef RuleState* state = x.rules
    cdef uint32_t count = edit_bytes(&w.edit, w.response.bytes)
    cdef char* at = arena_room(&state.arena, count)
    if at == NULL:
        return False
    edit_copy(&w.edit, buf, w.response.bytes, at, count)
    state.head.offset = state.arena.used - count
    state.head.bytes = count
    return True


cdef int rules_after(Worker* w, Exchange* x, const char* buf, int* count) noexcept nogil:
    cdef const RuleList* rules = _list(x, RULE_RESPONSE)
    cdef Slice head
    cdef int result
    if rules.count == 0:
        return RULES_GO_ON
    if count[0] >= 0:
        if (x.rules == NULL and not _begin(w, x)) or not _keep_response_head(w, x, buf):
            return _no_memory(w, x)
        x.rules.kind = RULE_RESPONSE
        x.rules.step = 0
    while x.rules.step < rules.count:
        result = _run(w, x, rules)
        if result != RULES_GO_ON:
            return result
    head = arena_slice(&x.rules.arena, x.rules.head)
    w.iov[0].iov_base = <char*> head.at
    w.iov[0].iov_len = head.bytes
    count[0] = 1
    return RULES_GO_ON


# --- while they run -----------------------------------------------------------------------

cdef void _set_timer_if_told(Worker* w, Exchange* x) noexcept nogil:
    # The body is there, or will not be waited for: the rule's time runs again.
    if not x.rules.gathers:
        _set_timer(w, x, x.rules.call)


cdef void rules_client_events(Worker* w, Exchange* x) noexcept nogil:
    if _has_left(x):
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
    elif x.rules.gathers and rule_body_run(w, x):
        _set_timer_if_told(w, x)


cdef void rules_timeout(Worker* w, Exchange* x) noexcept nogil:
    cdef RuleCall* call = x.rules.call
    cdef uint32_t rule = call.steps[0].rule
    cdef bint stalled = x.rules.gathers
    if not stalled:
        w.stats.rules[call.steps[0].slot].timeouts += 1
    rules_cancel(w, x.rules)
    if stalled:
        x.client_persists = False
        exchange_reply(w, x, 408, CAUSE_BODY_TIMEOUT)
    elif _failed(w, x, rule) == RULES_GO_ON:
        w.rules_done(w, x)
