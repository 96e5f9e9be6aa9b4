# The words for the numbers of outcome.pxd, in the same order.

cdef const char** OUTCOME_NAMES = [
    "none", "new", "hit", "draining", "moved", "hashed", "reserved", "expired", "tampered",
    "other-class", "unknown-node", "cookie-lost", "no-key", "node-down", "node-disabled",
    "node-removed", "connect-failed", "tls13",
]
cdef const char** FOUND_IN_NAMES = ["none", "cookie", "cache", "reservation", "hash", "rule"]
cdef const char** CAUSE_NAMES = [
    "", "bad-request", "head-timeout", "body-timeout", "bad-request-body", "body-too-large",
    "client-closed", "client-stalled", "no-node", "connect-failed", "connect-timeout",
    "node-closed", "node-timeout", "bad-response", "bad-response-body", "session-closed",
    "session-redirected", "no-buffer", "no-descriptor", "not-supported", "tunnel-timeout",
    "stopped", "not-tls", "bad-hello", "bad-proxy-header", "opening-timeout", "handshake-failed",
    "node-handshake-failed", "rule-answered", "rule-closed", "rule-failed",
    "queue-full", "queue-timeout",
]


cdef const char* outcome_name(int outcome) noexcept nogil:
    if 0 <= outcome < OUTCOMES:
        return OUTCOME_NAMES[outcome]
    return "unknown"


cdef const char* found_in_name(int found_in) noexcept nogil:
    if 0 <= found_in < FOUND_INS:
        return FOUND_IN_NAMES[found_in]
    return "unknown"


cdef const char* cause_name(int cause) noexcept nogil:
    if 0 <= cause < CAUSES:
        return CAUSE_NAMES[cause]
    return "unknown"


def outcome_names() -> list[str]:
    """The names of all outcomes; the index is the counter's."""
    return [OUTCOME_NAMES[<int> i].decode() for i in range(<int> OUTCOMES)]


def cause_names() -> list[str]:
    """The names of all causes of failed exchanges; the index is the counter's."""
    return [CAUSE_NAMES[<int> i].decode() for i in range(<int> CAUSES)]
