"""HTTP/1.1 through two proxies: judged by request, forwarded as it is, refused where it has two readings."""

import http.client
import socket

import pytest
from lab import free_port
from node import TD, spiffe_id
from servers import TcpServer, http_one

POLICY = """kind: Policy
level: 1
rules:
  - name: client-reads
    action: ALLOW
    from:
      - principals: [spiffe://{td}/client]
    to:
      - methods: [GET, POST, HEAD]
        paths: ["/pub", "/pub/*"]
  - name: not-the-secret
    action: DENY
    to:
      - paths: ["/pub/secret*"]
"""


@pytest.fixture
def web(node):
    node.start_agent()
    with TcpServer(node.netns, http_one) as server:
        tls, plain = free_port(), free_port()
        proxy = node.server_side(tls, server.port, protocol="http", policy=POLICY)
        node.client_side(plain, tls)
        yield node, plain, proxy, server


def is_whole(got):
    """Whether it is one final answer, with all of its content."""
    while True:
        head, end, got = got.partition(b"\r\n\r\n")
        if not end:
            return False
        if head.split()[1:2][0][:1] != b"1":
            break
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if fields.get(b"transfer-encoding") == b"chunked":
        return got.endswith(b"\r\n0\r\n\r\n") or got == b"0\r\n\r\n"
    return b"content-length" in fields and len(got) >= int(fields[b"content-length"])


def raw(node, port, data, until=None):
    """Sends bytes as they are; what comes back until `until` says that it is all, else until the end or a reset."""
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        s.sendall(data)
        got = b""
        try:
            while not (until and until(got)) and (chunk := s.recv(65536)):
                got += chunk
        except ConnectionError:
            pass
        return got


def request(node, port, method, path, body=None, headers=None):
    with node.inside():
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        c.connect()
    c.request(method, path, body, headers or {})
    r = c.getresponse()
    data = r.read()
    c.close()
    return r, data


def test_allowed_and_identity_is_told(web):
    node, port, proxy, _ = web
    r, seen = request(node, port, "GET", "/pub/a?q=1", headers={"X-Forwarded-Client-Cert": "By=forged;URI=forged"})
    assert r.status == 200
    head = seen.split(b"\r\n\r\n")[0].decode()
    assert head.startswith("GET /pub/a?q=1 HTTP/1.1")
    xfcc = [line for line in head.split("\r\n") if line.lower().startswith("x-forwarded-client-cert:")]
    assert len(xfcc) == 1 and "forged" not in xfcc[0], head
    assert f"By={spiffe_id('server')}" in xfcc[0] and f"URI={spiffe_id('client')}" in xfcc[0] and "Hash=" in xfcc[0]
    e = proxy.wait_event("request", status=200)
    assert e["rule"] == "client-reads" and e["peer_id"] == spiffe_id("client") and e["own_id"] == spiffe_id("server")


@pytest.mark.parametrize("method,path", [("DELETE", "/pub/a"), ("GET", "/other"), ("GET", "/pub/secret/x")])
def test_denied(web, method, path):
    node, port, proxy, server = web
    r, body = request(node, port, method, path)
    decision = r.getheader("x-postern-decision")
    assert r.status == 403 and decision and decision in body.decode()
    assert TD not in body.decode() and "rule" not in body.decode(), "the peer learns the id only"
    e = proxy.wait_event("request", decision=decision)
    assert e["peer_id"] == spiffe_id("client") and e["own_id"] == spiffe_id("server")
    if "secret" in path:
        assert e["rule"] == "not-the-secret"
    else:
        assert "client-reads" in e["near_miss"], e


def test_kept_connection_judged_by_request(web):
    node, port, *_ = web
    with node.inside():
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        c.connect()
    seen = []
    for method, path in (("GET", "/pub"), ("GET", "/no"), ("POST", "/pub/b"), ("DELETE", "/pub"), ("GET", "/pub/c")):
        c.request(method, path, b"body" if method == "POST" else None)
        r = c.getresponse()
        r.read()
        seen.append(r.status)
    assert seen == [200, 403, 200, 403, 200]


def test_chunked_body_and_trailers_pass(web):
    node, port, *_ = web
    got = raw(node, port, b"POST /pub HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", until=is_whole)
    assert got.startswith(b"HTTP/1.1 200")


REFUSED = {
    "length and coding": b"POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "bare LF": b"GET /pub HTTP/1.1\nHost: a\n\n",
    "folded line": b"GET /pub HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "space before the colon": b"GET /pub HTTP/1.1\r\nHost : a\r\n\r\n",
    "no host": b"GET /pub HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /pub HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "encoded slash": b"GET /pub%2f..%2fother HTTP/1.1\r\nHost: a\r\n\r\n",
    "dot segments": b"GET /pub/../other HTTP/1.1\r\nHost: a\r\n\r\n",
    "backslash": b"GET /pub\\other HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL": b"GET /pub HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "coding with 1.0": b"POST /pub HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "signed length": b"POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "coding hidden": b"POST /pub HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_two_readings_are_refused(web, name):
    node, port, proxy, server = web
    assert raw(node, port, b"GET /pub HTTP/1.1\r\nHost: a\r\n\r\n", until=is_whole).startswith(b"HTTP/1.1 200")
    before = server.accepted
    got = raw(node, port, REFUSED[name])
    assert got[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.1 505"), got[:200]
    assert b"x-postern-reason" in got.lower()
    assert got.count(b"HTTP/1.1") == 1, "something after the refused message was answered"
    assert server.accepted == before, "the workload saw it"


def test_slow_head_is_answered_and_ended(node):
    node.start_agent()
    with TcpServer(node.netns, http_one) as server:
        tls, plain = free_port(), free_port()
        node.server_side(tls, server.port, protocol="http", policy=POLICY, extra="timeouts:\n  request_head: 1s\n")
        node.client_side(plain, tls)
        with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=15) as s:
            s.sendall(b"GET /pub HT")
            got = b""
            try:
                while chunk := s.recv(1000):
                    got += chunk
            except ConnectionError:
                pass
            assert got == b"" or got.startswith(b"HTTP/1.1 408"), got
        assert server.accepted == 0


def test_head_too_large(web):
    node, port, _, server = web
    got = raw(node, port, b"GET /pub HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 431") or got == b""
    assert server.accepted == 0


def test_head_as_long_as_may_be(node):
    """The longest head that a configuration can allow passes whole; one line more is said to be too long."""
    node.start_agent()
    with TcpServer(node.netns, http_one) as server:
        tls, plain = free_port(), free_port()
        node.server_side(tls, server.port, protocol="http", policy=POLICY, extra="limits:\n  request_head_bytes: 128KiB\n")
        node.client_side(plain, tls)
        longest = b"GET /pub HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
        fill = b"a" * (128 * 1024 - len(longest))
        got = raw(node, plain, longest.replace(b"X: ", b"X: " + fill), until=is_whole)
        assert got.startswith(b"HTTP/1.1 200") and fill in got
        got = raw(node, plain, longest.replace(b"X: ", b"X: a" + fill))
        assert got.startswith(b"HTTP/1.1 431"), got[:200]
        assert b"x-postern-reason: head_long" in got.lower()
        assert server.accepted == 1


def test_workload_away_is_503(node):
    node.start_agent()
    tls, plain, nobody = free_port(), free_port(), free_port()
    proxy = node.server_side(tls, nobody, protocol="http", policy=POLICY)
    node.client_side(plain, tls)
    r, _ = request(node, plain, "GET", "/pub")
    assert (r.status, r.getheader("x-postern-reason")) == (503, "connect_refused")
    assert proxy.wait_event("request", status=503)["error"] == "Connection refused"


@pytest.mark.parametrize("answer,reason", [(b"SSH-2.0-x\r\n", "protocol"), (b"", "upstream_closed")])
def test_workload_that_speaks_no_http_is_502(node, answer, reason):
    def speak(conn):
        conn.recv(1000)
        conn.sendall(answer)

    node.start_agent()
    with TcpServer(node.netns, speak) as server:
        tls, plain = free_port(), free_port()
        proxy = node.server_side(tls, server.port, protocol="http", policy=POLICY)
        node.client_side(plain, tls)
        r, _ = request(node, plain, "GET", "/pub")
        assert (r.status, r.getheader("x-postern-reason")) == (502, reason)
        assert proxy.wait_event("request", status=502)["reason"] == reason


def test_workload_that_does_not_accept_is_504(node):
    """A backlog that is full answers no SYN; the same on the outbound side is a reset, with the reason in the log."""
    node.start_agent()
    with node.inside():
        deaf = socket.create_server(("127.0.0.1", 0), backlog=0)
        to = deaf.getsockname()
        fill = [socket.socket() for _ in range(3)]
    for s in fill:
        s.setblocking(False)
        s.connect_ex(to)
    tls, plain, other = free_port(), free_port(), free_port()
    proxy = node.server_side(tls, to[1], protocol="http", policy=POLICY, extra="timeouts:\n  connect: 500ms\n")
    node.client_side(plain, tls)
    r, _ = request(node, plain, "GET", "/pub")
    assert (r.status, r.getheader("x-postern-reason")) == (504, "connect_timeout")
    assert proxy.wait_event("request", status=504)["reason"] == "connect_timeout"
    outbound = node.client_side(other, to[1], extra="timeouts:\n  connect: 500ms\n")
    with node.inside(), socket.create_connection(("127.0.0.1", other), timeout=10) as s:
        with pytest.raises(ConnectionResetError):
            s.recv(10)
    assert outbound.wait_event("connection")["reason"] == "connect_timeout"
    for s in (deaf, *fill):
        s.close()


def test_upgrade_passes_through(node):
    """After 101 the connection is a pipe, both ways."""

    def upgrade(conn):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += conn.recv(1)
        assert b"upgrade: echo" in head.lower()
        conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst")
        while data := conn.recv(1000):
            conn.sendall(data)

    node.start_agent()
    with TcpServer(node.netns, upgrade) as server:
        tls, plain = free_port(), free_port()
        node.server_side(tls, server.port, protocol="http", policy=POLICY)
        node.client_side(plain, tls)
        with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
            s.sendall(b"GET /pub HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            got = b""
            while not got.endswith(b"first"):
                got += s.recv(1000)
            assert got.startswith(b"HTTP/1.1 101")
            s.sendall(b"\x00\x01raw")
            assert s.recv(100) == b"\x00\x01raw"
