# Which fields of a plan's tables are offsets: a new one that is forgotten here points to nowhere.

from libc.stdint cimport uint32_t

from fastlb._core.plan cimport (
    Plan, PlanClass, PlanCookieName, PlanErrorPage, PlanKeyPart, PlanNode, PlanPool, PlanRoute,
    PlanRule, PlanServerName, PlanVirtualServer,
)


cdef void _tables(char* base, const PlanOffsets* areas) noexcept nogil:
    cdef Plan* plan = <Plan*> base
    cdef uint32_t texts = areas.texts
    cdef PlanVirtualServer* server = <PlanVirtualServer*> (base + plan.virtual_servers)
    cdef PlanPool* pool = <PlanPool*> (base + plan.pools)
    cdef PlanClass* cls = <PlanClass*> (base + plan.classes)
    cdef PlanNode* node = <PlanNode*> (base + plan.nodes)
    cdef PlanRoute* route = <PlanRoute*> (base + plan.routes)
    cdef PlanErrorPage* page = <PlanErrorPage*> (base + plan.error_pages)
    cdef uint32_t i
    for i in range(plan.virtual_server_count):
        server[i].name.offset += texts
    plan.manifest.offset += texts
    for i in range(areas.error_pages):
        page[i].type.offset += texts
        page[i].body.offset += texts
    for i in range(plan.pool_count):
        pool[i].name.offset += texts
        pool[i].schedule += areas.schedules
        pool[i].index += areas.indexes
    for i in range(plan.node_count):
        node[i].name.offset += texts
    for i in range(plan.class_count):
        cls[i].name.offset += texts
        cls[i].redirect_url.offset += texts
        cls[i].cookie_tail.offset += texts
        cls[i].session_cookie.offset += texts
        cls[i].session_parameter.offset += texts
        cls[i].route_separators.offset += texts
    for i in range(plan.route_count):
        route[i].host.offset += texts
        route[i].path.offset += texts
        route[i].sni.offset += texts
        route[i].alpn.offset += texts


cdef void _methods(char* base, const PlanOffsets* areas) noexcept nogil:
    cdef Plan* plan = <Plan*> base
    cdef uint32_t texts = areas.texts
    cdef PlanCookieName* name = <PlanCookieName*> (base + plan.cookie_names)
    cdef PlanKeyPart* part = <PlanKeyPart*> (base + plan.key_parts)
    cdef uint32_t i
    for i in range(areas.cookie_names):
        name[i].name.offset += texts
    for i in range(areas.key_parts):
        part[i].name.offset += texts


cdef void _tls(char* base, const PlanOffsets* areas) noexcept nogil:
    cdef Plan* plan = <Plan*> base
    cdef uint32_t texts = areas.texts
    cdef PlanServerName* name = <PlanServerName*> (base + plan.server_names)
    cdef PlanPool* pool = <PlanPool*> (base + plan.pools)
    cdef uint32_t i
    plan.tls.material.offset += texts
    for i in range(areas.server_names):
        name[i].name.offset += texts
    for i in range(plan.pool_count):
        pool[i].tls_server_name.offset += texts


cdef void _rules(char* base, const PlanOffsets* areas) noexcept nogil:
    cdef Plan* plan = <Plan*> base
    cdef uint32_t texts = areas.texts
    cdef PlanRule* rule = <PlanRule*> (base + plan.rules.rules)
    cdef uint32_t i
    plan.rules.directory.offset += texts
    for i in range(plan.rules.rule_count):
        rule[i].name.offset += texts


cdef void plan_offsets_move(char* plan, const PlanOffsets* areas) noexcept nogil:
    _tables(plan, areas)
    _methods(plan, areas)
    _tls(plan, areas)
    _rules(plan, areas)
