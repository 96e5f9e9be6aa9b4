# Every bound of the core in one place. The unit is the last word of each name.
# What an operator may change is a default here and a field in fastlb/config.py.

cdef enum:
    CACHE_LINE_BYTES = 64

    # Heads (RFC 9112 sections 2-5)
    HEAD_FIELDS_MAX = 256            # array in each Head; `limits.header_count` is at most this
    HEAD_BYTES_MAX = 65536           # offsets inside a head fit in 16 bits of length
    METHOD_BYTES_MAX = 32
    CHUNK_LINE_BYTES = 4096          # one chunk-size line with its extensions, unless configured
    TRAILER_BYTES = 8192             # the whole trailer section, unless configured
    EMPTY_LINES = 4                  # before a request line (RFC 9112 2.2), unless configured
    EMPTY_LINES_MAX = 100
    LENGTH_DIGITS_MAX = 19           # 2^63-1 in decimal: more are zeros in front
    CHUNK_DIGITS_MAX = 16            # and in hexadecimal
    CONNECTION_OPTIONS_MAX = 32      # each is compared with every field's name
    CHUNK_OVERHEAD_BYTES_MAX = 16384  # chunk extensions that data has not paid for

    # Edits of one head: cut fields and cookies; status line, cookies, X-Forwarded-* inserted
    EDIT_CUTS_MAX = 64
    EDIT_INSERTS_MAX = 16
    EDIT_IOVECS_MAX = 97             # EDIT_CUTS_MAX + 1 pieces, each insertion splits one

    # Persistence
    SESSION_ID_BYTES_MAX = 256       # of an application; a longer one is none

    # Workers and nodes
    # Columns of the node table; twice what can be configured: at an upgrade old and new workers
    # run side by side.
    WORKERS_MAX = 128
    NODES_MAX = 4096                 # slots of the node table, over all pools
    NODE_SLOT_UNLISTED = 4095        # the last one: all nodes that no pool lists share it
    VIRTUAL_SERVERS_MAX = 256
    NODE_IDLE_MAX = 512              # pooled connections of one worker to one node
    CLASSES_MAX = 256
    FALLBACK_DEPTH_MAX = 16          # classes in one chain
    COOKIE_NAMES_MAX = 16            # virtual servers that write a class's cookie, each its own
    TRIES_MAX = 16                   # nodes tried for one request
    COOKIE_MEMORY_TICKS = 600        # for which it is known that a client was given a cookie
    RETRY_WINDOW_MS = 5000           # retries are counted over two of them
    RETRIES_FLOOR = 100              # of a pool, by one worker, whatever its retry_budget

    # Rules
    RULES_MAX = 128                  # of all virtual servers, each counted once
    RULE_KEY_BYTES_MAX = 4096        # a key that a rule sets
    RULE_LOG_BYTES_MAX = 2048        # what rules add to one line of the access log
    RULE_REPLY_BYTES_MAX = 16777216  # the body of an answer that a rule gives
    RULE_BODY_BYTES_MAX = 67108864   # of a request, that a rule asks for
    RULE_EDITS_MAX = 128             # fields that rules add to one message

    # Session caches
    TICK_MS = 100                    # session cache ages are counted in ticks
    CACHE_EXACT_MAPS_MAX = 4096      # caches up to this size keep exact LRU order
    SESSION_MAPS_MAX = 100000000     # word indexes inside a cache fit in 32 bits
    SESSION_SHARDS_MAX = 64          # locks of one cache
    SESSION_MAPS_PER_SHARD = 512     # a cache gets as many shards as leave each at least this
    SESSION_JOURNAL_WORDS = 24       # the largest change that is made whole: see session_shard
    SESSION_TAILS_COMPARED = 3       # shards looked at for the least recently used map
    SESSION_SECOND_CHANCES = 8       # maps moved to the front by one eviction at most
    SESSION_GRANULE_SHIFT = 5        # order is kept to 1/32 of the oldest map's age
    SESSION_STORE_TRIES = 1000       # before a store that finds every shard locked gives up

    # Shared memory
    SHM_REGIONS_MAX = 512            # named regions of one segment
    SHM_NAME_BYTES_MAX = 63
    LOCK_SPINS = 60                  # tries before a waiter sleeps, about a microsecond
