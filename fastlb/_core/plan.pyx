# Compiles a plan (at the Python edge) and checks one (in a worker).
#
# The builder collects tables of structs and one pool of texts, and lays them out at the end;
# nothing here knows the configuration file (that is fastlb/plan.py's).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core.address cimport Address, address_from_text, address_is_ipv4
from fastlb._core.limits cimport (
    CHUNK_LINE_BYTES, EMPTY_LINES, NODES_MAX, RULES_MAX, TRAILER_BYTES, WORKERS_MAX,
)
from fastlb._core.plan_index cimport plan_node_index, plan_note_chains
from fastlb._core.plan_offsets cimport PlanOffsets, plan_offsets_move
from fastlb._core.siphash cimport sip_key_load
from fastlb._core.stats cimport WorkerStats

cdef int plan_check(const Plan* plan, uint64_t bytes) noexcept nogil:
    if bytes < sizeof(Plan) or plan.magic != PLAN_MAGIC or plan.layout != PLAN_LAYOUT:
        return -1
    if plan.bytes != bytes or plan.stats_bytes != sizeof(WorkerStats):
        return -1
    if plan.workers == 0 or plan.columns < plan.workers or plan.columns > WORKERS_MAX:
        return -1
    return 0


cdef bint plan_network_has(const Plan* plan, uint32_t first, uint32_t count,
                           const Address* a) noexcept nogil:
    cdef const PlanNetwork* network = plan_networks(plan) + first
    cdef uint32_t i, j, bits
    cdef bint same, ipv4 = address_is_ipv4(a)
    for i in range(count):
        bits = network[i].bits
        if ipv4 and bits < 96:
            continue                 # "::/0" is all of IPv6; it says nothing of IPv4 clients
        same = True
        for j in range(16):
            if bits >= 8:
                same = network[i].ip[j] == a.ip[j]
                bits -= 8
            else:
                same = ((network[i].ip[j] ^ a.ip[j]) >> (8 - bits)) == 0 if bits else True
                bits = 0
            if not same or bits == 0:
                break
        if same:
            return True
    return False


ALGORITHM_NUMBERS = {
    "round-robin": BALANCE_ROUND_ROBIN,
    "weighted-round-robin": BALANCE_WEIGHTED_ROUND_ROBIN,
    "least-connections": BALANCE_LEAST_CONNECTIONS,
    "random-of-two": BALANCE_RANDOM_OF_TWO,
    "fastest-response": BALANCE_FASTEST_RESPONSE,
    "hash": BALANCE_HASH,
}
PROTOCOL_NUMBERS = {
    "http": PROTOCOL_HTTP, "https": PROTOCOL_HTTPS, "tls": PROTOCOL_TLS, "tcp": PROTOCOL_TCP,
}
FAILURE_MODE_NUMBERS = {
    "new-node": FAILURE_NEW_NODE, "redirect": FAILURE_REDIRECT, "close": FAILURE_CLOSE,
}
CLASS_TYPE_NUMBERS = {
    "ip": CLASS_IP, "universal": CLASS_UNIVERSAL, "named": CLASS_NAMED,
    "transparent": CLASS_TRANSPARENT, "cookie-insert": CLASS_COOKIE_INSERT,
    "cookie": CLASS_COOKIE, "j2ee": CLASS_J2EE, "asp": CLASS_ASP, "x-zeus": CLASS_X_ZEUS,
    "ssl": CLASS_SSL, "hash": CLASS_HASH,
}
KEY_PART_NUMBERS = {
    "header": KEY_PART_HEADER, "cookie": KEY_PART_COOKIE, "query": KEY_PART_QUERY,
    "path": KEY_PART_PATH, "host": KEY_PART_HOST, "sni": KEY_PART_SNI,
    "source": KEY_PART_SOURCE, "destination": KEY_PART_DESTINATION,
}
RULE_ERROR_NUMBERS = {"continue": RULES_CONTINUE, "500": RULES_ANSWER_500}
LAYOUT = <int> PLAN_LAYOUT
LOG_FORMAT_NUMBERS = {"off": LOG_OFF, "json": LOG_JSON, "combined": LOG_COMBINED}
KEY_NAMES = ("session", "token mac", "token stream", "reservation")


cdef void _address(Address* out, str ip, int port) except *:
    text = ip.encode()
    if not address_from_text(out, text, len(text)):
        raise ValueError(f"plan: {ip!r} is no IP address")
    out.port = <uint16_t> port


cdef class PlanBuilder:
    """Collects the tables of a plan; `finish` returns the blob.

    Each `add_*` returns the index by which the other tables refer to the entry. Values are
    checked by the configuration's own validation; here only what would break the layout is.
    """
    cdef bytearray texts
    cdef dict text_offsets
    cdef list listeners, servers, pools, nodes, classes, routes, networks, schedules, indexes
    cdef list cookie_names, key_parts, passphrases, server_names, rules, rule_uses, error_pages
    cdef Plan head

    def __init__(self):
        self.texts = bytearray()
        self.text_offsets = {}
        self.listeners = []
        self.servers = []
        self.pools = []
        self.nodes = []
        self.classes = []
        self.routes = []
        self.networks = []
        self.schedules = []
        self.indexes = []
        self.cookie_names = []
        self.key_parts = []
        self.passphrases = []
        self.server_names = []
        self.rules = []
        self.rule_uses = []
        self.error_pages = []
        memset(&self.head, 0, sizeof(Plan))

    cdef Text _text(self, str text) except *:
        return self._bytes(text.encode("utf-8", "surrogateescape"))

    cdef Text _bytes(self, bytes data) except *:
        # Offsets count from the pool's start until finish() moves them.
        cdef Text out
        if data not in self.text_offsets:
            self.text_offsets[data] = len(self.texts)
            self.texts += data + b"\0"
        out.offset = self.text_offsets[data]
        out.bytes = <uint32_t> len(data)
        return out

    def set_global(self, *, generation: int, workers: int, log_format: str,
                   node_table_offset: int, epoch_ms: int, keys: list, columns: int = 0,
                   manifest: bytes = b""):
        """`keys`: 16 secret bytes for each of KEY_NAMES; `columns`: of the node table in use, 0:
        one per worker; `manifest`: for fastlb/manifest.py alone."""
        cdef int i
        cdef bytes key
        self.head.generation = generation
        self.head.workers = workers
        self.head.columns = columns or workers
        self.head.manifest = self._bytes(manifest)
        self.head.log_format = LOG_FORMAT_NUMBERS[log_format]
        self.head.node_table_offset = node_table_offset
        self.head.epoch_ms = epoch_ms
        if len(keys) != PLAN_KEYS:
            raise ValueError(f"plan: {PLAN_KEYS} keys are needed, not {len(keys)}")
        for i in range(PLAN_KEYS):
            key = keys[i]
            if len(key) != 16:
                raise ValueError(f"plan: the {KEY_NAMES[i]} key has {len(key)} bytes, not 16")
            sip_key_load(&self.head.keys[i], <const uint8_t*> <const char*> key)

    def set_limits(self, *, max_connections: int, request_line_bytes: int, head_bytes: int,
                   field_count: int, body_bytes: int, buffer_bytes: int, handshakes: int = 0,
                   handshakes_per_second: int = 0, field_bytes: int = 0,
                   empty_lines: int = EMPTY_LINES, chunk_line_bytes: int = CHUNK_LINE_BYTES,
                   trailer_bytes: int = TRAILER_BYTES):
        """0 for `body_bytes`, `field_bytes` and the handshakes: no limit of their own."""
        self.head.limits.max_connections = max_connections
        self.head.limits.request_line_bytes = request_line_bytes
        self.head.limits.head_bytes = head_bytes
        self.head.limits.field_count = field_count
        self.head.limits.body_bytes = body_bytes
        self.head.limits.buffer_bytes = buffer_bytes
        self.head.limits.handshakes = handshakes
        self.head.limits.handshakes_per_second = handshakes_per_second
        self.head.limits.field_bytes = field_bytes
        self.head.limits.empty_lines = empty_lines
        self.head.limits.chunk_line_bytes = chunk_line_bytes
        self.head.limits.trailer_bytes = trailer_bytes

    def set_timeouts(self, *, client_header: int, client_body: int, keep_alive: int, connect: int,
                     response: int, tunnel: int, drain: int, node_keep_alive: int,
                     handshake: int = 10000):
        """All in milliseconds."""
        self.head.timeouts.client_header = client_header
        self.head.timeouts.client_body = client_body
        self.head.timeouts.keep_alive = keep_alive
        self.head.timeouts.connect = connect
        self.head.timeouts.response = response
        self.head.timeouts.tunnel = tunnel
        self.head.timeouts.drain = drain
        self.head.timeouts.node_keep_alive = node_keep_alive
        self.head.timeouts.handshake = handshake

    def set_tls(self, *, material: bytes, certificates: int, ticket_names: list, pools: int):
        """`material` is tls_contexts.build's; `ticket_names`: the 16 bytes that each ticket key's
        tickets begin with, that of the encrypting key first; `pools`: those that speak TLS."""
        cdef PlanTls* tls = &self.head.tls
        cdef bytes name
        cdef int i
        if len(ticket_names) > TICKET_KEYS_MAX or (certificates and not ticket_names):
            raise ValueError(f"plan: 1 to {TICKET_KEYS_MAX} ticket keys are needed, "
                             f"not {len(ticket_names)}")
        tls.material = self._bytes(material)
        tls.certificate_count = certificates
        tls.ticket_key_count = len(ticket_names)
        tls.context_count = certificates * len(ticket_names) + pools
        for i in range(len(ticket_names)):
            name = ticket_names[i]
            if len(name) != TICKET_NAME_BYTES:
                raise ValueError(f"plan: a ticket key's name has {len(name)} bytes, not "
                                 f"{TICKET_NAME_BYTES}")
            memcpy(tls.ticket_names[i], <const char*> name, TICKET_NAME_BYTES)

    def set_rules(self, *, directory: str, on_error: str, timeout: int, watchdog: int,
                  parked_max: int, shared: tuple = (0, 0)):
        """`directory`: where modules are looked up first; times in milliseconds; `shared`:
        (offset, bytes) of the tables that rules share, in the segment."""
        cdef PlanRules* rules = &self.head.rules
        rules.directory = self._text(directory)
        rules.on_error = RULE_ERROR_NUMBERS[on_error]
        rules.timeout = timeout
        rules.watchdog = watchdog
        rules.parked_max = parked_max
        rules.shared_offset, rules.shared_bytes = shared

    def add_rule(self, *, name: str, slot: int) -> int:
        """`name`: "module:function"."""
        cdef PlanRule entry
        memset(&entry, 0, sizeof(entry))
        if not 0 <= slot < RULES_MAX:
            raise ValueError(f"plan: rule slot {slot} is out of range")
        entry.name = self._text(name)
        entry.slot = slot
        self.rules.append((<char*> &entry)[:sizeof(entry)])
        return len(self.rules) - 1

    cdef tuple _add_rule_uses(self, object indices):
        cdef uint32_t entry
        first = len(self.rule_uses)
        for index in indices:
            if not 0 <= index < len(self.rules):
                raise ValueError(f"plan: there is no rule {index}")
            entry = index
            self.rule_uses.append((<char*> &entry)[:sizeof(entry)])
        return first, len(indices)

    def add_server_names(self, names: dict) -> tuple:
        """`names`: a certificate's number by server name, lower case, "*.name" for one label
        before -> (first, count)."""
        cdef PlanServerName entry
        first = len(self.server_names)
        for name in sorted(names, key=lambda name: name.encode()):
            memset(&entry, 0, sizeof(entry))
            entry.name = self._text(name)
            entry.certificate = names[name]
            self.server_names.append((<char*> &entry)[:sizeof(entry)])
        return first, len(names)

    def add_listener(self, *, id: int, virtual_server: int) -> int:
        """`id` is the control process's number for the listening socket."""
        cdef PlanListener entry
        entry.id = id
        entry.virtual_server = virtual_server
        self.listeners.append((<char*> &entry)[:sizeof(entry)])
        return len(self.listeners) - 1

    def add_networks(self, networks: list) -> tuple:
        """`networks`: pairs of (address text, prefix length of that family) -> (first, count)."""
        cdef PlanNetwork entry
        cdef Address address
        first = len(self.networks)
        for ip, bits in networks:
            memset(&entry, 0, sizeof(entry))
            _address(&address, ip, 0)
            memcpy(entry.ip, address.ip, 16)
            entry.bits = bits + (96 if ":" not in ip else 0)
            self.networks.append((<char*> &entry)[:sizeof(entry)])
        return first, len(networks)

    def add_route(self, *, host: str, path: str, pool: int, sni: str = "", alpn: str = "") -> int:
        """Empty: any. `host` and `sni` in lower case, "*.name" for any label before."""
        cdef PlanRoute entry
        memset(&entry, 0, sizeof(entry))
        entry.host = self._text(host)
        entry.path = self._text(path)
        entry.sni = self._text(sni)
        entry.alpn = self._text(alpn)
        entry.pool = pool
        self.routes.append((<char*> &entry)[:sizeof(entry)])
        return len(self.routes) - 1

    def add_virtual_server(self, *, name: str, slot: int, protocol: str, pool: int,
                           routes: tuple, trusted: tuple, decision: tuple,
                           server_names: tuple = (0, 0), certificate: int = 0,
                           flags: object = (), rules: object = (), error_pages: object = (),
                           retry_after: int = 1) -> int:
        """`routes`, `trusted`, `decision`, `server_names`: (first, count) in their tables;
        `flags`: names of SERVER_FLAGS; `rules`: indices that add_rule gave, in their order;
        `error_pages`: (status, Content-Type, body) each; `retry_after`: seconds."""
        cdef PlanVirtualServer entry
        memset(&entry, 0, sizeof(entry))
        entry.name = self._text(name)
        entry.slot = slot
        entry.protocol = PROTOCOL_NUMBERS[protocol]
        entry.pool = pool
        entry.routes, entry.route_count = routes
        entry.trusted, entry.trusted_count = trusted
        entry.decision, entry.decision_count = decision
        entry.server_names, entry.server_name_count = server_names
        entry.certificate = certificate
        entry.flags = sum(SERVER_FLAGS[flag] for flag in flags)
        entry.rules, entry.rule_count = self._add_rule_uses(rules)
        entry.error_pages, entry.error_page_count = self._add_error_pages(error_pages)
        entry.retry_after = retry_after
        self.servers.append((<char*> &entry)[:sizeof(entry)])
        return len(self.servers) - 1

    cdef tuple _add_error_pages(self, object pages):
        cdef PlanErrorPage entry
        first = len(self.error_pages)
        for status, content_type, body in pages:
            memset(&entry, 0, sizeof(entry))
            entry.status = status
            entry.type = self._text(content_type)
            entry.body = self._bytes(body)
            self.error_pages.append((<char*> &entry)[:sizeof(entry)])
        return first, len(self.error_pages) - first

    def add_node(self, *, ip: str, port: int, slot: int, weight: int, max_connections: int,
                 backup: bool, hash_seed: int) -> int:
        """Nodes of one pool must be added one after the other."""
        cdef PlanNode entry
        memset(&entry, 0, sizeof(entry))
        if not 0 <= slot < NODES_MAX:
            raise ValueError(f"plan: node slot {slot} is out of range")
        _address(&entry.address, ip, port)
        entry.flags = NODE_IS_BACKUP if backup else 0
        entry.slot = slot
        entry.weight = weight
        entry.max_connections = max_connections
        entry.hash_seed = hash_seed
        entry.name = self._text(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}")
        self.nodes.append((<char*> &entry)[:sizeof(entry)])
        return len(self.nodes) - 1

    def add_pool(self, *, name: str, slot: int, algorithm: str, first_node: int, node_count: int,
                 persistence: int, retries: int, refuse_last_draining: bool,
                 schedule: list, named: tuple = (0, 0), proxy_protocol: str = "off",
                 tls_context: int = -1, tls_server_name: str = "", retry_budget: int = 20,
                 slow_start: int = 0, queue: tuple = (0, 0), passive: dict | None = None) -> int:
        """`persistence` -1: none. `schedule`: node indices in the order of weighted round robin.

        `named`: (first, count) of the networks whose nodes may be named without being listed.
        `tls_context`: index in Snapshot.contexts, -1: no TLS. `queue`: (requests, ms). `passive`:
        the fields of PlanPool from `failures` on; None: nothing ejects a node.
        """
        cdef PlanPool entry
        memset(&entry, 0, sizeof(entry))
        entry.name = self._text(name)
        entry.slot = slot
        entry.algorithm = ALGORITHM_NUMBERS[algorithm]
        entry.nodes = first_node
        entry.node_count = node_count
        entry.persistence = persistence
        entry.retries = retries
        entry.flags = POOL_DRAIN_LAST_REFUSE if refuse_last_draining else 0
        entry.schedule = sum(len(one) for one in self.schedules)
        entry.schedule_count = len(schedule)
        entry.named, entry.named_count = named
        entry.flags |= PROXY_FLAGS[proxy_protocol]
        if tls_context >= 0:
            entry.flags |= POOL_TLS
            entry.tls_context = tls_context
        entry.tls_server_name = self._text(tls_server_name)
        entry.retry_budget = retry_budget
        entry.slow_start = slow_start
        entry.queue, entry.queue_timeout = queue
        self._add_passive(&entry, passive)
        if any(_is_limited(node) for node in self.nodes[first_node:first_node + node_count]):
            entry.flags |= POOL_LIMITED
        index = plan_node_index(self.nodes[first_node:first_node + node_count])
        entry.index = sum(len(one) for one in self.indexes)
        entry.index_mask = len(index) // 4 - 1 if index else 0
        self.indexes.append(index)
        self.schedules.append(b"".join(index.to_bytes(2, "little") for index in schedule))
        self.pools.append((<char*> &entry)[:sizeof(entry)])
        return len(self.pools) - 1

    cdef int _add_passive(self, PlanPool* entry, dict passive) except -1:
        if passive is None:
            return 0
        entry.failures = passive.get("failures", 0)
        entry.errors = passive.get("errors", 0)
        entry.errors_of = passive.get("errors_of", 0)
        entry.window = passive.get("window", 0)
        entry.backoff_min = passive.get("backoff_min", 0)
        entry.backoff_max = passive.get("backoff_max", 0)
        if entry.failures or entry.errors:
            entry.flags |= POOL_WATCHED
        return 0

    def add_class(self, *, name: str, id: int, slot: int, type: str, fallback: int,
                  failure_mode: str, redirect_url: str, flags: int, ipv4_bits: int = 0,
                  ipv6_bits: int = 0, cache: tuple = (0, 0), expiry_ticks: int = 0,
                  reserve_ticks: int = 0, reservations: tuple = (0, 0), timeout_s: int = 0,
                  max_lifetime_s: int = 0, cookie_names: object = (), cookie_tail: str = "",
                  passphrases: object = (), key: object = (), learn: object = (),
                  session_cookie: str = "", session_parameter: str = "",
                  route_separators: str = "") -> int:
        """`fallback` -1: none; `flags`: of CLASS_FLAGS; caches: (offset, bytes) in the segment.

        `cookie_names`: pairs of a name and the index of the virtual server that writes it (-1:
        all do); `passphrases`: pairs of a 64-byte cipher key and a 16-byte mark key; `key` and
        `learn`: pairs of a kind (KEY_PART_NUMBERS) and a name or number.
        """
        cdef PlanClass entry
        memset(&entry, 0, sizeof(entry))
        entry.name = self._text(name)
        entry.id = id
        entry.slot = slot
        entry.type = CLASS_TYPE_NUMBERS[type]
        entry.fallback = fallback
        entry.failure_mode = FAILURE_MODE_NUMBERS[failure_mode]
        entry.flags = flags
        entry.redirect_url = self._text(redirect_url)
        entry.ipv4_bits = ipv4_bits
        entry.ipv6_bits = ipv6_bits
        entry.cache_offset, entry.cache_bytes = cache
        entry.expiry_ticks = expiry_ticks
        entry.reserve_ticks = reserve_ticks
        entry.reservations_offset, entry.reservations_bytes = reservations
        entry.timeout_s = timeout_s
        entry.max_lifetime_s = max_lifetime_s
        entry.cookie_names, entry.cookie_name_count = self._add_cookie_names(cookie_names)
        entry.cookie_tail = self._text(cookie_tail)
        entry.passphrases, entry.passphrase_count = self._add_passphrases(passphrases)
        entry.key_parts, entry.key_part_count = self._add_key_parts(key)
        entry.learn_parts, entry.learn_part_count = self._add_key_parts(learn)
        entry.session_cookie = self._text(session_cookie)
        entry.session_parameter = self._text(session_parameter)
        entry.route_separators = self._text(route_separators)
        self.classes.append((<char*> &entry)[:sizeof(entry)])
        return len(self.classes) - 1

    def _add_cookie_names(self, names):
        cdef PlanCookieName entry
        first = len(self.cookie_names)
        for name, server in names:
            memset(&entry, 0, sizeof(entry))
            entry.name = self._text(name)
            entry.virtual_server = server
            self.cookie_names.append((<char*> &entry)[:sizeof(entry)])
        return first, len(names)

    def _add_passphrases(self, passphrases):
        cdef PlanPassphrase entry
        cdef bytes cipher_key, mark
        first = len(self.passphrases)
        for cipher_key, mark in passphrases:
            if len(cipher_key) != sizeof(entry.cipher_key) or len(mark) != 16:
                raise ValueError("plan: a passphrase's keys have 64 and 16 bytes")
            memcpy(entry.cipher_key, <const char*> cipher_key, sizeof(entry.cipher_key))
            sip_key_load(&entry.mark, <const uint8_t*> <const char*> mark)
            self.passphrases.append((<char*> &entry)[:sizeof(entry)])
        return first, len(passphrases)

    def _add_key_parts(self, parts):
        cdef PlanKeyPart entry
        first = len(self.key_parts)
        for kind, name in parts:
            memset(&entry, 0, sizeof(entry))
            entry.kind = KEY_PART_NUMBERS[kind]
            if entry.kind == KEY_PART_PATH:
                entry.number = int(name)
            else:
                entry.name = self._text(name.lower() if entry.kind == KEY_PART_HEADER else name)
            self.head.needs_local |= entry.kind == KEY_PART_DESTINATION
            self.key_parts.append((<char*> &entry)[:sizeof(entry)])
        return first, len(parts)

    def finish(self) -> bytes:
        """Lay everything out; the builder is not to be used after that."""
        blob = bytearray(sizeof(Plan))
        cdef Plan* head = &self.head
        cdef PlanOffsets offsets

        def place(entries: list) -> int:
            while len(blob) % 64:
                blob.append(0)
            offset = len(blob)
            for entry in entries:
                blob.extend(entry)
            return offset

        head.magic = PLAN_MAGIC
        head.layout = PLAN_LAYOUT
        head.stats_bytes = sizeof(WorkerStats)
        head.listeners = place(self.listeners)
        head.listener_count = len(self.listeners)
        head.virtual_servers = place(self.servers)
        head.virtual_server_count = len(self.servers)
        head.pools = place(self.pools)
        head.pool_count = len(self.pools)
        head.classes = place(self.classes)
        head.class_count = len(self.classes)
        head.nodes = place(self.nodes)
        head.node_count = len(self.nodes)
        head.routes = place(self.routes)
        head.route_count = len(self.routes)
        head.networks = place(self.networks)
        head.cookie_names = place(self.cookie_names)
        head.key_parts = place(self.key_parts)
        head.passphrases = place(self.passphrases)
        head.server_names = place(self.server_names)
        head.error_pages = place(self.error_pages)
        head.rules.rules = place(self.rules)
        head.rules.rule_count = len(self.rules)
        head.rules.rule_uses = place(self.rule_uses)
        schedules = place(self.schedules)
        indexes = place(self.indexes)
        texts = place([bytes(self.texts)])
        head.bytes = len(blob)
        memcpy(<char*> blob, head, sizeof(Plan))
        offsets.texts, offsets.schedules, offsets.indexes = texts, schedules, indexes
        offsets.cookie_names = <uint32_t> len(self.cookie_names)
        offsets.key_parts = <uint32_t> len(self.key_parts)
        offsets.server_names = <uint32_t> len(self.server_names)
        offsets.error_pages = <uint32_t> len(self.error_pages)
        plan_offsets_move(<char*> blob, &offsets)
        plan_note_chains(blob)
        return bytes(blob)


cdef bint _is_limited(bytes node):
    return (<const PlanNode*> <const char*> node).max_connections != 0


CLASS_FLAGS = {
    "delete_on_failure": CLASS_DELETE_ON_FAILURE,
    "every_response": CLASS_EVERY_RESPONSE,
    "hide_cookie": CLASS_HIDE_COOKIE,
    "protect_cache": CLASS_PROTECT_CACHE,
    "preserve": CLASS_PRESERVE,
    "reissue": CLASS_REISSUE,
    "has_cache": CLASS_HAS_CACHE,
    "inserts_cookie": CLASS_INSERTS_COOKIE,
    "listed_only": CLASS_LISTED_ONLY,
    "learns": CLASS_LEARNS,
    "writes_expires": CLASS_WRITES_EXPIRES,
    "follows_path": CLASS_FOLLOWS_PATH,
    "follows_domain": CLASS_FOLLOWS_DOMAIN,
    "follows_secure": CLASS_FOLLOWS_SECURE,
    "follows_same_site": CLASS_FOLLOWS_SAME_SITE,
    "follows_age": CLASS_FOLLOWS_AGE,
    "keys_granted": CLASS_KEYS_GRANTED,
}
SERVER_FLAGS = {
    "proxy_protocol": SERVER_PROXY_PROTOCOL,
    "not_tls_is_tcp": SERVER_NOT_TLS_IS_TCP,
    "client_subject": SERVER_CLIENT_SUBJECT,
    "no_subject_of_clients": SERVER_NO_SUBJECT_OF_CLIENTS,
    "x-forwarded-for": SERVER_ADDS_FOR,
    "x-forwarded-proto": SERVER_ADDS_PROTO,
    "x-forwarded-host": SERVER_ADDS_HOST,
    "forwarded": SERVER_ADDS_FORWARDED,
    "via": SERVER_ADDS_VIA,
}
PROXY_FLAGS = {"off": 0, "v1": POOL_PROXY_V1, "v2": POOL_PROXY_V2}
