"""Session ticket keys: made by the control process, the same for all workers.

A ticket is the client's copy of its session, encrypted with a key of the server's (RFC 5077,
RFC 8446 4.6.1). Workers know the key that encrypts, the next one (another worker may use it a
moment earlier), and the one before. They are in memory only, are kept through reloads, and change
every LIFETIME_S: who gets hold of the memory later cannot read what was recorded before.
"""

import os
import time
from collections.abc import Callable, Sequence

NAME_BYTES, HMAC_BYTES, CIPHER_BYTES = 16, 32, 32
SECRET_BYTES = HMAC_BYTES + CIPHER_BYTES
KEY_BYTES = NAME_BYTES + SECRET_BYTES

LIFETIME_S = 12 * 3600.0  # of a key as the one that encrypts, and of a session


class TicketKeys:
    """The keys of one installation; `keys` has the encrypting one first, then the next one, then
    the one before."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self.keys = [bytearray(os.urandom(KEY_BYTES)) for _ in range(2)]
        self._rotated = self._now()

    @property
    def age_s(self) -> float:
        """Since when the encrypting key does so."""
        return self._now() - self._rotated

    def restore(self, keys: Sequence[bytes], age_s: float) -> None:
        """Goes on with the keys of another control process."""
        self.wipe()
        self.keys = [bytearray(key) for key in keys]
        self._rotated = self._now() - age_s

    def names(self) -> list[bytes]:
        """What the tickets of each key begin with."""
        return [bytes(key[:NAME_BYTES]) for key in self.keys]

    def is_due(self) -> bool:
        """Whether the encrypting key has done its time."""
        return self.age_s >= LIFETIME_S

    def rotate(self) -> None:
        """The next key encrypts from now on; the one that no worker needs any more is wiped."""
        current, following, *before = self.keys
        self.keys = [following, bytearray(os.urandom(KEY_BYTES)), current]
        for key in before:
            wipe(key)
        self._rotated = self._now()

    def wipe(self) -> None:
        """Leaves nothing of them."""
        for key in self.keys:
            wipe(key)


def wipe(key: bytearray) -> None:
    key[:] = bytes(len(key))
