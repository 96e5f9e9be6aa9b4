"""Nodes that somebody else wrote: nginx and Python's http.server."""

import functools
import hashlib
import http.server
import threading

import pytest

from tests.harness import curl, httpx_client, proxy, request, settings, sticky
from tests.harness.nginx import Nginx

BLOB = bytes(range(256)) * 20_000  # 5 MiB


@pytest.fixture(scope="module")
def pair():
    locations = """
    location = /name { return 200 "$server_addr $remote_addr $http_x_forwarded_for"; }
    location = /cookies { return 200 "cookies: $http_cookie"; }
    location /upload { client_body_buffer_size 16k; return 200 "$content_length"; }
    gzip on; gzip_types text/plain; gzip_min_length 1;
    """
    files = {"blob": BLOB, "index.html": b"<h1>hello</h1>", "text.txt": b"words " * 10_000}
    with Nginx(locations, files) as one, Nginx(locations, files) as two:
        yield one, two


def test_files_of_nginx_arrive_unchanged(pair):
    with proxy(sticky(*[node.address for node in pair])) as p:
        host, port = p.address()
        done = curl(f"http://{host}:{port}/blob")
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(BLOB).digest()


def test_ranges_and_validators_of_nginx_work(pair):
    with proxy(settings(pair[0].address)) as p:
        host, port = p.address()
        assert curl("-r", "1000-1009", f"http://{host}:{port}/blob").stdout == BLOB[1000:1010]
        with httpx_client(p.address()) as client:
            first = client.get("/index.html")
            again = client.get("/index.html", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_a_chunked_and_compressed_answer_of_nginx_is_read_by_httpx(pair):
    with proxy(settings(pair[0].address)) as p, httpx_client(p.address()) as client:
        answer = client.get("/text.txt")
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert answer.text == "words " * 10_000


def test_curl_keeps_its_session_with_a_cookie_jar(pair, tmp_path):
    jar = str(tmp_path / "jar")
    with proxy(sticky(*[node.address for node in pair])) as p:
        host, port = p.address()
        url = f"http://{host}:{port}/name"
        nodes = {curl("-c", jar, "-b", jar, url).stdout.split()[0] for _ in range(6)}
        assert len(nodes) == 1
        assert "X-Mapping-" in (tmp_path / "jar").read_text()
        plain = {curl("-A", str(n), url).stdout.split()[0] for n in range(4)}
        assert len(plain) == 2


def test_curl_uploads_with_expect_and_chunked(pair, tmp_path):
    (tmp_path / "blob").write_bytes(BLOB)
    with proxy(settings(pair[0].address)) as p:
        host, port = p.address()
        url = f"http://{host}:{port}/upload"
        expect = curl("-H", "Expect: 100-continue", "--data-binary", f"@{tmp_path}/blob", url)
        assert expect.stdout == str(len(BLOB)).encode()
        chunked = curl(
            "-H", "Transfer-Encoding: chunked", "-T", f"{tmp_path}/blob", url,
            "-o", str(tmp_path / "out"), "-w", "%{http_code}",
        )  # fmt: skip
        assert (chunked.returncode, chunked.stdout) == (0, b"200")


def test_httpx_keeps_its_session_on_one_connection_pool(pair):
    with proxy(sticky(*[node.address for node in pair])) as p, httpx_client(p.address()) as client:
        nodes = {client.get("/name").text.split()[0] for _ in range(10)}
        assert len(nodes) == 1
        assert [name[:10] for name in client.cookies] == ["X-Mapping-"]
        assert client.get("/cookies").text == "cookies: "


def test_the_true_client_address_reaches_nginx(pair):
    with proxy(settings(pair[0].address)) as p:
        answer = p.get("/name", source="127.0.0.88")
    assert answer.body.split()[2] == b"127.0.0.88"


def test_python_s_http_server_which_speaks_1_0(tmp_path):
    (tmp_path / "file").write_bytes(BLOB)
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            with proxy(sticky(f"127.0.0.1:{server.server_port}")) as p:
                with httpx_client(p.address()) as client:
                    for _ in range(3):
                        assert client.get("/file").content == BLOB
                    assert client.get("/missing").status_code == 404
                    assert client.head("/file").headers["Content-Length"] == str(len(BLOB))
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        return


def test_100_000_requests_take_the_gil_not_once(pair):
    """Without rules the workers never need Python after their start."""
    batch = request("/name") * 500
    with proxy(sticky(*[node.address for node in pair], access_log="off")) as p:
        with p.client() as client:
            for _ in range(200):
                client.send(batch)
                answers = 0
                while answers < 500:
                    data = client.reader.until(b"HTTP/1.1 ")
                    answers += data.endswith(b"HTTP/1.1 ")
                client.sock.settimeout(10)
        workers = p.status()["workers"]
    assert sum(worker["requests"] for worker in workers) >= 99_999
    assert [worker["gil_acquisitions"] for worker in workers] == [0]
