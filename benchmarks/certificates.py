"""What certificates cost a worker: contexts at the start, at a reload, at a change of ticket keys.

python -m benchmarks.certificates [COUNT]      # default 1000; CPU time of one process, seconds
"""

import datetime
import sys
import time
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fastlb import tls_addresses
from fastlb.ticket_keys import TicketKeys
from fastlb.tls_contexts import Built, build
from fastlb.tls_material import CertificateMaterial, Material, ServerMaterial, encode
from fastlb.tls_tickets import shared_layout


def certificate(number: int) -> CertificateMaterial:
    """One of its own, with a P-256 key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{number}.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), number + 1, now - day, now + day
    ).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return CertificateMaterial(0, (made.public_bytes(serialization.Encoding.DER),), private)


def resident_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def timed(what: str, call: Callable[[], Built | None]) -> Built | None:
    before, memory = time.process_time(), resident_kib()
    result = call()
    took = time.process_time() - before
    print(f"{what:44} {took:8.3f} s  {resident_kib() - memory:+8} KiB")
    return result


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    tls_addresses.load()
    material = Material((ServerMaterial("shop"),), tuple(map(certificate, range(count))))
    keys = TicketKeys()
    keys.rotate()
    blob = encode(material, keys.keys)
    before = time.process_time()
    found = shared_layout() is not None
    took = time.process_time() - before
    print(f"{'finding and proving where ticket keys are':44} {took:8.3f} s  shared: {found}")
    first = timed(f"{count} certificates, {len(keys.keys)} ticket keys", lambda: build(blob))
    again = timed("a reload that changes none", lambda: build(blob))
    keys.rotate()
    blob = encode(material, keys.keys)
    rotated = timed("a change of ticket keys", lambda: build(blob))
    for built in (first, again, rotated):
        if built is not None:
            built.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
