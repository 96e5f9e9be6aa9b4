"""The files of `tls` tables: read by the control process at start and reload, and by `check`.

Workers get what is in them inside the plan (tls_material.py): they may have no right to read keys,
and a file that changes is taken over by a reload only, by all of them together.
"""

import datetime
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from fastlb import certificates as read
from fastlb import errors, tls_contexts
from fastlb.certificates import Unusable
from fastlb.config import Certificate, Config, PoolTls, VirtualServer, VirtualServerTls
from fastlb.decode import Report
from fastlb.errors import Message, StartError
from fastlb.tls_material import (
    CertificateMaterial,
    Material,
    NodeTls,
    PoolMaterial,
    ServerMaterial,
    TlsFiles,
)

lib: Any = _openssl.lib

FILE_BYTES_MAX = 8 << 20  # of a bundle of authorities; all others are far smaller
BUNDLES = (  # where distributions have theirs
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)

Place = tuple[str | int, ...]


def load_tls(cfg: Config) -> TlsFiles:
    """Reads all of them; raises StartError with all that is wrong."""
    wrong: list[StartError] = []

    def report(message: Message, place: Place, **values: object) -> None:
        if message.level == "error":
            key = "".join(
                f"[{part}]" if isinstance(part, int) else f".{part}" for part in place[2:]
            )
            where, reason = f"[{place[0]}.{place[1]}] {key[1:]}", message.text.format(**values)
            wrong.append(StartError(errors.TLS_FILES_UNUSABLE, where=where, reason=reason))

    files = _Reader(report).read(cfg)
    if wrong:
        raise StartError.of_all(wrong)
    return files


def check_tls(cfg: Config, report: Report) -> None:
    """Reports what is wrong with them, and what is doubtful."""
    _Reader(report).read(cfg)


class _Reader:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.now = datetime.datetime.now(datetime.UTC)
        self.servers: list[ServerMaterial] = []
        self.certificates: list[CertificateMaterial] = []
        self.pools: list[PoolMaterial] = []
        self.authorities: dict[tuple[bytes, ...], int] = {}
        self.seen: dict[Path, bytes | Unusable] = {}

    def read(self, cfg: Config) -> TlsFiles:
        names, first = dict[str, dict[str, int]](), dict[str, int]()
        for name, server in cfg.virtual_servers.items():
            if server.protocol == "https" and server.tls is not None and server.tls.certificates:
                first[name] = len(self.certificates)
                names[name] = self._server(name, server, server.tls)
        pools = {}
        for name, pool in cfg.pools.items():
            if pool.tls is not None:
                pools[name] = len(self.pools)
                one, trusted = self._nodes_tls(("pools", name, "tls"), pool.tls)
                at = self.authorities.setdefault(trusted, len(self.authorities)) if trusted else -1
                self.pools.append(msgspec.structs.replace(one, authorities=at))
        monitors = {
            name: self._nodes_tls(("monitors", name, "tls"), monitor.tls)
            for name, monitor in cfg.monitors.items()
            if monitor.tls is not None
        }
        material = Material(
            tuple(self.servers),
            tuple(self.certificates),
            tuple(self.pools),
            tuple(self.authorities),
        )
        return TlsFiles(material, names, first, pools, monitors)

    # --- virtual servers ---

    def _server(self, name: str, server: VirtualServer, tls: VirtualServerTls) -> dict[str, int]:
        place = ("virtual_servers", name, "tls")
        ciphers, ciphersuites = self._ciphers(tls, place)
        authorities: tuple[bytes, ...] = ()
        if tls.client_ca is not None and tls.client_certificates != "off":
            authorities = self._authorities(tls.client_ca, (*place, "client_ca"))
        material = ServerMaterial(
            name,
            tls.min_version,
            ciphers,
            ciphersuites,
            tls.tickets,
            tls.client_certificates,
            authorities,
        )
        self.servers.append(material)
        first, taken = len(self.certificates), dict[str, int]()
        for index, one in enumerate(tls.certificates):
            at = (*place, "certificates", index)
            found, names = self._certificate(one, at)
            self._try(found, material, at)
            self.certificates.append(found)
            twice: dict[Path, list[str]] = {}
            for each in names:
                if each in taken:
                    other = tls.certificates[taken[each] - first].certificate
                    twice.setdefault(other, []).append(each)
                taken.setdefault(each, first + index)
            for other, several in twice.items():
                verb = "is" if len(several) == 1 else "are"
                values = {"names": ", ".join(several), "verb": verb, "other": other}
                self.report(errors.SERVER_NAME_TWICE, (*at, "certificate"), **values)
        return taken

    def _ciphers(self, tls: VirtualServerTls, place: Place) -> list[str]:
        """Both lists; instead of one that is of no use the library's own."""
        known = []
        for key, text, take in (
            ("ciphers", tls.ciphers, lib.SSL_CTX_set_cipher_list),
            ("ciphersuites", tls.ciphersuites, lib.SSL_CTX_set_ciphersuites),
        ):
            context = SSL.Context(SSL.TLS_SERVER_METHOD)
            # One that is unknown among others is passed over by the library without a word.
            unknown = [
                one
                for one in text.split(":")
                if one and one[0] not in "!-@" and take(context._context, _alone(one)) != 1
            ]
            if not unknown and take(context._context, text.encode()) != 1:
                unknown = [text]
            lib.ERR_clear_error()
            known.append("" if unknown else text)
            if unknown:
                values = {"found": ", ".join(unknown), "library": LIBRARY, "hint": ""}
                if key == "ciphers" and any(one.startswith("TLS_") for one in unknown):
                    values["hint"] = "; cipher suites of TLS 1.3 belong into ciphersuites"
                self.report(errors.UNKNOWN_CIPHERS, (*place, key), **values)
        return known

    def _certificate(self, one: Certificate, place: Place) -> tuple[CertificateMaterial, list[str]]:
        """What the context is made of, empty where a file is of no use; its server names."""
        at = (*place, "certificate")
        chain = self._chain(one.certificate, at)
        passphrase = None
        if one.key_passphrase_file is not None:
            passphrase = self._passphrase(one.key_passphrase_file, (*place, "key_passphrase_file"))
        key = self._key(one.key, passphrase, (*place, "key"))
        if not chain or key is None:
            return CertificateMaterial(0, (), b""), []
        chain = self._in_order(chain, key, one, place)
        if not chain:
            return CertificateMaterial(0, (), b""), []
        names = read.server_names(chain[0])
        if not names or not read.has_alternative_names(chain[0]):
            more = f"; it is shown for its common name, {names[0]}" if names else ""
            self.report(errors.NO_SERVER_NAME, at, file=one.certificate, more=more)
        for number, each in enumerate(chain, 1):
            doubt = read.date_doubt(each, self.now)
            if doubt:
                values = {"file": one.certificate, "number": number, "doubt": doubt}
                self.report(errors.CERTIFICATE_DATE, at, **values)
        doubt = read.weakness(chain[0])
        if doubt:
            self.report(errors.WEAK_KEY, at, file=one.certificate, doubt=doubt)
        ocsp, until = b"", 0
        if one.ocsp is not None:
            ocsp, until = self._ocsp(one.ocsp, chain, (*place, "ocsp"))
        ders = tuple(map(read.der_of, chain))
        number = len(self.servers) - 1
        return CertificateMaterial(number, ders, read.der_of_key(key), ocsp, until), names

    def _in_order(self, chain: list[Any], key: Any, one: Certificate, place: Place) -> list[Any]:
        """The chain with the key's certificate first; empty where it is not there."""
        at = (*place, "certificate")
        own = next((each for each in chain if read.belongs(key, each)), None)
        if own is None:
            values = {"file": one.key, "certificate": one.certificate}
            self.report(errors.KEY_OF_ANOTHER, (*place, "key"), **values)
            return []
        if own is not chain[0]:
            doubt = f"its own certificate is number {chain.index(own) + 1} in it; expected it first"
            self.report(errors.CHAIN_DOUBTFUL, at, file=one.certificate, doubt=doubt)
            return [own, *(each for each in chain if each is not own)]
        doubt_of_chain = read.chain_doubt(chain)
        if doubt_of_chain:
            self.report(errors.CHAIN_DOUBTFUL, at, file=one.certificate, doubt=doubt_of_chain)
        return chain

    def _chain(self, file: Path, place: Place) -> list[Any]:
        try:
            return read.certificates_in(self._bytes(file))
        except Unusable as error:
            self.report(errors.TLS_FILE, place, file=file, reason=error)
            return []

    def _passphrase(self, file: Path, place: Place) -> bytes | None:
        try:
            return read.passphrase_in(self._bytes(file))
        except Unusable as error:
            self.report(errors.TLS_FILE, place, file=file, reason=error)
            return b""

    def _key(self, file: Path, passphrase: bytes | None, place: Place) -> Any:
        if passphrase == b"":
            return None  # there is one, and why it cannot be read has been said
        try:
            key = read.key_in(self._bytes(file), passphrase)
            if os.stat(file).st_mode & stat.S_IROTH:
                self.report(errors.KEY_FILE_OPEN, place, file=file)
            return key
        except (Unusable, OSError) as error:
            self.report(errors.TLS_FILE, place, file=file, reason=error)
            return None

    def _ocsp(self, file: Path, chain: list[Any], place: Place) -> tuple[bytes, int]:
        try:
            data = self._bytes(file)
        except Unusable as error:
            self.report(errors.TLS_FILE, place, file=file, reason=error)
            return b"", 0
        try:
            until = read.response_until(data, chain, self.now)
        except Unusable as error:
            self.report(errors.NOT_STAPLED, place, file=file, reason=error)
            return b"", 0
        return data, 0 if until is None else int(until.timestamp())

    def _try(self, found: CertificateMaterial, server: ServerMaterial, place: Place) -> None:
        """Whether the library takes it: it has demands of its own."""
        if not found.chain:
            return
        try:
            tls_contexts.try_server(server, found)
        except Exception as error:
            self.report(errors.CERTIFICATE_REFUSED, (*place, "certificate"), reason=_said(error))

    # --- pools and monitors ---

    def _nodes_tls(self, place: Place, tls: PoolTls) -> NodeTls:
        trusted: tuple[bytes, ...] = ()
        if tls.verify:
            trusted = self._trusted(tls, (*place, "ca"))
        chain, key = list[Any](), None
        if tls.certificate is not None and tls.key is not None:
            own = Certificate(certificate=tls.certificate, key=tls.key)
            chain = self._chain(tls.certificate, (*place, "certificate"))
            key = self._key(tls.key, None, (*place, "key"))
            if chain and key is not None:
                chain = self._in_order(chain, key, own, place)
        material = PoolMaterial(
            tls.verify,
            server_name=tls.server_name or "",
            chain=tuple(map(read.der_of, chain)) if key is not None else (),
            key=read.der_of_key(key) if chain and key is not None else b"",
        )
        try:
            tls_contexts.try_pool(material, trusted)
        except Exception as error:
            at = (*place, "certificate") if material.chain else place
            self.report(errors.CERTIFICATE_REFUSED, at, reason=_said(error))
        return NodeTls(material, trusted)

    def _trusted(self, tls: PoolTls, place: Place) -> tuple[bytes, ...]:
        if tls.ca is not None:
            return self._authorities(tls.ca, place)
        file = system_bundle()
        if file is None:
            self.report(errors.NO_SYSTEM_AUTHORITIES, place[:-1])
            return ()
        try:
            return tuple(read.certificate_ders(self._bytes(file)))
        except Unusable as error:
            self.report(errors.TLS_FILE, place[:-1], file=file, reason=error)
            return ()

    # --- both ---

    def _authorities(self, file: Path, place: Place) -> tuple[bytes, ...]:
        return tuple(read.der_of(one) for one in self._chain(file, place))

    def _bytes(self, file: Path) -> bytes:
        """What is in a file, read once however often it is named."""
        if file not in self.seen:
            try:
                self.seen[file] = _read(file)
            except Unusable as error:
                self.seen[file] = error
        found = self.seen[file]
        if isinstance(found, Unusable):
            raise found
        return found


def _read(file: Path) -> bytes:
    try:
        # Whatever stands there must not make a proxy wait: a named pipe would.
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as opened:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unusable("not a regular file")
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Unusable(error.strerror or str(error)) from None
    if len(data) > FILE_BYTES_MAX:
        raise Unusable(f"larger than {FILE_BYTES_MAX >> 20} MiB")
    return data


def system_bundle() -> Path | None:
    """The file of the authorities that this machine trusts."""
    named = ssl.get_default_verify_paths()  # which looks at SSL_CERT_FILE too
    places = [Path(named.cafile)] if named.cafile else []
    return next((path for path in (*places, *BUNDLES) if path.is_file()), None)


def _alone(cipher: str) -> bytes:
    return cipher.lstrip("+").encode()


def _said(error: Exception) -> str:
    """OpenSSL's reasons without the names of its functions."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return ", ".join(str(one[-1]) for one in error.args[0])
    return str(error) or type(error).__name__


LIBRARY = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().rsplit(" ", 3)[0]
