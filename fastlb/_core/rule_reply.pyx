# cython: boundscheck=True
"""Own answers of rules. The status line, Date, framing and Connection are fastlb's; the rest is the
rule's, with two lines that are put in unless it says otherwise: Content-Type where there is a
body, and `Cache-Control: no-store`, since an answer for one user is none for the next.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.field cimport field_id
from fastlb._core.head cimport (
    FIELD_CACHE_CONTROL, FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_CONTENT_TYPE, FIELD_DATE,
    FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING,
    FIELD_UPGRADE,
)
from fastlb._core.limits cimport RULE_EDITS_MAX, RULE_REPLY_BYTES_MAX
from fastlb._core.rule_text cimport (
    check_name, field_value, percent_encode, shown, text_in, wrong_type, wrong_value,
)

cdef enum:
    REPLY_HEAD_BYTES_MAX = 32768
cdef const char* URL_STAYS = "%!#$&'()*+,/:;=?@[]"
REDIRECTS = (301, 302, 303, 307, 308)


cdef int _status(object status, str what) except -1:
    if not isinstance(status, int) or isinstance(status, bool):
        raise wrong_type(what, "int", status)
    if not 200 <= status <= 599:
        raise wrong_value(what, f"expected 200 to 599, found {shown(status)}")
    return status


cdef bytes reply_body_of(object body):
    cdef bytes data
    if isinstance(body, str):
        data = text_in(body, "respond(body)")
    elif isinstance(body, (bytes, bytearray, memoryview)):
        data = bytes(body)
    else:
        raise wrong_type("respond(body)", "bytes or str", body)
    if len(data) > RULE_REPLY_BYTES_MAX:
        raise wrong_value("respond(body)", f"{len(data)} bytes are too many; "
                                           f"{<int> RULE_REPLY_BYTES_MAX} is the most")
    return data


cdef uint8_t _known(bytes name) noexcept:
    return field_id(PyBytes_AS_STRING(name), <uint32_t> PyBytes_GET_SIZE(name))


# (name, value) pairs of a mapping or an iterable of pairs, checked.
cdef list _lines(object headers):
    cdef list lines = []
    cdef bytes field
    if headers is None:
        return lines
    if isinstance(headers, (str, bytes)):
        raise wrong_type("respond(headers)", "a mapping or pairs of str", headers)
    pairs = headers.items() if hasattr(headers, "items") else headers
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise wrong_type("respond(headers)", "pairs of str", pair)
        name, value = pair
        what = f"respond(headers), {shown(name)}"
        field = text_in(name, what)
        check_name(PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field), what)
        if _known(field) in (FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING, FIELD_CONNECTION,
                             FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION, FIELD_TE, FIELD_TRAILER,
                             FIELD_UPGRADE, FIELD_DATE):
            raise wrong_value(what, "fastlb writes this field itself")
        lines.append((field, field_value(value, what)))
        if len(lines) > RULE_EDITS_MAX:
            raise wrong_value("respond(headers)", f"{<int> RULE_EDITS_MAX} fields are the most")
    return lines


cdef bytes _joined(list lines):
    cdef bytes text = b"".join([b"%b: %b\r\n" % line for line in lines])
    if len(text) > REPLY_HEAD_BYTES_MAX:
        raise wrong_value("respond(headers)", f"{len(text)} bytes are too many; "
                                              f"{<int> REPLY_HEAD_BYTES_MAX} is the most")
    return text


cdef bytes reply_fields_of(object status, object headers, object content_type, bytes body,
                           int* code):
    cdef list lines
    code[0] = _status(status, "respond(status)")
    if body and (code[0] == 204 or code[0] == 304):
        raise wrong_value("respond(body)", f"a {code[0]} has none")
    lines = _lines(headers)
    known = {_known(name) for name, _ in lines}
    if content_type is not None:
        lines = [line for line in lines if _known(line[0]) != FIELD_CONTENT_TYPE]
        lines.append((b"Content-Type", field_value(content_type, "respond(content_type)")))
    elif body and FIELD_CONTENT_TYPE not in known:
        lines.append((b"Content-Type", b"text/plain; charset=utf-8"))
    if FIELD_CACHE_CONTROL not in known:
        lines.append((b"Cache-Control", b"no-store"))
    return _joined(lines)


cdef bytes redirect_fields(object status, object url, int* code):
    cdef bytes text = field_value(url, "redirect(url)")
    code[0] = _status(status, "redirect(status)")
    if code[0] not in REDIRECTS:
        raise wrong_value("redirect(status)", f"expected one of {REDIRECTS}, found {shown(status)}")
    if not text:
        raise wrong_value("redirect(url)", "is empty")
    text = percent_encode(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), URL_STAYS)
    return _joined([(b"Location", text), (b"Cache-Control", b"no-store")])
