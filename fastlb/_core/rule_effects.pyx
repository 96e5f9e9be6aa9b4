# cython: boundscheck=True
"""From objects to RuleEffects. The arena may move while it is written to, and the facts of a call
that was handed to another thread stand in it: all is made first, then written.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t

from fastlb._core.arena cimport Span, arena_add
from fastlb._core.rule_call cimport (
    RULE_ANSWERS, RULE_SETS_FORWARDED, RULE_SETS_FORWARDED_HOST, RULE_SETS_HEAD,
    RULE_SETS_KEY, RULE_SETS_LOG, RULE_SETS_PROTO,
)
from fastlb._core.slice cimport slice_of


cdef class Saved:
    pass


cdef Saved effects_save(Connection subject, Request request, Response response):
    cdef Saved saved = Saved.__new__(Saved)
    saved.wants = subject.wants
    saved.key = subject.key
    saved.reply_fields = subject.reply_fields
    saved.reply_body = subject.reply_body
    if subject.log_view is not None:
        saved.members = subject.log_view.members
        saved.log_changed = subject.log_view.changed
        subject.log_view.shared = True
    if request is not None:
        saved.request = request.message.save()
    if response is not None:
        saved.response = response.message.save()
    return saved


cdef int effects_restore(Saved saved, Connection subject, Request request,
                         Response response) except -1:
    subject.wants = saved.wants
    subject.key = saved.key
    subject.reply_fields = saved.reply_fields
    subject.reply_body = saved.reply_body
    if subject.log_view is not None:
        if saved.members is None:
            # It was first asked for by the rule that failed.
            subject.log_view.call = NULL
            subject.log_view = None
        else:
            subject.log_view.members = saved.members
            subject.log_view.changed = saved.log_changed
            subject.log_view.shared = True
    if request is not None:
        request.message.restore(saved.request)
    if response is not None:
        response.message.restore(saved.response)
    return 0


cdef int effects_check(Request request, Response response) except -1:
    if request is not None and request.message.edited():
        request.message.build()
    if response is not None and response.message.edited():
        response.message.build()
    return 0


cdef int _add(RuleCall* call, bytes text, Span* span) except -1:
    if text is None:
        return 0
    if not arena_add(&call.arena, PyBytes_AS_STRING(text), <uint32_t> PyBytes_GET_SIZE(text), span):
        raise MemoryError()
    return 0


cdef int effects_write(RuleCall* call, Connection subject, Request request,
                       Response response) except -1:
    cdef bytes head = None, log = None
    if response is not None:
        if response.message.edited():
            head = response.message.build()
    elif request is not None and request.message.edited():
        head = request.message.build()
        if request.message.makes(slice_of("X-Forwarded-Proto", 17)):
            subject.wants.sets |= RULE_SETS_PROTO
        if request.message.makes(slice_of("X-Forwarded-Host", 16)):
            subject.wants.sets |= RULE_SETS_FORWARDED_HOST
        if request.message.makes(slice_of("Forwarded", 9)):
            subject.wants.sets |= RULE_SETS_FORWARDED
    if subject.log_view is not None and subject.log_view.changed:
        log = subject.log_view.joined()
    call.effects = subject.wants
    # A key that was taken back is one without bytes.
    if subject.wants.sets & RULE_SETS_KEY:
        _add(call, subject.key, &call.effects.key)
    if head is not None:
        _add(call, head, &call.effects.head)
        call.effects.sets |= RULE_SETS_HEAD
    if log is not None:
        _add(call, log, &call.effects.log)
        call.effects.sets |= RULE_SETS_LOG
    if subject.wants.action == RULE_ANSWERS:
        _add(call, subject.reply_fields, &call.effects.reply_fields)
        _add(call, subject.reply_body, &call.effects.reply_body)
    return 0
