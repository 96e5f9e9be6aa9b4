# The application's cookie says whether there is a session, `K-<name>-<8 hex>` beside it where.
#
#   request    both: the session's node. Ours alone: no session, the application ended it. Theirs
#              alone: a session of unknown node (ours was lost, or never set)
#   response   set: a session begins, or gets a new id. Deleted, or set to nothing: it ends
#
# The name matches exactly (RFC 6265 5.3), in any Cookie field; a value of no bytes is no session.

from libc.stdint cimport uint32_t

from fastlb._core.cookie cimport (
    CookieCursor, CookiePair, SetCookie, cookie_begin, cookie_next, set_cookie_expired,
    set_cookie_parse,
)
from fastlb._core.followed cimport Followed, followed_carried
from fastlb._core.head cimport FIELD_COOKIE, FIELD_SET_COOKIE, Head, head_next, head_value
from fastlb._core.inserted cimport inserted_find, inserted_take_token
from fastlb._core.outcome cimport OUTCOME_NO_KEY, OUTCOME_TAMPERED
from fastlb._core.persist cimport FIND_NOTHING, Finding, PersistInput
from fastlb._core.plan cimport (
    KEY_TOKEN_MAC, KEY_TOKEN_STREAM, Plan, PlanClass, PlanCookieName, plan_cookie_names, plan_text,
)
from fastlb._core.slice cimport Slice, slice_equal, slice_of
from fastlb._core.token cimport Token, token_read


# --- requests -----------------------------------------------------------------------------

cdef bint _has_session(const PersistInput* ask, const PlanClass* cls) noexcept nogil:
    cdef Slice name = slice_of(plan_text(ask.plan, cls.session_cookie), cls.session_cookie.bytes)
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef Slice value
    cdef int field
    if ask.head == NULL:
        return False
    field = ask.head.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(ask.head, ask.buf, <uint32_t> field)
        cookie_begin(&cursor, value.at, value.bytes)
        while cookie_next(&cursor, &pair):
            if pair.value.bytes and slice_equal(pair.name, name):
                return True
        field = head_next(ask.head, field)
    return False


cdef bint _take(const PersistInput* ask, const PlanClass* cls, Slice value,
                Finding* found) noexcept nogil:
    cdef Slice token
    if not followed_carried(&ask.plan.keys[KEY_TOKEN_MAC], value, &token, NULL):
        found.outcome = OUTCOME_TAMPERED
        return False
    return inserted_take_token(ask, cls, token, found)


cdef bint _take_nothing(const PersistInput* ask, const PlanClass* cls, Slice value,
                        Finding* found) noexcept nogil:
    return False


cdef void persist_cookie_find(const PersistInput* ask, const PlanClass* cls,
                              Finding* found) noexcept nogil:
    found.session_seen = _has_session(ask, cls)
    if found.session_seen:
        inserted_find(ask, cls, found, _take)
        return
    inserted_find(ask, cls, found, _take_nothing)
    found.kind = FIND_NOTHING
    found.outcome = OUTCOME_NO_KEY


cdef bint _is_ours(const Plan* plan, const PlanClass* cls, Slice name) noexcept nogil:
    cdef const PlanCookieName* names = plan_cookie_names(plan, cls)
    cdef uint32_t i
    for i in range(cls.cookie_name_count):
        if slice_equal(name, slice_of(plan_text(plan, names[i].name), names[i].name.bytes)):
            return True
    return False


cdef bint _carried(const Plan* plan, const PlanClass* cls, Slice value,
                   Followed* followed) noexcept nogil:
    # Its age does not matter: an expired cookie is written again, too.
    cdef Token token
    cdef Slice text
    return (followed_carried(&plan.keys[KEY_TOKEN_MAC], value, &text, followed)
            and token_read(&plan.keys[KEY_TOKEN_MAC], &plan.keys[KEY_TOKEN_STREAM], text.at,
                           text.bytes, &token) == 0
            and token.class_id == cls.id)


cdef bint persist_cookie_carried(const Plan* plan, const PlanClass* cls, const Head* request,
                                 const char* buf, Followed* followed) noexcept nogil:
    # A browser sends the cookie of the longest path first: that is the one to be replaced.
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef Slice value
    cdef int field = request.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(request, buf, <uint32_t> field)
        cookie_begin(&cursor, value.at, value.bytes)
        while cookie_next(&cursor, &pair):
            if _is_ours(plan, cls, pair.name) and _carried(plan, cls, pair.value, followed):
                return True
        field = head_next(request, field)
    return False


# --- responses ----------------------------------------------------------------------------

cdef inline bint _same_place(const SetCookie* a, const SetCookie* b) noexcept nogil:
    return slice_equal(a.path, b.path) and slice_equal(a.domain, b.domain)


cdef int persist_cookie_response(const Plan* plan, const PlanClass* cls, const Head* response,
                                 const char* buf, uint32_t wall_s,
                                 SetCookie* theirs) noexcept nogil:
    # The last line counts, as in a browser; but deleting the cookie of another path or domain
    # leaves the one that was just set.
    cdef Slice name = slice_of(plan_text(plan, cls.session_cookie), cls.session_cookie.bytes)
    cdef SetCookie cookie
    cdef Slice value
    cdef bint ended
    cdef int said = APP_COOKIE_ABSENT
    cdef int i = response.first[FIELD_SET_COOKIE]
    while i >= 0:
        value = head_value(response, buf, <uint32_t> i)
        i = head_next(response, i)
        if not set_cookie_parse(&cookie, value.at, value.bytes) \
                or not slice_equal(cookie.name, name):
            continue
        ended = cookie.value.bytes == 0 or set_cookie_expired(&cookie, wall_s)
        if ended and said == APP_COOKIE_SET and not _same_place(&cookie, theirs):
            continue
        theirs[0] = cookie
        said = APP_COOKIE_ENDED if ended else APP_COOKIE_SET
    return said
