"""def functions over rule_table, through hooks; for tests only."""

from libc.stdint cimport uint32_t

from fastlb._core._testing_plan cimport PlanImage
from fastlb._core.hooks cimport hooks_rules_build, hooks_rules_count, hooks_rules_release
from fastlb._core.plan cimport plan_rules, plan_text
from fastlb._core.rule_call cimport RULE_KINDS, RuleList, RuleTable, rule_list

KINDS = ("connection", "request", "response")


cdef class Rules:
    """The rules of a plan; built of an image, which must stay."""
    cdef RuleTable* table
    cdef PlanImage image

    def __init__(self, PlanImage image):
        self.image = image
        self.table = hooks_rules_build(image.plan)
        if self.table == NULL:
            raise ValueError("refused")

    def lists(self, uint32_t server) -> dict:
        """By kind: name, slot, whether it is async, and the function of each step."""
        cdef const RuleList* one
        cdef uint32_t i, kind
        out = {}
        for kind in range(<uint32_t> RULE_KINDS):
            one = rule_list(self.table, server, <int> kind)
            out[KINDS[kind]] = []
            for i in range(one.count):
                rule = plan_rules(self.image.plan)[one.steps[i].rule]
                name = plan_text(self.image.plan, rule.name)[:rule.name.bytes].decode()
                out[KINDS[kind]].append((name, one.steps[i].slot, bool(one.steps[i].is_async),
                                         <object> one.steps[i].function))
        return out

    def has(self) -> tuple:
        """Whether there are plain ones, async ones."""
        return bool(self.table.has_plain), bool(self.table.has_async)

    def release(self):
        hooks_rules_release(self.table)
        self.table = NULL


def in_use() -> int:
    return hooks_rules_count()
