# The indices of a plan: a pool's nodes by address, and what the classes of a chain ask for.

# The table of uint32_t entries for these PlanNodes (each as bytes); empty: they are few.
cdef bytes plan_node_index(list nodes)
# Writes PlanClass.chain_flags all over the finished blob.
cdef void plan_note_chains(bytearray blob) except *
