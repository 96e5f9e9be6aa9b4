# Own answers. In redirect_url, "%{path}" stands for what was asked, so that the page there can
# send the user back: path and query, with every delimiter of a query encoded (RFC 3986 3.4).
# They are never stored (`Cache-Control: no-store`), name the status and nothing
# about the inside, and carry a cookie only to expire it.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, strlen

from fastlb._core.arena cimport arena_slice
from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.head cimport METHOD_HEAD
from fastlb._core.http_date cimport HTTP_DATE_BYTES, http_date_write
from fastlb._core.plan cimport (
    Plan, PlanClass, PlanErrorPage, plan_class, plan_error_pages, plan_text,
)
from fastlb._core.request cimport request_head_at
from fastlb._core.response cimport response_add_decision
from fastlb._core.route cimport route_host
from fastlb._core.rule_call cimport RuleCall
from fastlb._core.scratch cimport scratch_add, scratch_add_number
from fastlb._core.set_cookie cimport set_cookie_expire
from fastlb._core.slice cimport Slice, ascii_lower, slice_equal, slice_of

cdef enum:
    PLACEHOLDER_BYTES = 7            # "%{path}"
    REDIRECT_PATH_BYTES_MAX = 4096   # of its values together: half of the usual request line

cdef const char* PAGE_HEAD = (
    "<!DOCTYPE html>\n<html><head><title>")
cdef const char* PAGE_MIDDLE = "</title></head>\n<body><h1>"
cdef const char* PAGE_TAIL = "</h1></body></html>\n"
cdef const char* PAGE_TYPE = "text/html"
cdef Slice _page                     # of the configuration, between reply_bytes and _write
cdef uint32_t _rule_framing_at = 0   # in the scratch, between reply_rule_bytes and _write


ctypedef struct Reason:
    int status
    const char* text

# RFC 9110 section 15, RFC 6585, RFC 8297 and the registry of status codes
cdef Reason* REASONS = [
    Reason(200, "OK"), Reason(201, "Created"), Reason(202, "Accepted"),
    Reason(203, "Non-Authoritative Information"), Reason(204, "No Content"),
    Reason(205, "Reset Content"), Reason(206, "Partial Content"), Reason(207, "Multi-Status"),
    Reason(208, "Already Reported"), Reason(226, "IM Used"), Reason(300, "Multiple Choices"),
    Reason(301, "Moved Permanently"), Reason(302, "Found"), Reason(303, "See Other"),
    Reason(304, "Not Modified"), Reason(307, "Temporary Redirect"),
    Reason(308, "Permanent Redirect"), Reason(400, "Bad Request"), Reason(401, "Unauthorized"),
    Reason(402, "Payment Required"), Reason(403, "Forbidden"), Reason(404, "Not Found"),
    Reason(405, "Method Not Allowed"), Reason(406, "Not Acceptable"),
    Reason(407, "Proxy Authentication Required"), Reason(408, "Request Timeout"),
    Reason(409, "Conflict"), Reason(410, "Gone"), Reason(411, "Length Required"),
    Reason(412, "Precondition Failed"), Reason(413, "Content Too Large"),
    Reason(414, "URI Too Long"), Reason(415, "Unsupported Media Type"),
    Reason(416, "Range Not Satisfiable"), Reason(417, "Expectation Failed"),
    Reason(421, "Misdirected Request"), Reason(422, "Unprocessable Content"),
    Reason(423, "Locked"), Reason(424, "Failed Dependency"), Reason(425, "Too Early"),
    Reason(426, "Upgrade Required"),
    Reason(428, "Precondition Required"), Reason(429, "Too Many Requests"),
    Reason(431, "Request Header Fields Too Large"),
    Reason(451, "Unavailable For Legal Reasons"), Reason(500, "Internal Server Error"),
    Reason(501, "Not Implemented"), Reason(502, "Bad Gateway"),
    Reason(503, "Service Unavailable"), Reason(504, "Gateway Timeout"),
    Reason(505, "HTTP Version Not Supported"), Reason(506, "Variant Also Negotiates"),
    Reason(507, "Insufficient Storage"), Reason(508, "Loop Detected"),
    Reason(511, "Network Authentication Required"), Reason(0, NULL),
]


cdef const char* reply_reason(int status) noexcept nogil:
    cdef const Reason* one = REASONS
    while one.text != NULL:
        if one.status == status:
            return one.text
        one += 1
    return "Error" if status >= 400 else "Unassigned"


cdef Slice _skip_scheme(Slice url) noexcept nogil:
    # "http://host/path" becomes "host/path"; a path stays.
    cdef uint32_t i
    for i in range(url.bytes - 2 if url.bytes > 2 else 0):
        if url.at[i] == c'/':
            break
        if memcmp(url.at + i, "://", 3) == 0:
            return slice_of(url.at + i + 3, url.bytes - i - 3)
    return url


cdef Slice _split_path(Slice* url) noexcept nogil:
    # Takes the authority off `url` and returns it; what stays is the path without its query.
    cdef uint32_t start = 0, end
    cdef Slice authority
    while start < url.bytes and url.at[start] != c'/' and url.at[start] != c'?':
        start += 1
    end = start
    while end < url.bytes and url.at[end] != c'?' and url.at[end] != c'#':
        end += 1
    authority = slice_of(url.at, start)
    # An empty path is "/" (RFC 3986 6.2.3).
    url[0] = slice_of(url.at + start, end - start) if end > start else slice_of("/", 1)
    return authority


cdef bint reply_redirect_loops(Slice url, Slice host, Slice target) noexcept nogil:
    cdef Slice to = _skip_scheme(url)
    cdef Slice asked = _skip_scheme(target)
    cdef Slice to_host = _split_path(&to)
    cdef Slice asked_host = _split_path(&asked)
    if asked_host.bytes == 0:
        asked_host = host
    # A request that names no host (HTTP/1.0) may be for any.
    if to_host.bytes and asked_host.bytes and not _same_host(to_host, asked_host):
        return False
    return slice_equal(to, asked)


cdef bint _same_host(Slice a, Slice b) noexcept nogil:
    cdef uint32_t i
    a = route_host(a)
    b = route_host(b)
    if a.bytes != b.bytes:
        return False
    for i in range(a.bytes):
        if ascii_lower(a.at[i]) != ascii_lower(b.at[i]):
            return False
    return True


cdef bint _add(Worker* w, const char* text) noexcept nogil:
    return scratch_add(w, text, <uint32_t> strlen(text))


cdef bint _add_date(Worker* w) noexcept nogil:
    # RFC 9110 6.6.1
    cdef char[HTTP_DATE_BYTES] text
    http_date_write(w.wall_s, text)
    return scratch_add(w, text, HTTP_DATE_BYTES)


cdef bint _stays(char byte) noexcept nogil:
    # Unreserved, and what a query may contain (RFC 3986 3.4) but "&", "=", "+", ";" and "?",
    # which divide it: in forms, in paths, in what scripts take apart.
    if c'a' <= ascii_lower(byte) <= c'z' or c'0' <= byte <= c'9':
        return True
    return byte in (c'-', c'.', c'_', c'~', c'/', c':', c'@', c'!', c'$', c"'", c'(', c')', c'*',
                    c',')


cdef bint _add_encoded(Worker* w, Slice text) noexcept nogil:
    cdef const char* HEX = "0123456789ABCDEF"
    cdef uint32_t i
    cdef char[3] code
    code[0] = c'%'
    for i in range(text.bytes):
        code[1] = HEX[(<uint8_t> text.at[i]) >> 4]
        code[2] = HEX[<uint8_t> text.at[i] & 15]
        if not (scratch_add(w, text.at + i, 1) if _stays(text.at[i])
                else scratch_add(w, code, 3)):
            return False
    return True


cdef Slice _path_and_query(Slice target) noexcept nogil:
    # An absolute form loses its authority; an empty path is "/", as is that of "OPTIONS *".
    cdef Slice rest = _skip_scheme(target)
    cdef uint32_t i = 0
    while i < rest.bytes and rest.at[i] != c'/' and rest.at[i] != c'?':
        i += 1
    return slice_of(rest.at + i, rest.bytes - i)


cdef bint _add_asked(Worker* w, Exchange* x, uint32_t* room) noexcept nogil:
    # All of it or nothing: half a path leads astray.
    cdef uint32_t before = w.scratch_used
    cdef Slice asked = _path_and_query(slice_of(
        request_head_at(x) + (x.target - x.head_start), x.target_bytes))
    cdef bint rooted = asked.bytes and asked.at[0] == c'/'
    if (rooted or _add(w, "/")) and _add_encoded(w, asked) \
            and w.scratch_used - before <= room[0]:
        room[0] -= w.scratch_used - before
        return True
    w.scratch_used = before
    return False


cdef bint _add_location(Worker* w, Exchange* x) noexcept nogil:
    cdef const PlanClass* cls
    cdef Slice url
    cdef uint32_t room = REDIRECT_PATH_BYTES_MAX, i = 0, run = 0
    if x.status != 302:
        return True
    cls = plan_class(x.snapshot.plan, <uint32_t> x.decision.found_class)
    url = slice_of(plan_text(x.snapshot.plan, cls.redirect_url), cls.redirect_url.bytes)
    if not _add(w, "Location: "):
        return False
    while i + PLACEHOLDER_BYTES <= url.bytes:
        if memcmp(url.at + i, "%{path}", PLACEHOLDER_BYTES) != 0:
            i += 1
            continue
        if not scratch_add(w, url.at + run, i - run):
            return False
        i += PLACEHOLDER_BYTES
        run = i if _add_asked(w, x, &room) else url.bytes
        if run > i:
            break                    # too long: the URL ends before it
    return scratch_add(w, url.at + run, url.bytes - run) and _add(w, "\r\n")


# What the virtual server has for the status; NULL: nothing. A client whose virtual server went with
# a reload is told nothing by another one.
cdef const PlanErrorPage* _configured_page(const Exchange* x) noexcept nogil:
    cdef const PlanErrorPage* page
    cdef uint32_t i
    if x.server == NULL or x.server.slot != x.client.virtual_server_slot:
        return NULL
    page = plan_error_pages(x.snapshot.plan) + x.server.error_pages
    for i in range(x.server.error_page_count):
        if page[i].status == x.status:
            return page + i
    return NULL


cdef bint _add_retry_after(Worker* w, const Exchange* x) noexcept nogil:
    if x.status != 503:
        return True
    return (_add(w, "Retry-After: ")
            and scratch_add_number(w, x.server.retry_after if x.server != NULL else 1)
            and _add(w, "\r\n"))


cdef bint _add_head(Worker* w, Exchange* x, Slice type_, uint32_t page_bytes) noexcept nogil:
    w.scratch_used = 0
    if not (_add(w, "HTTP/1.1 ") and scratch_add_number(w, x.status) and _add(w, " ")
            and _add(w, reply_reason(x.status)) and _add(w, "\r\n")
            and _add(w, "Date: ") and _add_date(w) and _add(w, "\r\n")
            and _add(w, "Content-Type: ") and scratch_add(w, type_.at, type_.bytes)
            and _add(w, "\r\nCache-Control: no-store\r\nContent-Length: ")
            and scratch_add_number(w, page_bytes) and _add(w, "\r\n")
            and _add_retry_after(w, x)):
        return False
    if not _add_location(w, x):
        return False
    if not set_cookie_expire(w, x):
        return False
    if not x.refused and not response_add_decision(w, x):
        return False
    return _add_connection(w, x)


cdef bint _add_connection(Worker* w, Exchange* x) noexcept nogil:
    # And the end of the head.
    if not x.client_persists:
        return _add(w, "Connection: close\r\n\r\n")
    if x.version_minor == 0:
        return _add(w, "Connection: keep-alive\r\n\r\n")
    return _add(w, "\r\n")


cdef bint _add_page(Worker* w, int status) noexcept nogil:
    cdef int i
    if not _add(w, PAGE_HEAD):
        return False
    for i in range(2):
        if not (scratch_add_number(w, <unsigned> status) and _add(w, " ")
                and _add(w, reply_reason(status))
                and _add(w, PAGE_MIDDLE if i == 0 else PAGE_TAIL)):
            return False
    return True


cdef uint32_t reply_bytes(Worker* w, Exchange* x, bint configured) noexcept nogil:
    global _page
    cdef uint32_t reason = <uint32_t> strlen(reply_reason(x.status))
    cdef uint32_t page = <uint32_t> (strlen(PAGE_HEAD) + strlen(PAGE_MIDDLE) + strlen(PAGE_TAIL))
    cdef const PlanErrorPage* own = _configured_page(x) if configured else NULL
    cdef const Plan* plan = x.snapshot.plan
    page += 2 * (4 + reason)
    _page = slice_of(NULL, 0)
    if own != NULL:
        if not _add_head(w, x, slice_of(plan_text(plan, own.type), own.type.bytes),
                         own.body.bytes):
            return 0
        if x.method != METHOD_HEAD:
            _page = slice_of(plan_text(plan, own.body), own.body.bytes)
    elif not _add_head(w, x, slice_of(PAGE_TYPE, <uint32_t> strlen(PAGE_TYPE)), page) \
            or (x.method != METHOD_HEAD and not _add_page(w, x.status)):
        return 0
    return w.scratch_used + _page.bytes


cdef uint32_t reply_write(Worker* w, char* out) noexcept nogil:
    memcpy(out, w.scratch, w.scratch_used)
    if _page.bytes:
        memcpy(out + w.scratch_used, _page.at, _page.bytes)
    return w.scratch_used + _page.bytes


# --- answers that rules give --------------------------------------------------------------

cdef inline bint _has_no_body(int status) noexcept nogil:
    # RFC 9110 15.3.5, 15.4.5: 204 and 304 end with their heads.
    return status == 204 or status == 304


cdef bint _add_rule_framing(Worker* w, Exchange* x, uint32_t body_bytes) noexcept nogil:
    if not _has_no_body(x.status) and not (
            _add(w, "Content-Length: ") and scratch_add_number(w, body_bytes)
            and _add(w, "\r\n")):
        return False
    return _add_connection(w, x)


cdef uint32_t _shown_bytes(const Exchange* x, const RuleCall* call) noexcept nogil:
    if x.method == METHOD_HEAD or _has_no_body(x.status):
        return 0
    return call.effects.reply_body.bytes


cdef uint32_t reply_rule_bytes(Worker* w, Exchange* x, const RuleCall* call) noexcept nogil:
    # The scratch gets what is ours: the first lines, and from `rule_framing_at` on the last ones.
    global _rule_framing_at
    w.scratch_used = 0
    _add(w, "HTTP/1.1 ")
    scratch_add_number(w, x.status)
    _add(w, " ")
    _add(w, reply_reason(x.status))
    _add(w, "\r\nDate: ")
    _add_date(w)
    _add(w, "\r\n")
    _rule_framing_at = w.scratch_used
    _add_rule_framing(w, x, call.effects.reply_body.bytes)
    return w.scratch_used + call.effects.reply_fields.bytes + _shown_bytes(x, call)


cdef uint32_t reply_rule_write(Worker* w, Exchange* x, const RuleCall* call,
                               char* out) noexcept nogil:
    cdef Slice fields = arena_slice(&call.arena, call.effects.reply_fields)
    cdef Slice body = arena_slice(&call.arena, call.effects.reply_body)
    cdef char* at = out
    memcpy(at, w.scratch, _rule_framing_at)
    at += _rule_framing_at
    memcpy(at, fields.at, fields.bytes)
    at += fields.bytes
    memcpy(at, w.scratch + _rule_framing_at, w.scratch_used - _rule_framing_at)
    at += w.scratch_used - _rule_framing_at
    memcpy(at, body.at, _shown_bytes(x, call))
    at += _shown_bytes(x, call)
    return <uint32_t> (at - out)
