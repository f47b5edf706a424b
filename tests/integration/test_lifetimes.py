"""How long connections go on, in whole processes: docs/lifetimes.md. What time says is tests/handles/revoke's to judge."""

import json
import pathlib
import socket
import subprocess
import sys

import pytest
from lab import free_port, in_netns
from node import spiffe_id
from plain_gateway import Gateways
from servers import TcpServer, echo

HANDLE = pathlib.Path(__file__).resolve().parents[1] / "handles" / "revoke"


def test_the_revoked_go_and_nobody_else_is_looked_at(build):
    """Of 200 connections on two workers 40 are of the identity that a reload denies."""
    p = subprocess.run(
        [sys.executable, HANDLE, "--build", build, "--connections", "200", "--revoked", "40", "--seconds", "0.5"],
        capture_output=True, text=True, timeout=120, check=False,
    )
    assert p.stdout, p.stderr
    result = json.loads(p.stdout)
    assert p.returncode == 0 and result["ok"], (result, p.stderr)
    assert result["cut"] == 40 and result["others_alive"] == 160
    assert result["judged"] == 40, result


@pytest.fixture
def gateways(lab, build):
    return Gateways(lab, build)


def test_status_and_metrics_tell_when(gateways):
    """A certificate of a day; connections end up to the spread before it does."""
    tls, plain = free_port(), free_port()
    cert, key = gateways.pki.issue("both.example", dns=["both.example"])
    own = f"trust: [{{name: ca, ca: {gateways.pki.pem}}}]\ncredentials: [{{name: own, cert: {cert}, key: {key}}}]\nlisteners:\n"
    with TcpServer(gateways.netns, echo) as target:
        server = gateways.start(
            f"{own}  - {{name: in, type: server, address: '127.0.0.1:{tls}', to: '127.0.0.1:{target.port}', credentials: [own],"
            " trust: ca, allow: {any: true}, expiry_grace: 1h, expiry_spread: 1h}\n"
        )
        gateways.start(
            f"{own}  - {{name: out, type: client, address: '127.0.0.1:{plain}', to: '127.0.0.1:{tls}', credentials: [own],"
            " trust: ca, server_name: both.example}\n"
        )
        assert server.status()["lifetimes"] == {"expiring": 0, "next_s": None, "drained": 0, "outlived": 0}
        with in_netns(gateways.netns):
            c = socket.create_connection(("127.0.0.1", plain), timeout=20)
        with c:
            c.sendall(b"x")
            assert c.recv(1) == b"x"
            told = server.status()["lifetimes"]
        assert told["expiring"] == 1 and 21.5 * 3600 < told["next_s"] <= 23 * 3600, told


def test_streams_through_the_end_of_their_sessions_certificates(node):
    """SVIDs of ten seconds. One session carries a stream of a port that may outlive them, and one of a port that may
    not: that one is reset, the other goes on, and who comes then goes by a session of the new SVIDs."""
    warned, cut, hbone, to_warned, to_cut = (free_port() for _ in range(5))
    node.start_agent(ttl="10s")
    with TcpServer(node.netns, echo, warned), TcpServer(node.netns, echo, cut):
        server = node.start_proxy(
            "server",
            f"  - name: in\n    direction: inbound\n    capture: hbone\n    address: 127.0.0.1:{hbone}\n"
            "    expiry_grace: 3s\n    expiry_spread: 0s\n    ports:\n"
            f"      - {{port: {warned}, protocol: tcp, on_expiry: warn}}\n      - {{port: {cut}, protocol: tcp}}\n",
        )
        listener = (
            "  - name: {name}\n    direction: outbound\n    capture: explicit\n    address: 127.0.0.1:{at}\n"
            "    to: 127.0.0.1:{to}\n    identities: [{id}]\n    transport: hbone\n    hbone_port: {hbone}\n    on_expiry: warn\n"
        )
        node.start_proxy(
            "client",
            "".join(listener.format(name=f"to-{at}", at=at, to=to, id=spiffe_id("server"), hbone=hbone)
                    for at, to in ((to_warned, warned), (to_cut, cut))),
        )

        def connect(port):
            with node.inside():
                s = socket.create_connection(("127.0.0.1", port), timeout=20)
            s.sendall(b"x")
            assert s.recv(1) == b"x"
            return s

        with connect(to_warned) as lasting, connect(to_cut) as passing:
            with pytest.raises(ConnectionResetError):
                passing.recv(1)
            line = server.wait_event("connection", reason="certificate_expired", port=cut)
            assert line["transport"] == "hbone"
            warning = server.wait_event("certificate_expired", port=warned)
            assert warning["peer_id"] == spiffe_id("client")
            assert server.wait_event("session_leaves", by="us")
            lasting.sendall(b"y")
            assert lasting.recv(1) == b"y"
            with connect(to_cut) as after:
                after.sendall(b"z")
                assert after.recv(1) == b"z"
            lasting.sendall(b"w")
            assert lasting.recv(1) == b"w"
            assert not server.events("connection", conn=warning["session"]), "the session went first"
        assert 'postern_hbone_sessions_total{direction="inbound"} 1\n' not in server.metrics()
