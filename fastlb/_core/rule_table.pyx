# Of names in a plan, the functions that fastlb/rule_loader.py finds for them, sorted by virtual
# server and kind: a connection, a request and a response each have one list to run.

import os

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from fastlb._core.plan cimport (
    PROTOCOL_HTTP, PROTOCOL_HTTPS, PlanVirtualServer, Text, plan_rule_uses, plan_rules, plan_text,
    plan_virtual_server,
)
from fastlb._core.rule_call cimport (
    RULE_CONNECTION, RULE_KINDS, RULE_REQUEST, RULE_RESPONSE, RuleList, RuleStep,
)

KINDS = {"connection": RULE_CONNECTION, "request": RULE_REQUEST, "response": RULE_RESPONSE}
PROTOCOLS = ("http", "https", "tls", "tcp")  # by Protocol of plan.pxd


cdef str _text(const Plan* plan, Text text):
    return os.fsdecode(plan_text(plan, text)[:text.bytes])


cdef int _allowed(const Plan* plan, const PlanVirtualServer* server, object rule) except -1:
    if rule.kind == "connection" or server.protocol in (PROTOCOL_HTTP, PROTOCOL_HTTPS):
        return 0
    from fastlb import errors, rule_loader
    raise rule_loader.RuleLoadError(
        f"virtual server {_text(plan, server.name)}", errors.RULE_FOR_PROTOCOL, name=rule.name,
        kind=rule.kind, protocol=PROTOCOLS[server.protocol],
    )


cdef void _add(RuleTable* table, const Plan* plan, uint32_t index, object rule):
    cdef RuleStep* step = &table.steps[table.step_count]
    cdef object function = rule.function
    step.function = <void*> function
    step.rule = index
    step.slot = plan_rules(plan)[index].slot
    step.is_async = rule.is_async
    table.step_count += 1
    if rule.is_async:
        table.has_async = True
    else:
        table.has_plain = True


cdef int _fill(RuleTable* table, const Plan* plan, list rules) except -1:
    cdef const PlanVirtualServer* server
    cdef const uint32_t* uses
    cdef uint32_t first, i, j
    for i in range(plan.virtual_server_count):
        server = plan_virtual_server(plan, i)
        uses = plan_rule_uses(plan, server)
        for j in range(server.rule_count):
            _allowed(plan, server, rules[uses[j]])
        for kind, number in KINDS.items():
            first = table.step_count
            for j in range(server.rule_count):
                rule = rules[uses[j]]
                if rule.kind == kind:
                    _add(table, plan, uses[j], rule)
            table.lists[i * RULE_KINDS + <uint32_t> number].steps = &table.steps[first]
            table.lists[i * RULE_KINDS + <uint32_t> number].count = table.step_count - first
    return 0


cdef void _free(RuleTable* table) noexcept:
    if table != NULL:
        free(table.lists)
        free(table.steps)
    free(table)


cdef RuleTable* rule_table_build(const Plan* plan) except NULL:
    cdef RuleTable* table
    cdef uint32_t i, steps = 0
    from fastlb import rule_loader
    for i in range(plan.virtual_server_count):
        steps += plan_virtual_server(plan, i).rule_count
    names = [_text(plan, plan_rules(plan)[i].name) for i in range(plan.rules.rule_count)]
    table = <RuleTable*> calloc(1, sizeof(RuleTable))
    if table != NULL:
        table.lists = <RuleList*> calloc(plan.virtual_server_count * RULE_KINDS + 1,
                                         sizeof(RuleList))
        table.steps = <RuleStep*> calloc(steps + 1, sizeof(RuleStep))
    if table == NULL or table.lists == NULL or table.steps == NULL:
        _free(table)
        raise MemoryError("rules: their table")
    try:
        loaded = rule_loader.load(_text(plan, plan.rules.directory), names)
        _fill(table, plan, loaded.rules)
    except BaseException:
        _free(table)
        raise
    Py_INCREF(loaded)
    table.modules = <void*> loaded
    return table


cdef int rule_table_release(RuleTable* table) except -1:
    cdef object loaded = <object> table.modules
    _free(table)
    Py_DECREF(loaded)
    loaded.release()
    return 0
