# Calls from the data plane into Python: the only module that takes the GIL, and it counts how
# often (WorkerStats.gil_acquisitions). Nothing raised there gets out: the first failure is
# reported on standard error, each one is a 0 to the caller.
#
# Keys and buffers are the caller's; Python gets copies.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlb._core.plan cimport Plan
from fastlb._core.rule_call cimport RuleCall, RuleTable
from fastlb._core.stats cimport WorkerStats

cdef enum:
    SIV_KEY_BYTES = 64               # AES-256-SIV (RFC 5297): two keys of 32 bytes
    SIV_TAG_BYTES = 16               # in front of the cipher text

# Where acquisitions are counted from now on; NULL: nowhere.
cdef void hooks_open(uint64_t* acquisitions) noexcept nogil
# Imports what the calls below need, so that no request waits for that. Once is enough.
cdef void hooks_prepare() noexcept nogil
# Writes `count` + SIV_TAG_BYTES bytes and returns how many; 0: it failed.
cdef uint32_t hooks_siv_encrypt(const uint8_t* key, const uint8_t* plain, uint32_t count,
                                uint8_t* out) noexcept nogil
# Writes `count` - SIV_TAG_BYTES bytes and returns how many; 0: not made with this key, changed,
# or it failed.
cdef uint32_t hooks_siv_decrypt(const uint8_t* key, const uint8_t* cipher, uint32_t count,
                                uint8_t* out) noexcept nogil

ctypedef int (*rules_runner_t)(RuleCall* call) except -1
ctypedef void (*rules_counter_t)(WorkerStats* stats) noexcept nogil

# The counters of the worker that rules will run in; NULL: none.
cdef void hooks_rules_open(WorkerStats* stats) noexcept nogil
# What runs a call of plain rules, with the GIL, and what is told of the counters: the module that
# has them (rule_run) says so at its import, so that a worker without rules need not import it.
cdef void hooks_rules_runner(rules_runner_t run, rules_counter_t count) noexcept
# Runs the call; its effects are written when it returns.
cdef void hooks_rules_run(RuleCall* call) noexcept nogil
# Gives a reference to a Python object back.
cdef void hooks_object_release(void* object) noexcept nogil

# The contexts of a plan (PlanTls): `count` pointers to SSL_CTX, or NULL after a line on standard
# error that says why. `material` is looked at during the call only.
cdef void** hooks_tls_build(const char* material, uint32_t bytes, uint32_t count) noexcept nogil
# Frees the pointers. Connections that were made of the contexts live on.
cdef void hooks_tls_release(void** contexts) noexcept nogil
# Plans whose contexts were built and not released in this process.
cdef uint32_t hooks_tls_count() noexcept nogil
# The subject of the peer's certificate on this SSL, as RFC 4514 writes it, in ASCII; 0 when it
# showed none, or it does not fit.
cdef uint32_t hooks_peer_subject(void* ssl, char* out, uint32_t room) noexcept nogil

# Imports the modules of a plan's rules and lists them, or NULL after a line on standard error that
# says why not. The plan is looked at during the call only.
cdef RuleTable* hooks_rules_build(const Plan* plan) noexcept nogil
# Frees the table and lets go of the functions; modules that no other plan has go with them.
cdef void hooks_rules_release(RuleTable* table) noexcept nogil
# At the worker's end: the threads that rules needed are ended, as far as they let themselves be.
cdef void hooks_rules_stop() noexcept nogil
# The peer's certificate on this SSL, DER, in memory of its own that is the caller's to free; NULL
# when it showed none.
cdef char* hooks_peer_certificate(void* ssl, uint32_t* count) noexcept nogil

# Tables that were built and not released in this process.
cdef uint32_t hooks_rules_count() noexcept nogil
