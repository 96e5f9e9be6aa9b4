# Every bound of the core in one place. The unit is the last word of each name.
# What an operator may change is a default here and a field in fastlb/config.py.

cdef enum:
    CACHE_LINE_BYTES = 64

    # Heads (RFC 9112 sections 2-5)
    HEAD_FIELDS_MAX = 256            # array in each Head; `limits.header_count` is at most this
    HEAD_BYTES_MAX = 65536           # offsets inside a head fit in 16 bits of length
    METHOD_BYTES_MAX = 32
    CHUNK_LINE_BYTES_MAX = 4096      # one chunk-size line with its extensions
    TRAILER_BYTES_MAX = 8192         # the whole trailer section
    EMPTY_LINES_MAX = 4              # before a request line (RFC 9112 2.2)

    # Workers and nodes
    WORKERS_MAX = 64                 # columns of the per-worker load table
    NODES_MAX = 4096                 # slots of the node table, over all pools
    VIRTUAL_SERVERS_MAX = 256
    NODE_IDLE_MAX = 512              # pooled connections of one worker to one node
    CLASSES_MAX = 256
    FALLBACK_DEPTH_MAX = 8           # classes in one chain
    TRIES_MAX = 16                   # nodes tried for one request

    # Session caches
    TICK_MS = 100                    # session cache ages are counted in ticks
    CACHE_EXACT_MAPS_MAX = 4096      # caches up to this size keep exact LRU order
