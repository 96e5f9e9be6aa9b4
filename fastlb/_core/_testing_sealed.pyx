"""def functions over hooks, sealed, persist_cookie_insert and http_date; for tests only."""

import time

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastlb._core._testing_arena cimport arena_place
from fastlb._core._testing_plan cimport PlanImage
from fastlb._core.address cimport (
    ADDRESS_TEXT_BYTES_MAX, Address, address_from_text, address_text,
)
from fastlb._core.hooks cimport hooks_open, hooks_prepare, hooks_siv_decrypt, hooks_siv_encrypt
from fastlb._core.http_date cimport HTTP_DATE_BYTES, http_date_write
from fastlb._core.methods cimport method_write
from fastlb._core.persist cimport COOKIE_VALUE_BYTES_MAX, persist_write_t
from fastlb._core.plan cimport PlanPassphrase, plan_class
from fastlb._core.sealed cimport SEALED_TEXT_BYTES_MAX, sealed_read, sealed_write
from fastlb._core.siphash cimport SipKey, sip_key_load
from fastlb._core.token cimport Token, token_read

cdef uint64_t _taken = 0
hooks_open(&_taken)


def acquisitions():
    """How often this process's core took the GIL by way of hooks."""
    return _taken


def count_nowhere(bint nowhere):
    hooks_open(NULL if nowhere else &_taken)


def prepare():
    with nogil:
        hooks_prepare()


def encrypt(bytes key, bytes plain):
    """The cipher text, b"" when it failed."""
    cdef const uint8_t* at = <const uint8_t*><const char*>plain
    cdef const uint8_t* key_at = <const uint8_t*><const char*>key
    cdef uint8_t out[256]
    cdef uint32_t count = <uint32_t>len(plain), written
    with nogil:
        written = hooks_siv_encrypt(key_at, at, count, out)
    return (<char*>out)[:written]


def decrypt(bytes key, bytes data):
    """The plain text, b"" when it failed."""
    cdef const uint8_t* at = <const uint8_t*><const char*>data
    cdef const uint8_t* key_at = <const uint8_t*><const char*>key
    cdef uint8_t out[256]
    cdef uint32_t count = <uint32_t>len(data), written
    with nogil:
        written = hooks_siv_decrypt(key_at, at, count, out)
    return (<char*>out)[:written]


cdef Address _parsed(str ip, int port) except *:
    cdef Address a
    memset(&a, 0, sizeof(a))
    text = ip.encode()
    if not address_from_text(&a, text, <uint32_t>len(text)):
        raise ValueError(ip)
    a.port = port
    return a


cdef str _text(const Address* a):
    cdef char out[ADDRESS_TEXT_BYTES_MAX]
    return out[:address_text(a, out)].decode()


cdef PlanPassphrase* _keys(list passphrases) except NULL:
    cdef PlanPassphrase* keys = <PlanPassphrase*>calloc(len(passphrases) + 1,
                                                        sizeof(PlanPassphrase))
    cdef bytes cipher_key, mark
    for i, (cipher_key, mark) in enumerate(passphrases):
        memcpy(keys[i].cipher_key, <const char*>cipher_key, 64)
        sip_key_load(&keys[i].mark, <const uint8_t*><const char*>mark)
    return keys


def seal(list passphrases, str ip, int port, uint32_t class_id, uint32_t first_seen=0,
         uint32_t last_seen=0):
    """The value made with the first of the passphrases' (cipher key, mark key)."""
    cdef PlanPassphrase* keys = _keys(passphrases)
    cdef Token token
    cdef char out[SEALED_TEXT_BYTES_MAX + 1]
    cdef uint32_t count
    memset(&token, 0xee, sizeof(token))
    token.node = _parsed(ip, port)
    token.class_id = class_id
    token.first_seen_s = first_seen
    token.last_seen_s = last_seen
    memset(out, c'#', sizeof(out))
    with nogil:
        count = sealed_write(keys, &token, out)
    free(keys)
    if out[count] != c'#':
        raise AssertionError("written beyond the count")
    return out[:count]


def unseal(list passphrases, bytes text):
    """(which passphrase, "address:port", class, first seen, last seen), or None."""
    cdef PlanPassphrase* keys = _keys(passphrases)
    cdef Token token
    cdef const char* at = arena_place(text, len(text))
    cdef uint32_t key_count = <uint32_t>len(passphrases), count = <uint32_t>len(text)
    cdef int key
    memset(&token, 0xee, sizeof(token))
    with nogil:
        key = sealed_read(keys, key_count, at, count, &token)
    free(keys)
    if key < 0:
        return None
    return (key, _text(&token.node), token.class_id, token.first_seen_s, token.last_seen_s)


def cost(list passphrases, bytes text, uint32_t times):
    """Nanoseconds of one reading of an encrypted value."""
    cdef PlanPassphrase* keys = _keys(passphrases)
    cdef Token token
    cdef const char* at = text
    cdef uint32_t key_count = <uint32_t>len(passphrases), count = <uint32_t>len(text), _i
    began = time.perf_counter_ns()
    with nogil:
        for _i in range(times):
            sealed_read(keys, key_count, at, count, &token)
    took = time.perf_counter_ns() - began
    free(keys)
    return took / times


def token_cost(bytes mac, bytes stream, bytes text, uint32_t times):
    """Nanoseconds of one reading of a transparent class's value."""
    cdef SipKey mac_key, stream_key
    cdef Token token
    cdef const char* at = text
    cdef uint32_t count = <uint32_t>len(text), _i
    sip_key_load(&mac_key, <const uint8_t*><const char*>mac)
    sip_key_load(&stream_key, <const uint8_t*><const char*>stream)
    began = time.perf_counter_ns()
    with nogil:
        for _i in range(times):
            token_read(&mac_key, &stream_key, at, count, &token)
    return (time.perf_counter_ns() - began) / times


def write(PlanImage image, uint32_t index, str ip, int port, uint32_t first_seen, uint32_t now):
    """The value that a class of the plan writes into its cookie."""
    cdef persist_write_t make = method_write(plan_class(image.plan, index))
    cdef Address node = _parsed(ip, port)
    cdef char out[COOKIE_VALUE_BYTES_MAX]
    cdef uint32_t count
    with nogil:
        count = make(image.plan, plan_class(image.plan, index), &node, first_seen, now, out)
    return out[:count].decode()


def http_date(uint64_t seconds):
    cdef char out[HTTP_DATE_BYTES + 1]
    memset(out, c'#', sizeof(out))
    http_date_write(seconds, out)
    if out[HTTP_DATE_BYTES] != c'#':
        raise AssertionError("written beyond the end")
    return out[:HTTP_DATE_BYTES].decode()
