"""Reads Cookie and Set-Cookie values, and finds the cuts that take cookies out of a request.

    cookie-string     = cookie-pair *( ";" SP cookie-pair )            RFC 6265 4.2.1
    set-cookie-string = cookie-pair *( ";" SP cookie-av )              RFC 6265 4.1.1

Reads far more than that grammar, as servers and browsers do (RFC 6265 5.2, 5.4): any bytes in
names and values, white space around "=" and ";", pieces without "=", empty pieces. Beyond it, for
old clients and for proxies that fold several Cookie lines into one with commas:
  - "," separates where a token and "=" follow it, and not inside double quotes: "a=1, b=2" are two
    cookies, "a=1,2" and a="1, b=2" are one. A Set-Cookie value ends by the same rule, so that an
    id reads equal in the response that sets it and in the request that brings it back.
  - ";" always separates, also inside double quotes: a browser has no quotes, and a cookie with a
    lone quote must not hide the cookies after it.
  - Of RFC 2965, $Version, $Path, $Domain, $Port are no cookies; the last three belong to the
    cookie before them and go with it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memset

from fastlb._core.debug cimport likely
from fastlb._core.edit cimport EDIT_FULL, HeadEdit, edit_cut
from fastlb._core.message cimport FIELD_COOKIE, Head, head_next, head_value
from fastlb._core.scan cimport scan_name, scan_pair
from fastlb._core.slice cimport Slice, slice_equal_fold, slice_of, slice_trim


cdef inline bint _is_white(char c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline const char* _skip_white(const char* p, const char* end) noexcept nogil:
    while p < end and _is_white(p[0]):
        p += 1
    return p


cdef inline Slice _between(const char* p, const char* end) noexcept nogil:
    return slice_of(p, <uint32_t>(end - p))


# The quote that closes the one at `p`: the first with only white space between it and a separator.
cdef const char* _closing_quote(const char* p, const char* end) noexcept nogil:
    cdef const char* after
    p += 1
    while p < end and p[0] != c';':
        if p[0] == c'"':
            after = _skip_white(p + 1, end)
            if after == end or after[0] == c';' or after[0] == c',':
                return p
        p += 1
    return NULL


# Does the comma at `comma` end the piece that begins at `start`?
cdef bint _comma_separates(const char* start, const char* comma, const char* end) noexcept nogil:
    cdef const char* p = <const char*>memchr(start, c'=', comma - start)
    if p != NULL:
        p = _skip_white(p + 1, comma)
        if p[0] == c'"':
            p = _closing_quote(p, end)
            if p != NULL and comma < p:
                return False
    p = _skip_white(comma + 1, end)
    start = p
    p = scan_name(start, p, end)
    if p == start:
        return False
    p = _skip_white(p, end)
    return p < end and p[0] == c'='


# Where the piece at `p` ends: at a separator or `end`. [base, end) is readable.
cdef inline const char* _piece_end(
    const char* base, const char* p, const char* end
) noexcept nogil:
    cdef const char* stop = scan_pair(base, p, end)
    while stop < end and stop[0] == c',' and not _comma_separates(p, stop, end):
        stop = scan_pair(base, stop + 1, end)
    return stop


cdef inline Slice _unquoted(Slice value, bint* quoted) noexcept nogil:
    value = slice_trim(value)
    quoted[0] = value.bytes >= 2 and value.at[0] == c'"' and value.at[value.bytes - 1] == c'"'
    if quoted[0]:
        return slice_of(value.at + 1, value.bytes - 2)
    return value


# Splits the piece [start, stop) at its first '='; False when it has none.
cdef inline bint _split(
    const char* start, const char* stop, Slice* name, Slice* value, bint* quoted
) noexcept nogil:
    cdef const char* p = start
    while p < stop and p[0] != c'=':
        p += 1
    if p == stop:
        name[0] = slice_of(start, 0)
        value[0] = _unquoted(_between(start, stop), quoted)
        return False
    name[0] = slice_trim(_between(start, p))
    value[0] = _unquoted(_between(p + 1, stop), quoted)
    return True


cdef bint _is_version(Slice name) noexcept nogil:
    return slice_equal_fold(name, "$version", 8)


cdef bint _is_attribute(Slice name) noexcept nogil:
    return (
        slice_equal_fold(name, "$path", 5) or slice_equal_fold(name, "$domain", 7)
        or slice_equal_fold(name, "$port", 5)
    )


cdef void cookie_begin(CookieCursor* cursor, const char* value, uint32_t count) noexcept nogil:
    cursor.start = value
    cursor.at = value
    cursor.end = value + count
    cursor.separator = NULL


# The next piece that is not empty, whatever its name: pair.start, end and separator.
cdef inline bint _piece_next(CookieCursor* cursor, CookiePair* pair) noexcept nogil:
    # Of several separators in a row a semicolon counts: not every comma separates.
    cdef const char* p = cursor.at
    cdef const char* end = cursor.end
    cdef bint semicolon = False
    while p < end and (_is_white(p[0]) or p[0] == c';' or p[0] == c','):
        if p[0] == c';' or (p[0] == c',' and not semicolon):
            cursor.separator = p
            semicolon |= p[0] == c';'
        p += 1
    pair.start = p
    pair.separator = cursor.separator
    if p == end:
        cursor.at = end
        return False
    p = _piece_end(cursor.start, p, end)
    cursor.at = p
    while _is_white((p - 1)[0]):
        p -= 1
    pair.end = p
    return True


cdef inline void _pair_split(CookiePair* pair) noexcept nogil:
    _split(pair.start, pair.end, &pair.name, &pair.value, &pair.quoted)


# Is the piece [start, end) a cookie of this name? Without splitting it: most are not, and nearly
# all of those differ in what follows the name's length.
cdef inline bint _is_named(const char* start, const char* end, Slice name) noexcept nogil:
    cdef const char* after = start + name.bytes
    if after >= end or (after[0] != c'=' and not _is_white(after[0])):
        return False
    if memcmp(start, name.at, name.bytes) != 0:
        return False
    after = _skip_white(after, end)
    return after < end and after[0] == c'='


# Joins the $Path, $Domain, $Port that follow to the pair.
cdef void _join_attributes(CookieCursor* cursor, CookiePair* pair) noexcept nogil:
    cdef CookieCursor ahead = cursor[0]
    cdef CookiePair attribute
    while _piece_next(&ahead, &attribute) and attribute.start[0] == c'$':
        _pair_split(&attribute)
        if not _is_attribute(attribute.name):
            return
        pair.end = attribute.end
        cursor[0] = ahead


cdef inline bint _is_old_attribute(CookiePair* pair) noexcept nogil:
    if likely(pair.start[0] != c'$'):
        return False
    _pair_split(pair)
    return _is_version(pair.name) or _is_attribute(pair.name)


cdef bint cookie_next(CookieCursor* cursor, CookiePair* pair) noexcept nogil:
    while _piece_next(cursor, pair):
        if not _is_old_attribute(pair):
            _pair_split(pair)
            _join_attributes(cursor, pair)
            return True
    return False


cdef int cookie_next_of(
    CookieCursor* cursor, const Slice* names, uint32_t count, CookiePair* pair
) noexcept nogil:
    cdef uint32_t i
    while _piece_next(cursor, pair):
        for i in range(count):
            if _is_named(pair.start, pair.end, names[i]) and not _is_old_attribute(pair):
                _pair_split(pair)
                _join_attributes(cursor, pair)
                return <int>i
    return -1


cdef bint cookie_next_named(
    CookieCursor* cursor, Slice name, CookiePair* pair
) noexcept nogil:
    return cookie_next_of(cursor, &name, 1, pair) == 0


cdef int cookie_find(
    const Head* head, const char* buf, Slice name, uint32_t nth, CookiePair* pair
) noexcept nogil:
    cdef CookieCursor cursor
    cdef Slice value
    cdef int field = head.first[FIELD_COOKIE]
    while field >= 0:
        value = head_value(head, buf, field)
        cookie_begin(&cursor, value.at, value.bytes)
        while cookie_next_named(&cursor, name, pair):
            if nth == 0:
                return field
            nth -= 1
        field = head_next(head, field)
    return -1


cdef uint32_t cookie_count(const Head* head, const char* buf, Slice name) noexcept nogil:
    cdef CookiePair pair
    cdef uint32_t count = 0
    while cookie_find(head, buf, name, count, &pair) >= 0:
        count += 1
    return count


cdef inline bint _is_one_of(
    const CookiePair* pair, const Slice* names, uint32_t count
) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if _is_named(pair.start, pair.end, names[i]):
            return True
    return False


# One field. What is cut always takes one separator with it: the one before, or at the beginning
# of the value the one after; the separator before a cookie that stays, stays with it.
cdef int _field_cut(
    const Head* head, const char* buf, uint32_t field, const Slice* names, uint32_t name_count,
    HeadEdit* edit,
) noexcept nogil:
    cdef Slice value = head_value(head, buf, field)
    cdef const char* cut_start = NULL    # of a run of cookies to take out, while in one
    cdef const char* kept_end = NULL     # of the last cookie that stays
    cdef CookieCursor cursor
    cdef CookiePair pair
    cdef const char* stop
    cdef int taken = 0
    cookie_begin(&cursor, value.at, value.bytes)
    while _piece_next(&cursor, &pair):
        if _is_old_attribute(&pair):
            # It goes or stays with the cookie before it; $Version is nobody's.
            if cut_start == NULL and kept_end != NULL and not _is_version(pair.name):
                kept_end = pair.end
        elif _is_one_of(&pair, names, name_count):
            taken += 1
            if cut_start == NULL:
                cut_start = kept_end
                if kept_end == NULL:
                    # $Version before the first cookie stays.
                    cut_start = pair.start if value.at[0] == c'$' else value.at
        else:
            if cut_start != NULL:
                stop = pair.start if kept_end == NULL else pair.separator
                if edit_cut(edit, <uint32_t>(cut_start - buf), <uint32_t>(stop - buf)) < 0:
                    return EDIT_FULL
                cut_start = NULL
            kept_end = pair.end
    if cut_start == NULL:
        return taken
    if kept_end == NULL:
        if edit_cut(edit, head.fields[field].start, head.fields[field].end) < 0:
            return EDIT_FULL
    elif edit_cut(edit, <uint32_t>(cut_start - buf), <uint32_t>(cursor.end - buf)) < 0:
        return EDIT_FULL
    return taken


cdef int cookie_cut(
    const Head* head, const char* buf, const Slice* names, uint32_t name_count, HeadEdit* edit
) noexcept nogil:
    cdef int field = head.first[FIELD_COOKIE]
    cdef int taken = 0
    cdef int result
    while field >= 0:
        result = _field_cut(head, buf, field, names, name_count, edit)
        if result < 0:
            return result
        taken += result
        field = head_next(head, field)
    return taken

# ---------------------------------------------------------------------------------------------
# Set-Cookie.

cdef int64_t AGE_S_MAX = 1 << 40     # ages beyond this are all the same: never


# Max-Age = [ "-" ] 1*DIGIT; anything else is ignored (RFC 6265 5.2.2).
cdef bint _max_age(Slice text, int64_t* age_s) noexcept nogil:
    cdef int64_t age = 0
    cdef uint32_t i = 0
    cdef bint negative = text.bytes > 0 and text.at[0] == c'-'
    if negative:
        i = 1
    if i == text.bytes:
        return False
    while i < text.bytes:
        if not c'0' <= text.at[i] <= c'9':
            return False
        age = min(age * 10 + (text.at[i] - c'0'), AGE_S_MAX)
        i += 1
    age_s[0] = -age if negative else age
    return True


cdef uint8_t _same_site(Slice text) noexcept nogil:
    if slice_equal_fold(text, "strict", 6):
        return SAME_SITE_STRICT
    if slice_equal_fold(text, "lax", 3):
        return SAME_SITE_LAX
    return SAME_SITE_NONE if slice_equal_fold(text, "none", 4) else SAME_SITE_UNKNOWN


# One attribute; the last one of a name counts (RFC 6265 5.3).
cdef void _attribute(SetCookie* cookie, Slice name, Slice value) noexcept nogil:
    if slice_equal_fold(name, "path", 4):
        cookie.path = value
    elif slice_equal_fold(name, "domain", 6):
        if value.bytes:
            cookie.domain = value
    elif slice_equal_fold(name, "secure", 6):
        cookie.flags |= SET_COOKIE_SECURE
    elif slice_equal_fold(name, "httponly", 8):
        cookie.flags |= SET_COOKIE_HTTP_ONLY
    elif slice_equal_fold(name, "partitioned", 11):
        cookie.flags |= SET_COOKIE_PARTITIONED
    elif slice_equal_fold(name, "samesite", 8):
        cookie.same_site = _same_site(value)
    elif slice_equal_fold(name, "max-age", 7):
        if _max_age(value, &cookie.max_age_s):
            cookie.flags |= SET_COOKIE_MAX_AGE
    elif slice_equal_fold(name, "expires", 7):
        if cookie_date_parse(value.at, value.bytes, &cookie.expires_s):
            cookie.flags |= SET_COOKIE_EXPIRES


cdef bint set_cookie_parse(SetCookie* cookie, const char* value, uint32_t count) noexcept nogil:
    cdef const char* end = value + count
    cdef const char* p = _skip_white(value, end)
    cdef const char* stop = _piece_end(value, p, end)
    cdef const char* piece_stop
    cdef Slice name, piece
    cdef bint quoted
    memset(cookie, 0, sizeof(SetCookie))
    if not _split(p, stop, &cookie.name, &cookie.value, &quoted) or cookie.name.bytes == 0:
        return False
    cookie.flags = SET_COOKIE_QUOTED if quoted else 0
    stop = <const char*>memchr(stop, c';', end - stop)
    cookie.attributes = end if stop == NULL else stop
    cookie.attributes_bytes = <uint32_t>(end - cookie.attributes)
    while stop != NULL and stop < end:
        p = stop + 1
        stop = <const char*>memchr(p, c';', end - p)
        piece_stop = end if stop == NULL else stop
        if not _split(p, piece_stop, &name, &piece, &quoted):
            name = slice_trim(_between(p, piece_stop))
            piece = slice_of(p, 0)
        _attribute(cookie, name, piece)
    return True


cdef bint set_cookie_expired(const SetCookie* cookie, int64_t now_s) noexcept nogil:
    if cookie.flags & SET_COOKIE_MAX_AGE:
        return cookie.max_age_s <= 0
    return cookie.flags & SET_COOKIE_EXPIRES != 0 and cookie.expires_s <= now_s

# ---------------------------------------------------------------------------------------------
# Dates (RFC 6265 5.1.1): tokens in any order, the first that fits each part is it.

ctypedef struct DateParts:
    int hour, minute, second         # -1: not seen; so all
    int day
    int month                        # 1..12
    int year


cdef inline bint _is_digit(char c) noexcept nogil:
    return c'0' <= c <= c'9'


cdef inline bint _is_delimiter(char c) noexcept nogil:
    cdef uint8_t byte = <uint8_t>c
    return (
        byte == 0x09 or 0x20 <= byte <= 0x2f or 0x3b <= byte <= 0x40 or 0x5b <= byte <= 0x60
        or 0x7b <= byte <= 0x7e
    )


# `low` to `high` digits at the beginning, then no digit. The number, or -1; `used`: the digits.
cdef int _number(const char* p, uint32_t count, uint32_t low, uint32_t high, uint32_t* used
                 ) noexcept nogil:
    cdef uint32_t i = 0
    cdef int number = 0
    while i < count and i < high and _is_digit(p[i]):
        number = number * 10 + (p[i] - c'0')
        i += 1
    used[0] = i
    if i < low or (i < count and _is_digit(p[i])):
        return -1
    return number


# time-field ":" time-field ":" time-field, each 1*2DIGIT, then anything but a digit
cdef bint _date_time(DateParts* date, const char* p, uint32_t count) noexcept nogil:
    cdef int parts[3]
    cdef uint32_t used
    cdef int i
    for i in range(3):
        if i > 0:
            if count == 0 or p[0] != c':':
                return False
            p += 1
            count -= 1
        parts[i] = _number(p, count, 1, 2, &used)
        if parts[i] < 0:
            return False
        p += used
        count -= used
    date.hour = parts[0]
    date.minute = parts[1]
    date.second = parts[2]
    return True


cdef int _month(const char* p, uint32_t count) noexcept nogil:
    cdef const char* months = "janfebmaraprmayjunjulaugsepoctnovdec"
    cdef int i
    if count < 3:
        return -1
    for i in range(12):
        if slice_equal_fold(slice_of(p, 3), months + 3 * i, 3):
            return i + 1
    return -1


cdef void _date_token(DateParts* date, const char* p, uint32_t count) noexcept nogil:
    cdef uint32_t used
    if date.hour < 0 and _date_time(date, p, count):
        return
    if date.day < 0:
        date.day = _number(p, count, 1, 2, &used)
        if date.day >= 0:
            return
    if date.month < 0:
        date.month = _month(p, count)
        if date.month >= 0:
            return
    if date.year < 0:
        date.year = _number(p, count, 2, 4, &used)


cdef int _days_in_month(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


# Days from 1970-01-01, of the Gregorian calendar; years begin in March so that the leap day is
# the last of its year.
cdef int64_t _days(int year, int month, int day) noexcept nogil:
    cdef int64_t y = year - (1 if month <= 2 else 0)
    cdef int64_t m = month + (9 if month <= 2 else -3)
    return 365 * y + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 + day - 1 - 719468


cdef bint cookie_date_parse(const char* text, uint32_t count, int64_t* epoch_s) noexcept nogil:
    cdef DateParts date
    cdef uint32_t i = 0
    cdef uint32_t start
    memset(&date, 0xff, sizeof(date))
    while i < count:
        if _is_delimiter(text[i]):
            i += 1
            continue
        start = i
        while i < count and not _is_delimiter(text[i]):
            i += 1
        _date_token(&date, text + start, i - start)
    if date.hour < 0 or date.day < 0 or date.month < 0 or date.year < 0:
        return False
    if 70 <= date.year <= 99:
        date.year += 1900
    elif date.year <= 69:
        date.year += 2000
    if date.year < 1601 or date.hour > 23 or date.minute > 59 or date.second > 59:
        return False
    if date.day < 1 or date.day > _days_in_month(date.year, date.month):
        return False
    epoch_s[0] = (
        _days(date.year, date.month, date.day) * 86400
        + date.hour * 3600 + date.minute * 60 + date.second
    )
    return True
