# cython: boundscheck=True
"""One call, rule by rule.

A rule fails when it raises, when it returns something (a forgotten `await`, a pool's name), when
its time is over, or when what it made of a message is none. Then its own wishes are undone, those
of the rules before it stay.

Runs, with their objects, are used again; see rule_objects for when.
"""

import asyncio

import cython

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastlb._core.head cimport BODY_LENGTH, BODY_NONE
from fastlb._core.limits cimport RULES_MAX, RULE_BODY_BYTES_MAX
from fastlb._core.hooks cimport hooks_rules_runner
from fastlb._core.plan cimport RULES_ANSWER_500, PlanRule, plan_rules, plan_text
from fastlb._core.rule_call cimport (
    RULE_BODY_READY, RULE_BODY_TOO_LARGE, RULE_CONNECTION, RULE_DONE, RULE_FAILS, RULE_GOES_ON,
    RULE_RESPONSE, RULE_WANTS_BODY,
)
from fastlb._core.rule_effects cimport (
    effects_check, effects_restore, effects_save, effects_write,
)
from fastlb._core.rule_message cimport Edits
from fastlb._core.rule_queue cimport rule_queue_give, rule_queue_take
from fastlb._core.rule_text cimport shown, text_out, wrong_type, wrong_value
from fastlb._core.rule_watchdog cimport rule_watch_begin, rule_watch_end, rule_watch_open
from fastlb._core.system cimport clock_us

from fastlb.rule_types import BodyTooLarge, RuleEnded, RuleError
from fastlb.rule_watch import RuleOverdue, late

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* one)

cdef enum:
    FREE_MAX = 64                    # runs kept for later

cdef list _free = []
cdef list _came = []                # runs that the event loop has not dealt with
cdef WorkerStats* _stats = NULL
cdef object _log = None              # fastlb.rule_log
cdef object _units = None            # fastlb.units: what a size means


cdef void rule_run_open(WorkerStats* stats) noexcept nogil:
    global _stats
    _stats = stats
    rule_watch_open(stats)


cdef Saved _nothing():
    cdef Saved saved = Saved.__new__(Saved)
    memset(&saved.wants, 0, sizeof(saved.wants))
    saved.request = Edits.__new__(Edits)
    saved.response = Edits.__new__(Edits)
    return saved


cdef int _tell(str name, object error) except -1:
    # What goes wrong here must not become the failure of the request.
    global _log
    try:
        if _log is None:
            from fastlb import rule_log
            _log = rule_log
        _log.report(name, error)
    except Exception:
        return 0
    return 0


cdef void _spoil(RuleCall* call) noexcept:
    # As if none of its rules had run, and the first one had failed.
    memset(&call.effects, 0, sizeof(call.effects))
    if call.facts.plan.rules.on_error == RULES_ANSWER_500:
        call.effects.action = RULE_FAILS
        call.effects.decided_by = call.steps[0].rule


@cython.final
cdef class RuleRun:
    """One call of rules that is under way."""

    cdef int attach(self, RuleCall* call, rule_give_t give) except -1:
        self.call = call
        self.give = give
        self.begun = False
        if call.kind == RULE_CONNECTION:
            if self.connection is None:
                self.connection = Connection.__new__(Connection)
            self.connection.begin(call)
            self.subject = self.connection
            return 0
        if self.request is None:
            self.request = Request.__new__(Request)
        self.request.begin(call)
        self.request.run = self
        self.subject = self.request
        if call.kind == RULE_RESPONSE:
            if self.response is None:
                self.response = Response.__new__(Response)
            self.response.begin(call)
        return 0

    cdef int detach(self) except -1:
        self.call = NULL
        self.keeper = self.failures = None
        self.saved = None
        self.body = None
        self.future = None
        self.subject.end()
        # Two attributes have the subject; who else does may keep it, ended.
        if Py_REFCNT(<PyObject*> self.subject) > 2:
            self.connection = None
            self.request = None
        self.subject = None
        if self.response is not None:
            if self.response.call != NULL:
                self.response.end()
            if Py_REFCNT(<PyObject*> self.response) > 1:
                self.response = None
        return 0

    cdef str name_of(self, uint32_t i):
        cdef uint32_t rule = self.call.steps[i].rule
        cdef const PlanRule* row
        if rule < self.call.facts.plan.rules.rule_count:
            row = plan_rules(self.call.facts.plan) + rule
            return text_out(plan_text(self.call.facts.plan, row.name), row.name.bytes)
        function = <object> self.call.steps[i].function
        return (f"{getattr(function, '__module__', '?')}:"
                f"{getattr(function, '__qualname__', '?')}")

    cdef RuleStats* stats(self, uint32_t i) noexcept:
        cdef uint32_t slot = self.call.steps[i].slot
        return &_stats.rules[slot] if _stats != NULL and slot < RULES_MAX else NULL

    # --- one rule -------------------------------------------------------------------------

    cdef int start(self, uint32_t i) except -1:
        cdef RuleStats* stats = self.stats(i)
        self.begun = True
        self.saved = None
        if i:
            self.saved = effects_save(self.subject, self.request_or_none(),
                                      self.response_or_none())
        if stats != NULL:
            stats.calls += 1
            stats.waiting += self.call.steps[i].is_async
        self.began_us = clock_us()
        return 0

    cdef Request request_or_none(self):
        return self.request if self.call.kind != RULE_CONNECTION else None

    cdef Response response_or_none(self):
        return self.response if self.call.kind == RULE_RESPONSE else None

    cdef int stop(self, uint32_t i) except -1:
        cdef RuleStats* stats = self.stats(i)
        if stats != NULL:
            stats.busy_us += clock_us() - self.began_us
            stats.waiting -= self.call.steps[i].is_async
        return 0

    cdef bint done(self, uint32_t i, object result) except -1:
        try:
            if result is not None:
                if hasattr(result, "close"):
                    result.close()   # a coroutine that nobody awaits would say so later
                raise TypeError(f"a rule returns None, found {shown(result)}")
            if self.call.kind != RULE_CONNECTION:
                effects_check(self.request, self.response_or_none())
        except BaseException as error:
            return self.fail(i, error, False)
        self.stop(i)
        if self.subject.wants.action == RULE_GOES_ON:
            return True
        self.subject.wants.decided_by = self.call.steps[i].rule
        return False

    cdef bint fail(self, uint32_t i, object error, bint timed_out) except -1:
        cdef RuleStats* stats = self.stats(i)
        self.stop(i)
        if stats != NULL:
            if timed_out:
                stats.timeouts += 1
            else:
                stats.errors += 1
        effects_restore(self.saved if self.saved is not None else _nothing(), self.subject,
                        self.request_or_none(), self.response_or_none())
        if self.failures is not None:
            self.failures.append(error)
        else:
            _tell(self.name_of(i), error)
        if self.call.facts.plan.rules.on_error != RULES_ANSWER_500:
            return True
        self.subject.wants.action = RULE_FAILS
        self.subject.wants.decided_by = self.call.steps[i].rule
        return False

    cdef bint step(self, uint32_t i) except -1:
        cdef object result
        cdef bint watched = self.call.steps[i].slot < RULES_MAX
        self.start(i)
        if watched:
            rule_watch_begin(self.call.steps[i].slot)
        try:
            try:
                if self.call.kind == RULE_RESPONSE:
                    result = (<object> self.call.steps[i].function)(self.request, self.response)
                else:
                    result = (<object> self.call.steps[i].function)(self.subject)
            finally:
                if watched:
                    rule_watch_end()
        except RuleOverdue as error:
            return self.fail(i, late(error, self.timeout), True)
        except BaseException as error:
            return self.fail(i, error, False)
        return self.done(i, result)

    # --- for the event loop ---------------------------------------------------------------

    cdef int demand(self) except -1:
        # A loop that a rule closed leaves coroutines behind; they may still wake.
        if self.call == NULL:
            raise RuleEnded("this call of rules has ended")
        return 0

    @property
    def steps(self):
        """The rules to be run, in their order: pairs of function and name."""
        cdef uint32_t i
        self.demand()
        return [(<object> self.call.steps[i].function, self.name_of(i))
                for i in range(self.call.count)]

    @property
    def timeout(self):
        """Seconds that each rule has."""
        self.demand()
        return self.call.facts.plan.rules.timeout / 1e3

    @property
    def ended_early(self):
        """Whether nobody waits for it any more."""
        return self.call == NULL or self.call.cancelled != 0

    def arguments(self, uint32_t i):
        """What rule `i` is called with."""
        self.demand()
        if self.call.kind == RULE_RESPONSE:
            return self.request, self.response
        return (self.subject,)

    def begin(self, uint32_t i):
        """Rule `i` begins."""
        self.demand()
        self.start(i)

    def ended(self, uint32_t i, result=None):
        """Rule `i` returned `result`; whether those after it are run."""
        self.demand()
        return self.done(i, result)

    def failed(self, uint32_t i, exception, timed_out=False):
        """Rule `i` raised, or its time is over; whether those after it are run."""
        self.demand()
        return self.fail(i, exception, timed_out)

    def cancelled(self, uint32_t i):
        """Rule `i` was stopped, because nobody waits for it any more."""
        cdef RuleStats* stats
        self.demand()
        stats = self.stats(i)
        self.stop(i)
        if stats != NULL:
            stats.cancelled += 1
        effects_restore(self.saved if self.saved is not None else _nothing(), self.subject,
                        self.request_or_none(), self.response_or_none())

    def finish(self):
        """No rule runs any more: writes the effects and gives the call back."""
        self.close()

    cdef int close(self) except -1:
        cdef RuleCall* call = self.call
        cdef rule_give_t give = self.give
        if call == NULL:
            return 0
        try:
            effects_write(call, self.subject, self.request_or_none(), self.response_or_none())
        except BaseException as error:
            # No memory.
            _spoil(call)
            _tell(self.name_of(0), error)
        self.detach()
        if call.last and call.data != NULL:
            # The worker would take the GIL for that.
            Py_DECREF(<object> call.data)
            call.data = NULL
        if call.running != NULL:
            call.running = NULL
            Py_DECREF(self)
        if give != NULL:
            give(call, RULE_DONE)
        return 0

    # --- the body -------------------------------------------------------------------------

    def want_body(self, limit):
        """The request's body, to be awaited by a rule."""
        return self.gather(_limit(limit))

    async def gather(self, most):
        while True:
            if self.call == NULL:
                raise RuleEnded("the rule that asked for the body has ended")
            if self.call.facts.request_body == BODY_NONE:
                return b""
            if self.call.facts.request_body == BODY_LENGTH and (
                    self.call.facts.request_length > <uint64_t> most):
                raise BodyTooLarge(most)
            if self.body is None and self.give == NULL:
                self.body_here()     # of a test: no worker writes to the call meanwhile
            if self.body is not None:
                if len(self.body) > most:
                    raise BodyTooLarge(most)
                return self.body
            if self.body_too_large and self.body_asked >= <uint64_t> most:
                raise BodyTooLarge(most)
            await asyncio.shield(self.ask_body(most))

    def ask_body(self, most):
        if self.future is None:
            if self.give == NULL:
                raise RuleError("request.body: a plain rule cannot wait for it; write async def")
            self.future = asyncio.get_running_loop().create_future()
            self.body_too_large = False
            self.body_asked = most
            self.call.body_max = most
            self.give(self.call, RULE_WANTS_BODY)
        return self.future

    cdef int body_here(self) except -1:
        if self.call.body_state == RULE_BODY_READY:
            self.body = self.call.body[:self.call.body_bytes]
        return 0

    @property
    def fresh(self):
        """Whether none of its rules has begun."""
        return not self.begun

    def told(self):
        """The worker has the body, or knows that there will be none."""
        future, self.future = self.future, None
        if self.call == NULL or future is None:
            return
        self.body_here()
        self.body_too_large = self.call.body_state == RULE_BODY_TOO_LARGE
        if not future.done():
            if self.body is None and not self.body_too_large:
                future.set_exception(RuleError("the client left before the end of its body"))
                future.exception()   # seen, should nobody wait
            else:
                future.set_result(None)


cdef object _limit(object limit):
    global _units
    found = limit
    if isinstance(limit, str):
        if _units is None:
            from fastlb import units
            _units = units
        limit = _units.quantity(str.__str__(limit), _units.BYTES)
        if limit is None:
            raise wrong_value("body(limit)", f'expected a size like "1MiB", found {shown(found)}')
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise wrong_type("body(limit)", 'a size like "1MiB", or an int', found)
    if not 0 < limit <= RULE_BODY_BYTES_MAX:
        raise wrong_value("body(limit)", f"expected 1 to {<int> RULE_BODY_BYTES_MAX} bytes, "
                                         f"found {shown(limit)}")
    return limit


cdef int _take(RuleCall* call) except -1:
    cdef RuleRun run
    if call.running != NULL:
        _came.append(<RuleRun> call.running)
        return 0
    run = rule_run_of(call, rule_queue_give)
    _came.append(run)
    Py_INCREF(run)
    call.running = <void*> run
    return 0


def take():
    """The runs of the calls that came for the event loop, and those of which the worker told
    something: then `told` says what. Who has dealt with one takes it out of the list, which is
    always the same: the exception that ends a rule which holds the thread may come too late, and
    in between."""
    cdef RuleCall* call = rule_queue_take()
    cdef RuleCall* following
    while call != NULL:
        following = call.next
        try:
            _take(call)
        except BaseException as error:
            _spoil(call)
            rule_queue_give(call, RULE_DONE)
            _tell("", error)
        call = following
    return _came


cdef RuleRun rule_run_of(RuleCall* call, rule_give_t give):
    cdef RuleRun run
    if _free:
        run = _free.pop()
    else:
        run = RuleRun.__new__(RuleRun)
    run.attach(call, give)
    return run


cdef int rule_run_plain(RuleCall* call) except -1:
    cdef RuleRun run = rule_run_of(call, NULL)
    cdef uint32_t i
    try:
        for i in range(call.count):
            if not run.step(i):
                break
    finally:
        run.close()
        # Not one that a rule found a way to.
        if len(_free) < FREE_MAX and Py_REFCNT(<PyObject*> run) == 1:
            _free.append(run)
    return 0


hooks_rules_runner(rule_run_plain, rule_run_open)
