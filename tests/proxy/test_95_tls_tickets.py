"""Sessions where TLS ends: whoever comes back resumes, on any worker, through reload, crash and
rotation of the keys; certificates change by a reload and by nothing else."""

import contextlib
import hashlib
from pathlib import Path

import pytest

from fastlb.channel import Kind
from fastlb.ticket_keys import TicketKeys
from tests.harness import HttpNode, Proxy, changed, command, proxy, settings, until
from tests.harness.certificates import Authority, Pair
from tests.harness.settings import Config
from tests.harness.tls_client import Kept, TlsClient, client_context, openssl
from tests.harness.worker import WorkerProcess, worker

VISITS = 24  # enough for both of two workers, but for one run in four millions


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


def https(*pairs: Pair, node: HttpNode, **more: object) -> Config:
    tls = {"certificates": [pair.table() for pair in pairs], **more}
    return settings(node, server={"protocol": "https", "tls": tls})


class Visitor:
    """A client that keeps one session, and connects anew for each request."""

    def __init__(self, version: str, tickets: bool = True, name: str = "shop.test") -> None:
        self.context, self.session = client_context(version, tickets), None
        self.name = name
        self.certificate = ""

    def visit(self, address: tuple[str, int]) -> bool:
        """Whether it resumed its session."""
        with TlsClient(address, self.context, self.session, self.name) as client:
            assert client.ask("/").status == 200
            self.session = client.session
            self.certificate = hashlib.sha256(client.tls.getpeercert(True) or b"").hexdigest()
            return client.reused


def workers_that_served(p: Proxy) -> int:
    return sum(worker["requests"] > 0 for worker in p.status()["workers"])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_every_worker_resumes_the_sessions_of_all(authority: Authority, version: str) -> None:
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, proxy(changed(https(pair, node=a), "proxy.workers", 2)) as p:
        visitor = Visitor(version)
        resumed = [visitor.visit(p.address()) for _ in range(VISITS)]
        assert resumed == [False] + [True] * (VISITS - 1)
        until(lambda: workers_that_served(p) == 2, "requests at both workers")
        assert "tickets are per worker" not in p.stderr()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_comes_back(authority: Authority, tmp_path: Path, version: str) -> None:
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, proxy(changed(https(pair, node=a), "proxy.workers", 2)) as p:
        kept = Kept(tmp_path)
        options = [version, "-servername", "shop.test"]
        assert openssl(p.address(), *options, *kept.options()).reused == [False]
        for _ in range(4):
            assert openssl(p.address(), *options, *kept.options()).reused == [True]
        if version == "-tls1_2":  # 1.3 has its tickets behind the handshake that this ends
            assert openssl(p.address(), *options, "-reconnect").reused == [False] + [True] * 5


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_sessions_outlive_reloads_and_workers(authority: Authority, version: str) -> None:
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, proxy(changed(https(pair, node=a), "proxy.workers", 2)) as p:
        visitor = Visitor(version)
        assert not visitor.visit(p.address())
        assert p.reload(changed(p.config, "limits.headers", "16KiB")).returncode == 0
        assert all(visitor.visit(p.address()) for _ in range(8))
        other = authority.certificate("other.test")
        tables = [pair.table(), other.table()]
        new = changed(p.config, "virtual_servers.shop.tls.certificates", tables)
        assert p.reload(new).returncode == 0
        assert all(visitor.visit(p.address()) for _ in range(8))
        for index in range(2):
            p.wait_worker_replaced(p.kill_worker(index))
            assert all(visitor.visit(p.address()) for _ in range(8))


def two_workers(config: Config, stack: contextlib.ExitStack) -> list[WorkerProcess]:
    """With the ticket keys of one control process."""
    keys = TicketKeys()
    both = [stack.enter_context(worker(None)) for _ in range(2)]
    for w in both:
        w.ticket_keys = keys
        w.use(config)
    return both


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_sessions_outlive_a_rotation_of_the_keys(authority: Authority, version: str) -> None:
    """At each step: also while one worker has the new plan and the other does not yet."""
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, contextlib.ExitStack() as stack:
        config = https(pair, node=a)
        early, late = two_workers(config, stack)
        old, between = Visitor(version), Visitor(version)
        assert not old.visit(early.address())
        assert old.visit(late.address())

        early.ticket_keys.rotate()
        early.use(config)
        assert not between.visit(early.address())
        for visitor in (old, between):
            assert visitor.visit(late.address())
            assert visitor.visit(early.address())

        late.use(config)
        for visitor in (old, between):
            assert visitor.visit(early.address())
            assert visitor.visit(late.address())

        session = old.session
        for _ in range(2):
            early.ticket_keys.rotate()
        early.use(config)
        old.session = session
        assert not old.visit(early.address()), "a key that is over is over"


def test_a_rotation_without_certificates_is_no_new_plan(authority: Authority) -> None:
    with HttpNode("a") as a, worker(settings(a)) as w:
        w.ticket_keys.rotate()
        w.use(settings(a))
        assert w.ask("/").status == 200
        assert w.stats["gil_acquisitions"] == 0


def test_the_gil_is_taken_for_plans_and_for_no_handshake(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, worker(https(pair, node=a)) as w:
        assert w.stats["gil_acquisitions"] == 1
        for version in ("1.2", "1.3"):
            visitor = Visitor(version)
            assert [visitor.visit(w.address()) for _ in range(3)] == [False, True, True]
        assert w.stats["gil_acquisitions"] == 1
        w.use(https(pair, node=a))
        until(lambda: w.stats["gil_acquisitions"] == 3, "the contexts of the first plan gone")


def test_a_certificate_changes_by_a_reload_and_by_nothing_else(authority: Authority) -> None:
    first = authority.certificate("shop.test", file="shop")
    other = authority.certificate("other.test")
    with HttpNode("a") as a, proxy(https(first, other, node=a)) as p:
        visitor, elsewhere = Visitor("any"), Visitor("any", name="other.test")
        for one in (visitor, elsewhere):
            assert not one.visit(p.address())
        assert visitor.certificate == first.fingerprint
        with TlsClient(p.address(), visitor.context, None, "shop.test") as running:
            assert running.ask("/").status == 200
            second = authority.certificate("shop.test", file="shop")
            assert visitor.visit(p.address())
            assert visitor.certificate == first.fingerprint
            assert p.reload(p.config).returncode == 0
            assert running.ask("/").status == 200
            assert not visitor.visit(p.address()), "the session was the other certificate's"
            assert visitor.certificate == second.fingerprint
            assert visitor.visit(p.address())
            assert elsewhere.visit(p.address())
            assert running.ask("/").status == 200


def test_a_file_that_is_of_no_use_leaves_everything_as_it_was(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, proxy(https(pair, node=a)) as p:
        visitor = Visitor("any")
        assert not visitor.visit(p.address())
        pair.key_path.unlink()
        done = p.reload(p.config)
        assert done.returncode == 2
        assert f"tls.certificates[0].key: {pair.key_path}: No such file" in done.stderr
        assert visitor.visit(p.address())
        p.wait_worker_replaced(p.kill_worker(0))
        assert visitor.visit(p.address()), "a worker needs no file"


def test_a_start_with_a_file_that_is_of_no_use(authority: Authority) -> None:
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, proxy(https(pair, node=a)) as p:
        pair.certificate_path.write_bytes(b"")
        for verb in ("check", "run"):
            done = command(verb, "-c", str(p.file))
            assert done.returncode == 2
            assert "no certificate in it; expected PEM" in done.stdout + done.stderr


def test_material_that_a_worker_cannot_use(authority: Authority) -> None:
    """It keeps the plan that it has, and says why."""
    pair = authority.certificate("shop.test")
    with HttpNode("a") as a, worker(https(pair, node=a)) as w:
        visitor = Visitor("any")
        assert not visitor.visit(w.address())
        blob = w.blob(https(pair, node=a))
        w.send_blob(blob.replace(b"\xa31.2", b"\xa39.9"), [])  # a version of TLS
        assert w.hear() == (Kind.REFUSED, 0, w.generation)
        assert "TLS cannot be set up: " in w.stderr()
        assert visitor.visit(w.address())
