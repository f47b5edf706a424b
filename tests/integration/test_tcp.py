"""Opaque TCP through two proxies: every byte, both ends' ends, and both failures."""

import hashlib
import os
import re
import signal
import socket
import threading
import time

import pytest
from lab import free_port, wait_for
from node import ALLOW_CLIENT, spiffe_id
from servers import TcpServer, echo, greet_then_echo


def connect(node, port):
    with node.inside():
        return socket.create_connection(("127.0.0.1", port), timeout=20)


@pytest.fixture
def pair(node):
    """make(handler, **options of the server side) -> (client port, client proxy, server proxy, server)."""
    servers = []

    def make(handler, **kw):
        if node.agent is None:
            node.start_agent(ttl=kw.pop("ttl", "1h"))
        server = TcpServer(node.netns, handler)
        servers.append(server)
        tls, plain = free_port(), free_port()
        server_proxy = node.server_side(tls, server.port, **kw)
        client_proxy = node.client_side(plain, tls)
        return plain, client_proxy, server_proxy, server

    yield make
    for s in servers:
        s.close()


def test_server_speaks_first(node, pair):
    port, *_ = pair(greet_then_echo)
    with connect(node, port) as s:
        assert s.recv(100) == b"220 ready\r\n"
        s.sendall(b"a")
        assert s.recv(100) == b"a"


def test_half_close_each_way(node, pair):
    """Our end is announced and the other direction goes on; then theirs ends."""

    def count_then_answer(conn):
        total = 0
        while data := conn.recv(65536):
            total += len(data)
        conn.sendall(b"%d" % total)
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv(1) == b""

    port, client, server, _ = pair(count_then_answer)
    with connect(node, port) as s:
        s.sendall(b"x" * 300_000)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := s.recv(100):
            got += chunk
    assert got == b"300000"
    for p in (client, server):
        e = p.wait_event("connection")
        assert e["reason"] in ("done", "closed"), e


def test_server_ends_first(node, pair):
    def say_and_end(conn):
        conn.sendall(b"all there is")
        conn.shutdown(socket.SHUT_WR)
        rest = b""
        while data := conn.recv(1000):
            rest += data
        assert rest == b"still talking"

    port, *_ = pair(say_and_end)
    with connect(node, port) as s:
        got = b""
        while chunk := s.recv(100):
            got += chunk
        assert got == b"all there is"
        s.sendall(b"still talking")


def test_large_both_ways_whole(node, pair):
    """16 MiB each way at once, in odd pieces: the same bytes come out."""
    blob = os.urandom(1 << 20) * 16
    port, *_ = pair(echo)
    with connect(node, port) as s:

        def send():
            view, at, n = memoryview(blob), 0, 1
            while at < len(blob):
                s.sendall(view[at : at + n])
                at += n
                n = n * 7 % 99991 + 1
            s.shutdown(socket.SHUT_WR)

        t = threading.Thread(target=send)
        t.start()
        h = hashlib.sha256()
        while chunk := s.recv(1 << 16):
            h.update(chunk)
        t.join()
    assert h.digest() == hashlib.sha256(blob).digest()


def test_slow_reader_stops_the_writer(node, pair):
    """Back pressure: what is not read is not taken in, whatever the sender would like to send."""
    gate = threading.Event()

    def sink(conn):
        gate.wait(60)
        while conn.recv(65536):
            pass

    port, client, server, _ = pair(sink)
    with connect(node, port) as s:
        s.setblocking(False)
        sent, full = 0, 0
        deadline_bytes = 256 << 20

        def fill():
            nonlocal sent, full
            try:
                sent += s.send(b"z" * 65536)
                full = 0
            except BlockingIOError:
                full += 1
            return full > 50 or sent > deadline_bytes

        wait_for("the writer to be stopped", fill, timeout=60, interval=0.002)
        assert sent < deadline_bytes, "nothing stopped the writer"
        gate.set()
        s.setblocking(True)


def test_reset_travels(node, pair):
    seen = threading.Event()

    def expect_reset(conn):
        conn.sendall(b"hi")
        try:
            while conn.recv(100):
                pass
        except ConnectionResetError:
            seen.set()

    port, *_ = pair(expect_reset)
    with connect(node, port) as s:
        assert s.recv(10) == b"hi"
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert seen.wait(60), "the workload saw an end where there was a reset"


def test_a_thousand_connections_while_certificates_rotate(node, pair):
    port, client, server, _ = pair(echo, ttl="10s")
    first = client.status()["identity"]["serial"]
    failed = []

    def one(i):
        try:
            with connect(node, port) as s:
                s.sendall(b"n%d" % i)
                if s.recv(100) != b"n%d" % i:
                    failed.append(i)
        except OSError as e:
            failed.append((i, str(e)))

    done = 0
    while done < 1000 or client.status()["identity"]["serial"] == first:
        threads = [threading.Thread(target=one, args=(done + k,)) for k in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        done += 20
        assert done < 20000, "no rotation in sight"
    assert not failed, failed[:5]


def test_policy_reload_ends_what_is_no_longer_allowed(node, pair):
    port, client, server, _ = pair(echo)
    with connect(node, port) as live:
        live.sendall(b"a")
        assert live.recv(10) == b"a"
        server.policy_path.write_text(ALLOW_CLIENT.format(td="test.example").replace("/client]", "/nobody]"))
        server.process.send_signal(signal.SIGHUP)
        live.settimeout(10)
        with pytest.raises(ConnectionResetError):
            live.recv(10)
    assert server.wait_event("connection", reason="policy_changed")["peer_id"] == spiffe_id("client")


def test_a_rule_that_ends_ends_what_it_allowed(node, pair):
    port, client, server, _ = pair(echo)
    policy = ALLOW_CLIENT.format(td="test.example").replace("level: 1", "level: 2")
    assert "level: 2" in policy
    end = time.time() + 4
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    server.policy_path.write_text(re.sub(r"(\n +)action: ALLOW", rf"\1action: ALLOW\1expires: {text}", policy))
    server.process.send_signal(signal.SIGHUP)
    server.wait_event("reloaded")
    with connect(node, port) as live:
        live.sendall(b"a")
        assert live.recv(10) == b"a"
        live.settimeout(20)
        with pytest.raises(ConnectionResetError):
            live.recv(10)
        assert time.time() > int(end), "it ended before its time"
    assert server.wait_event("connection", reason="policy_changed")["peer_id"] == spiffe_id("client")


def test_bad_reload_keeps_the_old_policy(node, pair):
    port, client, server, _ = pair(echo)
    with connect(node, port) as live:
        live.sendall(b"a")
        assert live.recv(10) == b"a"
        server.policy_path.write_text("kind: Policy\nlevel: 1\nrules:\n  - nam: x\n")
        server.process.send_signal(signal.SIGHUP)
        e = server.wait_event("reload_failed")
        assert "policy.yaml:4:5" in e["where"], e
        live.sendall(b"b")
        assert live.recv(10) == b"b"
    with connect(node, port) as again:
        again.sendall(b"c")
        assert again.recv(10) == b"c"
    assert "postern_reload" in server.metrics()


def test_drain_lets_connections_end(node, pair):
    port, client, server, _ = pair(echo)
    with connect(node, port) as live:
        live.sendall(b"a")
        assert live.recv(10) == b"a"
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        live.sendall(b"b")
        assert live.recv(10) == b"b"
        assert server.process.alive()
    wait_for("the drained proxy to end", lambda: not server.process.alive(), timeout=40)
    assert server.process.p.returncode == 0


def test_agent_away_and_back(node, pair):
    port, client, server, _ = pair(echo)
    node.agent.stop(signal.SIGKILL)
    with connect(node, port) as s:
        s.sendall(b"a")
        assert s.recv(10) == b"a"
    node.start_agent()

    def agent_seen():
        return client.status()["identity"]["last_error"] in (None, "")

    wait_for("the proxy to find the new agent", agent_seen, timeout=30)


def test_held_until_the_first_identity(node):
    """A connection that comes before the first SVID waits for it, bounded."""
    with TcpServer(node.netns, echo) as server:
        tls, plain = free_port(), free_port()
        node.write_entries()
        node.write_agent()
        server_proxy = node.server_side(tls, server.port, wait=False)
        client_proxy = node.client_side(plain, tls, wait=False)
        wait_for("the listener", lambda: client_proxy.admin.exists())
        with connect(node, plain) as s:
            s.sendall(b"early")
            node.start_agent()
            assert s.recv(10) == b"early"
        assert server_proxy.wait_identity()


def test_no_identity_in_time_is_a_reset(node):
    port, plain = free_port(), free_port()
    proxy = node.start_proxy(
        "client",
        f"  - name: out\n    direction: outbound\n    capture: explicit\n    address: 127.0.0.1:{plain}\n"
        f"    to: 127.0.0.1:{port}\n    identities: [{spiffe_id('server')}]\n    protocol: tcp\n",
        wait=False,
        policy=None,
    )
    proxy.conf.write_text(proxy.conf.read_text().replace("identity:\n", "identity:\n  wait: 1s\n"))
    proxy.process.stop()
    proxy.process = node.lab.start("client-again", proxy.process.argv)
    wait_for("the listener", lambda: proxy.admin.exists() and proxy.status())
    with connect(node, plain) as s:
        with pytest.raises(ConnectionResetError):
            s.recv(10)
