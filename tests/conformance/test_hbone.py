"""HBONE by its clauses, against a reference peer that can be wrong in every way: our listener's answers."""

import socket
import ssl
import threading

import hbone
import pytest
from hbone_mesh import ALPHA, BETA, HboneMesh
from lab import log_events
from pki import Ca
from servers import TcpServer, echo, http_one

WRONG = "a peer that is not let in sees an alert, or the end"


@pytest.fixture(scope="module")
def mesh(build):
    from lab import Lab
    from node import Node

    with Lab("h") as lab:
        m = HboneMesh(Node(lab, build))
        m.start()
        m.workloads = [TcpServer(m.node.netns, echo, 8080, m.ip["postern"]), TcpServer(m.node.netns, http_one, 8081, m.ip["postern"])]
        yield m
        for w in m.workloads:
            w.close()
        for p in reversed(lab.processes):
            p.stop()
        for p in lab.processes:
            assert "ERROR: AddressSanitizer" not in p.err() and "runtime error:" not in p.err(), p.err()[-6000:]


def context(mesh, uri=ALPHA, root=None, **kw):
    leaf = (root or mesh.root).svid(uri)
    return hbone.context(False, leaf, mesh.root.pem, mesh.lab.dir, "client", **kw)


def connect(mesh, ctx=None, to=None, **kw):
    with mesh.at("alpha"):
        return hbone.connect(ctx or context(mesh), to or mesh.ip["postern"], **kw)


@pytest.fixture
def link(mesh):
    one = connect(mesh)
    yield one
    one.close()


def at(mesh, port=8080):
    return f"{mesh.ip['postern']}:{port}"


# --- who gets in ----------------------------------------------------------------------------------------
def test_who_is_not_let_in(mesh):
    foreign = Ca("other root", uri="spiffe://test.example")
    refused = {
        "no certificate": hbone.context(False, None, mesh.root.pem, mesh.lab.dir, "none"),
        "of another root": context(mesh, root=foreign),
        "of another trust domain": context(mesh, uri="spiffe://other.example/ns/default/sa/alpha"),
        "only http/1.1": context(mesh, alpn=("http/1.1",)),
        "TLS 1.2": context(mesh, version=ssl.TLSVersion.TLSv1_2),
    }
    for what, ctx in refused.items():
        with pytest.raises((ssl.SSLError, hbone.Ended, OSError)):
            connect(mesh, ctx)
            pytest.fail(f"{what}: it was let in")


def test_without_alpn_it_is_h2(mesh):
    one = connect(mesh, context(mesh, alpn=()))
    assert one.ask(at(mesh)).status == "200"
    one.close()


def test_our_certificate_is_the_workloads(mesh, link):
    assert hbone.peer_uri(link.sock) == ["spiffe://test.example/ns/default/sa/postern"]
    assert link.sock.version() == "TLSv1.3" and link.sock.selected_alpn_protocol() == "h2"


# --- requests that are none -----------------------------------------------------------------------------
def test_what_is_no_connect_is_refused(mesh, link):
    here = at(mesh)
    connect_ = (":method", "CONNECT")
    cases = {
        "GET": [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", here)],
        "a path": [connect_, (":authority", here), (":path", "/")],
        "a scheme": [connect_, (":authority", here), (":scheme", "https")],
        "extended CONNECT": [connect_, (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), (":authority", here)],
        "no authority": [connect_],
        "two authorities": [connect_, (":authority", here), (":authority", here)],
    }
    for what, headers in cases.items():
        s = link.open(headers)
        link.until(lambda s=s: s.over, f"the refusal of {what}")
        assert s.status == "400" or (s.status is None and s.reset == hbone.PROTOCOL_ERROR), (what, s.headers, s.reset)
    assert link.ask(here).status == "200"  # the connection goes on


def test_authority_is_the_connections_own_address(mesh, link):
    here = mesh.ip["postern"]
    other = mesh.ip["beta"]
    wrong = [
        f"{other}:8080", "127.0.0.1:8080", "localhost:8080", "postern.default.svc:8080", here, f"{here}:", f"{here}:0",
        f"{here}:65536", f"{here}:08080", f"{here}:8080/", f"user@{here}:8080", f"[{here}]:8080", f"{mesh.ip6['postern']}:8080",
        f"[{mesh.ip6['postern']}]:8080", f"::ffff:{here}:8080", f"{here}:8080 ", "",
    ]  # fmt: skip
    for authority in wrong:
        s = link.open(authority=authority)
        link.until(lambda s=s: s.over, f"the refusal of {authority}")
        assert s.status == "400" or (s.status is None and s.reset == hbone.PROTOCOL_ERROR), (authority, s.headers, s.reset)
    assert link.ask(at(mesh)).status == "200"


def test_own_ports_are_no_destination(mesh, link):
    for port in (15008, 15001):
        s = link.ask(at(mesh, port))
        link.take_end(s)
        assert s.status in ("400", "503"), (port, s.headers)


def test_ipv6_in_brackets(mesh):
    with TcpServer(mesh.node.netns, echo, 8083, mesh.ip["postern"]), mesh.at("postern"):
        six = socket.create_server((mesh.ip6["postern"], 8080), family=socket.AF_INET6)
    with mesh.at("alpha"):
        one = hbone.connect(context(mesh), mesh.ip6["postern"])
    s = one.ask(f"[{mesh.ip6['postern']}]:8080")
    assert s.status == "200"
    six.accept()[0].close()
    six.close()
    for wrong in (f"{mesh.ip6['postern']}:8080", at(mesh)):
        s = one.ask(wrong)
        assert s.status == "400", wrong
    one.close()


# --- policy ---------------------------------------------------------------------------------------------
def test_who_may_not_gets_401(mesh):
    other = connect(mesh, context(mesh, BETA))
    before = mesh.workloads[0].accepted
    s = other.ask(at(mesh))
    other.take_end(s)
    assert s.status == "401" and s.ended and s.data == b""
    # No header lends somebody else's name or address.
    lies = [("forwarded", f'for="{mesh.ip["postern"]}:1"'), ("x-forwarded-client-cert", f"URI={ALPHA}"),
            ("baggage", "k8s.namespace.name=default,service.name=alpha"), ("x-istio-source", "waypoint")]  # fmt: skip
    s = other.ask(headers=[(":method", "CONNECT"), (":authority", at(mesh)), *lies])
    assert s.status == "401"
    assert mesh.workloads[0].accepted == before
    line = mesh.proxy.wait_event("connection", reason="policy_denied", peer_id=BETA)
    assert line["port"] == 8080 and line["destination"] == at(mesh)
    other.close()
    mine = connect(mesh)
    assert mine.ask(at(mesh, 8079)).status == "401"  # the port of the authority is the policy's
    assert mine.ask(at(mesh)).status == "200"
    mine.close()


def test_closed_port_is_503(mesh, link):
    s = link.ask(at(mesh, 8082))
    link.take_end(s)
    assert s.status == "503" and s.ended and s.data == b""
    assert link.ask(at(mesh)).status == "200"


def test_http_inside_is_judged_by_request(mesh, link):
    s = link.ask(at(mesh, 8081))
    assert s.status == "200"
    link.send(s, b"GET /pub/1 HTTP/1.1\r\nHost: x\r\n\r\n")
    link.until(lambda: b"GET /pub/1" in s.data, "the answer")
    assert s.data.startswith(b"HTTP/1.1 200")
    n = len(s.data)
    link.send(s, b"GET /private HTTP/1.1\r\nHost: x\r\n\r\n")
    link.until(lambda: b"403" in s.data[n:] or s.over, "the refusal")
    assert s.data[n:].startswith(b"HTTP/1.1 403"), s.data[n:]


# --- bytes and ends -------------------------------------------------------------------------------------
def test_each_direction_ends_on_its_own(mesh, link):
    s = link.ask(at(mesh))
    link.send(s, b"some bytes", end=True)
    assert link.take_end(s) == b"some bytes" and s.ended and s.reset is None

    def talk_first(conn):
        conn.sendall(b"all there is")
        conn.shutdown(socket.SHUT_WR)
        heard.append(conn.recv(100))
        done.set()

    heard, done = [], threading.Event()
    with TcpServer(mesh.node.netns, talk_first, 8083, mesh.ip["postern"]):
        s = link.ask(at(mesh, 8083))
        link.until(lambda: s.ended, "the workload's end")
        assert s.data == b"all there is"
        link.send(s, b"and after that", end=True)
        assert done.wait(60) and heard == [b"and after that"]


def test_resets_pass_both_ways(mesh, link):
    seen, arrived = [], threading.Event()

    def wait_for_reset(conn):
        arrived.set()
        try:
            while conn.recv(100):
                pass
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")
        gone.set()

    def reset(conn):
        conn.recv(100)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    gone = threading.Event()
    with TcpServer(mesh.node.netns, wait_for_reset, 8083, mesh.ip["postern"]):
        s = link.ask(at(mesh, 8083))
        link.send(s, b"x")
        assert arrived.wait(60)
        link.reset(s)
        assert gone.wait(60) and seen == ["reset"]
    with TcpServer(mesh.node.netns, reset, 8083, mesh.ip["postern"]):
        s = link.ask(at(mesh, 8083))
        link.send(s, b"x")
        link.until(lambda: s.over, "the reset")
        assert s.reset is not None
    assert link.ask(at(mesh)).status == "200"


def test_a_stream_that_nobody_reads_stops_no_other(mesh, link):
    def flood(conn):
        try:
            while True:
                conn.sendall(b"x" * 65536)
        except OSError:
            pass

    with TcpServer(mesh.node.netns, flood, 8083, mesh.ip["postern"]):
        link.hold = True  # no window is given back
        full = link.ask(at(mesh, 8083))
        link.until(lambda: len(full.data) >= hbone.WINDOW, "the window to fill")
        link.hold = False
        s = link.ask(at(mesh))
        link.send(s, b"still here", end=True)
        assert link.take_end(s) == b"still here"
        assert len(full.data) == hbone.WINDOW
        link.reset(full)


# --- the connection -------------------------------------------------------------------------------------
def test_settings_and_ping(mesh, link):
    codes = hbone.h2.settings.SettingCodes
    assert link.settings[codes.MAX_CONCURRENT_STREAMS] >= 100
    assert link.settings.get(codes.ENABLE_CONNECT_PROTOCOL, 0) == 0
    assert link.ping() == b"12345678"


def test_hundred_streams_and_the_one_too_many(mesh):
    one = connect(mesh)
    limit = one.settings[hbone.h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS]
    streams = [one.open(authority=at(mesh)) for _ in range(100)]
    one.until(lambda: all(s.headers for s in streams), "100 answers")
    for i, s in enumerate(streams):
        one.send(s, b"%d" % i)
    one.until(lambda: all(s.data for s in streams), "100 echoes")
    assert [s.data for s in streams] == [b"%d" % i for i in range(100)]
    more = [one.open(authority=at(mesh)) for _ in range(limit - 100)]
    one.until(lambda: all(s.headers for s in more), "as many as it takes")
    one.h2.remote_settings.update({hbone.h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: limit + 10})
    one.h2.remote_settings.acknowledge()
    s = one.open(authority=at(mesh))
    try:
        one.until(lambda: s.over, "the refusal of one too many")
        assert s.reset == hbone.REFUSED_STREAM
    except hbone.Ended:  # a peer that knows the limit and breaks it may lose its connection, too
        assert one.goaway == hbone.PROTOCOL_ERROR
    one.close()
    one = connect(mesh)
    assert one.ask(at(mesh)).status == "200"
    one.close()


def test_streams_outlive_the_peers_goaway(mesh):
    one = connect(mesh)
    s = one.ask(at(mesh))
    one.leave()
    one.h2.state_machine.state = hbone.h2.connection.ConnectionState.CLIENT_OPEN  # it said it, and goes on
    one.send(s, b"after GOAWAY", end=True)
    assert one.take_end(s) == b"after GOAWAY"
    one.close()


def test_many_mebibytes_each_way(mesh):
    one = connect(mesh)
    blob = bytes(range(256)) * 4096
    s = one.ask(at(mesh))
    for _ in range(16):
        one.send(s, blob)
    one.h2.end_stream(s.id)
    one.flush()
    assert one.take_end(s) == blob * 16
    one.close()


def test_log_says_what_it_was(mesh, link):
    s = link.ask(at(mesh))
    link.send(s, b"twelve bytes", end=True)
    link.take_end(s)
    line = mesh.proxy.wait_event("connection", reason="done", bytes_up=12)
    assert line["peer_id"] == ALPHA and line["verdict"] == "allow" and line["rule"] == "alpha-everything"
    assert line["transport"] == "hbone" and line["destination"] == at(mesh)
    assert not log_events(mesh.proxy.process.err(), "seccomp_denied")
