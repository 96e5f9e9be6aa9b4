# A new method is a module of its own and one row here.

from fastlb._core.inserted cimport inserted_write_token
from fastlb._core.persist cimport persist_find_t, persist_learn_t, persist_write_t
from fastlb._core.persist_asp cimport persist_asp_find, persist_asp_learn
from fastlb._core.persist_cookie cimport persist_cookie_find
from fastlb._core.persist_cookie_insert cimport (
    persist_cookie_insert_find, persist_cookie_insert_write,
)
from fastlb._core.persist_hash cimport persist_hash_find
from fastlb._core.persist_ip cimport persist_ip_find
from fastlb._core.persist_j2ee cimport persist_j2ee_find, persist_j2ee_learn
from fastlb._core.persist_named cimport persist_named_find
from fastlb._core.persist_ssl cimport persist_ssl_find, persist_ssl_learn
from fastlb._core.persist_transparent cimport persist_transparent_find
from fastlb._core.persist_universal cimport persist_universal_find, persist_universal_learn
from fastlb._core.persist_x_zeus cimport persist_x_zeus_find
from fastlb._core.plan cimport CLASS_TYPES, PlanClass

ctypedef struct Method:
    persist_find_t find
    persist_write_t write            # of classes with CLASS_INSERTS_COOKIE
    persist_learn_t learn            # of classes with CLASS_LEARNS

cdef Method* METHODS = [
    Method(persist_ip_find, NULL, NULL),
    Method(persist_universal_find, NULL, persist_universal_learn),
    Method(persist_named_find, NULL, NULL),
    Method(persist_transparent_find, inserted_write_token, NULL),
    Method(persist_cookie_insert_find, persist_cookie_insert_write, NULL),
    Method(persist_cookie_find, inserted_write_token, NULL),
    Method(persist_j2ee_find, NULL, persist_j2ee_learn),
    Method(persist_asp_find, NULL, persist_asp_learn),
    Method(persist_x_zeus_find, NULL, NULL),
    Method(persist_ssl_find, NULL, persist_ssl_learn),
    Method(persist_hash_find, NULL, NULL),
]

if CLASS_TYPES != 11:
    raise ImportError("fastlb._core.methods: a class type has no row")


cdef persist_find_t method_find(const PlanClass* cls) noexcept nogil:
    return METHODS[cls.type].find


cdef persist_write_t method_write(const PlanClass* cls) noexcept nogil:
    return METHODS[cls.type].write


cdef persist_learn_t method_learn(const PlanClass* cls) noexcept nogil:
    return METHODS[cls.type].learn
