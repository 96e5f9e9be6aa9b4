# Inserted cookies in responses (docs/persistence.md, RFC 6265 4.1).

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport strlen

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.cookie cimport SetCookie, set_cookie_expired, set_cookie_parse
from fastlb._core.decide cimport decide_forget
from fastlb._core.decision cimport ClassCookie, DecideInput, decision_node
from fastlb._core.edit cimport EDIT_FULL, edit_cut
from fastlb._core.followed cimport (
    FOLLOWED_CARRIED_BYTES_MAX, FOLLOWED_TEXT_BYTES_MAX, Followed, followed_carry, followed_equal,
    followed_limit, followed_read, followed_reset, followed_text,
)
from fastlb._core.head cimport FIELD_SET_COOKIE, Head, head_next, head_value
from fastlb._core.http_date cimport HTTP_DATE_BYTES, http_date_write
from fastlb._core.inserted cimport inserted_has_name, inserted_own_name
from fastlb._core.methods cimport method_write
from fastlb._core.persist cimport COOKIE_VALUE_BYTES_MAX, persist_write_t
from fastlb._core.persist_cookie cimport (
    APP_COOKIE_ABSENT, APP_COOKIE_ENDED, APP_COOKIE_SET, persist_cookie_carried,
    persist_cookie_response,
)
from fastlb._core.plan cimport (
    CLASS_COOKIE, CLASS_INSERTS_COOKIE, CLASS_PRESERVE, CLASS_PROTECT_CACHE, CLASS_WRITES_EXPIRES,
    KEY_TOKEN_MAC, PROTOCOL_HTTPS, Plan, PlanClass, PlanCookieName, plan_class,
    plan_cookie_names, plan_text, plan_virtual_server,
)
from fastlb._core.protect_cache cimport protect_cache_edit
from fastlb._core.request cimport request_head_at, request_path_at, request_reload
from fastlb._core.scratch cimport scratch_add
from fastlb._core.slice cimport Slice
from fastlb._core.stats cimport ClassStats

cdef enum:
    EXPIRE_OTHERS_BYTES = 6 * 1024   # leaves room for the own cookies of a whole chain

cdef const char* EXPIRED = "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0\r\n"


cdef enum OwnName:                   # the node's own Set-Cookie of a class's cookie name
    OWN_NAME_NONE = 0                # none, or taken out
    OWN_NAME_PRESERVED               # passed on: nothing of ours is added
    OWN_NAME_ENDED                   # passed on: the application ended the session


cdef void _ended_by_application(Worker* w, Exchange* x) noexcept nogil:
    # The session's maps in fallback classes must not bring it back.
    cdef DecideInput ask
    ask.request.plan = x.snapshot.plan
    ask.pool = x.pool
    ask.caches = x.snapshot.caches
    ask.peek = False
    decide_forget(&ask, &x.decision)


# An OwnName, or EDIT_FULL. What ends the session has then ended it.
cdef int _filter_own_name(Worker* w, Exchange* x, const char* buf,
                          const PlanClass* cls) noexcept nogil:
    cdef const Head* head = &w.response
    cdef ClassStats* stats = &w.stats.classes[cls.slot]
    cdef SetCookie cookie
    cdef Slice value
    cdef int i = head.first[FIELD_SET_COOKIE]
    cdef int silent = OWN_NAME_NONE
    while i >= 0:
        value = head_value(head, buf, <uint32_t> i)
        if set_cookie_parse(&cookie, value.at, value.bytes) \
                and inserted_has_name(x.snapshot.plan, cls, cookie.name):
            if set_cookie_expired(&cookie, w.wall_s):
                stats.ended += 1
                silent = OWN_NAME_ENDED
            elif cls.flags & CLASS_PRESERVE:
                silent = silent if silent else OWN_NAME_PRESERVED
            else:
                stats.foreign_cookies += 1
                if edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
                    return EDIT_FULL
        i = head_next(head, i)
    if silent == OWN_NAME_ENDED:
        _ended_by_application(w, x)
    return silent


cdef bint _add_name(Worker* w, const Plan* plan, const PlanClass* cls,
                    uint32_t name) noexcept nogil:
    # "Set-Cookie: " and the name, with its "=".
    cdef const PlanCookieName* one = plan_cookie_names(plan, cls) + name
    return (scratch_add(w, "Set-Cookie: ", 12)
            and scratch_add(w, plan_text(plan, one.name), one.name.bytes)
            and scratch_add(w, "=", 1))


# The date until when the browser keeps the cookie: absolute, so each response has its own.
cdef bint _add_expires(Worker* w, const PlanClass* cls) noexcept nogil:
    cdef char[HTTP_DATE_BYTES] date
    cdef uint32_t age_s = cls.timeout_s
    if not cls.flags & CLASS_WRITES_EXPIRES:
        return True
    if 0 < cls.max_lifetime_s < age_s:
        age_s = cls.max_lifetime_s
    http_date_write(<uint64_t> w.wall_s + age_s, date)
    return scratch_add(w, "; Expires=", 10) and scratch_add(w, date, HTTP_DATE_BYTES)


cdef bint _add_followed(Worker* w, const PlanClass* cls, const Followed* followed) noexcept nogil:
    cdef char[FOLLOWED_TEXT_BYTES_MAX] text
    if followed == NULL:
        return True
    return scratch_add(w, text, followed_text(followed, cls.flags, w.wall_s, text))


# 1 when it is written, 0 when there can't be a value now, EDIT_FULL. `followed`: attributes of
# the application's cookie, NULL for a class that has all of its own.
cdef int _write_cookie(Worker* w, Exchange* x, const PlanClass* cls, uint32_t first_seen_s,
                       const Followed* followed) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef persist_write_t write = method_write(cls)
    cdef char[COOKIE_VALUE_BYTES_MAX + FOLLOWED_CARRIED_BYTES_MAX] value
    cdef uint32_t count = write(plan, cls, &decision_node(plan, x.pool, &x.decision).address,
                                first_seen_s, w.wall_s, value)
    if count == 0:
        return 0
    if followed != NULL:
        count = followed_carry(followed, &plan.keys[KEY_TOKEN_MAC], value, count)
    if (_add_name(w, plan, cls, inserted_own_name(plan, cls, _server_index(x)))
            and scratch_add(w, value, count)
            and _add_followed(w, cls, followed)
            and scratch_add(w, plan_text(plan, cls.cookie_tail), cls.cookie_tail.bytes)
            and _add_expires(w, cls)
            and scratch_add(w, "\r\n", 2)):
        w.stats.classes[cls.slot].cookies_set += 1
        x.decision.taught = True
        return 1
    return EDIT_FULL


cdef inline uint32_t _server_index(const Exchange* x) noexcept nogil:
    return <uint32_t> (x.server - plan_virtual_server(x.snapshot.plan, 0))


cdef bint _expire_name(Worker* w, const Plan* plan, const PlanClass* cls, uint32_t name,
                       const Followed* followed) noexcept nogil:
    # The last attribute of a name counts (RFC 6265 5.3), so these two win over the tail's.
    return (_add_name(w, plan, cls, name)
            and _add_followed(w, cls, followed)
            and scratch_add(w, plan_text(plan, cls.cookie_tail), cls.cookie_tail.bytes)
            and scratch_add(w, EXPIRED, <uint32_t> strlen(EXPIRED)))


# Under each of its names: a cookie of another virtual server would bring the session back.
cdef bint _expire(Worker* w, Exchange* x, const PlanClass* cls,
                  const Followed* followed) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef uint32_t own = inserted_own_name(plan, cls, _server_index(x))
    cdef uint32_t i
    if not _expire_name(w, plan, cls, own, followed):
        return False
    for i in range(cls.cookie_name_count):
        if i != own and w.scratch_used < EXPIRE_OTHERS_BYTES \
                and not _expire_name(w, plan, cls, i, followed):
            return False
    return True


cdef bint set_cookie_expire(Worker* w, Exchange* x) noexcept nogil:
    cdef const ClassCookie* cookie
    cdef const PlanClass* cls
    cdef Followed carried
    cdef uint32_t i
    for i in range(x.decision.cookie_count):
        cookie = &x.decision.cookies[i]
        if not cookie.expire:
            continue
        cls = plan_class(x.snapshot.plan, <uint32_t> cookie.index)
        if cls.type != CLASS_COOKIE:
            if not _expire(w, x, cls, NULL):
                return False
            continue
        _carried(w, x, cls, cookie, &carried)
        if not _expire(w, x, cls, &carried):
            return False
    return True


cdef const ClassCookie* _cookie_of(const Exchange* x, int32_t index) noexcept nogil:
    cdef uint32_t i
    for i in range(x.decision.cookie_count):
        if x.decision.cookies[i].index == index:
            return &x.decision.cookies[i]
    return NULL


# One cookie class of the chain: 1 when its cookie was written, 0, or EDIT_FULL.
cdef int _edit_one(Worker* w, Exchange* x, const char* buf, int32_t index) noexcept nogil:
    cdef const PlanClass* cls = plan_class(x.snapshot.plan, <uint32_t> index)
    cdef const ClassCookie* cookie = _cookie_of(x, index)
    cdef int silent = _filter_own_name(w, x, buf, cls)
    if silent < 0:
        return silent
    if silent or cookie == NULL or not cookie.write:
        return 0
    return _write_cookie(w, x, cls, cookie.first_seen_s, NULL)


# --- beside the application's cookie (CLASS_COOKIE) ---------------------------------------

# The attributes that our cookie in the request was written with; False, and those for want of
# anything to follow, when there is none.
cdef bint _carried(Worker* w, Exchange* x, const PlanClass* cls, const ClassCookie* cookie,
                   Followed* followed) noexcept nogil:
    if cookie != NULL and cookie.seen:
        request_reload(w, x)
        if persist_cookie_carried(x.snapshot.plan, cls, &w.request, request_head_at(x), followed):
            followed_limit(followed, cls.flags)
            return True
    followed_reset(followed, x.server.protocol == PROTOCOL_HTTPS)
    followed_limit(followed, cls.flags)
    return False


# The application deleted its cookie: 1 when ours is expired, 0, or EDIT_FULL.
cdef int _end_session(Worker* w, Exchange* x, const PlanClass* cls, const ClassCookie* cookie,
                      const SetCookie* theirs, int silent) noexcept nogil:
    cdef Followed followed
    if cookie != NULL and not cookie.seen and not cookie.session_seen:
        return 0                     # there was no session
    if silent != OWN_NAME_ENDED:
        w.stats.classes[cls.slot].ended += 1
        _ended_by_application(w, x)
    if silent:
        return 0
    if not _carried(w, x, cls, cookie, &followed):
        followed_read(&followed, theirs, w.wall_s)
        followed_limit(&followed, cls.flags)
    followed.expires_s = 0           # the age that counts is that of EXPIRED
    return 1 if _expire(w, x, cls, &followed) else EDIT_FULL


# The session has a node as soon as the application sets its cookie. Afterwards ours is written
# when the decision wants it, or when a browser would not keep it as it keeps theirs.
cdef bint _is_due(Worker* w, Exchange* x, const PlanClass* cls, int32_t index, int said,
                  const Followed* followed) noexcept nogil:
    cdef const ClassCookie* cookie = _cookie_of(x, index)
    cdef Followed carried
    if said == APP_COOKIE_ABSENT:
        return cookie.write and cookie.session_seen
    if cookie.write or x.decision.found_class != index or followed.expires_s:
        return True
    return not _carried(w, x, cls, cookie, &carried) or not followed_equal(followed, &carried)


# 1 when our cookie was written or expired, 0, or EDIT_FULL.
cdef int _edit_beside(Worker* w, Exchange* x, const char* buf, int32_t index) noexcept nogil:
    cdef const PlanClass* cls = plan_class(x.snapshot.plan, <uint32_t> index)
    cdef const ClassCookie* cookie = _cookie_of(x, index)
    cdef SetCookie theirs
    cdef Followed followed
    cdef int said = APP_COOKIE_ABSENT
    cdef int silent = _filter_own_name(w, x, buf, cls)
    if silent < 0:
        return silent
    if w.response.first[FIELD_SET_COOKIE] >= 0:
        said = persist_cookie_response(x.snapshot.plan, cls, &w.response, buf, request_path_at(x),
                                       w.wall_s, &theirs)
    if said == APP_COOKIE_ENDED:
        return _end_session(w, x, cls, cookie, &theirs, silent)
    if silent or cookie == NULL or (said == APP_COOKIE_ABSENT and not cookie.write):
        return 0
    if said == APP_COOKIE_SET:
        followed_read(&followed, &theirs, w.wall_s)
        followed_limit(&followed, cls.flags)
    else:
        _carried(w, x, cls, cookie, &followed)
    if not _is_due(w, x, cls, index, said, &followed):
        return 0
    return _write_cookie(w, x, cls, cookie.first_seen_s, &followed)


cdef int set_cookie_edit(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef const PlanClass* cls
    cdef int32_t index = x.decision.persistence
    cdef bint protect = False
    cdef int written
    while index >= 0:
        cls = plan_class(x.snapshot.plan, <uint32_t> index)
        if cls.flags & CLASS_INSERTS_COOKIE:
            if cls.type == CLASS_COOKIE:
                written = _edit_beside(w, x, buf, index)
            else:
                written = _edit_one(w, x, buf, index)
            if written < 0:
                return written
            if written and cls.flags & CLASS_PROTECT_CACHE:
                protect = True
        index = cls.fallback
    return protect_cache_edit(w, x, buf) if protect else 0
