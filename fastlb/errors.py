"""Every message that fastlb gives its operator, once, each with a stable code.

A message says what is wrong, what was expected and, where something near is known, what was
probably meant. Where it happened (file, line, table, key) is the Problem's part. A code is
never given to another message; a message that is gone leaves a gap.
"""

from fastlb.message import (
    ConfigNotFound,
    Invalid,
    Level,
    Message,
    Problem,
    Refused,
    StartError,
    did_you_mean,
    nearest,
    printable,
)

__all__ = [  # of message.py, for whoever looks for them here
    "ConfigNotFound",
    "Invalid",
    "Level",
    "Message",
    "Problem",
    "Refused",
    "StartError",
    "did_you_mean",
    "nearest",
    "printable",
]


def _error(number: int, text: str) -> Message:
    return Message(f"FLB-C{number:03}", "error", text)


def _warning(number: int, text: str) -> Message:
    return Message(f"FLB-C{number:03}", "warning", text)


# The file as a whole
FILE_UNREADABLE = _error(1, "cannot be read: {reason}")
FILE_SYNTAX = _error(2, "not valid TOML: {reason}")
FILE_NOT_UTF8 = _error(3, "not UTF-8 text, which TOML must be: byte {offset} is wrong")
NO_VIRTUAL_SERVER = _error(4, "nothing to serve; expected at least one [virtual_servers.NAME]")
NO_CONFIG = Message(
    "FLB-C005",
    "error",
    "no configuration file: neither {first} nor {second} exists; name one with -c FILE",
)
NOT_AVAILABLE = _error(6, "{what} is not available in this version ({version})")

# One table or key
UNKNOWN_TABLE = _error(10, "unknown table; expected one of {expected}{suggestion}")
UNKNOWN_KEY = _error(11, "unknown key; expected one of {expected}{suggestion}")
UNKNOWN_CHOICE = _error(12, 'unknown {noun} "{found}"; expected one of {expected}{suggestion}')
MISSING_KEY = _error(13, "missing; expected {expected}")
WRONG_TYPE = _error(14, "{found} found; expected {expected}{suggestion}")
OUT_OF_RANGE = _error(15, "{found} is out of range; expected {expected}")
BAD_NAME = _error(16, '"{found}" is not a name; expected 1 to 63 letters, digits, "-", "_" or "."')
NOT_A_TABLE = _error(17, "{found} found; expected a table")
KEY_OF_OTHER_TYPE = _error(18, 'not a key of type "{type}", but of {expected}')
KEY_OUTSIDE_TABLE = _error(19, "a key outside every table; expected {expected}")

# One value
BAD_DURATION = _error(20, '"{found}" is not a duration; expected {expected}{suggestion}')
BAD_SIZE = _error(21, '"{found}" is not a size; expected {expected}{suggestion}')
BAD_ADDRESS = _error(22, '"{found}" is not an address; expected {expected}')
NO_PORT = _error(23, '"{found}" has no port; expected {expected}')
BAD_PORT = _error(24, '"{found}" has the port "{port}"; expected 1 to 65535')
BAD_NETWORK = _error(25, '"{found}" is not a network; expected {expected}{suggestion}')
BAD_TEXT = _error(26, '"{found}" found; expected {expected}')
BAD_KEY_SOURCE = _error(
    27, '"{found}" is not a place where a key can be found; expected {expected}{suggestion}'
)
BAD_DIRECTIVE = _error(28, "directive {found} cannot be appended to a cookie: {reason}")

# References and relations
UNKNOWN_REFERENCE = _error(30, 'no {noun} "{found}"; expected {expected}{suggestion}')
FALLBACK_CYCLE = _error(31, "fallbacks run in a circle: {chain}")
LISTEN_TWICE = _error(32, "{found} is listed twice")
LISTEN_CONFLICT = _error(33, "{found} conflicts with {other} of [virtual_servers.{name}]")
NODE_TWICE = _error(34, "node {found} is in the pool twice")
REDIRECT_WITHOUT_URL = _error(35, '"redirect" needs redirect_url')
HEAD_TOO_LARGE = _error(
    36, "request_line and headers together are {found}; expected at most {expected}"
)
TYPE_FOR_PROTOCOL = _error(
    37,
    'type "{type}" cannot serve protocol "{protocol}" of [virtual_servers.{name}] '
    "(through [pools.{pool}]); it serves {expected}",
)
SAME_SITE_NEEDS_SECURE = _error(
    38, '"none" needs secure = true: browsers refuse such a cookie without it'
)
SAME_COOKIE_NAME = _error(39, 'cookie name "{found}" is also that of [persistence.{other}]')
CLASS_HEX_COLLISION = _error(
    40, "its 8 hex digits {found} are also those of [persistence.{other}]; rename one of them"
)
TOO_MANY_NODES = _error(41, "{found} nodes in all pools; expected at most {expected}")
HTTPS_WITHOUT_TLS = _error(43, 'protocol "https" needs tls = {{ certificates = [...] }}')
PROXY_WITHOUT_TRUST = _error(44, "needs trusted_proxies: only those may send the PROXY protocol")
TOO_MANY = _error(45, "{found} {things}; expected at most {expected}")
FALLBACKS_TOO_DEEP = _error(
    46, "{found} classes are asked one after the other ({chain}); expected at most {expected}"
)
COOKIE_TOO_LONG = _error(
    47, "the cookie's name and attributes are {found} bytes; expected at most {expected}"
)
NAMED_WITHOUT_NETWORKS = _error(
    55, '"any" needs allow_named_networks: the networks of the nodes that a rule may name'
)
NETWORKS_WITHOUT_NAMED = _error(56, 'needs allow_named = "any"; else only listed nodes are named')
UNKNOWN_PLACEHOLDER = _error(59, 'unknown placeholder "{found}"; expected "%{{path}}"{suggestion}')
PLACEHOLDER_OUTSIDE_QUERY = _error(
    58,
    '"%{{path}}" outside of the query: each redirect would have a longer path; expected it behind '
    'a "?", like "/sorry?from=%{{path}}"',
)
ERROR_PAGE_FILE = _error(170, "{file}: {reason}")
NO_SUCH_ERROR_PAGE = _error(171, "fastlb never answers {found}; expected one of {expected}")
BACKOFF_SHRINKS = _error(172, "{found} is less than backoff = {least}; expected at least that")
PASSPHRASE_FILE = _error(90, "passphrase file {file}: {reason}")
TWO_COOKIES_OF_SERVER = _error(
    91,
    '[virtual_servers.{server}] would set two cookies "{found}": this one and that of '
    "[persistence.{other}]; give one of the two classes a `name`",
)
TOO_MANY_COOKIE_NAMES = _error(
    92,
    "{found} virtual servers write its cookie, each under a name of its own; expected at most "
    "{expected}, or one `name` for all",
)
LEARN_NEEDS_ONE_VALUE = _error(
    52,
    "key = {found} is never equal to the value that is learned; expected one place that has it, "
    '"header:...", "cookie:...", "query:..." or "path:..."',
)
NAME_OF_SESSION_COOKIE = _error(
    57,
    '"{found}" is the application\'s own cookie (of [persistence.{other}]), which would be lost; '
    "expected another name, or none",
)
COOKIE_PREFIX = _error(48, 'browsers refuse a cookie "{found}" {reason}')
ROUTE_WITHOUT_CONDITION = _error(42, "nothing to match; expected host, path, sni or alpn")
KEY_FOR_PROTOCOL = _error(
    100,
    '"{found}" is never found with protocol "{protocol}" of [virtual_servers.{name}]; expected '
    "{expected}",
)
ROUTE_NEVER_MATCHES = _error(101, '{key} is not known with protocol "{protocol}"; {expected}')
TLS_NOT_ENDED = _error(
    102,
    'TLS ends here with protocol "https" only; "{protocol}" {meaning}: expected protocol = '
    '"https", or no tls',
)
NO_CERTIFICATE = _error(
    103, 'no certificate; expected at least one {{ certificate = "...", key = "..." }}'
)
CLIENT_CERTIFICATES_WITHOUT_CA = _error(
    104, '"{found}" needs client_ca: the authorities whose certificates clients may show'
)
SSL_WHERE_TLS_ENDS = _error(
    105,
    'type "ssl" cannot serve protocol "https" of [virtual_servers.{name}] (through '
    "[pools.{pool}]): TLS ends at fastlb, which grants the session ids itself, so they lead to no "
    'node; expected a cookie type like "transparent" there, or protocol "tls"',
)
TLS_INSIDE_TLS = _error(
    106,
    '[virtual_servers.{name}] (protocol "tls") passes the clients\' TLS through to these nodes: '
    "it would be inside another TLS; expected no tls, or another pool",
)
HALF_A_CERTIFICATE = _error(107, "needs {expected} beside it")
TLS_FILE = _error(120, "{file}: {reason}")
KEY_OF_ANOTHER = _error(
    121, "{file} is not the key of the certificate in {certificate}; expected the two that belong"
)
UNKNOWN_CIPHERS = _error(122, '"{found}" is nothing that {library} knows{hint}')
CERTIFICATE_REFUSED = _error(123, "the TLS library refuses it: {reason}")
NO_SYSTEM_AUTHORITIES = _error(
    124, "this machine has no list of authorities; expected ca, a file with the nodes' authority"
)

# Rules: said of the rule's module, where one is known
RULE_NO_MODULE = _error(
    140,
    'no module "{module}"{suggestion}: there is no {file}, and none of that name is installed for '
    "{python}",
)
RULE_NO_FUNCTION = _error(141, 'no function "{function}" there{suggestion}: {known}')
RULE_NOT_IMPORTED = _error(142, "cannot be imported: {reason}")
RULE_UNUSABLE = _error(143, '"{function}" {what}; expected {expected}')
RULE_NAME_TAKEN = _error(
    144, 'another module is named "{module}", of Python or of a package; expected another name'
)
RULE_FOR_PROTOCOL = _error(
    145,
    '"{name}" is a {kind} rule, and protocol "{protocol}" has no {kind}s that fastlb sees; '
    "expected one marked @rule.connection",
)
RULE_HARMFUL = _error(146, 'importing "{module}" {how}; expected a module that can be imported')
RULE_TWICE = _error(147, '"{found}" is listed twice, and would run twice')
RULES_NOT_CHECKED = _error(148, "rules cannot be looked at: the process that imports them {how}")
RULE_UNUSED = _warning(149, '"{function}" is a rule that no virtual server uses')

# Monitors
BAD_PATTERN = _error(160, '"{found}" is not a regular expression: {reason}')
STATUSES_TURNED = _error(161, '"{found}" begins above its end')
HEAD_WITHOUT_BODY = _error(162, 'an answer to "HEAD" has no body; expected method = "GET"')
MONITOR_TWICE = _error(163, 'monitor "{found}" is listed twice')
NO_STATUS = _error(164, 'no status is good; expected one like "200" or "200-399"')

# What will work, but perhaps not as meant
UNUSED = _warning(60, "not used by any {by}")
NO_NODES = _warning(61, "no nodes: every request is refused until one is added")
NO_NEW_SESSIONS = _warning(62, "no node takes new sessions: each has weight 0 or is draining")
REDIRECT_ACTS_AS_CLOSE = _warning(
    63,
    '"redirect" acts as "close" on protocol "{protocol}" of [virtual_servers.{name}]',
)
REDIRECT_URL_UNUSED = _warning(64, 'only used with failure_mode = "redirect"')
COOKIE_AGE_NOT_ENFORCED = _warning(
    65, "without passphrase_file the cookie's age is enforced by the browser alone"
)
UNKNOWN_USER = _warning(66, 'no user "{found}" on this machine; `fastlb run` needs it')
ONLY_WITH_PROTOCOL = _warning(68, "only used with protocol {expected}")
NAMED_BY_NOBODY = _warning(
    82, "no virtual server that uses it has rules: nothing will ever name a node"
)
SHORT_PASSPHRASE = _warning(
    93,
    "passphrase file {file}: the passphrase in line {line} has {found} bytes and is soon guessed; "
    "expected at least {expected}",
)
PASSPHRASE_FILE_OPEN = _warning(
    94, "passphrase file {file} has mode {mode}, so others may read it: chmod 600 {file}"
)
KEY_NEVER_SET = _warning(
    80, "no key: it has none, and [virtual_servers.{name}] has no rules that could set one"
)
KEY_NEVER_FOUND = _warning(
    81, '"{found}" is never found with protocol "{protocol}" of [virtual_servers.{name}]'
)
LEARNED_ELSEWHERE = _warning(
    86, 'learns "{found}", but key = {key} does not look for the session there'
)
TYPE_DEPRECATED = _warning(
    69,
    'type "{type}" is deprecated: anybody can write its cookie, and so choose the node; have the '
    "application set a cookie of its own and use {instead}",
)
FALLBACK_NOT_ASKED = _warning(
    67, 'asked only while every node drains: each request has what type "{type}" hashes'
)
HASH_BEHIND_COOKIE = _warning(
    83,
    "[persistence.{found}] behind it is a hash, which knows no sessions: a client that loses its "
    "cookie for more than a minute gets a new one, which may name another node; a class with a "
    "session cache between them remembers the session; reissue = true says that it is meant so",
)
TRUST_WITHOUT_PROXY = _warning(
    110, 'without proxy_protocol = true, protocol "{protocol}" has nobody to believe'
)
CIPHERS_UNUSED = _warning(
    111, 'not used with min_version = "1.3", whose cipher suites are in ciphersuites'
)
CLIENT_CA_UNUSED = _warning(
    112, 'only used with client_certificates = "optional" or "required": no client is asked for one'
)
SSL_WITHOUT_FALLBACK = _warning(
    113,
    "no fallback: TLS 1.3 shows no session id, so clients that speak it, which are most today, "
    'get any node each time; a fallback of type "ip" or "hash" holds them',
)
NODES_NOT_VERIFIED = _warning(
    114,
    "anybody in the network between can pass for a node; set ca to the authority that signed the "
    "nodes' certificates instead",
)
CA_WITHOUT_VERIFY = _warning(115, "only used with verify = true")
PLAIN_AND_TLS = _warning(
    116,
    '[virtual_servers.{tls}] (protocol "tls") passes TLS to its nodes, [virtual_servers.{plain}] '
    "speaks plain HTTP to them: one of the two will fail",
)
NO_RESPONSES = _warning(
    117,
    'no responses are seen through protocol "{protocol}" of [virtual_servers.{name}]: there it '
    'chooses as "least-connections" does',
)
CLIENT_CERTIFICATE_FORGED = _warning(
    118,
    "its nodes are told of client certificates by [virtual_servers.{asking}], and through "
    "[virtual_servers.{other}], which looks into no request, anybody may write "
    "X-Client-Certificate; expected a pool of other nodes there",
)
SERVER_NAME_TWICE = _warning(
    130, "{names} {verb} in {other} too, which is listed before it and is the one that is shown"
)
NO_SERVER_NAME = _warning(
    131,
    "{file} names no server in its subjectAltName: clients that look at names refuse it{more}",
)
CERTIFICATE_DATE = _warning(132, "{file}: certificate {number} in it {doubt}")
WEAK_KEY = _warning(133, "{file}: its key {doubt}")
CHAIN_DOUBTFUL = _warning(134, "{file}: {doubt}")
NOT_STAPLED = _warning(135, "{file} is not stapled: {reason}")
KEY_FILE_OPEN = _warning(136, "everybody on this machine may read {file}: chmod o= {file}")


def _start(number: int, text: str) -> Message:
    return Message(f"FLB-S{number:03}", "error", text)


def _running(number: int, text: str) -> Message:
    return Message(f"FLB-S{number:03}", "warning", text)


# Starting: docs/operations.md explains each of these
SECRET_UNREADABLE = _start(1, "secret file {path}: {reason}")
SECRET_MODE = _start(
    2, "secret file {path} has mode {mode}, so others may use it: chmod 600 {path}"
)
SECRET_CONTENT = _start(
    3,
    "secret file {path} is not 64 hexadecimal digits; restore it from a copy, or delete it to "
    "have a new one made (every session in a cookie then begins anew)",
)
STATE_DIR = _start(4, "state directory {path}: {reason}; set [proxy] state_dir to another one")
ALREADY_RUNNING = _start(
    5,
    "already running with state directory {path} (pid {pid}); `fastlb stop` ends it, or give "
    "this one another state_dir",
)
STATE_DIR_OWNER = _start(
    6, "state directory {path} belongs to {owner}; set [proxy] state_dir to another one"
)
STATE_DIR_OPEN = _start(
    7, "state directory {path} has mode {mode}, so others may write there: chmod 700 {path}"
)
PORT_IN_USE = _start(
    10,
    "[virtual_servers.{name}] cannot listen on {address}: in use by {owner}; stop that, or "
    "choose another port",
)
PORT_FORBIDDEN = _start(
    11,
    "[virtual_servers.{name}] cannot listen on {address}: ports below {first} need a right; start "
    "as root (and set [proxy] user), or with CAP_NET_BIND_SERVICE, or choose another port",
)
NO_SUCH_ADDRESS = _start(
    12,
    "[virtual_servers.{name}] cannot listen on {address}: this machine has no such address; "
    "`ip address` lists those it has",
)
LISTEN_FAILED = _start(13, "[virtual_servers.{name}] cannot listen on {address}: {reason}")
UNIX_IN_USE = _start(
    14,
    "[virtual_servers.{name}] cannot listen on {address}: another process listens there; stop "
    "that, or choose another path",
)
NOT_A_SOCKET = _start(
    15,
    "[virtual_servers.{name}] cannot listen on {address}: a file that is no socket is there; "
    "move it away, or choose another path",
)
FEW_DESCRIPTORS = _running(
    20,
    "each worker may open {found} descriptors, limits.max_connections = {connections} may need "
    "{needed}; beyond that, new connections wait. Raise the hard limit (ulimit -n, or LimitNOFILE= "
    "of the service)",
)
TOO_FEW_DESCRIPTORS = _start(
    21,
    "only {found} descriptors may be open, {needed} are needed to start and limits.max_connections "
    "= {connections} may need {wanted} in each worker; raise the hard limit (ulimit -n, or "
    "LimitNOFILE= of the service)",
)
SHORT_BACKLOG = _running(
    22,
    "at most {found} new connections wait for a worker, not {wanted}: "
    "sysctl -w net.core.somaxconn={wanted}",
)
SOCKET_LOST = _start(
    130,
    "cannot listen on {address} again in the place of a worker that is gone: {reason}",
)
NO_SHARED_MEMORY = _start(23, "{reason}")
NO_ROOM = _start(24, "no room in shared memory's tables: {reason}; stop and start fastlb")
NO_SUCH_USER = _start(30, '[proxy] user: no user "{user}" on this machine')
NOT_ROOT = _start(31, '[proxy] user: only root may become "{user}"; start as root, or as that user')
LOG_FILE = _start(40, "access log {path}: {reason}")
NO_SYSLOG = _start(41, "access log: no syslog at {path}: {reason}; start one, or log to a file")
PLAN_REFUSED = _start(
    51, "worker {index} (pid {pid}) cannot use generation {generation} and keeps the one before"
)
WORKERS_FAIL = _start(50, "no worker gets ready: the last one {how}; nothing is served")
NOT_RUNNING = _start(60, "no fastlb is running with state directory {path}")
NO_ANSWER = _start(61, "the fastlb with state directory {path} does not answer: {reason}")

ERROR_PAGE_UNUSABLE = _start(170, "[virtual_servers.{name}] error page {status}, {path}: {reason}")
PASSPHRASE_FILE_UNUSABLE = _start(97, "[persistence.{name}] passphrase file {path}: {reason}")

# Running
HOOK_FAILED = _start(
    98, "{what} failed, cookies of encrypted classes are not read or written: {reason}"
)
NEEDS_RESTART = _running(70, "{key} has changed: it takes effect at the next start")
WORKER_DIED = _running(71, "worker {index} (pid {pid}) {how}; a new one is started")
WORKER_BACKOFF = _running(72, "worker {index} {why}; the next one starts in {delay:g} s")
WORKER_SLOW = _running(73, "worker {index} (pid {pid}) has not taken over generation {generation}")
MAPS_DAMAGED = _running(
    74, "saved session maps of [persistence.{name}] are not used: {reason}; kept as {path}"
)
MAPS_NOT_SAVED = _running(75, "session maps of [persistence.{name}] are not saved: {reason}")
MAPS_DROPPED = _running(
    76, "session maps of [persistence.{name}] did not all move to its new size: {reason}"
)
LOG_KEPT = _running(77, "the access log stays as it was: {reason}")
STOPPED_HARD = _running(78, "worker {index} (pid {pid}) did not end in time and was killed")
SOCKET_LEFT = _running(79, "{path} could not be removed: {reason}")

LEAVING_DIED = _running(
    131, "worker {index} (pid {pid}), which was leaving, {how}; others have its place already"
)
NOT_TO_BE_FOUND = _running(
    142,
    "worker {index} has no socket in {path}/workers ({reason}): it serves, but leaves if this "
    "control process ends",
)
WORKER_HELD_UP = _running(
    143,
    "worker {index} (pid {pid}) has not answered for {seconds} s; others take its new connections",
)
WORKER_HANGS = _running(
    144, "worker {index} (pid {pid}) has not answered for {seconds} s and is ended"
)
WORKER_SILENT = _running(
    132,
    "worker {index} (pid {pid}), of a control process before this one, has not answered within "
    "{seconds} s and is killed",
)
WORKERS_SILENT = _start(
    141,
    "workers of a control process before this one are there and do not answer within {seconds} s: "
    "end them (`pgrep -af fastlb.worker_main`)",
)
NOT_RESUMED = _running(
    133,
    "the workers' memory cannot be taken over ({reason}): session maps begin anew, with those "
    "saved last",
)

NEW_WORKERS_FAIL = _start(
    134, "no new worker gets ready: the last one {how}; those of before serve on"
)
REHEARSAL_FAILED = _start(135, "the new program {how}: nothing has changed")
REHEARSAL_SAID = _start(136, "it said: {line}")
NOT_EXECUTED = _start(137, "the new program cannot be executed ({reason}): nothing has changed")
STILL_LEAVING = _start(
    138, "{reason}: an upgrade has to wait until more of them have ended (timeouts.drain)"
)
NOT_UPGRADED = _start(
    140,
    "the new program (pid {pid}) does not serve; workers {workers} go on; its standard error says "
    "why, and `fastlb run` takes them over",
)
UNSUPERVISED = _start(
    139,
    "no control process runs with state directory {path}, and its workers {pids} serve on; "
    "`fastlb run` takes them over, `fastlb stop` ends them",
)

TLS_CONTEXTS_FAILED = _start(111, "TLS cannot be set up: {reason}")
TLS_FILES_UNUSABLE = _start(112, "{where}: {reason}")
RULES_NOT_LOADED = _start(120, "rules cannot be loaded: {reason}")
TICKETS_NOT_SHARED = _running(
    110,
    "session tickets are per worker and not shared: {reason}; a client that comes back to another "
    "worker makes a full handshake",
)

NODE_EJECTED = _running(
    186, "{node} is left out: requests to it failed; the next one tries it in {seconds:g} s"
)
NODE_DOWN = _running(180, '{node} is down: monitor "{name}": {reason} ({count})')
CHECK_NOT_DONE = _running(
    181, '{node}: a check by monitor "{name}" says nothing of the node and is done again: {why}'
)
CHECKS_END = _running(
    182, "the process of the monitors' functions {how}; the next one starts in {delay:g} s"
)
NAME_UNRESOLVED = _running(183, 'host name "{name}": {reason}; {what}')
NAME_CUT = _running(184, 'host name "{name}" has {found} addresses; the first {used} are nodes')
NAMES_NOT_IN_FORCE = _running(185, "new addresses of host names are not in force: {reason}")

# Commands to a running fastlb
NO_SUCH_NODE = _start(80, 'no node "{found}" in {where}{suggestion}')
NO_SUCH_POOL = _start(81, 'no pool "{found}"{suggestion}')
NO_SUCH_CLASS = _start(82, 'no persistence class "{found}"{suggestion}')
NOT_IN_A_CACHE = _start(83, '[persistence.{name}] (type "{type}") has no session cache: {where}')
BAD_SESSION_KEY = _start(84, "[persistence.{name}]: {reason}")
NO_SUCH_SESSION = _start(85, "[persistence.{name}] has no session of that {what}")
CHANGED_MEANWHILE = _start(
    86, "[persistence.{name}] got another session cache by a reload meanwhile; try again"
)
BAD_COMMAND = _start(87, "not a command that this fastlb understands: {reason}")
NODE_ALREADY = _running(88, "{node} is {what} already{more}")
STAYS_DISABLED = _running(89, "{node} stays disabled; `fastlb enable` puts it back in service")
STAYS_DRAINING = _running(90, "{node} is draining still; `fastlb undrain` gives it new sessions")
HASH_MOVES = _running(91, "[pools.{pool}]: the keys of {nodes} move to other nodes at once: {what}")
LAST_SERVES = _running(
    92,
    "[pools.{pool}] has no other node that takes new sessions: they go to draining nodes all the "
    'same (drain_last = "serve")',
)
LAST_REFUSES = _running(
    93,
    "[pools.{pool}] has no other node that takes new sessions: they are answered 503 ({why})",
)
WORD_OVER = _running(94, "what was said about {node} by command is over: {why}")
WORDS_UNREADABLE = _running(
    95,
    "states of nodes set by command before this start are lost: {path}: {reason}; kept as {kept}",
)
WORDS_NOT_SAVED = _running(
    96, "states of nodes set by command end with this control process: {path}: {reason}"
)
NEWCOMERS_BY_ADDRESS = _running(
    99,
    "[pools.{pool}]: whoever has no cookie is known by address in [persistence.{name}]: newcomers "
    "at an address that has a session on {nodes} go there all the same",
)
NODE_THERE = _start(160, "{node} is there already; `fastlb node weight` changes its share")
NODE_IN_USE = _start(
    161,
    "{node} may have sessions: {facts}; `fastlb drain {address}` and wait until `fastlb status` "
    "says that it is safe to remove, or say --force",
)
POOL_EMPTIED = _start(
    162, "[pools.{pool}] would have no node left; add another one first, or `fastlb disable` this"
)
BAD_NODE = _start(163, "not a node: {reason}")
NOT_SAVED = _start(164, "{file} is not changed: {reason}")
NODE_LEAVES = _running(
    165,
    "{node} is removed with {facts}: its sessions meet the failure mode, what runs goes on",
)
HASH_SHIFTS = _running(166, "[pools.{pool}]: keys move to other nodes at once: {what}")
EDIT_OVER = _running(
    167, "{node} ({what} by command) is as the file says again; --save keeps such a change"
)
NO_DESCRIPTORS = _running(
    168,
    "no descriptor was left for {what}, and the reserve is used; raise the hard limit (ulimit -n, "
    "or LimitNOFILE= of the service)",
)
COMMAND_FAILED = _start(169, "{what}: the system refuses what it takes: {reason}")
