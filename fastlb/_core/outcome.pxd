# What became of a request's persistence, where its session was found, and why an
# exchange failed. The numbers index counters in shared memory; the names (outcome.pyx)
# are the words of the access log, the metrics and the docs.

cdef enum Outcome:
    OUTCOME_NONE = 0                 # the pool has no persistence class
    OUTCOME_NEW                      # no session: the algorithm chose
    OUTCOME_HIT                      # session found, its node served
    OUTCOME_DRAINING                 # session found, its draining node served
    OUTCOME_MOVED                    # session found, served by the only node of the same address
    OUTCOME_HASHED                   # the hash of the request's key names the node
    OUTCOME_RESERVED                 # parallel first request: joined the choice of the first one
    OUTCOME_EXPIRED                  # session too old: the algorithm chose
    OUTCOME_TAMPERED                 # value not authentic: the algorithm chose
    OUTCOME_OTHER_CLASS              # value of another class: the algorithm chose
    OUTCOME_UNKNOWN_NODE             # value names a node that the pool lacks: the algorithm chose
    OUTCOME_COOKIE_LOST              # no cookie, but this client was just given one: a new choice
    OUTCOME_NO_KEY                   # the request carries nothing that this class could use
    OUTCOME_NODE_DOWN                # session found, node down: failure mode
    OUTCOME_NODE_DISABLED            # session found, node disabled: failure mode
    OUTCOME_NODE_REMOVED             # session found, node not in the pool: failure mode
    OUTCOME_CONNECT_FAILED           # session found, node could not be connected to: failure mode
    OUTCOME_TLS13                    # TLS 1.3 has no session that could be seen: as "new"
    OUTCOMES

cdef enum FoundIn:
    FOUND_NOWHERE = 0
    FOUND_COOKIE
    FOUND_CACHE
    FOUND_RESERVATION
    FOUND_HASH
    FOUND_RULE
    FOUND_INS

cdef enum Cause:
    CAUSE_NONE = 0
    CAUSE_BAD_REQUEST                # the head's own error is counted beside it
    CAUSE_HEAD_TIMEOUT
    CAUSE_BODY_TIMEOUT
    CAUSE_BAD_REQUEST_BODY
    CAUSE_BODY_TOO_LARGE
    CAUSE_CLIENT_CLOSED              # closed or reset before its answer was whole
    CAUSE_CLIENT_STALLED             # did not take its answer
    CAUSE_NO_NODE
    CAUSE_CONNECT_FAILED
    CAUSE_CONNECT_TIMEOUT
    CAUSE_NODE_CLOSED                # before its answer was whole
    CAUSE_NODE_TIMEOUT
    CAUSE_BAD_RESPONSE
    CAUSE_BAD_RESPONSE_BODY
    CAUSE_SESSION_CLOSED             # failure mode close
    CAUSE_SESSION_REDIRECTED         # failure mode redirect
    CAUSE_NO_BUFFER                  # limits.buffers reached
    CAUSE_NO_DESCRIPTOR              # no file descriptor or memory for a node connection
    CAUSE_NOT_SUPPORTED              # a method or expectation that fastlb does not serve
    CAUSE_TUNNEL_TIMEOUT
    CAUSE_STOPPED                    # the drain time ended
    CAUSE_NOT_TLS                    # does not begin as TLS, where TLS is spoken
    CAUSE_BAD_HELLO                  # a ClientHello that is malformed or too long
    CAUSE_BAD_PROXY_HEADER
    CAUSE_OPENING_TIMEOUT            # PROXY header, hello or handshake took too long
    CAUSE_HANDSHAKE_FAILED           # with the client
    CAUSE_NODE_HANDSHAKE             # with the node
    CAUSE_RULE_ANSWERED              # a rule gave the answer
    CAUSE_RULE_CLOSED                # a rule closed the connection
    CAUSE_RULE_FAILED                # a rule failed, and on_error is "500"
    CAUSE_QUEUE_FULL                 # all nodes that may serve it are full, and the queue is
    CAUSE_QUEUE_TIMEOUT              # they stayed so for `queue_timeout`
    CAUSES

cdef const char* outcome_name(int outcome) noexcept nogil
cdef const char* found_in_name(int found_in) noexcept nogil
cdef const char* cause_name(int cause) noexcept nogil
