# cython: boundscheck=True
"""Cookies of a request, and Set-Cookie fields of a response, as mappings (RFC 6265).

Read leniently, by the same parser that persistence uses; written strictly. A Set-Cookie field is
edited where it stands: what a rule does not name stays byte for byte.
"""

import cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t

from fastlb._core.cookie cimport (
    CookieCursor, CookiePair, SetCookie as ParsedCookie, cookie_begin, cookie_find, cookie_next,
    set_cookie_parse,
)
from fastlb._core.head cimport FIELD_COOKIE, FIELD_SET_COOKIE
from fastlb._core.rule_message cimport Line, Message
from fastlb._core.rule_text cimport (
    check_cookie_value, check_name, check_value, exact, shown, text_in, text_of, text_slice,
    wrong_type, wrong_value,
)
from fastlb._core.rule_views cimport view_nobody
from fastlb._core.slice cimport Slice

cdef const char* PAST = "Thu, 01 Jan 1970 00:00:00 GMT"
cdef enum:
    AGE_BITS_MAX = 40


cdef bytes _pair(object name, object value, str what):
    # name=value, both as RFC 6265 4.1.1 wants them.
    cdef bytes left = text_in(name, what)
    cdef bytes right = text_in(value, what)
    check_name(PyBytes_AS_STRING(left), PyBytes_GET_SIZE(left), what)
    check_cookie_value(PyBytes_AS_STRING(right), PyBytes_GET_SIZE(right), what)
    return left + b"=" + right


@cython.final
cdef class Cookies(View):
    """The cookies of a request; see `fastlb.rules`."""

    cdef object first(self, object name):
        cdef Slice wanted
        cdef CookiePair pair
        cdef Message message = self.message
        _owner = text_slice(name, "a cookie's name", &wanted)
        message.demand(False)
        if message.lines is not None:
            values = self.every(name)
            return values[0] if values else None
        message.parse()
        if cookie_find(message.head, message.received.at, wanted, 0, &pair) < 0:
            return None
        return text_of(pair.value)

    cdef list every(self, object name):
        cdef str wanted = exact(name, "a cookie's name")
        return [value for known, value in self.pairs() if known == wanted]

    cdef list pairs(self):
        cdef list found = []
        cdef CookieCursor cursor
        cdef CookiePair pair
        cdef Line line
        cdef bytes field
        cdef Py_ssize_t i
        self.message.demand(False)
        for i in range(self.message.count()):
            self.message.line(i, &line)
            if line.id != FIELD_COOKIE:
                continue
            field = line.value.at[:line.value.bytes]
            cookie_begin(&cursor, PyBytes_AS_STRING(field), <uint32_t> PyBytes_GET_SIZE(field))
            while cookie_next(&cursor, &pair):
                if pair.name.bytes:
                    found.append((text_of(pair.name), text_of(pair.value)))
        return found

    # Every cookie of this name becomes `made`, once; None: none. Whether there was one.
    cdef bint replace(self, str name, bytes made) except -1:
        cdef Slice text
        cdef Py_ssize_t i = 0, last = -1
        cdef Line line
        cdef list pieces
        cdef bint found = False, here
        _owner = text_slice(name, "a cookie's name", &text)
        while i < self.message.count():
            self.message.line(i, &line)
            if line.id != FIELD_COOKIE:
                i += 1
                continue
            pieces = _pieces(line.value, text, made if not found else None, &here)
            found = found or here
            last = i
            i += 1
            if here and pieces:
                self.message.put(last, b"Cookie", b"; ".join(pieces))
            elif here:
                self.message.remove(last)
                i -= 1
                last = -1
        if not found and made is not None:
            if last >= 0:
                self.message.line(last, &line)
                before = line.value.at[:line.value.bytes]
                made = before + (b"; " if before else b"") + made
                self.message.put(last, b"Cookie", made)
            else:
                self.message.append(b"Cookie", made)
        return found

    def __setitem__(self, name, value):
        cdef bytes made = _pair(name, value, f"request.cookies[{shown(name)}]")
        self.message.demand(True)
        self.replace(exact(name, "a cookie's name"), made)

    def __delitem__(self, name):
        cdef str wanted = exact(name, "a cookie's name")
        self.message.demand(True)
        if not self.replace(wanted, None):
            raise KeyError(name)


# The cookies of one field without those called `name`, the first of which becomes `made`.
cdef list _pieces(Slice value, Slice name, bytes made, bint* here):
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef list kept = []
    cdef bytes field = value.at[:value.bytes]
    here[0] = False
    cookie_begin(&cursor, PyBytes_AS_STRING(field), <uint32_t> PyBytes_GET_SIZE(field))
    while cookie_next(&cursor, &pair):
        if pair.name.bytes == name.bytes and (
                pair.name.at[:pair.name.bytes] == name.at[:name.bytes]):
            here[0] = True
            if made is not None:
                kept.append(made)
                made = None
        else:
            kept.append(pair.start[:pair.end - pair.start])
    return kept


# --- what a response sets -----------------------------------------------------------------

ATTRIBUTES = (
    ("Path", "path"), ("Domain", "domain"), ("Max-Age", "max_age"), ("Expires", "expires"),
    ("Secure", "secure"), ("HttpOnly", "http_only"), ("SameSite", "same_site"),
    ("Partitioned", "partitioned"),
)


# "; Name=value", "; Name", or nothing, by what the value is.
cdef bytes _attribute(object name, object value, str what):
    cdef bytes left = text_in(name, what)
    cdef bytes right
    check_name(PyBytes_AS_STRING(left), PyBytes_GET_SIZE(left), what)
    if value is None or value is False:
        return b""
    if value is True:
        return b"; " + left
    if isinstance(value, int):
        if int.bit_length(value) > AGE_BITS_MAX:
            raise wrong_value(what, "an int of this size is no age")
        right = int.__repr__(value).encode()
    elif isinstance(value, str):
        right = text_in(value, what)
        check_value(PyBytes_AS_STRING(right), PyBytes_GET_SIZE(right), what)
        if b";" in right:
            raise wrong_value(what, f"';' would end the attribute ({shown(value)})")
    else:
        raise wrong_type(what, "str, int or bool", value)
    return b"; " + left + b"=" + right


cdef list _attributes(bytes text):
    # "; a=1; B" -> [("; a=1", "a"), ("; B", "b")]
    cdef list found = []
    for piece in text.split(b";")[1:]:
        name = (<bytes> piece).partition(b"=")[0].strip(b" \t")
        found.append((b";" + piece, name.decode("utf-8", "surrogateescape").lower()))
    return found


# The first one of that name becomes `made`, others of it go; without one it comes last.
cdef bytes _attributes_put(bytes text, str name, bytes made):
    cdef list kept = []
    cdef bint used = False
    for piece, known in _attributes(text):
        if known != name:
            kept.append(piece)
        elif not used:
            kept.append(made)
            used = True
    if not used:
        kept.append(made)
    return b"".join(kept)


@cython.final
cdef class SetCookies(View):
    """The cookies that a response sets; see `fastlb.rules`."""

    cdef list places(self, str name):
        cdef list found = []
        cdef ParsedCookie parsed
        cdef Line line
        cdef Py_ssize_t i
        self.message.demand(False)
        for i in range(self.message.count()):
            self.message.line(i, &line)
            if line.id == FIELD_SET_COOKIE and set_cookie_parse(&parsed, line.value.at,
                                                                line.value.bytes):
                known = text_of(parsed.name)
                if name is None or known == name:
                    found.append((i, known))
        return found

    cdef list pairs(self):
        cdef list found = []
        cdef dict seen = {}
        for _, name in self.places(None):
            nth = seen.get(name, 0)
            seen[name] = nth + 1
            found.append((name, _made(self.message, name, nth)))
        return found

    cdef list every(self, object name):
        cdef str wanted = exact(name, "a cookie's name")
        return [_made(self.message, wanted, nth) for nth in range(len(self.places(wanted)))]

    cdef object first(self, object name):
        cdef str wanted = exact(name, "a cookie's name")
        return _made(self.message, wanted, 0) if self.places(wanted) else None

    def __setitem__(self, name, value):
        cdef bytes made = _pair(name, value, f"response.cookies[{shown(name)}]")
        cdef SetCookie cookie = self.first(name)
        self.message.demand(True)
        if cookie is None:
            self.message.append(b"Set-Cookie", made)
        else:
            cookie.value = value

    def __delitem__(self, name):
        cdef str wanted = exact(name, "a cookie's name")
        cdef list places
        self.message.demand(True)
        places = self.places(wanted)
        if not places:
            raise KeyError(name)
        for place, _ in reversed(places):
            self.message.remove(place)

    def set(self, name, value, *, path="/", domain=None, max_age=None, expires=None, secure=None,
            http_only=None, same_site=None, partitioned=None):
        cdef str what = f"response.cookies[{shown(name)}]"
        cdef bytes made = _pair(name, value, what)
        cdef dict given = {"path": path, "domain": domain, "max_age": max_age, "expires": expires,
                           "secure": secure, "http_only": http_only, "same_site": same_site,
                           "partitioned": partitioned}
        cdef list places
        for attribute, key in ATTRIBUTES:
            made += _attribute(attribute, given[key], f"{what}, {key}")
        self.message.demand(True)
        places = self.places(exact(name, what))
        if places:
            self.message.put(places[0][0], b"Set-Cookie", made)
            for place, _ in reversed(places[1:]):
                self.message.remove(place)
        else:
            self.message.append(b"Set-Cookie", made)

    def expire(self, name, *, path="/", domain=None):
        self.set(name, "", path=path, domain=domain, max_age=0, expires=PAST.decode("ascii"))


cdef SetCookie _made(Message message, str name, Py_ssize_t nth):
    cdef SetCookie cookie = SetCookie.__new__(SetCookie)
    cookie.message = message
    cookie.known = name
    cookie.nth = nth
    return cookie


@cython.final
cdef class SetCookie:
    """One cookie that a response sets; see `fastlb.rules`."""

    def __cinit__(self):
        self.message = view_nobody()

    def __reduce__(self):
        raise TypeError("SetCookie cannot be copied: it ends with its rule")

    cdef Py_ssize_t place(self) except -1:
        cdef SetCookies all_of = SetCookies.__new__(SetCookies)
        cdef list places
        all_of.message = self.message
        places = all_of.places(self.known)
        if self.nth >= len(places):
            raise KeyError(self.known)
        return places[self.nth][0]

    # The field's value, and where its attributes begin.
    cdef tuple text(self):
        cdef Line line
        cdef ParsedCookie parsed
        cdef Py_ssize_t i = self.place()
        self.message.line(i, &line)
        set_cookie_parse(&parsed, line.value.at, line.value.bytes)
        return (i, line.value.at[:line.value.bytes], parsed.attributes - line.value.at,
                text_of(parsed.value))

    @property
    def name(self):
        return self.known

    @property
    def value(self):
        return self.text()[3]

    @value.setter
    def value(self, value):
        cdef bytes made = _pair(self.known, value, f"response.cookies[{shown(self.known)}].value")
        i, text, attributes, _ = self.text()
        self.message.demand(True)
        self.message.put(i, b"Set-Cookie", made + text[attributes:])

    # In lower case, to the name as it stands and the value. The last one counts (RFC 6265 5.3).
    cdef dict attributes(self):
        cdef dict found = {}
        _, text, begin, _ = self.text()
        for piece, known in _attributes(text[begin:]):
            name, equals, value = (<bytes> piece)[1:].partition(b"=")
            shown_name = name.strip(b" \t").decode("utf-8", "surrogateescape")
            if known:
                found[known] = (shown_name, value.strip(b" \t").decode("utf-8", "surrogateescape")
                                if equals else True)
        return found

    def get(self, name, default=None):
        found = self.attributes().get(exact(name, "an attribute's name").lower())
        return default if found is None else found[1]

    def items(self):
        return list(self.attributes().values())

    def keys(self):
        return [name for name, _ in self.items()]

    def values(self):
        return [value for _, value in self.items()]

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.attributes())

    def __bool__(self):
        return True

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name):
        return self.get(name) is not None

    def __setitem__(self, name, value):
        cdef str what = f"response.cookies[{shown(self.known)}][{shown(name)}]"
        cdef bytes made = _attribute(name, value, what)
        cdef str wanted = exact(name, "an attribute's name").lower()
        i, text, attributes, _ = self.text()
        self.message.demand(True)
        made = _attributes_put(text[attributes:], wanted, made)
        self.message.put(i, b"Set-Cookie", text[:attributes] + made)

    def __delitem__(self, name):
        if name not in self:
            raise KeyError(name)
        self[name] = None

    def __repr__(self):
        if self.message.call == NULL:
            return "<SetCookie of a rule that has ended>"
        return f"SetCookie({self.text()[1].decode('utf-8', 'surrogateescape')!r})"
