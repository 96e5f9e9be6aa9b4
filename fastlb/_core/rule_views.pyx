# cython: boundscheck=True
"""Header fields, query and log fields as mappings.

What a rule sets is read and checked first, since reading may run the rule's own code (iterators,
subclasses), then the message is asked whether it is still there, then it is changed at once.
"""

import cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr

from fastlb._core.authority cimport authority_valid
from fastlb._core.field cimport field_id
from fastlb._core.head cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_HOST, FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION,
    FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE,
)
from fastlb._core.limits cimport RULE_LOG_BYTES_MAX
from fastlb._core.rule_message cimport Line, Message, TargetParts, target_split
from fastlb._core.rule_text cimport (
    check_name, exact, field_value, json_member, percent_decode, percent_encode, shown, text_in,
    text_of, text_out, text_slice, wrong_value,
)
from fastlb._core.slice cimport Slice, slice_of

from fastlb.rule_types import RuleEnded

cdef const char* QUERY_STAYS = "/:@,"


# What a view that no rule got is one of: it has ended before it began.
cdef Message NOBODY = Message.__new__(Message)


cdef Message view_nobody():
    return NOBODY


cdef class View:
    def __cinit__(self):
        self.message = NOBODY

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} cannot be copied: it ends with its rule")

    # Each kind of view has its own of these three; a bare View is never shown to a rule.

    cdef object first(self, object name):
        raise NotImplementedError

    cdef list every(self, object name):
        raise NotImplementedError

    cdef list pairs(self):
        raise NotImplementedError

    cdef object folded(self, object name):
        return name

    def __getitem__(self, name):
        value = self.first(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name, default=None):
        value = self.first(name)
        return default if value is None else value

    def get_all(self, name):
        return self.every(name)

    def __contains__(self, name):
        return self.first(name) is not None

    def keys(self):
        cdef dict names = {}
        for name, _ in self.pairs():
            names.setdefault(self.folded(name), name)
        return list(names.values())

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.keys())

    def items(self):
        return self.pairs()

    def values(self):
        return [value for _, value in self.pairs()]

    def __repr__(self):
        if self.message.call == NULL:
            return f"<{type(self).__name__} of a rule that has ended>"
        return f"{type(self).__name__}({self.pairs()!r})"


# --- header fields ------------------------------------------------------------------------

cdef bint _is_framing(uint8_t known) noexcept:
    return known in (FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING, FIELD_CONNECTION,
                     FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION, FIELD_TE, FIELD_TRAILER,
                     FIELD_UPGRADE)


cdef int set_host(Message message, bytes value, str what) except -1:
    cdef TargetParts parts
    cdef Py_ssize_t i
    if not authority_valid(PyBytes_AS_STRING(value), <uint32_t> PyBytes_GET_SIZE(value), False):
        raise wrong_value(what, "expected a host, or a host and a port, found "
                                f"{shown(text_out(PyBytes_AS_STRING(value), len(value)))}")
    message.demand(True)
    i = message.find(0, slice_of("host", 4))
    if i < 0:
        message.append(b"Host", value)
    else:
        message.put(i, b"Host", value)
    target_split(message.target_text(), &parts)
    if parts.before.bytes > 3 and parts.path.at != parts.before.at and memchr(
            parts.before.at, c'/', parts.before.bytes) != NULL:
        scheme = <const char*> memchr(parts.before.at, c'/', parts.before.bytes)
        before = parts.before.at[:scheme - parts.before.at] + b"//" + value
        parts.before = slice_of(PyBytes_AS_STRING(before), <uint32_t> PyBytes_GET_SIZE(before))
        message.set_target(&parts)
    return 0


@cython.final
cdef class Headers(View):
    """The header fields of a message; see `fastlb.rules`."""

    cdef object folded(self, object name):
        return (<str> name).lower()

    cdef object first(self, object name):
        cdef Slice text
        cdef Line line
        cdef Py_ssize_t i
        _owner = text_slice(name, "a field's name", &text)
        self.message.demand(False)
        i = self.message.find(0, text)
        if i < 0:
            return None
        self.message.line(i, &line)
        return text_of(line.value)

    cdef list every(self, object name):
        cdef list values = []
        cdef Slice text
        cdef Line line
        cdef Py_ssize_t i
        _owner = text_slice(name, "a field's name", &text)
        self.message.demand(False)
        i = self.message.find(0, text)
        while i >= 0:
            self.message.line(i, &line)
            values.append(text_of(line.value))
            i = self.message.find(i + 1, text)
        return values

    cdef list pairs(self):
        cdef list found = []
        cdef Line line
        cdef Py_ssize_t i
        self.message.demand(False)
        for i in range(self.message.count()):
            self.message.line(i, &line)
            found.append((text_of(line.name), text_of(line.value)))
        return found

    cdef str where(self, object name):
        return f"{self.message.noun}.headers[{shown(name)}]"

    cdef bytes checked_name(self, object name, str what):
        cdef bytes data = text_in(name, what)
        cdef str place = f"{self.message.noun}.headers"
        check_name(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), place)
        if _is_framing(field_id(PyBytes_AS_STRING(data), <uint32_t> PyBytes_GET_SIZE(data))):
            raise wrong_value(what, "this field belongs to the connection or frames the message; "
                                    "a rule cannot set or remove it")
        return data

    cdef bint is_host(self, bytes name):
        return not self.message.is_response and field_id(
            PyBytes_AS_STRING(name), <uint32_t> PyBytes_GET_SIZE(name)) == FIELD_HOST

    cdef int remove_from(self, Py_ssize_t start, Slice name) except -1:
        cdef list places = []
        cdef Py_ssize_t i = self.message.find(start, name)
        while i >= 0:
            places.append(i)
            i = self.message.find(i + 1, name)
        for place in reversed(places):
            self.message.remove(place)
        return <int> len(places)

    def __setitem__(self, name, value):
        cdef str what = self.where(name)
        cdef bytes data = self.checked_name(name, what)
        cdef bytes text = field_value(value, what)
        cdef Slice wanted = slice_of(PyBytes_AS_STRING(data), <uint32_t> PyBytes_GET_SIZE(data))
        cdef Py_ssize_t i
        self.message.demand(True)
        if self.is_host(data):
            set_host(self.message, text, what)
            return
        i = self.message.find(0, wanted)
        if i < 0:
            self.message.append(data, text)
        else:
            self.message.put(i, data, text)
            self.remove_from(i + 1, wanted)

    def add(self, name, value):
        cdef str what = self.where(name)
        cdef bytes data = self.checked_name(name, what)
        cdef bytes text = field_value(value, what)
        self.message.demand(True)
        if self.is_host(data):
            if self.message.find(0, slice_of("host", 4)) >= 0:
                raise wrong_value(what, "a request has one Host; set it")
            set_host(self.message, text, what)
            return
        self.message.append(data, text)

    def __delitem__(self, name):
        cdef str what = self.where(name)
        cdef bytes data = self.checked_name(name, what)
        self.message.demand(True)
        if self.is_host(data):
            raise wrong_value(what, "a request needs its Host; set it")
        if not self.remove_from(0, slice_of(PyBytes_AS_STRING(data),
                                            <uint32_t> PyBytes_GET_SIZE(data))):
            raise KeyError(name)


# --- the query ----------------------------------------------------------------------------
#
#   query = [ piece *( "&" piece ) ]      piece = name [ "=" value ]
#   as browsers send forms: "+" is a space, %XX a byte (URL Standard 5.1)

cdef object _part(const char* at, Py_ssize_t count):
    cdef bytes data
    if memchr(at, c'%', count) == NULL and memchr(at, c'+', count) == NULL:
        return text_out(at, count)
    data = percent_decode(at, count, True)
    return text_out(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef bytes _encoded(object value, str what):
    cdef bytes data = text_in(value, what)
    return percent_encode(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), QUERY_STAYS)


@cython.final
cdef class Query(View):
    """The query of a request's target; see `fastlb.rules`."""

    cdef list pieces(self):
        # Each with its name and value, as (raw, name, value); an empty piece has no name.
        cdef TargetParts parts
        cdef list found = []
        cdef const char* at
        cdef const char* end
        cdef const char* stop
        cdef const char* equals
        target_split(self.message.target_text(), &parts)
        if not parts.has_query:
            return found
        at = parts.query.at
        end = at + parts.query.bytes
        while at <= end:
            stop = <const char*> memchr(at, c'&', end - at) if at < end else NULL
            if stop == NULL:
                stop = end
            equals = <const char*> memchr(at, c'=', stop - at) if at < stop else NULL
            if equals == NULL:
                equals = stop
            found.append((at[:stop - at],
                          _part(at, equals - at) if stop > at else None,
                          _part(equals + 1, stop - equals - 1) if equals < stop else ""))
            at = stop + 1
        return found

    cdef list pairs(self):
        self.message.demand(False)
        return [(name, value) for _, name, value in self.pieces() if name is not None]

    cdef list every(self, object name):
        cdef str wanted = exact(name, "a parameter's name")
        return [value for known, value in self.pairs() if known == wanted]

    cdef object first(self, object name):
        cdef list values = self.every(name)
        return values[0] if values else None

    cdef str where(self, object name):
        return f"request.query[{shown(name)}]"

    cdef int rewrite(self, list pieces) except -1:
        cdef TargetParts parts
        cdef bytes query = b"&".join(pieces)
        target_split(self.message.target_text(), &parts)
        if parts.path.bytes == 0 and memchr(parts.before.at, c'/', parts.before.bytes) == NULL:
            raise wrong_value("request.query", "the target of CONNECT has none")
        parts.has_query = bool(pieces)
        parts.query = slice_of(PyBytes_AS_STRING(query), <uint32_t> PyBytes_GET_SIZE(query))
        return self.message.set_target(&parts)

    def __setitem__(self, name, value):
        cdef str what = self.where(name)
        cdef bytes made = _encoded(name, what) + b"=" + _encoded(value, what)
        cdef list kept = []
        cdef str wanted = exact(name, what)
        self.message.demand(True)
        for raw, known, _ in self.pieces():
            if known != wanted:
                kept.append(raw)
            elif made is not None:
                kept.append(made)
                made = None
        if made is not None:
            kept.append(made)
        self.rewrite(kept)

    def add(self, name, value):
        cdef str what = self.where(name)
        cdef bytes made = _encoded(name, what) + b"=" + _encoded(value, what)
        self.message.demand(True)
        self.rewrite([raw for raw, _, _ in self.pieces()] + [made])

    def __delitem__(self, name):
        cdef list pieces, kept
        cdef str wanted = exact(name, self.where(name))
        self.message.demand(True)
        pieces = self.pieces()
        kept = [raw for raw, known, _ in pieces if known != wanted]
        if len(kept) == len(pieces):
            raise KeyError(name)
        self.rewrite(kept)


# --- fields of the access log -------------------------------------------------------------

@cython.final
cdef class Log:
    """What rules add to the request's line in the access log; see `fastlb.rules`."""

    def __reduce__(self):
        raise TypeError("Log cannot be copied: it ends with its rule")

    cdef int demand(self) except -1:
        if self.call == NULL:
            raise RuleEnded("the rule that this belongs to has ended")
        return 0

    cdef int open(self) except -1:
        if self.shared:
            self.members = dict(self.members)
            self.shared = False
        self.changed = True
        return 0

    cdef bytes joined(self):
        return b",".join([member for _, member in self.members.values()])

    def __setitem__(self, name, value):
        cdef str what = f"log[{shown(name)}]"
        cdef bytes made
        cdef Py_ssize_t total
        name = exact(name, "a name in log")
        made = json_member(name, value, what) if value is not None else None
        self.demand()
        if made is None:
            if name in self.members:
                self.open()
                del self.members[name]
            return
        total = len(made)
        for known, (_, member) in self.members.items():
            if known != name:
                total += 1 + len(member)
        if total > RULE_LOG_BYTES_MAX:
            raise wrong_value(what, f"what rules log for one request would be {total} bytes; "
                                    f"{<int> RULE_LOG_BYTES_MAX} is the most")
        self.open()
        self.members[name] = (value, made)

    def __delitem__(self, name):
        name = exact(name, "a name in log")
        self.demand()
        if name not in self.members:
            raise KeyError(name)
        self.open()
        del self.members[name]

    def __getitem__(self, name):
        name = exact(name, "a name in log")
        self.demand()
        return self.members[name][0]

    def get(self, name, default=None):
        name = exact(name, "a name in log")
        self.demand()
        found = self.members.get(name)
        return default if found is None else found[0]

    def __contains__(self, name):
        name = exact(name, "a name in log")
        self.demand()
        return name in self.members

    def __iter__(self):
        self.demand()
        return iter(list(self.members))

    def __len__(self):
        self.demand()
        return len(self.members)

    def keys(self):
        self.demand()
        return list(self.members)

    def items(self):
        self.demand()
        return [(name, value) for name, (value, _) in self.members.items()]

    def __repr__(self):
        if self.call == NULL:
            return "<Log of a rule that has ended>"
        return f"Log({dict(self.items())!r})"
