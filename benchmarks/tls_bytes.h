/* TLS handshakes without cryptography: records and messages of the usual sizes, with what
 * a proxy that passes them on may read in plain text, and noise where keys would be.
 *
 * Sizes are those of a browser (a ClientHello of 517 bytes) and of a node with a chain of two
 * RSA certificates. A session id and a ticket begin with the port of the node that
 * granted them, so a node knows its own. RFC 5246, 5077 and 8446 have the formats. */
#ifndef BENCH_TLS_BYTES_H
#define BENCH_TLS_BYTES_H

#include "net.h"

enum { CCS = 20, ALERT = 21, HANDSHAKE = 22, DATA = 23 };                  /* records */
enum { CLIENT_HELLO = 1, SERVER_HELLO = 2, NEW_SESSION_TICKET = 4, FINISHED = 20 };
enum { EXT_SERVER_NAME = 0, EXT_ALPN = 16, EXT_PADDING = 21, EXT_TICKET = 35,
       EXT_VERSIONS = 43, EXT_KEY_SHARE = 51 };
enum { RECORD_HEAD = 5, SESSION_ID = 32, TICKET = 192, HELLO_BYTES = 517, FLIGHT_MAX = 8192 };
enum { SESSION_ID_AT = 44 };       /* in the record of a hello; its length is before it */
enum { REQUEST_DATA = 420, RESPONSE_DATA = 1360, CERTIFICATES = 2600 };

enum handshake { BY_ID, FULL, BY_TICKET, TLS13 };

/* What is written, and where to; `mark` of an open length field. */
struct out {
    uint8_t *data;
    size_t length;
};

static uint64_t noise_state = 0x2545f4914f6cdd1du;

static inline uint64_t noise(void)
{
    noise_state ^= noise_state << 13;
    noise_state ^= noise_state >> 7;
    noise_state ^= noise_state << 17;
    return noise_state;
}

static inline void put(struct out *out, uint32_t value, int bytes)
{
    while (bytes--)
        out->data[out->length++] = (uint8_t)(value >> 8 * bytes);
}

static inline void put_bytes(struct out *out, const void *bytes, size_t length)
{
    memcpy(out->data + out->length, bytes, length);
    out->length += length;
}

static inline void put_noise(struct out *out, size_t length)
{
    for (; length >= 8; length -= 8) {
        uint64_t bits = noise();
        put_bytes(out, &bits, 8);
    }
    for (; length; length--)
        out->data[out->length++] = (uint8_t)noise();
}

/* A length field of so many bytes, filled in by `closed` when what it counts is written. */
static inline size_t opened(struct out *out, int bytes)
{
    put(out, 0, bytes);
    return out->length;
}

static inline void closed(struct out *out, size_t mark, int bytes)
{
    struct out field = {out->data, mark - (size_t)bytes};
    put(&field, (uint32_t)(out->length - mark), bytes);
}

static inline size_t record_opened(struct out *out, int type)
{
    put(out, (uint32_t)type, 1);
    put(out, 0x0303, 2);
    return opened(out, 2);
}

static inline void record_noise(struct out *out, int type, size_t length)
{
    size_t record = record_opened(out, type);
    put_noise(out, length);
    closed(out, record, 2);
}

static inline void change_cipher(struct out *out)
{
    size_t record = record_opened(out, CCS);
    put(out, 1, 1);
    closed(out, record, 2);
}

/* The id or ticket of a node's session. */
static inline void session_make(uint8_t *session, size_t length, uint16_t port)
{
    struct out out = {session, 0};
    put(&out, port, 2);
    put_noise(&out, length - 2);
}

static inline bool session_of(const uint8_t *session, uint16_t port)
{
    return session[0] << 8 == (port & 0xff00) && session[1] == (port & 0xff);
}

static inline void extension(struct out *out, int type, const void *body, size_t length)
{
    put(out, (uint32_t)type, 2);
    put(out, (uint32_t)length, 2);
    put_bytes(out, body, length);
}

static inline void hello_extensions(struct out *out, enum handshake kind, const uint8_t *ticket)
{
    static const char host[] = "\0\x13\0\0\x10" "shop.example.com";
    static const char alpn[] = "\0\x0c\x02h2\x08http/1.1";
    static const char groups[] = "\0\x06\0\x1d\0\x17\0\x18", versions[] = "\x04\x03\x04\x03\x03";
    size_t all = opened(out, 2), share;
    extension(out, EXT_SERVER_NAME, host, sizeof host - 1);
    extension(out, 10, groups, sizeof groups - 1);
    extension(out, 13, "\0\x08\x04\x03\x08\x04\x04\x01\x05\x03", 10);
    extension(out, EXT_ALPN, alpn, sizeof alpn - 1);
    extension(out, 23, "", 0);
    if (kind == BY_TICKET || kind == TLS13)
        extension(out, EXT_TICKET, ticket, ticket && kind == BY_TICKET ? TICKET : 0);
    if (kind == TLS13) {
        extension(out, EXT_VERSIONS, versions, sizeof versions - 1);
        extension(out, 45, "\1\1", 2);
        put(out, EXT_KEY_SHARE, 2);
        share = opened(out, 2);
        put(out, 36, 2), put(out, 0x1d, 2), put(out, 32, 2);
        put_noise(out, 32);
        closed(out, share, 2);
    }
    if (out->length + 4 < HELLO_BYTES) {
        put(out, EXT_PADDING, 2);
        share = opened(out, 2);
        memset(out->data + out->length, 0, HELLO_BYTES - out->length);
        out->length = HELLO_BYTES;
        closed(out, share, 2);
    }
    closed(out, all, 2);
}

/* `id` NULL: empty. */
static inline void client_hello(struct out *out, enum handshake kind, const uint8_t *id,
                                const uint8_t *ticket)
{
    size_t record = record_opened(out, HANDSHAKE), message;
    put(out, CLIENT_HELLO, 1);
    message = opened(out, 3);
    put(out, 0x0303, 2);
    put_noise(out, 32);
    put(out, id ? SESSION_ID : 0, 1);
    put_bytes(out, id, id ? SESSION_ID : 0);
    size_t suites = opened(out, 2);
    for (int i = 0; i < 16; i++)
        put(out, 0xc02b + (uint32_t)i, 2);
    closed(out, suites, 2);
    put(out, 0x0100, 2);
    hello_extensions(out, kind, ticket);
    closed(out, message, 3);
    closed(out, record, 2);
}

static inline void server_hello(struct out *out, const uint8_t *id, bool tls13, bool will_give_ticket)
{
    size_t record = record_opened(out, HANDSHAKE), message, all;
    put(out, SERVER_HELLO, 1);
    message = opened(out, 3);
    put(out, 0x0303, 2);
    put_noise(out, 32);
    put(out, id ? SESSION_ID : 0, 1);
    put_bytes(out, id, id ? SESSION_ID : 0);
    put(out, tls13 ? 0x1301 : 0xc02f, 2);
    put(out, 0, 1);
    all = opened(out, 2);
    if (tls13) {
        extension(out, EXT_VERSIONS, "\3\4", 2);
        put(out, EXT_KEY_SHARE, 2), put(out, 36, 2), put(out, 0x1d, 2), put(out, 32, 2);
        put_noise(out, 32);
    } else {
        extension(out, 0xff01, "", 1);
        if (will_give_ticket)
            extension(out, EXT_TICKET, "", 0);
    }
    closed(out, all, 2);
    closed(out, message, 3);
    closed(out, record, 2);
}

static inline void plain_message(struct out *out, int type, size_t length)
{
    size_t record = record_opened(out, HANDSHAKE), message;
    put(out, (uint32_t)type, 1);
    message = opened(out, 3);
    put_noise(out, length);
    closed(out, message, 3);
    closed(out, record, 2);
}

static inline void ticket_message(struct out *out, const uint8_t *ticket)
{
    size_t record = record_opened(out, HANDSHAKE), message;
    put(out, NEW_SESSION_TICKET, 1);
    message = opened(out, 3);
    put(out, 7200, 4), put(out, TICKET, 2);
    put_bytes(out, ticket, TICKET);
    closed(out, message, 3);
    closed(out, record, 2);
}

/* Bytes of the first record of `data` with its head, or 0 while it is incomplete. */
static inline size_t record_whole(const uint8_t *data, size_t length)
{
    size_t whole = length < RECORD_HEAD ? 0 : RECORD_HEAD + ((size_t)data[3] << 8 | data[4]);
    return whole <= length ? whole : 0;
}

/* The body of an extension in a hello's record: its length in *size; NULL: not there. */
static inline const uint8_t *extension_find(const uint8_t *hello, size_t length, int type,
                                            bool of_client, size_t *size)
{
    size_t at = SESSION_ID_AT + hello[SESSION_ID_AT - 1];
    at += of_client ? 2 + ((size_t)hello[at] << 8 | hello[at + 1]) : 2;
    at += of_client ? 1 + hello[at] : 1;
    for (at += 2; at + 4 <= length; at += 4 + *size) {
        *size = (size_t)hello[at + 2] << 8 | hello[at + 3];
        if ((hello[at] << 8 | hello[at + 1]) == type)
            return at + 4 + *size <= length ? hello + at + 4 : NULL;
    }
    return NULL;
}

#endif
