# Candidates, in this order; the first one that is known is the session:
#   - cookies "ASPSESSIONID" 8( %x41-5A ) of classic ASP. The letters differ from process to
#     process and from application to application: a browser has several, some of them long dead,
#     and the key includes the name.
#   - the cookie of ASP.NET (the class's name, exact), then its spelling in the path; one id is one
#     key in both.
# A request with more of them than fit loses classic ones, never that of ASP.NET.

from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from fastlb._core.cookie cimport (
    CookieCursor, CookiePair, SetCookie, cookie_begin, cookie_next, set_cookie_covers,
    set_cookie_expired, set_cookie_parse,
)
from fastlb._core.head cimport (
    FIELD_COOKIE, FIELD_LOCATION, FIELD_SET_COOKIE, Head, head_next, head_value,
)
from fastlb._core.key cimport key_of_value
from fastlb._core.limits cimport SESSION_ID_BYTES_MAX
from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.path_session cimport path_asp_id, path_of_reference, path_of_request
from fastlb._core.persist cimport (
    FINDING_KEYS_MAX, Finding, LearnInput, Learned, PersistInput, finding_add_key,
    learned_add_key, learned_show_key,
)
from fastlb._core.plan cimport KEY_SESSION, Plan, PlanClass, plan_text
from fastlb._core.siphash cimport (
    Hash128, SipState, sip_final128, sip_init128, sip_update,
)
from fastlb._core.slice cimport Slice, slice_equal, slice_of

cdef enum:
    PREFIX_BYTES = 12                # "ASPSESSIONID"
    CLASSIC_BYTES = 20               # with the letters
    CLASSIC_NAMES_MAX = 16
    CLASSIC_KEYS_MAX = FINDING_KEYS_MAX - 2    # a cookie and a path of ASP.NET find room

ctypedef struct Cookies:             # what the Cookie fields hold
    uint32_t name_count
    bint is_net_seen
    Slice id                         # of ASP.NET; empty: none
    Slice names[CLASSIC_NAMES_MAX]   # of the classic ones
    bint is_taken[CLASSIC_NAMES_MAX]  # the name has its key


cdef bint _is_classic(Slice name) noexcept nogil:
    cdef int i
    if name.bytes != CLASSIC_BYTES or memcmp(name.at, b"ASPSESSIONID", PREFIX_BYTES) != 0:
        return False
    for i in range(PREFIX_BYTES, CLASSIC_BYTES):
        if not c'A' <= name.at[i] <= c'Z':
            return False
    return True


cdef inline bint _is_id(Slice value) noexcept nogil:
    return 0 < value.bytes <= SESSION_ID_BYTES_MAX


cdef inline Slice _net_name(const Plan* plan, const PlanClass* cls) noexcept nogil:
    return slice_of(plan_text(plan, cls.session_cookie), cls.session_cookie.bytes)


# No field holds a NUL, so no id of ASP.NET has the same bytes.
cdef Hash128 _classic_key(const Plan* plan, Slice name, Slice value) noexcept nogil:
    cdef SipState state
    sip_init128(&state, &plan.keys[KEY_SESSION])
    sip_update(&state, b"\0", 1)
    sip_update(&state, name.at, name.bytes)
    sip_update(&state, value.at, value.bytes)
    return sip_final128(&state)


cdef void _take_classic(const PersistInput* ask, const CookiePair* pair, Cookies* cookies,
                        Finding* found) noexcept nogil:
    cdef uint32_t i = 0
    while i < cookies.name_count and not slice_equal(pair.name, cookies.names[i]):
        i += 1
    if i < cookies.name_count:
        found.duplicates = True
    elif i < CLASSIC_NAMES_MAX:
        cookies.names[i] = pair.name
        cookies.is_taken[i] = False
        cookies.name_count += 1
    else:
        return
    if not cookies.is_taken[i] and found.key_count < CLASSIC_KEYS_MAX and _is_id(pair.value):
        cookies.is_taken[i] = True
        finding_add_key(found, _classic_key(ask.plan, pair.name, pair.value))


cdef void _read_cookies(const PersistInput* ask, const PlanClass* cls, Cookies* cookies,
                        Finding* found) noexcept nogil:
    cdef Slice net = _net_name(ask.plan, cls)
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef Slice value
    cdef int field = ask.head.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(ask.head, ask.buf, field)
        cookie_begin(&cursor, value.at, value.bytes)
        while cookie_next(&cursor, &pair):
            if _is_classic(pair.name):
                found.cookie_seen = True
                _take_classic(ask, &pair, cookies, found)
            elif slice_equal(pair.name, net):
                found.cookie_seen = True
                found.duplicates |= cookies.is_net_seen
                cookies.is_net_seen = True
                if cookies.id.bytes == 0 and _is_id(pair.value):
                    cookies.id = pair.value
        field = head_next(ask.head, field)


cdef void persist_asp_find(const PersistInput* ask, const PlanClass* cls,
                           Finding* found) noexcept nogil:
    cdef Cookies cookies
    cdef Slice id
    if ask.head == NULL:
        found.outcome = OUTCOME_NO_KEY
        return
    cookies.name_count = 0
    cookies.is_net_seen = False
    cookies.id = slice_of(NULL, 0)
    _read_cookies(ask, cls, &cookies, found)
    if cookies.id.bytes:
        finding_add_key(found, key_of_value(ask.plan, cookies.id))
    if path_asp_id(path_of_request(ask.head, ask.buf), &id) and not slice_equal(id, cookies.id):
        finding_add_key(found, key_of_value(ask.plan, id))
    if found.key_count == 0:
        found.outcome = OUTCOME_NO_KEY


cdef void _learn_cookie(const LearnInput* response, const PlanClass* cls, Slice text,
                        Learned* learned) noexcept nogil:
    cdef SetCookie cookie
    cdef bint classic
    if not set_cookie_parse(&cookie, text.at, text.bytes):
        return
    classic = _is_classic(cookie.name)
    if not classic and not slice_equal(cookie.name, _net_name(response.plan, cls)):
        return
    # A browser with an empty id has none either. One of another path is not this session's, nor
    # is a classic one: which of a host's applications it was of, the request need not say.
    if cookie.value.bytes == 0 or set_cookie_expired(&cookie, response.wall_s):
        learned.ended |= not classic and set_cookie_covers(&cookie, response.path)
    elif _is_id(cookie.value):
        learned_add_key(learned, _classic_key(response.plan, cookie.name, cookie.value)
                        if classic else key_of_value(response.plan, cookie.value))


cdef void persist_asp_learn(const LearnInput* response, const PlanClass* cls,
                            Learned* learned) noexcept nogil:
    cdef const Head* head = response.head
    cdef Slice id
    cdef int field = head.first[FIELD_SET_COOKIE]
    while field >= 0:
        _learn_cookie(response, cls, head_value(head, response.buf, field), learned)
        field = head_next(head, field)
    field = head.first[FIELD_LOCATION]
    if field >= 0 and path_asp_id(path_of_reference(head_value(head, response.buf, field)), &id):
        learned_show_key(learned, key_of_value(response.plan, id))
