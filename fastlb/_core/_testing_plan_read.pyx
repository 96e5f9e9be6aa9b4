# Reads a plan back, for tests: what a worker would see, in Python's words.

from libc.stdint cimport uint16_t, uint32_t

from fastlb._core.address cimport ADDRESS_TEXT_BYTES_MAX, Address, address_from_text, address_text
from fastlb._core.plan cimport (
    Plan, PlanClass, PlanKeyPart, PlanNode, PlanPool, PlanRules, PlanVirtualServer, Text,
    plan_check, plan_class, plan_cookie_names, plan_key_parts, plan_listener, plan_network_has,
    plan_nodes, plan_passphrases, plan_pool, plan_routes, plan_rule_uses, plan_rules, plan_text,
    plan_virtual_server,
)


cdef str _text(const Plan* plan, Text text):
    return plan_text(plan, text)[:text.bytes].decode()


cdef dict _node(const Plan* plan, const PlanNode* node):
    cdef char[ADDRESS_TEXT_BYTES_MAX] out
    count = address_text(&node.address, out)
    return {
        "address": out[:count].decode(),
        "name": _text(plan, node.name),
        "flags": node.flags,
        "slot": node.slot,
        "weight": node.weight,
        "max_connections": node.max_connections,
        "hash_seed": node.hash_seed,
    }


cdef dict _pool(const Plan* plan, const PlanPool* pool):
    cdef const uint16_t* schedule = <const uint16_t*> (<const char*> plan + pool.schedule)
    cdef uint32_t i
    return {
        "name": _text(plan, pool.name),
        "slot": pool.slot,
        "algorithm": pool.algorithm,
        "persistence": pool.persistence,
        "retries": pool.retries,
        "flags": pool.flags,
        "nodes": [_node(plan, plan_nodes(plan, pool) + i) for i in range(pool.node_count)],
        "schedule": [schedule[i] for i in range(pool.schedule_count)],
    }


cdef list _key_parts(const Plan* plan, uint32_t first, uint32_t count):
    cdef const PlanKeyPart* parts = plan_key_parts(plan) + first
    cdef uint32_t i
    return [(parts[i].kind, parts[i].number or _text(plan, parts[i].name)) for i in range(count)]


cdef dict _class(const Plan* plan, const PlanClass* cls):
    return {
        "name": _text(plan, cls.name),
        "id": cls.id,
        "slot": cls.slot,
        "type": cls.type,
        "fallback": cls.fallback,
        "failure_mode": cls.failure_mode,
        "flags": cls.flags,
        "redirect_url": _text(plan, cls.redirect_url),
        "bits": (cls.ipv4_bits, cls.ipv6_bits),
        "cache": (cls.cache_offset, cls.cache_bytes),
        "expiry_ticks": cls.expiry_ticks,
        "reserve_ticks": cls.reserve_ticks,
        "reservations": (cls.reservations_offset, cls.reservations_bytes),
        "timeout_s": cls.timeout_s,
        "max_lifetime_s": cls.max_lifetime_s,
        "cookie_names": [
            (_text(plan, plan_cookie_names(plan, cls)[i].name),
             plan_cookie_names(plan, cls)[i].virtual_server)
            for i in range(cls.cookie_name_count)
        ],
        "cookie_tail": _text(plan, cls.cookie_tail),
        "chain_flags": cls.chain_flags,
        "key": _key_parts(plan, cls.key_parts, cls.key_part_count),
        "learn": _key_parts(plan, cls.learn_parts, cls.learn_part_count),
        "passphrases": [
            ((<char*> plan_passphrases(plan, cls)[i].cipher_key)[:64],
             (<char*> &plan_passphrases(plan, cls)[i].mark)[:16])
            for i in range(cls.passphrase_count)
        ],
        "session_cookie": _text(plan, cls.session_cookie),
        "session_parameter": _text(plan, cls.session_parameter),
        "route_separators": _text(plan, cls.route_separators),
    }


cdef dict _server(const Plan* plan, const PlanVirtualServer* server):
    cdef uint32_t first = server.routes
    cdef uint32_t i
    return {
        "name": _text(plan, server.name),
        "slot": server.slot,
        "protocol": server.protocol,
        "pool": server.pool,
        "flags": server.flags,
        "routes": [
            (_text(plan, plan_routes(plan)[first + i].host),
             _text(plan, plan_routes(plan)[first + i].path), plan_routes(plan)[first + i].pool)
            for i in range(server.route_count)
        ],
        "tls_routes": [
            (_text(plan, plan_routes(plan)[first + i].sni),
             _text(plan, plan_routes(plan)[first + i].alpn), plan_routes(plan)[first + i].pool)
            for i in range(server.route_count)
        ],
        "rules": [plan_rule_uses(plan, server)[i] for i in range(server.rule_count)],
    }


cdef dict _rules(const Plan* plan):
    cdef const PlanRules* rules = &plan.rules
    cdef uint32_t i
    return {
        "names": [
            (_text(plan, plan_rules(plan)[i].name), plan_rules(plan)[i].slot)
            for i in range(rules.rule_count)
        ],
        "on_error": rules.on_error,
        "timeout": rules.timeout,
        "watchdog": rules.watchdog,
        "parked_max": rules.parked_max,
        "shared": (rules.shared_offset, rules.shared_bytes),
        "directory": plan_text(plan, rules.directory)[:rules.directory.bytes],
    }


cdef const Plan* _checked(bytes blob) except NULL:
    cdef const char* at = blob
    if plan_check(<const Plan*> at, len(blob)) < 0:
        raise ValueError("not a plan of this build")
    return <const Plan*> at


def read_plan(blob: bytes) -> dict:
    """All tables of a plan."""
    cdef const Plan* plan = _checked(blob)
    cdef uint32_t i
    return {
        "generation": plan.generation,
        "workers": plan.workers,
        "log_format": plan.log_format,
        "node_table_offset": plan.node_table_offset,
        "epoch_ms": plan.epoch_ms,
        "limits": plan.limits,
        "timeouts": plan.timeouts,
        "keys": [(plan.keys[i].k0, plan.keys[i].k1) for i in range(4)],
        "listeners": {
            plan_listener(plan, i).id: plan_listener(plan, i).virtual_server
            for i in range(plan.listener_count)
        },
        "virtual_servers": [
            _server(plan, plan_virtual_server(plan, i)) for i in range(plan.virtual_server_count)
        ],
        "pools": [_pool(plan, plan_pool(plan, i)) for i in range(plan.pool_count)],
        "classes": [_class(plan, plan_class(plan, i)) for i in range(plan.class_count)],
        "rules": _rules(plan),
    }


def network_has(blob: bytes, server: int, which: str, ip: str) -> bool:
    """Whether `trusted` or `decision` of a virtual server has the address."""
    cdef const Plan* plan = _checked(blob)
    cdef const PlanVirtualServer* one = plan_virtual_server(plan, server)
    cdef Address address
    text = ip.encode()
    if not address_from_text(&address, text, len(text)):
        raise ValueError(ip)
    if which == "trusted":
        return plan_network_has(plan, one.trusted, one.trusted_count, &address)
    return plan_network_has(plan, one.decision, one.decision_count, &address)
