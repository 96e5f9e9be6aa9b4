"""Records of TLS 1.3 written by hand, which no library would send: RFC 8446 5.2 and 7.

A client's ssl makes the handshake and writes its secrets to a key log; from then on what it would
send is made here.
"""

import hmac
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

HANDSHAKE, DATA, ALERT = 22, 23, 21
UPDATE = b"\x18\0\0\x01"  # KeyUpdate, and behind it whether one is wanted in return

SUITES = {
    "TLS_AES_256_GCM_SHA384": ("sha384", 32, AESGCM),
    "TLS_AES_128_GCM_SHA256": ("sha256", 16, AESGCM),
    "TLS_CHACHA20_POLY1305_SHA256": ("sha256", 32, ChaCha20Poly1305),
}


class Records:
    """What a client says once its handshake is done, as records."""

    def __init__(self, suite: str, key_log: Path):
        self.hash, self.key_bytes, self.kind = SUITES[suite]
        lines = [line.split() for line in key_log.read_text().splitlines()]
        (secret,) = [line[2] for line in lines if line[:1] == ["CLIENT_TRAFFIC_SECRET_0"]]
        self.secret = bytes.fromhex(secret)
        self._begin()

    def _expand(self, label: str, count: int) -> bytes:
        text = b"tls13 " + label.encode()
        info = count.to_bytes(2, "big") + bytes((len(text),)) + text + b"\0"
        return hmac.digest(self.secret, info + b"\1", self.hash)[:count]

    def _begin(self) -> None:
        self.cipher = self.kind(self._expand("key", self.key_bytes))
        self.iv = int.from_bytes(self._expand("iv", 12), "big")
        self.number = 0

    def record(self, content: bytes, kind: int = DATA) -> bytes:
        head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        nonce = (self.iv ^ self.number).to_bytes(12, "big")
        self.number += 1
        return head + self.cipher.encrypt(nonce, content + bytes((kind,)), head)

    def update(self, wanted: bool = True) -> bytes:
        """A KeyUpdate; what follows is by the next keys."""
        record = self.record(UPDATE + bytes((wanted,)), HANDSHAKE)
        self.secret = self._expand("traffic upd", len(self.secret))
        self._begin()
        return record
