# What a plan has beside its tables, so that requests need not search them.

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcpy

from fastlb._core.address cimport address_same_ip
from fastlb._core.limits cimport FALLBACK_DEPTH_MAX
from fastlb._core.plan cimport (
    INDEX_KIND_BITS, INDEX_KIND_MASK, INDEX_NODE, INDEX_ONLY, INDEX_SEVERAL, Plan, PlanClass,
    PlanNode, plan_index_hash,
)

cdef enum:
    INDEXED_NODES_MIN = 16           # below, comparing them all is as fast


cdef bytes plan_node_index(list nodes):
    # At most half full: two entries for a node at worst.
    cdef bytearray out
    cdef uint32_t* entries
    cdef PlanNode node, other
    cdef bytes blob
    cdef uint32_t size = 1, mask, at, i
    if len(nodes) < INDEXED_NODES_MIN:
        return b""
    while size < 4 * <uint32_t> len(nodes):
        size *= 2
    out = bytearray(4 * size)
    entries = <uint32_t*> <char*> out
    mask = size - 1
    for i in range(<uint32_t> len(nodes)):
        blob = nodes[i]
        memcpy(&node, <const char*> blob, sizeof(node))
        at = plan_index_hash(&node.address, node.address.port) & mask
        while entries[at]:
            at = (at + 1) & mask
        entries[at] = (i << INDEX_KIND_BITS) | INDEX_NODE
        at = plan_index_hash(&node.address, 0) & mask
        while entries[at]:
            blob = nodes[entries[at] >> INDEX_KIND_BITS]
            memcpy(&other, <const char*> blob, sizeof(other))
            if entries[at] & INDEX_KIND_MASK != INDEX_NODE \
                    and address_same_ip(&other.address, &node.address):
                break
            at = (at + 1) & mask
        entries[at] = (i << INDEX_KIND_BITS) | (INDEX_SEVERAL if entries[at] else INDEX_ONLY)
    return bytes(out)


cdef void plan_note_chains(bytearray blob) except *:
    # What any class of a chain asks for, so that a request looks at one word.
    cdef char* base = blob
    cdef Plan* plan = <Plan*> base
    cdef PlanClass* cls = <PlanClass*> (base + plan.classes)
    cdef uint32_t i
    cdef int _depth
    cdef int32_t at
    for i in range(plan.class_count):
        at = <int32_t> i
        for _depth in range(FALLBACK_DEPTH_MAX):
            if at < 0:
                break
            cls[i].chain_flags |= cls[at].flags
            at = cls[at].fallback
