# Ages are checked against the dates inside the value.
# A value without dates where ages are limited is taken and gets them; dates that no limit
# asks for are taken out again. A date more than a day ahead of our clock is no skew any
# more: the session counts as expired.

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.cookie cimport CookieCursor, CookiePair, cookie_begin, cookie_next_of
from fastlb._core.head cimport FIELD_COOKIE, head_next, head_value
from fastlb._core.limits cimport COOKIE_NAMES_MAX
from fastlb._core.outcome cimport (
    OUTCOME_EXPIRED, OUTCOME_NEW, OUTCOME_OTHER_CLASS, OUTCOME_TAMPERED,
)
from fastlb._core.persist cimport FIND_NODE, FIND_NOTHING, Finding, PersistInput
from fastlb._core.plan cimport (
    KEY_TOKEN_MAC, KEY_TOKEN_STREAM, Plan, PlanClass, PlanCookieName,
    plan_cookie_names, plan_text,
)
from fastlb._core.resolve cimport resolve_may_name
from fastlb._core.slice cimport Slice, slice_equal, slice_of
from fastlb._core.token cimport Token, token_read, token_write

cdef enum:
    SKEW_S = 24 * 3600
    REFRESHES_PER_TIMEOUT = 16

ctypedef struct Looked:              # what the walk over the cookies has seen
    int own                          # the name that this virtual server writes; -1: not needed yet
    uint32_t seen                    # bit n: name n stood there
    Finding others                   # a session under another virtual server's name


cdef inline bint _older(uint32_t now_s, uint32_t then_s, uint32_t limit_s) noexcept nogil:
    if then_s > now_s:
        return then_s - now_s > SKEW_S
    return now_s - then_s > limit_s


cdef bint inserted_expired(const PlanClass* cls, uint32_t first_seen_s, uint32_t last_seen_s,
                           uint32_t now_s, Finding* found) noexcept nogil:
    cdef bint dated = last_seen_s != 0
    cdef bint limited = cls.timeout_s != 0 or cls.max_lifetime_s != 0
    cdef uint32_t granule_s = cls.timeout_s // REFRESHES_PER_TIMEOUT
    found.rewrite = dated != limited
    if not dated or not limited:
        return False
    if cls.timeout_s and _older(now_s, last_seen_s, cls.timeout_s):
        return True
    if cls.max_lifetime_s and _older(now_s, first_seen_s, cls.max_lifetime_s):
        return True
    if granule_s < 1:
        granule_s = 1
    if cls.timeout_s and now_s > last_seen_s and now_s - last_seen_s >= granule_s:
        found.rewrite = True
    return False


cdef bint inserted_accept(const PersistInput* ask, const PlanClass* cls, const Token* token,
                          Finding* found) noexcept nogil:
    if token.class_id != cls.id:
        found.outcome = OUTCOME_OTHER_CLASS
        return False
    if inserted_expired(cls, token.first_seen_s, token.last_seen_s, ask.wall_s, found):
        found.outcome = OUTCOME_EXPIRED
        return False
    found.node = token.node
    found.first_seen_s = token.first_seen_s
    found.last_seen_s = token.last_seen_s
    return True


cdef void inserted_token(const PlanClass* cls, const Address* node, uint32_t first_seen_s,
                         uint32_t wall_s, Token* token) noexcept nogil:
    token.node = node[0]
    token.class_id = cls.id
    token.first_seen_s = 0
    token.last_seen_s = 0
    if cls.timeout_s != 0 or cls.max_lifetime_s != 0:
        token.last_seen_s = wall_s
        token.first_seen_s = first_seen_s if first_seen_s else wall_s


cdef bint inserted_take_token(const PersistInput* ask, const PlanClass* cls, Slice value,
                              Finding* found) noexcept nogil:
    cdef Token token
    if token_read(&ask.plan.keys[KEY_TOKEN_MAC], &ask.plan.keys[KEY_TOKEN_STREAM],
                  value.at, value.bytes, &token) < 0:
        found.outcome = OUTCOME_TAMPERED
        return False
    return inserted_accept(ask, cls, &token, found)


cdef uint32_t inserted_write_token(const Plan* plan, const PlanClass* cls, const Address* node,
                                   uint32_t first_seen_s, uint32_t wall_s,
                                   char* out) noexcept nogil:
    cdef Token token
    inserted_token(cls, node, first_seen_s, wall_s, &token)
    return token_write(&plan.keys[KEY_TOKEN_MAC], &plan.keys[KEY_TOKEN_STREAM], &token, out)


cdef uint32_t inserted_own_name(const Plan* plan, const PlanClass* cls,
                                uint32_t virtual_server) noexcept nogil:
    cdef const PlanCookieName* names = plan_cookie_names(plan, cls)
    cdef uint32_t i
    for i in range(cls.cookie_name_count):
        if names[i].virtual_server < 0 or names[i].virtual_server == <int> virtual_server:
            return i
    return 0


cdef inline Slice _name(const Plan* plan, const PlanCookieName* one) noexcept nogil:
    return slice_of(plan_text(plan, one.name), one.name.bytes)


cdef uint32_t inserted_names(const Plan* plan, const PlanClass* cls, Slice* names) noexcept nogil:
    cdef const PlanCookieName* own = plan_cookie_names(plan, cls)
    cdef uint32_t i
    for i in range(cls.cookie_name_count):
        names[i] = _name(plan, own + i)
    return cls.cookie_name_count


cdef bint inserted_has_name(const Plan* plan, const PlanClass* cls, Slice name) noexcept nogil:
    cdef const PlanCookieName* own = plan_cookie_names(plan, cls)
    cdef uint32_t i
    for i in range(cls.cookie_name_count):
        if slice_equal(name, _name(plan, own + i)):
            return True
    return False


cdef inline bint _takes(const PersistInput* ask, const PlanClass* cls, Slice value,
                        Finding* found, inserted_take_t take) noexcept nogil:
    return take(ask, cls, value, found) and resolve_may_name(ask, cls, found)


cdef inline void _take_one(const PersistInput* ask, const PlanClass* cls, Slice value, int name,
                           Looked* looked, Finding* found, inserted_take_t take) noexcept nogil:
    found.duplicates |= (looked.seen >> name) & 1
    looked.seen |= <uint32_t> 1 << name
    if looked.own < 0:
        looked.own = <int> inserted_own_name(ask.plan, cls, ask.virtual_server)
    if name != looked.own:
        _take_others(ask, cls, value, found, &looked.others, take)
    elif found.kind != FIND_NODE and _takes(ask, cls, value, found, take):
        found.kind = FIND_NODE


cdef void inserted_find(const PersistInput* ask, const PlanClass* cls, Slice theirs,
                        Finding* found, inserted_take_t take) noexcept nogil:
    # Theirs is the last of the names, so that one walk finds both.
    cdef Slice[COOKIE_NAMES_MAX + 1] names
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef Looked looked
    cdef Slice value
    cdef uint32_t count
    cdef int field, name
    found.outcome = OUTCOME_NEW
    if ask.head == NULL:
        return
    looked.own = -1
    looked.seen = 0
    looked.others.kind = FIND_NOTHING
    looked.others.outcome = OUTCOME_NEW
    count = inserted_names(ask.plan, cls, names)
    names[count] = theirs
    if theirs.bytes:
        count += 1
    field = ask.head.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(ask.head, ask.buf, <uint32_t> field)
        cookie_begin(&cursor, value.at, value.bytes)
        while True:
            name = cookie_next_of(&cursor, names, count, &pair)
            if name < 0:
                break
            if name == <int> cls.cookie_name_count:
                found.session_seen |= pair.value.bytes != 0
            else:
                _take_one(ask, cls, pair.value, name, &looked, found, take)
        field = head_next(ask.head, field)
    found.cookie_seen = looked.seen != 0
    if found.kind != FIND_NODE:
        _use_others(found, &looked.others)


# Kept aside, since a cookie of this virtual server's own name may follow.
cdef void _take_others(const PersistInput* ask, const PlanClass* cls, Slice value,
                       Finding* found, Finding* others, inserted_take_t take) noexcept nogil:
    if found.kind == FIND_NODE or others.kind == FIND_NODE:
        return
    if _takes(ask, cls, value, others, take):
        others.kind = FIND_NODE
    elif found.outcome == OUTCOME_NEW:
        found.outcome = others.outcome


cdef void _use_others(Finding* found, const Finding* others) noexcept nogil:
    found.rewrite = False
    if others.kind == FIND_NODE:
        found.kind = FIND_NODE
        found.node = others.node
        found.first_seen_s = others.first_seen_s
        found.last_seen_s = others.last_seen_s
        found.rewrite = True
