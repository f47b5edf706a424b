"""Reloads of a gateway while a connection is in the middle of its beginning: what was asked, or judged, before the
change does not hold after it."""

import signal
import ssl
import threading

import pytest
from gateway import Ca, client_context, connect, start_gateway
from lab import free_port, wait_for
from node import UIDS
from servers import TcpServer, echo

ALLOW = "trust: partners, allow: {dns: [a.example]}"


def reload(g):
    done = len(g.events("reloaded"))
    g.process.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(g.events("reloaded")) > done or g.events("reload_failed"))
    assert not g.events("reload_failed")


class Slow:
    """A TLS client that decides when its bytes go out, record by record."""

    def __init__(self, sock, context):
        self.sock, self.out, self.into = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.into, self.out, server_hostname="web.example")
        self.records = []
        self.step()
        self.send(len(self.records))
        while not self.step():
            self.into.write(self.sock.recv(65536))

    def step(self):
        """True: the handshake is done, as far as this side is concerned."""
        try:
            self.tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        data = self.out.read()
        while data:
            n = 5 + int.from_bytes(data[3:5], "big")
            self.records.append(data[:n])
            data = data[n:]
        return done

    def send(self, n):
        for record in self.records[:n]:
            self.sock.sendall(record)
        del self.records[:n]

    def is_ended(self):
        """Nothing that is said now reaches the application."""
        try:
            self.send(len(self.records))
            self.tls.write(b"abc")
            self.sock.sendall(self.out.read())
            while True:
                got = self.sock.recv(65536)
                if not got:
                    return True
                self.into.write(got)
                try:
                    if self.tls.read(3):
                        return False
                except ssl.SSLWantReadError:
                    pass
        except (ssl.SSLError, ConnectionError):
            return True


def start(node, to, **kw):
    """(gateway, port, context of a client that is a.example): one worker, so that what came first is done first."""
    ca = Ca(node.conf, "ca", UIDS["stranger"])
    cert, key = ca.issue("web", dns=["web.example"])
    port = free_port()
    g = start_gateway(
        node,
        "web",
        f"workers: 1\ncredentials: [{{name: web, cert: {cert}, key: {key}}}]\n"
        f"trust: [{{name: partners, ca: {ca.pem}}}]\n"
        f"listeners:\n- {{name: in, type: server, address: 127.0.0.1:{port}, to: {to}, credentials: [web], {ALLOW}}}\n",
        **kw,
    )
    return g, port, client_context(ca, *ca.issue("a", dns=["a.example"]))


@pytest.fixture
def web(node):
    with TcpServer(node.netns, echo) as server:
        yield *start(node, f"127.0.0.1:{server.port}"), server


def pass_by(node, port, context):
    """A whole connection, behind what was sent before."""
    with context.wrap_socket(connect(node, port), server_hostname="web.example") as s:
        s.sendall(b"x")
        assert s.recv(1) == b"x"


def test_judged_before_the_change(node, web):
    """Its certificate is accepted, the end of its handshake comes after its name is no longer allowed."""
    g, port, context, server = web
    with connect(node, port) as sock:
        slow = Slow(sock, context)
        slow.send(len(slow.records) - 1)
        pass_by(node, port, context)
        accepted = server.accepted
        g.rewrite(lambda t: t.replace("[a.example]", "[b.example]"))
        reload(g)
        assert slow.is_ended()
        assert server.accepted == accepted


@pytest.mark.parametrize("begins_with", ["required", "none"])
def test_asked_before_the_change(node, web, begins_with):
    """Clients are asked for a certificate, and from the reload on are not, or the other way round: a handshake that
    began otherwise ends, and nothing else does."""
    g, port, context, server = web
    open_to_all = "client_certificate: none, allow: {any: true}"
    before, after = (ALLOW, open_to_all) if begins_with == "required" else (open_to_all, ALLOW)
    g.rewrite(lambda t: t.replace(ALLOW, before))
    reload(g)
    with connect(node, port) as sock:
        slow = Slow(sock, context)
        g.rewrite(lambda t: t.replace(before, after))
        reload(g)
        assert slow.is_ended()
        assert server.accepted == 0
    pass_by(node, port, context)


def test_held_before_there_were_server_names(node):
    """A connection waits for an address; a reload gives it one, by a server name that is not read yet."""
    with TcpServer(node.netns, echo) as server:
        g, port, context = start(node, f"nowhere.invalid:{server.port}", wait=False)
        wait_for("it to serve", lambda: g.listener("in"))
        with connect(node, port) as sock:
            wait_for("it to be held", lambda: g.listener("in")["open"] == 1)
            sni = f"sni: [{{names: [web.example], to: 127.0.0.1:{server.port}}}]"
            g.rewrite(lambda t: t.replace(ALLOW, f"{ALLOW}, {sni}"))
            reload(g)
            with context.wrap_socket(sock, server_hostname="web.example") as s:
                s.sendall(b"abc")
                assert s.recv(3) == b"abc"


def test_checked_before_the_change(node):
    """A check of a target waits in its handshake while what it goes by is exchanged."""
    ca = Ca(node.conf, "ca", UIDS["stranger"])
    cert, key = ca.issue("far", uri=["spiffe://far.example/db"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(cert), str(key))
    asked, go_on = threading.Event(), threading.Event()

    def late(conn):
        asked.set()
        go_on.wait(20)
        with context.wrap_socket(conn, server_side=True) as s:
            s.recv(1)

    with TcpServer(node.netns, late) as server:
        g = start_gateway(
            node,
            "out",
            f"trust: [{{name: far, bundles: [{{trust_domain: far.example, file: {ca.pem}}}]}}]\n"
            "targets: {check: tls, interval: 1h, timeout: 30s}\n"
            f"listeners:\n- {{name: out, type: client, address: 127.0.0.1:{free_port()}, to: 127.0.0.1:{server.port}, "
            "credentials: none, trust: far, identities: [spiffe://far.example/db]}\n",
            wait=False,
        )
        assert asked.wait(20)
        g.rewrite(lambda t: t.replace("/db]", "/other, spiffe://far.example/db]"))
        reload(g)
        go_on.set()
        g.wait_event("target", notice="up")
