# The access log (fields: docs/operations.md).
#
# Lines gather in memory and go out in one write per turn of the loop. On a pipe or a socket
# at most PIPE_BUF bytes are written at once, since only those stay whole among several
# writers (pipe(7)). What the descriptor does not take at once is dropped by whole lines and
# counted: a full disk or a stuck reader must not stop the proxy.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, strlen

from fastlb._core cimport system
from fastlb._core.address cimport (
    ADDRESS_TEXT_BYTES_MAX, Address, address_ip_text, address_is_unset, address_text,
)
from fastlb._core.arena cimport arena_slice
from fastlb._core.connection cimport AccessLog, Exchange, TlsStream, Worker
from fastlb._core.debug cimport unlikely
from fastlb._core.decision cimport decision_node_name
from fastlb._core.head cimport head_error_name
from fastlb._core.outcome cimport (
    CAUSE_HANDSHAKE_FAILED, CAUSE_NODE_HANDSHAKE, cause_name, found_in_name, outcome_name,
)
from fastlb._core.plan cimport LOG_COMBINED, Plan, PlanRule, Text, plan_class, plan_text
from fastlb._core.request cimport request_head_at
from fastlb._core.rule_state cimport rules_decided_by, rules_target
from fastlb._core.slice cimport Slice, slice_equal, slice_of
from fastlb._core.tls_library cimport tls

cdef extern from * nogil:
    """
    #include <sys/stat.h>
    #include <time.h>
    #include <stdint.h>
    #include <limits.h>
    static int fastlb_is_regular(int fd)
    {
        struct stat about;
        return fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
    }
    /* "2026-01-31T12:00:00" or, for the combined format, "31/Jan/2026:12:00:00 +0000" */
    static uint32_t fastlb_date(uint32_t seconds, int combined, char *out, uint32_t room)
    {
        time_t when = (time_t)seconds;
        struct tm parts;
        gmtime_r(&when, &parts);
        return (uint32_t)strftime(out, room, combined ? "%d/%b/%Y:%H:%M:%S +0000"
                                                       : "%Y-%m-%dT%H:%M:%S", &parts);
    }
    """
    bint fastlb_is_regular(int fd) noexcept
    uint32_t fastlb_date(uint32_t seconds, int combined, char* out, uint32_t room) noexcept
    enum: PIPE_BUF

cdef enum:
    RULE_REST_BYTES = 1024           # a rule's name, and what stands around its fields
    TLS13 = 0x0304                   # TlsStream.version

cdef char[32] _date                  # of _date_s, since most lines share their second
cdef uint32_t _date_bytes = 0
cdef uint32_t _date_s = 0
cdef bint _date_combined = False
cdef bint _cut = False               # the file ends in the middle of a line


cdef bint access_log_open(AccessLog* log, int fd, bint is_socket) noexcept nogil:
    log.used = 0
    log.text = NULL
    return _use(log, fd, is_socket)


cdef bint _use(AccessLog* log, int fd, bint is_socket) noexcept nogil:
    global _cut
    _cut = False
    log.fd = fd
    log.is_socket = is_socket
    if fd < 0:
        return True
    log.batch = ACCESS_LOG_BYTES - ACCESS_LINE_BYTES_MAX if fastlb_is_regular(fd) else PIPE_BUF
    if log.text == NULL:
        log.text = <char*> malloc(ACCESS_LOG_BYTES)
    return log.text != NULL


cdef void access_log_close(AccessLog* log) noexcept nogil:
    if log.fd >= 0:
        system.close(log.fd)
        log.fd = -1
    free(log.text)
    log.text = NULL


cdef void access_log_reopen(Worker* w, int fd, bint is_socket) noexcept nogil:
    # The new one may be of another kind, and there may have been none.
    access_log_flush(w)
    access_log_close(&w.log)
    if not access_log_open(&w.log, fd, is_socket):
        access_log_close(&w.log)


# --- writing ------------------------------------------------------------------------------

cdef uint32_t _line_bytes(const char* at, uint32_t count) noexcept nogil:
    cdef const char* newline = <const char*> memchr(at, c'\n', count)
    return count if newline == NULL else <uint32_t> (newline - at) + 1


cdef uint32_t _lines_up_to(const char* at, uint32_t count, uint32_t most) noexcept nogil:
    # As many whole lines as fit into `most` bytes, at least one.
    cdef uint32_t total = _line_bytes(at, count), more
    while total < count:
        more = _line_bytes(at + total, count - total)
        if total + more > most:
            break
        total += more
    return total


cdef uint32_t _count_lines(const char* at, uint32_t count) noexcept nogil:
    cdef uint32_t lines = 0, done = 0
    while done < count:
        done += _line_bytes(at + done, count - done)
        lines += 1
    return lines


# Ends a line that a full disk has cut, so that the next one is whole.
cdef bint _end_cut_line(AccessLog* log) noexcept nogil:
    global _cut
    _cut = system.write(log.fd, "\n", 1) != 1
    return not _cut


cdef void access_log_flush(Worker* w) noexcept nogil:
    global _cut
    cdef AccessLog* log = &w.log
    cdef uint32_t at = 0, part
    cdef ssize_t written
    if _cut and not _end_cut_line(log):
        w.stats.log_lines_dropped += _count_lines(log.text, log.used)
        log.used = 0
        return
    while at < log.used:
        if log.is_socket:
            part = _line_bytes(log.text + at, log.used - at)
            written = system.send(log.fd, log.text + at, part,
                                  system.MSG_DONTWAIT | system.MSG_NOSIGNAL)
        else:
            part = _lines_up_to(log.text + at, log.used - at, log.batch)
            written = system.write(log.fd, log.text + at, part)
        if written < 0 and system.errno == system.EINTR:
            continue
        if written < 0:
            w.stats.log_lines_dropped += _count_lines(log.text + at, log.used - at)
            break
        if <uint32_t> written < part:
            # A disk that filled up, perhaps in the middle of a line.
            _cut = written and log.text[at + written - 1] != c"\n"
            w.stats.log_lines_dropped += _count_lines(log.text + at + written,
                                                      part - <uint32_t> written)
        at += part
    log.used = 0


# --- one line -----------------------------------------------------------------------------

cdef inline void _add(AccessLog* log, const char* text, uint32_t count) noexcept nogil:
    memcpy(log.text + log.used, text, count)
    log.used += count


cdef inline void _add_text(AccessLog* log, const char* text) noexcept nogil:
    _add(log, text, <uint32_t> strlen(text))


cdef void _add_number(AccessLog* log, uint64_t value) noexcept nogil:
    cdef char[20] digits
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char> (c'0' + value % 10)
        value //= 10
        if value == 0:
            break
    _add(log, digits + at, <uint32_t> (20 - at))


cdef void _add_escaped(AccessLog* log, Slice text, bint json) noexcept nogil:
    # Bytes that would end the string, and all that are not printable ASCII, as \uXXXX (JSON; a
    # byte stands for the code point of its value) or \xXX (as Apache writes them).
    cdef const char* HEX = "0123456789abcdef"
    # A line that would grow too long loses the rest of this text.
    cdef uint32_t i
    cdef uint8_t byte
    for i in range(text.bytes):
        if log.used > log.limit:
            return
        byte = <uint8_t> text.at[i]
        if byte == c'"' or byte == c'\\':
            log.text[log.used] = c'\\'
            log.text[log.used + 1] = <char> byte
            log.used += 2
        elif 0x20 <= byte < 0x7F:
            log.text[log.used] = <char> byte
            log.used += 1
        else:
            _add_text(log, "\\u00" if json else "\\x")
            log.text[log.used] = HEX[byte >> 4]
            log.text[log.used + 1] = HEX[byte & 15]
            log.used += 2


cdef void _add_string(AccessLog* log, const char* key, Slice text) noexcept nogil:
    _add_text(log, key)
    _add(log, "\"", 1)
    _add_escaped(log, text, True)
    _add(log, "\"", 1)


cdef void _add_address(AccessLog* log, const char* key, const Address* a) noexcept nogil:
    _add_text(log, key)
    _add(log, "\"", 1)
    log.used += address_text(a, log.text + log.used)
    _add(log, "\"", 1)


cdef void _add_client(AccessLog* log, const Exchange* x) noexcept nogil:
    if address_is_unset(&x.client_address):
        _add(log, "unix", 4)
    else:
        log.used += address_ip_text(&x.client_address, log.text + log.used)


cdef void _add_date(Worker* w, bint combined) noexcept nogil:
    global _date_s, _date_bytes, _date_combined
    if _date_s != w.wall_s or _date_combined != combined:
        _date_bytes = fastlb_date(w.wall_s, combined, _date, sizeof(_date))
        _date_s = w.wall_s
        _date_combined = combined
    _add(&w.log, _date, _date_bytes)


cdef void _add_milliseconds(AccessLog* log, uint64_t us) noexcept nogil:
    cdef uint64_t rest = us % 1000
    _add_number(log, us // 1000)
    _add(log, ".", 1)
    log.text[log.used] = <char> (c'0' + rest // 100)
    log.text[log.used + 1] = <char> (c'0' + rest // 10 % 10)
    log.text[log.used + 2] = <char> (c'0' + rest % 10)
    log.used += 3


# A part of the request's head, by its offset in the buffer.
cdef inline Slice _span(const Exchange* x, uint32_t at, uint32_t count) noexcept nogil:
    if count == 0:
        return slice_of("", 0)
    return slice_of(request_head_at(x) + (at - x.head_start), count)


cdef inline Slice _plan_slice(const Plan* plan, Text text) noexcept nogil:
    return slice_of(plan_text(plan, text), text.bytes)


cdef void _add_decision(AccessLog* log, const Exchange* x) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef char[ADDRESS_TEXT_BYTES_MAX] room
    cdef int32_t index = x.decision.persistence
    if x.pool != NULL:
        _add_string(log, ",\"pool\":", _plan_slice(plan, x.pool.name))
        if x.decision.node >= 0:
            _add_string(log, ",\"node\":",
                        decision_node_name(plan, x.pool, &x.decision, room))
    if index < 0:
        return
    _add_string(log, ",\"class\":", _plan_slice(plan, plan_class(plan, <uint32_t> index).name))
    _add_text(log, ",\"outcome\":\"")
    _add_text(log, outcome_name(x.decision.outcome))
    _add_text(log, "\",\"found_in\":\"")
    _add_text(log, found_in_name(x.decision.found_in))
    _add(log, "\"", 1)
    if x.decision.found_class >= 0:
        _add_string(log, ",\"found_class\":", _plan_slice(
            plan, plan_class(plan, <uint32_t> x.decision.found_class).name))
    else:
        _add_text(log, ",\"found_class\":null")
    if x.decision.has_previous:
        _add_address(log, ",\"previous_node\":", &x.decision.previous)
    else:
        _add_text(log, ",\"previous_node\":null")
    if x.decision.duplicates:
        _add_text(log, ",\"duplicate_cookie\":true")


cdef void _add_hello(AccessLog* log, const Exchange* x) noexcept nogil:
    # What was seen of a passed-through handshake.
    if x.sni_bytes:
        _add_string(log, ",\"sni\":", slice_of(x.sni, x.sni_bytes))
    if not x.flight_seen or not x.flight.hello_seen:
        return
    if x.flight.is_tls13:
        _add_text(log, ",\"tls\":\"1.3\"")
    elif 0x0301 <= x.flight.version <= 0x0303:
        _add_text(log, ",\"tls\":\"1.")
        _add_number(log, x.flight.version - 0x0301)
        _add(log, "\"", 1)


cdef void _add_tls(AccessLog* log, const TlsStream* t) noexcept nogil:
    # What was agreed on where TLS ends here.
    _add_text(log, ",\"tls\":\"1.3\"" if t.version == TLS13 else ",\"tls\":\"1.2\"")
    if t.sni_bytes:
        _add_string(log, ",\"sni\":", slice_of(t.sni, t.sni_bytes))


cdef void _add_handshake_error(AccessLog* log, const Exchange* x) noexcept nogil:
    cdef const char* text = NULL
    if x.verify_error:
        text = tls.X509_verify_cert_error_string(x.verify_error)
    elif x.tls_error:
        text = tls.ERR_reason_error_string(x.tls_error)
    if text != NULL:
        _add(log, ":", 1)
        _add_text(log, text)


# The client's own; what rules made of it is `target_sent`.
cdef void _add_target(AccessLog* log, const Exchange* x) noexcept nogil:
    cdef Slice sent = _span(x, x.target, x.target_bytes)
    cdef Slice own = rules_target(x)
    if own.at == NULL or slice_equal(own, sent):
        _add_string(log, ",\"target\":", sent)
        return
    _add_string(log, ",\"target\":", own)
    _add_string(log, ",\"target_sent\":", sent)


cdef void _add_rules(AccessLog* log, const Exchange* x) noexcept nogil:
    cdef const PlanRule* rule = rules_decided_by(x.snapshot.plan, x)
    cdef Slice members = arena_slice(&x.rules.arena, x.rules.log)
    if rule != NULL:
        _add_string(log, ",\"rule\":", _plan_slice(x.snapshot.plan, rule.name))
    if members.bytes:
        _add_text(log, ",\"log\":{")
        _add(log, members.at, members.bytes)
        _add(log, "}", 1)


# Members "user" and "tier" become ` user="anna" tier="2"`.
cdef void _add_rules_combined(AccessLog* log, Slice members) noexcept nogil:
    cdef bint quoted = False, named = True, bare = False
    cdef uint32_t i = 0
    cdef char byte
    _add(log, " ", 1)
    while i < members.bytes:
        byte = members.at[i]
        i += 1
        if byte == c'\\' and i < members.bytes:
            _add(log, members.at + i - 1, 2)
            i += 1
        elif byte == c'"':
            quoted = not quoted
            if not named:
                _add(log, "\"", 1)
        elif quoted or byte != c':' and byte != c',':
            _add(log, &byte, 1)
        elif byte == c':':
            named = False
            bare = i < members.bytes and members.at[i] != c'"'
            _add(log, "=\"" if bare else "=", 2 if bare else 1)
        else:
            _add(log, "\" " if bare else " ", 2 if bare else 1)
            named = True
            bare = False
    if bare:
        _add(log, "\"", 1)


cdef void _write_json(Worker* w, const Exchange* x) noexcept nogil:
    cdef AccessLog* log = &w.log
    _add_text(log, "{\"time\":\"")
    _add_date(w, False)
    _add(log, ".", 1)
    log.text[log.used] = <char> (c'0' + w.wall_us // 100000 % 10)
    log.text[log.used + 1] = <char> (c'0' + w.wall_us // 10000 % 10)
    log.text[log.used + 2] = <char> (c'0' + w.wall_us // 1000 % 10)
    log.used += 3
    _add_text(log, "Z\",\"client\":\"")
    _add_client(log, x)
    _add(log, "\"", 1)
    _add_string(log, ",\"virtual_server\":", _plan_slice(x.snapshot.plan, x.server.name)
                if x.server != NULL else slice_of("", 0))
    if x.passage:
        _add_hello(log, x)
    else:
        _add_string(log, ",\"method\":", _span(x, x.method_at, x.method_bytes))
        _add_string(log, ",\"host\":", _span(x, x.host, x.host_bytes))
        _add_target(log, x)
        if x.client.stream.tls != NULL:
            _add_tls(log, x.client.stream.tls)
    _add_text(log, ",\"status\":")
    _add_number(log, x.status)
    _add_text(log, ",\"bytes_in\":")
    _add_number(log, x.up.bytes)
    _add_text(log, ",\"bytes_out\":")
    _add_number(log, x.down.bytes)
    _add_text(log, ",\"duration_ms\":")
    _add_milliseconds(log, w.now_us - x.started_us)
    _add_text(log, ",\"wait_ms\":")
    _add_milliseconds(log, x.first_byte_us - x.sent_us if x.first_byte_us > x.sent_us else 0)
    if unlikely(x.queued_us != 0):
        _add_text(log, ",\"queued_ms\":")
        _add_milliseconds(log, x.waited_us)
    _add_decision(log, x)
    _add_text(log, ",\"retries\":")
    _add_number(log, x.retries)
    if x.cause:
        _add_text(log, ",\"cause\":\"")
        _add_text(log, cause_name(x.cause))
        if x.head_error:
            _add(log, ":", 1)
            _add_text(log, head_error_name(-<int> x.head_error))
        if x.cause == CAUSE_NODE_HANDSHAKE or x.cause == CAUSE_HANDSHAKE_FAILED:
            _add_handshake_error(log, x)
        _add(log, "\"", 1)
    if x.rules != NULL:
        _add_rules(log, x)
    _add(log, "}\n", 2)


cdef void _write_combined(Worker* w, const Exchange* x) noexcept nogil:
    cdef AccessLog* log = &w.log
    cdef Slice own
    _add_client(log, x)
    _add_text(log, " - - [")
    _add_date(w, True)
    _add_text(log, "] \"")
    if x.refused or x.passage:
        _add(log, "-", 1)
    else:
        _add_escaped(log, _span(x, x.method_at, x.method_bytes), False)
        _add(log, " ", 1)
        own = rules_target(x)
        _add_escaped(log, own if own.at != NULL else _span(x, x.target, x.target_bytes), False)
        _add_text(log, " HTTP/1.1" if x.version_minor else " HTTP/1.0")
    _add_text(log, "\" ")
    _add_number(log, x.status)
    _add(log, " ", 1)
    _add_number(log, x.down.bytes)
    _add_text(log, " \"")
    _add_or_dash(log, _span(x, x.referer, x.referer_bytes))
    _add_text(log, "\" \"")
    _add_or_dash(log, _span(x, x.user_agent, x.user_agent_bytes))
    _add(log, "\"", 1)
    if x.rules != NULL and x.rules.log.bytes:
        _add_rules_combined(log, arena_slice(&x.rules.arena, x.rules.log))
    _add(log, "\n", 1)


cdef void _add_or_dash(AccessLog* log, Slice text) noexcept nogil:
    if text.bytes:
        _add_escaped(log, text, False)
    else:
        _add(log, "-", 1)


cdef void access_log_write(Worker* w, const Exchange* x) noexcept nogil:
    if w.log.used + ACCESS_LINE_BYTES_MAX > ACCESS_LOG_BYTES:
        access_log_flush(w)
    w.log.limit = w.log.used + ACCESS_LINE_BYTES_MAX - ACCESS_LINE_REST_BYTES
    if x.rules != NULL:
        w.log.limit -= x.rules.log.bytes + RULE_REST_BYTES
    if x.snapshot.plan.log_format == LOG_COMBINED:
        _write_combined(w, x)
    else:
        _write_json(w, x)
