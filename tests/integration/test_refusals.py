"""Who is refused, and that it is said why. Each case is beside one that passes, so that it can fail."""

import socket
import ssl
import time

import pytest
from lab import free_port, wait_for
from node import spiffe_id
from rogue import DAY, Authority, client_context, server_context, utcnow, write_pem
from servers import TcpServer, echo

from cryptography.x509.oid import ExtendedKeyUsageOID


@pytest.fixture
def inbound(node):
    """A server-side proxy before an echo server, and the agent's root for making certificates."""
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        port = free_port()
        proxy = node.server_side(port, server.port)
        yield node, proxy, port, server, Authority.of_agent(node.state)


def exchange(node, port, ctx, data=b"marker"):
    """What comes back over TLS: the echo, or how the connection was refused."""
    with node.inside():
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        with ctx.wrap_socket(raw, server_hostname="x") as s:
            s.sendall(data)
            got = s.recv(100)
            return got.decode() if got else "closed"
    except ssl.SSLError as e:
        return f"alert {e.reason}"
    except ConnectionError as e:
        return type(e).__name__
    finally:
        raw.close()


CASES = {
    "stranger_identity": (lambda a: a.leaf(spiffe_id("stranger")), None),
    "expired": (lambda a: a.leaf(spiffe_id("client"), not_after=utcnow() - DAY / 24), "expired"),
    "not_yet_valid": (lambda a: a.leaf(spiffe_id("client"), not_before=utcnow() + DAY / 24), "expired"),
    "two_uri_sans": (lambda a: a.leaf(spiffe_id("client"), spiffe_id("server")), "bad_id"),
    "no_san": (lambda a: a.leaf(san=False), "bad_id"),
    "id_without_path": (lambda a: a.leaf("spiffe://test.example"), "bad_id"),
    "upper_case_domain": (lambda a: a.leaf("spiffe://TEST.example/client"), "bad_id"),
    "ca_bit": (lambda a: a.leaf(spiffe_id("client"), ca=True), "bad_leaf"),
    "key_cert_sign": (lambda a: a.leaf(spiffe_id("client"), cert_sign=True), "bad_leaf"),
    "server_only_eku": (lambda a: a.leaf(spiffe_id("client"), eku=[ExtendedKeyUsageOID.SERVER_AUTH]), "bad_leaf"),
    "domain_by_prefix": (lambda a: a.leaf("spiffe://test.example.org/client"), "unknown_trust_domain"),
    "foreign_root": (lambda a: Authority.new("test.example").leaf(spiffe_id("client")), "bad_chain"),
}


@pytest.mark.parametrize("name", CASES)
def test_client_certificate_refused(inbound, name):
    node, proxy, port, server, authority = inbound
    make, step = CASES[name]
    good = write_pem(node.lab.dir, "good", *authority.leaf(spiffe_id("client")))
    assert exchange(node, port, client_context(good)) == "marker"
    before = server.accepted
    bad = write_pem(node.lab.dir, name, *make(authority))
    assert exchange(node, port, client_context(bad)) != "marker"
    assert server.accepted == before, "the workload saw a refused peer"
    if step:
        e = proxy.wait_event("handshake_failed")
        assert e["step"] == step, e
        assert e["error"], e
    else:
        e = proxy.wait_event("connection", reason="policy_denied")
        assert e["peer_id"] == spiffe_id("stranger") and e["decision"], e


def test_no_certificate(inbound):
    node, proxy, port, server, _ = inbound
    assert exchange(node, port, client_context()) != "marker"
    assert proxy.wait_event("handshake_failed")["step"]
    assert server.accepted == 0


def test_tls_1_2_refused(inbound):
    node, proxy, port, server, authority = inbound
    pem = write_pem(node.lab.dir, "c", *authority.leaf(spiffe_id("client")))
    assert exchange(node, port, client_context(pem)) == "marker"
    assert exchange(node, port, client_context(pem, ssl.TLSVersion.TLSv1_2)).startswith("alert")
    proxy.wait_event("handshake_failed")
    assert server.accepted == 1


GARBAGE = {
    "plaintext": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "zeros": b"\x00" * 64,
    "a record too long": b"\x16\x03\x01\xff\xff" + b"A" * 2000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_plaintext_and_garbage_refused(inbound, name):
    first = GARBAGE[name]
    node, proxy, port, server, _ = inbound
    with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(first)
        got = b""
        try:
            while chunk := s.recv(4096):
                got += chunk
        except ConnectionError:
            pass
    assert b"HTTP" not in got and len(got) < 64
    proxy.wait_event("handshake_failed")
    assert server.accepted == 0


def test_slow_handshake_is_ended(node):
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        port = free_port()
        proxy = node.server_side(port, server.port, extra="timeouts:\n  handshake: 1s\n")
        with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            s.sendall(b"\x16\x03\x01")
            start = time.monotonic()
            try:
                assert s.recv(100) == b""
            except ConnectionError:
                pass
            assert time.monotonic() - start < 8
        e = proxy.wait_event("handshake_failed")
        assert "time" in (e["error"] + e["step"]), e


def test_fin_without_close_notify_is_not_an_end(inbound):
    """A TCP FIN that TLS did not announce is truncation: the workload must not take it for the end."""
    node, proxy, port, _, authority = inbound
    pem = write_pem(node.lab.dir, "c", *authority.leaf(spiffe_id("client")))
    with node.inside():
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    s = client_context(pem).wrap_socket(raw, server_hostname="x")
    s.sendall(b"half")
    assert s.recv(100) == b"half"
    s.detach_fd = s.detach()
    socket.socket(fileno=s.detach_fd).close()
    e = proxy.wait_event("connection")
    assert e["reason"] not in ("done", "closed"), e


def test_client_refuses_wrong_server(node):
    """The route's identities are demanded of the server: another identity of the same domain will not do."""
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain, other = free_port(), free_port(), free_port()
        node.server_side(tls, server.port)
        good = node.client_side(plain, tls)
        wrong = node.client_side(other, tls, expect=("stranger",))
        with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
            s.sendall(b"hello")
            assert s.recv(100) == b"hello"
        with pytest.raises(ConnectionResetError):  # which may be there before connect is through
            with node.inside(), socket.create_connection(("127.0.0.1", other), timeout=10) as s:
                s.sendall(b"hello")
                assert s.recv(100) != b"hello"
        e = wrong.wait_event("handshake_failed")
        assert e["peer_id"] == spiffe_id("server"), e
        assert not good.events("handshake_failed")
        assert server.accepted == 1


def test_client_refuses_rogue_server(node):
    node.start_agent()
    authority = Authority.of_agent(node.state)
    rogue = Authority.new("test.example")
    pem = write_pem(node.lab.dir, "rogue", *rogue.leaf(spiffe_id("server")))
    assert authority.cert != rogue.cert

    def serve(conn):
        with server_context(pem).wrap_socket(conn, server_side=True) as s:
            s.sendall(b"stolen")

    with TcpServer(node.netns, serve) as server:
        port = free_port()
        proxy = node.client_side(port, server.port)
        with pytest.raises(ConnectionResetError):
            with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=10) as s:
                assert s.recv(100) == b""
                raise AssertionError("the end of a refused connection must be a reset")
        assert proxy.wait_event("handshake_failed")["step"] == "bad_chain"


def test_refused_by_the_server_in_its_words(node):
    """The other half of a refused handshake: what the server said of our certificate is in our own log."""
    node.start_agent()
    authority, rogue = Authority.of_agent(node.state), Authority.new("test.example")
    ctx = server_context(write_pem(node.lab.dir, "server", *authority.leaf(spiffe_id("server"))))
    ctx.verify_mode = ssl.CERT_REQUIRED
    ctx.load_verify_locations(write_pem(node.lab.dir, "rogue-ca", rogue.cert, rogue.key))

    def serve(conn):
        """The alert, and then patience: a server that hangs up at once may overtake its own alert by a reset."""
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = ctx.wrap_bio(received, to_send, server_side=True)
        try:
            while True:
                try:
                    tls.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    conn.sendall(to_send.read())
                    received.write(conn.recv(65536))
        except ssl.SSLError:
            conn.sendall(to_send.read())
            while conn.recv(1000):
                pass

    with TcpServer(node.netns, serve) as server:
        port = free_port()
        proxy = node.client_side(port, server.port)
        with node.inside(), socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            with pytest.raises(ConnectionResetError):
                s.sendall(b"x")
                s.recv(100)
                s.recv(100)
        e = proxy.wait_event("handshake_failed")
        assert (e["step"], e["alert_received"]) == ("refused", "unknown CA"), e
        assert e["own_id"] == spiffe_id("client") and e["own_not_after"] and e["peer_id"] == spiffe_id("server"), e


def test_no_policy_denies_and_says_how_to_allow(node):
    node.start_agent()
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        proxy = node.server_side(tls, server.port, policy=None)
        node.client_side(plain, tls)
        with node.inside(), pytest.raises(ConnectionResetError):
            # The reset may come before connect() has looked.
            with socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
                s.recv(100)
                s.sendall(b"x")
                s.recv(100)
        e = proxy.wait_event("connection", reason="policy_denied")
        assert "policy" in (e.get("near_miss") or e.get("advice") or ""), e
        assert server.accepted == 0


def test_workload_that_refuses(node):
    """A refused upstream looks like the network's refusal: a reset, and the log says which leg."""
    node.start_agent()
    tls, plain, nobody = free_port(), free_port(), free_port()
    proxy = node.server_side(tls, nobody)
    node.client_side(plain, tls)
    with node.inside(), socket.create_connection(("127.0.0.1", plain), timeout=10) as s:
        with pytest.raises(ConnectionResetError):
            s.sendall(b"x")
            s.recv(100)
            s.sendall(b"x")
            s.recv(100)
    assert proxy.wait_event("connection")["reason"] in ("upstream_refused", "connect_refused")
    wait_for("no connection left", lambda: proxy.status()["connections"] is not None)
