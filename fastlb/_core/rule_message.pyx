# cython: boundscheck=True
"""Edits of a head beside the received bytes; see rule_message.pxd.

What goes out is parsed by the same strict parser as what comes in. The checks of single names and
values come before it for the sake of their messages; that nothing can be injected is its doing.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memset

from fastlb._core.bounds cimport bounds_again
from fastlb._core.field cimport field_id
from fastlb._core.head cimport (
    FIELD_CONNECTION, FIELD_LISTED, FIELD_OTHER, HeadLimits, head_error_name, head_name, head_next,
    head_reset, head_value,
    request_head_parse, response_head_parse,
)
from fastlb._core.limits cimport (
    EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, RULE_EDITS_MAX,
)
from fastlb._core.plan cimport PlanLimits
from fastlb._core.rule_text cimport wrong_value
from fastlb._core.slice cimport ascii_lower, slice_of

from fastlb.rule_types import RuleEnded

cdef inline bint _same_name(Slice a, Slice b) noexcept:
    cdef uint32_t i
    if a.bytes != b.bytes:
        return False
    for i in range(a.bytes):
        if ascii_lower(a.at[i]) != ascii_lower(b.at[i]):
            return False
    return True


cdef inline Slice _slice(bytes data) noexcept:
    return slice_of(PyBytes_AS_STRING(data), <uint32_t> PyBytes_GET_SIZE(data))


cdef void target_split(Slice target, TargetParts* parts) noexcept:
    cdef const char* at = target.at
    cdef const char* end = target.at + target.bytes
    cdef const char* path
    memset(parts, 0, sizeof(TargetParts))
    if target.bytes and (at[0] == c'/' or at[0] == c'*'):
        path = at
    else:
        # "scheme://authority/path", or an authority alone, which has neither path nor query.
        path = <const char*> memchr(at, c':', target.bytes)
        if path == NULL or end - path < 3 or path[1] != c'/' or path[2] != c'/':
            path = end
        else:
            path += 3
            while path < end and path[0] != c'/' and path[0] != c'?':
                path += 1
    parts.before = slice_of(at, <uint32_t> (path - at))
    at = path
    while at < end and at[0] != c'?':
        at += 1
    parts.path = slice_of(path, <uint32_t> (at - path))
    parts.has_query = at < end
    parts.query = slice_of(at + 1, <uint32_t> (end - at - 1)) if at < end else slice_of(end, 0)


cdef class Edits:
    pass


cdef class Message:
    def __dealloc__(self):
        free(self.own)

    cdef int attach(self, RuleCall* call, bint is_response, bint writable) except -1:
        self.call = call
        self.is_response = is_response
        self.writable = writable
        self.noun = "response" if is_response else "request"
        self.received = call.facts.response if is_response else call.facts.request
        self.head = call.facts.response_head if is_response else call.facts.request_head
        return 0

    cdef void detach(self) noexcept:
        self.call = NULL
        self.keeper = None
        self.head = NULL
        self.lines = None
        self.method = self.target = self.reason = self.built = None
        self.status = 0
        self.shared = False

    cdef int demand(self, bint write) except -1:
        if self.call == NULL:
            raise RuleEnded("the rule that this belongs to has ended")
        if write and not self.writable:
            raise AttributeError(f"{self.noun}: cannot be changed any more: it has been sent")
        return 0

    cdef int parse(self) except -1:
        cdef HeadLimits limits
        cdef int parsed
        if self.head != NULL:
            return 0
        self.demand(False)
        if self.own == NULL:
            self.own = <Head*> malloc(sizeof(Head))
            if self.own == NULL:
                raise MemoryError()
        limits = bounds_again(HEAD_BYTES_MAX, HEAD_FIELDS_MAX)
        parsed = self.parse_into(self.received, &limits)
        if parsed <= 0:
            raise SystemError(f"the {self.noun} does not parse again: {parsed}")
        self.head = self.own
        return 0

    cdef int parse_into(self, Slice text, const HeadLimits* limits) noexcept:
        head_reset(self.own)
        if self.is_response:
            return response_head_parse(self.own, text.at, text.bytes, limits,
                                       self.call.facts.method)
        return request_head_parse(self.own, text.at, text.bytes, limits)

    # --- undo -----------------------------------------------------------------------------

    cdef bint edited(self) noexcept:
        return (self.lines is not None or self.target is not None or self.method is not None
                or self.status != 0 or self.reason is not None)

    cdef Edits save(self):
        # Also of what is unchanged: the next rule may be the one to be undone.
        cdef Edits edits = Edits.__new__(Edits)
        edits.lines = self.lines
        edits.method = self.method
        edits.target = self.target
        edits.reason = self.reason
        edits.built = self.built
        edits.status = self.status
        self.shared = True
        return edits

    cdef int restore(self, Edits edits) except -1:
        self.lines = edits.lines
        self.method = edits.method
        self.target = edits.target
        self.reason = edits.reason
        self.built = edits.built
        self.status = edits.status
        self.shared = True
        return 0

    # --- lines ----------------------------------------------------------------------------

    cdef Py_ssize_t count(self) except -1:
        self.parse()
        return <Py_ssize_t> self.head.field_count if self.lines is None else len(self.lines)

    cdef int line(self, Py_ssize_t i, Line* out) except -1:
        # The end may come between two lines that another thread reads: memory for a list may
        # run the collector, the collector a finalizer, and that another thread.
        cdef uint32_t index = <uint32_t> i
        cdef tuple made
        if self.head == NULL:
            self.demand(False)
        if self.lines is not None:
            item = self.lines[i]
            if type(item) is tuple:
                made = <tuple> item
                out.name = _slice(<bytes> made[0])
                out.value = _slice(<bytes> made[1])
                out.id = field_id(out.name.at, out.name.bytes)
                return 0
            index = item
        out.name = head_name(self.head, self.received.at, index)
        out.value = head_value(self.head, self.received.at, index)
        out.id = self.head.fields[index].id
        return 0

    cdef Py_ssize_t find(self, Py_ssize_t start, Slice name) except -2:
        cdef uint8_t known = field_id(name.at, name.bytes) if name.bytes else <uint8_t> FIELD_OTHER
        cdef Py_ssize_t i, count = self.count()
        cdef const Head* head = self.head
        cdef Line line
        if self.lines is None:
            if known != FIELD_OTHER:
                i = head.first[known]
                while 0 <= i < start:
                    i = head_next(head, <int> i)
                return i
            for i in range(start, count):
                if head.fields[i].name_bytes == name.bytes and _same_name(
                        head_name(head, self.received.at, <uint32_t> i), name):
                    return i
            return -1
        for i in range(start, count):
            self.line(i, &line)
            if _same_name(line.name, name):
                return i
        return -1

    cdef bint makes(self, Slice name) except -1:
        cdef Py_ssize_t i
        if self.lines is None:
            return False
        i = self.find(0, name)
        if i < 0:
            return False
        while i >= 0:
            if type(self.lines[i]) is not tuple:
                return False
            i = self.find(i + 1, name)
        return True

    # --- edits ----------------------------------------------------------------------------

    cdef int open(self) except -1:
        self.parse()
        if self.lines is None:
            self.lines = list(range(self.head.field_count))
        elif self.shared:
            self.lines = list(self.lines)
        self.shared = False
        self.built = None
        return 0

    cdef int put(self, Py_ssize_t i, bytes name, bytes value) except -1:
        self.open()
        self.lines[i] = (name, value)
        return 0

    cdef int append(self, bytes name, bytes value) except -1:
        self.open()
        if len(self.lines) >= <Py_ssize_t> self.head.field_count + RULE_EDITS_MAX:
            raise wrong_value(f"{self.noun}.headers",
                              f"rules may add {<int> RULE_EDITS_MAX} fields to a message")
        self.lines.append((name, value))
        return 0

    cdef int remove(self, Py_ssize_t i) except -1:
        self.open()
        del self.lines[i]
        return 0

    # --- the first line -------------------------------------------------------------------

    cdef Slice method_text(self) except *:
        self.parse()
        if self.method is not None:
            return _slice(self.method)
        return slice_of(self.received.at + self.head.line_start, self.head.method_bytes)

    cdef Slice target_text(self) except *:
        self.parse()
        if self.target is not None:
            return _slice(self.target)
        return slice_of(self.received.at + self.head.target, self.head.target_bytes)

    cdef int set_target(self, TargetParts* parts) except -1:
        # Joined before it takes the place of what the parts may point to.
        cdef bytes query = b"?" + parts.query.at[:parts.query.bytes] if parts.has_query else b""
        self.parse()
        self.target = b"%b%b%b" % (parts.before.at[:parts.before.bytes],
                                   parts.path.at[:parts.path.bytes], query)
        self.built = None
        return 0

    cdef bytes first_line(self):
        cdef const Head* head = self.head
        cdef const char* at = self.received.at
        cdef Slice method, target
        cdef bytes reason
        if self.is_response:
            if self.status == 0 and self.reason is None:
                return at[head.line_start:head.line_end]
            reason = self.reason
            if reason is None:
                reason = at[head.reason:head.reason + head.reason_bytes]
            return b"HTTP/1.%d %d %b\r\n" % (
                head.version_minor, self.status if self.status else head.status, reason)
        if self.target is None and self.method is None:
            return at[head.line_start:head.line_end]
        method = self.method_text()
        target = self.target_text()
        return b"%b %b HTTP/1.%d\r\n" % (
            method.at[:method.bytes], target.at[:target.bytes], head.version_minor)

    # --- the whole ------------------------------------------------------------------------

    # A client that lists a name in Connection has its own fields of that name cut, never those
    # that a rule made: of those, the option goes, and with it what the client sent.
    cdef list kept(self):
        cdef set made
        cdef list lines, options, left
        cdef Line line
        cdef Py_ssize_t i
        if self.is_response or self.head.first[FIELD_CONNECTION] < 0:
            return self.lines
        made = {(<bytes> (<tuple> item)[0]).lower() for item in self.lines if type(item) is tuple}
        lines = []
        for i, item in enumerate(self.lines):
            self.line(i, &line)
            if type(item) is tuple:
                lines.append(item)
            elif line.id == FIELD_CONNECTION:
                listed = line.value.at[:line.value.bytes]
                options = [one.strip(b" \t") for one in listed.split(b",")]
                left = [one for one in options if (<bytes> one).lower() not in made]
                if len(left) == len(options):
                    lines.append(item)
                elif left:
                    lines.append((b"Connection", b", ".join(left)))
            elif not self.head.fields[<Py_ssize_t> item].flags & FIELD_LISTED or (
                    line.name.at[:line.name.bytes].lower() not in made):
                lines.append(item)
        return lines

    cdef bytes join(self):
        # Lines that stand as they were received are taken in one piece as far as they follow
        # each other.
        cdef list parts = [self.first_line()]
        cdef const char* at = self.received.at
        cdef Py_ssize_t first = -1, next_one = -1, index
        if self.lines is None:
            parts.append(at[self.head.line_end:self.head.bytes])
            return b"".join(parts)
        for item in self.kept():
            index = -1 if type(item) is tuple else item
            if index >= 0 and index == next_one:
                next_one += 1
                continue
            if first >= 0:
                parts.append(at[self.head.fields[first].start:self.head.fields[next_one - 1].end])
            first = index
            next_one = index + 1 if index >= 0 else -1
            if index < 0:
                parts.extend(((<tuple> item)[0], b": ", (<tuple> item)[1], b"\r\n"))
        if first >= 0:
            parts.append(at[self.head.fields[first].start:self.head.fields[next_one - 1].end])
        parts.append(b"\r\n")
        return b"".join(parts)

    cdef void bounds(self, HeadLimits* limits) noexcept:
        # Those of the configuration; what came in longer, by an older one or by fastlb's own
        # cookie, may stay so long.
        cdef const PlanLimits* plan = &self.call.facts.plan.limits
        limits.field_bytes = 0
        limits.empty_lines = EMPTY_LINES_MAX
        limits.request_line_bytes = max(plan.request_line_bytes,
                                        self.head.line_end - self.head.line_start)
        limits.head_bytes = min(max(plan.head_bytes, self.received.bytes),
                                <uint32_t> HEAD_BYTES_MAX)
        limits.field_count = max(plan.field_count, self.head.field_count)

    cdef bytes build(self):
        cdef HeadLimits limits
        cdef Head* before
        cdef bytes whole
        cdef int parsed
        cdef bint framed
        if self.built is not None:
            return self.built
        self.parse()
        whole = self.join()
        self.bounds(&limits)
        # The parsed form of what was received is still needed.
        before = self.own
        self.own = <Head*> malloc(sizeof(Head))
        if self.own == NULL:
            self.own = before
            raise MemoryError()
        parsed = self.parse_into(_slice(whole), &limits)
        framed = (self.own.framing == self.head.framing
                  and self.own.content_length == self.head.content_length)
        free(self.own)
        self.own = before
        if parsed != PyBytes_GET_SIZE(whole):
            raise wrong_value(self.noun, f"what the rule made of it is refused ({refusal(parsed)})")
        if not framed:
            raise wrong_value(self.noun, "what the rule made of it would end elsewhere")
        self.built = whole
        return whole


cdef str refusal(int parsed):
    if parsed < 0:
        return (<bytes> head_error_name(parsed)).decode("ascii")
    return "too-long" if parsed == 0 else "it ends early"
