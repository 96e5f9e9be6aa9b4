# The worker's thread has a Python thread state from its start; between two turns of its loop it
# merely does not hold the GIL. `with gil` takes it back and gives it up again. Signals are none
# of its affair: the worker reads them from a descriptor.

import importlib

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport PyObject, Py_XDECREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastlb._core.plan cimport PlanRule, plan_rules, plan_text
from fastlb._core.rule_table cimport rule_table_build, rule_table_release
from fastlb._core.tls_library cimport tls

cdef enum:
    CIPHERS_MAX = 64                 # keys whose cipher objects are kept: all of a usual plan

cdef uint64_t _uncounted = 0
cdef uint64_t* _acquisitions = &_uncounted
cdef object _siv = None              # the class AESSIV
cdef object _wrong_tag = None        # the exception of a cipher text that is not authentic
cdef dict _ciphers = {}              # key: its cipher object
cdef bint _reported = False
cdef dict _contexts = {}             # address of the pointers: tls_contexts.Built
cdef uint32_t _built = 0             # entries of it
cdef bint _threads = False           # of rules, were begun
cdef rules_runner_t _run_rules = NULL
cdef rules_counter_t _count_rules = NULL
cdef WorkerStats* _stats = NULL
cdef uint32_t _ruled = 0             # tables of rules


cdef void hooks_open(uint64_t* acquisitions) noexcept nogil:
    global _acquisitions
    _acquisitions = acquisitions if acquisitions != NULL else &_uncounted


# --- with the GIL -------------------------------------------------------------------------

cdef int _report(str what, object error) except -1:
    # Once: what fails for one request fails for thousands a second.
    global _reported
    if not _reported:
        _reported = True
        from fastlb import errors, log
        log.error(errors.HOOK_FAILED.line(what=what, reason=f"{type(error).__name__}: {error}"))
    return 0


cdef int _import() except -1:
    global _siv, _wrong_tag
    if _siv is None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        _wrong_tag = InvalidTag
        _siv = AESSIV
    return 0


cdef int _prepare() except -1:
    try:
        return _import()
    except BaseException as error:
        return _report("loading the encryption of cookies", error)


cdef object _cipher(const uint8_t* key):
    cdef bytes name = (<const char*> key)[:SIV_KEY_BYTES]
    cipher = _ciphers.get(name)
    if cipher is None:
        _import()
        if len(_ciphers) >= CIPHERS_MAX:
            _ciphers.clear()
        cipher = _ciphers[name] = _siv(name)
    return cipher


cdef int _put(bytes data, uint32_t expected, uint8_t* out) except -1:
    if <uint32_t> len(data) != expected:
        raise ValueError(f"{len(data)} bytes instead of {expected}")
    memcpy(out, <const char*> data, expected)
    return <int> expected


cdef int _encrypt(const uint8_t* key, const uint8_t* plain, uint32_t count,
                  uint8_t* out) except -1:
    try:
        sealed = _cipher(key).encrypt((<const char*> plain)[:count], None)
        return _put(sealed, count + SIV_TAG_BYTES, out)
    except BaseException as error:
        return _report("encrypting a cookie", error)


cdef int _decrypt(const uint8_t* key, const uint8_t* cipher, uint32_t count,
                  uint8_t* out) except -1:
    try:
        plain = _cipher(key).decrypt((<const char*> cipher)[:count], None)
        return _put(plain, count - SIV_TAG_BYTES, out)
    except BaseException as error:
        if _wrong_tag is not None and isinstance(error, _wrong_tag):
            return 0
        return _report("decrypting a cookie", error)


cdef object _log_error(str name, object error):
    from fastlb import errors, log
    log.error(getattr(errors, name).line(reason=f"{type(error).__name__}: {error}"))


cdef int _tls_build(const char* material, uint32_t bytes, void** out, uint32_t count) except -1:
    global _built
    cdef uint32_t i
    try:
        from fastlb import tls_addresses, tls_contexts
        if not tls.loaded:
            tls_addresses.load()
        # A view, not a copy: there are keys in it.
        with PyMemoryView_FromMemory(<char*> material, bytes, PyBUF_READ) as view:
            built = tls_contexts.build(view)
        _contexts[<uintptr_t> out] = built
        _built += 1
        if <uint32_t> len(built.addresses) != count:
            raise ValueError(f"{len(built.addresses)} contexts instead of {count}")
        for i in range(count):
            out[i] = <void*> <uintptr_t> built.addresses[i]
        return 1
    except BaseException as error:
        _log_error("TLS_CONTEXTS_FAILED", error)
        return 0


cdef int _tls_release(void** contexts) except -1:
    global _built
    built = _contexts.pop(<uintptr_t> contexts, None)
    if built is not None:
        _built -= 1
        built.release()
    return 0


cdef int _peer_subject(void* ssl, char* out, uint32_t room) except -1:
    cdef bytes subject
    from fastlb import tls_contexts
    subject = tls_contexts.peer_subject(<uintptr_t> ssl)
    if <uint32_t> len(subject) > room:
        return 0
    memcpy(out, <const char*> subject, len(subject))
    return <int> len(subject)


cdef int _begin_threads(const Plan* plan, const RuleTable* table) except -1:
    global _threads
    cdef const PlanRule* rule
    from fastlb import rule_threads
    names = {}
    for i in range(plan.rules.rule_count):
        rule = plan_rules(plan) + <uint32_t> i
        names[rule.slot] = plan_text(plan, rule.name)[:rule.name.bytes].decode("utf-8", "replace")
    rule_threads.begin(names, plan.rules.watchdog, plan.rules.timeout, bool(table.has_plain),
                       bool(table.has_async))
    _threads = True
    return 0


cdef int _end_threads() except -1:
    try:
        from fastlb import rule_threads
        rule_threads.end()
        return 0
    except BaseException as error:
        return _report("ending the threads of rules", error)


cdef char* _peer_certificate(void* ssl, uint32_t* count) except? NULL:
    cdef bytes certificate
    cdef char* out
    from fastlb import tls_contexts
    certificate = tls_contexts.peer_certificate(<uintptr_t> ssl)
    out = <char*> malloc(len(certificate)) if certificate else NULL
    if out != NULL:
        memcpy(out, <const char*> certificate, len(certificate))
        count[0] = <uint32_t> len(certificate)
    return out


cdef int _rules_run(RuleCall* call) except -1:
    try:
        return _run_rules(call)
    except BaseException as error:
        # Not a rule's failure, which is told of where it happens.
        memset(&call.effects, 0, sizeof(call.effects))
        return _report("running rules", error)


cdef void hooks_rules_runner(rules_runner_t run, rules_counter_t count) noexcept:
    global _run_rules, _count_rules
    _run_rules = run
    _count_rules = count
    count(_stats)


cdef void hooks_rules_open(WorkerStats* stats) noexcept nogil:
    global _stats
    _stats = stats
    if _count_rules != NULL:
        _count_rules(stats)


cdef RuleTable* _rules_build(const Plan* plan) except? NULL:
    global _ruled
    cdef RuleTable* table = NULL
    try:
        importlib.import_module("fastlb._core.rule_run")     # it tells what runs rules
        table = rule_table_build(plan)
        _ruled += 1
        _begin_threads(plan, table)
        return table
    except BaseException as error:
        if table != NULL:
            rule_table_release(table)
            _ruled -= 1
        from fastlb import errors, log, rule_loader
        known = isinstance(error, rule_loader.RuleLoadError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        log.error(errors.RULES_NOT_LOADED.line(reason=reason))
        return NULL


# --- without it ---------------------------------------------------------------------------
# A `return` in `finally` drops what even the report raised.

cdef void hooks_prepare() noexcept nogil:
    _acquisitions[0] += 1
    with gil:
        try:
            _prepare()
        finally:
            return


cdef uint32_t hooks_siv_encrypt(const uint8_t* key, const uint8_t* plain, uint32_t count,
                                uint8_t* out) noexcept nogil:
    cdef int written = 0
    _acquisitions[0] += 1
    with gil:
        try:
            written = _encrypt(key, plain, count, out)
        finally:
            return <uint32_t> written if written > 0 else 0


cdef uint32_t hooks_siv_decrypt(const uint8_t* key, const uint8_t* cipher, uint32_t count,
                                uint8_t* out) noexcept nogil:
    cdef int written = 0
    if count <= SIV_TAG_BYTES:
        return 0
    _acquisitions[0] += 1
    with gil:
        try:
            written = _decrypt(key, cipher, count, out)
        finally:
            return <uint32_t> written if written > 0 else 0


cdef void** hooks_tls_build(const char* material, uint32_t bytes, uint32_t count) noexcept nogil:
    cdef int done = 0
    cdef void** out = <void**> calloc(count + 1, sizeof(void*))
    if out == NULL:
        return NULL
    _acquisitions[0] += 1
    with gil:
        try:
            done = _tls_build(material, bytes, out, count)
        finally:
            if done <= 0:
                hooks_tls_release(out)
                out = NULL
            return out


cdef void hooks_tls_release(void** contexts) noexcept nogil:
    _acquisitions[0] += 1
    with gil:
        try:
            _tls_release(contexts)
        finally:
            free(contexts)
            return


cdef RuleTable* hooks_rules_build(const Plan* plan) noexcept nogil:
    cdef RuleTable* table = NULL
    _acquisitions[0] += 1
    with gil:
        try:
            table = _rules_build(plan)
        finally:
            return table


cdef void hooks_rules_release(RuleTable* table) noexcept nogil:
    global _ruled
    _acquisitions[0] += 1
    with gil:
        try:
            _ruled -= 1
            rule_table_release(table)
        finally:
            return


cdef void hooks_rules_stop() noexcept nogil:
    if not _threads:
        return
    _acquisitions[0] += 1
    with gil:
        try:
            _end_threads()
        finally:
            return


cdef uint32_t hooks_rules_count() noexcept nogil:
    return _ruled


cdef uint32_t hooks_tls_count() noexcept nogil:
    return _built


cdef uint32_t hooks_peer_subject(void* ssl, char* out, uint32_t room) noexcept nogil:
    cdef int written = 0
    _acquisitions[0] += 1
    with gil:
        try:
            written = _peer_subject(ssl, out, room)
        finally:
            return <uint32_t> written if written > 0 else 0


cdef char* hooks_peer_certificate(void* ssl, uint32_t* count) noexcept nogil:
    cdef char* out = NULL
    count[0] = 0
    _acquisitions[0] += 1
    with gil:
        try:
            out = _peer_certificate(ssl, count)
        finally:
            return out


cdef void hooks_rules_run(RuleCall* call) noexcept nogil:
    _acquisitions[0] += 1
    with gil:
        try:
            _rules_run(call)
        finally:
            return


cdef void hooks_object_release(void* object) noexcept nogil:
    _acquisitions[0] += 1
    with gil:
        try:
            Py_XDECREF(<PyObject*> object)
        finally:
            return
