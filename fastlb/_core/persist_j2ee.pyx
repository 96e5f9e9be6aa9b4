# Cookie JSESSIONID (Servlet 6.0, 7.1.1), else the path parameter ;jsessionid= (7.1.3). Both names
# are the class's, and exact. One id is one key, wherever it stands.
#
# The id ends before the first of the class's separators. What follows names the container that the
# session was on when the id was made (Tomcat ".route", WebLogic "!server", WebSphere ":clone"); it
# changes at a failover while the session goes on, so the map decides and not the suffix.

from libc.string cimport memchr

from fastlb._core.cookie cimport (
    CookieCursor, CookiePair, SetCookie, cookie_begin, cookie_next, set_cookie_expired,
    set_cookie_parse,
)
from fastlb._core.head cimport (
    FIELD_COOKIE, FIELD_LOCATION, FIELD_SET_COOKIE, Head, head_next, head_value,
)
from fastlb._core.key cimport key_of_value
from fastlb._core.limits cimport SESSION_ID_BYTES_MAX
from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.path_session cimport path_of_reference, path_of_request, path_parameter_next
from fastlb._core.persist cimport (
    FIND_KEY, Finding, LearnInput, Learned, PersistInput, finding_add_key, learned_add_key,
    learned_show_key,
)
from fastlb._core.plan cimport Plan, PlanClass, Text, plan_text
from fastlb._core.slice cimport Slice, slice_equal, slice_of


cdef inline Slice _text(const Plan* plan, Text text) noexcept nogil:
    return slice_of(plan_text(plan, text), text.bytes)


# Cuts the routing off; False when no id is left, or one that is too long.
cdef bint _cut_id(const Plan* plan, const PlanClass* cls, Slice* value) noexcept nogil:
    cdef Slice separators = _text(plan, cls.route_separators)
    cdef Slice id = slice_of(value.at, 0)
    while id.bytes < value.bytes and id.bytes <= SESSION_ID_BYTES_MAX \
            and memchr(separators.at, value.at[id.bytes], separators.bytes) == NULL:
        id.bytes += 1
    value[0] = id
    return 0 < id.bytes <= SESSION_ID_BYTES_MAX


# The first valid id of the path's parameters.
cdef bint _path_id(const Plan* plan, const PlanClass* cls, Slice path, Slice* id) noexcept nogil:
    cdef Slice name = _text(plan, cls.session_parameter)
    while path_parameter_next(&path, name, id):
        if _cut_id(plan, cls, id):
            return True
    return False


cdef void _find_cookie(const PersistInput* ask, const PlanClass* cls,
                       Finding* found) noexcept nogil:
    cdef Slice name = _text(ask.plan, cls.session_cookie)
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef Slice value
    cdef int field = ask.head.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(ask.head, ask.buf, field)
        cookie_begin(&cursor, value.at, value.bytes)
        while cookie_next(&cursor, &pair):
            if not slice_equal(pair.name, name):
                continue
            found.duplicates |= found.cookie_seen
            found.cookie_seen = True
            if found.kind != FIND_KEY and _cut_id(ask.plan, cls, &pair.value):
                finding_add_key(found, key_of_value(ask.plan, pair.value))
        field = head_next(ask.head, field)


cdef void persist_j2ee_find(const PersistInput* ask, const PlanClass* cls,
                            Finding* found) noexcept nogil:
    cdef Slice id
    if ask.head != NULL:
        _find_cookie(ask, cls, found)
        if found.kind != FIND_KEY \
                and _path_id(ask.plan, cls, path_of_request(ask.head, ask.buf), &id):
            finding_add_key(found, key_of_value(ask.plan, id))
    if found.kind != FIND_KEY:
        found.outcome = OUTCOME_NO_KEY


cdef void _learn_cookie(const LearnInput* response, const PlanClass* cls, Slice text,
                        Learned* learned) noexcept nogil:
    cdef SetCookie cookie
    if not set_cookie_parse(&cookie, text.at, text.bytes) \
            or not slice_equal(cookie.name, _text(response.plan, cls.session_cookie)):
        return
    # A browser with an empty id has none either.
    if cookie.value.bytes == 0 or set_cookie_expired(&cookie, response.wall_s):
        learned.ended = True
    elif _cut_id(response.plan, cls, &cookie.value):
        learned_add_key(learned, key_of_value(response.plan, cookie.value))


cdef void persist_j2ee_learn(const LearnInput* response, const PlanClass* cls,
                             Learned* learned) noexcept nogil:
    cdef const Head* head = response.head
    cdef Slice id
    cdef int field = head.first[FIELD_SET_COOKIE]
    while field >= 0:
        _learn_cookie(response, cls, head_value(head, response.buf, field), learned)
        field = head_next(head, field)
    field = head.first[FIELD_LOCATION]
    if field >= 0 and _path_id(response.plan, cls,
                               path_of_reference(head_value(head, response.buf, field)), &id):
        learned_show_key(learned, key_of_value(response.plan, id))
