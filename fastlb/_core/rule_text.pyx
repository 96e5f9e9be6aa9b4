# cython: boundscheck=True
"""Texts of rules, their checks, and the words of the errors; knows no object of theirs.

    field-name    token                                                RFC 9110 5.1
    field-value   HTAB, SP, VCHAR, obs-text                            RFC 9110 5.5
    target        0x21-0x7E without "#"                                RFC 9112 3.2, as head.pyx
    cookie-octet  RFC 6265 4.1.1, and bytes from 0x80 on

What a message of an error shows of a value is never made by the value itself: only the built-in
types are shown, so that no __repr__ of a rule's object runs in the middle of a check.
"""

import math
from json.encoder import encode_basestring

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsEncodedString, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport strchr

from fastlb._core.address cimport (
    ADDRESS_TEXT_BYTES_MAX, Address, address_from_text, address_ip_text, address_is_ipv4,
    address_is_unset, address_text,
)
from fastlb._core.scan cimport (
    BYTE_HEX, scan_name_plain, scan_target_plain, scan_value_plain, byte_is,
)
from fastlb._core.slice cimport Slice, slice_of, slice_trim

from fastlb.rule_types import Node

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    SHOWN_CHARACTERS = 60
    JSON_INT_BITS = 1024             # more digits than a reader of logs can do with

cdef const char* HEX = "0123456789ABCDEF"


cdef str text_out(const char* at, Py_ssize_t count):
    return PyUnicode_DecodeUTF8(at, count, "surrogateescape")


cdef str text_of(Slice text):
    return PyUnicode_DecodeUTF8(text.at, text.bytes, "surrogateescape")


cdef str shown(object value):
    cdef str text
    kind = type(value)
    if kind is str or kind is bytes:
        text = repr(value[:SHOWN_CHARACTERS])
        return text + "..." if len(value) > SHOWN_CHARACTERS else text
    if value is None:
        return "None"
    if kind is bool or kind is float or (kind is int and value.bit_length() < 256):
        return f"{kind.__name__} ({value!r})"
    return f"{kind.__name__}"


cdef object wrong_type(str what, str expected, object found):
    return TypeError(f"{what}: expected {expected}, found {shown(found)}")


cdef object wrong_value(str what, str reason):
    return ValueError(f"{what}: {reason}")


cdef str exact(object value, str what):
    # Equality and hash of a subclass may be anything.
    if type(value) is str:
        return value
    if not isinstance(value, str):
        raise wrong_type(what, "str", value)
    return str.__str__(value)


cdef bytes text_in(object value, str what):
    if not isinstance(value, str):
        raise wrong_type(what, "str", value)
    try:
        return PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise wrong_value(what, f"character U+{code:04X} at {error.start} stands for no "
                                "text") from None


cdef object text_slice(object value, str what, Slice* out):
    cdef Py_ssize_t count = 0
    cdef bytes data
    cdef object owner = value
    if not isinstance(value, str):
        raise wrong_type(what, "str", value)
    try:
        out.at = PyUnicode_AsUTF8AndSize(value, &count)
    except UnicodeEncodeError:
        data = text_in(value, what)
        out.at = PyBytes_AS_STRING(data)
        count = PyBytes_GET_SIZE(data)
        owner = data
    out.bytes = <uint32_t> min(count, 0xFFFFFFFF)
    return owner


# --- checks -------------------------------------------------------------------------------

cdef int _refuse(const char* at, const char* bad, str what, str where) except -1:
    raise wrong_value(what, f"byte 0x{<uint8_t> bad[0]:02x} at {bad - at} may not stand in {where}")


cdef int check_name(const char* at, Py_ssize_t count, str what) except -1:
    cdef const char* bad = scan_name_plain(at, at, at + count)
    if count == 0:
        raise wrong_value(what, "a name is empty")
    if bad < at + count:
        _refuse(at, bad, what, f"a name ({shown(text_out(at, count))})")
    return 0


cdef int check_value(const char* at, Py_ssize_t count, str what) except -1:
    cdef const char* bad = scan_value_plain(at, at, at + count)
    if bad < at + count:
        _refuse(at, bad, what, f"a value ({shown(text_out(at, count))})")
    return 0


cdef int check_target(const char* at, Py_ssize_t count, str what) except -1:
    cdef const char* bad = scan_target_plain(at, at, at + count)
    if bad < at + count:
        _refuse(at, bad, what, f"a request's target ({shown(text_out(at, count))}); "
                               "percent-encode it")
    return 0


cdef int check_cookie_value(const char* at, Py_ssize_t count, str what) except -1:
    cdef const char* bad = at
    while bad < at + count:
        if <uint8_t> bad[0] <= 0x20 or bad[0] == 0x7F or bad[0] in (c'"', c',', c';', c'\\'):
            _refuse(at, bad, what, f"a cookie's value ({shown(text_out(at, count))}); "
                                   "percent-encode it")
        bad += 1
    return 0


cdef bytes field_value(object value, str what):
    cdef bytes data = text_in(value, what)
    cdef Slice trimmed
    check_value(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), what)
    if PyBytes_GET_SIZE(data) > 0xFFFFFF:
        raise wrong_value(what, f"{PyBytes_GET_SIZE(data)} bytes are too many for a field")
    trimmed = slice_trim(slice_of(PyBytes_AS_STRING(data), <uint32_t> PyBytes_GET_SIZE(data)))
    if trimmed.bytes == <uint32_t> PyBytes_GET_SIZE(data):
        return data
    return trimmed.at[:trimmed.bytes]


# --- addresses ----------------------------------------------------------------------------

cdef str address_str(const Address* a):
    cdef char[ADDRESS_TEXT_BYTES_MAX] text
    if address_is_unset(a):
        return None
    return text_out(text, address_ip_text(a, text))


cdef object node_str(const Address* a):
    cdef char[ADDRESS_TEXT_BYTES_MAX] text
    if address_is_unset(a):
        return None
    if a.port == 0:
        return Node(text_out(text, address_ip_text(a, text)))
    return Node(text_out(text, address_text(a, text)))


cdef bint _ip(Slice text, Address* out) noexcept:
    return 0 < text.bytes < ADDRESS_TEXT_BYTES_MAX and address_from_text(out, text.at, text.bytes)


cdef int parse_ip(object value, str what, Address* out) except -1:
    cdef Slice text
    _owner = text_slice(value, what, &text)
    if not _ip(text, out) or address_is_unset(out):
        raise wrong_value(what, f"expected an IP address, found {shown(value)}")
    out.port = 0
    return 0


cdef int _port(Slice text) noexcept:
    cdef int port = 0
    cdef uint32_t i
    if not 0 < text.bytes <= 5:
        return -1
    for i in range(text.bytes):
        if not c'0' <= text.at[i] <= c'9':
            return -1
        port = port * 10 + (text.at[i] - c'0')
    return port if 0 < port <= 65535 else -1


cdef int parse_node(object value, str what, Address* out) except -1:
    # "10.0.0.1", "10.0.0.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80"
    cdef Slice text, ip
    cdef int colon = -1, colons = 0, port = 0
    cdef uint32_t i
    _owner = text_slice(value, what, &text)
    ip = text
    for i in range(min(text.bytes, <uint32_t> ADDRESS_TEXT_BYTES_MAX)):
        if text.at[i] == c':':
            colon = <int> i
            colons += 1
    if colon > 0 and (colons == 1 or text.at[colon - 1] == c']'):
        port = _port(slice_of(text.at + colon + 1, text.bytes - <uint32_t> colon - 1))
        ip.bytes = <uint32_t> colon
    if ip.bytes > 2 and ip.at[0] == c'[' and ip.at[ip.bytes - 1] == c']':
        ip = slice_of(ip.at + 1, ip.bytes - 2)
    if port < 0 or not _ip(ip, out) or address_is_unset(out) or (
            ip.at != text.at and address_is_ipv4(out)):
        raise wrong_value(what, f'expected a node like "10.0.0.1:8080" or "10.0.0.1", '
                                f"found {shown(value)}")
    out.port = <unsigned short> port
    return 0


# --- percent-encoding and JSON ------------------------------------------------------------

cdef inline int _hex(char c) noexcept:
    if not byte_is(c, BYTE_HEX):
        return -1
    return c - c'0' if c <= c'9' else (c | 0x20) - c'a' + 10


cdef bytes percent_decode(const char* at, Py_ssize_t count, bint plus):
    # What is no code stays as it is.
    cdef bytes out = PyBytes_FromStringAndSize(at, count)
    cdef char* to = PyBytes_AS_STRING(out)
    cdef Py_ssize_t i = 0, used = 0
    if b"%" not in out and not (plus and b"+" in out):
        return out
    out = PyBytes_FromStringAndSize(NULL, count)
    to = PyBytes_AS_STRING(out)
    while i < count:
        if at[i] == c'%' and i + 2 < count and _hex(at[i + 1]) >= 0 and _hex(at[i + 2]) >= 0:
            to[used] = <char> (_hex(at[i + 1]) * 16 + _hex(at[i + 2]))
            i += 3
        else:
            to[used] = c' ' if plus and at[i] == c'+' else at[i]
            i += 1
        used += 1
    return to[:used]


cdef inline bint _unreserved(char c) noexcept:
    return (c'a' <= (c | 0x20) <= c'z' or c'0' <= c <= c'9' or c == c'-' or c == c'.'
            or c == c'_' or c == c'~')


cdef bytes percent_encode(const char* at, Py_ssize_t count, const char* also):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 3 * count)
    cdef char* to = PyBytes_AS_STRING(out)
    cdef Py_ssize_t i, used = 0
    for i in range(count):
        if _unreserved(at[i]) or (at[i] != 0 and strchr(also, at[i]) != NULL):
            to[used] = at[i]
            used += 1
            continue
        to[used] = c'%'
        to[used + 1] = HEX[<uint8_t> at[i] >> 4]
        to[used + 2] = HEX[<uint8_t> at[i] & 15]
        used += 3
    return to[:used]


cdef str _json(object text, str what):
    # Bytes that are no text have no place in JSON. U+007F would pass, but not on a terminal.
    cdef str readable = text_in(text, what).decode("utf-8", "replace")
    readable = encode_basestring(readable)
    return readable.replace("\x7f", "\\u007f") if "\x7f" in readable else readable


cdef bytes json_member(str name, object value, str what):
    """`"name":value`; `value` is a str, bool, int or float."""
    cdef str text
    if isinstance(value, str):
        text = _json(value, what)
    elif value is True or value is False:
        text = "true" if value else "false"
    elif isinstance(value, int):
        if int.bit_length(value) > JSON_INT_BITS:
            raise wrong_value(what, f"an int of {int.bit_length(value)} bits is too large")
        text = int.__repr__(value)
    elif isinstance(value, float):
        text = float.__repr__(value)
        if not math.isfinite(value):
            raise wrong_value(what, f"expected a finite number, not {text}")
    else:
        raise wrong_type(what, "str, int, float or bool", value)
    return (_json(name, what) + ":" + text).encode()
