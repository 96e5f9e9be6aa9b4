# The rules of a plan as this process runs them: which functions, where, in which order.
#
# Both with the GIL: they are called through hooks.

from fastlb._core.plan cimport Plan
from fastlb._core.rule_call cimport RuleTable

# Imports the modules. Raises rule_loader.RuleLoadError, and whatever else goes wrong; then the
# modules are as they were before.
cdef RuleTable* rule_table_build(const Plan* plan) except NULL
# Nobody may run a rule of it any more.
cdef int rule_table_release(RuleTable* table) except -1
