"""Random HTTP/1 messages, valid and nearly valid.

A message is written by the grammar of RFC 9112 and then, mostly, changed in one to three places:
the changes are those that request smuggling is made of (framing fields, line ends, white space,
chunk sizes, Host, Connection) and plain noise. Everything follows from the seed.
"""

import random

NOISE = [bytes([b]) for b in b'\r\n\0 \t:;,\x0b\x0c\x7f\x80\xa0\xff0159aF+-_"\\#%/'] + [
    b"\r\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\r\r\n",
    b"\n\r",
    b"\r\n ",
    b"\r\n\t",
    b"0x",
    b"\xc2\xa0",
]
ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b"\r\n ", b" \r\n", b"\t\r\n", b"\0\r\n"]
METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND"]
WORDS = [
    b"a",
    b"xyz",
    b"text/html;q=0.9",
    b"caf\xe9",
    b"\xff\x80",
    b'"q\\"uoted"',
    b"a, b",
    b"",
    b"0",
    b"one  two",
    b"a\tb",
    b"k=v; l=w",
    b"x" * 300,
]
NAMES = [
    b"Accept",
    b"X-A",
    b"x-lower",
    b"Cookie",
    b"User-Agent",
    b"Referer",
    b"Cache-Control",
    b"X_Under",
    b"!odd#$%&'*+.^`|~",
    b"Content-Type",
    b"Expect",
    b"TE",
    b"Trailer",
    b"Via",
    b"X-Forwarded-For",
    b"Range",
    b"If-None-Match",
    b"Authorization",
]
FRAMING = [
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: 005",
    b"Content-Length: 5, 5",
    b"Content-Length: 5, 6",
    b"Content-Length: +5",
    b"Content-Length: -1",
    b"Content-Length: 5 5",
    b"Content-Length: 0x5",
    b"Content-Length:",
    b"Content-Length : 5",
    b"Content-Length: 5;a",
    b"Content-Length: 18446744073709551621",
    b"content-length:\t5\t",
    b"Content-Length\0: 5",
    b"Content_Length: 5",
    b"Content-Length: 4294967301",
    b"Content-Length: 1e1",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"transfer-encoding:chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding : chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer_Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding\t: chunked",
    b"TE: chunked, trailers",
]
PLACES = [
    b"Host: other",
    b"Host:",
    b"Host: a b",
    b"Host: u@h",
    b"Host: h:99999",
    b"Host: [::1]:8",
    b"host : h",
    b"Connection: close",
    b"Connection: Host, Content-Length, Transfer-Encoding",
    b"Connection: keep-alive, X-A",
    b"Connection: close, X-Forwarded-For",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Proxy-Connection: close",
    b"Keep-Alive: timeout=5",
    b"X-Forwarded-Proto: https",
    b"X A: 1",
    b": empty",
    b"no colon",
    b"X-Nul: a\0b",
    b"X-Bell: a\x07b",
    b"\tX-Tab: first",
    b"X-Fold: a\r\n b",
    b"X-Long: " + b"y" * 3000,
]
TARGETS = [
    b"/",
    b"/a?b=c",
    b"/%41%2f%00",
    b"//x/../y",
    b"/a;jsessionid=1",
    b"/?q=[]{}|",
    b"*",
    b"http://other.test/x",
    b"http://other.test",
    b"https://h:8/y?z",
    b"/caf%e9",
    b"h:80",
    b"/a#b",
    b"/a\\b",
    b"http://u@h/",
    b"/" + b"p" * 500,
]
SIZES = [
    b"5 ",
    b" 5",
    b"5;",
    b"5;a=b",
    b'5;a="b\\"c"',
    b"5 ;a",
    b"0x5",
    b"+5",
    b"-5",
    b"5_0",
    b"05",
    b"00000000000000005",
    b"100000005",
    b"10000000000000005",
    b"fffffffffffffffb",
    b"g",
    b"",
    b"5\t",
    b"5;a\nb",
    b'5;"',
    b"5\r",
    b"5,5",
]


def chunked(pick: random.Random, body: bytes) -> bytes:
    """The body in random chunks, now and then with extensions and trailers."""
    out = []
    while body:
        count = pick.randint(1, max(1, len(body)))
        size = pick.choice([b"%x", b"%X", b"%02x", b"%x;a", b"%x;a=b", b'%x;a="b;c"']) % count
        out.append(size + b"\r\n" + body[:count] + b"\r\n")
        body = body[count:]
    trailers = b"".join(
        b"X-T%d: %s\r\n" % (n, pick.choice(WORDS)) for n in range(pick.choice([0, 0, 0, 1, 3]))
    )
    return b"".join(out) + pick.choice([b"0", b"0", b"000", b"0;a"]) + b"\r\n" + trailers + b"\r\n"


def body_of(pick: random.Random) -> bytes:
    """Also such as would be a message if anybody took it for one."""
    return pick.choice(
        [
            b"",
            b"hello",
            b"0\r\n\r\n",
            b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
            b"x" * 1000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"\r\n\r\n",
            pick.randbytes(40),
        ]
    )


def lines_and_body(pick: random.Random, lines: list[bytes], framings: list[str]) -> bytes:
    """The head's lines, random fields among them, and a body that is framed as the head says."""
    for _ in range(pick.choice([0, 1, 2, 2, 3, 6])):
        lines.append(
            pick.choice(NAMES)
            + b":"
            + pick.choice([b" ", b" ", b"", b"\t", b"  "])
            + pick.choice(WORDS)
        )
    body = body_of(pick)
    framing = pick.choice(framings)
    if framing == "length":
        lines.insert(pick.randint(1, len(lines)), b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.insert(pick.randint(1, len(lines)), b"Transfer-Encoding: chunked")
        body = chunked(pick, body)
    elif framing == "none":
        body = b""
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def mutate(pick: random.Random, data: bytes) -> bytes:
    """One change."""
    lines = data.split(b"\r\n")
    at = pick.randrange(len(lines))
    how = pick.randrange(10)
    if how == 0:
        place = pick.randrange(len(data) + 1)
        return data[:place] + pick.choice(NOISE) + data[place:]
    if how == 1:
        place = pick.randrange(len(data) + 1)
        return data[:place] + pick.choice(NOISE) + data[place + 1 :]
    if how == 2:
        place = pick.randrange(len(data) + 1)
        return data[:place] + data[place + pick.choice([1, 1, 1, 2, 10]) :]
    if how == 3:
        lines.insert(at, pick.choice(lines))
    elif how == 4:
        del lines[at]
    elif how in (5, 6):
        lines.insert(max(at, 1), pick.choice(FRAMING))
    elif how == 7:
        lines.insert(max(at, 1), pick.choice(PLACES))
    elif how == 8:
        place = len(b"\r\n".join(lines[: at + 1]))
        return data[:place] + pick.choice(ENDS) + data[place + 2 :]
    else:
        sizes = [n for n, one in enumerate(lines) if one[:1].isalnum() and len(one) < 12]
        if sizes:
            lines[pick.choice(sizes)] = pick.choice(SIZES)
    return b"\r\n".join(lines)


def changed(pick: random.Random, data: bytes) -> bytes:
    for _ in range(pick.choice([0, 0, 1, 1, 1, 2, 3])):
        data = mutate(pick, data)
    return data


def request(pick: random.Random) -> bytes:
    version = pick.choice(
        [b"HTTP/1.1"] * 30 + [b"HTTP/1.0"] * 5 + [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"]
    )
    target = pick.choice(TARGETS if pick.random() < 0.5 else [b"/", b"/a?b=c"])
    start = pick.choice(METHODS) + b" " + target + b" " + version
    data = lines_and_body(pick, [start, b"Host: shop.test"], ["none", "length", "chunked"])
    return changed(pick, data)


def response(pick: random.Random) -> bytes:
    status = pick.choice(
        [b"200 OK"] * 6
        + [
            b"204 No Content",
            b"304 Not Modified",
            b"404 ",
            b"500",
            b"103 Early",
            b"101 Switching",
            b"999 Odd \xe9",
            b"99 x",
        ]
    )
    version = pick.choice([b"HTTP/1.1"] * 20 + [b"HTTP/1.0"] * 4 + [b"HTTP/1.2", b"HTTP/2"])
    data = lines_and_body(pick, [version + b" " + status], ["none", "length", "chunked", "close"])
    if pick.random() < 0.1:
        data = b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + data
    return changed(pick, data)
