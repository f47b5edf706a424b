"""HBONE as we ask for it, seen by a reference server; and `transport: auto`: what makes us go directly, and what never does."""

import socket
import ssl
import threading
import time

import hbone
import pytest
from hbone_mesh import ALPHA, BETA, POSTERN, HboneMesh
from lab import Lab, in_netns, run, wait_for

N = 12


@pytest.fixture(scope="module")
def mesh(build):
    from node import Node

    with Lab("o") as lab:
        m = HboneMesh(Node(lab, build))
        # An address for each case: sessions are kept, and what is learned, of an address.
        services = m.services("hbone")
        m.hbone, m.auto = ([f"10.77.0.{at + i}" for i in range(N)] for at in (101, 151))
        for ips, transport in ((m.hbone, "hbone"), (m.auto, "auto")):
            for ip in ips:
                run("ip", "-n", m.ns["beta"], "addr", "add", f"{ip}/24", "dev", "eth0")
            services += f"  - name: {transport}s\n    addresses: [{', '.join(ips)}]\n"
            services += f"    identities: ['{BETA}']\n    transport: {transport}\n"
        m.start(mesh=services, extra="workers: 1\n")  # each has a pool and learns by itself
        yield m
        for p in reversed(lab.processes):
            p.stop()
        for p in lab.processes:
            assert "ERROR: AddressSanitizer" not in p.err() and "runtime error:" not in p.err(), p.err()[-6000:]


def server_context(mesh, uri=BETA, **kw):
    return hbone.context(True, mesh.root.svid(uri), mesh.root.pem, mesh.lab.dir, "server-" + uri.rsplit("/", 1)[1], **kw)


@pytest.fixture
def ip(mesh):
    """An address that is reached by `transport: hbone` and was not used yet."""
    return mesh.hbone.pop()


class Peer:
    """A reference server at an address of beta's; answers as `how(link, stream)` says, by default 200 and an echo."""

    def __init__(self, mesh, ip, how=None, uri=BETA, alpn=("h2",), **settings):
        self.how, self.busy = how or (lambda link, s: link.answer(s)), threading.Event()
        with in_netns(mesh.ns["beta"]):
            self.server = hbone.Server(
                server_context(mesh, uri, alpn=alpn), ip, self._serve, **settings
            )

    def _serve(self, link):
        seen, echoed, ended = 0, {}, set()
        while True:
            link.until(lambda: len(link.requests) > seen or self._news(link, echoed, ended), "work")
            while seen < len(link.requests):
                self.how(link, link.requests[seen])
                seen += 1
            for s in self._news(link, echoed, ended):
                if len(s.data) > echoed.get(s.id, 0):
                    link.send(s, s.data[echoed.get(s.id, 0) :])
                    echoed[s.id] = len(s.data)
                if s.ended and s.id not in ended:
                    ended.add(s.id)
                    link.h2.end_stream(s.id)
                    link.flush()

    @staticmethod
    def _news(link, echoed, ended):
        live = [s for s in link.streams.values() if s.reset is None and not getattr(s, "refused", False)]
        return [s for s in live if len(s.data) > echoed.get(s.id, 0) or (s.ended and s.id not in ended)]

    @property
    def links(self):
        return self.server.links

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.close()


def refuse(status):
    def how(link, s):
        s.refused = True
        link.answer(s, status, end=True)

    return how


def dial(mesh, ip, port=8080):
    with mesh.at("postern"):
        return socket.create_connection((ip, port), 20)


def talk(s, data=b"hello"):
    s.settimeout(20)
    try:
        with s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            got = b""
            while chunk := s.recv(1 << 16):
                got += chunk
            return got
    except ConnectionResetError:
        return "reset"


def ask(mesh, ip):
    try:
        return talk(dial(mesh, ip))
    except ConnectionResetError:
        return "reset"  # so quick that it was still connecting


def line_of(mesh, ip, n=1, **want):
    def there():
        lines = mesh.proxy.events("connection", destination=f"{ip}:8080", direction="outbound", **want)
        return lines[n - 1] if len(lines) >= n else None

    return wait_for(f"line {n} of {ip}", there)


# --- what we ask ----------------------------------------------------------------------------------------
def test_the_request_is_a_classic_connect(mesh, ip):
    with Peer(mesh, ip) as peer:
        assert ask(mesh, ip) == b"hello"
        (link,) = peer.links
        assert link.alpn == "h2" and link.names == [POSTERN]
        assert link.requests[0].headers == [(":method", "CONNECT"), (":authority", f"{ip}:8080")]
        line = line_of(mesh, ip)
        assert (line["transport"], line["transport_why"], line["peer_id"]) == ("hbone", "declared", BETA)


def test_ipv6_goes_in_brackets(mesh):
    with Peer(mesh, mesh.ip6["beta"]) as peer:
        assert ask(mesh, mesh.ip6["beta"]) == b"hello"
        assert dict(peer.links[0].requests[0].headers)[":authority"] == f"[{mesh.ip6['beta']}]:8080"


def test_one_session_as_many_streams_as_the_peer_takes(mesh, ip):
    with Peer(mesh, ip, MAX_CONCURRENT_STREAMS=2) as peer:
        first = dial(mesh, ip)
        first.sendall(b"a")
        assert first.recv(1) == b"a"
        more = [dial(mesh, ip) for _ in range(2)]
        for s in more:
            s.sendall(b"b")
        assert [s.recv(1) for s in more] == [b"b", b"b"]
        assert len(peer.links) == 2 and sorted(len(link.requests) for link in peer.links) == [1, 2]
        for s in (first, *more):
            s.close()


def test_goaway_is_honoured(mesh, ip):
    def leave(link, s):
        link.answer(s)
        if len(peer.links) == 1:
            link.h2.close_connection(last_stream_id=s.id)
            link.flush()
            link.h2.state_machine.state = hbone.h2.connection.ConnectionState.SERVER_OPEN

    with Peer(mesh, ip, how=leave) as peer:
        s = dial(mesh, ip)
        s.sendall(b"x")
        assert s.recv(1) == b"x"
        assert ask(mesh, ip) == b"hello"
        assert len(peer.links) == 2
        assert talk(s, b"yz") == b"yz"  # what was open goes on


@pytest.mark.parametrize("status", ["400", "401", "403", "503", "204"])
def test_other_answers_are_refusals(mesh, ip, status):
    with Peer(mesh, ip, how=refuse(status)) as peer:
        assert ask(mesh, ip) == "reset"
        assert len(peer.links[0].requests) == 1  # and are not asked again
        line = line_of(mesh, ip, reason="stream_refused", status=int(status))
        assert line["transport"] == "hbone"


def test_a_reset_stream_is_a_reset(mesh, ip):
    def reset(link, s):
        link.answer(s)
        link.reset(s)

    with Peer(mesh, ip, how=reset):
        s = dial(mesh, ip)
        s.settimeout(20)
        with pytest.raises(ConnectionResetError):
            s.recv(1)


def test_whoever_is_not_expected_gets_no_stream(mesh, ip):
    with Peer(mesh, ip, uri=ALPHA) as peer:
        assert ask(mesh, ip) == "reset"
        assert all(not link.requests for link in peer.links)
        assert line_of(mesh, ip, reason="handshake_failed")["transport"] == "hbone"


# --- auto -----------------------------------------------------------------------------------------------
class DirectServer:
    """mTLS at the destination's own port, as a direct peer has it: an echo."""

    def __init__(self, mesh, ip):
        self.accepted, self.ctx = 0, server_context(mesh, alpn=("postern/1",))
        with in_netns(mesh.ns["beta"]):
            self.sock = socket.create_server((ip, 8080))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                raw, _ = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                with self.ctx.wrap_socket(raw, server_side=True) as s:
                    assert hbone.peer_uri(s) == [POSTERN]
                    s.sendall(s.recv(100))
                    s.unwrap()
            except (OSError, ssl.SSLError):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Port15008:
    """Somebody there who is no HBONE: says `words` to each, or nothing at all."""

    def __init__(self, mesh, ip, words=None):
        with in_netns(mesh.ns["beta"]):
            self.sock = socket.create_server((ip, hbone.PORT))
        self.kept = []
        if words is not None:
            threading.Thread(target=self._run, args=(words,), daemon=True).start()

    def _run(self, words):
        while True:
            try:
                c, _ = self.sock.accept()
                c.recv(1000)
                c.sendall(words)
                self.kept.append(c)
            except OSError:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for c in self.kept:
            c.close()


def test_auto_falls_back_to_mtls(mesh):
    """Nobody, somebody silent, somebody else: direct, with the same peer demanded, and known from then on."""
    for ip, why, obstacle in (
        (mesh.auto[0], "refused", None),
        (mesh.auto[1], "silent", Port15008(mesh, mesh.auto[1])),
        (mesh.auto[2], "not_hbone", Port15008(mesh, mesh.auto[2], b"SSH-2.0-something\r\n")),
        (mesh.auto[3], "not_hbone", Peer(mesh, mesh.auto[3], alpn=("http/1.1",))),
        (mesh.auto[4], "not_hbone", Peer(mesh, mesh.auto[4], alpn=())),
    ):
        with DirectServer(mesh, ip) as direct:
            began = time.monotonic()
            assert ask(mesh, ip) == b"hello", (ip, why)
            took = time.monotonic() - began
            line = line_of(mesh, ip)
            assert (line["transport"], line["transport_why"]) == ("direct", why), line
            assert line["peer_id"] == BETA and line["tls_version"] == "TLSv1.3"
            assert ask(mesh, ip) == b"hello"
            line = line_of(mesh, ip, 2)
            assert (line["transport"], line["transport_why"]) == ("direct", "learned"), line
            assert direct.accepted == 2 and took >= (0.9 if why == "silent" else 0)
            told = mesh.proxy.events("transport_learned", destination=f"{ip}:15008")
            assert [(t["transport"], t["transport_why"], t["for_s"]) for t in told] == [("direct", why, 30)]
        if obstacle is not None:
            obstacle.__exit__()
    assert mesh.proxy.status()["mesh"]["learned"]["direct"] >= 5
    metrics = mesh.proxy.metrics()
    assert 'postern_transport_connections_total{transport="direct",why="silent"} 1' in metrics
    assert 'postern_plaintext_connections_total{by="transport"} 0' in metrics


def test_auto_takes_hbone_and_remembers(mesh):
    ip = mesh.auto[5]
    with DirectServer(mesh, ip) as direct, Peer(mesh, ip) as peer:
        for n, why in ((1, "tried"), (2, "learned")):
            assert ask(mesh, ip) == b"hello"
            line = line_of(mesh, ip, n)
            assert (line["transport"], line["transport_why"]) == ("hbone", why)
        assert len(peer.links) == 1 and direct.accepted == 0
        assert mesh.proxy.status()["mesh"]["learned"]["hbone"] >= 1


def test_auto_waits_for_a_slow_workload(mesh):
    """A second is for finding out whether HBONE is taken; how long the workload takes to answer is not the question."""

    def late(link, s):
        time.sleep(1.5)  # longer than the try may last
        link.answer(s)

    ip = mesh.auto[6]
    with DirectServer(mesh, ip) as direct, Peer(mesh, ip, how=late):
        assert ask(mesh, ip) == b"hello"
        assert direct.accepted == 0 and line_of(mesh, ip)["transport"] == "hbone"


def test_auto_never_goes_round_an_answer(mesh):
    """A denial, and somebody who is not the expected peer, are answers, though directly it could be had."""
    for ip, reason, peer in (
        (mesh.auto[7], "stream_refused", {"how": refuse("401")}),
        (mesh.auto[8], "handshake_failed", {"uri": ALPHA}),
    ):
        with DirectServer(mesh, ip) as direct, Peer(mesh, ip, **peer):
            for n in (1, 2):
                assert ask(mesh, ip) == "reset"
                line = line_of(mesh, ip, n)
                assert (line["transport"], line["reason"]) == ("hbone", reason), line
            assert direct.accepted == 0
